"""Fixtures of the UI tests: parts of pages are drawn for a guest at this machine."""

from tests.pages.conftest import visitor, without_rights

__all__ = ["visitor", "without_rights"]
