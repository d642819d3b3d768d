"""Data for charts, and measurements as files: export, import, tables."""
