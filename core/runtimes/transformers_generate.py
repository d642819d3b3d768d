"""What the runtimes that go through ``transformers``' ``generate`` have in common."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core.runtimes.base import OnToken
from core.runtimes.spec import TokenRequest

if TYPE_CHECKING:
    import torch

_FREEZE_EVERY_S = 0.05
_freezing = threading.Lock()
_frozen: set[str] = set()

TRANSFORMERS = "transformers"
"""Names, to :func:`spared_from_collections`, what the runtimes here import."""


@contextmanager
def spared_from_collections(what: str) -> Iterator[None]:
    """Keep what is imported in this block out of the garbage collector's sight, once a process.

    Args:
        what: names these imports; the same ones are not looked at twice.

    With these libraries loaded a full collection walks half a million objects, 0.4 s in which no
    other thread runs. Where one followed each run of a page or fragment, as is Streamlit's way
    unless it is told otherwise, ten a second slowed an embedded model from 556 to 34 tokens/s,
    and the imports before it from 5 s to minutes, which is why their objects are taken away while
    they come. Afterwards a collection takes 5 ms. All this is before any model is loaded that
    these imports run, so that models stay collectable; GenAI's, which may be there when
    transformers comes, are freed by their last reference.
    """
    with _freezing:
        if what in _frozen:
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
        _frozen.add(what)


def generate_tokens(
    model: Any, request: TokenRequest, on_token: OnToken, on_first: Callable[[], None]
) -> None:
    """Answer one request with a ``GenerationMixin``, handing each token on as it comes.

    Args:
        model: its ``generate`` is called; its own sampling defaults should be out of the way.
        on_first: called when prefill is over, just before the first token is handed on.

    Raises:
        RuntimeError: of the library beneath.
    """
    import torch
    from transformers import GenerationConfig

    prompt = torch.tensor([request.prompt_ids], dtype=torch.int64)
    streamer = _Streamer(on_token, on_first)
    sampling = request.sampling
    model.generate(
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


def as_ids(value: int | list[int] | None) -> frozenset[int]:
    """The ids of a generation configuration's entry, which may be one, several or none."""
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)


def last_line(error: Exception) -> str:
    """The last line of an error's text: OpenVINO puts the places in its source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


class _Streamer:
    """Hands each token on as it comes; ``transformers`` sends the prompt first."""

    def __init__(self, on_token: OnToken, on_first: Callable[[], None]) -> None:
        self._on_token = on_token
        self._on_first = on_first
        self._put = 0
        self._go_on = True

    def put(self, value: torch.Tensor) -> None:
        self._put += 1
        if self._put == 1:
            return
        if self._put == 2:
            self._on_first()
        self._go_on = self._on_token(int(value[0])) and self._go_on

    def end(self) -> None:
        pass

    def stopping_criterion(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        return torch.full((ids.shape[0],), not self._go_on, dtype=torch.bool)


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
