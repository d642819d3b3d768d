"""Runs converted models with OpenVINO GenAI's continuous batching.

Paddock formats and tokenizes prompts, passes token ids to GenAI, and decodes the generated ids.
GenAI's own tokenizer, which its pipeline requires, is used for the end-of-text token only.
"""

from __future__ import annotations

import gc
import itertools
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import (
    BadRequestError,
    ConversionError,
    CorruptModelError,
    GenerationError,
    NotEnoughMemoryError,
    PaddockError,
)
from core.hardware.devices import AUTO, auto_devices, available_memory_bytes
from core.runtimes.base import Conditions, InterruptedGeneration, LoadedModel, OnToken
from core.runtimes.batching import BatchedAnswer, Lane, PrefixCache, Stepper
from core.runtimes.kv_cache import kv_bytes_per_position
from core.runtimes.optimum import (
    OptimumRuntime,
    conditions_of,
    openvino_properties,
    out_of_memory,
    unreadable,
)
from core.runtimes.spec import (
    GenAIOptions,
    ModelSpec,
    RuntimeName,
    SamplingSettings,
    Speculation,
    SpeculationMode,
    TokenRequest,
)
from core.runtimes.tokenizer import import_tokenizers, load_tokenizer
from core.runtimes.transformers_generate import as_ids, last_line
from core.store.checkpoint import context_length, read_json
from core.store.library_env import LIBRARY_ERRORS, disable_telemetry, quick_imports
from core.store.manifest import GenAICheck, read_manifest
from core.store.weights import IR_XML
from core.units import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import openvino_genai

    from core.runtimes.batching import Handle, Pipeline

logger = logging.getLogger(__name__)

DEFAULT_AT_ONCE = 8

PROMPT_PIECE_TOKENS = 256
"""Prompt tokens processed in one step, GenAI's default. Other answers wait this long for a step of
a long prompt, and so does a cancellation during prefill."""

KV_SHARE_OF_FREE = 0.5
"""Maximum fraction of the memory that is free after loading for the KV cache of all concurrent
answers; if that is too little, fewer answers run at a time."""

LOOKUP_MEMORY_PER_WEIGHT_BYTE = 2.0
"""The second pipeline compiles the model again, which takes 141 MB for SmolLM2's 82 MB in INT4."""

_UNKNOWN_POSITIONS = 4096
"""Context length assumed for a model whose configuration does not state one."""

_TOKENIZER_XML = "openvino_tokenizer.xml"


_SO_OPTIMUM = ", so Optimum runs it."
_LARGEST_MIN_P = 0.999999
"""GenAI rejects 1, with which only the likeliest token is left."""


class NotForGenAI(Exception):
    """GenAI cannot run this model; the message says why. Never shown as an error."""


class GenAIRuntime:
    """See :class:`core.runtimes.base.Runtime`.

    Models that GenAI cannot run are loaded with Optimum; their conditions then state the reason.
    """

    def __init__(self, at_once: int = DEFAULT_AT_ONCE) -> None:
        """
        Args:
            at_once: maximum number of concurrent answers per model.
        """
        self._at_once = at_once

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        disable_telemetry()
        with quick_imports():
            import openvino_genai  # noqa: F401
        import_tokenizers(folder)

    def load(self, folder: Path, spec: ModelSpec) -> LoadedModel:
        """Load ``folder`` on the device of ``spec``, with its hints."""
        logging.getLogger("transformers").setLevel(logging.ERROR)
        tokenizer = readable_tokenizer(folder, spec)
        try:
            return self.load_here(folder, spec, tokenizer)
        except NotForGenAI as reason:
            return load_with_optimum(folder, spec, str(reason))

    def load_here(self, folder: Path, spec: ModelSpec, tokenizer: Any) -> GenAIModel:
        """Load ``folder`` with GenAI.

        Args:
            tokenizer: the loaded model's ``tokenizer`` attribute; not used here.

        Raises:
            NotForGenAI: GenAI cannot run it; the message says why.
            CorruptModelError: its files cannot be read.
        """
        # GenAI's continuous batching needs a concrete device.
        device = next(iter(auto_devices()), "CPU") if spec.device == AUTO else spec.device
        if device.startswith("NPU"):
            raise NotForGenAI(
                "OpenVINO GenAI does not batch answers on an NPU, so Optimum runs it."
            )
        check: GenAICheck | None = None
        with suppress(CorruptModelError):  # it is no stored model
            check = read_manifest(folder).genai
        if check is not None and check.reason is not None:
            raise NotForGenAI(check.reason)
        config = read_json(folder / "config.json")
        with _genai_tokenizer(folder) as own:
            if own is None:
                raise NotForGenAI(
                    "Its tokenizer cannot be converted for OpenVINO GenAI, so Optimum runs it."
                )
            hints = replace(spec, device=device).effective_hints
            properties = openvino_properties(device, hints)
            build = partial(_pipeline, folder, own, device, properties, spec, self._at_once)
            pipeline = build()
        model = GenAIModel(
            pipeline,
            tokenizer,
            config,
            _end_ids(folder, config),
            device,
            properties,
            self._at_once,
            prefix_cache=spec.prefix_cache,
            build_lookup=partial(_build_lookup, folder, partial(build, prompt_lookup=True)),
        )
        if check is not None:
            model.conditions = replace(model.conditions, note=check.remark)
        _check_first_step(model)
        return model


def _check_first_step(model: GenAIModel) -> None:
    """Generate a token: some models are only refused then, such as those with further inputs.

    Raises:
        NotForGenAI: it failed.
    """
    request = TokenRequest((0,), SamplingSettings(max_new_tokens=1, greedy=True))
    try:
        model.generate(request, lambda token_id: True)
    except GenerationError as error:
        model.close()
        why = last_line(error.__cause__ or error)
        raise NotForGenAI(f"OpenVINO GenAI cannot run this model ({why}){_SO_OPTIMUM}") from error


def load_with_optimum(folder: Path, spec: ModelSpec, reason: str) -> LoadedModel:
    """Load a model that GenAI cannot run with Optimum; its conditions state the reason.

    Raises:
        GenerationError: Optimum cannot run it either; the message has both reasons.
    """
    logger.info("%s: %s", spec.label, reason)
    optimum = OptimumRuntime()
    optimum.prepare()
    try:
        model = optimum.load(folder, spec)
    except GenerationError as error:
        why = reason.removesuffix(_SO_OPTIMUM)
        raise GenerationError(f"{why}. Optimum cannot either: {error}") from error
    model.conditions = replace(model.conditions, runtime=RuntimeName.OPTIMUM.value, note=reason)
    return model


class GenAIBase(LoadedModel):
    """A model of GenAI, in this process or in its own, which can score a given text."""

    takes_options = True

    def log_probabilities(self, token_ids: Sequence[int]) -> list[float]:
        """Return the natural log probabilities of all tokens but the first, from one forward pass.

        Raises:
            GenerationError: the runtime failed.
        """
        found: list[float] = []

        def take(token_id: int) -> bool:
            found.append(getattr(token_id, "log_probability", None) or 0.0)
            return len(found) < len(token_ids)

        options = GenAIOptions(logprobs=True, ignore_eos=True)
        sampling = SamplingSettings(max_new_tokens=1, greedy=True)
        self.generate(TokenRequest(tuple(token_ids), sampling, options=options, echo=True), take)
        return found[1:]


class GenAIModel(GenAIBase):
    """See :class:`core.runtimes.base.LoadedModel`."""

    def __init__(
        self,
        pipeline: Any,
        tokenizer: Any,
        config: dict[str, Any],
        end_ids: frozenset[int],
        device: str,
        properties: dict[str, Any],
        at_once: int,
        prefix_cache: bool,
        build_lookup: Callable[[], Pipeline],
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = end_ids
        self.positions = context_length(config)
        self.conditions = _read_back(device, properties)
        self.at_once = _bounded(at_once, config, self.positions, self.conditions)
        self._pipeline = pipeline
        self._numbers = itertools.count()
        self._running: list[BatchedAnswer] = []
        self._has_prefix_cache = prefix_cache
        self._build_lookup = build_lookup
        self._lookup_lock = threading.Lock()
        self._lookup: Pipeline | None = None
        self._no_lookup: PaddockError | None = None
        """Why there is no pipeline with prompt lookup; it is not tried again."""
        self._stepper = Stepper(self._lane(pipeline), _is_running, _dropped)

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`.

        ``on_token`` is called in another thread. The first answer that guesses tokens loads a
        second pipeline before; with *auto* it is loaded after the first answer that could have
        used it.
        """
        mode = request.speculation.mode
        if mode is SpeculationMode.ON:
            self.load_lookup()
        self._generate(request, on_token)
        if (
            mode is SpeculationMode.AUTO
            and self._lookup is self._no_lookup is None
            and self.conditions.on_cpu_alone
            and self._stepper.auto.drafts_for(request) > 1
        ):
            threading.Thread(target=self._load_lookup_quietly, daemon=True).start()

    def load_lookup(self) -> None:
        """Load the pipeline with prompt lookup, unless it is loaded.

        Raises:
            NotEnoughMemoryError: it does not fit into the free memory.
            GenerationError: GenAI cannot run this model with prompt lookup.
        """
        with self._lookup_lock:
            if self._no_lookup is not None:
                raise self._no_lookup
            if self._lookup is not None:
                return
            try:
                self._lookup = self._build_lookup()
                self._stepper.add_lookup(self._lane(self._lookup))
                on = Speculation(SpeculationMode.ON)
                settings = SamplingSettings(max_new_tokens=3, greedy=True)
                self._generate(TokenRequest((0, 0), settings, speculation=on), lambda _: True)
            except PaddockError as error:
                if not isinstance(error, NotEnoughMemoryError):  # memory may become free
                    self._no_lookup = error
                self._lookup = None
                self._stepper.add_lookup(None)
                raise

    def _load_lookup_quietly(self) -> None:
        try:
            self.load_lookup()
        except PaddockError as error:
            logger.info("No prompt lookup: %s", error)

    def _lane(self, pipeline: Pipeline) -> Lane:
        import numpy as np
        import openvino

        def admit(request: TokenRequest) -> Handle:
            ids = openvino.Tensor(np.asarray([request.prompt_ids], dtype=np.int64))
            config = _generation_config(request, self.end_ids)
            return pipeline.add_request(next(self._numbers), ids, config)

        return Lane(pipeline, admit, PrefixCache() if self._has_prefix_cache else None)

    def _generate(self, request: TokenRequest, on_token: OnToken) -> None:
        answer = BatchedAnswer(request, on_token)
        self._running.append(answer)
        try:
            self._stepper.add(answer)
            answer.ended.wait()
        finally:
            self._running.remove(answer)
        if answer.interrupted:
            raise InterruptedGeneration
        unread = request.options.structure is not None and not answer.tokens
        if unread and answer.error is not None and not isinstance(answer.error, PaddockError):
            raise BadRequestError(_structure_error(answer.error)) from answer.error
        if isinstance(answer.error, RuntimeError):
            logger.error("Generation failed in OpenVINO GenAI", exc_info=answer.error)
            raise GenerationError(
                f"Generation failed ({last_line(answer.error)}). Try again, or choose another "
                "precision, device or runtime."
            ) from answer.error
        if answer.error is not None:
            raise answer.error

    def interrupt(self, request: TokenRequest) -> None:
        """Cancel the prefill of this request object; the current step ends first."""
        for answer in list(self._running):
            if answer.request is request:
                answer.interrupt()

    def close(self) -> None:
        with self._lookup_lock:  # wait until it is loaded
            self._stepper.close()
            self._pipeline = self._lookup = None
            self._no_lookup = GenerationError("The model was unloaded. Try again.")
        gc.collect()


def _generation_config(request: TokenRequest, end_ids: frozenset[int]) -> Any:
    """Return the ``GenerationConfig`` of a request.

    By default GenAI also ends an answer at the model's own end-of-text tokens. They are ignored if
    the request does not name them; :class:`BatchedAnswer` then checks the request's stop ids.
    """
    import openvino_genai

    sampling = request.sampling
    config = openvino_genai.GenerationConfig()
    config.apply_chat_template = False
    config.max_new_tokens = int(sampling.max_new_tokens)
    config.repetition_penalty = float(sampling.repetition_penalty)
    config.stop_token_ids = set(request.stop_ids)
    config.ignore_eos = not (request.stop_ids and end_ids <= request.stop_ids)
    if request.speculation.mode is SpeculationMode.ON:
        config.num_assistant_tokens = request.speculation.tokens
        config.max_ngram_size = request.speculation.ngram
    options = request.options
    config.presence_penalty = float(options.presence_penalty)
    config.frequency_penalty = float(options.frequency_penalty)
    config.min_new_tokens = int(options.min_tokens)
    config.logprobs = int(options.logprobs)
    config.echo = request.echo
    if (structure := options.structure) is not None:
        config.structured_output_config = openvino_genai.StructuredOutputConfig(
            **{structure.kind: structure.text}
        )
    if not sampling.greedy:
        config.do_sample = True
        config.temperature = float(sampling.temperature)
        config.top_p = float(sampling.top_p)
        if sampling.top_k > 0:
            config.top_k = int(sampling.top_k)
        config.min_p = min(float(options.min_p), _LARGEST_MIN_P)
        config.rng_seed = sampling.seed or 0
    return config


def _is_running(handle: Handle) -> bool:
    import openvino_genai

    return handle.get_status() == openvino_genai.GenerationStatus.RUNNING


def _dropped(handle: Handle) -> NotEnoughMemoryError | None:
    """Return the error for an answer for whose KV cache there was no memory."""
    import openvino_genai

    if handle.get_status() != openvino_genai.GenerationStatus.IGNORED:
        return None
    return NotEnoughMemoryError(
        "OpenVINO GenAI dropped the answer, because the memory for the KV cache is used up. Try "
        "again when fewer answers are running, shorten the text, or choose a smaller model."
    )


@contextmanager
def _genai_tokenizer(folder: Path) -> Iterator[openvino_genai.Tokenizer | None]:
    """Load GenAI's tokenizer of a stored model, converting it if the model was stored without.

    Yields:
        None if it cannot be converted.
    """
    import openvino_genai

    if (folder / _TOKENIZER_XML).is_file():
        try:
            yield openvino_genai.Tokenizer(str(folder))
            return
        except RuntimeError as error:
            logger.warning("the OpenVINO tokenizer in %s cannot be read: %s", folder, error)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        yield _convert_tokenizer(folder, Path(temporary))


def _convert_tokenizer(folder: Path, target: Path) -> openvino_genai.Tokenizer | None:
    import openvino_genai

    from core.store.convert import write_openvino_tokenizer

    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        write_openvino_tokenizer(tokenizer, target)
        written = (target / _TOKENIZER_XML).is_file()
        return openvino_genai.Tokenizer(str(target)) if written else None
    except (ConversionError, *LIBRARY_ERRORS) as error:
        logger.info("no OpenVINO tokenizer for this model: %s", last_line(error))
        return None


def _pipeline(
    folder: Path,
    tokenizer: openvino_genai.Tokenizer,
    device: str,
    properties: dict[str, Any],
    spec: ModelSpec,
    at_once: int,
    *,
    prompt_lookup: bool = False,
) -> openvino_genai.ContinuousBatchingPipeline:
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = at_once
    scheduler.max_num_batched_tokens = PROMPT_PIECE_TOKENS
    scheduler.enable_prefix_caching = spec.prefix_cache
    if prompt_lookup:
        properties = {**properties, "prompt_lookup": True}
    try:
        return openvino_genai.ContinuousBatchingPipeline(
            str(folder), tokenizer, scheduler, device, **properties
        )
    except MemoryError as error:
        raise out_of_memory(spec) from error
    except RuntimeError as error:
        if _is_readable(folder):
            raise NotForGenAI(
                f"OpenVINO GenAI cannot run this model ({last_line(error)}){_SO_OPTIMUM}"
            ) from error
        raise unreadable(spec, error) from error


def _build_lookup(folder: Path, build: Callable[[], Pipeline]) -> Pipeline:
    """Build the pipeline with prompt lookup of a loaded model.

    Raises:
        NotEnoughMemoryError: it does not fit into the free memory.
        GenerationError: GenAI cannot run this model with prompt lookup.
    """
    needed = LOOKUP_MEMORY_PER_WEIGHT_BYTE * (folder / IR_XML).with_suffix(".bin").stat().st_size
    free = available_memory_bytes()
    if needed > free:
        raise NotEnoughMemoryError(
            f"Prompt lookup needs about {bytes_text(int(needed))} more memory, but only "
            f"{bytes_text(free)} are free. Switch speculation off, or close other programs."
        )
    try:
        return build()
    except NotForGenAI as error:
        raise GenerationError(f"Prompt lookup failed: {error} Switch speculation off.") from error


def _is_readable(folder: Path) -> bool:
    """Whether OpenVINO can read the model's files; GenAI's error does not tell the cause."""
    import openvino

    try:
        openvino.Core().read_model(folder / IR_XML)
    except RuntimeError:
        return False
    return True


def readable_tokenizer(folder: Path, spec: ModelSpec) -> Any:
    """Load the tokenizer of a stored model.

    Raises:
        CorruptModelError: it cannot be read.
        NotEnoughMemoryError: out of memory.
    """
    try:
        return load_tokenizer(folder)
    except MemoryError as error:
        raise out_of_memory(spec) from error
    except Exception as error:  # tokenizers raises Exception itself
        raise unreadable(spec, error) from error


def _end_ids(folder: Path, config: dict[str, Any]) -> frozenset[int]:
    own = folder / "generation_config.json"
    settings = read_json(own) if own.is_file() else config
    return as_ids(settings.get("eos_token_id"))


def _read_back(device: str, properties: dict[str, Any]) -> Conditions:
    """Return the effective conditions of these properties.

    They are read from a small model compiled with the same properties, because GenAI does not give
    access to its own compiled model.
    """
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    parameter = ops.parameter([1], dtype=np.float32)
    small = openvino.Model([ops.relu(parameter)], [parameter], "conditions")
    return conditions_of(openvino.Core().compile_model(small, device, properties), properties)


def _bounded(
    at_once: int, config: dict[str, Any], longest: int | None, conditions: Conditions
) -> int:
    """Return how many answers of maximum length fit into memory at once, ``at_once`` at most."""
    per_position = kv_bytes_per_position(config, conditions.kv_cache_precision)
    if per_position is None:
        return at_once
    room = KV_SHARE_OF_FREE * available_memory_bytes()
    return max(1, min(at_once, int(room // (per_position * (longest or _UNKNOWN_POSITIONS)))))


def _structure_error(error: Exception) -> str:
    """Return the reason why GenAI does not accept a structure, without its source location."""
    line = (str(error).strip() or "OpenVINO GenAI does not accept it").splitlines()[-1]
    _, location, detail = line.rpartition(".cc:")
    return (detail.partition(": ")[2] if location else line)[:200]
