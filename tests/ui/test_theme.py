"""The colours of both looks: what is written in them can be read."""

from __future__ import annotations

import re
import tomllib
from itertools import product

import pytest

from core.settings import CHECKOUT
from tests.contrast import PARTS, TEXT, contrast, over

WHITE = "#ffffff"
"""In which Streamlit writes on primary buttons, whatever the theme."""

CAPTION = 0.6
"""Opacity of Streamlit's captions."""

LOOKS = ("light", "dark")


def theme(look: str) -> dict[str, str]:
    """The colours of Streamlit's pages, by the names of its options."""
    with (CHECKOUT / ".streamlit" / "config.toml").open("rb") as file:
        return tomllib.load(file)["theme"][look]


def forms(look: str) -> dict[str, str]:
    """The colours of the sign-in pages, by the names of their variables."""
    css = (CHECKOUT / "core" / "server" / "forms.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark if look == "dark" else light))


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#777777") == pytest.approx(4.48, abs=0.01)
    assert contrast("rgb(35, 121, 196)", "#2379c4") == 1


@pytest.mark.parametrize("look", LOOKS)
def test_the_theme_can_be_read(look: str):
    colours = theme(look)
    grounds = (colours["backgroundColor"], colours["secondaryBackgroundColor"])
    assert contrast(WHITE, colours["primaryColor"]) >= TEXT
    for ground in grounds:
        assert contrast(colours["textColor"], ground) >= TEXT
        assert contrast(over(colours["textColor"], ground, CAPTION), ground) >= TEXT
        assert contrast(colours["linkColor"], ground) >= TEXT
    # Sliders and toggles lie on the page, and on its sidebar.
    assert contrast(colours["primaryColor"], grounds[0]) >= PARTS
    assert contrast(colours["primaryColor"], grounds[1]) >= PARTS


@pytest.mark.parametrize("look", LOOKS)
def test_the_sign_in_pages_can_be_read(look: str):
    colours = forms(look)
    pairs = [
        ("on-primary", "primary"),
        ("card", "danger"),  # what is written on a dangerous button
        *product(("text", "quiet", "link", "danger"), ("card",)),
        *product(("text", "quiet"), ("page",)),
        ("text", "field"),
        ("danger", "error-box"),
        ("note", "note-box"),
        ("warning", "warning-box"),
    ]
    told = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: round(ratio, 2) for pair, ratio in told.items() if ratio < TEXT} == {}
    assert contrast(colours["primary"], colours["card"]) >= PARTS  # the ring of what has the focus


@pytest.mark.parametrize("look", LOOKS)
def test_the_sign_in_pages_have_the_colours_of_the_others(look: str):
    pages, signing_in = theme(look), forms(look)
    assert signing_in["on-primary"] == WHITE
    for ours, theirs in (
        ("primary", "primaryColor"),
        ("link", "linkColor"),
        ("text", "textColor"),
        ("line", "borderColor"),
    ):
        assert signing_in[ours] == pages[theirs], ours
