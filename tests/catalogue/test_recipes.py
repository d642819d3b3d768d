"""Recipes of INT4: optimum-intel's table, small models, the demonstration, NPUs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.catalogue import INT4_RECIPES, Int4Settings, Precision, catalogue, int4_settings, npu_int4
from core.catalogue.load import read_toml
from core.catalogue.recipes import TITLES, own_int4, recipe_note, without_texts


def test_rows_are_those_of_the_installed_optimum_intel() -> None:
    from optimum.intel.openvino.configuration import get_default_quantization_config

    rows = read_toml("recipes.toml")["optimum-intel"]
    assert len(rows) > 45
    for name in rows:
        theirs = get_default_quantization_config(name, weight_format="int4")
        assert theirs is not None, name
        assert own_int4(name) == Int4Settings(
            symmetric=theirs["sym"],
            group_size=theirs["group_size"],
            ratio=theirs.get("ratio", 1.0),
            scale_estimation=bool(theirs.get("scale_estimation")),
            awq=theirs.get("quant_method") == "awq",
        )


def test_models_of_the_catalogue_use_their_row() -> None:
    dolly = int4_settings(Precision.INT4, catalogue()["dolly-v2-3b"])
    assert dolly == Int4Settings(False, 128, 1.0)
    assert own_int4("databricks/dolly-v2-3b").scale_estimation
    on_texts = int4_settings(Precision.INT4_SCALE, catalogue()["dolly-v2-3b"])
    assert on_texts == Int4Settings(False, 128, 1.0, scale_estimation=True)
    assert int4_settings(Precision.INT4, catalogue()["phi-2"]).awq
    assert int4_settings(Precision.INT4, catalogue()["paddock-neox"]).group_size == 32


@pytest.mark.parametrize("name", ["TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b-chat-v1.0"])
def test_an_id_and_a_folder_name_find_the_row(name: str) -> None:
    assert int4_settings(Precision.INT4, None, name, 10).awq


def test_other_models_get_the_default_or_the_settings_of_small_models() -> None:
    group128 = int4_settings(Precision.INT4_GROUP128, None)
    assert group128 == Int4Settings(False, 128, 1.0)
    assert int4_settings(Precision.INT4, None, "org/large", 3_000_000_000) == group128
    assert int4_settings(Precision.INT4, None, "org/unknown") == group128
    small = int4_settings(Precision.INT4, None, "org/small", 135_000_000)
    assert small == Int4Settings(False, 64, 1.0, scale_estimation=True, awq=True)
    tiny = int4_settings(Precision.INT4, None, "org/tiny", 5_000_000)
    assert tiny == replace(small, scale_estimation=False)
    assert int4_settings(Precision.INT4, catalogue()["smollm2-135m-instruct"]) == small


def test_settings_of_npus() -> None:
    assert npu_int4() == Int4Settings(True, -1, 1.0)
    assert int4_settings(Precision.INT4_NPU, catalogue()["dolly-v2-3b"]) == npu_int4()
    for device in ("NPU", "npu.0"):
        assert Precision.INT4.on(device) is Precision.INT4_NPU
        assert Precision.INT8.on(device) is Precision.INT8
    assert Precision.INT4.on("CPU") is Precision.INT4


def test_every_recipe_has_a_title_and_a_sentence() -> None:
    assert set(TITLES) == set(INT4_RECIPES)
    for recipe in INT4_RECIPES:
        settings = int4_settings(recipe, catalogue()["dolly-v2-3b"])
        assert recipe_note(recipe, settings, "databricks/dolly-v2-3b").endswith(".")
        assert recipe.base is Precision.INT4 and recipe.label.startswith("INT4")
        assert not without_texts(settings).scale_estimation
    for parameters, told in ((3_000_000_000, False), (135_000_000, True)):
        settings = int4_settings(Precision.INT4, None, "org/other", parameters)
        note = recipe_note(Precision.INT4, settings, "org/other")
        assert ("scale estimation" in note) is told
