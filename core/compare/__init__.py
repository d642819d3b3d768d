"""Compare the answers of several models to one instruction or a list of instructions.

``setup`` and ``match`` run one comparison, ``series`` runs a list; ``figures``, ``divergence`` and
``timeline`` compute how the answers differ; ``export`` writes files. Nothing here depends on the
user interface.
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
    MAX_INSTRUCTIONS,
    Instruction,
    decode_upload,
    parse_instructions,
)
from core.compare.match import Match, SideState
from core.compare.report import MatchReport, Pair, SideReport, describe
from core.compare.series import Series, SeriesRow, SideSummary
from core.compare.setup import (
    LETTERS,
    MAX_SIDES,
    MIN_SIDES,
    Mode,
    Setup,
    default_mode,
    devices_of,
)
from core.compare.timeline import Timeline, timeline

__all__ = [
    "LETTERS",
    "MAX_INSTRUCTIONS",
    "MAX_SIDES",
    "MIN_SIDES",
    "DeltaRow",
    "DiffKind",
    "Direction",
    "Divergence",
    "Figures",
    "Followed",
    "Instruction",
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
