"""INT4 in several recipes: side by side in the store, told before and after the conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import Int4Settings, Precision, Shape
from core.settings import Settings
from core.store import ModelStore, resolve
from core.store.estimate import estimate, group_note
from core.store.weights import read_weights
from tests.builders import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its hidden size is divisible by 32 only, its feed-forward part by 64."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return tiny_checkpoint("llama", folder, hidden=96, intermediate=192)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(Settings(home=tmp_path_factory.mktemp("home")))


def test_two_recipes_are_stored_side_by_side(checkpoint: Path, store: ModelStore) -> None:
    source = resolve(str(checkpoint))
    custom = Int4Settings(symmetric=True, group_size=32, ratio=1.0, awq=True)
    first = store.ensure(source, Precision.INT4_GROUP128)
    second = store.ensure(source, Precision.INT4_CUSTOM, compression=custom)
    assert [each.precision for each in store.list()] == [
        Precision.INT4_GROUP128,
        Precision.INT4_CUSTOM,
    ]
    assert first.int4.group_size in (32, 64) and first.int4.ratio == 1.0
    assert (second.int4.symmetric, second.int4.group_size) == (True, 32)
    assert second.int4.awq and "AWQ" in second.int4.text
    assert (first.label, second.label) == ("INT4 group 128", "INT4 custom")
    assert store.get(source, Precision.INT4) is None
    for each in (first, second):
        assert read_weights(each.folder).is_really(each.precision)


def test_groups_that_do_not_fit_are_told_before_and_are_as_told(
    checkpoint: Path, store: ModelStore
) -> None:
    source = resolve(str(checkpoint))
    told = estimate(source, Precision.INT4_GROUP128, store.settings)
    assert told.int4.group_size == 128
    assert "width 96 get groups of 32" in told.note and "width 192 get groups of 64" in told.note
    made = store.ensure(source, Precision.INT4_GROUP128)
    assert set(made.manifest.int4.group_sizes) == {32, 64}
    fits = Int4Settings(symmetric=False, group_size=32, ratio=1.0)
    assert estimate(source, Precision.INT4_CUSTOM, store.settings, int4=fits).note is None


def test_a_layer_without_a_sensible_group_stays_in_int8() -> None:
    shape = Shape(100, 2, 4, 4, 256, 1000, 512)
    note = group_note(shape, Int4Settings(symmetric=False, group_size=64, ratio=1.0))
    assert note == (
        "A group size of 64 does not divide every layer: layers of width 100 stay in INT8."
    )
    assert group_note(shape, Int4Settings(symmetric=True, group_size=-1, ratio=1.0)) is None
    assert group_note(None, Int4Settings(symmetric=True, group_size=64, ratio=1.0)) is None


@pytest.mark.parametrize("text", ["small:INT4-GROUP128", "small:int4-custom@CPU"])
def test_a_recipe_is_part_of_a_name(text: str, parse: Callable[[str], object]) -> None:
    assert parse(text).model == "small"
    assert parse(text).precision.base is Precision.INT4
    assert parse(parse(text).name) == parse(text)


@pytest.fixture
def parse() -> Callable[[str], object]:
    from core.runtimes.spec import ModelSpec

    return ModelSpec.parse
