"""Contrast of the colours of the light and the dark theme."""

from __future__ import annotations

import re
import tomllib
from itertools import product

import pytest

from core.settings import CHECKOUT
from tests.contrast import PARTS, TEXT, contrast, over

WHITE = "#ffffff"
"""Text colour of Streamlit's primary buttons in every theme."""

CAPTION = 0.6
"""Opacity of Streamlit's captions."""

LOOKS = ("light", "dark")


def theme(look: str) -> dict[str, str]:
    """Return the colours of the Streamlit theme by option name."""
    with (CHECKOUT / ".streamlit" / "config.toml").open("rb") as file:
        return tomllib.load(file)["theme"][look]


def forms(look: str) -> dict[str, str]:
    """Return the colours of the sign-in pages by CSS variable."""
    css = (CHECKOUT / "core" / "server" / "forms.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark if look == "dark" else light))


def test_contrast_follows_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#777777") == pytest.approx(4.48, abs=0.01)
    assert contrast("rgb(35, 121, 196)", "#2379c4") == 1


@pytest.mark.parametrize("look", LOOKS)
def test_theme_colours_are_readable(look: str):
    colours = theme(look)
    grounds = (colours["backgroundColor"], colours["secondaryBackgroundColor"])
    assert contrast(WHITE, colours["primaryColor"]) >= TEXT
    for ground in grounds:
        assert contrast(colours["textColor"], ground) >= TEXT
        assert contrast(over(colours["textColor"], ground, CAPTION), ground) >= TEXT
        assert contrast(colours["linkColor"], ground) >= TEXT
        assert contrast(colours["grayTextColor"], ground) >= TEXT
    # Sliders and toggles are on the page and in the sidebar.
    assert contrast(colours["primaryColor"], grounds[0]) >= PARTS
    assert contrast(colours["primaryColor"], grounds[1]) >= PARTS


def test_style_sheet_uses_the_theme_colours():
    css = (CHECKOUT / "core" / "ui" / "theme.css").read_text(encoding="utf-8")
    found = re.findall(r"--[a-z]+: light-dark\((#\w+), (#\w+)\); /\* (\w+) \*/", css)
    light, dark = theme("light"), theme("dark")
    assert len(found) == 3
    assert found == [(light[option], dark[option], option) for _, _, option in found]


@pytest.mark.parametrize("look", LOOKS)
def test_sign_in_pages_are_readable(look: str):
    colours = forms(look)
    pairs = [
        ("on-primary", "primary"),
        ("card", "danger"),  # text of a destructive button
        *product(("text", "quiet", "link", "danger"), ("card",)),
        *product(("text", "quiet"), ("page",)),
        ("text", "field"),
        ("danger", "error-box"),
        ("note", "note-box"),
        ("warning", "warning-box"),
    ]
    told = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: round(ratio, 2) for pair, ratio in told.items() if ratio < TEXT} == {}
    assert contrast(colours["primary"], colours["card"]) >= PARTS  # focus ring


@pytest.mark.parametrize("look", LOOKS)
def test_sign_in_pages_use_the_theme_colours(look: str):
    pages, signing_in = theme(look), forms(look)
    assert signing_in["on-primary"] == WHITE
    for ours, theirs in (
        ("primary", "primaryColor"),
        ("link", "linkColor"),
        ("text", "textColor"),
        ("line", "borderColor"),
    ):
        assert signing_in[ours] == pages[theirs], ours
