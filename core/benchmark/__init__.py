"""Benchmark: measures configurations (model, precision, device, runtime), each in its own
process."""
