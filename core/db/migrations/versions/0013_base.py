"""The tables as in :mod:`core.db.tables`, which creates them in a new database.

This migration never runs: new databases start at this revision, and older ones are refused.
"""

revision = "0013"
down_revision = None


def upgrade() -> None:
    """Do nothing."""
