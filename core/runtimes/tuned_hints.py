"""Execution hints found by measuring, kept for each host, model, precision, device and runtime."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from core.catalogue import Precision
from core.hardware.devices import AUTO, auto_devices, host_facts
from core.runtimes.spec import ExecutionHints, RuntimeName

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuningKey:
    """What hints are kept for."""

    host: str
    """Name and processor: the same disk may be used by several machines."""
    model: str
    """Key of the stored model."""
    precision: Precision
    device: str
    """As OpenVINO spells it; the one that AUTO takes in the place of AUTO."""
    runtime: RuntimeName

    @classmethod
    def here(cls, model: str, precision: Precision, device: str, runtime: RuntimeName) -> TuningKey:
        """The key of a model on this machine."""
        host = host_facts()
        if device == AUTO:
            device = next(iter(auto_devices()), AUTO)
        return cls(f"{host.name} · {host.cpu}", model, precision, device, runtime)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The best hints that were found, and what they gained."""

    key: TuningKey
    hints: ExecutionHints
    gain: float
    """Decode rate over that of the usual hints, measured by turns; 1.0 where nothing was better."""
    tokens_per_s: float
    usual_tokens_per_s: float
    perplexity_ratio: float
    """To the usual hints."""
    measured_at: str
    """UTC, ISO 8601."""


class TunedHints:
    """The file in the home folder that they are kept in; small, read whole each time."""

    def __init__(self, home: Path) -> None:
        self._file = home / "tuned.json"
        self._lock = FileLock(home / "tuned.lock")

    def find(self, key: TuningKey) -> Tuned | None:
        """What was found for this key."""
        return next((tuned for tuned in self.all() if tuned.key == key), None)

    def all(self) -> list[Tuned]:
        """Everything that is kept, other machines' too; nothing where the file is damaged."""
        try:
            rows = json.loads(self._file.read_text(encoding="utf-8"))
            return [_loaded(row) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s cannot be read, so the usual hints are used: %s", self._file, error)
            return []

    def keep(self, tuned: Tuned) -> None:
        """Keep it, in the place of what was found for its key before."""
        self._change(lambda kept: [*(row for row in kept if row.key != tuned.key), tuned])

    def forget(self, key: TuningKey) -> bool:
        """Go back to the usual hints; False where nothing was kept."""
        known = self.find(key) is not None
        self._change(lambda kept: [row for row in kept if row.key != key])
        return known

    def _change(self, change: Callable[[list[Tuned]], list[Tuned]]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            rows = [asdict(row) for row in change(self.all())]
            aside = self._file.with_suffix(".new")
            aside.write_text(json.dumps(rows, indent=2), encoding="utf-8")
            aside.replace(self._file)


def _loaded(row: dict[str, Any]) -> Tuned:
    known = {field.name for field in fields(ExecutionHints)}
    hints = {name: value for name, value in row["hints"].items() if name in known}
    key = TuningKey(**row["key"])
    key = replace(key, precision=Precision(key.precision), runtime=RuntimeName(key.runtime))
    return Tuned(**{**row, "key": key, "hints": ExecutionHints(**hints)})
