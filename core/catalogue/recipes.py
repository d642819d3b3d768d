"""Recipes of INT4: the settings with which a model is compressed.

The recommended recipe is optimum-intel's own for the model, without the data set that it asks for
in some rows; models that it has no row for get its default, and small ones the settings that lost
the least in our measurements (docs/results.md). Scale estimation takes minutes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from core.catalogue.load import read_toml
from core.catalogue.model import CatalogueModel, Int4Settings
from core.catalogue.precision import Precision

SMALL_MODEL = 1_000_000_000
"""Parameters below which a model counts as small."""
TINY_MODEL = 20_000_000
"""Parameters below which a model writes no texts that scale estimation could use."""

TITLES = {
    Precision.INT4: "Recommended",
    Precision.INT4_SCALE: "Recommended, with scale estimation",
    Precision.INT4_GROUP128: "Group 128",
    Precision.INT4_DEMO: "OpenVINO's demonstration",
    Precision.INT4_NPU: "For an NPU",
    Precision.INT4_CUSTOM: "Custom",
}


def int4_settings(
    precision: Precision, row: CatalogueModel | None, name: str = "", parameters: int | None = None
) -> Int4Settings:
    """Return the settings of a recipe for a model; those of a custom one are its starting point.

    Args:
        precision: a recipe of INT4; others have the recommended settings.
        name: its Hugging Face id, or the name of its folder, if it has no row.
        parameters: their number, if it has no row; None: unknown.
    """
    own = _settings("int4")
    if precision is Precision.INT4_GROUP128:
        return own["group128"]
    if precision is Precision.INT4_NPU:
        return npu_int4()
    if precision is Precision.INT4_DEMO:
        return (row and row.demo_int4) or own["demo"]
    if row is not None:
        name, parameters = row.hub_id or row.key, row.parameters
    found = own_int4(name)
    if found is not None:
        found = replace(found, scale_estimation=False)
    else:
        small = parameters is not None and parameters < SMALL_MODEL
        found = own["small" if small else "group128"]
        if small and parameters < TINY_MODEL:
            found = replace(found, scale_estimation=False)
    return replace(found, scale_estimation=True) if precision is Precision.INT4_SCALE else found


def own_int4(name: str) -> Int4Settings | None:
    """Return the settings of optimum-intel, or of Paddock's tiny models; None if there are none.

    Args:
        name: Hugging Face id or key, or the name of a folder, which is compared with the last part
            of the ids.
    """
    rows = _settings("optimum-intel", "paddock")
    return rows.get(name.lower()) or next(
        (found for key, found in rows.items() if key.rpartition("/")[2] == name.lower()), None
    )


def without_texts(settings: Int4Settings) -> Int4Settings:
    """Return the settings without AWQ and scale estimation, which make no sense for random
    weights and do not change the speed."""
    return replace(settings, awq=False, scale_estimation=False)


def recipe_note(precision: Precision, settings: Int4Settings, name: str) -> str:
    """Return the source of a recipe's settings as a sentence.

    Args:
        name: Hugging Face id, or the name of a folder.
    """
    match precision:
        case Precision.INT4_GROUP128:
            return "optimum-intel's default for models without a row of their own."
        case Precision.INT4_DEMO:
            return "The settings of OpenVINO's demonstration, for comparison."
        case Precision.INT4_NPU:
            return "The only settings that an NPU runs."
        case Precision.INT4_CUSTOM:
            return "Your own settings."
    row = own_int4(name)
    if row is None:
        texts = ", with scale estimation on texts that the model generates"
        return (
            "optimum-intel has no row for this model: its default, or for small models what lost "
            f"the least when measured{texts if settings.scale_estimation else ''}."
        )
    if not row.scale_estimation:
        return "optimum-intel's settings for this model."
    if settings.scale_estimation:
        return (
            "optimum-intel's settings for this model, with texts that the model generates in place "
            "of a data set, which would have to be downloaded."
        )
    return (
        "optimum-intel's settings for this model without scale estimation, which it does on a data "
        f"set that would have to be downloaded; see the recipe {TITLES[Precision.INT4_SCALE]}."
    )


def npu_int4() -> Int4Settings:
    """Return the INT4 settings of any model that runs on an NPU."""
    return _settings("int4")["npu"]


@cache
def _settings(*tables: str) -> dict[str, Int4Settings]:
    """Return the rows of these tables of ``recipes.toml`` by name in lower case."""
    found = read_toml("recipes.toml")
    rows = {name: row for table in tables for name, row in found[table].items()}
    return {name.lower(): Int4Settings(**row) for name, row in rows.items()}
