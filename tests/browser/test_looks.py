"""Contrast of the light and the dark theme in a browser."""

from __future__ import annotations

import pytest

from tests.browser.screen import eventually
from tests.contrast import PARTS, TEXT, contrast

COLOUR = "(element) => getComputedStyle(element).color"
GROUND = "(element) => getComputedStyle(element).backgroundColor"
MOVING = "(element) => element.getAnimations().length"
"""Number of transitions, as from one colour to another, that have not ended."""


@pytest.mark.parametrize("look", ["light", "dark"])
def test_buttons_and_selections_are_readable(look: str, scripted, open_screen):
    page = open_screen(f"{scripted.url}/compare", color_scheme=look).page
    button = page.get_by_test_id("stBaseButton-primary")
    eventually(button.is_visible, "the button is there")
    ground = button.evaluate(GROUND)
    assert contrast(button.evaluate(COLOUR), ground) >= TEXT

    text = page.get_by_role("heading", level=1).evaluate(COLOUR)
    group = page.get_by_role("radiogroup", name="How they run")
    value = page.get_by_test_id("stSliderThumbValue").first.locator("p")
    for written in (group.get_by_role("radio", checked=True).locator("p"), value):
        # The colour changes gradually.
        eventually(lambda written=written: written.evaluate(COLOUR) == text, "not the primary one")

    link = page.get_by_role("button", name="Link")
    eventually(link.is_visible, "the button is there")
    ground = page.get_by_test_id("stApp").evaluate(GROUND)

    def readable() -> bool:  # the colour changes gradually
        return contrast(link.evaluate(COLOUR), ground) >= TEXT

    link.hover()
    eventually(readable, "pointed at it can be read")
    link.click()
    eventually(lambda: link.get_attribute("aria-expanded") == "true", "it is open")
    eventually(lambda: not link.evaluate(MOVING), "it has the colour of an open button")
    eventually(readable, "open it can be read")


RING = """() => {
  let element = document.activeElement;
  for (let up = 0; up < 5; up += 1, element = element.parentElement) {
    const style = getComputedStyle(element);
    if (style.outlineStyle === "solid") return [style.outlineWidth, style.outlineColor];
  }
  return [document.activeElement.outerHTML.slice(0, 300), ""];
}"""
"""Width and colour of the ring around what has the focus."""


@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_keyboard_focus_has_a_ring_and_lands_on_the_selected_segment(
    look: str, scripted, open_screen
):
    link = f"{scripted.url}/compare?mode=race"
    screen = open_screen(link, color_scheme=look)
    page = screen.page
    eventually(page.get_by_test_id("stBaseButton-primary").is_visible, "the button is there")
    screen.settled()  # what is drawn anew loses the focus
    ground = page.get_by_test_id("stApp").evaluate(GROUND)
    page.get_by_role("textbox", name="Instruction").focus()
    kinds, group = set(), page.get_by_role("radiogroup", name="How they run")
    while not group.evaluate("(group) => group.contains(document.activeElement)"):
        page.keyboard.press("Tab")
        eventually(lambda: page.evaluate(RING)[0] == "2px", "what has the focus has a ring")
        assert contrast(page.evaluate(RING)[1], ground) >= PARTS
        kinds.add(page.evaluate("document.activeElement.tagName"))
        assert len(kinds) < 6, "the group is not reached"
    assert kinds >= {"BUTTON", "INPUT"}
    first, selected = group.get_by_role("radio").first, group.get_by_role("radio", checked=True)
    assert first.inner_text() != selected.inner_text()
    assert selected.evaluate("(segment) => segment === document.activeElement")
    page.keyboard.press("ArrowLeft")
    assert group.evaluate("(group) => group.contains(document.activeElement)")
    assert not selected.evaluate("(segment) => segment === document.activeElement")

    assert selected.evaluate("(it) => parseFloat(getComputedStyle(it).transitionDuration)") < 0.001
    fonts = "[...document.fonts].map((font) => font.family + ' ' + font.status)"
    wanted = {"Inter loaded", "Manrope loaded"}
    eventually(lambda: wanted <= set(page.evaluate(fonts)), "the fonts come from this server")
