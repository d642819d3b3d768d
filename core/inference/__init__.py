"""One answer: request, job, incremental text, timing."""
