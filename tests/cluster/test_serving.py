"""What is deployed on a cluster, with a stand-in for Ray."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from core.auth.tokens import sha256
from core.cluster.gateway import GATEWAY_APP
from core.cluster.serving import ServedModels
from core.errors import BadRequestError

KEY = "a-key-of-this-lab"


class Serve:
    """Records what is run."""

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
def test_loopback_gateway_needs_no_key(served: ServedModels, serve: Serve, host: str):
    served.deploy_gateway((), f"http://{host}:8000")
    assert serve.applications == {GATEWAY_APP: ([],)}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "lab.example"])
def test_reachable_gateway_needs_a_key(served: ServedModels, serve: Serve, host: str):
    address = f"http://{host}:8000"
    with pytest.raises(BadRequestError, match="needs an API key"):
        served.deploy_gateway((), address)
    assert serve.applications == {}
    served.deploy_gateway([KEY], address)
    served.deploy_gateway((), address)
    assert serve.applications == {GATEWAY_APP: ([sha256(KEY)],)}, "not changed"
