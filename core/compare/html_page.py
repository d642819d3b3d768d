"""Export a comparison as a single HTML file, without scripts or external resources."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from core.compare.chart import timelines_svg
from core.compare.divergence import DiffKind
from core.compare.report import MatchReport, Pair, SideReport
from core.compare.setup import LETTERS
from core.compare.wording import (
    caution,
    conditions,
    figures_line,
    medians,
    sampling_text,
    status,
)
from core.units import listed

_NOT_ALLOWED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f3f6f9; --line: #d5dde5;
  --text: #101821; --soft: #52616f; --win: #0f6b3d; --win-back: #dff3e7; --warn: #8a4b00;
  --bad: #a4262c; --a: #0b67b2; --b: #b8530b; --c: #1d7a46; --d: #7a3fa8;
  --cut: #fbe3df; --new: #dcebfa; }
@media (prefers-color-scheme: dark) { :root { --page: #10161d; --card: #19222c; --line: #2f3b48;
  --text: #e6edf3; --soft: #9fb0c0; --win: #7bdca5; --win-back: #163524; --warn: #f0b35e;
  --bad: #ff9a93; --a: #4ea6ee; --b: #f19a58; --c: #62c98d; --d: #c39bee;
  --cut: #4a2522; --new: #17344f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 3rem; background: var(--page);
  color: var(--text); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; }
.box { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem;
  background: var(--card); }
.sides { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr)); }
.side { background: var(--page); border-top: .25rem solid var(--tint); }
.side h3 { margin: 0 0 .6rem; font-size: 1rem; overflow-wrap: anywhere; }
.foot { border-top: 1px solid var(--line); margin-top: .8rem; padding-top: .3rem; }
.letter { color: var(--tint); font-weight: 700; margin-right: .4rem; }
.error { color: var(--bad); } .warn { color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td { white-space: nowrap; } td:last-child { min-width: 9rem; white-space: normal; }
thead th { color: var(--soft); font-weight: 600; } tbody th { font-weight: 500; }
td.win { color: var(--win); background: var(--win-back); font-weight: 600; }
dl { margin: 0; } dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
del, ins { text-decoration: none; border-radius: .2rem; padding: 0 .1rem; }
del { background: var(--cut); }
ins { background: var(--new); border-bottom: 2px solid var(--a); }
del { border-bottom: 2px dashed var(--b); } del + ins { margin-left: .2rem; }
figure { margin: 0; } figcaption { margin-top: .3rem; }
svg { width: 100%; min-width: 34rem; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); } svg polyline { fill: none; stroke-width: 2.2; }
.A { --tint: var(--a); } .B { --tint: var(--b); } .C { --tint: var(--c); } .D { --tint: var(--d); }
svg polyline, svg circle { stroke: var(--tint); } svg circle { fill: var(--tint); }
.key { display: inline-block; margin-right: 1.2rem; }
.key::before { content: ""; display: inline-block; width: 1.1rem; height: .25rem;
  margin-right: .4rem; vertical-align: middle; background: var(--tint); }
@media print { .box, .side { break-inside: avoid; } }
"""


def to_html(report: MatchReport) -> str:
    """Return the report as an HTML page.

    Styles and chart are inline. The page follows the system's light or dark theme and is readable
    at any width and in print.
    """
    body = [
        "<h1>Models side by side</h1>",
        f'<p class="soft">{report.asked_at:%Y-%m-%d %H:%M:%S} UTC · '
        f"{_text(report.mode.label)}: {_text(report.mode.sentence)}<br>"
        f"{_text(sampling_text(report.request))}</p>",
        "<h2>Instruction</h2>",
        _box(report.request.instruction),
    ]
    if report.request.context:
        body += ["<h2>Context</h2>", _box(report.request.context)]
    body += ["<h2>Answers</h2>", f'<div class="sides">{"".join(map(_side, report.sides))}</div>']
    if report.verdict:
        body += ["<h2>Verdict</h2>", _box(report.verdict)]
    body += ["<h2>Figures</h2>", _table(report)]
    if sentence := caution(report):
        body.append(f'<p class="warn">{_text(sentence)}</p>')
    if sentence := medians(report):
        body.append(f'<p class="soft">{_text(sentence)}</p>')
    body += _chart(report)
    for pair in report.pairs:
        body += _pair(pair)
    body += ["<h2>Conditions</h2>", _conditions(report), '<p class="soft">Made with Paddock.</p>']
    content = "\n".join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Models side by side · Paddock</title>
<style>{_STYLE}</style>
</head>
<body>
{content}
</body>
</html>
"""


def _text(text: str) -> str:
    """Escape a text for HTML; characters that are not allowed in HTML become U+FFFD."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return html.escape(_NOT_ALLOWED.sub("\ufffd", lines), quote=True)


def _box(text: str) -> str:
    return f'<div class="box text" dir="auto">{_text(text)}</div>'


def _side(side: SideReport) -> str:
    kind = "error" if side.error is not None else "soft"
    parts = [
        f'<section class="box side {side.letter}"><h3><span class="letter">{side.letter}</span>'
        f"<bdi>{_text(side.label)}</bdi></h3>"
    ]
    if side.text:
        parts.append(f'<div class="text" dir="auto">{_text(side.text)}</div>')
    parts.append(f'<div class="foot"><p class="{kind}">{_text(status(side))}</p>')
    if line := figures_line(side):
        parts.append(f'<p class="soft">{_text(line)}</p>')
    return "".join([*parts, "</div></section>"])


def _table(report: MatchReport) -> str:
    heads = "".join(f"<th>{side.letter}</th>" for side in report.sides)
    rows = []
    for row in report.rows:
        cells = "".join(
            f'<td class="win">{_text(text)}</td>'
            if LETTERS[side] in row.better_letters
            else f"<td>{_text(text)}</td>"
            for side, text in enumerate(row.texts)
        )
        better = listed(row.better_letters)
        words = f"{better}: {row.factor_text}" if row.factor_text else better
        mark = ' <span class="warn">(measured while busy)</span>' if row.contended else ""
        rows.append(f"<tr><th>{_text(row.name)}{mark}</th>{cells}<td>{_text(words)}</td></tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{heads}<th>Better</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _chart(report: MatchReport) -> list[str]:
    lines = [(side.letter, side.timeline) for side in report.sides if side.timeline is not None]
    drawn = timelines_svg(lines)
    if drawn is None:
        return []
    keys = "".join(
        f'<span class="key {side.letter}">{side.letter}: <bdi>{_text(side.label)}</bdi></span>'
        for side in report.sides
        if side.timeline is not None
    )
    caption = f"<figcaption>{keys}</figcaption>"
    figure = f'<figure><div class="scroll">{drawn}</div>{caption}</figure>'
    return ["<h2>Tokens over time</h2>", figure]


def _pair(pair: Pair) -> Iterable[str]:
    a, b = LETTERS[pair.a], LETTERS[pair.b]
    yield f"<h2>Where {a} and {b} diverge</h2>"
    yield f"<p>{_text(pair.divergence.sentence)}</p>"
    if pair.followed is not None:
        yield f"<p>{_text(pair.followed.sentence)}</p>"
    if pair.divergence.similarity < 1:
        yield f'<p class="soft"><del>only in {a}</del> · <ins>only in {b}</ins></p>'
        yield f'<div class="box text" dir="auto">{"".join(map(_span, pair.diff))}</div>'


def _span(span: tuple[DiffKind, str]) -> str:
    kind, text = span
    tag = {DiffKind.SAME: "", DiffKind.ONLY_A: "del", DiffKind.ONLY_B: "ins"}[kind]
    return f"<{tag}>{_text(text)}</{tag}>" if tag else _text(text)


def _conditions(report: MatchReport) -> str:
    rows = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in conditions(report)
    )
    return f"<dl>{rows}</dl>"
