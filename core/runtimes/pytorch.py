"""Runs an unconverted checkpoint with PyTorch: the baseline of the benchmark.

No page offers it. It loads the original checkpoint and supports neither INT8 nor INT4.
"""

from __future__ import annotations

import logging
from pathlib import Path

from core.catalogue import Precision
from core.errors import BadRequestError, CorruptModelError, NotEnoughMemoryError
from core.hardware.cgroups import threads_for_quota
from core.runtimes.base import Conditions, InterruptedGeneration
from core.runtimes.spec import ModelSpec
from core.runtimes.transformers_generate import (
    TransformersModel,
    last_line,
)
from core.store.library_env import quick_imports

DTYPES = {Precision.FP32: "float32", Precision.FP16: "bfloat16"}
"""``torch`` dtype of weights and arithmetic. CPUs have no fast float16 arithmetic: in PyTorch it is
many times slower than bfloat16."""

_TYPE_NAMES = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names of these types, used in :class:`Conditions`."""


class PyTorchRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        with quick_imports():
            import transformers

            # Both import lazily, at the first use of a name.
            _ = transformers.AutoModelForCausalLM, transformers.AutoTokenizer

    def load(self, folder: Path, spec: ModelSpec) -> PyTorchModel:
        """Load the checkpoint in ``folder`` on the CPU, with the dtype of :data:`DTYPES`.

        Raises:
            BadRequestError: the precision or device is not supported.
            CorruptModelError: its files cannot be read.
            NotEnoughMemoryError: out of memory.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        dtype = _dtype_for(spec)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        if threads := (spec.hints and spec.hints.threads) or threads_for_quota():
            torch.set_num_threads(threads)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            network = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=getattr(torch, dtype), local_files_only=True
            )
        except MemoryError as error:
            raise NotEnoughMemoryError(
                f"Loading {spec.label} with PyTorch ran out of memory. Choose a smaller model, or "
                "close other programs."
            ) from error
        except Exception as error:  # tokenizers raises Exception itself
            raise CorruptModelError(
                f"The checkpoint of {spec.model} cannot be loaded with PyTorch "
                f"({last_line(error)}). Download or copy it again."
            ) from error
        conditions = Conditions(
            execution_precision=_TYPE_NAMES[dtype],
            kv_cache_precision=_TYPE_NAMES[dtype],
            devices_used=("CPU",),
            threads=torch.get_num_threads(),
        )
        return PyTorchModel(network.eval(), tokenizer, conditions)


class PyTorchModel(TransformersModel):
    """See :class:`core.runtimes.base.LoadedModel`."""

    failure = "{what} with PyTorch failed ({why}). Try again, or choose another precision."

    def _end_prefill(self) -> None:
        super()._end_prefill()
        if self._interrupted.is_set():
            raise InterruptedGeneration


def _dtype_for(spec: ModelSpec) -> str:
    if spec.precision not in DTYPES:
        raise BadRequestError(
            f"PyTorch runs checkpoints in FP32 and FP16, not in {spec.precision.label}. Choose one "
            "of those, or another runtime."
        )
    if spec.device not in ("CPU", "AUTO"):
        raise BadRequestError(
            f"PyTorch is supported on the CPU only, not on {spec.device}. Choose the CPU, or "
            "another runtime."
        )
    return DTYPES[spec.precision]
