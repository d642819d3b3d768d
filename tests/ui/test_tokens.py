"""Tokens of an answer: the style sheet with the likeliest ones, whose texts are untrusted."""

from __future__ import annotations

import math
import re

import pytest

from core.inference.token_probabilities import Alternative, TokenProbability
from core.runtimes.token_text import TokenText
from core.ui.widgets.tokens import css_string, expected_text
from tests.hostile import HOSTILE


@pytest.mark.parametrize(
    "text", ["</style><img src=x>", '"};*{color:red', "\\", "\n\0é🙂", HOSTILE]
)
def test_a_string_of_css_has_nothing_that_ends_it(text: str):
    written = css_string(text)
    assert re.fullmatch(r'"(?:[A-Za-z0-9 ]|\\[0-9a-f]+ )*"', written)
    read = re.sub(r"\\([0-9a-f]+) ", lambda found: chr(int(found[1], 16)), written[1:-1])
    assert read == text


def test_the_token_itself_is_marked_and_is_there_if_it_was_unlikely():
    def token(number: int, text: str) -> TokenText:
        return TokenText(number, text, text.encode())

    likely = tuple(
        Alternative(token(number, text), math.log(share))
        for number, (text, share) in enumerate(((" on", 0.5), (" at", 0.2)))
    )
    lines = expected_text(TokenProbability(likely[1].token, math.log(0.2), likely)).splitlines()
    assert [line.split()[0] for line in lines] == ["50.0", "20.0"]
    assert "␣on" in lines[0] and "✓" not in lines[0] and lines[1].endswith("✓")
    lines = expected_text(TokenProbability(token(9, "x"), math.log(0.01), likely)).splitlines()
    assert len(lines) == 3 and lines[2].endswith("✓") and "1.00 %" in lines[2]
