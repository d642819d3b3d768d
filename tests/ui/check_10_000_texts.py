"""The properties of answers on 10,000 random texts; named in docs/CONTRIBUTING.md."""

from __future__ import annotations

import random

from core.ui.widgets.answer_text import answer_html, plain_html
from core.ui.widgets.safe_text import safe_inline
from tests.exact_texts import code_in
from tests.hostile import active, mix, pieces_of
from tests.random_texts import prose, text
from tests.ui.test_answer_text import Seen, assert_safe, streamed

COUNT = 10_000


def test_code_and_prose_are_exact_and_nothing_is_active() -> None:
    for seed in range(COUNT):
        choose = random.Random(seed)
        for source in (mix(choose), text(choose)):
            assert assert_safe(answer_html(source)).code == code_in(source), (seed, source)
            assert_safe(plain_html(source))
            line = f"A · **{safe_inline(source)}** · {safe_inline(mix(choose))}"
            assert not active(line), (seed, line)
        source = prose(choose)
        assert assert_safe(answer_html(source)).text == source, seed


def test_streamed_code_is_exact() -> None:
    for seed in range(COUNT // 10):
        choose = random.Random(seed)
        source = text(choose)
        elements = streamed(pieces_of(source, choose))
        assert Seen("".join(elements)).code == code_in(source), (seed, source)
