"""Models as Ray Serve deployments: put up, changed, looked at and taken down from here.

Each model is a Ray Serve application without a route of its own; :mod:`core.cluster.gateway` is
another and the only one that HTTP reaches. They go on when this process has ended.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from core.auth.permissions import is_loopback
from core.cluster.connection import code_of, nodes_of
from core.cluster.deployment import DRAIN_S, HEALTH_PATIENCE_S, ONE_MORE_PERCENT, Serving
from core.cluster.gateway import (
    DEPLOYMENT,
    DOOR_APP,
    Entrance,
    app_name,
    key_hash,
    model_name,
)
from core.cluster.replica import ModelReplica
from core.errors import BadRequestError, ClusterError, UnknownModelError

log = logging.getLogger(__name__)

_KEEPER = "paddock-code"
"""The name of the process that keeps the code for replicas to come; see :class:`_Keeper`."""

_HEAD = {"node:__internal_head__": 0.001}
"""Ray's resource of the node that the cluster stands and falls with."""

_AT_THE_DOOR = 1000
"""Requests that pass through it at once; it only hands them on."""

_PATIENCE = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
}
"""Ray Serve's 5 and 10 s are too short for a machine whose processors all compute: it then kills
the process that listens, again and again."""

_ROOM_S = 3.0
"""How long Ray may take to find the processors for one more replica."""


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
            ray: connected; see :func:`core.cluster.connection.connected`.

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

        Raises:
            ClusterError: it cannot; the text says why.
        """
        known = self._known_address()
        address = known or f"http://{host}:{port}"
        if known is None:
            self._start(host, port)
        self._keep_code(address)
        return address

    def open_door(self, keys: Collection[str], address: str) -> None:
        """Have the door up; one that is there stays as it is where no keys are given.

        Args:
            keys: that open it; none where nobody needs one.
            address: at which :meth:`listen` says that it listens.

        Raises:
            BadRequestError: others reach that address, and it would open without a key.
            ClusterError: it does not come up.
        """
        if DOOR_APP in self._serve.status().applications and not keys:
            return
        if not keys and not is_loopback(address.removeprefix("http://").rpartition(":")[0]):
            raise BadRequestError(
                f"The cluster listens at {address}, where others could use it, so it needs an API "
                "key: put one into PADDOCK_SERVE_KEYS, or several into a file for --api-keys."
            )
        built = self._serve.deployment(self._serve.ingress()(Entrance)).options(
            name="door",
            num_replicas=1,
            max_surge_percent=ONE_MORE_PERCENT,
            max_ongoing_requests=_AT_THE_DOOR,
            graceful_shutdown_timeout_s=DRAIN_S,
            ray_actor_options={"num_cpus": 0, "runtime_env": code_of(self._ray)},
        )
        self._run(built.bind([key_hash(key) for key in keys]), DOOR_APP, "/")

    def put_up(self, serving: Serving) -> None:
        """Serve a model, or serve it in another way from now on; blocks until it is ready.

        Replicas of an earlier way are replaced one after the other, and end their answers first.
        Where the cluster has room for one more, each goes only when its successor is ready.

        Raises:
            BadRequestError: it cannot be served like that.
            ClusterError: no replica comes up; the text says why.
        """
        serving = serving.validated()
        self._refuse_too_many(serving)
        name, code = serving.spec.model, code_of(self._ray)
        known = app_name(name) in self._serve.status().applications
        options = serving.options(code, one_more=known and self._has_room_for(serving))
        built = self._serve.deployment(ModelReplica).options(name=DEPLOYMENT, **options)
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

    def _start(self, host: str, port: int) -> None:
        try:
            self._serve.start(
                proxy_location="HeadOnly",
                http_options={"host": host, "port": port},
                controller_options={"runtime_env": {"env_vars": _PATIENCE}},
            )
        except (RuntimeError, TimeoutError, self._ray.exceptions.RayError) as error:
            raise ClusterError(
                f"Ray Serve does not listen at {host}:{port} ({_short(str(error))})."
            ) from error

    def _refuse_too_many(self, serving: Serving) -> None:
        """
        Raises:
            ClusterError: the nodes do not have what so many replicas take.
        """
        nodes = nodes_of(self._ray, serving.resource)
        room = sum(int(node.cpus / serving.cpus) for node in nodes) if serving.cpus else math.inf
        if serving.least > room:
            raise ClusterError(
                f"{serving.least} replicas with {serving.cpus:g} processors each do not fit: the "
                f"nodes have room for {room}; ask for fewer, or give --cpus."
            )

    def _has_room_for(self, serving: Serving) -> bool:
        """Whether Ray can set aside now what one more replica takes."""
        if not serving.reserved:
            return True
        place = self._ray.util.placement_group([serving.reserved])
        try:
            return place.wait(_ROOM_S)
        finally:
            self._ray.util.remove_placement_group(place)

    def _run(self, application: Any, name: str, route: str | None) -> None:
        try:
            self._serve.run(application, name=name, route_prefix=route)
        except (RuntimeError, self._ray.exceptions.RayError) as error:
            message = self._message_of(name) or str(error)
            raise ClusterError(
                f"{model_name(name) or name} did not come up: {_short(message)}."
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
            return self._ray.get(keeper.address.remote(), timeout=HEALTH_PATIENCE_S)
        return None


class _Keeper:
    """Has the code in its environment, and knows the address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def address(self) -> str:
        """At which Ray Serve listens."""
        return self._address


def _short(message: str) -> str:
    """What Ray's message says, on one line: of a traceback the sentence at its bottom."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("core.errors.")]
    if told:
        text = told[-1].partition(": ")[2]
    elif any(line.startswith('File "') for line in lines):
        text = lines[-1]
    else:
        text = " ".join(lines)
    return text[:400].rstrip(".")
