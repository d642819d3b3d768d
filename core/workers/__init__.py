"""Child processes: start one, exchange JSON lines with it, watch its memory, tell how it ended."""
