"""The parts of pages are drawn for whoever sits at the machine."""

from tests.pages.conftest import _no_package, visitor, without_rights

__all__ = ["_no_package", "visitor", "without_rights"]
