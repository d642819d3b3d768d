"""Tunes in the background, one model at a time, for whoever asks: a page or a command."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from core.benchmark.artifacts import Material, check_memory, make_ready
from core.benchmark.lock import Turn
from core.benchmark.tuning import PERPLEXITY_LIMIT, Trial, Tuning
from core.catalogue import device_int4
from core.errors import BadRequestError, GenerationError, ModelBusyError, PaddockError, StoppedError
from core.hardware.devices import require_device
from core.runtimes.spec import ANSWERING_RUNTIMES, ModelSpec
from core.runtimes.tuned_hints import Tuned
from core.settings import Settings
from core.store import ModelStore

logger = logging.getLogger(__name__)

PERPLEXITY_LIMITS = (1.0, 2.0)
"""What a person may allow."""

_LOADED_AT_ONCE = 2
"""Processes of a duel, each with the model in memory."""


class TuningRun:
    """One search under way, or ended; watched by polling."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.message = "Getting ready."
        self.share = 0.0
        self.result: Tuned | None = None
        self.error: PaddockError | None = None
        self.trials: list[Trial] = []
        self._cancelled = threading.Event()
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Stop; what was kept before stays."""
        self._cancelled.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False where the time ran out first."""
        return self._done.wait(timeout_s)


class TuningDesk:
    """Where tuning is asked for."""

    def __init__(
        self,
        settings: Settings,
        keep: Callable[[Tuned], None],
        working: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """
        Args:
            keep: receives what was found.
            working: announces work that disturbs other timings.
        """
        self.current: TuningRun | None = None
        """The latest one."""
        self._settings = settings
        self._keep = keep
        self._working = working
        self._lock = threading.Lock()

    def start(self, spec: ModelSpec, perplexity_limit: float = PERPLEXITY_LIMIT) -> TuningRun:
        """Begin; returns at once.

        Raises:
            ModelBusyError: another model is being tuned, or a benchmark runs.
            BadRequestError, UnknownModelError, UnknownDeviceError: it cannot be tuned as asked.
        """
        if spec.runtime not in ANSWERING_RUNTIMES:
            raise BadRequestError(
                f"Hints are of OpenVINO's runtimes; choose {' or '.join(ANSWERING_RUNTIMES)}."
            )
        low, high = PERPLEXITY_LIMITS
        if not low <= perplexity_limit <= high:
            raise BadRequestError(
                f"The perplexity ratio to be kept to is {perplexity_limit}; give one from {low} to "
                f"{high}."
            )
        spec = replace(spec, device=require_device(spec.device))
        key = ModelStore(self._settings).resolve(spec.model).key
        with self._lock:
            if self.current is not None and not self.current.done:
                raise ModelBusyError(
                    f"{self.current.spec.label} is being tuned; wait for it, or stop it."
                )
            turn = Turn(self._settings)
            turn.take()
            self.current = run = TuningRun(spec)
        threading.Thread(
            target=self._run, args=(run, key, perplexity_limit, turn), name="tune", daemon=True
        ).start()
        return run

    def close(self) -> None:
        """Stop what is under way and wait for it."""
        if self.current is not None:
            self.current.cancel()
            self.current.wait()

    def _run(self, run: TuningRun, key: str, limit: float, turn: Turn) -> None:
        try:
            with self._working():
                run.result = self._tune(run, key, limit)
            self._keep(run.result)
            run.message = "Done."
        except StoppedError as error:
            run.message = str(error)
        except PaddockError as error:
            run.error, run.message = error, str(error)
        except Exception as error:
            logger.exception("Tuning failed unexpectedly")
            run.error = GenerationError(f"The tuning failed ({error}); try again.")
            run.message = str(run.error)
        finally:
            turn.give_back()
            run._done.set()

    def _tune(self, run: TuningRun, key: str, limit: float) -> Tuned:
        def tell(message: str, share: float | None) -> None:
            run.message, run.share = message, share or 0.0

        spec = run.spec
        int4 = device_int4(spec.precision, spec.device)
        ready = make_ready(
            Material(spec.model, False, spec.precision, int4),
            self._settings,
            on_progress=tell,
            cancel=run._cancelled,
        )
        check_memory(spec.label, ready, self._settings, at_once=_LOADED_AT_ONCE)
        named = ModelSpec(key, spec.precision, spec.device, spec.runtime)
        search = Tuning(ready.folder, named, tell, run._cancelled, limit, trials=run.trials)
        return search.run()
