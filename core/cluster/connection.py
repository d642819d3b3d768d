"""The way into a Ray cluster: Ray where it is installed, the connection, and the nodes there are.

Paddock's code comes to the nodes with the command (Ray's ``py_modules``): a node needs the same
Python and ``requirements-cluster.txt``, and no checkout. Ray itself refuses to connect where its
own or Python's version is another one.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from core.errors import BadRequestError, ClusterError
from core.settings import CHECKOUT

LOCAL = "local"
"""The address of a cluster that is started for the command and ends with it."""

NAMESPACE = "paddock"

OBJECT_STORE_BYTES = 128 * 2**20
"""Of a local cluster: requests and rows are kilobytes, and Ray's default is a third of memory."""

_NOT_SHIPPED = ["**/__pycache__", "**/.*", "**/embedded/training"]
"""Of the folder ``core``, what nodes have no use for."""


ID_DIGITS = 8
"""Of a node's id, as many as tell the nodes of one machine apart."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a cluster."""

    id: str
    """Ray's, 56 hexadecimal digits; another one after a restart."""
    host: str
    """Name of the machine."""
    name: str
    """Of the machine; then a stroke and the node's own name where it was given one (``ray start
    --node-name``), or the first digits of its id where several are on one machine."""
    cpus: float
    """Processors that Ray may give away on it."""
    resources: Mapping[str, float] = field(compare=False)
    labels: Mapping[str, str] = field(compare=False)


def ray_module() -> ModuleType:
    """Ray, imported on first use.

    Raises:
        BadRequestError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError as error:
        raise BadRequestError(
            "Ray is not installed; install it with `pip install -r requirements-cluster.txt`."
        ) from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to a cluster for the length of the ``with`` block.

    Args:
        address: ``local``, ``auto`` (the one that this machine is a node of), or host:port.

    Raises:
        BadRequestError: Ray is not installed, or that is no address.
        ClusterError: there is no such cluster, or it cannot be joined.
    """
    ray = ray_module()
    if address.startswith("ray://"):
        raise BadRequestError(
            "Paddock joins a cluster as one of its machines: run `ray start --address=HOST:6379` "
            "here, and give that HOST:6379 or auto instead of a ray:// address."
        )
    if ray.is_initialized():
        raise ClusterError("This process is in a cluster already; leave that first.")
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
            f"There is no Ray cluster at {address}; start one with `ray start --head`, join it "
            "from this machine with `ray start --address=HOST:6379`, and give its address."
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterError(
            f"The Ray cluster at {address} cannot be joined ({_first_line(error)})."
        ) from error


def nodes_of(ray: ModuleType, chosen_by: str | None = None) -> list[Node]:
    """The nodes that are alive, by name.

    Args:
        chosen_by: only those that have this resource, or this label as KEY=VALUE; None for all.

    Raises:
        ClusterError: there is none of them.
    """
    alive = [each for each in ray.nodes() if each["Alive"]]
    several = Counter(each["NodeManagerHostname"] for each in alive)
    nodes = [_node(each, several[each["NodeManagerHostname"]] > 1) for each in alive]
    chosen = [node for node in nodes if chosen_by is None or _has(node, chosen_by)]
    if not chosen:
        raise ClusterError(
            "No node of the cluster is alive."
            if chosen_by is None
            else f"No node of the cluster has {chosen_by}; they have {_what_there_is(nodes)}."
        )
    return sorted(chosen, key=lambda node: node.name)


def is_alive(ray: ModuleType, node: Node) -> bool:
    """Whether the cluster still counts on that node."""
    return any(each["NodeID"] == node.id and each["Alive"] for each in ray.nodes())


def on(node: Node) -> Any:
    """A scheduling strategy: on this node or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def code_of(ray: ModuleType) -> dict[str, Any]:
    """The runtime environment that brings this Paddock's code to processes that outlive us."""
    own = ray.get_runtime_context().runtime_env
    return {"py_modules": list(own["py_modules"])}


def node_home() -> Path:
    """The home folder on a node whose environment names none: the code's own folder is Ray's."""
    return Path.home() / ".paddock"


def _node(raw: Mapping[str, Any], one_of_several: bool) -> Node:
    host, own = raw["NodeManagerHostname"], raw.get("NodeName")
    if not own or own == raw["NodeManagerAddress"]:  # Ray's own choice
        own = raw["NodeID"][:ID_DIGITS] if one_of_several else ""
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


def _what_there_is(nodes: Sequence[Node]) -> str:
    """Resources and labels that somebody gave, and not those that Ray gives each node."""
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


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__
