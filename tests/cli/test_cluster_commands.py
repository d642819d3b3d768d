"""``bench --ray`` and ``serve --ray``: errors before a cluster is connected."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from core.__main__ import main
from core.errors import ClusterError


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    "arguments", [("bench", "--ray", "auto"), ("serve", "--ray", "auto", "paddock-neox")]
)
def test_missing_ray_is_reported_with_install_command(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, "ray", None)
    told = refused(capsys, *arguments)
    assert told.splitlines() == [
        "Ray is not installed. Install it with `pip install -r requirements-cluster.txt`."
    ]


def test_ray_resource_requires_ray(capsys: pytest.CaptureFixture[str]):
    assert "Add --ray." in refused(capsys, "bench", "--ray-resource", "npu")


def test_serve_requires_exactly_one_action(capsys: pytest.CaptureFixture[str]):
    for arguments in ((), ("paddock-neox", "--status"), ("--status", "--stop", "paddock-neox")):
        told = refused(capsys, "serve", "--ray", "auto", *arguments)
        assert told.startswith("Name the models to serve")


def test_public_address_requires_an_api_key(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    asked = ("serve", "--ray", "auto", "--host", "0.0.0.0", "paddock-neox")
    assert "an API key is required" in refused(capsys, *asked)
    keys = tmp_path / "keys"
    keys.write_text("short\n")
    assert "at least 16 characters" in refused(capsys, *asked, "--api-keys", str(keys))
    assert "cannot be read" in refused(capsys, *asked, "--api-keys", str(tmp_path / "none"))


def test_gateway_has_its_keys_before_models_are_deployed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    done: list[Any] = []

    class Served:
        def __init__(self, ray: object) -> None:
            pass

        def listen(self, host: str, port: int) -> str:
            return f"http://{host}:{port}"

        def deploy_gateway(self, *how: Any) -> None:
            done.append(how)

        def deploy(self, serving: object) -> None:
            assert done, "it would stand without a door that has keys if it failed"
            raise ClusterError("No replica comes up.")

    key = "a-key-of-this-lab"
    monkeypatch.setenv("PADDOCK_SERVE_KEYS", key)
    monkeypatch.setattr("core.cluster.connection.connected", lambda address: nullcontext(None))
    monkeypatch.setattr("core.cluster.serving.ServedModels", Served)
    assert main(("serve", "--ray", "auto", "--host", "0.0.0.0", "paddock-neox")) == 1
    assert done == [((key,), "http://0.0.0.0:8000")]
    assert "No replica comes up." in capsys.readouterr().err
