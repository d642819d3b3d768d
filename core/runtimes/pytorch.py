"""Runs a checkpoint with PyTorch, as its maker does: the baseline of the benchmark.

No page offers it. It reads the original's folder, not a converted one, and knows no INT8 or INT4.
"""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import Precision
from core.errors import BadRequestError, CorruptModelError, GenerationError, NotEnoughMemoryError
from core.runtimes.base import Conditions, InterruptedGeneration, OnToken
from core.runtimes.spec import ModelSpec, TokenRequest
from core.runtimes.transformers_generate import (
    TRANSFORMERS,
    as_ids,
    generate_tokens,
    last_line,
    spared_from_collections,
)
from core.store.checkpoint import context_length
from core.store.library_env import quick_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

logger = logging.getLogger(__name__)

DTYPES = {Precision.FP32: "float32", Precision.FP16: "bfloat16"}
"""Type of weights and arithmetic, as ``torch`` names it. CPUs have no fast float16 arithmetic:
PyTorch's is many times slower than bfloat16 there, and nobody would run it."""

_TYPE_NAMES = {"float32": "f32", "bfloat16": "bf16"}
"""The same in OpenVINO's names, in which conditions are kept."""


class PyTorchRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        with spared_from_collections(TRANSFORMERS), quick_imports():
            import transformers

            # Both import lazily, at the first use of a name.
            _ = transformers.AutoModelForCausalLM, transformers.AutoTokenizer

    def load(self, folder: Path, spec: ModelSpec) -> PyTorchModel:
        """Load the checkpoint in ``folder`` on the CPU, in the type of :data:`DTYPES`.

        Raises:
            BadRequestError: another precision or device.
            CorruptModelError: its files cannot be read.
            NotEnoughMemoryError: the memory ran out.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        dtype = _dtype_for(spec)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        if spec.hints and spec.hints.threads:
            torch.set_num_threads(spec.hints.threads)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            network = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=getattr(torch, dtype), local_files_only=True
            )
        except MemoryError as error:
            raise NotEnoughMemoryError(
                f"The memory ran out while {spec.label} was loaded with PyTorch; choose a smaller "
                "model, or close other programs."
            ) from error
        except Exception as error:  # tokenizers raises Exception itself
            raise CorruptModelError(
                f"The checkpoint of {spec.model} cannot be loaded with PyTorch "
                f"({last_line(error)}); fetch or copy it again."
            ) from error
        return PyTorchModel(network.eval(), tokenizer, dtype)


class PyTorchModel:
    """See :class:`core.runtimes.base.LoadedModel`."""

    at_once = 1

    def __init__(self, network: Any, tokenizer: Any, dtype: str) -> None:
        import torch
        from transformers import GenerationConfig

        self.tokenizer = tokenizer
        self.end_ids = as_ids(network.generation_config.eos_token_id)
        self.positions = context_length(network.config.to_dict())
        # The checkpoint's own sampling defaults must not mix with what was chosen.
        network.generation_config = GenerationConfig()
        self.conditions = Conditions(
            execution_precision=_TYPE_NAMES[dtype],
            kv_cache_precision=_TYPE_NAMES[dtype],
            devices_used=("CPU",),
            threads=torch.get_num_threads(),
        )
        self._network = network
        self._in_prefill = threading.Event()
        self._interrupted = threading.Event()

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.generate`."""
        handed_on = False

        def take(token_id: int) -> bool:
            nonlocal handed_on
            if self._interrupted.is_set():
                return False
            handed_on = True
            return on_token(token_id)

        self._interrupted.clear()
        self._in_prefill.set()
        try:
            generate_tokens(self._network, request, take, self._in_prefill.clear)
        except RuntimeError as error:
            logger.exception("Generation failed")
            raise _failure("answered", error) from error
        finally:
            self._in_prefill.clear()
        if self._interrupted.is_set() and not handed_on:
            raise InterruptedGeneration

    def scores(self, token_ids: Sequence[int]) -> np.ndarray:
        """See :meth:`core.runtimes.base.ScoringModel.scores`."""
        import torch

        ids = torch.tensor([token_ids], dtype=torch.int64)
        try:
            with torch.inference_mode():
                logits: torch.Tensor = self._network(input_ids=ids).logits
        except RuntimeError as error:
            raise _failure("read a text", error) from error
        return logits[0].float().numpy()

    def interrupt(self, request: TokenRequest) -> None:
        """End the answer after the step that runs: PyTorch cannot be stopped within one."""
        if self._in_prefill.is_set():
            self._interrupted.set()

    def close(self) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.close`."""
        self._network = None
        gc.collect()


def _dtype_for(spec: ModelSpec) -> str:
    if spec.precision not in DTYPES:
        raise BadRequestError(
            f"PyTorch runs checkpoints in FP32 and FP16, not in {spec.precision.label}; choose one "
            "of those, or another runtime."
        )
    if spec.device not in ("CPU", "AUTO"):
        raise BadRequestError(
            f"PyTorch is the baseline on the CPU, not on {spec.device}; choose the CPU, or another "
            "runtime."
        )
    return DTYPES[spec.precision]


def _failure(what: str, error: Exception) -> GenerationError:
    return GenerationError(
        f"PyTorch failed while it {what} ({last_line(error)}); try again, or choose another "
        "precision."
    )
