"""Add ``cached_tokens`` to the index for charts."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEX = "ix_runs_chart"


def upgrade() -> None:
    """Add the column."""
    _replace_index(lambda columns: [*columns, "cached_tokens"])


def downgrade() -> None:
    """Remove the column."""
    _replace_index(lambda columns: [name for name in columns if name != "cached_tokens"])


def _replace_index(change: Callable[[list[str]], list[str]]) -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    indexes = {
        each["name"]: each["column_names"] for each in sa.inspect(connection).get_indexes("runs")
    }
    op.drop_index(_INDEX, "runs")
    op.create_index(_INDEX, "runs", change(indexes[_INDEX]))
