"""Models as Ray Serve deployments: put up, changed, looked at and taken down from here.

Each model is a Ray Serve application without a route of its own; :mod:`core.cluster.door` is
another and the only one that HTTP reaches. They go on when this process has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from core.cluster.door import (
    APP_PREFIX,
    DEPLOYMENT,
    DOOR_APP,
    Entrance,
    app_name,
    key_hash,
    model_name,
)
from core.cluster.link import code_of
from core.cluster.replica import ModelReplica
from core.errors import BadRequestError, ClusterError, UnknownModelError
from core.runtimes.spec import ModelSpec

log = logging.getLogger(__name__)

_KEEPER = "paddock-code"
"""The name of the process that keeps the code for replicas to come; see :class:`_Keeper`."""

_HEAD = {"node:__internal_head__": 0.001}
"""Ray's resource of the node that the cluster stands and falls with."""

_HEALTH_EVERY_S = 5.0

_HEALTH_PATIENCE_S = 30.0

_DRAIN_S = 120.0
"""How long a replica that is to go may finish its answers."""

_AT_THE_DOOR = 1000
"""Requests that pass through it at once; it only hands them on."""

_WAITING_PER_REPLICA = 4
"""Requests that may wait at the door, in multiples of what all replicas answer at once."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is to be served."""

    spec: ModelSpec
    least: int = 1
    """Replicas."""
    most: int = 1
    """Replicas; where it is more than ``least`` their number follows the requests under way."""
    at_once: int = 8
    """Answers that a replica gives at once."""
    cpus: float = 1.0
    """Processors that Ray reserves for a replica."""
    resource: str | None = None
    """Of the nodes on which replicas may run; None for any."""

    def validated(self) -> Serving:
        """The same, checked.

        Raises:
            BadRequestError: a number is out of range.
        """
        if not 1 <= self.least <= self.most <= 1000:
            raise BadRequestError(
                f"{self.least} to {self.most} replicas cannot be: give at least 1, and at most not "
                "fewer than at least."
            )
        if not 1 <= self.at_once <= 64:
            raise BadRequestError("A replica gives 1 to 64 answers at once.")
        if not 0 <= self.cpus <= 1024:
            raise BadRequestError("The processors of a replica must be between 0 and 1024.")
        return self


@dataclass(frozen=True, kw_only=True)
class Served:
    """A served model, for people to look at."""

    model: str
    state: str
    """Ray Serve's word in lower case: running, deploying, unhealthy, deploy_failed …"""
    replicas: int
    """That answer now."""
    message: str
    """What Ray Serve says about it; empty where all is well."""


class ServedModels:
    """The models that a cluster serves; this process is connected to it."""

    def __init__(self, ray: ModuleType) -> None:
        """
        Args:
            ray: connected; see :func:`core.cluster.link.connected`.

        Raises:
            ClusterError: Ray is there without its server.
        """
        try:
            from ray import serve
        except ImportError as error:
            raise ClusterError(
                "Ray Serve is not installed; install it with `pip install -r "
                "requirements-cluster.txt`."
            ) from error
        self._ray = ray
        self._serve = serve
        logging.getLogger("ray.serve").setLevel(logging.WARNING)

    def listen(self, host: str, port: int) -> str:
        """Have Ray Serve listen, on the head node; where it does already, it goes on as it is.

        Returns:
            The address at which it listens, such as ``http://127.0.0.1:8000``.
        """
        known = self._known_address()
        address = known or f"http://{host}:{port}"
        if known is None:
            self._serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        self._keep_code(address)
        return address

    def open_door(self, keys: Collection[str]) -> None:
        """Have the door up; one that is there stays as it is where no keys are given.

        Args:
            keys: that open it; none where nobody needs one.

        Raises:
            ClusterError: it does not come up.
        """
        if DOOR_APP in self._serve.status().applications and not keys:
            return
        built = self._serve.deployment(self._serve.ingress()(Entrance)).options(
            name="door",
            num_replicas=1,
            max_ongoing_requests=_AT_THE_DOOR,
            graceful_shutdown_timeout_s=_DRAIN_S,
            ray_actor_options={"num_cpus": 0, "runtime_env": code_of(self._ray)},
        )
        self._run(built.bind([key_hash(key) for key in keys]), DOOR_APP, "/")

    def put_up(self, serving: Serving) -> None:
        """Serve a model, or serve it in another way from now on; blocks until it is ready.

        Replicas of an earlier way are replaced one after the other, and end their answers first.

        Raises:
            BadRequestError: it cannot be served like that.
            ClusterError: no replica comes up; the text says why.
        """
        serving = serving.validated()
        name = serving.spec.model
        actor: dict[str, Any] = {"num_cpus": serving.cpus, "runtime_env": code_of(self._ray)}
        if serving.resource:
            actor["resources"] = {serving.resource: 0.001}
        options: dict[str, Any] = {"num_replicas": serving.least}
        if serving.most > serving.least:
            options = {
                "autoscaling_config": {
                    "min_replicas": serving.least,
                    "max_replicas": serving.most,
                    "target_ongoing_requests": max(1.0, serving.at_once / 2),
                }
            }
        built = self._serve.deployment(ModelReplica).options(
            name=DEPLOYMENT,
            max_ongoing_requests=serving.at_once,
            max_queued_requests=_WAITING_PER_REPLICA * serving.at_once * serving.most,
            health_check_period_s=_HEALTH_EVERY_S,
            health_check_timeout_s=_HEALTH_PATIENCE_S,
            graceful_shutdown_timeout_s=_DRAIN_S,
            ray_actor_options=actor,
            **options,
        )
        self._run(built.bind(serving.spec, name, serving.at_once), app_name(name), None)

    def status(self) -> list[Served]:
        """The models, by name."""
        return sorted(self._status(), key=lambda each: each.model)

    def stop(self, model: str) -> None:
        """Take a model down; with the last one the door goes too.

        Raises:
            UnknownModelError: it is not served.
        """
        served = [each.model for each in self.status()]
        if model not in served:
            raise UnknownModelError(
                f"The cluster does not serve {model}; it serves {', '.join(served) or 'nothing'}."
            )
        self._serve.delete(app_name(model))
        if served == [model]:
            self._serve.shutdown()
            for keeper in self._keepers():
                self._ray.kill(keeper)

    def _run(self, application: Any, name: str, route: str | None) -> None:
        try:
            self._serve.run(application, name=name, route_prefix=route)
        except (RuntimeError, self._ray.exceptions.RayError) as error:
            message = self._message_of(name) or str(error)
            raise ClusterError(
                f"{name.removeprefix(APP_PREFIX)} did not come up: {_short(message)}."
            ) from error

    def _status(self) -> list[Served]:
        found = []
        for name, app in self._serve.status().applications.items():
            model = model_name(name)
            if model is None:
                continue
            replicas = sum(
                each.replica_states.get("RUNNING", 0) for each in app.deployments.values()
            )
            messages = [app.message, *(each.message for each in app.deployments.values())]
            found.append(
                Served(
                    model=model,
                    state=str(getattr(app.status, "value", app.status)).lower(),
                    replicas=replicas,
                    message=_short(" ".join(filter(None, messages))),
                )
            )
        return found

    def _message_of(self, name: str) -> str:
        app = self._serve.status().applications.get(name)
        if app is None:
            return ""
        return " ".join(filter(None, (each.message for each in app.deployments.values())))

    def _keep_code(self, address: str) -> None:
        """Let the cluster keep this code as long as it serves anything.

        Ray forgets a code that no process uses; were all replicas lost at once, none could start.
        """
        code = code_of(self._ray)
        kind = self._ray.remote(num_cpus=0, max_restarts=-1, resources=_HEAD)(_Keeper)
        kind.options(
            name=f"{_KEEPER}-{key_hash(' '.join(code['py_modules']))[:16]}",
            lifetime="detached",
            get_if_exists=True,
            runtime_env=code,
        ).remote(address)

    def _keepers(self) -> list[Any]:
        names = self._ray.util.list_named_actors()
        return [self._ray.get_actor(name) for name in names if name.startswith(_KEEPER)]

    def _known_address(self) -> str | None:
        for keeper in self._keepers():
            return self._ray.get(keeper.address.remote(), timeout=_HEALTH_PATIENCE_S)
        return None


class _Keeper:
    """Has the code in its environment, and knows the address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def address(self) -> str:
        """At which Ray Serve listens."""
        return self._address


def _short(message: str) -> str:
    """The sentence of the error at the bottom of Ray's message, on one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("core.errors.")]
    text = told[-1].partition(": ")[2] if told else " ".join(lines)
    return text[:400].rstrip(".")
