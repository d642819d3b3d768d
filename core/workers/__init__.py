"""Child processes: start one, exchange JSON lines with it, end it."""
