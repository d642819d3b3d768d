"""Which models can be measured with random weights: the catalogue's and the benchmark shapes."""

from __future__ import annotations

from dataclasses import dataclass

from core.catalogue import Int4Settings, Shape, benchmark_shapes, catalogue, default_int4
from core.catalogue.shapes import parameter_count
from core.errors import UnknownModelError

RANDOM_SOURCE = "random weights"
"""The source of their measurements; their titles end with it as well."""


@dataclass(frozen=True)
class RandomModel:
    """A model without its knowledge: as fast and as large as the real one."""

    key: str
    """Of the catalogue's row or the benchmark shape."""
    title: str
    """With the mark that its weights are random."""
    architecture: str
    shape: Shape
    int4: Int4Settings
    """As the real model is compressed."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return parameter_count(self.architecture, self.shape)


def random_models() -> dict[str, RandomModel]:
    """All of them by key: the benchmark shapes, then the catalogue's rows."""
    found = {
        key: RandomModel(key, f"{key} · {RANDOM_SOURCE}", architecture, shape, default_int4())
        for key, (architecture, shape) in benchmark_shapes().items()
    }
    for key, row in catalogue().items():
        title = f"{row.title} · {RANDOM_SOURCE}"
        found[key] = RandomModel(key, title, row.architecture, row.shape, row.int4)
    return found


def random_model(key: str) -> RandomModel:
    """The one of that key.

    Raises:
        UnknownModelError: there is none; the text lists the keys.
    """
    known = random_models()
    if key not in known:
        shown = key if len(key) <= 80 else f"{key[:77]}…"
        raise UnknownModelError(
            f"There is no shape {shown!r} for random weights; choose {', '.join(known)}."
        )
    return known[key]
