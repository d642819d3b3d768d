"""Parts of the Compare page without widgets: votes, ratings, the diff, the next side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.catalogue import Precision
from core.compare.divergence import DiffKind, readable_diff
from core.compare.ratings import rate
from core.compare.setup import Mode
from core.db import PairVotes, Subject, Verdict
from core.db.vote_values import COMMENT_LIMIT
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from core.store import ModelStore, resolver
from core.ui.compare import columns
from core.ui.compare.columns import REFRESH_S, WAITING_REFRESH_S, refresh_interval_s
from core.ui.compare.judge import ratings_rows
from core.ui.compare.list import list_row, summary_table
from core.ui.compare.result import diff_html
from core.ui.compare.setup import next_side, unused
from core.ui.compare.votes import Judgement, pairs_of, votes_of
from core.ui.widgets.charts import SIDE_COLOURS
from core.ui.widgets.safe_text import safe_html
from tests.compare.answers import answer, report
from tests.gguf_files import tiny_gguf

NEOX, LLAMA = "paddock-neox", "paddock-llama"


def a_match(count: int, mode: Mode = Mode.FAIR) -> Any:
    """Return a stand-in with the fields of a match that votes are made from."""
    sides = tuple(
        ModelSpec(model, precision)
        for precision in (Precision.INT8, Precision.INT4)
        for model in (NEOX, LLAMA)
    )[:count]
    jobs = tuple(SimpleNamespace(run_id=f"run-{side}") for side in range(count - 1))
    answers = tuple(SimpleNamespace(weights=f"weights {side}") for side in range(count - 1))
    return SimpleNamespace(
        id="m" * 32,
        setup=SimpleNamespace(sides=sides, mode=mode),
        jobs=(*jobs, None),
        answers=(*answers, None),
    )


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (0, {"AB": Verdict.LEFT, "AC": Verdict.LEFT}),
        (1, {"AB": Verdict.RIGHT, "BC": Verdict.LEFT}),
        (2, {"AC": Verdict.RIGHT, "BC": Verdict.RIGHT}),
        (Verdict.TIE, dict.fromkeys(("AB", "AC", "BC"), Verdict.TIE)),
        (Verdict.BOTH_BAD, dict.fromkeys(("AB", "AC", "BC"), Verdict.BOTH_BAD)),
    ],
)
def test_judgement_of_three_sides_gives_votes_on_pairs(
    best: int | Verdict, expected: dict[str, Verdict]
) -> None:
    match = a_match(3)
    votes = votes_of(match, Judgement(best), session="s")
    assert {vote.comparison.partition(":")[2]: vote.verdict for vote in votes} == expected
    assert {vote.comparison for vote in votes} <= set(pairs_of(match))


def test_vote_has_the_configurations_and_conditions() -> None:
    judgement = Judgement(1, "because", blind=True)
    (vote,) = votes_of(a_match(2, Mode.RACE), judgement, session="s")
    assert (vote.left.model, vote.right.model) == (NEOX, LLAMA)
    assert (vote.left.precision, vote.left.device, vote.left.runtime) == ("int8", "AUTO", "genai")
    assert vote.left.title == "Paddock NeoX 3M (tiny demo)"
    assert (vote.left.weights, vote.right.weights) == ("weights 0", None)
    assert (vote.left_run, vote.right_run) == ("run-0", None), "one run was not recorded"
    assert (vote.mode, vote.blind, vote.session) == (Mode.RACE, True, "s")
    assert len(vote.comparison) <= 64, "length of its column"
    assert len("because") < COMMENT_LIMIT and vote.comment == "because"


@pytest.mark.parametrize(
    ("best", "two", "three"),
    [
        (0, "You chose A.", "You chose A."),
        (Verdict.TIE, "You chose a tie.", "You chose a tie."),
        (Verdict.BOTH_BAD, "You chose “both bad”.", "You chose “all bad”."),
    ],
)
def test_judgement_as_a_sentence(best: int | Verdict, two: str, three: str) -> None:
    assert (Judgement(best).sentence(2), Judgement(best).sentence(3)) == (two, three)


def a_pair(left: str, right: str, *counts: int) -> PairVotes:
    subjects = [
        Subject(model=name, title=name.title(), precision="int8", device=None, runtime=None)
        for name in (left, right)
    ]
    return PairVotes(
        left=subjects[0],
        right=subjects[1],
        left_wins=counts[0],
        right_wins=counts[1],
        ties=counts[2],
        both_bad=counts[3],
    )


def test_ratings_table_is_ordered_and_states_significance() -> None:
    rows = ratings_rows(rate([a_pair("a", "b", 40, 2, 1, 0), a_pair("b", "c", 3, 2, 0, 1)]))
    assert [row["Model"] for row in rows] == ["A", "B", "C"]
    assert [row["Votes"] for row in rows] == [43, 49, 6]
    assert rows[0]["Significant"] == "yes"
    assert rows[1]["Significant"].endswith("more votes")
    assert rows[2]["Significant"] == "—"
    assert all("Group" not in row and "Device" not in row for row in rows)
    low, high = map(float, rows[0]["95 % interval"].split(" – "))
    assert low < rows[0]["Rating"] < high


def test_ratings_table_names_the_weights() -> None:
    pair = a_pair("a", "b", 3, 1, 0, 0)
    stored = replace(pair.left, precision="stored")
    special = replace(pair.right, weights="INT8 from Q4_1")
    rows = ratings_rows(rate([replace(pair, left=stored, right=special)]))
    assert [row["Precision"] for row in rows] == ["As stored", "INT8 from Q4_1"]


def test_models_without_common_votes_are_in_groups() -> None:
    rows = ratings_rows(rate([a_pair("a", "b", 2, 0, 0, 0), a_pair("c", "d", 1, 0, 0, 0)]))
    assert [row["Group"] for row in rows] == [1, 1, 2, 2]
    assert rows[1]["Significant"] == "—", "the next row is in another group"


def test_next_side_differs_from_existing_sides(tmp_path: Path) -> None:
    store = ModelStore(Settings(home=tmp_path))
    sides: list[ModelSpec] = []
    while len(sides) < 4:
        sides.append(next_side(store, sides))
    assert len(set(sides)) == 4
    assert {side.model for side in sides[:2]} == {NEOX, LLAMA}
    assert unused(store, NEOX, sides) is Precision.FP16
    assert unused(store, "phi-2", sides) is Precision.INT8


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "a & b < c \"d\" 'e'",
        "</del><b>",
    ],
)
def test_diff_escapes_markup(text: str) -> None:
    diff = tuple(readable_diff(f"same {text}", f"same {text} more words"))
    pair = SimpleNamespace(a=0, b=2, diff=diff)
    assert DiffKind.ONLY_B in {kind for kind, _ in pair.diff}
    html = diff_html(pair)
    inside = html.partition('class="diff"')[2]
    assert SIDE_COLOURS[0] in html and SIDE_COLOURS[2] in html and SIDE_COLOURS[1] not in html
    assert "<script" not in html and "<img" not in html and "<b>" not in html
    assert safe_html(text.split()[0]) in inside.replace("</span>", "")


@pytest.mark.parametrize(
    ("ids", "cell"), [((1, 3), "token 2"), ((1, 2), "never"), (None, "not in the table")]
)
def test_list_says_where_a_lower_precision_diverges(ids: tuple[int, ...] | None, cell: str) -> None:
    found = report([answer(ids=(1, 2)), answer(ids=ids) if ids else None])
    cells = list_row(1, found, hidden=False)
    assert cells.get("Diverge at", "not in the table") == cell
    assert cells["State"] == ("answered" if ids else "stopped")
    assert list(list_row(1, found, hidden=True)) == ["#", "Instruction", "Your vote", "State"]


@pytest.mark.parametrize(("gap_s", "timed"), [(0.01, 0), (0.5, 2)])
def test_summary_of_a_list_names_the_fastest_side_only_of_long_answers(
    gap_s: float, timed: int
) -> None:
    pairs = [
        [answer(gap_s=gap_s), answer(gap_s=2 * gap_s)],
        [answer(gap_s=2 * gap_s), answer(gap_s=4 * gap_s, contended=True)],
        [answer(gap_s=gap_s), None],
    ]
    found = [report(each, titles=("one", "*two*")) for each in pairs]
    assert [each.fastest for each in found] == ([0, 0, None] if timed else [None] * 3)
    first, second = summary_table(found)
    assert (first["Answered"], second["Answered"]) == ("3", "2")
    assert (first["Tokens"], second["Tokens"]) == ("12", "8")
    assert first["Fastest"] == (f"2 of {timed}" if timed else "—")
    assert second["Fastest"] == (f"0 of {timed}" if timed else "—")
    assert first["Median rate"].startswith("100" if not timed else "2.0 tokens/s")
    assert "warning" in second["Median TTFT"] and "warning" not in first["Median TTFT"]
    assert "*two*" not in second["Side"], "the name is escaped"


@pytest.mark.parametrize(("people", "seconds"), [(0, REFRESH_S), (2, REFRESH_S), (20, 2.0)])
def test_refresh_interval_grows_with_running_comparisons(
    people: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "running_matches", lambda: people)
    assert refresh_interval_s() == pytest.approx(seconds)
    waiting_s = refresh_interval_s(WAITING_REFRESH_S)
    assert waiting_s == pytest.approx(max(seconds, WAITING_REFRESH_S))


def test_installed_package_model_is_the_first_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = "smollm2-135m-instruct"
    file = tiny_gguf(tmp_path / "real.gguf").path
    monkeypatch.setattr(resolver, "package_file", lambda row: file if row.key == real else None)
    store = ModelStore(Settings(home=tmp_path / "home"))
    sides: list[ModelSpec] = []
    while len(sides) < 3:
        sides.append(next_side(store, sides))
    assert sides == [
        ModelSpec(real, Precision.STORED),
        ModelSpec(NEOX, Precision.INT8),
        ModelSpec(LLAMA, Precision.INT8),
    ]
