"""The parts of pages are drawn for whoever sits at the machine."""

from tests.pages.conftest import visitor, without_rights

__all__ = ["visitor", "without_rights"]
