"""Generation of one answer: request, job, incremental text, timing."""
