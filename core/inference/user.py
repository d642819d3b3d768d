"""Whose answers are started."""

from __future__ import annotations

from dataclasses import dataclass

from core.db import GUEST


@dataclass(frozen=True)
class User:
    """The person or program whose answers are started."""

    owner: str = GUEST
    """Account that the answers belong to."""
    lane: str | None = None
    """Key by which limits and turns apply: an account or a guest's page; None: no limits."""
    session: str | None = None
    """Session of the page."""
    browser: str | None = None
    """Id of a guest's browser: its answers end when it has had no open page for a minute."""


COMMAND_LINE = User()
"""A guest without limits."""
