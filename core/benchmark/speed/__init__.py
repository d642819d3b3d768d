"""Speed suite, which compares Paddock's speed with thresholds: ``python -m core bench --suite
speed``."""
