"""A real Ray cluster of two nodes on this machine, started once, on the loopback address."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from core.catalogue import Precision
from core.cluster.connection import connected
from core.settings import Settings
from core.store import ModelStore, resolve
from tests.builders import tiny_checkpoint

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
"""Ray's word for: the address of this machine is 127.0.0.1. Read when Ray is imported."""

STORE_BYTES = 80 * 2**20

LONG_S = 120.0
"""Enough for a loaded machine; a test that waits so long fails."""

NOTICES_SOON = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
"""A node that is gone counts as such after a few seconds instead of twenty."""


@dataclass
class Lab:
    """The cluster, whose second node can be killed and started again."""

    cluster: Any
    homes: dict[str, Path]
    """Of the nodes ``first`` and ``second``."""
    nodes: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """host:port."""
        return self.cluster.address

    def start(self, name: str, **how: Any) -> None:
        """Start a node; it has the resource of its name."""
        self.nodes[name] = self.cluster.add_node(
            **how,
            node_name=name,
            num_cpus=2,
            resources={name: 1},
            object_store_memory=STORE_BYTES,
            env_vars={"PADDOCK_HOME": str(self.homes[name]), "HF_HUB_OFFLINE": "1"},
        )

    def kill(self, name: str) -> None:
        """Kill a node as a power cut does."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes. Their sockets' paths must be short, hence a folder directly in the temporary one;
    Ray's note of the running cluster goes there too, and not where a person's own is looked for."""
    short = Path(tempfile.mkdtemp(prefix="lab", dir=tempfile.gettempdir()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(short))
        from ray.cluster_utils import Cluster

        made = Lab(
            Cluster(),
            {name: tmp_path_factory.mktemp(name) for name in ("first", "second")},
        )
        try:
            made.start("first", include_dashboard=False, _system_config=NOTICES_SOON)
            made.start("second")
            yield made
        finally:
            made.cluster.shutdown()
            shutil.rmtree(short, ignore_errors=True)


@pytest.fixture(scope="session")
def ray(lab: Lab) -> Iterator[ModuleType]:
    """Ray, connected to the cluster."""
    with connected(lab.address) as joined:
        yield joined


@pytest.fixture(scope="session")
def model(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that both nodes have on disk, and whose answers never end by themselves."""
    folder = tmp_path_factory.mktemp("checkpoint") / "endless"
    tiny_checkpoint("llama", folder, with_chat_template=True, hidden=128, layers=4, positions=4096)
    _mute_the_end(folder / "model.safetensors")
    first, second = lab.homes["first"], lab.homes["second"]
    ModelStore(Settings(home=first)).ensure(resolve(str(folder)), Precision.FP32)
    shutil.copytree(first / "models", second / "models")
    return str(folder)


def _mute_the_end(weights: Path) -> None:
    """Give the end token, id 0, a logit of 0: of 387 random ones that is never the highest."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors["lm_head.weight"][0] = 0
    save_file(tensors, weights, {"format": "pt"})


def until(happened: Callable[[], bool], seconds: float = LONG_S) -> None:
    """Wait until a condition is true.

    Raises:
        AssertionError: it was not true in time.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.05)
