"""Changes that several migrations make."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op


def add_before_rounds(column: sa.Column[Any], *, after: str) -> None:
    """Add a column to ``measurements`` before ``rounds``: columns after it are slow to read."""
    recreate = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("measurements", recreate=recreate) as table:
        table.add_column(column, insert_after=after)


def add_to_chart_index(column: str, *, after: str | None = None) -> None:
    """Add a column of ``runs`` to the index for charts, which only SQLite has; by default last."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    indices = sa.inspect(connection).get_indexes("runs")
    (names,) = (each["column_names"] for each in indices if each["name"] == "ix_runs_chart")
    place = len(names) if after is None else names.index(after) + 1
    op.drop_index("ix_runs_chart", "runs")
    op.create_index("ix_runs_chart", "runs", [*names[:place], column, *names[place:]])
