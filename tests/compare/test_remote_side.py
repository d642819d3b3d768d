"""A local model compared with a model of a remote server, which may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from core.compare.export import to_html, to_json, to_markdown
from core.compare.fit import fit_together
from core.compare.match import Match, SideState
from core.compare.report import describe
from core.compare.setup import Mode, Setup, default_mode
from core.inference.engine import Engine
from core.inference.request import GenerationRequest, User
from core.runtimes.spec import ModelSpec, SamplingSettings
from tests.remotes.scripted_server import KEY, Handler, ScriptedServer, serving
from tests.waiting import PATIENCE_S

TINY = ModelSpec.of_remote("remote:beside/tiny")


@pytest.fixture
def server(engine: Engine) -> Iterator[ScriptedServer]:
    with serving(key=KEY) as script:
        engine.add_remote("beside", script.url, KEY)
        yield script
    engine.remove_remote("beside")


@pytest.fixture
def ask(engine: Engine, spec_of: Callable[..., ModelSpec]) -> Callable[[Mode], Match]:
    def ended(mode: Mode) -> Match:
        request = GenerationRequest("Why?", sampling=SamplingSettings(8, greedy=True))
        setup = Setup((spec_of("gpt_neox"), TINY), request, mode, ("plain", None))
        match = Match(setup, engine, User())
        assert match.wait(PATIENCE_S)
        return match

    return ended


@pytest.mark.parametrize("mode", Mode)
def test_failing_server_does_not_affect_the_other_side(
    ask: Callable[[Mode], Match], server: ScriptedServer, mode: Mode
):
    def die(handler: Handler) -> None:
        handler.begin()
        handler.piece("Half an answer")
        handler.hang_up()

    server.answer = die
    match = ask(mode)
    assert match.state(0) is SideState.DONE and match.answers[0].timings.new_tokens > 0
    assert match.state(1) is SideState.FAILED
    assert "before the answer was complete" in match.error(1)
    assert match.answers[1].text == "Half an answer"


def test_report_has_text_and_host_but_not_the_key(
    engine: Engine, ask: Callable[[Mode], Match], server: ScriptedServer
):
    found = describe(ask(Mode.FAIR), engine.store)
    local, remote = found.sides
    assert remote.label == f"tiny · on beside · remote · 127.0.0.1:{server.port}"
    assert remote.figures.host == f"127.0.0.1:{server.port}" and local.figures.host is None
    assert remote.figures.memory_private_bytes is remote.figures.disk_bytes is None
    assert found.pairs == ()
    texts = [to_markdown(found), to_json(found), to_html(found)]
    for text in texts:
        assert f"127.0.0.1:{server.port}" in text and "over the network" in text
        assert KEY not in text


def test_remote_model_needs_no_memory_and_no_local_device(
    engine: Engine, spec_of: Callable[..., ModelSpec], server: ScriptedServer
):
    local = spec_of("gpt_neox")
    assert fit_together(engine.pool, engine.store, [TINY, TINY]) is None
    assert default_mode([local, TINY]) is Mode.RACE
    assert default_mode([TINY, ModelSpec.of_remote("remote:beside/other")]) is Mode.FAIR
