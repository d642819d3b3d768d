"""Export a comparison as a single HTML file, without scripts or external resources."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.compare import wording
from core.compare.chart import timelines_svg
from core.compare.report import MatchReport
from core.compare.setup import LETTERS
from core.units import listed

if TYPE_CHECKING:
    from jinja2 import Template

_NOT_ALLOWED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def to_html(report: MatchReport) -> str:
    """Return the report as an HTML page.

    Styles and chart are inline. The page follows the system's light or dark theme and is readable
    at any width and in print.
    """
    lines = [(side.letter, side.timeline) for side in report.sides if side.timeline is not None]
    return _template().render(
        report=report,
        chart=timelines_svg(lines),
        letters=LETTERS,
        listed=listed,
        wording=wording,
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def allowed(value: object) -> object:
        """Unify line ends, and replace characters that are not allowed in HTML by U+FFFD."""
        if hasattr(value, "__html__"):  # already escaped, or the chart
            return value
        text = str(value).replace("\r\n", "\n").replace("\r", "\n")
        return _NOT_ALLOWED.sub("\ufffd", text)

    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=allowed,
        undefined=StrictUndefined,
        trim_blocks=True,
    ).get_template("comparison.html")
