"""How a model runs: one small protocol, one file a runtime, and the pool that loads them."""
