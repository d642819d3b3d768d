"""Where the bars of the Metrics page stand: a panel for each model, a row for each configuration, a
bar for each prompt length.

All bar charts share this arrangement, so that one reads across them. A panel has an axis of its
own, from zero: beside a model of billions of weights, one of millions would hide it. Panels of like
size share one scale. Labels name only what tells rows apart: with one runtime, none is named.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import plotly.graph_objects as go

from core.catalogue import Precision
from core.metrics.rows import Point, PointSource, Subject
from core.runtimes.spec import RuntimeName

MOST_ROWS = 24
"""More do not fit a screen; those measured last are shown, and the page says so."""

BENCHMARK_COLOURS = ("#0b67b2", "#5aa3dc", "#a9cfee")
"""Of prompt lengths, the shortest first; they read on a light and on a dark page."""
ANSWERS_COLOUR = "#8d99a6"
GREY = "rgba(120,130,140,0.9)"

RUNTIMES = {
    "optimum": "OpenVINO (Optimum)",
    "genai": "OpenVINO GenAI",
    "pytorch": "PyTorch",
}
"""Runtimes as people know them."""

BY_HAND = {"automargin": False, "ticklabeloverflow": "allow"}
"""Of every axis: the margins are ours. Those that plotly finds by itself it finds by measuring all
labels and drawing again, which takes the browser as long as all the rest."""

K = TypeVar("K")

Trace = dict[str, Any]
"""One trace of a figure, as plotly's JSON has it."""

LIKE = 6.0
"""Panels whose largest values differ by less than this factor share one scale."""

_BAR_PX, _ROW_GAP_PX, _LEAST_ROW_PX = 17, 9, 28
_PANEL_TITLE_PX, _AXIS_PX = 30, 30
_TOP_PX, _BOTTOM_PX, _LEGEND_LINE_PX = 46, 62, 20
_LABEL_GAP_PX = 14
"""Between a label and its bar: plotly's padding and Streamlit's."""
_FONT_PX = 12
"""Of labels in Streamlit's theme."""
_ROOM = 1.22
"""Of the largest value: the axis goes on that far, for the figures beside the bars."""


def runtime_label(name: str) -> str:
    """A runtime's name for people."""
    return RUNTIMES.get(name, name)


def short_runtime(name: str) -> str:
    """The same in one word, where there is little room."""
    return RuntimeName(name).short_name if name in set(RuntimeName) else name


def precision_label(name: str) -> str:
    """A precision as people write it."""
    return Precision(name).label if name in set(Precision) else name


@dataclass(frozen=True)
class PanelKey:
    """What makes a panel of a chart."""

    name: str
    """Of the model, random weights marked."""
    host: str
    imported: bool
    """Whether the figures came in a file: even from this host they are others."""


@dataclass(frozen=True)
class RowKey:
    """What makes a row of a chart: a subject without its contention, and the answers of the pages
    with the benchmark."""

    panel: PanelKey
    precision: str
    device: str
    """As :attr:`Subject.device_label` has it."""
    runtime: str

    @classmethod
    def of(cls, subject: Subject) -> RowKey:
        """The row in which figures of this subject stand."""
        imported = subject.source is PointSource.IMPORTED
        panel = PanelKey(subject.name, subject.host, imported)
        return cls(panel, subject.precision, subject.device_label, subject.runtime)


@dataclass(frozen=True)
class Series:
    """Bars of one colour: one prompt length of the benchmark, or the answers of the pages."""

    prompt_tokens: int | None
    """None for answers, whose prompts have any length."""
    contended: bool

    @classmethod
    def of(cls, point: Point) -> Series:
        """The series that a point belongs to."""
        return cls(point.prompt_tokens if point.measured else None, point.subject.contended)

    @property
    def name(self) -> str:
        """As the legend has it."""
        kind = "answers" if self.prompt_tokens is None else f"{self.prompt_tokens}-token prompt"
        return f"{kind}, contended" if self.contended else kind


@dataclass(frozen=True)
class Placed:
    """A point and the place of its bar."""

    point: Point
    row: RowKey
    y: float
    """Middle of the bar in pixels below the top of its panel."""
    thickness: float
    """In pixels."""


@dataclass
class _Row:
    points: list[Point]
    top: float = 0.0

    @property
    def bars(self) -> list[Series]:
        return _in_order(self.points)

    @property
    def height(self) -> float:
        return max(_LEAST_ROW_PX, _BAR_PX * len(self.bars) + _ROW_GAP_PX)


class Rows:
    """The panels and rows of a chart, and the bars in them."""

    def __init__(self, points: Sequence[Point]) -> None:
        """
        Args:
            points: sorted as the rows are to be, the newest of each configuration.
        """
        by_row: dict[RowKey, list[Point]] = {}
        for point in points:
            by_row.setdefault(RowKey.of(point.subject), []).append(point)
        kept = set(sorted(by_row, key=lambda key: max(p.when for p in by_row[key]))[-MOST_ROWS:])
        self.left_out = len(by_row) - len(kept)
        """Rows for which there was no room."""
        self._rows = {key: _Row(found) for key, found in by_row.items() if key in kept}
        self.panels = list(dict.fromkeys(key.panel for key in self._rows))
        """From the top."""
        self._series = _in_order(self.points)
        for panel in self.panels:
            top = 0.0
            for _, row in self._of(panel):
                row.top = top
                top += row.height

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def points(self) -> list[Point]:
        """All that is drawn, row by row."""
        return [point for row in self._rows.values() for point in row.points]

    def series(self) -> list[tuple[Series, list[Placed]]]:
        """Bars by colour, the shortest prompt first, then the answers."""
        placed: dict[Series, list[Placed]] = {series: [] for series in self._series}
        for key, row in self._rows.items():
            thickness = (row.height - _ROW_GAP_PX) / len(row.bars)
            for point in row.points:
                series = Series.of(point)
                y = row.top + _ROW_GAP_PX / 2 + thickness * (row.bars.index(series) + 0.5)
                placed[series].append(Placed(point, key, y, 0.9 * thickness))
        return list(placed.items())

    def middle(self, key: RowKey) -> float:
        """Middle of a row in pixels below the top of its panel."""
        row = self._rows[key]
        return row.top + row.height / 2

    def height(self, key: RowKey) -> float:
        """Pixels that the bars of a row may take together."""
        return self._rows[key].height - _ROW_GAP_PX

    def by_panel(self, placed: Iterable[Placed]) -> list[tuple[dict[str, str], list[Placed]]]:
        """The bars of each panel, with the axes that their trace is to name."""
        found: dict[PanelKey, list[Placed]] = {}
        for each in placed:
            found.setdefault(each.row.panel, []).append(each)
        return [(axes_of(self.panels.index(panel)), bars) for panel, bars in found.items()]

    def colour(self, series: Series) -> str:
        """The colour of a series."""
        if series.prompt_tokens is None:
            return ANSWERS_COLOUR
        lengths = sorted({s.prompt_tokens for s in self._series if s.prompt_tokens is not None})
        return BENCHMARK_COLOURS[min(lengths.index(series.prompt_tokens), 2)]

    def figure(
        self,
        traces: Sequence[Trace],
        title: str,
        unit: str,
        reach: Callable[[Point], float | None],
        *,
        axis: Mapping[str, Any] | None = None,
        shapes: Sequence[Mapping[str, Any]] = (),
    ) -> go.Figure:
        """A figure of these traces with its panels, each with an axis from zero.

        Args:
            unit: below the lowest axis.
            reach: how far to the right a point is drawn; None where it is not.
            axis: what the axis of each panel has of its own.
            shapes: drawn over it.
        """
        heights = [self._panel_height(panel) for panel in self.panels]
        inside = sum(heights) + (_PANEL_TITLE_PX + _AXIS_PX) * len(heights)
        names = {trace.get("name") for trace in traces if trace.get("showlegend") is not False}
        below = _BOTTOM_PX + _LEGEND_LINE_PX * math.ceil(len(names) / 2)
        layout: dict[str, Any] = {
            "title": title,
            "height": _TOP_PX + inside + below,
            "margin": {"l": self._label_px(), "r": 16, "t": _TOP_PX, "b": below},
            # Below, in pixels of this height: above, it would run into the title on a narrow
            # screen.
            "legend": {
                "orientation": "h",
                "yref": "container",
                "y": 0.01,
                "yanchor": "bottom",
                "x": 0,
                "traceorder": "normal",
            },
            "showlegend": True,
            "barmode": "overlay",
            "annotations": [],
            **({"shapes": list(shapes)} if shapes else {}),
        }
        scales = self._scales(reach)
        top = 0.0
        for number, (panel, height) in enumerate(zip(self.panels, heights, strict=True)):
            low = 1 - (top + _PANEL_TITLE_PX + height) / inside
            high = 1 - (top + _PANEL_TITLE_PX) / inside
            last = number == len(self.panels) - 1
            layout |= self._axes(number, panel, (low, high), height)
            layout[_axis_name("xaxis", number)] |= {
                "range": [0, scales[panel] * _ROOM],
                "title": unit if last else None,
                **(axis or {}),
            }
            layout["annotations"].append(self._heading(panel, high))
            top += _PANEL_TITLE_PX + height + _AXIS_PX
        return go.Figure(list(traces), layout)  # at once: each change of a figure takes plotly long

    def _axes(
        self, number: int, panel: PanelKey, domain: tuple[float, float], height: float
    ) -> dict[str, Any]:
        axes = axes_of(number)
        keys = [key for key, _ in self._of(panel)]
        return {
            _axis_name("xaxis", number): {
                "anchor": axes["yaxis"],
                "domain": [0, 1],
                "rangemode": "tozero",
                "nticks": 6,
                **BY_HAND,
            },
            _axis_name("yaxis", number): {
                "anchor": axes["xaxis"],
                "domain": [max(0.0, domain[0]), min(1.0, domain[1])],
                "range": [height, 0],
                "tickvals": [self.middle(key) for key in keys],
                "ticktext": row_labels(keys, list(self._rows)),
                "showgrid": False,
                "zeroline": False,
                **BY_HAND,
            },
        }

    def _heading(self, panel: PanelKey, y: float) -> dict[str, Any]:
        return {
            "text": f"<b>{plot_text(_cut(panel_name(panel, self.panels)))}</b>",
            "xref": "paper",
            "x": 0,
            "xanchor": "left",
            "yref": "paper",
            "y": min(1.0, y),
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 13},
        }

    def _of(self, panel: PanelKey) -> list[tuple[RowKey, _Row]]:
        return [(key, row) for key, row in self._rows.items() if key.panel == panel]

    def _panel_height(self, panel: PanelKey) -> float:
        return sum(row.height for _, row in self._of(panel))

    def _label_px(self) -> int:
        """Room for the longest label to the left of the bars."""
        labels = row_labels(list(self._rows), list(self._rows))
        return max((text_px(html.unescape(label)) for label in labels), default=0) + _LABEL_GAP_PX

    def _scales(self, reach: Callable[[Point], float | None]) -> dict[PanelKey, float]:
        """Largest value that each panel's axis has to show; see :data:`LIKE`."""
        most = {panel: 0.0 for panel in self.panels}
        for key, row in self._rows.items():
            for point in row.points:
                most[key.panel] = max(most[key.panel], reach(point) or 0.0)
        head, scales = 0.0, {}
        for panel in sorted(most, key=lambda panel: -most[panel]):
            if not head or most[panel] * LIKE < head:
                head = most[panel]
            scales[panel] = head or 1.0
        return scales


def panel_name(panel: PanelKey, among: Collection[PanelKey]) -> str:
    """The model, its host where there are several ``among`` all, and whether its figures came in a
    file where others of the same host did not."""
    name = panel.name
    if len({each.host for each in among}) > 1:
        name += f" · {panel.host}"
    if panel.imported and replace(panel, imported=False) in among:
        name += " · imported"
    return name


def row_labels(rows: Sequence[RowKey], among: Sequence[RowKey]) -> list[str]:
    """A label for each row: its precision and what else tells it apart ``among`` all."""
    several_runtimes = len({row.runtime for row in among}) > 1
    several_devices = {row.device for row in among} != {"CPU"}
    labels = []
    for row in rows:
        parts = [precision_label(row.precision)]
        if several_devices:
            parts.append(row.device)
        if several_runtimes:
            parts.append(short_runtime(row.runtime))
        labels.append(plot_text(_cut(" · ".join(parts), 32)))
    return labels


def point_labels(points: Mapping[str, Point]) -> dict[str, str]:
    """A label for each point of a list to choose from, no two alike; the host is named where there
    are several."""
    several = len({point.subject.host for point in points.values()}) > 1
    labels = {key: point_label(point, name_host=several) for key, point in points.items()}
    return told_apart(labels, lambda key: points[key].id)


def told_apart(labels: Mapping[K, str], by: Callable[[K], str]) -> dict[K, str]:
    """The same, those alike with what tells them apart: Streamlit finds a choice by its label.

    Args:
        by: of a key, words that no other key has.
    """
    count = Counter(labels.values())
    return {
        key: f"{label} ({by(key)})" if count[label] > 1 else label for key, label in labels.items()
    }


def point_label(point: Point, *, name_host: bool = False) -> str:
    """A configuration in one line of plain text; of an imported one the host is always named."""
    subject = point.subject
    parts = [subject.name, precision_label(subject.precision), subject.device_label]
    parts.append(short_runtime(subject.runtime))
    if point.subject.source is PointSource.ANSWERS:
        parts.append("answers")
    else:
        parts.append(f"{point.prompt_tokens}-token prompt")
    if subject.source is PointSource.IMPORTED:
        parts.append(f"imported from {subject.host}")
    elif name_host:
        parts.append(f"on {subject.host}")
    if subject.contended:
        parts.append("contended")
    return " · ".join(parts)


def axes_of(number: int) -> dict[str, str]:
    """Names of the axes of a panel, as a trace gives them."""
    suffix = "" if number == 0 else str(number + 1)
    return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


def _axis_name(axis: str, number: int) -> str:
    return axis if number == 0 else f"{axis}{number + 1}"


def plot_text(text: str) -> str:
    """Text that stays text in a chart, which reads some HTML but not every entity of it."""
    return html.escape(text, quote=False)


def text_px(text: str, font_px: int = _FONT_PX) -> int:
    """About how wide a text is in Streamlit's font, rather more than less."""
    return math.ceil(font_px * sum(map(_em, text)))


def _em(letter: str) -> float:
    """Width of a letter in em, of Source Sans as it comes with Streamlit."""
    if not letter.isascii():
        return 0.35 if letter in "·×÷…" else 1.0  # scripts of Asia are as wide as they are high
    if letter in "MWmw@%":
        return 0.85
    if letter.isupper():
        return 0.62
    return 0.3 if letter in " .,:;'|!ijl()[]/" else 0.54


def _in_order(points: Iterable[Point]) -> list[Series]:
    found = {Series.of(point) for point in points}
    return sorted(found, key=lambda s: (s.prompt_tokens is None, s.prompt_tokens or 0, s.contended))


def _cut(text: str, length: int = 44) -> str:
    """Without its middle where it is too long: often its end tells it from others."""
    end = length // 3
    return text if len(text) <= length else f"{text[: length - end - 1]}…{text[-end:]}"
