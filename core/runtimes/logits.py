"""Returns the logits of a text: a second compilation of a converted model, with exact hints.

GenAI returns the log probability of the chosen token only. The alternatives come from one forward
pass over the text. Compilation and inference release the interpreter lock, so that this needs no
process of its own.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadRequestError, GenerationError
from core.runtimes.base import LoadedModel, OnToken
from core.runtimes.genai import readable_tokenizer
from core.runtimes.optimum import conditions_of, openvino_properties, out_of_memory, unreadable
from core.runtimes.spec import ExecutionHints, ModelSpec, RuntimeName, TokenRequest
from core.runtimes.token_text import TokenTexts
from core.runtimes.tokenizer import import_tokenizers
from core.runtimes.transformers_generate import last_line
from core.store.checkpoint import context_length, read_json
from core.store.library_env import quick_imports
from core.store.weights import IR_XML

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

PIECE_TOKENS = 128
"""Tokens of one inference: with a vocabulary of 128 256 they have 66 MB of logits."""


def logits_spec(spec: ModelSpec) -> ModelSpec:
    """Return the spec of the model that returns the logits of these weights; it runs on the CPU.

    Raises:
        BadRequestError: only the model's server or device can run it.
    """
    if spec.remote:
        raise BadRequestError(
            "Remote servers do not return all probabilities. Choose a model on this machine."
        )
    if spec.device.startswith("NPU"):
        raise BadRequestError(
            "Weights for an NPU cannot be read by the CPU, which computes the probabilities. "
            "Choose another device."
        )
    return replace(
        spec,
        device="CPU",
        runtime=RuntimeName.LOGITS,
        hints=ExecutionHints.exact(),  # FP32 weights then give the probabilities of PyTorch
        prefix_cache=False,
    )


class LogitsRuntime:
    """See :class:`core.runtimes.base.Runtime`."""

    def prepare(self, folder: Path | None = None) -> None:
        """See :meth:`core.runtimes.base.Runtime.prepare`."""
        import_tokenizers(folder)
        with quick_imports():
            import openvino  # noqa: F401

    def load(self, folder: Path, spec: ModelSpec) -> LogitsModel:
        """Load ``folder`` on the device of ``spec``, with its hints."""
        import openvino

        tokenizer = readable_tokenizer(folder, spec)
        properties = openvino_properties(spec.device, spec.effective_hints)
        core = openvino.Core()
        try:
            model = core.read_model(folder / IR_XML)
            compiled = core.compile_model(model, spec.device, properties)
        except MemoryError as error:
            raise out_of_memory(spec) from error
        except RuntimeError as error:
            raise unreadable(spec, error) from error
        positions = context_length(read_json(folder / "config.json"))
        return LogitsModel(compiled, tokenizer, positions, properties)


class LogitsModel(LoadedModel):
    """A model in memory that returns logits; it generates nothing."""

    end_ids = frozenset()

    def __init__(
        self, compiled: Any, tokenizer: Any, positions: int | None, properties: dict[str, Any]
    ) -> None:
        self.tokenizer = tokenizer
        self.texts = TokenTexts(tokenizer)
        self.positions = positions
        self.conditions = conditions_of(compiled, properties)
        self._request = compiled.create_infer_request()
        self._inputs = {name for each in compiled.inputs for name in each.names}
        self._read: list[int] = []
        """Tokens that are in the KV cache."""
        self._lock = threading.Lock()
        if not self._request.query_state():
            raise GenerationError(
                "This OpenVINO model has no state, so its probabilities cannot be computed. Export "
                "it again with the option `stateful`."
            )

    def next_logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return the logits of the token after these; a step if they go on from the latest ones.

        Returns:
            float32 of shape (vocabulary,).

        Raises:
            BadRequestError: there is no token, or they exceed the context length.
            GenerationError: OpenVINO failed.
        """
        *_, rows = self.rows(token_ids, len(token_ids))
        return rows[-1]

    def rows(self, token_ids: Sequence[int], start: int) -> Iterator[np.ndarray]:
        """Yield the logits that predict the tokens from index ``start`` on and the one after them.

        Args:
            token_ids: the whole text.
            start: from 1; nothing predicts the first token.

        Yields:
            float32 of shape (some tokens, vocabulary), in order.

        Raises:
            BadRequestError: there is no token, or they exceed the context length.
            GenerationError: OpenVINO failed.
        """
        if not 0 < start <= len(token_ids):
            raise BadRequestError("The text has no token. Type one.")
        if self.positions is not None and len(token_ids) > self.positions:
            raise BadRequestError(
                f"The text has {len(token_ids):,} tokens, more than the model's context length of "
                f"{self.positions:,}. Shorten it."
            )
        with self._lock:
            known = len(self._read)
            if known >= start or self._read != list(token_ids[:known]):
                self._request.reset_state()
                self._read.clear()
            for begin in range(len(self._read), len(token_ids), PIECE_TOKENS):
                piece = token_ids[begin : begin + PIECE_TOKENS]
                logits = self._infer(begin, piece)
                self._read += piece
                # Row i predicts the token at begin + i + 1.
                if len(rows := logits[max(0, start - 1 - begin) :]):
                    yield rows

    def _infer(self, begin: int, piece: Sequence[int]) -> np.ndarray:
        import numpy as np

        end = begin + len(piece)
        given = {
            "input_ids": np.array([piece], dtype=np.int64),
            "attention_mask": np.ones((1, end), dtype=np.int64),
            "position_ids": np.arange(begin, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        try:
            self._request.infer({name: given[name] for name in self._inputs & given.keys()})
        except RuntimeError as error:
            self._read.clear()
            logger.exception("Computing probabilities failed")
            raise GenerationError(
                f"Computing the probabilities failed ({last_line(error)}). Try again, or choose "
                "another precision."
            ) from error
        return np.array(self._request.get_tensor("logits").data[0], dtype=np.float32)

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        raise NotImplementedError

    def interrupt(self, request: TokenRequest) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._request = None
        gc.collect()
