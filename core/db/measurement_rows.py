"""Converts measurements to rows of ``measurements`` and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import RowMapping

from core.db.measurement_values import (
    Configuration,
    Figures,
    Host,
    Int4Weights,
    Measurement,
    Quality,
    Round,
    Sample,
    Spread,
)

_CONFIGURATION = tuple(f.name for f in fields(Configuration))
_HOST = tuple(f.name for f in fields(Host))
_NESTED = ("configuration", "host", "devices_used", "int4", "rounds", "figures", "quality")
_PLAIN = tuple(f.name for f in fields(Measurement) if f.name not in _NESTED)
"""Fields with a column of the same name and type."""


def row_of(measurement: Measurement) -> dict[str, Any]:
    """Return all columns except ``position`` and ``saved_at``."""
    figures = measurement.figures
    row = {name: getattr(measurement, name) for name in _PLAIN}
    row |= {name: getattr(measurement.configuration, name) for name in _CONFIGURATION}
    row |= {f"host_{name}": getattr(measurement.host, name) for name in _HOST}
    return row | {
        "devices_used": list(measurement.devices_used),
        "int4": None if measurement.int4 is None else asdict(measurement.int4),
        "rounds": [asdict(each) for each in measurement.rounds],
        "figures": None if figures is None else asdict(figures),
        "quality": None if measurement.quality is None else asdict(measurement.quality),
        "decode_tokens_per_s": None if figures is None else figures.decode_tokens_per_s,
        "contended": None if figures is None else figures.contended,
    }


def measurement_of(row: RowMapping) -> Measurement:
    """Return the measurement of a row; without rounds if that column was not read.

    Raises:
        ValueError: the row is not a valid measurement.
    """
    try:
        return Measurement(
            **{name: row[name] for name in _PLAIN},
            configuration=Configuration(**{name: row[name] for name in _CONFIGURATION}),
            host=Host(**{name: row[f"host_{name}"] for name in _HOST}),
            devices_used=tuple(row["devices_used"]),
            int4=None if row["int4"] is None else Int4Weights(**row["int4"]),
            rounds=tuple(map(_round, row.get("rounds") or ())),
            figures=None if row["figures"] is None else _figures(row["figures"]),
            quality=None if row["quality"] is None else Quality(**row["quality"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the measurement {row['id']} cannot be read: {error}") from error


def _round(data: Mapping[str, Any]) -> Round:
    return Round(**{**data, "samples": tuple(map(_sample, data["samples"]))})


def _sample(data: Mapping[str, Any]) -> Sample:
    return Sample(**{**data, "token_times_ms": tuple(data["token_times_ms"])})


def _figures(data: Mapping[str, Any]) -> Figures:
    tpot = data["tpot_ms"]
    spreads = {"ttft_ms": Spread(**data["ttft_ms"]), "tpot_ms": tpot and Spread(**tpot)}
    return Figures(**{**data, **spreads})
