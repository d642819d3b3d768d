"""App that draws hostile texts as the pages do, each in its own element; started by the tests.

URL parameters: the first ``seed``, the ``count`` of texts, and ``live`` to stream them.
"""

import random
import time

import streamlit as st

import core.ui.instruct.stream_view
from core.inference.job import Phase, Snapshot
from core.ui.instruct.stream_view import Pace, stream_answer
from core.ui.widgets.answer_text import StreamedAnswer, draw_answer, draw_plain
from core.ui.widgets.safe_text import safe_inline
from tests.hostile import mix, pieces_of

core.ui.instruct.stream_view._FAST_DRAW_EVERY_S = 0.0  # draw each piece, so that each is checked


class Replay:
    """Stand-in for a job: a text that arrives in pieces."""

    def __init__(self, pieces: list[str], seed: int) -> None:
        self.id = f"replay_{seed}"
        self._pieces, self._given = pieces, 0

    def wait(self, timeout_s: float) -> bool:
        time.sleep(min(timeout_s, 0.02))
        self._given = min(self._given + 2, len(self._pieces))
        return self._given == len(self._pieces)

    def read(self, start: int) -> tuple[list[str], int]:
        return self._pieces[start : self._given], self._given

    def read_thoughts(self, start: int) -> tuple[list[str], int]:
        """The same text, as thoughts."""
        return self.read(start)

    def snapshot(self) -> Snapshot:
        return Snapshot(Phase.ANSWERING, "Generating.", None, 0, self._given, 1.0, None)


first, count = int(st.query_params["seed"]), int(st.query_params["count"])
for seed in range(first, first + count):
    choose = random.Random(seed)
    text = mix(choose)
    pieces = pieces_of(text, choose)
    if "live" in st.query_params:
        stream_answer(Replay(pieces, seed), Pace.FULL)
        continue
    draw_answer(text, str(seed))
    draw_plain(text, bold=True)
    st.caption(f"Ours · **{safe_inline(text)}** · {safe_inline(mix(choose))}")
    st.button(safe_inline(text), key=f"button_{seed}", help=safe_inline(text))
    moment = StreamedAnswer(st.container())
    moment.feed("".join(pieces[: choose.randint(0, len(pieces))]))
    moment.draw()
st.text("Drawing finished.")
