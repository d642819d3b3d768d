"""Numbered, linear migrations of the run database; Alembic runs them when it is opened."""
