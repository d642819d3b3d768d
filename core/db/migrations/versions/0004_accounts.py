"""Create the tables of accounts, sessions and invitations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create ``accounts``, ``sessions`` and ``invitations``."""
    _create_accounts()
    _create_sessions()
    _create_invitations()


def _create_accounts() -> None:
    text, moment = sa.Text(), sa.DateTime()
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", text, nullable=False),
        sa.Column("key", text, nullable=False),
        sa.Column("look", text, nullable=False),
        sa.Column("password_hash", text, nullable=False),
        sa.Column("device_key", sa.String(64), nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("password_changed_at", moment, nullable=False),
        sa.Column("signed_in_at", moment),
    )
    op.create_index("ix_accounts_key", "accounts", ["key"], unique=True)
    op.create_index("ix_accounts_look", "accounts", ["look"], unique=True)


def _create_sessions() -> None:
    moment = sa.DateTime()
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("account", sa.String(32), _account("fk_sessions_account"), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("seen_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
    )
    op.create_index("ix_sessions_token_hash", "sessions", ["token_hash"], unique=True)
    op.create_index("ix_sessions_account", "sessions", ["account", "created_at"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_index("ix_sessions_seen_at", "sessions", ["seen_at"])


def _create_invitations() -> None:
    number, moment = sa.Integer(), sa.DateTime()
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("made_by", sa.String(32), _account("fk_invitations_made_by"), nullable=False),
        sa.Column("uses", number, nullable=False),
        sa.Column("uses_left", number, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
    )
    op.create_index("ix_invitations_code_hash", "invitations", ["code_hash"], unique=True)
    op.create_index("ix_invitations_made_by", "invitations", ["made_by"])
    op.create_index("ix_invitations_expires_at", "invitations", ["expires_at"])


def _account(name: str) -> sa.ForeignKey:
    return sa.ForeignKey("accounts.id", name=name, ondelete="CASCADE")
