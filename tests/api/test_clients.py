"""The ``openai`` and LangChain clients against a running Paddock with its demo models."""

from __future__ import annotations

import json
import math
import socket
from concurrent.futures import ThreadPoolExecutor
from operator import eq
from typing import Any

import httpx
import openai
import pytest
from langchain_core.prompts import PromptTemplate
from langchain_openai import ChatOpenAI
from openai import OpenAI

from core.db import Origin, RunRecord
from core.inference.answer import Answer, StopReason
from core.inference.answer_tokens import answer_tokens
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.server.api_keys import GUEST_KEY
from tests.api.conftest import Served
from tests.waiting import PATIENCE_S, eventually

MODEL = "paddock-neox"
INSTRUCTION = "Name three advantages of being a cat."
CONTEXT = "The old bridge over the river was built in 1874."
CONCURRENT = 32
LONG = {"model": MODEL, "prompt": "The", "max_tokens": 1000, "temperature": 0}
"""Generates all 1000 tokens, which takes most of a second on an idle machine."""


@pytest.fixture(scope="module")
def client(served: Served) -> OpenAI:
    """A guest on this machine."""
    made = OpenAI(base_url=served.base, api_key=GUEST_KEY, timeout=PATIENCE_S, max_retries=0)
    ask(made)  # so that no other test waits until it is loaded
    return made


def ask(client: OpenAI, instruction: str = INSTRUCTION, **options: Any) -> Any:
    return client.chat.completions.create(
        **{
            "model": MODEL,
            "messages": [{"role": "user", "content": instruction}],
            "temperature": 0,
            **options,
        }
    )


def text_of(completion: Any) -> str:
    return completion.choices[0].message.content


def latest(served: Served) -> RunRecord:
    return served.engine.runs.recent(1)[0]


def test_models_are_listed_and_retrieved(client: OpenAI):
    listed = [model.id for model in client.models.list()]
    assert {MODEL, "paddock-llama"} <= set(listed)
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve(f"{MODEL}:int4@cpu+optimum").id == f"{MODEL}:INT4@CPU+optimum"


def test_an_instruction_is_answered_and_recorded(client: OpenAI, served: Served):
    completion = ask(client)
    choice, run = completion.choices[0], latest(served)
    assert choice.finish_reason == "stop" and len(text_of(completion)) > 20
    assert run.start.origin is Origin.API and run.start.instruction == INSTRUCTION
    assert run.result is not None and run.result.text == text_of(completion)
    assert completion.usage.completion_tokens == run.result.new_tokens
    assert completion.usage.prompt_tokens == run.result.prompt_tokens


def test_stream_has_the_same_text_and_ends_with_the_usage(client: OpenAI):
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    texts = [chunk.choices[0].delta.content for chunk in chunks[:-1]]
    assert "".join(filter(None, texts)) == text_of(whole)
    assert chunks[-2].choices[0].finish_reason == "stop"
    # Pieces that are ready together are one chunk, on a busy machine even all of them.
    eventually(lambda: len(list(ask(client, stream=True))) > 4, "it is streamed")


def test_no_part_of_a_stop_sequence_is_sent(client: OpenAI):
    full = text_of(ask(client))
    stop = full[20:26]
    stopped = ask(client, stop=["never there", stop])
    assert text_of(stopped) == full[: full.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    streamed = ask(client, stop=stop, stream=True)
    texts = [chunk.choices[0].delta.content or "" for chunk in streamed]
    assert "".join(texts) == text_of(stopped)


def test_max_completion_tokens_limits_the_answer(client: OpenAI):
    completion = ask(client, max_completion_tokens=5)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 5


def test_seed_reproduces_the_answer(client: OpenAI):
    drawn = [
        text_of(ask(client, temperature=1.5, top_p=1, seed=seed, max_tokens=40))
        for seed in (1, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1


def test_completion_prompt_is_passed_unchanged(client: OpenAI):
    raw = client.completions.create(
        model=MODEL, prompt="The cat", max_tokens=4, temperature=0, echo=True
    )
    assert raw.choices[0].text.startswith("The cat")
    assert raw.usage.prompt_tokens < ask(client, "The cat").usage.prompt_tokens


def test_a_conversation_and_a_context_reach_the_model(client: OpenAI, served: Served):
    ask(
        client,
        messages=[
            {"role": "system", "content": "Answer shortly."},
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": INSTRUCTION},
        ],
        extra_body={"context": CONTEXT},
        max_tokens=3,
    )
    context = latest(served).start.context
    assert [word in context for word in ("Answer shortly.", "Assistant: Hello!", CONTEXT)] == [
        True
    ] * 3


@pytest.mark.parametrize("template", ["{instruction}", "{instruction}\n\nInput:\n{context}"])
def test_langchain_with_the_prompts_of_dollys_model_card(
    client: OpenAI, served: Served, template: str
):
    model = ChatOpenAI(
        base_url=served.base, api_key=GUEST_KEY, model=MODEL, temperature=0, timeout=PATIENCE_S
    )
    chain = PromptTemplate.from_template(template) | model
    asked = {"instruction": "When was the bridge built?", "context": CONTEXT}
    whole = chain.invoke(asked)
    assert whole.content and whole.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in chain.stream(asked)) == whole.content
    if "context" in template:  # the same prompt as the page builds from instruction and context
        by_field = ask(client, "When was the bridge built?", extra_body={"context": CONTEXT})
        assert text_of(by_field) == whole.content
        assert by_field.usage.prompt_tokens == whole.usage_metadata["input_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_above_the_context_length_is_an_error(client: OpenAI, stream: bool):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "word " * 3000, stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_error_of_a_base_url_without_v1_says_so(served: Served):
    without_v1 = OpenAI(base_url=served.url, api_key=GUEST_KEY, max_retries=0)
    for wrong in (without_v1.models.list, lambda: ask(without_v1)):
        with pytest.raises(openai.NotFoundError, match="Add /v1 to the base URL"):
            wrong()


def test_unknown_model_is_404(client: OpenAI):
    for name in ("gpt-5", "dolly-v2-3b", "/etc", "../..", "paddock-neox:INT9"):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, model=name)
        assert caught.value.code == "model_not_found"


def test_incorrect_key_is_rejected_on_this_machine_and_a_key_sets_the_owner(served: Served):
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=served.base, api_key="pdk_" + 43 * "a", max_retries=0).models.list()
    ask(OpenAI(base_url=served.base, api_key=served.key("Ada"), timeout=PATIENCE_S))
    account = served.engine.accounts.find("Ada")
    assert account is not None and latest(served).start.owner == account.id


def test_key_is_required_from_other_machines(served: Served):
    elsewhere = {"X-Forwarded-For": "192.0.2.7"}
    guest = OpenAI(
        base_url=served.base, api_key=GUEST_KEY, default_headers=elsewhere, max_retries=0
    )
    with pytest.raises(openai.AuthenticationError):
        guest.models.list()
    with pytest.raises(openai.AuthenticationError):
        ask(guest)
    key = served.key("Ada")
    known = OpenAI(base_url=served.base, api_key=key, default_headers=elsewhere, max_retries=0)
    assert list(known.models.list())


def test_top_logprobs_of_whole_and_streamed_answers(client: OpenAI, served: Served):
    asked = {"logprobs": True, "top_logprobs": 5, "max_tokens": 12}
    whole = ask(client, **asked, extra_body={"return_token_ids": True}).choices[0]
    tokens = whole.logprobs.content
    assert "".join(token.token for token in tokens).strip() == whole.message.content
    for token in tokens:
        values = [each.logprob for each in token.top_logprobs]
        assert len(values) == 5 and values == sorted(values, reverse=True)
        assert (token.token, token.logprob) == (token.top_logprobs[0].token, values[0])  # greedy
        assert bytes(token.bytes).decode() == token.token and sum(map(math.exp, values)) <= 1.001
    # The same as on the pages
    request = GenerationRequest(INSTRUCTION, sampling=SamplingSettings(greedy=True))
    answer = Answer("", tuple(whole.token_ids), (), StopReason.LENGTH, None)
    page = answer_tokens(served.engine, ModelSpec(MODEL), request, answer).tokens
    for token, shown in zip(tokens, page, strict=True):
        assert token.token == shown.token.text
        expected = [(each.token.text, each.log_probability) for each in shown.alternatives]
        given = [(each.token, each.logprob) for each in token.top_logprobs]
        assert [text for text, _ in given] == [text for text, _ in expected]
        assert [one for _, one in given] == pytest.approx([one for _, one in expected], abs=1e-3)
    streamed = [chunk.choices[0].logprobs for chunk in ask(client, stream=True, **asked)]
    found = [token for each in streamed if each is not None for token in each.content]
    assert [token.token for token in found] == [token.token for token in tokens]
    raw = client.completions.create(model=MODEL, prompt="The cat is", max_tokens=3, logprobs=2)
    assert [len(each) in (2, 3) for each in raw.choices[0].logprobs.top_logprobs] == [True] * 3


def test_32_concurrent_requests_are_all_answered(client: OpenAI):
    def one(seed: int) -> str:
        return text_of(ask(client, temperature=1, seed=seed, max_tokens=8))

    with ThreadPoolExecutor(CONCURRENT) as pool:
        texts = list(pool.map(one, range(CONCURRENT)))
    assert all(texts) and len(set(texts)) > 2
    # Those of a batch may differ in the last bits, which seldom changes one of the first tokens.
    alone = list(map(one, range(CONCURRENT)))
    assert sum(map(eq, texts, alone)) > CONCURRENT * 3 // 4, "each got its own answer"


@pytest.mark.parametrize("stream", [False, True])
def test_closing_the_connection_cancels_the_generation(
    client: OpenAI, served: Served, stream: bool
):
    body = json.dumps(LONG | {"stream": stream})
    host, _, port = served.url.removeprefix("http://").partition(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}"

    def cancelled() -> bool:  # unless this process stalls, so that the answer ends before
        earlier = latest(served)
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            text = f"{head}\r\nContent-Type: application/json\r\n\r\n{body}"
            connection.sendall(text.encode())
            if stream:
                connection.recv(1)
            eventually(lambda: latest(served) != earlier, "it began")
        eventually(lambda: latest(served).result is not None, "the end")
        return latest(served).result.stop_reason == "cancelled"

    assert any(cancelled() for _ in range(10)), "the generation continues"


def test_prometheus_metrics(client: OpenAI, served: Served):
    ask(client)
    answer = httpx.get(f"{served.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    figures = dict(
        line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")
    )
    answered = 'paddock_api_requests_total{method="POST",route="/v1/chat/completions",status="200"}'
    assert float(figures[answered]) >= 1
    assert float(figures["paddock_models_loaded"]) >= 1
    assert float(figures['paddock_process_memory_bytes{kind="private"}']) > 2**20
    of_model = f'{{device="AUTO",model="{MODEL}",precision="int8",runtime="genai"}}'
    assert float(figures[f"paddock_new_tokens_total{of_model}"]) > 0
    assert float(figures[f"paddock_time_to_first_token_seconds_count{of_model}"]) >= 1
    page = httpx.get(f"{served.url}/metrics", headers={"Accept": "text/html,*/*"})
    assert page.text.lstrip().startswith("<!")
    assert httpx.get(f"{served.url}/metrics", headers={"X-Real-IP": "1.2.3.4"}).status_code == 401
