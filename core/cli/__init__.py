"""What each command of ``python -m core`` does; :mod:`core.__main__` says how they are called.

A command takes its options and the settings, prints, and returns an exit code; what goes wrong is
raised as an error of :mod:`core.errors`.
"""
