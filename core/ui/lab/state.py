"""State of the sampling lab in one browser session: the text, the tokens after it, the branches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import streamlit as st

from core.catalogue import Precision
from core.errors import PaddockError
from core.inference.distribution import Distribution, distribution
from core.inference.engine import find_stored
from core.runtimes.logits import LogitsModel
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.runtimes.token_text import TokenText, TokenTexts
from core.ui.models.access import check_use
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine

DRAWS = 1000
KEPT = 16
"""Places whose logits are kept, so that a step back or a moved slider needs no model."""
BRANCHES = 8

Path = tuple[int, ...]
"""Ids of the tokens after the text, of the first model's vocabulary."""


@dataclass(frozen=True)
class Place:
    """What a model expects after a text."""

    spec: ModelSpec
    title: str
    """Display name of model and precision."""
    ids: tuple[int, ...]
    """The whole text as the model reads it."""
    logits: np.ndarray
    """float32 of shape (vocabulary,)."""
    texts: TokenTexts

    def distribution(self, sampling: SamplingSettings, min_p: float) -> Distribution:
        """Return what the next token is drawn from."""
        return distribution(self.logits, sampling, min_p=min_p, earlier=self.ids)

    def text(self, token_id: int) -> TokenText:
        """Return a token as text."""
        return self.texts.text(token_id)


@dataclass
class Lab:
    """State of the lab; a plain object, so that an interrupted run keeps it."""

    path: Path = ()
    branches: list[Path] = field(default_factory=list)
    """Paths that were walked to their end, the latest last."""
    step: int = 0
    """Counts the changes of :attr:`path`: its widgets begin without a selection."""
    draws: tuple[object, list[np.ndarray]] | None = None
    """Counts of :data:`DRAWS` draws for each side, and for what settings they were drawn."""
    _subject: tuple[str, str] | None = None
    _places: dict[tuple[ModelSpec, str, Path], Place] = field(default_factory=dict)

    def begin(self, text: str, model: str) -> None:
        """Begin anew if the text or the model, whose token ids :attr:`path` has, is another."""
        if self._subject != (text, model):
            self._subject = (text, model)
            self.branches = []
            self.go(())

    def take(self, token_id: int) -> None:
        """Append a token."""
        path = (*self.path, token_id)
        longer = any(each[: len(path)] == path for each in self.branches)
        if not longer:
            grown = [each for each in self.branches if path[: len(each)] != each]
            self.branches = [*grown, path][-BRANCHES:]
        self.go(path)

    def go(self, path: Path) -> None:
        """Walk to another place, back or in another branch."""
        self.path, self.draws = path, None
        self.step += 1

    def place(self, spec: ModelSpec, text: str, first: Place | None = None) -> Place:
        """Return what a model expects after the text and :attr:`path`, computed if it is not known.

        Args:
            first: place of the first model, if this is another one. If their vocabularies differ,
                the path is handed over as text.

        Raises:
            PaddockError: the user may not use the model, or it cannot be loaded.
        """
        key = (spec, text, self.path)
        if (known := self._places.pop(key, None)) is None:
            engine = shared_engine()
            check_use(engine.store, spec, person())
            ready = find_stored(engine.store, spec) is not None
            doing = "Computing the probabilities" if ready else "Converting the model"
            with st.spinner(doing, show_time=not ready), engine.logits(spec) as model:
                assert model is not None, "it was not cancelled"
                ids = self._ids(model, text, first)
                stored = find_stored(engine.store, spec)
                weights = (stored and stored.special_label) or spec.precision.label
                title = f"{engine.store.title(spec.model)} · {weights}"
                known = Place(spec, title, ids, model.next_logits(ids), model.texts)
        self._places[key] = known  # the latest last
        while len(self._places) > KEPT:
            del self._places[next(iter(self._places))]
        return known

    def _ids(self, model: LogitsModel, text: str, first: Place | None) -> tuple[int, ...]:
        encode: Callable[[str], list[int]] = lambda part: model.tokenizer(part)["input_ids"]  # noqa: E731
        if first is None or first.texts.same_as(model.texts):
            return (*encode(text), *self.path)
        written = b"".join(first.text(each).bytes or b"" for each in self.path)
        return tuple(encode(text + written.decode("utf-8", "replace")))


def other_precision(spec: ModelSpec) -> Precision:
    """Return the precision to compare with at first: one that is on disk, if there is any."""
    store = shared_engine().store
    offered = [each for each in (Precision.INT4, Precision.INT8) if each is not spec.precision]
    with suppress(PaddockError):
        source = store.resolve(spec.model)
        others = [each for each in Precision if each is not spec.precision]
        offered = [each for each in others if store.get(source, each) is not None] + offered
    return offered[0]


def lab() -> Lab:
    """Return the state of this browser session."""
    return st.session_state.setdefault("lab", Lab())
