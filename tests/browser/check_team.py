"""Fifty users with accounts generate at once, while two hundred sign in within a minute.

Uses the tiny demo models and the real runtime with required sign-in. Takes minutes and is therefore
not collected: run ``python -m pytest`` with this file's name (``-s`` shows the figures).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import httpx
import psutil
import pytest

from core.auth import Accounts
from core.db import AccountStore, Origin, RunStore
from core.hardware.devices import process_memory
from core.settings import Settings
from tests.browser.conftest import serving
from tests.browser.own_facts import answers_in, instruction
from tests.browser.visitor import Visitor

PEOPLE = 50
SIGN_INS_A_MINUTE = 200
TOKENS = 64
MOST_GROWTH = 1.1
"""Highest ratio of the memory after the second round to that after the first."""
PATIENCE_S = 240.0
PASSWORD = "kettle-marsh-violin"
_TAG = re.compile(r"<[^>]*>")
_CSRF_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


def name_of(number: int) -> str:
    return f"person{number}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    (folder / "paddock").mkdir()
    store = AccountStore.open(Settings(home=folder / "paddock"))
    accounts = Accounts(store, Settings(home=folder / "paddock"))
    for number in range(PEOPLE):  # only administrators can be created without a browser
        accounts.make_administrator(name_of(number), PASSWORD)
    store.close()
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    rules = {"PADDOCK_AUTH": "required", "PADDOCK_FAILURES_PER_ADDRESS": "1000"}
    with serving("streamlit_app.py", home, **rules) as url:
        yield url


def sign_in(url: str, number: int) -> str:
    """Sign in with the form as a browser does and return the cookies."""
    with httpx.Client(base_url=url, timeout=60) as browser:
        csrf_token = _CSRF_TOKEN.search(browser.get("/sign-in").text)
        assert csrf_token
        answer = browser.post(
            "/sign-in",
            data={"csrf_token": csrf_token[1], "name": name_of(number), "password": PASSWORD},
        )
        assert answer.status_code == 303, answer.text
        return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


def ask(url: str, cookies: str, number: int) -> Visitor:
    """Open the page and send an instruction."""
    query = urlencode({"greedy": "true", "tokens": TOKENS})
    visitor = Visitor(f"{url}/instruct?{query}", cookies=cookies)
    visitor.ask(instruction(number))
    return visitor


def read(visitor: Visitor) -> str:
    """Wait for the answer and return the texts of the conversation."""
    visitor.until(lambda: answers_in(conversation(visitor)), "it ends", PATIENCE_S)
    assert not visitor.failures
    return conversation(visitor)


def conversation(visitor: Visitor) -> str:
    """Return the texts of the conversation without their HTML."""
    return _TAG.sub(" ", " ".join(visitor.texts("turns")))


def private_bytes(url: str) -> int:
    """Return the private memory of the server with this URL."""
    port = url.rpartition(":")[2]
    (pid,) = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if port in (process.info["cmdline"] or ())
        and "streamlit.web.cli" in process.info["cmdline"]
    ]
    return process_memory(pid).private_bytes


class SignIns(threading.Thread):
    """Signs users in at a constant rate until it is stopped."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.durations: list[float] = []
        self.failures: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        begun = time.monotonic()
        with ThreadPoolExecutor(16) as people:
            for count in range(SIGN_INS_A_MINUTE):
                wait = begun + count * 60 / SIGN_INS_A_MINUTE - time.monotonic()
                if self.enough.wait(max(0.0, wait)):
                    return
                people.submit(self._one, count % PEOPLE)

    def _one(self, number: int) -> None:
        begun = time.monotonic()
        try:
            sign_in(self.url, number)
        except (AssertionError, httpx.HTTPError) as error:
            self.failures.append(repr(error)[:300])
        self.durations.append(time.monotonic() - begun)


def test_fifty_users_and_two_hundred_sign_ins_per_minute(home: Path, server: str) -> None:
    with ThreadPoolExecutor(8) as people:
        cookies = list(people.map(lambda number: sign_in(server, number), range(PEOPLE)))
    after = []
    for first in (0, PEOPLE):
        crowd = SignIns(server)
        crowd.start()
        begun = time.monotonic()
        with ThreadPoolExecutor(PEOPLE) as people:
            visitors = list(
                people.map(
                    lambda number, first=first: ask(server, cookies[number], first + number),
                    range(PEOPLE),
                )
            )
            texts = list(people.map(read, visitors))
        took = time.monotonic() - begun
        for number, mine in enumerate(texts, first):
            assert answers_in(mine) == [number], mine
        crowd.join(90)
        for visitor in visitors:
            visitor.close()
        assert not crowd.failures and len(crowd.durations) == SIGN_INS_A_MINUTE
        time.sleep(3)
        after.append(private_bytes(server))
        slow = sorted(crowd.durations)
        print(
            f"\n{PEOPLE} answers in {took:.1f} s; {len(slow)} sign-ins, median "
            f"{slow[len(slow) // 2]:.2f} s, 95 % within {slow[int(0.95 * len(slow))]:.2f} s; "
            f"private memory {after[-1] / 1e6:.0f} MB"
        )
    runs = RunStore.open(Settings(home=home / "paddock"))
    assert runs.count(origin=Origin.INSTRUCT) == 2 * PEOPLE, "no request is lost"
    owners = {run.start.owner for run in runs.recent(1000, origin=Origin.INSTRUCT)}
    assert len(owners) == PEOPLE
    runs.close()
    assert after[1] <= MOST_GROWTH * after[0], f"private memory after each round: {after}"
