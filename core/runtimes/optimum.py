"""Runs converted models with Optimum Intel's ``OVModelForCausalLM``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import CorruptModelError, GenerationError, NotEnoughMemoryError
from core.hardware.cgroups import threads_for_quota
from core.runtimes.base import Conditions
from core.runtimes.spec import ExecutionHints, ModelSpec, TokenRequest
from core.runtimes.transformers_generate import (
    TransformersModel,
    last_line,
)
from core.store.library_env import disable_telemetry, quick_imports
from core.store.optimum_model import load_optimum_model
from core.store.weights import check_cache, read_weights


class OptimumRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        disable_telemetry()
        with quick_imports():
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
        compiled = model.request.get_compiled_model()
        return OptimumModel(model, tokenizer, conditions_of(compiled, properties))


class OptimumModel(TransformersModel):
    """See :class:`core.runtimes.base.LoadedModel`."""

    failure = "{what} failed ({why}). Try again, or choose another precision or device."

    def interrupt(self, request: TokenRequest) -> None:
        """Cancel the prefill, also within a step."""
        super().interrupt(request)
        if self._in_prefill.is_set():
            self._model.request.cancel()

    def close(self) -> None:
        self._model.request = self._model.model = None
        super().close()


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
