"""OpenVINO devices, drivers, memory, host and library versions."""
