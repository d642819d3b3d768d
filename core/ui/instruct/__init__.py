"""The parts of the Instruct page."""
