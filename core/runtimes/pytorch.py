"""Runs an unconverted checkpoint with PyTorch: the baseline of the benchmark.

No page offers it. It loads the original checkpoint and supports neither INT8 nor INT4.
"""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import Precision
from core.errors import BadRequestError, CorruptModelError, GenerationError, NotEnoughMemoryError
from core.hardware.cgroups import threads_for_quota
from core.runtimes.base import Conditions, InterruptedGeneration, OnToken
from core.runtimes.spec import ModelSpec, TokenRequest
from core.runtimes.transformers_generate import (
    TRANSFORMERS,
    as_ids,
    frozen_imports,
    generate_tokens,
    last_line,
)
from core.store.checkpoint import context_length
from core.store.library_env import quick_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

logger = logging.getLogger(__name__)

DTYPES = {Precision.FP32: "float32", Precision.FP16: "bfloat16"}
"""``torch`` dtype of weights and arithmetic. CPUs have no fast float16 arithmetic: in PyTorch it is
many times slower than bfloat16."""

_TYPE_NAMES = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names of these types, used in :class:`Conditions`."""


class PyTorchRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        with frozen_imports(TRANSFORMERS), quick_imports():
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
        return PyTorchModel(network.eval(), tokenizer, dtype)


class PyTorchModel:
    """See :class:`core.runtimes.base.LoadedModel`."""

    takes_options = False
    at_once = 1

    def __init__(self, network: Any, tokenizer: Any, dtype: str) -> None:
        import torch
        from transformers import GenerationConfig

        self.tokenizer = tokenizer
        self.end_ids = as_ids(network.generation_config.eos_token_id)
        self.positions = context_length(network.config.to_dict())
        # The checkpoint's sampling defaults must not be combined with the requested settings.
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
        has_token = False

        def take(token_id: int) -> bool:
            nonlocal has_token
            if self._interrupted.is_set():
                return False
            has_token = True
            return on_token(token_id)

        self._interrupted.clear()
        self._in_prefill.set()
        try:
            generate_tokens(self._network, request, take, self._in_prefill.clear)
        except RuntimeError as error:
            logger.exception("Generation failed")
            raise _failure("Generation", error) from error
        finally:
            self._in_prefill.clear()
        if self._interrupted.is_set() and not has_token:
            raise InterruptedGeneration

    def scores(self, token_ids: Sequence[int]) -> np.ndarray:
        """See :meth:`core.runtimes.base.ScoringModel.scores`."""
        import torch

        ids = torch.tensor([token_ids], dtype=torch.int64)
        try:
            with torch.inference_mode():
                logits: torch.Tensor = self._network(input_ids=ids).logits
        except RuntimeError as error:
            raise _failure("Scoring a text", error) from error
        return logits[0].float().numpy()

    def interrupt(self, request: TokenRequest) -> None:
        """End the answer after the current step; PyTorch cannot be interrupted within a step."""
        if self._in_prefill.is_set():
            self._interrupted.set()

    def close(self) -> None:
        """See :meth:`core.runtimes.base.LoadedModel.close`."""
        self._network = None
        gc.collect()


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


def _failure(what: str, error: Exception) -> GenerationError:
    return GenerationError(
        f"{what} with PyTorch failed ({last_line(error)}). Try again, or choose another precision."
    )
