"""Add owners of runs and votes, OIDC subjects of accounts, and preferences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_GUEST = "guest"


def upgrade() -> None:
    """Assign existing rows, created on this machine without an account, to the guest."""
    for table in ("runs", "votes"):
        op.execute(sa.text(f"UPDATE {table} SET owner = '{_GUEST}' WHERE owner IS NULL"))
    op.add_column("accounts", sa.Column("subject", sa.Text()))
    op.create_index("ix_accounts_subject", "accounts", ["subject"], unique=True)
    op.create_table(
        "preferences",
        sa.Column(
            "account",
            sa.String(32),
            sa.ForeignKey("accounts.id", name="fk_preferences_account", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("choices", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.DateTime(), nullable=False),
    )
