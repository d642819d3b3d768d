"""Remote servers in a browser: one that dies while it answers, and another Paddock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from core.db import Origin
from core.inference.answer import StopReason
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.remotes import RemoteRegistry
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import Settings
from tests.browser.screen import Screen, Stagehand, eventually
from tests.browser.test_compare_page import NEOX, TEXTS, CompareScreen
from tests.remotes.scripted_server import KEY, Handler, ScriptedServer, serving
from tests.waiting import PATIENCE_S


@pytest.fixture
def server(scripted: Stagehand) -> Iterator[ScriptedServer]:
    """Run a server that the app knows as ``office``."""
    book = RemoteRegistry(Settings(home=scripted.home / "paddock"))
    with serving(key=KEY) as script:
        book.add("office", script.url, KEY)
        yield script
    book.remove("office")


def test_dying_remote_does_not_affect_the_local_side(
    scripted: Stagehand, open_screen: Callable[..., Screen], server: ScriptedServer
) -> None:
    half_said, go_on = threading.Event(), threading.Event()

    def die(handler: Handler) -> None:
        handler.begin()
        handler.piece("The remote says ")
        half_said.set()
        go_on.wait(PATIENCE_S)
        handler.hang_up()

    server.answer = die
    scripted.script(TEXTS[NEOX], model=NEOX)
    link = f"{scripted.url}/compare?right_model={quote('remote:office/tiny')}&mode=race"
    compare = CompareScreen(open_screen(link), scripted).ready()
    compare.ask()
    eventually(lambda: "The remote says" in compare.text("B"), "its text so far")
    assert half_said.is_set()
    go_on.set()
    broken = "closed the connection before the answer was complete"
    eventually(lambda: broken in compare.text("B"), "what happened to it")
    eventually(lambda: TEXTS[NEOX] in compare.text("A"), "the other side's answer")
    compare.await_end()
    assert "The remote says" in compare.text("B")
    assert "on office" in compare.text("B")
    assert f"127.0.0.1:{server.port}" in compare.text("B")
    compare.side("B").get_by_text("Tokens B").click()
    compare.side("B").get_by_text("Remote servers do not return all probabilities.").wait_for()
    assert KEY not in compare.page.content() and KEY not in compare.page.url


def test_paddock_as_remote_of_another_paddock(scripted: Stagehand, tmp_path: Path) -> None:
    text = "Rain is quiet. Rain is clean. Nobody else is there."
    scripted.script(text, model=NEOX, released=2)
    engine = Engine(Settings(home=tmp_path / "home"))
    remote = engine.add_remote("other", f"{scripted.url}/v1")
    listing = engine.remotes.directory.ask(remote).result(PATIENCE_S)
    assert listing.error is None and NEOX in listing.models
    spec = ModelSpec.of_remote(f"remote:other/{NEOX}")

    def ask(**sampling: object) -> Job:
        request = GenerationRequest(
            "Why walk?", "It rains.", SamplingSettings(max_new_tokens=60, **sampling)
        )
        return engine.answer(engine.handle(spec), request, origin=Origin.CLI)

    job = ask(top_k=5, repetition_penalty=1.1, seed=3)
    eventually(lambda: job.text, "its first words")
    assert not job.done
    scripted.release(model=NEOX)
    assert job.wait(PATIENCE_S) and job.answer is not None
    answer = job.answer
    assert (answer.error, answer.text, answer.stop_reason) == (None, text, StopReason.END_OF_TEXT)
    assert answer.timings.prompt_tokens > 0
    assert answer.timings.new_tokens >= len(answer.token_times_ms) > 1
    assert "refuses" not in answer.conditions.note and "pieces" not in answer.conditions.note

    scripted.script(text, model=NEOX, released=2)
    stopped = ask()
    eventually(lambda: stopped.text, "its first words")
    stopped.cancel()
    assert stopped.wait(PATIENCE_S)  # the server would not stop by itself
    assert stopped.answer.stop_reason is StopReason.CANCELLED
    eventually(lambda: not scripted.state(NEOX)["running"], "the end over there")
    missing = engine.answer(
        engine.handle(ModelSpec.of_remote("remote:other/no-such")),
        GenerationRequest("Why?"),
        origin=Origin.CLI,
    )
    assert missing.wait(PATIENCE_S) and "has no model 'no-such'" in missing.answer.error_sentence
    engine.close()
