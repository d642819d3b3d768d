"""The embedded models: two tiny instruction models included with Paddock, and tasks to score them.

How they were trained is in :mod:`core.embedded.training`, which nothing else imports.
"""
