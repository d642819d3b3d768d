"""Record speculation: the setting of runs and measurements, and the guessed tokens of runs."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; earlier rows were generated without speculation."""
    op.add_column("runs", _speculation())
    op.add_column("runs", sa.Column("draft_tokens", sa.Integer()))
    op.add_column("runs", sa.Column("accepted_tokens", sa.Integer()))
    _replace_chart_index(lambda columns: [*columns, "draft_tokens"])
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("measurements", recreate="always" if on_sqlite else "never") as table:
        # before the column "rounds": columns after it are slow to read
        table.add_column(_speculation(), insert_after="hints")


def downgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("measurements") as table:
        table.drop_column("speculation")
    _replace_chart_index(lambda columns: [name for name in columns if name != "draft_tokens"])
    for name in ("speculation", "draft_tokens", "accepted_tokens"):
        op.drop_column("runs", name)


def _replace_chart_index(change: Callable[[list[str]], list[str]]) -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    found = {
        each["name"]: each["column_names"] for each in sa.inspect(connection).get_indexes("runs")
    }
    op.drop_index("ix_runs_chart", "runs")
    op.create_index("ix_runs_chart", "runs", change(found["ix_runs_chart"]))


def _speculation() -> sa.Column[str]:
    return sa.Column("speculation", sa.Text(), nullable=False, server_default="off")
