"""What is put up on a cluster, by a stand-in for Ray."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from core.cluster.gateway import DOOR_APP, key_hash
from core.cluster.serving import ServedModels
from core.errors import BadRequestError

KEY = "a-key-of-this-lab"


class Serve:
    """Notes what is run."""

    def __init__(self) -> None:
        self.applications: dict[str, Any] = {}

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(applications=self.applications)

    def ingress(self) -> Any:
        return lambda kind: kind

    def deployment(self, kind: type) -> Any:
        made = SimpleNamespace(bind=lambda *arguments: arguments)
        return SimpleNamespace(options=lambda **how: made)

    def run(self, application: Any, *, name: str, route_prefix: str | None) -> None:
        self.applications[name] = application


@pytest.fixture
def serve() -> Serve:
    return Serve()


@pytest.fixture
def served(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> ServedModels:
    ray = ModuleType("ray")
    ray.serve = serve
    ray.exceptions = SimpleNamespace(RayError=OSError)
    context = SimpleNamespace(runtime_env={"py_modules": []})
    ray.get_runtime_context = lambda: context
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ServedModels(ray)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_at_this_machine_alone_the_door_needs_no_key(served: ServedModels, serve: Serve, host: str):
    served.open_door((), f"http://{host}:8000")
    assert serve.applications == {DOOR_APP: ([],)}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "lab.example"])
def test_where_others_reach_it_no_door_opens_without_a_key(
    served: ServedModels, serve: Serve, host: str
):
    address = f"http://{host}:8000"
    with pytest.raises(BadRequestError, match="needs an API key"):
        served.open_door((), address)
    assert serve.applications == {}
    served.open_door([KEY], address)
    served.open_door((), address)
    assert serve.applications == {DOOR_APP: ([key_hash(KEY)],)}, "it stays as it is"
