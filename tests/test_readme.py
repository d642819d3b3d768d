"""Tests of commands and links in the README and docs, without running the commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from core.__main__ import _parser
from core.settings import CHECKOUT
from tests.readme import blocks, documents
from tests.waiting import PATIENCE_S

MODULE = ["-m", "core"]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def commands() -> list[list[str]]:
    """Return the arguments of every ``python -m core`` line, without comments."""
    lines = [line for kind in ("sh", "bash") for code in blocks(kind) for line in code.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if "python -m core " in line]
    return [words[words.index("core") + 1 :] for words in split if words[1:3] == MODULE]


def test_main_commands_are_shown():
    assert {words[0] for words in commands()} >= {"generate", "bench", "serve", "admin"}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_can_be_parsed(words: list[str]):
    assert callable(_parser().parse_args(words).run)


def test_remote_servers_example_works(tmp_path: Path):
    [shown] = [code for code in blocks("sh", "docs/remotes.md") if "PADDOCK_REMOTES" in code]
    (tmp_path / "key-of-lab.txt").write_text("sesame\n")
    seen = (
        "from core.remotes import RemoteRegistry; from core.settings import load_settings\n"
        "book = RemoteRegistry(load_settings())\n"
        "print(*((each.name, each.url, book.key(each)) for each in book.list()))"
    )
    done = subprocess.run(
        ["bash", "-euc", f'{shown}\nexec "$0" -c "$1"', sys.executable, seen],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.strip() == (
        "('lab', 'https://llm.example/v1', 'sesame') ('office', 'http://box:8000/v3', None)"
    ), done.stderr


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub creates for a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_are_valid(document: Path):
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.resolve().is_relative_to(CHECKOUT) and target.is_file(), link
        assert not anchor or anchor in anchors(target), link
