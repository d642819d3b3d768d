"""The suite that holds Paddock's speed against bars: ``python -m core bench --suite speed``."""
