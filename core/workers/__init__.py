"""Child processes: spawn one, talk to it in JSON lines, end it."""
