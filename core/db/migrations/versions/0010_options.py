"""Record the options of runs, which only OpenVINO GenAI supports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add ``runs.options``, empty for earlier runs."""
    op.add_column("runs", sa.Column("options", sa.Text(), nullable=False, server_default="{}"))
