"""How a model is to be served, in Paddock's words and in those of Ray Serve."""

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
"""How long a replica that is to go may finish its answers."""

_HEALTH_EVERY_S = 5.0

HEALTH_PATIENCE_S = 30.0

_WAITING_PER_REPLICA = 4
"""Requests that may wait at the door, in multiples of what all replicas answer at once."""

ONE_MORE_PERCENT = 1
"""Of the replicas, so many beside them while they are replaced; Ray Serve rounds it up to one."""

_A_LITTLE = 0.001
"""Of a resource that only says where a replica may run."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is to be served."""

    spec: ModelSpec
    least: int = 1
    """Replicas."""
    most: int = 1
    """Replicas; where it is more than ``least`` their number follows the requests under way."""
    grow_after_s: float = 30.0
    """Seconds for which too much must have been asked before there are more of them."""
    shrink_after_s: float = 600.0
    """Seconds for which little must have been asked before there are fewer."""
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
        if not 1 <= self.least <= self.most <= MOST_REPLICAS:
            raise BadRequestError(
                f"{self.least} to {self.most} replicas cannot be: give at least 1, and at most not "
                "fewer than at least."
            )
        if not 1 <= self.at_once <= MOST_AT_ONCE:
            raise BadRequestError(f"A replica gives 1 to {MOST_AT_ONCE} answers at once.")
        if not 0 <= self.cpus <= MOST_CPUS:
            raise BadRequestError(f"A replica takes 0 to {MOST_CPUS} processors.")
        if not all(0 <= s <= LONGEST_DELAY_S for s in (self.grow_after_s, self.shrink_after_s)):
            raise BadRequestError(f"Replicas come and go after 0 to {LONGEST_DELAY_S} seconds.")
        return self

    @property
    def reserved(self) -> dict[str, float]:
        """What Ray sets aside for a replica, by resource."""
        wanted = {"CPU": self.cpus} | ({self.resource: _A_LITTLE} if self.resource else {})
        return {name: amount for name, amount in wanted.items() if amount}

    def options(self, code: Mapping[str, Any], *, one_more: bool) -> dict[str, Any]:
        """Ray Serve's options of the deployment.

        Args:
            code: runtime environment that brings Paddock to the replicas.
            one_more: a replica that is replaced goes when its successor is ready, and not before.
        """
        actor: dict[str, Any] = {"num_cpus": self.cpus, "runtime_env": dict(code)}
        if self.resource:
            actor["resources"] = {self.resource: _A_LITTLE}
        return self._number() | {
            "max_ongoing_requests": self.at_once,
            "max_queued_requests": _WAITING_PER_REPLICA * self.at_once * self.most,
            "max_surge_percent": ONE_MORE_PERCENT if one_more else 0,
            "health_check_period_s": _HEALTH_EVERY_S,
            "health_check_timeout_s": HEALTH_PATIENCE_S,
            "graceful_shutdown_timeout_s": DRAIN_S,
            "ray_actor_options": actor,
        }

    def _number(self) -> dict[str, Any]:
        if self.most == self.least:
            return {"num_replicas": self.least}
        return {
            "autoscaling_config": {
                "min_replicas": self.least,
                "max_replicas": self.most,
                "target_ongoing_requests": max(1.0, self.at_once / 2),
                "upscale_delay_s": self.grow_after_s,
                "downscale_delay_s": self.shrink_after_s,
            }
        }
