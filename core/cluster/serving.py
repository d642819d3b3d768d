"""Models as Ray Serve deployments: deployed, updated, listed and stopped.

Each model is a Ray Serve application without a route; :mod:`core.cluster.gateway` is another one,
and the only one reachable by HTTP. They continue after this process has ended.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from core.auth.permissions import is_loopback
from core.auth.tokens import sha256
from core.cluster.connection import code_of, nodes_of
from core.cluster.gateway import DEPLOYMENT, GATEWAY_APP, GatewayIngress, app_name, model_name
from core.cluster.replica import ModelReplica
from core.errors import BadRequestError, ClusterError, UnknownModelError
from core.runtimes.spec import ModelSpec

_KEEPER = "paddock-code"
"""Name of the actor that keeps the code for future replicas; see :class:`_Keeper`."""

_HEAD = {"node:__internal_head__": 0.001}
"""Ray's resource of the head node, without which there is no cluster."""

_GATEWAY_REQUESTS = 1000
"""Requests that the gateway forwards at once."""

_PATIENCE = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
}
"""Ray Serve's 5 and 10 s are too short for a machine whose processors are all busy: it then kills
the listening process again and again."""

_ROOM_S = 3.0
"""Time for Ray to find the processors for one more replica."""

MOST_REPLICAS = 1000
MOST_AT_ONCE = 64
MOST_CPUS = 1024
LONGEST_DELAY_S = 24 * 3600

DRAIN_S = 120.0
"""Time for a stopping replica to finish its answers."""

_HEALTH_EVERY_S = 5.0
HEALTH_PATIENCE_S = 30.0

_WAITING_PER_REPLICA = 4
"""Maximum of queued requests, in multiples of what all replicas answer at once."""

ONE_MORE_PERCENT = 1
"""Share of additional replicas during an update; Ray Serve rounds it up to one."""

_A_LITTLE = 0.001
"""Amount of a resource that only determines where a replica may run."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Options of a served model."""

    spec: ModelSpec
    min_replicas: int = 1
    max_replicas: int = 1
    """If higher than ``min_replicas``, the number of replicas follows the running requests."""
    grow_after_s: float = 30.0
    """Seconds of high load before replicas are added."""
    shrink_after_s: float = 600.0
    """Seconds of low load before replicas are removed."""
    at_once: int = 8
    """Answers that a replica generates at once."""
    cpus: float = 1.0
    """Processors that Ray reserves for a replica."""
    resource: str | None = None
    """Of the nodes on which replicas may run; None for any node."""

    def validated(self) -> Serving:
        """Return the same options, checked.

        Raises:
            BadRequestError: a number is out of range.
        """
        if not 1 <= self.min_replicas <= self.max_replicas <= MOST_REPLICAS:
            raise BadRequestError(
                f"{self.min_replicas} to {self.max_replicas} replicas are not possible. Choose a "
                f"minimum from 1 to {MOST_REPLICAS}, and a maximum that is not lower."
            )
        if not 1 <= self.at_once <= MOST_AT_ONCE:
            raise BadRequestError(
                f"{self.at_once} answers at once are not possible. Choose 1 to {MOST_AT_ONCE}."
            )
        if not 0 <= self.cpus <= MOST_CPUS:
            raise BadRequestError(
                f"{self.cpus:g} processors per replica are not possible. Choose 0 to {MOST_CPUS}."
            )
        if not all(0 <= s <= LONGEST_DELAY_S for s in (self.grow_after_s, self.shrink_after_s)):
            raise BadRequestError(
                "The delay for adding or removing replicas is out of range. Choose 0 to "
                f"{LONGEST_DELAY_S} seconds."
            )
        return self

    @property
    def reserved(self) -> dict[str, float]:
        """Resources that Ray reserves for a replica."""
        wanted = {"CPU": self.cpus} | ({self.resource: _A_LITTLE} if self.resource else {})
        return {name: amount for name, amount in wanted.items() if amount}

    def options(self, code: Mapping[str, Any], *, one_more: bool) -> dict[str, Any]:
        """Return Ray Serve's options of the deployment.

        Args:
            code: runtime environment with Paddock's code.
            one_more: whether a replica is stopped only when its successor is ready.
        """
        actor: dict[str, Any] = {"num_cpus": self.cpus, "runtime_env": dict(code)}
        if self.resource:
            actor["resources"] = {self.resource: _A_LITTLE}
        replicas: dict[str, Any] = {"num_replicas": self.min_replicas}
        if self.max_replicas != self.min_replicas:
            scaling = {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": max(1.0, self.at_once / 2),
                "upscale_delay_s": self.grow_after_s,
                "downscale_delay_s": self.shrink_after_s,
            }
            replicas = {"autoscaling_config": scaling}
        return replicas | {
            "max_ongoing_requests": self.at_once,
            "max_queued_requests": _WAITING_PER_REPLICA * self.at_once * self.max_replicas,
            "max_surge_percent": ONE_MORE_PERCENT if one_more else 0,
            "health_check_period_s": _HEALTH_EVERY_S,
            "health_check_timeout_s": HEALTH_PATIENCE_S,
            "graceful_shutdown_timeout_s": DRAIN_S,
            "ray_actor_options": actor,
        }


@dataclass(frozen=True, kw_only=True)
class Served:
    """Status of a served model."""

    model: str
    state: str
    """Ray Serve's state in lower case: running, deploying, unhealthy, deploy_failed …"""
    replicas: int
    """Number of running replicas."""
    message: str
    """Message of Ray Serve; empty if there is no problem."""


class ServedModels:
    """Models served by the connected cluster."""

    def __init__(self, ray: ModuleType) -> None:
        """
        Args:
            ray: connected; see :func:`core.cluster.connection.connected`.

        Raises:
            ClusterError: Ray is installed without Ray Serve.
        """
        try:
            from ray import serve
        except ImportError as error:
            raise ClusterError(
                "Ray Serve is not installed. Install it with `pip install -r "
                "requirements-cluster.txt`."
            ) from error
        self._ray = ray
        self._serve = serve
        logging.getLogger("ray.serve").setLevel(logging.WARNING)

    def listen(self, host: str, port: int) -> str:
        """Start Ray Serve's HTTP server on the head node; a running one is not changed.

        Returns:
            Its address, such as ``http://127.0.0.1:8000``.

        Raises:
            ClusterError: it did not start; the text says why.
        """
        address = f"http://{host}:{port}"
        if keepers := self._keepers():
            address = self._ray.get(keepers[0].address.remote(), timeout=HEALTH_PATIENCE_S)
        else:
            self._start(host, port)
        self._keep_code(address)
        return address

    def deploy_gateway(self, keys: Collection[str], address: str) -> None:
        """Deploy the gateway; a running one is not changed if no keys are given.

        Args:
            keys: API keys that it accepts; empty if none is required.
            address: from :meth:`listen`.

        Raises:
            BadRequestError: the address is reachable from other machines, and there are no keys.
            ClusterError: it did not start.
        """
        if GATEWAY_APP in self._serve.status().applications and not keys:
            return
        if not keys and not is_loopback(address.removeprefix("http://").rpartition(":")[0]):
            raise BadRequestError(
                f"The cluster listens at {address}, which other machines can reach, so it needs an "
                "API key. Set PADDOCK_SERVE_KEYS, or write keys to a file for --api-keys."
            )
        built = self._serve.deployment(self._serve.ingress()(GatewayIngress)).options(
            name="door",
            num_replicas=1,
            max_surge_percent=ONE_MORE_PERCENT,
            max_ongoing_requests=_GATEWAY_REQUESTS,
            graceful_shutdown_timeout_s=DRAIN_S,
            ray_actor_options={"num_cpus": 0, "runtime_env": code_of(self._ray)},
        )
        self._run(built.bind([sha256(key) for key in keys]), GATEWAY_APP, "/")

    def deploy(self, serving: Serving) -> None:
        """Deploy a model, or update its options; blocks until it is ready.

        Replicas with earlier options are replaced one after another, and finish their answers
        first. If the cluster has room for one more replica, each is stopped only when its successor
        is ready.

        Raises:
            BadRequestError: the options are invalid.
            ClusterError: no replica started; the text says why.
        """
        serving = serving.validated()
        self._refuse_too_many(serving)
        name, code = serving.spec.model, code_of(self._ray)
        known = app_name(name) in self._serve.status().applications
        options = serving.options(code, one_more=known and self._has_room_for(serving))
        built = self._serve.deployment(ModelReplica).options(name=DEPLOYMENT, **options)
        self._run(built.bind(serving.spec, name, serving.at_once), app_name(name), None)

    def status(self) -> list[Served]:
        """Return the models by name."""
        found = []
        for name, app in self._serve.status().applications.items():
            model = model_name(name)
            if model is None:
                continue
            replicas = sum(
                each.replica_states.get("RUNNING", 0) for each in app.deployments.values()
            )
            found.append(
                Served(
                    model=model,
                    state=str(getattr(app.status, "value", app.status)).lower(),
                    replicas=replicas,
                    message=_short(f"{app.message} {_messages_of(app)}"),
                )
            )
        return sorted(found, key=lambda each: each.model)

    def stop(self, model: str) -> None:
        """Stop a model; with the last one, the gateway is stopped too.

        Raises:
            UnknownModelError: the model is not served.
        """
        served = [each.model for each in self.status()]
        if model not in served:
            raise UnknownModelError(
                f"The cluster does not serve {model}. It serves {', '.join(served) or 'nothing'}."
            )
        self._serve.delete(app_name(model))
        if served == [model]:
            self._serve.shutdown()
            for keeper in self._keepers():
                self._ray.kill(keeper)

    def _start(self, host: str, port: int) -> None:
        try:
            self._serve.start(
                proxy_location="HeadOnly",
                http_options={"host": host, "port": port},
                controller_options={"runtime_env": {"env_vars": _PATIENCE}},
            )
        except (RuntimeError, TimeoutError, self._ray.exceptions.RayError) as error:
            raise ClusterError(
                f"Ray Serve could not listen at {host}:{port} ({_short(str(error))})."
            ) from error

    def _refuse_too_many(self, serving: Serving) -> None:
        nodes = nodes_of(self._ray, serving.resource)
        room = sum(int(node.cpus / serving.cpus) for node in nodes) if serving.cpus else math.inf
        if serving.min_replicas > room:
            raise ClusterError(
                f"{serving.min_replicas} replicas with {serving.cpus:g} processors each do not "
                f"fit: the nodes have room for {room}. Choose fewer replicas, or lower --cpus."
            )

    def _has_room_for(self, serving: Serving) -> bool:
        """Return whether Ray can reserve the resources of one more replica now."""
        if not serving.reserved:
            return True
        group = self._ray.util.placement_group([serving.reserved])
        try:
            return group.wait(_ROOM_S)
        finally:
            self._ray.util.remove_placement_group(group)

    def _run(self, application: Any, name: str, route: str | None) -> None:
        try:
            self._serve.run(application, name=name, route_prefix=route)
        except (RuntimeError, self._ray.exceptions.RayError) as error:
            app = self._serve.status().applications.get(name)
            message = (app and _messages_of(app)) or str(error)
            raise ClusterError(
                f"{model_name(name) or name} failed to start: {_short(message)}."
            ) from error

    def _keep_code(self, address: str) -> None:
        """Keep this code in the cluster as long as it serves anything.

        Ray deletes code that no process uses; if all replicas were lost at once, none could start.
        """
        code = code_of(self._ray)
        kind = self._ray.remote(num_cpus=0, max_restarts=-1, resources=_HEAD)(_Keeper)
        kind.options(
            name=f"{_KEEPER}-{sha256(' '.join(code['py_modules']))[:16]}",
            lifetime="detached",
            get_if_exists=True,
            runtime_env=code,
        ).remote(address)

    def _keepers(self) -> list[Any]:
        names = self._ray.util.list_named_actors()
        return [self._ray.get_actor(name) for name in names if name.startswith(_KEEPER)]


class _Keeper:
    """Actor that has the code in its environment, and knows the address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def address(self) -> str:
        """Return the address of Ray Serve's HTTP server."""
        return self._address


def _messages_of(app: Any) -> str:
    return " ".join(filter(None, (each.message for each in app.deployments.values())))


def _short(message: str) -> str:
    """Return Ray's message on one line; of a traceback only the last sentence."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("core.errors.")]
    if ours:
        text = ours[-1].partition(": ")[2]
    elif any(line.startswith('File "') for line in lines):
        text = lines[-1]
    else:
        text = " ".join(lines)
    return text[:400].rstrip(".")
