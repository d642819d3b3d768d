"""One instruction, several models: run them, compare what came out, keep it.

``setup`` and ``match`` run a comparison, ``series`` many of them; ``figures``, ``divergence`` and
``timeline`` say how the answers differ; ``export`` writes it all down. Nothing here knows a page.
"""

from core.compare.divergence import (
    DiffKind,
    Divergence,
    Followed,
    agreement,
    compare,
    first_divergence,
    followed,
    readable_diff,
    reference_pairs,
    same_tokenizer,
)
from core.compare.export import to_html, to_json, to_markdown
from core.compare.figures import (
    DeltaRow,
    Direction,
    Figures,
    deltas,
    side_figures,
    stored_model,
)
from core.compare.fit import fit_together
from core.compare.instructions import (
    MOST_INSTRUCTIONS,
    Instruction,
    decode_upload,
    parse_instructions,
)
from core.compare.match import LineUp, Match, SideState, Start
from core.compare.report import MatchReport, Pair, SideReport, describe
from core.compare.series import Series, SeriesRow, SideSummary
from core.compare.setup import (
    FEWEST_SIDES,
    LETTERS,
    MOST_SIDES,
    Mode,
    Setup,
    default_mode,
    devices_of,
)
from core.compare.timeline import Timeline, timeline

__all__ = [
    "FEWEST_SIDES",
    "LETTERS",
    "MOST_INSTRUCTIONS",
    "MOST_SIDES",
    "DeltaRow",
    "DiffKind",
    "Direction",
    "Divergence",
    "Figures",
    "Followed",
    "Instruction",
    "LineUp",
    "Match",
    "MatchReport",
    "Mode",
    "Pair",
    "Series",
    "SeriesRow",
    "Setup",
    "SideReport",
    "SideState",
    "SideSummary",
    "Start",
    "Timeline",
    "agreement",
    "compare",
    "decode_upload",
    "default_mode",
    "deltas",
    "describe",
    "devices_of",
    "first_divergence",
    "fit_together",
    "followed",
    "parse_instructions",
    "readable_diff",
    "reference_pairs",
    "same_tokenizer",
    "side_figures",
    "stored_model",
    "timeline",
    "to_html",
    "to_json",
    "to_markdown",
]
