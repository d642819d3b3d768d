"""Runtime whose tokens are released by the test, where a real model would cause race conditions.

Each model has a :class:`Stage`. A test sets its :class:`Script`, releases tokens one by one or all
at once, and reads the progress of the answer; the routes at the end do that over HTTP.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.catalogue import Precision
from core.errors import GenerationError
from core.runtimes.base import Conditions, InterruptedGeneration, LoadedModel, OnToken
from core.runtimes.spec import ModelSpec, TokenRequest
from core.runtimes.tokenizer import load_tokenizer
from core.settings import Settings
from core.store import Manifest, Progress, Source, StoredModel
from core.store import Stage as ConversionStage
from core.store.manifest import SourceRecord
from tests.builders import CHAT_TEMPLATE, tiny_tokenizer
from tests.waiting import PATIENCE_S

DEFAULT_MODEL = "paddock-neox"
POSITIONS = 8192
_END_OF_TEXT = 0
_HELD_S = 2 * PATIENCE_S
"""Timeout, so that a test that does not release everything leaves no thread behind. No test waits
as long: what is held back never comes by itself."""


@dataclass(frozen=True)
class Script:
    """The next answers of a model."""

    text: str = "A short answer."
    released: int | None = None
    """Tokens generated without :meth:`Stage.release`; None for all."""
    hold_load: bool = False
    """Loading waits for :meth:`Stage.release_load`."""
    hold_prefill: bool = False
    """The first token waits for :meth:`Stage.release`, regardless of ``released``."""
    tokens_per_s: float | None = None
    """Rate of released tokens; None for no delay."""
    fail_after: int | None = None
    """The runtime fails after this many tokens."""


@dataclass
class State:
    """Events on a stage since its script was set."""

    loads: int = 0
    prompts: list[str] = field(default_factory=list)
    """Prompt of each answer as text, with special tokens."""
    seeds: list[int | None] = field(default_factory=list)
    tokens: int = 0
    """Number of tokens of the latest answer so far."""
    interrupted: int = 0
    running: int = 0
    """Running answers; a model must never have more than one."""
    most_running: int = 0


class Stage:
    """State of one model, shared by the test and the worker threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._script, self.state = Script(), State()
        self._credit: float = float("inf")
        self._load_held = False

    def put(self, script: Script) -> None:
        """Set the script of the following answers and reset the state."""
        with self._changed:
            self._script, self.state = script, State()
            self._credit = float("inf") if script.released is None else script.released
            if script.hold_prefill:
                self._credit = 0
            self._load_held = script.hold_load
            self._changed.notify_all()

    def release(self, count: int | None) -> None:
        """Release this many more tokens; None for all."""
        with self._changed:
            self._credit += float("inf") if count is None else count
            self._changed.notify_all()

    def release_load(self) -> None:
        """Continue loading."""
        with self._changed:
            self._load_held = False
            self._changed.notify_all()

    def enter_load(self) -> None:
        """Called by the runtime while it loads."""
        with self._changed:
            self.state.loads += 1
            self._changed.wait_for(lambda: not self._load_held, _HELD_S)

    def play(
        self,
        prompt: str,
        request: TokenRequest,
        ids_of: Callable[[str], list[int]],
        ask: OnToken,
        interrupted: threading.Event,
    ) -> None:
        """Generate according to the script; see :class:`core.runtimes.base.LoadedModel`."""
        with self._changed:
            script, state = self._script, self.state
            state.prompts.append(prompt)
            state.seeds.append(request.sampling.seed)
            state.tokens = 0
            state.running += 1
            state.most_running = max(state.most_running, state.running)
        try:
            self._play(
                script, state, [*ids_of(script.text), _END_OF_TEXT], request, ask, interrupted
            )
        finally:
            with self._changed:
                state.running -= 1

    def _play(
        self,
        script: Script,
        state: State,
        ids: list[int],
        request: TokenRequest,
        ask: OnToken,
        interrupted: threading.Event,
    ) -> None:
        due = time.perf_counter()
        for at, token_id in enumerate(ids[: request.sampling.max_new_tokens]):
            if script.fail_after == at:
                raise GenerationError(
                    "Generation failed (scripted fault). Try again, or choose another precision "
                    "or device."
                )
            began = time.perf_counter()
            self._await_credit(interrupted)
            due += time.perf_counter() - began  # tokens that were held back do not come at once
            if interrupted.is_set():
                state.interrupted += 1
                if at == 0:
                    raise InterruptedGeneration
                return
            if script.tokens_per_s:
                due += 1 / script.tokens_per_s
                time.sleep(max(0.0, due - time.perf_counter()))
            go_on = ask(token_id)
            state.tokens = at + 1
            if not go_on:
                return

    def _await_credit(self, interrupted: threading.Event) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._credit >= 1 or interrupted.is_set(), _HELD_S)
            if not interrupted.is_set():
                self._credit -= 1

    def wake(self) -> None:
        """Make waiting threads check their conditions."""
        with self._changed:
            self._changed.notify_all()


STAGES: defaultdict[str, Stage] = defaultdict(Stage)
"""Stages by model name."""


class ScriptedRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""

    def load(self, folder: Path, spec: ModelSpec) -> ScriptedModel:
        """Load a model with a real tokenizer and no weights."""
        STAGES[spec.model].enter_load()
        return ScriptedModel(folder, spec)


class ScriptedModel(LoadedModel):
    """See :class:`core.runtimes.base.LoadedModel`."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.end_ids = frozenset({_END_OF_TEXT})
        self.positions = POSITIONS
        self.conditions = Conditions("f32", "u8", ("CPU",), 2, {"PERFORMANCE_HINT": "LATENCY"})
        self._stage = STAGES[spec.model]
        self._interrupted = threading.Event()
        self._warm = False

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`."""
        if not self._warm:  # the warm-up of the pool does not count as an answer
            self._warm = True
            return
        self._interrupted.clear()
        self._stage.play(
            self.tokenizer.decode(request.prompt_ids),
            request,
            self._ids_of,
            on_token,
            self._interrupted,
        )

    def interrupt(self, request: TokenRequest) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.interrupt`."""
        self._interrupted.set()
        self._stage.wake()

    def close(self) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.close`."""

    def _ids_of(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def scripted_conversion(
    source: Source,
    precision: Precision,
    *,
    settings: Settings,
    progress: Callable[[Progress], None],
    **_: Any,
) -> StoredModel:
    """Stands in for :func:`core.store.convert_in_process`: a tokenizer and a manifest, at once."""
    progress(Progress(ConversionStage.EXPORTING, "Converting the model.", 0.5))
    folder = Path(tempfile.mkdtemp(prefix=f"{source.key}-{precision.value}-", dir=settings.home))
    tiny_tokenizer(folder, chat_template=CHAT_TEMPLATE)
    manifest = Manifest(
        key=source.key,
        title=source.title,
        source=SourceRecord(
            kind=source.kind, location=str(source.location), revision=None, fingerprint=None
        ),
        precision=precision,
        int4=None,
        versions={},
        architecture="gpt_neox",
        parameters=1000,
        weight_types={},
        weight_bytes=1000,
        folder_bytes=1000,
        positions=POSITIONS,
        has_chat_template=True,
        created=datetime.now(UTC),
        duration_s=0.0,
        peak_memory_bytes=0,
        files={},
    )
    return StoredModel(source.key, precision, folder, manifest)


async def _put_script(request: Request) -> Response:
    """``POST /test/script``: JSON with the fields of :class:`Script`, and ``model``."""
    fields = await request.json()
    STAGES[fields.pop("model", DEFAULT_MODEL)].put(Script(**fields))
    return JSONResponse({})


async def _release(request: Request) -> Response:
    """``POST /test/release?n=3&model=KEY``; without ``n``, all tokens and the loading."""
    stage = STAGES[request.query_params.get("model", DEFAULT_MODEL)]
    count = request.query_params.get("n")
    if count is None:
        stage.release_load()
    stage.release(None if count is None else int(count))
    return JSONResponse({})


async def _state(request: Request) -> Response:
    """``GET /test/state?model=KEY``: the fields of :class:`State`."""
    stage = STAGES[request.query_params.get("model", DEFAULT_MODEL)]
    return JSONResponse(asdict(stage.state))


async def _reset(request: Request) -> Response:
    """``POST /test/reset``: release everything and set the default scripts."""
    for stage in STAGES.values():
        stage.put(Script())
    return JSONResponse({})


test_routes = [
    Route("/test/script", _put_script, methods=["POST"]),
    Route("/test/release", _release, methods=["POST"]),
    Route("/test/reset", _reset, methods=["POST"]),
    Route("/test/state", _state),
]
