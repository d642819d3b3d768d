"""Layout of the bar charts of the Metrics page.

All bar charts have the same layout: a panel for each model, a row for each configuration and a bar
for each prompt length. Each panel has its own axis from zero, because bars of a model with billions
of weights would be invisible beside those of one with millions; panels with similar values share
one scale. Labels contain only what differs between rows: a single runtime is not named.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import plotly.graph_objects as go

from core.metrics.rows import Point, PointSource, Subject
from core.runtimes.spec import RuntimeName

MAX_ROWS = 24
"""Maximum number of rows on one screen; the most recently measured are shown, with a note."""

BENCHMARK_COLOURS = ("#0b67b2", "#5aa3dc", "#a9cfee")
"""Colours of prompt lengths, the shortest first, for the light and the dark theme."""
ANSWERS_COLOUR = "#8d99a6"
GREY = "rgba(120,130,140,0.9)"

RUNTIMES = {
    "optimum": "OpenVINO (Optimum)",
    "genai": "OpenVINO GenAI",
    "pytorch": "PyTorch",
}
"""Display names of runtimes."""

FIXED_MARGINS = {"automargin": False, "ticklabeloverflow": "allow"}
"""Properties of every axis: margins are set explicitly. For automatic margins plotly measures all
labels and draws again, which doubles the drawing time in the browser."""

K = TypeVar("K")

Trace = dict[str, Any]
"""One trace of a figure in plotly's JSON format."""

SHARED_SCALE_FACTOR = 6.0
"""Panels whose largest values differ by less than this factor share one scale."""

_BAR_PX, _ROW_GAP_PX, _MIN_ROW_PX = 17, 9, 28
_PANEL_TITLE_PX, _AXIS_PX = 30, 30
_TOP_PX, _BOTTOM_PX, _LEGEND_LINE_PX = 46, 62, 20
_LABEL_GAP_PX = 14
"""Distance between a label and its bar: padding of plotly and Streamlit."""
_FONT_PX = 12
"""Font size of labels in Streamlit's theme."""
_HEADROOM = 1.22
"""The axis ends at this multiple of the largest value, to leave room for the figures."""


def runtime_label(name: str) -> str:
    """Return the display name of a runtime."""
    return RUNTIMES.get(name, name)


def short_runtime(name: str) -> str:
    """Return the one-word name of a runtime, for narrow places."""
    return RuntimeName(name).short_name if name in set(RuntimeName) else name


@dataclass(frozen=True)
class PanelKey:
    """Identifies a panel of a chart."""

    name: str
    """Name of the model; random weights are marked."""
    host: str
    imported: bool
    """Whether the figures were imported; they are kept apart even if they are from this host."""


@dataclass(frozen=True)
class RowKey:
    """Identifies a row of a chart.

    A row has the figures of a subject, both idle and busy, from the benchmark and from answers.
    """

    panel: PanelKey
    weights: str
    device: str
    """From :attr:`Subject.device_label`."""
    runtime: str

    @classmethod
    def of(cls, subject: Subject) -> RowKey:
        """Return the row for figures of this subject."""
        imported = subject.source is PointSource.IMPORTED
        panel = PanelKey(subject.name, subject.host, imported)
        return cls(panel, subject.weights, subject.device_label, subject.runtime)


@dataclass(frozen=True)
class Series:
    """Bars of one colour: one prompt length of the benchmark, or the answers in the app."""

    prompt_tokens: int | None
    """None for answers, whose prompt lengths vary."""
    contended: bool

    @classmethod
    def of(cls, point: Point) -> Series:
        """Return the series of a point."""
        return cls(point.prompt_tokens if point.measured else None, point.subject.contended)

    @property
    def name(self) -> str:
        """Name in the legend."""
        kind = "answers" if self.prompt_tokens is None else f"{self.prompt_tokens}-token prompt"
        return f"{kind}, measured while busy" if self.contended else kind


@dataclass(frozen=True)
class Bar:
    """A point and the position of its bar."""

    point: Point
    row: RowKey
    y: float
    """Centre of the bar in pixels below the top of its panel."""
    thickness: float
    """Pixels."""


@dataclass
class _Row:
    points: list[Point]
    top: float = 0.0

    @property
    def bars(self) -> list[Series]:
        return _sorted_series(self.points)

    @property
    def height(self) -> float:
        return max(_MIN_ROW_PX, _BAR_PX * len(self.bars) + _ROW_GAP_PX)


class Rows:
    """Panels, rows and bars of a chart."""

    def __init__(self, points: Sequence[Point]) -> None:
        """
        Args:
            points: The newest point of each configuration, in the order of the rows.
        """
        by_row: dict[RowKey, list[Point]] = {}
        for point in points:
            by_row.setdefault(RowKey.of(point.subject), []).append(point)
        kept = set(sorted(by_row, key=lambda key: max(p.when for p in by_row[key]))[-MAX_ROWS:])
        self.left_out = len(by_row) - len(kept)
        """Number of rows above :data:`MAX_ROWS`, which are not drawn."""
        self._rows = {key: _Row(found) for key, found in by_row.items() if key in kept}
        self.panels = list(dict.fromkeys(key.panel for key in self._rows))
        """Panels from top to bottom."""
        self._series = _sorted_series(self.points)
        for panel in self.panels:
            top = 0.0
            for _, row in self._of(panel):
                row.top = top
                top += row.height

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def points(self) -> list[Point]:
        """All drawn points, by row."""
        return [point for row in self._rows.values() for point in row.points]

    def series(self) -> list[tuple[Series, list[Bar]]]:
        """Return the bars by colour: the shortest prompt first, answers last."""
        placed: dict[Series, list[Bar]] = {series: [] for series in self._series}
        for key, row in self._rows.items():
            thickness = (row.height - _ROW_GAP_PX) / len(row.bars)
            for point in row.points:
                series = Series.of(point)
                y = row.top + _ROW_GAP_PX / 2 + thickness * (row.bars.index(series) + 0.5)
                placed[series].append(Bar(point, key, y, 0.9 * thickness))
        return list(placed.items())

    def middle(self, key: RowKey) -> float:
        """Return the centre of a row in pixels below the top of its panel."""
        row = self._rows[key]
        return row.top + row.height / 2

    def height(self, key: RowKey) -> float:
        """Return the height in pixels for all bars of a row."""
        return self._rows[key].height - _ROW_GAP_PX

    def by_panel(self, placed: Iterable[Bar]) -> list[tuple[dict[str, str], list[Bar]]]:
        """Return the bars of each panel with the axis names for their trace."""
        found: dict[PanelKey, list[Bar]] = {}
        for each in placed:
            found.setdefault(each.row.panel, []).append(each)
        return [(axes_of(self.panels.index(panel)), bars) for panel, bars in found.items()]

    def colour(self, series: Series) -> str:
        """Return the colour of a series."""
        if series.prompt_tokens is None:
            return ANSWERS_COLOUR
        lengths = sorted({s.prompt_tokens for s in self._series if s.prompt_tokens is not None})
        return BENCHMARK_COLOURS[min(lengths.index(series.prompt_tokens), 2)]

    def figure(
        self,
        traces: Sequence[Trace],
        title: str,
        unit: str,
        extent: Callable[[Point], float | None],
        *,
        axis: Mapping[str, Any] | None = None,
        shapes: Sequence[Mapping[str, Any]] = (),
    ) -> go.Figure:
        """Return a figure with these traces in panels, each with an axis from zero.

        Args:
            unit: Title of the lowest axis.
            extent: Returns the largest value drawn for a point; None if it is not drawn.
            axis: Additional properties of the x axis of each panel.
            shapes: Shapes of the layout.
        """
        heights = [self._panel_height(panel) for panel in self.panels]
        inside = sum(heights) + (_PANEL_TITLE_PX + _AXIS_PX) * len(heights)
        names = {trace.get("name") for trace in traces if trace.get("showlegend") is not False}
        below = _BOTTOM_PX + _LEGEND_LINE_PX * math.ceil(len(names) / 2)
        layout: dict[str, Any] = {
            "title": title,
            "height": _TOP_PX + inside + below,
            "margin": {"l": self._label_px(), "r": 16, "t": _TOP_PX, "b": below},
            # Below the chart: above, it would overlap the title on a narrow screen.
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
        scales = self._scales(extent)
        top = 0.0
        for number, (panel, height) in enumerate(zip(self.panels, heights, strict=True)):
            low = 1 - (top + _PANEL_TITLE_PX + height) / inside
            high = 1 - (top + _PANEL_TITLE_PX) / inside
            last = number == len(self.panels) - 1
            layout |= self._axes(number, panel, (low, high), height)
            layout[_axis_name("xaxis", number)] |= {
                "range": [0, scales[panel] * _HEADROOM],
                "title": unit if last else None,
                **(axis or {}),
            }
            layout["annotations"].append(self._heading(panel, high))
            top += _PANEL_TITLE_PX + height + _AXIS_PX
        return go.Figure(list(traces), layout)  # in one call, because each update is slow

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
                **FIXED_MARGINS,
            },
            _axis_name("yaxis", number): {
                "anchor": axes["xaxis"],
                "domain": [max(0.0, domain[0]), min(1.0, domain[1])],
                "range": [height, 0],
                "tickvals": [self.middle(key) for key in keys],
                "ticktext": row_labels(keys, list(self._rows)),
                "showgrid": False,
                "zeroline": False,
                **FIXED_MARGINS,
            },
        }

    def _heading(self, panel: PanelKey, y: float) -> dict[str, Any]:
        return {
            "text": f"<b>{plot_text(_shorten(panel_name(panel, self.panels)))}</b>",
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
        """Return the width of the longest label to the left of the bars."""
        labels = row_labels(list(self._rows), list(self._rows))
        return max((text_px(html.unescape(label)) for label in labels), default=0) + _LABEL_GAP_PX

    def _scales(self, extent: Callable[[Point], float | None]) -> dict[PanelKey, float]:
        """Return the largest value of each panel's axis; see :data:`SHARED_SCALE_FACTOR`."""
        largest = {panel: 0.0 for panel in self.panels}
        for key, row in self._rows.items():
            for point in row.points:
                largest[key.panel] = max(largest[key.panel], extent(point) or 0.0)
        scale, scales = 0.0, {}
        for panel in sorted(largest, key=lambda panel: -largest[panel]):
            if not scale or largest[panel] * SHARED_SCALE_FACTOR < scale:
                scale = largest[panel]
            scales[panel] = scale or 1.0
        return scales


def panel_name(panel: PanelKey, among: Collection[PanelKey]) -> str:
    """Return the title of a panel: the model, plus what distinguishes it ``among`` all panels.

    The host is added if there are several, and "imported" if there are other figures of this host.
    """
    name = panel.name
    if len({each.host for each in among}) > 1:
        name += f" · {panel.host}"
    if panel.imported and replace(panel, imported=False) in among:
        name += " · imported"
    return name


def row_labels(rows: Sequence[RowKey], among: Sequence[RowKey]) -> list[str]:
    """Return a label for each row: its precision and what else differs ``among`` all rows."""
    several_runtimes = len({row.runtime for row in among}) > 1
    several_devices = {row.device for row in among} != {"CPU"}
    labels = []
    for row in rows:
        parts = [row.weights]
        if several_devices:
            parts.append(row.device)
        if several_runtimes:
            parts.append(short_runtime(row.runtime))
        labels.append(plot_text(_shorten(" · ".join(parts), 32)))
    return labels


def point_labels(points: Mapping[str, Point]) -> dict[str, str]:
    """Return unique labels for a selection list; they include the host if there are several."""
    several = len({point.subject.host for point in points.values()}) > 1
    labels = {key: point_label(point, name_host=several) for key, point in points.items()}
    return unique_labels(labels, lambda key: points[key].id)


def unique_labels(labels: Mapping[K, str], by: Callable[[K], str]) -> dict[K, str]:
    """Make labels unique, because Streamlit finds a selected option by its label.

    Args:
        by: Returns a unique text for a key, which is added to duplicate labels.
    """
    count = Counter(labels.values())
    return {
        key: f"{label} ({by(key)})" if count[label] > 1 else label for key, label in labels.items()
    }


def point_label(point: Point, *, name_host: bool = False) -> str:
    """Return a configuration as one line of plain text; imported ones include the host."""
    subject = point.subject
    parts = [subject.name, subject.weights, subject.device_label]
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
        parts.append("measured while busy")
    return " · ".join(parts)


def axes_of(number: int) -> dict[str, str]:
    """Return the axis names of a panel for a trace."""
    suffix = "" if number == 0 else str(number + 1)
    return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


def _axis_name(axis: str, number: int) -> str:
    return axis if number == 0 else f"{axis}{number + 1}"


def plot_text(text: str) -> str:
    """Escape text for a chart; plotly interprets some HTML tags, but not every entity."""
    return html.escape(text, quote=False)


def text_px(text: str, font_px: int = _FONT_PX) -> int:
    """Estimate the width of a text in Streamlit's font, rounded up."""
    return math.ceil(font_px * sum(map(_em, text)))


def _em(letter: str) -> float:
    """Return the approximate width of a letter in em in Source Sans, Streamlit's font."""
    if not letter.isascii():
        return 0.35 if letter in "·×÷…" else 1.0  # CJK characters are one em wide
    if letter in "MWmw@%":
        return 0.85
    if letter.isupper():
        return 0.62
    return 0.3 if letter in " .,:;'|!ijl()[]/" else 0.54


def _sorted_series(points: Iterable[Point]) -> list[Series]:
    found = {Series.of(point) for point in points}
    return sorted(found, key=lambda s: (s.prompt_tokens is None, s.prompt_tokens or 0, s.contended))


def _shorten(text: str, length: int = 44) -> str:
    """Shorten a long text in the middle, because names often differ at the end."""
    end = length // 3
    return text if len(text) <= length else f"{text[: length - end - 1]}…{text[-end:]}"
