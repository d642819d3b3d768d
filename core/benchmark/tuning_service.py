"""Runs the search for execution hints in the background, one model at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from core.benchmark.artifacts import Artifact, check_memory, prepare_artifact
from core.benchmark.lock import BenchmarkLock
from core.benchmark.tuning import PERPLEXITY_LIMIT, Trial, TuningSearch
from core.errors import BadRequestError, GenerationError, ModelBusyError, PaddockError, StoppedError
from core.hardware.devices import require_device
from core.runtimes.spec import ANSWERING_RUNTIMES, ModelSpec
from core.runtimes.tuned_hints import Tuned
from core.settings import Settings
from core.store import ModelStore

logger = logging.getLogger(__name__)

PERPLEXITY_LIMITS = (1.0, 2.0)
"""Allowed range of the limit."""

_LOADED_AT_ONCE = 2
"""Processes of a paired run that have the model in memory."""


class TuningRun:
    """A running or finished search; callers poll its attributes."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.message = "Preparing."
        self.share = 0.0
        self.result: Tuned | None = None
        self.speculation: str | None = None
        """What speculation brings under the best hints, as a sentence."""
        self.error: PaddockError | None = None
        self.trials: list[Trial] = []
        self._cancelled = threading.Event()
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether the search has ended, successfully or not."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Stop the search; stored hints do not change."""
        self._cancelled.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return False on a timeout."""
        return self._done.wait(timeout_s)


class TuningService:
    """Starts searches for execution hints."""

    def __init__(
        self,
        settings: Settings,
        keep: Callable[[Tuned], None],
        working: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """
        Args:
            keep: called with the result.
            working: context manager that marks this work as disturbing other timings.
        """
        self.current: TuningRun | None = None
        """The latest search."""
        self._settings = settings
        self._keep = keep
        self._working = working
        self._lock = threading.Lock()

    def start(self, spec: ModelSpec, perplexity_limit: float = PERPLEXITY_LIMIT) -> TuningRun:
        """Start a search and return at once.

        Raises:
            ModelBusyError: another model is being tuned, or a benchmark is running.
            BadRequestError, UnknownModelError, UnknownDeviceError: the request is invalid.
        """
        if spec.runtime not in ANSWERING_RUNTIMES:
            raise BadRequestError(
                "Only OpenVINO runtimes have execution hints. Choose "
                f"{' or '.join(ANSWERING_RUNTIMES)}."
            )
        low, high = PERPLEXITY_LIMITS
        if not low <= perplexity_limit <= high:
            raise BadRequestError(
                f"The perplexity limit is {perplexity_limit}. Enter a ratio from {low} to {high}."
            )
        spec = replace(spec, device=require_device(spec.device))
        key = ModelStore(self._settings).resolve(spec.model).key
        with self._lock:
            if self.current is not None and not self.current.done:
                raise ModelBusyError(
                    f"{self.current.spec.label} is being tuned. Wait for it, or stop it."
                )
            lock = BenchmarkLock(self._settings)
            lock.acquire()
            self.current = run = TuningRun(spec)
        threading.Thread(
            target=self._run, args=(run, key, perplexity_limit, lock), name="tune", daemon=True
        ).start()
        return run

    def close(self) -> None:
        """Stop the current search and wait for its end."""
        if self.current is not None:
            self.current.cancel()
            self.current.wait()

    def _run(self, run: TuningRun, key: str, limit: float, lock: BenchmarkLock) -> None:
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
            run.error = GenerationError(f"Tuning failed ({error}). Try again.")
            run.message = str(run.error)
        finally:
            lock.release()
            run._done.set()

    def _tune(self, run: TuningRun, key: str, limit: float) -> Tuned:
        def report(message: str, share: float | None) -> None:
            run.message, run.share = message, share or 0.0

        spec = run.spec
        ready = prepare_artifact(
            Artifact(spec.model, False, spec.precision.on(spec.device)),
            self._settings,
            on_progress=report,
            cancel=run._cancelled,
        )
        check_memory(spec.label, ready, self._settings, at_once=_LOADED_AT_ONCE)
        named = ModelSpec(key, spec.precision, spec.device, spec.runtime)
        search = TuningSearch(ready.folder, named, report, run._cancelled, limit, trials=run.trials)
        tuned = search.run()
        run.speculation = search.speculation(tuned.hints)
        return tuned
