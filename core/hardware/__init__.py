"""The machine: devices, drivers, memory."""
