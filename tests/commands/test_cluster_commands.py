"""``bench --ray`` and ``serve --ray``: what is refused before any cluster is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.__main__ import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    "arguments", [("bench", "--ray", "auto"), ("serve", "--ray", "auto", "paddock-neox")]
)
def test_without_ray_the_sentence_says_how_to_install_it(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, "ray", None)
    told = refused(capsys, *arguments)
    assert told.splitlines() == [
        "Ray is not installed; install it with `pip install -r requirements-cluster.txt`."
    ]


def test_a_resource_alone_chooses_nothing(capsys: pytest.CaptureFixture[str]):
    assert "give --ray too" in refused(capsys, "bench", "--ray-resource", "npu")


def test_serving_needs_exactly_one_thing_to_do(capsys: pytest.CaptureFixture[str]):
    for arguments in ((), ("paddock-neox", "--status"), ("--status", "--stop", "paddock-neox")):
        told = refused(capsys, "serve", "--ray", "auto", *arguments)
        assert told.startswith("Name the models to serve")


def test_an_address_that_others_reach_needs_a_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    asked = ("serve", "--ray", "auto", "--host", "0.0.0.0", "paddock-neox")
    assert "needs an API key" in refused(capsys, *asked)
    keys = tmp_path / "keys"
    keys.write_text("short\n")
    assert "at least 16 characters" in refused(capsys, *asked, "--api-keys", str(keys))
    assert "cannot be read" in refused(capsys, *asked, "--api-keys", str(tmp_path / "none"))
