"""Many answers, measured: sweeps over configurations, each in a process that does nothing else."""
