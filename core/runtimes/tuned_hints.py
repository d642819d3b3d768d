"""Stores tuned execution hints by host, model, precision, device and runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from core.catalogue import Precision
from core.hardware.devices import AUTO, auto_devices, host_facts
from core.runtimes.spec import ExecutionHints, RuntimeName
from core.workers.child import one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuningKey:
    """Host and model configuration that hints apply to."""

    host: str
    """Name and processor, since several machines may share a disk."""
    model: str
    """Key of the stored model."""
    precision: Precision
    device: str
    """As OpenVINO spells it; for AUTO, the device that it selects."""
    runtime: RuntimeName

    @classmethod
    def here(cls, model: str, precision: Precision, device: str, runtime: RuntimeName) -> TuningKey:
        """Return the key of a model on this machine."""
        host = host_facts()
        if device == AUTO:
            device = next(iter(auto_devices()), AUTO)
        return cls(f"{host.name} · {host.cpu}", model, precision, device, runtime)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The best hints found by tuning, and their gain."""

    key: TuningKey
    hints: ExecutionHints
    gain: float
    """Decode rate relative to the default hints, measured alternately; 1.0 if none was better."""
    tokens_per_s: float
    usual_tokens_per_s: float
    perplexity_ratio: float
    """Perplexity relative to the default hints."""
    measured_at: str
    """UTC, ISO 8601."""


_ROWS = TypeAdapter(list[Tuned])


class TunedHints:
    """File of tuned hints in the home folder; small, and read completely each time."""

    def __init__(self, home: Path) -> None:
        self._file = home / "tuned.json"
        self._lock = FileLock(home / "tuned.lock")

    def find(self, key: TuningKey) -> Tuned | None:
        """Return the tuned hints of this key."""
        return next((tuned for tuned in self.all() if tuned.key == key), None)

    def all(self) -> list[Tuned]:
        """Return all tuned hints, including other machines'; none if the file is damaged."""
        try:
            return _ROWS.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            logger.warning(
                "Using default hints; %s cannot be read: %s", self._file, one_line(error)
            )
            return []

    def keep(self, tuned: Tuned) -> None:
        """Store tuned hints, replacing those of the same key."""
        self._change(lambda kept: [*(row for row in kept if row.key != tuned.key), tuned])

    def forget(self, key: TuningKey) -> bool:
        """Delete the tuned hints of a key; return False if there were none."""
        known = self.find(key) is not None
        self._change(lambda kept: [row for row in kept if row.key != key])
        return known

    def _change(self, change: Callable[[list[Tuned]], list[Tuned]]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            rows = change(self.all())
            temporary = self._file.with_suffix(".new")
            temporary.write_bytes(_ROWS.dump_json(rows, indent=2))
            temporary.replace(self._file)
