"""Models that generate with ``transformers``' ``generate``: what Optimum and PyTorch share."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import GenerationError
from core.runtimes.base import Conditions, InterruptedGeneration, LoadedModel, OnToken
from core.runtimes.spec import TokenRequest
from core.store.checkpoint import context_length

if TYPE_CHECKING:
    import numpy as np
    import torch

logger = logging.getLogger(__name__)


class TransformersModel(LoadedModel):
    """A model that generates with ``transformers``; see :class:`core.runtimes.base.LoadedModel`."""

    at_once = 1
    """An ``OVModelForCausalLM`` has one infer request, so it runs one generation at a time."""
    failure: str
    """Error text with the fields ``what`` and ``why``."""

    def __init__(self, model: Any, tokenizer: Any, conditions: Conditions) -> None:
        """
        Args:
            model: a ``GenerationMixin``.
        """
        from transformers import GenerationConfig

        self.tokenizer = tokenizer
        self.end_ids = as_ids(model.generation_config.eos_token_id)
        self.positions = context_length(model.config.to_dict())
        # The checkpoint's sampling defaults must not be combined with the requested settings.
        model.generation_config = GenerationConfig()
        self.conditions = conditions
        self._model = model
        self._in_prefill = threading.Event()
        self._interrupted = threading.Event()

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        import torch
        from transformers import GenerationConfig

        self._interrupted.clear()
        prompt = torch.tensor([request.prompt_ids], dtype=torch.int64)
        streamer = _Streamer(on_token, self._end_prefill)
        sampling = request.sampling
        self._in_prefill.set()
        try:
            self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=GenerationConfig(
                    max_new_tokens=sampling.max_new_tokens,
                    do_sample=False,
                    repetition_penalty=sampling.repetition_penalty,
                    eos_token_id=sorted(request.stop_ids) or None,
                    pad_token_id=0,
                ),
                logits_processor=_sampling_processors(request),
                stopping_criteria=[streamer.stopping_criterion],
                streamer=streamer,
            )
        except RuntimeError as error:
            if self._interrupted.is_set():
                raise InterruptedGeneration from None
            logger.exception("Generation failed")
            raise self._failed("Generation", error) from error
        finally:
            self._in_prefill.clear()

    def scores(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each of these tokens, from one forward pass (teacher forcing).

        Returns:
            float32 of shape (tokens, vocabulary); row i predicts token i + 1.

        Raises:
            GenerationError: the runtime failed.
        """
        import torch

        ids = torch.tensor([token_ids], dtype=torch.int64)
        try:
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        except RuntimeError as error:
            raise self._failed("Scoring a text", error) from error
        return logits[0].float().numpy()

    def interrupt(self, request: TokenRequest) -> None:
        """End the answer after prefill; PyTorch cannot be interrupted within a step."""
        if self._in_prefill.is_set():
            self._interrupted.set()

    def close(self) -> None:
        self._model = None
        gc.collect()

    def _end_prefill(self) -> None:
        self._in_prefill.clear()

    def _failed(self, what: str, error: Exception) -> GenerationError:
        return GenerationError(self.failure.format(what=what, why=last_line(error)))


def as_ids(value: int | list[int] | None) -> frozenset[int]:
    """Return the ids of an ``eos_token_id`` entry, which may be an id, a list of ids or None."""
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)


def last_line(error: Exception) -> str:
    """Return the last line of an error message: OpenVINO puts source locations first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


class _Streamer:
    """Passes each token on; ``transformers`` sends the prompt first."""

    def __init__(self, on_token: OnToken, on_first: Callable[[], None]) -> None:
        self._on_token = on_token
        self._on_first = on_first
        self._put = 0
        self._continue = True

    def put(self, value: torch.Tensor) -> None:
        self._put += 1
        if self._put == 1:
            return
        if self._put == 2:
            self._on_first()
        self._continue = self._on_token(int(value[0])) and self._continue

    def end(self) -> None:
        pass

    def stopping_criterion(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        return torch.full((ids.shape[0],), not self._continue, dtype=torch.bool)


def _sampling_processors(request: TokenRequest) -> Any:
    """Return logits processors that leave one candidate, drawn with this request's generator.

    ``generate`` would sample with torch's global generator, so two concurrent answers would affect
    each other's seeds. It therefore runs greedily, on the single candidate left.
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
    """Logits processor that keeps one token, drawn with its own generator."""

    def __init__(self, seed: int) -> None:
        import torch

        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        probabilities = torch.softmax(scores.float(), dim=-1)
        drawn = torch.multinomial(probabilities, 1, generator=self._generator)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)
