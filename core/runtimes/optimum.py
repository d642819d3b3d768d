"""Runs converted models with Optimum Intel's ``OVModelForCausalLM``."""

from __future__ import annotations

import gc
import logging
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import CorruptModelError, GenerationError, NotEnoughMemoryError
from core.hardware.cgroups import threads_for_quota
from core.runtimes.base import Conditions, InterruptedGeneration, OnToken
from core.runtimes.spec import ExecutionHints, ModelSpec, TokenRequest
from core.runtimes.transformers_generate import (
    TRANSFORMERS,
    as_ids,
    frozen_imports,
    generate_tokens,
    last_line,
)
from core.store.checkpoint import context_length
from core.store.library_env import disable_telemetry, quick_imports
from core.store.optimum_model import load_optimum_model
from core.store.weights import check_cache, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

logger = logging.getLogger(__name__)


class OptimumRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        disable_telemetry()
        with frozen_imports(TRANSFORMERS), quick_imports():
            import optimum.intel
            import transformers

            # Both import lazily, at the first use of a name.
            _ = optimum.intel.OVModelForCausalLM, transformers.AutoTokenizer

    def load(self, folder: Path, spec: ModelSpec) -> OptimumModel:
        """Load ``folder`` on the device of ``spec``, with its hints."""
        from transformers import AutoTokenizer

        properties = openvino_properties(spec.device, spec.effective_hints)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = load_optimum_model(folder, spec.device, properties)
        except MemoryError as error:
            raise out_of_memory(spec) from error
        except Exception as error:  # tokenizers raises Exception itself
            with suppress(CorruptModelError):
                check_cache(spec.model, read_weights(folder))
            raise unreadable(spec, error) from error
        try:
            model.compile()
        except MemoryError as error:
            raise out_of_memory(spec) from error
        except RuntimeError as error:
            raise unrunnable(spec, error) from error
        return OptimumModel(model, tokenizer, properties)


class OptimumModel:
    """See :class:`core.runtimes.base.LoadedModel`."""

    takes_options = False
    at_once = 1
    """An ``OVModelForCausalLM`` has one infer request, so it runs one generation at a time."""

    def __init__(self, model: Any, tokenizer: Any, properties: dict[str, Any]) -> None:
        from transformers import GenerationConfig

        self.tokenizer = tokenizer
        self.end_ids = as_ids(model.generation_config.eos_token_id)
        self.positions = context_length(model.config.to_dict())
        # The checkpoint's sampling defaults must not be combined with the requested settings.
        model.generation_config = GenerationConfig()
        self.conditions = conditions_of(model.request.get_compiled_model(), properties)
        self._model = model
        self._in_prefill = threading.Event()
        self._interrupted = threading.Event()

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`."""
        self._interrupted.clear()
        self._in_prefill.set()
        try:
            generate_tokens(self._model, request, on_token, self._in_prefill.clear)
        except RuntimeError as error:
            if self._interrupted.is_set():
                raise InterruptedGeneration from None
            logger.exception("Generation failed")
            raise GenerationError(
                f"Generation failed ({last_line(error)}). Try again, or choose another precision "
                "or device."
            ) from error
        finally:
            self._in_prefill.clear()

    def scores(self, token_ids: Sequence[int]) -> np.ndarray:
        """See :meth:`core.runtimes.base.ScoringModel.scores`."""
        import torch

        ids = torch.tensor([token_ids], dtype=torch.int64)
        try:
            logits = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        except RuntimeError as error:
            raise GenerationError(
                f"Scoring a text failed ({last_line(error)}). Try again, or choose another "
                "precision or device."
            ) from error
        return logits[0].float().numpy()

    def interrupt(self, request: TokenRequest) -> None:
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


def openvino_properties(device: str, hints: ExecutionHints) -> dict[str, Any]:
    """Return the OpenVINO properties for these hints; ``AUTO`` applies them on the CPU only.

    ``CACHE_DIR`` is not set: on CPU it makes the first load five times slower and doubles the
    memory.
    """
    threads = threads_for_quota() if device in ("CPU", "AUTO") else None
    chosen = replace(hints, threads=hints.threads or threads).properties
    if device == "AUTO":
        return {"PERFORMANCE_HINT": "LATENCY", "DEVICE_PROPERTIES": {"CPU": chosen}}
    return {"PERFORMANCE_HINT": "LATENCY", **chosen}


def conditions_of(compiled: Any, properties: dict[str, Any]) -> Conditions:
    """Read the effective conditions from a compiled model."""
    devices = tuple(compiled.get_property("EXECUTION_DEVICES"))
    if properties.get("DEVICE_PROPERTIES"):  # compiled for AUTO
        used = devices[0].strip("()")  # in brackets while AUTO still compiles for another device
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
    """Return OpenVINO's short name of an element type: f32, bf16, u8."""
    return None if element_type is None else element_type.get_type_name()


def out_of_memory(spec: ModelSpec) -> NotEnoughMemoryError:
    """Return the error for a model whose loading ran out of memory."""
    return NotEnoughMemoryError(
        f"Loading {spec.label} ran out of memory. Choose a lower precision or a smaller model, or "
        "close other programs."
    )


def unreadable(spec: ModelSpec, error: Exception) -> CorruptModelError:
    """Return the error for a model whose files cannot be loaded."""
    return CorruptModelError(
        f"The files of {spec.model} {spec.precision.phrase} cannot be loaded "
        f"({last_line(error)}). Delete them and convert the model again."
    )


def unrunnable(spec: ModelSpec, error: Exception) -> GenerationError:
    """Return the error for a model that the device cannot run although its files are intact."""
    cpu = spec.device in ("CPU", "AUTO")  # which run what any device runs
    return GenerationError(
        f"{spec.device} cannot run {spec.model} {spec.precision.phrase} "
        f"({last_line(error)}). Choose another {'model' if cpu else 'device'} or precision."
    )
