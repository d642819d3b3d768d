"""The parts of the sampling lab."""
