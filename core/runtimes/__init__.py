"""Runtimes: the ``Runtime`` protocol, its implementations, and the pool of loaded models."""
