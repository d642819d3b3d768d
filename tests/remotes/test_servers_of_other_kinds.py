"""Servers with variants of OpenAI's protocol: lists, chunks, rejected parameters, proxies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.db import Origin
from core.inference.answer import Answer, StopReason
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import Settings
from tests.remotes.scripted_server import Handler, ScriptedServer, free_port

PATIENCE_S = 30.0


def xfail(reason: str) -> pytest.MarkDecorator:
    """Mark a test of behaviour that is not implemented yet."""
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)


@pytest.fixture
def engine(tmp_path: Path, server: ScriptedServer) -> Iterator[Engine]:
    """An engine with the scripted server as its remote."""
    made = Engine(Settings(home=tmp_path / "home", remote_silence_s=5.0))
    made.add_remote("office", server.url)
    yield made
    made.close()


def ask(engine: Engine, model: str = "tiny", **sampling: Any) -> Answer:
    """The answer to one instruction, which may be an error."""
    request = GenerationRequest("How many?", sampling=SamplingSettings(**sampling))
    spec = ModelSpec.of_remote(f"remote:office/{model}")
    job = engine.answer(engine.handle(spec), request, origin=Origin.CLI)
    assert job.wait(PATIENCE_S) and job.answer is not None
    return job.answer


def deltas(*found: dict[str, Any] | str | None, finish: str = "stop") -> Callable[[Handler], None]:
    """An answer with these deltas; a string is sent as a complete event."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for delta in found:
            if isinstance(delta, str):
                handler.send(delta)
            else:
                handler.send(json.dumps({"choices": [{"index": 0, "delta": delta}]}))
        handler.piece(finish=finish)
        handler.end()

    return answer


# Chunks


def test_chunks_without_choices_are_ignored(engine: Engine, server: ScriptedServer) -> None:
    filters = json.dumps({"choices": [], "prompt_filter_results": []})
    server.answer = deltas(filters, {"role": "assistant", "content": ""}, {"content": "Four."})
    assert (ask(engine).text, ask(engine).error) == ("Four.", None)


@xfail("a chunk whose choices are null ends the answer as an error")
def test_chunk_with_null_choices_is_ignored(engine: Engine, server: ScriptedServer) -> None:
    server.answer = deltas(
        {"content": "Four"}, '{"choices": null, "usage": null}', {"content": "."}
    )
    answer = ask(engine)
    assert answer.error is None, answer.error_sentence
    assert answer.text == "Four."


@xfail("content that comes as a list of parts is taken for an error")
def test_content_may_be_a_list_of_parts(engine: Engine, server: ScriptedServer) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Two and two."}]}
    part = {"type": "text", "text": "There are four."}
    server.answer = deltas({"content": [thought]}, {"content": [part]})
    answer = ask(engine)
    assert answer.error is None, answer.error_sentence
    assert answer.text == "There are four."


@xfail("thoughts between <think> tags stand in the answer")
def test_reasoning_between_tags_is_not_part_of_the_answer(
    engine: Engine, server: ScriptedServer
) -> None:
    pieces = ("<think>\nTwo and", " two.\n</think>\n\n", "There are **four**.")
    server.answer = deltas(*({"content": piece} for piece in pieces))
    assert ask(engine).text == "There are **four**."


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(
            deltas(
                *({"content": None, "reasoning_content": f"Step {n}. "} for n in range(40)),
                finish="length",
            ),
            ("thinking", "Step 7."),
            marks=xfail("of an answer that was all thought nothing is told"),
            id="all thought",
        ),
        pytest.param(
            deltas({"refusal": "I will not count."}),
            ("I will not count.",),
            marks=xfail("a refusal is not told"),
            id="refusal",
        ),
        pytest.param(
            deltas(
                {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "1",
                            "type": "function",
                            "function": {"name": "count", "arguments": "{}"},
                        }
                    ]
                },
                finish="tool_calls",
            ),
            ("tool",),
            marks=xfail("that the model asked for a tool is not told"),
            id="tool call",
        ),
    ],
)
def test_content_other_than_text_is_reported(
    answer: Callable[[Handler], None],
    told: tuple[str, ...],
    engine: Engine,
    server: ScriptedServer,
) -> None:
    server.answer = answer
    ended = repr(ask(engine))  # as an error, a note or text
    assert any(words in ended for words in told)


# Rejected parameters


def refusing(*names: str) -> Callable[[Handler], None]:
    """A server that rejects these fields, one after the other, and accepts only
    ``max_completion_tokens`` if ``max_tokens`` is among them."""

    def answer(handler: Handler) -> None:
        for name in names:
            if name not in handler.body:
                continue
            instead = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
            error = {
                "message": f"Unsupported parameter: '{name}' is not supported with this model."
                + instead,
                "type": "invalid_request_error",
                "param": name,
                "code": "unsupported_parameter",
            }
            handler.reply(400, json.dumps({"error": error}))
            return
        handler.stream(["Four", "."])

    return answer


@xfail("a refused parameter is not left out or renamed in a second request")
@pytest.mark.parametrize(
    "names",
    [("max_tokens",), ("temperature",), ("max_tokens", "temperature", "top_p")],
    ids=", ".join,
)
def test_rejected_parameter_is_left_out_or_renamed_and_reported(
    names: tuple[str, ...], engine: Engine, server: ScriptedServer
) -> None:
    server.answer = refusing(*names)
    answer = ask(engine, temperature=0.7, top_p=0.9, max_new_tokens=20)
    assert answer.error is None, answer.error_sentence
    sent = server.requests[-1]
    assert not set(names) & sent.keys()
    assert (sent.get("max_tokens") or sent.get("max_completion_tokens")) == 20
    note = answer.conditions.note.replace("-", "_").replace(" ", "_")
    assert all(name in note for name in set(names) - {"max_tokens"})


# Model lists


@pytest.mark.parametrize(
    "listing",
    [
        {"object": "list", "data": [{"id": "a"}]},
        pytest.param([{"id": "a"}], marks=xfail("a bare list of models is not read")),
        pytest.param({"models": [{"name": "a"}]}, marks=xfail("a list called models is not read")),
    ],
    ids=["data", "bare", "models"],
)
def test_model_list_in_other_formats(listing: Any, engine: Engine, server: ScriptedServer) -> None:
    server.listing = lambda handler: handler.reply(200, json.dumps(listing))
    directory = engine.remotes.directory
    known = directory.ask(directory.book.get("office")).result(PATIENCE_S)
    assert known.models == ("a",), known.error


@pytest.mark.parametrize(
    "listing",
    [
        lambda handler: handler.fail(404, "Not found"),
        pytest.param(
            lambda handler: handler.reply(200, '[{"id": "a"}]'),
            marks=xfail("where the list of models cannot be read, no model can be asked"),
        ),
        pytest.param(
            lambda handler: handler.reply(200, "<html>Hello</html>", "text/html"),
            marks=xfail("where the list of models cannot be read, no model can be asked"),
        ),
    ],
    ids=["none", "bare", "a page"],
)
def test_model_can_be_used_by_name_with_any_model_list(
    listing: Callable[[Handler], None], engine: Engine, server: ScriptedServer
) -> None:
    server.listing = listing
    answer = ask(engine, "a")
    assert answer.error is None, answer.error_sentence
    assert answer.text == "Hello, you."


# Proxies


@xfail("the environment's proxy is not used")
def test_proxy_from_the_environment_is_used(
    engine: Engine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("no_proxy", "localhost")
    engine.add_remote("office", "http://llm.test/v1")
    answer = ask(engine)
    assert answer.error is None, answer.error_sentence
    assert server.headers[-1]["host"] == "llm.test"


def test_no_proxy_from_the_environment_is_respected(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answer = ask(engine)
    assert (answer.error, answer.stop_reason) == (None, StopReason.END_OF_TEXT)
