"""The commands of ``python -m core``; :mod:`core.__main__` defines their options.

A command takes its options and the settings, prints its output and returns an exit code. Failures
are raised as errors of :mod:`core.errors`.
"""
