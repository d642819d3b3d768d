"""Contrast of the light and the dark theme in a browser."""

from __future__ import annotations

import pytest

from tests.browser.screen import eventually
from tests.contrast import TEXT, contrast

COLOUR = "(element) => getComputedStyle(element).color"
GROUND = "(element) => getComputedStyle(element).backgroundColor"
OPACITY = "(element) => getComputedStyle(element).opacity"


@pytest.mark.parametrize("look", ["light", "dark"])
def test_primary_buttons_and_selections_are_readable(look: str, scripted, open_screen):
    page = open_screen(f"{scripted.url}/instruct", color_scheme=look).page
    button = page.get_by_test_id("stBaseButton-primary")
    shortcut = button.locator("kbd")
    eventually(shortcut.is_visible, "the button is there")
    ground = button.evaluate(GROUND)
    for written in (button, shortcut):
        assert contrast(written.evaluate(COLOUR), ground) >= TEXT
    assert shortcut.evaluate(OPACITY) == "1"

    text = page.get_by_role("heading", level=1).evaluate(COLOUR)
    group = page.get_by_role("radiogroup", name="Precision")
    value = page.get_by_test_id("stSliderThumbValue").first.locator("p")
    for written in (group.get_by_role("radio", checked=True).locator("p"), value):
        assert written.evaluate(COLOUR) == text, "in the primary colour, which is for grounds"


@pytest.mark.parametrize("look", ["light", "dark"])
def test_hovered_and_open_buttons_are_readable(look: str, scripted, open_screen):
    page = open_screen(f"{scripted.url}/compare", color_scheme=look).page
    link = page.get_by_role("button", name="Link")
    eventually(link.is_visible, "the button is there")
    ground = page.get_by_test_id("stApp").evaluate(GROUND)

    def readable() -> bool:  # the colour changes gradually
        return contrast(link.evaluate(COLOUR), ground) >= TEXT

    link.hover()
    eventually(readable, "pointed at it can be read")
    link.click()
    eventually(lambda: link.get_attribute("aria-expanded") == "true", "it is open")
    page.wait_for_timeout(500)  # until the transition to the colour of an open button has ended
    eventually(readable, "open it can be read")
