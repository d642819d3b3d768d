"""Tests of answers of remote servers, from the lease to the run table, over loopback HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.db import Origin
from core.errors import BadRequestError, UnknownModelError
from core.inference.answer import Answer, StopReason
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, RuntimeName, SamplingSettings
from core.settings import Settings
from tests.remotes.scripted_server import KEY, Handler, ScriptedServer, free_port, serving
from tests.waiting import PATIENCE_S, eventually

TINY = ModelSpec.of_remote("remote:office/tiny")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as script:
        yield script


@pytest.fixture
def engine(tmp_path: Path, server: ScriptedServer) -> Iterator[Engine]:
    """An engine whose remote is the scripted server."""
    made = Engine(Settings(home=tmp_path / "home", remote_silence_s=PATIENCE_S))
    made.add_remote("office", server.url, KEY)
    yield made
    made.close()


def start(engine: Engine, spec: ModelSpec = TINY, **sampling: object) -> Job:
    request = GenerationRequest("Who?", "A passage.", SamplingSettings(**sampling))
    return engine.answer(engine.handle(spec), request, origin=Origin.INSTRUCT)


def ask(engine: Engine, spec: ModelSpec = TINY, **sampling: object) -> Answer:
    job = start(engine, spec, **sampling)
    assert job.wait(PATIENCE_S)
    assert job.answer is not None
    return job.answer


# Requests and responses


def test_answer_streams_and_the_server_counts_its_tokens(engine: Engine, server: ScriptedServer):
    looked_at = threading.Event()

    def answer_slowly(handler: Handler) -> None:
        handler.begin()
        handler.send(json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}))
        for number, text in enumerate(("Hello", ",", " you", ".")):
            time.sleep(0.03)
            handler.piece(text)
            if number == 0:
                looked_at.wait(PATIENCE_S)
        handler.piece(finish="stop")
        handler.end((7, 9))

    server.answer = answer_slowly
    job = start(engine, seed=5, temperature=0.7, top_p=0.9, max_new_tokens=33)
    eventually(lambda: job.text)
    assert not job.done
    looked_at.set()
    assert job.wait(PATIENCE_S)
    answer = job.answer
    assert answer is not None and answer.error is None
    assert (answer.text, answer.stop_reason) == ("Hello, you.", StopReason.END_OF_TEXT)
    assert (answer.token_ids, len(answer.token_times_ms)) == ((), 4)
    timings = answer.timings
    assert (timings.prompt_tokens, timings.new_tokens) == (7, 9)
    span = answer.token_times_ms[-1] - answer.token_times_ms[0]
    assert timings.tpot_ms == pytest.approx(span / 8)
    assert timings.ttft_ms == pytest.approx(answer.token_times_ms[0])
    assert timings.ttft_ms >= 30
    assert answer.conditions.host == f"127.0.0.1:{server.port}"
    assert answer.conditions.note.startswith(f"over the network, 127.0.0.1:{server.port}")
    assert server.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Who?\n\nA passage."}],
            "max_tokens": 33,
            "temperature": 0.7,
            "top_p": 0.9,
            "seed": 5,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_only_enabled_settings_are_sent(engine: Engine, server: ScriptedServer):
    ask(engine, top_k=40, repetition_penalty=1.3)
    ask(engine, greedy=True, top_k=40)
    sampled, greedy = server.requests
    assert (sampled["top_k"], sampled["repetition_penalty"]) == (40, 1.3)
    assert greedy["temperature"] == 0
    assert not {"top_p", "top_k", "repetition_penalty", "seed"} & greedy.keys()


def test_rejected_fields_are_left_out_and_noted(engine: Engine, server: ScriptedServer):
    def answer(handler: Handler) -> None:
        for name in ("top_k", "stream_options"):
            if name in handler.body:
                handler.fail(400, f"Unrecognized request argument supplied: {name}")
                return
        handler.stream(["Hello"], usage=None)

    server.answer = answer
    ended = ask(engine, top_k=5, repetition_penalty=1.2)
    assert ended.error is None and ended.text == "Hello"
    assert "without top-k, which the server rejects" in ended.conditions.note
    assert server.requests[-1]["repetition_penalty"] == 1.2
    assert len(server.requests) == 3
    assert "without top-k" in ask(engine, top_k=5).conditions.note
    assert len(server.requests) == 4  # it is not tried again


def test_without_usage_chunks_are_counted_and_it_is_noted(engine: Engine, server: ScriptedServer):
    server.answer = lambda handler: handler.stream(["a", "b", "c"], finish="length", usage=None)
    ended = ask(engine)
    assert ended.stop_reason is StopReason.LENGTH
    assert (ended.timings.new_tokens, ended.timings.prompt_tokens) == (3, None)
    assert ended.timings.prefill_tokens_per_s is None
    assert "counted by received chunks" in ended.conditions.note


def test_reasoning_is_kept_apart_from_the_answer(engine: Engine, server: ScriptedServer):
    def answer(handler: Handler) -> None:
        handler.begin()
        handler.send(json.dumps({"choices": [{"delta": {"reasoning_content": "Hm."}}]}))
        handler.piece("Yes.")
        handler.piece(finish="stop")
        handler.end(None)

    server.answer = answer
    ended = ask(engine)
    assert (ended.text, ended.timings.new_tokens) == ("Yes.", 2)
    assert (ended.thinking.text, ended.thinking.tokens) == ("Hm.", 1)


def test_run_table_records_the_server(engine: Engine, server: ScriptedServer):
    ask(engine)
    (run,) = engine.runs.recent(1)
    start_, result = run.start, run.result
    assert (start_.model, start_.title) == ("remote:office/tiny", "tiny")
    assert (start_.runtime, start_.device, start_.precision) == ("remote", "office", "unknown")
    assert start_.host_name == f"127.0.0.1:{server.port}"
    assert start_.host_cpu == start_.host_os == "unknown"
    assert start_.hints["server"] == "Scripted/1.0"
    assert start_.hints["connect_ms"] > 0 and start_.hints["round_trip_ms"] > 0
    assert (result.prompt_tokens, result.new_tokens, result.load_s) == (7, 5, None)
    assert KEY not in repr(run)
    assert engine.last_used() is None  # no server is contacted when the app starts


# Failures


def broken_off(handler: Handler) -> None:
    handler.begin()
    handler.piece("Half an")
    handler.piece(" answer")
    handler.hang_up()


def ended_without_an_end(handler: Handler) -> None:
    handler.begin()
    handler.piece("Half an")
    handler.piece(" answer")
    handler.wfile.write(b"0\r\n\r\n")


def broken_json(handler: Handler) -> None:
    handler.begin()
    handler.piece("Half an answer")
    handler.send('{"choices": [')
    handler.end(None)


def an_error_in_the_stream(handler: Handler) -> None:
    handler.begin()
    handler.piece("Half an answer")
    handler.send(json.dumps({"error": {"message": f"no memory for {KEY}"}}))
    handler.end(None)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (broken_off, "before the answer was complete"),
        (ended_without_an_end, "before the answer was complete"),
        (broken_json, "invalid JSON"),
        (an_error_in_the_stream, "ended the answer with an error (its message: no memory for …)"),
    ],
)
def test_text_before_a_failure_is_kept(
    engine: Engine, server: ScriptedServer, behaviour: Callable[[Handler], None], words: str
):
    server.answer = behaviour
    ended = ask(engine)
    assert ended.stop_reason is StopReason.ERROR
    assert ended.text == "Half an answer"
    assert words in ended.error_sentence and KEY not in ended.error_sentence
    assert engine.runs.recent(1)[0].result.text == "Half an answer"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (lambda h: h.reply(200, "<html>Hi</html>", "text/html"), "text/html instead of a stream"),
        (lambda h: h.reply(200, "{}"), "JSON instead of a stream"),
        (lambda h: h.reply(200, "data: 7\n\n", "text/event-stream"), "OpenAI-compatible"),
        (
            lambda h: h.reply(200, 'data: {"a":1}\n\n', "text/event-stream"),
            "chunks without choices",
        ),
        (
            lambda h: h.reply(
                200, 'data: {"choices":[{"delta":{"content":[1]}}]}\n\n', "text/event-stream"
            ),
            "chunks whose content is not text",
        ),
        (lambda h: h.reply(200, "data: [[[[\n\n", "text/event-stream"), "invalid JSON"),
        (lambda h: h.reply(200, "", "text/event-stream"), "before the answer was complete"),
        (lambda h: h.hang_up(), "closed the connection or does not use HTTP"),
        (
            lambda h: h.fail(401, f"bad key {KEY}"),
            "rejected the API key of office (its message: bad",
        ),
        (lambda h: h.fail(404, "no such model"), "has no model 'tiny'"),
        (lambda h: h.fail(429, "slow down", retry_after="7"), "Try again in 7 seconds"),
        (lambda h: h.fail(500, "out of memory"), "failed with status 500 (its message: out of mem"),
        (lambda h: h.reply(502, "<html>Bad gateway</html>", "text/html"), "failed with status 502"),
        (
            lambda h: h.fail(400, "too long"),
            "rejected the request with status 400 (its message: too",
        ),
        (lambda h: h.reply(307, "", location="http://127.0.0.1:9/"), "redirects requests"),
    ],
)
def test_each_failure_has_a_short_error(
    engine: Engine, server: ScriptedServer, behaviour: Callable[[Handler], None], words: str
):
    server.answer = behaviour
    ended = ask(engine)
    assert ended.stop_reason is StopReason.ERROR
    assert words in ended.error_sentence
    assert KEY not in ended.error_sentence and len(ended.error_sentence) < 400


def test_silent_server_times_out(tmp_path: Path, server: ScriptedServer):
    made = Engine(Settings(home=tmp_path / "other", remote_silence_s=0.2))
    made.add_remote("office", server.url)
    server.answer = lambda handler: handler.wait(PATIENCE_S)
    assert "sent no data for 0.2 seconds" in ask(made).error_sentence
    made.close()


def test_unreachable_server_fails_at_once(engine: Engine):
    engine.add_remote("office", f"http://127.0.0.1:{free_port()}/v1")
    assert "Cannot connect to" in ask(engine).error_sentence


def test_removed_remote_fails(engine: Engine):
    engine.remove_remote("office")
    ended = ask(engine)
    assert isinstance(ended.error, UnknownModelError) and "'office'" in ended.error_sentence


def test_prompt_format_is_rejected_for_remote_models(engine: Engine, server: ScriptedServer):
    request = GenerationRequest("Who?", prompt_format="dolly")
    job = engine.answer(engine.handle(TINY), request, origin=Origin.CLI)
    assert job.wait(PATIENCE_S)
    assert isinstance(job.answer.error, BadRequestError)
    assert server.requests == []


# Stopping


def say_nothing(handler: Handler) -> None:
    handler.wait(PATIENCE_S)


def say_one_word(handler: Handler) -> None:
    handler.begin()
    handler.piece("One")
    handler.wait(PATIENCE_S)


@pytest.mark.parametrize(("behaviour", "text"), [(say_nothing, ""), (say_one_word, "One")])
def test_stop_ends_the_answer_and_closes_the_connection(
    engine: Engine, server: ScriptedServer, behaviour: Callable[[Handler], None], text: str
):
    server.answer = behaviour
    job = start(engine)
    eventually(lambda: server.requests and job.text == text)
    job.cancel()
    assert job.wait(PATIENCE_S / 2), "it waits for the server"
    assert (job.answer.stop_reason, job.answer.text) == (StopReason.CANCELLED, text)
    assert server.disconnected.wait(PATIENCE_S)
    server.answer = lambda handler: handler.stream(["Next"])
    assert ask(engine).text == "Next"


def test_stop_ends_the_answer_while_connecting(engine: Engine, server: ScriptedServer):
    waiting = threading.Event()

    def listing(handler: Handler) -> None:
        waiting.set()
        handler.wait(PATIENCE_S)

    server.listing = listing
    job = start(engine)
    assert waiting.wait(PATIENCE_S)
    job.cancel()
    assert job.wait(PATIENCE_S / 2), "it waits for the server"
    assert job.answer.stop_reason is StopReason.CANCELLED


def test_timeout_applies_to_remotes(tmp_path: Path, server: ScriptedServer):
    made = Engine(Settings(home=tmp_path / "other", generation_timeout_s=5.0))
    made.add_remote("office", server.url)
    assert ask(made).text  # connected, so that the next word comes at once
    server.answer = say_one_word
    ended = ask(made)
    assert (ended.stop_reason, ended.text) == (StopReason.TIMEOUT, "One")
    made.close()


# Concurrency


def test_several_requests_run_on_a_server_at_once(engine: Engine, server: ScriptedServer):
    together = threading.Barrier(6, timeout=PATIENCE_S)

    def answer(handler: Handler) -> None:
        together.wait()
        handler.stream(["Hello"])

    server.answer = answer
    jobs = [start(engine) for _ in range(6)]
    assert all(job.wait(PATIENCE_S) for job in jobs)
    assert [job.answer.text for job in jobs] == ["Hello"] * 6
    assert all(job.answer.contended for job in jobs)


def test_concurrent_requests_are_limited(tmp_path: Path, server: ScriptedServer):
    made = Engine(Settings(home=tmp_path / "other", remote_at_once=2))
    made.add_remote("office", server.url)
    running, most, lock, two = [0], [0], threading.Lock(), threading.Event()

    def answer(handler: Handler) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if most[0] == 2:
                two.set()
        two.wait(PATIENCE_S)
        time.sleep(0.05)  # for a third one, which there must not be
        with lock:
            running[0] -= 1
        handler.stream(["Hello"])

    server.answer = answer
    jobs = [start(made) for _ in range(5)]
    assert all(job.wait(PATIENCE_S) for job in jobs)
    assert most == [2]
    made.close()


def test_local_work_is_contention_for_local_servers_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    from core.inference.contention import MONITOR
    from core.remotes import Remote

    with MONITOR.running():
        assert ask(engine).contended  # the server is on this machine
    monkeypatch.setattr(Remote, "on_this_machine", False)
    with MONITOR.running() as here:
        assert not ask(engine).contended
    assert not here.contended


# Names


def test_remote_spec_is_parsed_from_its_name():
    spec = ModelSpec.of_remote("remote:office/org/large-model")
    assert spec.remote and spec.runtime is RuntimeName.REMOTE
    assert spec.label == "org/large-model · on office"
    assert spec.words == ("on office", "remote")
    assert spec.precision_name == "unknown"
    assert spec == ModelSpec.of_remote("remote:office/org/large-model")


def test_remote_models_are_not_downloaded_or_converted(engine: Engine):
    with pytest.raises(UnknownModelError, match="remote server"):
        engine.store.resolve("remote:office/tiny")
