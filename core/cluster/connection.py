"""Connects to a Ray cluster and lists its nodes, if Ray is installed.

Paddock's code is sent to the nodes with the command (Ray's ``py_modules``): a node needs the same
Python version and ``requirements-cluster.txt``, but no checkout. Ray refuses to connect if its own
or Python's version differs.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from core.errors import BadRequestError, ClusterError
from core.settings import CHECKOUT

LOCAL = "local"
"""Address of a cluster that is started for the command and ends with it."""

NAMESPACE = "paddock"

OBJECT_STORE_BYTES = 128 * 2**20
"""Of a local cluster: requests and rows are kilobytes, while Ray's default is a third of the
memory."""

_NOT_SHIPPED = ["**/__pycache__", "**/.*", "**/embedded/training"]
"""Files in ``core`` that nodes do not need."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a cluster."""

    id: str
    """Ray's id, 56 hexadecimal digits; changes with a restart."""
    host: str
    """Name of the machine."""
    name: str
    """Name of the machine, followed by a slash and the node's own name if it has one (``ray start
    --node-name``), or the first digits of its id if the machine has several nodes."""
    cpus: float
    """Processors that Ray can allocate on it."""
    resources: Mapping[str, float] = field(compare=False)
    labels: Mapping[str, str] = field(compare=False)


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect to a cluster for the duration of the ``with`` block, and yield Ray.

    Args:
        address: ``local``, ``auto`` (the cluster this machine is a node of), or host:port.

    Raises:
        BadRequestError: Ray is not installed, or the address is invalid.
        ClusterError: there is no such cluster, or it cannot be joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    try:
        import ray
    except ImportError as error:
        raise BadRequestError(
            "Ray is not installed. Install it with `pip install -r requirements-cluster.txt`."
        ) from error
    if address.startswith("ray://"):
        raise BadRequestError(
            "ray:// addresses are not supported, because Paddock joins a cluster as one of its "
            "machines. Run `ray start --address=HOST:6379` here, and enter that HOST:6379 or auto "
            "as the address."
        )
    if ray.is_initialized():
        raise ClusterError("This process is already connected to a cluster. Disconnect it first.")
    _join(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _join(ray: ModuleType, address: str) -> None:
    own: dict[str, Any] = (
        {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        if address == LOCAL
        else {}
    )
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            runtime_env={"py_modules": [str(CHECKOUT / "core")], "excludes": _NOT_SHIPPED},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (ConnectionError, TimeoutError) as error:
        raise ClusterError(
            f"There is no Ray cluster at {address}. Start one with `ray start --head`, join it "
            "from this machine with `ray start --address=HOST:6379`, and enter its address."
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterError(
            f"Could not join the Ray cluster at {address} ({detail_of(error)})."
        ) from error


def nodes_of(ray: ModuleType, chosen_by: str | None = None) -> list[Node]:
    """Return the nodes that are alive, by name.

    Args:
        chosen_by: only those with this resource, or with this label as KEY=VALUE; None for all.

    Raises:
        ClusterError: there is none.
    """
    alive = [each for each in ray.nodes() if each["Alive"]]
    several = Counter(each["NodeManagerHostname"] for each in alive)
    nodes = [_node(each, several[each["NodeManagerHostname"]] > 1) for each in alive]
    chosen = [node for node in nodes if chosen_by is None or _has(node, chosen_by)]
    if not chosen:
        raise ClusterError(
            "No node of the cluster is alive."
            if chosen_by is None
            else f"No node of the cluster has {chosen_by}. The nodes have {_resources_of(nodes)}."
        )
    return sorted(chosen, key=lambda node: node.name)


def is_alive(ray: ModuleType, node: Node) -> bool:
    """Return whether that node is alive in the cluster."""
    return any(each["NodeID"] == node.id and each["Alive"] for each in ray.nodes())


def node_affinity(node: Node) -> Any:
    """Return a scheduling strategy for this node only."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def code_of(ray: ModuleType) -> dict[str, Any]:
    """Return the runtime environment that sends this code to processes that outlive this one."""
    own = ray.get_runtime_context().runtime_env
    return {"py_modules": list(own["py_modules"])}


def _node(raw: Mapping[str, Any], one_of_several: bool) -> Node:
    host, own = raw["NodeManagerHostname"], raw.get("NodeName")
    if not own or own == raw["NodeManagerAddress"]:  # Ray's default
        own = raw["NodeID"][:8] if one_of_several else ""
    return Node(
        id=raw["NodeID"],
        host=host,
        name=f"{host}/{own}" if own else host,
        cpus=raw["Resources"].get("CPU", 0.0),
        resources=dict(raw["Resources"]),
        labels=dict(raw.get("Labels") or {}),
    )


def _has(node: Node, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    if equals:
        return node.labels.get(key.strip()) == value.strip()
    return node.resources.get(wanted.strip(), 0.0) > 0


def _resources_of(nodes: Sequence[Node]) -> str:
    """Return resources and labels set by users, without those that Ray gives each node."""
    names = {name for node in nodes for name in node.resources if not name.startswith("node:")} - {
        "memory",
        "object_store_memory",
    }
    names |= {
        f"{key}={value}"
        for node in nodes
        for key, value in node.labels.items()
        if not key.startswith("ray.io/")
    }
    return ", ".join(sorted(names)) or "none"


def detail_of(error: Exception) -> str:
    """Return the most informative line of Ray's error: the last of a traceback, otherwise the
    first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[-1] if "Traceback" in str(error) else lines[0]
    return line.rstrip(".")[:200]
