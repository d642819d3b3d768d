"""Servers with variants of OpenAI's protocol: lists, chunks, rejected parameters, proxies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.db import Origin
from core.errors import RemoteError
from core.inference.answer import Answer, StopReason
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.remotes import Remote
from core.remotes.client import proxy_for
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import Settings
from tests.remotes.scripted_server import KEY, Handler, ScriptedServer, free_port
from tests.waiting import PATIENCE_S


@pytest.fixture
def engine(tmp_path: Path, server: ScriptedServer) -> Iterator[Engine]:
    """An engine with the scripted server as its remote."""
    made = Engine(Settings(home=tmp_path / "home", remote_silence_s=PATIENCE_S))
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


def test_chunk_with_null_choices_is_ignored(engine: Engine, server: ScriptedServer) -> None:
    server.answer = deltas(
        {"content": "Four"}, '{"choices": null, "usage": null}', {"content": "."}
    )
    answer = ask(engine)
    assert answer.error is None, answer.error_sentence
    assert answer.text == "Four."


def event(choice: dict[str, Any], **fields: Any) -> str:
    return json.dumps({"choices": [choice], **fields})


FOUR = event({"index": 0, "delta": {"content": "Four."}, "finish_reason": None})
END = event({"index": 0, "delta": {}, "finish_reason": "stop"})


@pytest.mark.parametrize(
    ("kind", "content", "stop"),
    [
        ("event-stream", ["{}", '{"type": "ping"}', "null", "", FOUR, END], "end of text"),
        ("event-stream", ["\ufeff", FOUR, END], "end of text"),
        ("plain", [FOUR, END, "[DONE]"], "end of text"),
        ("event-stream", [event({"delta": "Four."}), END], "end of text"),
        ("event-stream", ['{"choices": {"delta": {"content": "Four."}}}', END], "end of text"),
        (
            "event-stream",
            [event({"index": 1, "delta": "5"}), FOUR, END],
            "end of text",
        ),
        ("event-stream", [FOUR, event({"delta": {}, "finish_reason": "MAX_TOKENS"})], "length"),
        ("json", event({"message": {"content": "Four."}, "finish_reason": "stop"}), "end of text"),
        ("text", event({"message": {"content": "Four."}, "finish_reason": "stop"}), "end of text"),
        ("event-stream", [FOUR, "[DONE]"], "end of text"),
        ("event-stream", [FOUR, '{"choices": [], "usage": {}}', "[DONE]"], "end of text"),
        ("unended", [FOUR, END], "end of text"),
    ],
    ids=[
        *("signs of life", "BOM", "text/plain", "a delta of text"),
        *("one choice", "another choice", "another name of length", "no stream"),
        *("no stream as text", "no reason of the end", "usage at the end", "no blank line"),
    ],
)
def test_answers_of_lenient_servers_are_read(
    kind: str, content: list[str] | str, stop: str, engine: Engine, server: ScriptedServer
) -> None:
    if isinstance(content, str):
        text, kind = content, "application/json" if kind == "json" else "text/plain"
    elif kind == "unended":
        text, kind = "\n\n".join(f"data: {each}" for each in content), "text/event-stream"
    else:
        text, kind = "".join(f"data: {each}\n\n" for each in content), f"text/{kind}"
        text = text.replace("data: \ufeff\n\n", "\ufeff")
    server.answer = lambda handler: handler.reply(200, text, kind)
    answer = ask(engine)
    assert answer.error is None, answer.error_sentence
    assert (answer.text, answer.stop_reason.value) == ("Four.", stop)


@pytest.mark.parametrize(
    "error",
    [
        {"error": "no memory"},
        {"error": {"message": "no memory"}},
        {"object": "error", "message": "no memory", "code": 507},
        {"detail": "no memory"},
    ],
)
def test_error_in_a_stream_is_quoted(
    error: dict[str, Any], engine: Engine, server: ScriptedServer
) -> None:
    server.answer = deltas({"content": "Four"}, json.dumps(error))
    answer = ask(engine)
    assert "its message: no memory" in str(answer.error_sentence) and answer.text == "Four"


def test_error_event_that_is_no_json_is_quoted(engine: Engine, server: ScriptedServer) -> None:
    text = f"data: {FOUR}\n\nevent: error\ndata: no memory\n\n"
    server.answer = lambda handler: handler.reply(200, text, "text/event-stream")
    assert "its message: no memory" in str(ask(engine).error_sentence)


def test_byte_order_mark_in_two_pieces_is_no_text(engine: Engine, server: ScriptedServer) -> None:
    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in (b"\xef\xbb", b"\xbf" + f"data: {FOUR}\n\ndata: {END}\n\n".encode()):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.flush()
            time.sleep(0.05)
        handler.wfile.write(b"0\r\n\r\n")

    server.answer = answer
    assert ask(engine).text == "Four."


@pytest.mark.parametrize("status", [400, 500])
def test_quoted_message_is_printable(status: int, engine: Engine, server: ScriptedServer) -> None:
    error = {"error": {"message": "bad \ud800\x1b[31m red"}}
    server.answer = lambda handler: handler.reply(status, json.dumps(error))
    assert "(its message: bad [31m red)" in str(ask(engine).error_sentence)


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"loc": ["body", "user"], "msg": "at most 100 characters"}]},
        [{"error": {"message": "at most 100 characters"}}],
    ],
    ids=["FastAPI", "a list"],
)
def test_reason_of_a_rejection_is_quoted(body: Any, engine: Engine, server: ScriptedServer) -> None:
    server.answer = lambda handler: handler.reply(422, json.dumps(body))
    assert "(its message: at most 100 characters)" in str(ask(engine).error_sentence)


def test_text_that_is_rejected_by_a_policy_is_sent_once(
    engine: Engine, server: ScriptedServer
) -> None:
    said = "Your text was rejected: seed the temperature of max_tokens"
    error = {"error": {"message": said, "code": "content_policy_violation"}}
    server.answer = lambda handler: handler.reply(400, json.dumps(error))
    assert said in str(ask(engine).error_sentence) and len(server.requests) == 1


def test_request_that_is_repeated_in_an_error_names_no_field(
    engine: Engine, server: ScriptedServer
) -> None:
    def answer(handler: Handler) -> None:
        if "seed" not in handler.body:
            handler.stream(["Four", "."])
            return
        detail = {"input": handler.body, "loc": ["body", "seed"], "msg": "Not permitted"}
        handler.reply(422, json.dumps({"detail": [detail]}))

    server.answer = answer
    assert ask(engine, seed=7).error is None
    assert "max_tokens" in server.requests[-1] and len(server.requests) == 2


def test_answer_of_a_server_that_rejects_streams_is_read(
    engine: Engine, server: ScriptedServer
) -> None:
    def answer(handler: Handler) -> None:
        if "stream" in handler.body:
            error = {"message": "Your organization may not stream this model.", "param": "stream"}
            handler.reply(400, json.dumps({"error": error}))
        else:
            handler.reply(200, event({"message": {"content": "Four."}, "finish_reason": "stop"}))

    server.answer = answer
    found = ask(engine)
    assert found.text == "Four." and "without streaming" in found.conditions.note


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": [{"type": "tool_use", "name": "weather"}]}},
        {"delta": {}, "finish_reason": "tool_calls"},
    ],
    ids=["a part", "a reason of the end"],
)
def test_call_of_a_tool_is_told(
    choice: dict[str, Any], engine: Engine, server: ScriptedServer
) -> None:
    text = f"data: {event(choice)}\n\ndata: {END}\n\n"
    server.answer = lambda handler: handler.reply(200, text, "text/event-stream")
    assert "asked for a tool" in str(ask(engine).error_sentence)


def test_halves_of_a_character_from_two_chunks_are_joined(
    engine: Engine, server: ScriptedServer
) -> None:
    server.answer = deltas({"content": "a \ud83d"}, {"content": "\ude00 \ud83d b"})
    assert ask(engine).text == "a \U0001f600 \ufffd b"


def test_a_value_that_stays_rejected_is_no_rejected_field(
    engine: Engine, server: ScriptedServer
) -> None:
    """The first error names max_tokens, for its value."""
    server.answer = lambda handler: handler.fail(400, "max_tokens is too large: 256")
    assert "is too large" in str(ask(engine).error_sentence)
    server.answer = lambda handler: handler.stream(["Hello."])
    assert ask(engine, max_new_tokens=5).text == "Hello."
    assert server.requests[-1]["max_tokens"] == 5


def test_content_may_be_a_list_of_parts(engine: Engine, server: ScriptedServer) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Two and two."}]}
    part = {"type": "text", "text": "There are four."}
    server.answer = deltas({"content": [thought]}, {"content": [part]})
    answer = ask(engine)
    assert answer.error is None, answer.error_sentence
    assert answer.text == "There are four."


def test_reasoning_between_tags_is_not_part_of_the_answer(
    engine: Engine, server: ScriptedServer
) -> None:
    pieces = ("<think>\nTwo and", " two.\n</think>\n\n", "There are **four**.")
    server.answer = deltas(*({"content": piece} for piece in pieces))
    answer = ask(engine)
    assert answer.text == "There are **four**."
    assert answer.thinking is not None and answer.thinking.text == "Two and two."
    server.answer = deltas({"content": "<think>\n\n</think>\n\nFour."})
    assert ask(engine).text == "Four."


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(
            deltas(
                *({"content": None, "reasoning_content": f"Step {n}. "} for n in range(40)),
                finish="length",
            ),
            ("thinking", "Step 7."),
            id="all thought",
        ),
        pytest.param(
            deltas({"refusal": "I will not count."}),
            ("I will not count.",),
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


SHAPES: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "part": ({"content": {"type": "text", "text": "Four."}}, "Four.", None),
    "output_text": ({"content": [{"type": "output_text", "text": "Four."}]}, "Four.", None),
    "nested text": ({"content": [{"type": "text", "text": {"value": "Four."}}]}, "Four.", None),
    "list of texts": ({"content": ["Fo", "ur."]}, "Four.", None),
    "empty list": ({"content": []}, "", None),
    "nulls": ({"content": None, "reasoning_content": None, "tool_calls": None}, "", None),
    "reasoning": ({"content": "", "reasoning": "Two."}, "", "Two."),
    "thinking": ({"thinking": "Two.", "content": "Four."}, "Four.", "Two."),
    "reasoning twice": (
        {"reasoning": "Two.", "reasoning_details": [{"type": "reasoning.text", "text": "Two."}]},
        "",
        "Two.",
    ),
    "details": (
        {"reasoning_details": [{"type": "reasoning.text", "text": "Two."}]},
        "",
        "Two.",
    ),
    "unknown part": ({"content": [{"type": "image_url", "image_url": {}}]}, "", None),
    "refusal part": ({"content": [{"type": "refusal", "refusal": "No."}]}, "No.", None),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_delta_is_read(shape: str, engine: Engine, server: ScriptedServer) -> None:
    delta, text, thoughts = SHAPES[shape]
    server.answer = deltas(delta, {"content": "!"})
    answer = ask(engine)
    assert answer.error is None, answer.error_sentence
    assert answer.text == f"{text}!"
    assert (answer.thinking and answer.thinking.text) == thoughts


def test_message_in_place_of_a_delta_is_read(engine: Engine, server: ScriptedServer) -> None:
    message = {"index": 0, "message": {"role": "assistant", "content": "Four."}}
    server.answer = deltas(json.dumps({"choices": [message]}))
    assert ask(engine).text == "Four."


def test_refusal_is_noted_with_the_answer(engine: Engine, server: ScriptedServer) -> None:
    server.answer = deltas({"refusal": "I will not count."})
    answer = ask(engine)
    assert answer.text == "I will not count." and "refused" in answer.conditions.note


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


def test_field_that_is_renamed_in_vain_is_an_error(engine: Engine, server: ScriptedServer) -> None:
    server.answer = lambda handler: handler.fail(400, "max_tokens is too large: 20")
    answer = ask(engine, max_new_tokens=20)
    assert "max_tokens is too large" in (answer.error_sentence or "")
    assert len(server.requests) == 2


def test_rejected_temperature_is_left_out_for_this_value_only(
    engine: Engine, server: ScriptedServer
) -> None:
    def answer(handler: Handler) -> None:
        if handler.body.get("temperature", 0) > 1:
            handler.fail(400, "temperature must be at most 1")
        else:
            handler.stream(["Four."])

    server.answer = answer
    assert "without the temperature" in ask(engine, temperature=1.5).conditions.note
    assert "without" not in ask(engine, temperature=0.5).conditions.note
    assert [sent.get("temperature") for sent in server.requests] == [1.5, None, 0.5]


# Model lists


@pytest.mark.parametrize(
    "listing",
    [
        {"object": "list", "data": [{"id": "a"}]},
        [{"id": "a"}],
        {"models": [{"name": "a"}]},
        {"data": [], "models": ["a"]},
        {"data": {"models": [{"id": "a"}]}},
        {"a": {"model_version_status": []}},
    ],
    ids=["data", "bare", "models", "both", "nested", "by name"],
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
        lambda handler: handler.fail(403, "The key may not list models"),
        pytest.param(
            lambda handler: handler.reply(200, '[{"id": "a"}]'),
        ),
        pytest.param(
            lambda handler: handler.reply(200, "<html>Hello</html>", "text/html"),
        ),
    ],
    ids=["none", "not allowed", "bare", "a page"],
)
def test_model_can_be_used_by_name_with_any_model_list(
    listing: Callable[[Handler], None], engine: Engine, server: ScriptedServer
) -> None:
    server.listing = listing
    answer = ask(engine, "a")
    assert answer.error is None, answer.error_sentence
    assert answer.text == "Hello, you."


# Proxies


def remote_at(url: str) -> Remote:
    return Remote("office", url, has_key=False, from_environment=False)


@pytest.mark.parametrize("names", [("http_proxy", "HTTP_PROXY"), ("all_proxy", "ALL_PROXY")])
def test_proxy_from_the_environment_is_used(
    names: tuple[str, str], engine: Engine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
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


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("10.1.2.3:8000", "localhost, 10.0.0.0/8"),
        ("llm.corp.example", "*.corp.example"),
        ("[fd00::1]:8000", "fd00::1"),
    ],
)
def test_no_proxy_has_networks_domains_and_addresses(
    host: str, no_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "HTTP://proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for(remote_at(f"http://{host}/v1")) is None
    assert proxy_for(remote_at("http://192.0.2.1/v1")) == "HTTP://proxy.example:3128"


@pytest.mark.parametrize("proxy", ["http://proxy:80a", "socks5://proxy:1"])
def test_unusable_proxy_is_told(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(RemoteError, match="is not an HTTP proxy"):
        proxy_for(remote_at("http://llm.test/v1"))


def test_key_is_sent_through_the_proxy_for_its_server_only(
    engine: Engine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://someone:secret@127.0.0.1:{server.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    engine.add_remote("office", "http://llm.test/v1", KEY)
    assert ask(engine).error is None
    assert {headers["host"] for headers in server.headers} == {"llm.test"}
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://someone:secret@127.0.0.1:{port}", "through the proxy 127.0.0.1:"),
        ("socks5://127.0.0.1:{port}", "is not an HTTP proxy"),
    ],
)
def test_failure_of_the_proxy_is_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy.format(port=free_port()))
    monkeypatch.delenv("no_proxy", raising=False)
    engine.add_remote("office", "http://llm.test/v1")
    sentence = ask(engine).error_sentence
    assert sentence is not None and words in sentence
    assert "NO_PROXY" in sentence and "secret" not in sentence
