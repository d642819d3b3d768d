"""Numbered, linear migrations of the run database; Alembic runs them at the first open."""
