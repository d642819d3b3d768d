"""Options of a served model, for Paddock and for Ray Serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BadRequestError
from core.runtimes.spec import ModelSpec

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
        return self._number() | {
            "max_ongoing_requests": self.at_once,
            "max_queued_requests": _WAITING_PER_REPLICA * self.at_once * self.max_replicas,
            "max_surge_percent": ONE_MORE_PERCENT if one_more else 0,
            "health_check_period_s": _HEALTH_EVERY_S,
            "health_check_timeout_s": HEALTH_PATIENCE_S,
            "graceful_shutdown_timeout_s": DRAIN_S,
            "ray_actor_options": actor,
        }

    def _number(self) -> dict[str, Any]:
        if self.max_replicas == self.min_replicas:
            return {"num_replicas": self.min_replicas}
        return {
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": max(1.0, self.at_once / 2),
                "upscale_delay_s": self.grow_after_s,
                "downscale_delay_s": self.shrink_after_s,
            }
        }
