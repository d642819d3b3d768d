"""Runs converted models with Optimum Intel's ``OVModelForCausalLM``."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import CorruptModelError, GenerationError, NotEnoughMemoryError
from core.runtimes.base import Conditions, InterruptedGeneration, OnToken
from core.runtimes.spec import ExecutionHints, ModelSpec, TokenRequest
from core.store.checkpoint import positions
from core.store.quiet import quick_imports, refuse_telemetry

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


_FREEZE_EVERY_S = 0.05
_freezing = threading.Lock()
_frozen = False


@contextmanager
def _spared_from_collections() -> Iterator[None]:
    """Keep what is imported in this block out of the garbage collector's sight, once a process.

    Streamlit collects all garbage after each run of a page or fragment. With these libraries
    loaded that is half a million objects, 0.4 s in which no other thread runs: on a busy machine
    ten collections a second slowed an embedded model from 556 to 34 tokens/s, and the imports
    before it from 5 s to minutes, which is why their objects are taken away while they come.
    Afterwards a collection takes 5 ms. All this is before any model is loaded, so that models stay
    collectable.
    """
    global _frozen
    with _freezing:
        if _frozen:
            yield
            return
        imported = threading.Event()

        def freeze() -> None:
            while not imported.wait(_FREEZE_EVERY_S):
                gc.freeze()

        freezer = threading.Thread(target=freeze, name="freeze imports", daemon=True)
        freezer.start()
        try:
            yield
        finally:
            imported.set()
            freezer.join()
        gc.freeze()
        _frozen = True


class OptimumRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        refuse_telemetry()
        with _spared_from_collections(), quick_imports():
            import optimum.intel
            import transformers

            # Both import lazily, at the first use of a name.
            _ = optimum.intel.OVModelForCausalLM, transformers.AutoTokenizer

    def load(self, folder: Path, spec: ModelSpec) -> OptimumModel:
        """Load ``folder`` on the device of ``spec``, with its hints."""
        from optimum.intel import OVModelForCausalLM
        from transformers import AutoTokenizer

        for chatty in ("optimum", "transformers"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        properties = openvino_properties(spec.device, spec.effective_hints)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = OVModelForCausalLM.from_pretrained(
                str(folder),
                device=spec.device,
                ov_config=properties,
                export=False,
                local_files_only=True,
                compile=False,
            )
        except MemoryError as error:
            raise _out_of_memory(spec) from error
        except Exception as error:  # tokenizers raises Exception itself
            raise CorruptModelError(
                f"The files of {spec.model} in {spec.precision.label} cannot be loaded "
                f"({_last_line(error)}); delete them and convert the model again."
            ) from error
        try:
            model.compile()
        except MemoryError as error:
            raise _out_of_memory(spec) from error
        except RuntimeError as error:
            raise GenerationError(
                f"{spec.device} cannot run {spec.model} in {spec.precision.label} "
                f"({_last_line(error)}); choose another device or precision."
            ) from error
        return OptimumModel(model, tokenizer, properties)


class OptimumModel:
    """See :class:`core.runtimes.base.LoadedModel`."""

    def __init__(self, model: Any, tokenizer: Any, properties: dict[str, Any]) -> None:
        from transformers import GenerationConfig

        self.tokenizer = tokenizer
        self.end_ids = _as_ids(model.generation_config.eos_token_id)
        self.positions = positions(model.config.to_dict())
        # The checkpoint's own sampling defaults must not mix with what the person chose.
        model.generation_config = GenerationConfig()
        self.conditions = _conditions(model.request.get_compiled_model(), properties)
        self._model = model
        self._in_prefill = threading.Event()
        self._interrupted = threading.Event()

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`."""
        import torch
        from transformers import GenerationConfig

        prompt = torch.tensor([request.prompt_ids], dtype=torch.int64)
        streamer = _Streamer(on_token, self._in_prefill)
        sampling = request.sampling
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=sorted(request.stop_ids) or None,
            pad_token_id=0,
        )
        self._interrupted.clear()
        self._in_prefill.set()
        try:
            self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=config,
                logits_processor=_sampling_processors(request),
                stopping_criteria=[streamer.stopping_criterion],
                streamer=streamer,
            )
        except RuntimeError as error:
            if self._interrupted.is_set():
                raise InterruptedGeneration from None
            logger.exception("Generation failed")
            raise GenerationError(
                f"The model failed while it answered ({_last_line(error)}); try again, or "
                "choose another precision or device."
            ) from error
        finally:
            self._in_prefill.clear()

    def interrupt(self) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.interrupt`."""
        if self._in_prefill.is_set():
            self._interrupted.set()
            self._model.request.cancel()

    def close(self) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.close`."""
        self._model.request = None
        self._model.model = None
        self._model = None
        gc.collect()


class _Streamer:
    """Hands each token on as it comes; ``transformers`` sends the prompt first."""

    def __init__(self, on_token: OnToken, in_prefill: threading.Event) -> None:
        self._on_token = on_token
        self._in_prefill = in_prefill
        self._prompt_seen = False
        self._go_on = True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._in_prefill.clear()
        self._go_on = self._on_token(int(value[0])) and self._go_on

    def end(self) -> None:
        pass

    def stopping_criterion(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        return torch.full((ids.shape[0],), not self._go_on, dtype=torch.bool)


def openvino_properties(device: str, hints: ExecutionHints) -> dict[str, Any]:
    """OpenVINO properties for these hints; ``AUTO`` takes them for the CPU it may choose.

    No ``CACHE_DIR``: on CPU it makes the first load five times slower and doubles the memory.
    """
    chosen = {
        "INFERENCE_PRECISION_HINT": hints.inference_precision,
        "KV_CACHE_PRECISION": hints.kv_cache_precision,
        "INFERENCE_NUM_THREADS": hints.threads,
    }
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if device == "AUTO":
        return {"PERFORMANCE_HINT": "LATENCY", "DEVICE_PROPERTIES": {"CPU": chosen}}
    return {"PERFORMANCE_HINT": "LATENCY", **chosen}


def _sampling_processors(request: TokenRequest) -> Any:
    """Processors that leave exactly one candidate, drawn from a generator of this request.

    ``generate`` draws from torch's global generator, so that two sampled answers at once would
    disturb each other's seeds; here it only takes the maximum of what is left.
    """
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    sampling = request.sampling
    if sampling.greedy:
        return LogitsProcessorList()
    processors: list[Any] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_k > 0:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        processors.append(TopPLogitsWarper(sampling.top_p))
    processors.append(_Draw(sampling.seed or 0))
    return LogitsProcessorList(processors)


class _Draw:
    """Logits processor that keeps one token, drawn with a generator of its own."""

    def __init__(self, seed: int) -> None:
        import torch

        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        probabilities = torch.softmax(scores.float(), dim=-1)
        drawn = torch.multinomial(probabilities, 1, generator=self._generator)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def _conditions(compiled: Any, properties: dict[str, Any]) -> Conditions:
    """Read back from the compiled model what it really runs with."""
    devices = tuple(compiled.get_property("EXECUTION_DEVICES"))
    if properties.get("DEVICE_PROPERTIES"):  # compiled for AUTO, which knows its device's
        used = devices[0].strip("()")  # in brackets while AUTO still prepares another
        read = compiled.get_property("DEVICE_PROPERTIES").get(used, {}).get
    else:
        known = compiled.get_property("SUPPORTED_PROPERTIES")
        read = lambda name: compiled.get_property(name) if name in known else None  # noqa: E731
    threads = read("INFERENCE_NUM_THREADS")
    return Conditions(
        execution_precision=_type_name(read("INFERENCE_PRECISION_HINT")),
        kv_cache_precision=_type_name(read("KV_CACHE_PRECISION")),
        devices_used=devices,
        threads=None if threads is None else int(threads),
        hints={name: value for name, value in properties.items() if name != "DEVICE_PROPERTIES"}
        | properties.get("DEVICE_PROPERTIES", {}).get("CPU", {}),
    )


def _type_name(element_type: Any) -> str | None:
    """OpenVINO's short name of an element type: f32, bf16, u8."""
    return None if element_type is None else element_type.get_type_name()


def _as_ids(value: int | list[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)


def _out_of_memory(spec: ModelSpec) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(
        f"The memory ran out while {spec.label} was loaded; choose a lower precision or a "
        "smaller model, or close other programs."
    )


def _last_line(error: Exception) -> str:
    """The last line of an error's text: OpenVINO puts the places in its source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
