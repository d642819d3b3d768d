"""Compare page without a browser: controls, figures, votes, errors and lists."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import core.inference.engine
from core.compare import match as match_module
from core.compare import timed_answers
from core.compare.figures import side_figures
from core.compare.setup import Mode
from core.db import RunStore, Verdict, VoteStore
from core.hardware.devices import AUTO
from core.inference.engine import Engine
from core.inference.job import Job
from core.runtimes.spec import RuntimeName
from core.settings import CHECKOUT, load_settings
from core.ui.compare.state import CompareState, MatchView
from core.units import milliseconds_text, rate_text
from tests.browser.scripted import STAGES, Script, ScriptedRuntime, scripted_conversion
from tests.fakes import APART_NS, NEAR_NS, FakeCores
from tests.pages.app import open_page, seen
from tests.waiting import PATIENCE_S

NEOX, LLAMA = "paddock-neox", "paddock-llama"
NAMES = ("Paddock NeoX", "Paddock Llama")


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def runs() -> Iterator[RunStore]:
    store = RunStore.open(load_settings())
    yield store
    store.close()


@pytest.fixture
def votes(runs: RunStore) -> VoteStore:
    return VoteStore(runs.database)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the runtimes by scripted ones."""
    monkeypatch.setattr(
        core.inference.engine,
        "default_runtimes",
        lambda settings: dict.fromkeys(RuntimeName, ScriptedRuntime()),
    )
    monkeypatch.setattr(core.inference.engine, "convert_in_process", scripted_conversion)
    monkeypatch.setattr(timed_answers, "SHORTEST_S", 0.0)  # answers are not repeated
    monkeypatch.setattr(match_module, "BEGIN_TIMEOUT_S", 0.0)  # nor wait for the page's timer
    STAGES.clear()
    say(NEOX, "Rain is quiet. Rain is clean.")
    say(LLAMA, "Rain is loud. Rain is clean.")
    yield
    for stage in STAGES.values():
        stage.put(Script())


def say(model: str, text: str, **fields: Any) -> None:
    STAGES[model].put(Script(text, **{"tokens_per_s": 500.0} | fields))


def page(*, state: Mapping[str, Any] | None = None, **link: str) -> AppTest:
    return open_page("compare", session=state, **link)


def checked(app: AppTest) -> AppTest:
    assert not app.exception, [each.value for each in app.exception]
    return app


def state(app: AppTest) -> CompareState:
    return app.session_state["comparison"]


def named(elements: Any, label: str) -> Any:
    """Return the only widget with this label."""
    found = [each for each in elements if seen(each.label) == label]
    assert len(found) == 1, f"{label}: {len(found)} of {[each.label for each in elements]}"
    return found[0]


def press(app: AppTest, label: str) -> AppTest:
    return checked(named(app.button, label).click().run())


def has(app: AppTest, label: str) -> bool:
    return any(each.label == label for each in app.button)


def run(app: AppTest, instruction: str = "Why walk in the rain?", button: str = "Run both") -> None:
    """Run an instruction and wait until the page shows the finished comparison."""
    named(app.text_area, "Instruction").set_value(instruction)
    press(app, button)
    finish(app)


def finish(app: AppTest) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while state(app).running:
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.02)
    checked(app.run())


def shown(app: AppTest) -> MatchView:
    current = state(app).current
    assert current is not None
    (view,) = current.views
    return view


def texts(app: AppTest) -> str:
    """Return all texts on the page."""
    found = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.toast]
    return "\n".join(str(element.value) for element in found)


def pickers(app: AppTest) -> list[tuple[str, str, str]]:
    """Return model, precision and device of each side."""
    kinds = [
        [each.value for each in app.selectbox if each.label.startswith("Model of")],
        [each.value for each in app.selectbox if each.label.startswith("Precision of")],
        [each.value for each in app.selectbox if each.label == "Device"],
    ]
    return [(m, str(p), d) for m, p, d in zip(*kinds, strict=True)]


def eventually(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return seen


# Models


def test_two_different_models_are_selected_at_first() -> None:
    app = page()
    assert pickers(app) == [(NEOX, "int8", AUTO), (LLAMA, "int8", AUTO)]


def test_side_a_starts_with_the_model_of_the_instruct_page() -> None:
    app = page(state={"model": LLAMA})
    assert [model for model, _, _ in pickers(app)] == [LLAMA, NEOX]


def test_same_model_on_both_sides_gets_two_precisions() -> None:
    app = page()
    checked(named(app.selectbox, "Model of B").set_value(NEOX).run())
    assert pickers(app) == [(NEOX, "int8", AUTO), (NEOX, "int4", AUTO)]
    same = page(left_model=LLAMA, right_model=LLAMA)
    assert pickers(same) == [(LLAMA, "int8", AUTO), (LLAMA, "int4", AUTO)]


def test_columns_are_added_swapped_and_removed() -> None:
    app = page()
    press(app, "Add a model")
    press(app, "Add a model")
    four = [(NEOX, "int8"), (LLAMA, "int8"), (NEOX, "int4"), (LLAMA, "int4")]
    assert [each[:2] for each in pickers(app)] == four
    assert named(app.button, "Add a model").disabled
    press(app, "Swap")
    assert [each[:2] for each in pickers(app)] == [*four[1:], four[0]]
    press(app, "Remove B")
    left = [four[1], four[3], four[0]]
    assert [each[:2] for each in pickers(app)] == left
    press(app, "Remove C")
    assert [each[:2] for each in pickers(app)] == left[:2]
    assert not has(app, "Remove A"), "there are always at least two sides"
    press(app, "Swap")
    assert [each[:2] for each in pickers(app)] == [left[1], left[0]]


def test_link_reproduces_the_settings() -> None:
    app = page()
    press(app, "Add a model")
    checked(named(app.selectbox, "Model of B").set_value("phi-2").run())
    named(app.segmented_control, "How they run").set_value(Mode.RACE)
    named(app.toggle, "Blind").set_value(True)
    named(app.text_area, "Instruction").set_value("Name a cat.")
    checked(app.run())
    link = {
        name: value if isinstance(value, str) else value[0]
        for name, value in app.query_params.items()
    }
    other = page(**link)
    assert pickers(other) == pickers(app)
    assert named(other.toggle, "Blind").value is True
    assert named(other.text_area, "Instruction").value == "Name a cat."
    assert other.session_state["mode"] == "race"
    press(app, "Remove C")
    assert not any(name.startswith("c_") for name in app.query_params), (
        "removed sides are not in the URL"
    )


# Running


def test_empty_instruction_shows_an_error() -> None:
    app = press(page(), "Run both")
    assert "The instruction is empty" in app.warning[0].value


def test_figures_equal_those_in_the_database(
    scripted: None, runs: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.compare.timed_answers.SHORTEST_S", 0.0)
    app = page()
    run(app)
    recorded = {row.start.model: row.result for row in runs.recent()}
    results = [recorded[model] for model in (NEOX, LLAMA)]
    table = app.table[0].value.set_index("Figure")
    for letter, result in zip("AB", results, strict=True):
        assert result is not None
        cells = {name: cell.strip("*") for name, cell in table[letter].items()}
        assert cells["Decode rate"] == rate_text(result.decode_tokens_per_s)
        assert cells["Time to first token"] == milliseconds_text(result.ttft_ms)
        assert cells["Time per output token"] == milliseconds_text(result.tpot_ms)
        assert cells["New tokens"] == str(result.new_tokens)
    for answer, result in zip(shown(app).match.answers, results, strict=True):
        figures = side_figures(answer)
        assert figures.decode_tokens_per_s == result.decode_tokens_per_s
        assert figures.memory_private_bytes == result.memory_private_bytes


def test_timings_of_a_race_are_marked_everywhere(scripted: None) -> None:
    say(NEOX, "Rain is quiet. Rain is clean.", released=1)
    say(LLAMA, "Rain is loud. Rain is clean.", released=1)
    app = page(mode="race")
    named(app.text_area, "Instruction").set_value("Why walk in the rain?")
    press(app, "Run both")
    eventually(lambda: STAGES[NEOX].state.running == STAGES[LLAMA].state.running == 1, "a race")
    for model in (LLAMA, NEOX):
        STAGES[model].release(None)
    finish(app)
    assert all(answer and answer.contended for answer in shown(app).match.answers)
    assert texts(app).count(":material/warning: measured while busy") == 2
    assert texts(app).count("**1st**") == texts(app).count("**2nd**") == 1
    table = app.table[0].value.set_index("Figure")
    for name in ("Decode rate", "Time to first token", "Time per output token"):
        assert all("warning" in table[letter][name] for letter in "AB"), name
    assert "; measured while busy, so not comparable" in texts(app)
    chart = json.loads(app.get("plotly_chart")[0].proto.spec)
    names = [line["name"] for line in chart["data"]]
    assert names == ["A (measured while busy)", "B (measured while busy)"]


def test_short_answers_are_repeated_in_the_background(
    scripted: None, runs: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = threading.Event()
    answer = Engine.answer

    def when_looked_at(self: Engine, *args: Any, recorded: bool = True, **kwargs: Any) -> Job:
        if not recorded:
            looked_at.wait(PATIENCE_S)
        return answer(self, *args, recorded=recorded, **kwargs)

    monkeypatch.setattr(Engine, "answer", when_looked_at)
    # Long enough that the answers also count as short on a machine that stalls.
    monkeypatch.setattr(timed_answers, "SHORTEST_S", 60.0)
    monkeypatch.setattr(match_module, "MAX_PREPARATION_S", PATIENCE_S)  # the page is looked at
    app = page()
    named(app.text_area, "Instruction").set_value("Why walk in the rain?")
    press(app, "Run both")
    deadline = time.monotonic() + PATIENCE_S
    while "were too short to time" not in texts(app):
        assert time.monotonic() < deadline and state(app).running
        checked(app.run())
    assert not has(app, "A is better") and "Rain is loud. Rain is clean." in texts(app)
    looked_at.set()
    finish(app)
    assert "were too short to time" not in texts(app)
    assert "medians of several answers (15 of A, 15 of B)" in texts(app)
    assert texts(app).count("medians of 15 ·") == 2
    assert runs.count() == 2 and len(shown(app).match.answers) == 2
    rates = app.table[0].value.set_index("Figure").loc["Decode rate"]
    for side, letter in enumerate("AB"):
        timing = shown(app).match.timing(side)
        assert timing is not None and len(timing.answers) == 15
        middle = median(each.timings.decode_tokens_per_s for each in timing.answers)
        assert rates[letter].strip("*") == rate_text(middle)


def test_timings_taken_with_the_cores_apart_are_marked(scripted: None, cores: FakeCores) -> None:
    cores.note(NEAR_NS)
    cores.to_come = [APART_NS] * 1000
    app = page()
    run(app)
    table = app.table[0].value.set_index("Figure")
    assert all("warning" in table[letter]["Decode rate"] for letter in "AB")
    assert "; measured while busy, so not comparable" in texts(app)
    assert "during the answers of A and B, this machine's host had moved its cores apart" in texts(
        app
    )
    assert "something else was generating" not in texts(app)
    chart = json.loads(app.get("plotly_chart")[0].proto.spec)
    names = [line["name"] for line in chart["data"]]
    assert names == ["A (measured while busy)", "B (measured while busy)"]


def test_failed_side_does_not_affect_the_other(scripted: None) -> None:
    say(NEOX, "Rain is quiet.", fail_after=2)
    app = page()
    run(app)
    assert "scripted fault" in app.error[0].value
    assert "Rain is loud. Rain is clean." in texts(app)
    assert not has(app, "A is better"), "there is nothing to vote on"


def test_regenerating_one_side_keeps_the_other(scripted: None) -> None:
    app = page()
    run(app)
    first = shown(app).match
    press(app, "Regenerate B")
    finish(app)
    again = shown(app).match
    assert again is not first
    assert again.jobs[0] is first.jobs[0] and again.jobs[1] is not first.jobs[1]
    assert again.request(1).sampling.seed != first.request(1).sampling.seed
    assert "Earlier in this session" in [each.value for each in app.subheader]
    press(app, "Show")
    assert shown(app).match is first


def linked(app: AppTest) -> tuple[str, str]:
    """Return the caption of the link popover and the query of the link."""
    code = app.code[0].value
    sentence = next(each.value for each in app.caption if each.value.startswith("Opens this page"))
    return sentence, code.partition("?")[2]


def test_link_has_the_current_settings(scripted: None) -> None:
    app = page()
    named(app.text_area, "Instruction").set_value("Why?")
    named(app.toggle, "Blind").set_value(True)
    sentence, query = linked(checked(app.run()))
    assert query == "instruction=Why%3F&blind=True" and sentence.endswith(
        "settings and instruction."
    )
    named(app.toggle, "Blind").set_value(False)
    named(app.text_area, "Instruction").set_value("Почему? " * 100)
    sentence, query = linked(checked(app.run()))
    assert query == "" and "too long" in sentence


def test_double_click_on_regenerate_starts_one_comparison(scripted: None) -> None:
    app = page(mode="race")
    run(app)
    first = shown(app)
    say(NEOX, "Rain.", released=1)
    state(app).regenerate(first)
    again = shown(app)
    state(app).regenerate(first)
    assert shown(app) is again and len(state(app).entries) == 2
    STAGES[NEOX].release(None)
    finish(app)


def test_double_click_on_delete_deletes_one_entry(scripted: None) -> None:
    app = page(mode="race")
    for instruction in ("First?", "Second?", "Third?"):
        run(app, instruction)
    delete = [button for button in app.button if seen(button.label) == "Delete"]
    assert len(delete) == 2
    checked(delete[0].click().run())
    delete[0].click().run()  # the second click comes before the browser has shown the first
    asked = [entry.setup.request.instruction for entry in state(app).entries]
    assert asked == ["Third?", "First?"]


def test_regenerating_checks_the_manage_permission(
    scripted: None, request: pytest.FixtureRequest
) -> None:
    say("dolly-v2-3b", "Rain is wet.")
    app = page(left_model="dolly-v2-3b", mode="race")
    named(app.text_area, "Instruction").set_value("Why walk in the rain?")
    press(app, "Download 5.6 GB, then run both")
    assert not state(app).running, "the download must be confirmed first"
    press(app, "Download, then run")
    finish(app)
    match = shown(app).match
    assert texts(app).count("Rain is wet.") == 1
    request.getfixturevalue("without_rights")
    for button in ("Regenerate both", "Regenerate A"):
        press(app, button)
        assert "is not on this machine yet" in texts(app)
        assert shown(app).match is match and not state(app).running
    press(app, "Regenerate B")
    finish(app)
    assert shown(app).match is not match, "that model is included in Paddock"
    assert len(STAGES["dolly-v2-3b"].state.prompts) == 1


def test_divergence_is_shown_for_one_model_under_greedy_decoding_only(scripted: None) -> None:
    app = page(right_model=NEOX)
    run(app)
    assert "Where the answers diverge" not in texts(app) and not has(app, "Compare with FP16")
    app = page(right_model=NEOX, greedy="true")
    run(app)
    assert "identical, token by token. The reference is A (INT8)." in texts(app)
    jobs = shown(app).match.jobs
    press(app, "Compare with FP16")
    finish(app)
    assert shown(app).match.jobs[:2] == jobs and shown(app).match.answers[2]
    assert "The reference is C (FP16)." in texts(app) and not has(app, "Compare with FP16")


def test_models_that_do_not_fit_show_a_warning_before_loading(
    scripted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_MEMORY_RESERVE_MIB", "900000000")
    app = page(mode="race")
    assert "Together these models need about" in app.warning[0].value
    assert named(app.button, "Run both").disabled
    named(app.segmented_control, "How they run").set_value(Mode.FAIR)
    checked(app.run())
    assert not named(app.button, "Run both").disabled
    assert "one at a time" in app.warning[0].value


def test_comparison_continues_without_the_page(scripted: None) -> None:
    say(NEOX, "Rain is quiet.", released=2)
    app = page()
    named(app.text_area, "Instruction").set_value("Why?")
    press(app, "Run both")
    match = shown(app).match
    eventually(lambda: match.jobs[0] and match.jobs[0].text, "it does not begin")
    app.switch_page(str(CHECKOUT / "pages" / "account.py"))
    checked(app.run())
    STAGES[NEOX].release(None)
    assert match.wait(PATIENCE_S)
    assert [answer and answer.text for answer in match.answers] == [
        "Rain is quiet.",
        "Rain is loud. Rain is clean.",
    ]


# Voting


def test_vote_is_stored_and_rated(scripted: None, votes: VoteStore) -> None:
    app = page()
    run(app)
    named(app.text_input, "Comment").set_value("kinder")
    press(app, "B is better")
    (vote,) = votes.recent()
    assert (vote.verdict, vote.blind, vote.comment) == (Verdict.RIGHT, False, "kinder")
    assert (vote.left.model, vote.right.model) == (NEOX, LLAMA)
    assert [vote.left_run, vote.right_run] == [job.run_id for job in shown(app).match.jobs]
    assert "You chose B." in texts(app)
    ratings = app.dataframe[0].value
    assert list(ratings["Model"]) == ["Paddock Llama 6M (tiny demo)", "Paddock NeoX 3M (tiny demo)"]
    assert list(ratings["Wins"]) == [1, 0] and list(ratings["Losses"]) == [0, 1]
    assert ratings["Rating"][0] > 1000 > ratings["Rating"][1]
    assert ratings["Significant"][0].endswith("more votes")
    gone = replace(vote, comparison="x", left=replace(vote.left, model="acme/gone", title="Gone"))
    votes.cast(gone)
    assert "Gone" in list(checked(app.run()).dataframe[0].value["Model"])
    checked(named(app.toggle, "Only models on this machine").set_value(True).run())
    assert list(app.dataframe[0].value["Model"]) == list(ratings["Model"])
    votes.withdraw("x", owner=vote.owner)
    press(app, "Undo vote")
    assert votes.count() == 0 and has(app, "B is better")


def test_blind_comparison_reveals_names_after_the_vote(scripted: None, votes: VoteStore) -> None:
    app = page(blind="true")
    run(app)
    secret = (*NAMES, "tokens/s", "TTFT", "ended:", "INT8")
    assert not [word for word in secret if word in texts(app)]
    assert not app.table and not app.get("plotly_chart")
    press(app, "A is better")
    read = texts(app)
    assert all(name in read for name in NAMES) and "tokens/s" in read
    assert "You voted blind." in read
    (vote,) = votes.recent()
    assert vote.blind and vote.verdict is Verdict.LEFT
    assert vote.left.model == shown(app).match.setup.sides[0].model
    press(app, "Undo vote")
    press(app, "Tie")
    assert [each.blind for each in votes.recent()] == [False], "the names were visible"


def test_blind_failure_does_not_reveal_the_name(scripted: None) -> None:
    say(NEOX, "Rain.", fail_after=1)
    app = page(blind="true")
    run(app)
    assert app.error[0].value == "This side failed. The error is shown when the names are revealed."
    press(app, "Reveal without voting")
    assert "scripted fault" in app.error[0].value


def test_best_of_three_wins_against_the_others(scripted: None, votes: VoteStore) -> None:
    app = page(sides="3")
    run(app, button="Run all")
    press(app, "B is best")
    found = {(v.left.precision, v.right.precision): v for v in votes.recent()}
    assert len(found) == 2
    assert {vote.verdict for vote in found.values()} == {Verdict.LEFT, Verdict.RIGHT}
    press(app, "Undo vote")
    press(app, "All bad")
    assert [each.verdict for each in votes.recent()] == [Verdict.BOTH_BAD] * 3


def test_deleting_a_comparison_deletes_runs_and_votes(
    scripted: None, runs: RunStore, votes: VoteStore
) -> None:
    app = page()
    run(app)
    press(app, "Tie")
    run(app, "Another?")
    assert (runs.count(), votes.count()) == (4, 1)
    press(app, "Delete")
    assert (runs.count(), votes.count()) == (2, 0)
    assert "Earlier in this session" not in [each.value for each in app.subheader]


def test_account_page_deletes_votes_of_this_session(scripted: None, votes: VoteStore) -> None:
    app = page()
    run(app)
    press(app, "Tie")
    assert votes.count() == 1
    app.switch_page(str(CHECKOUT / "pages" / "account.py"))
    checked(app.run())
    assert "Delete 2 answers and 1 vote, and all your conversations" in texts(app)
    press(app, "Delete all")
    assert votes.count() == 0


# Lists


def test_list_runs_in_order_with_a_summary(scripted: None, runs: RunStore) -> None:
    app = page(ask="list")
    named(app.text_area, "Instructions, one per line").set_value("Why?\n\nWhere to?\nWhen?")
    checked(app.run())
    press(app, "Run both")
    finish(app)
    assert state(app).current.is_list
    assert runs.count() == 6
    summary, rows = app.table[0].value, app.dataframe[0].value
    assert list(summary["Answered"]) == ["3", "3"]
    assert list(rows["Instruction"]) == ["Why?", "Where to?", "When?"]
    assert list(rows["State"]) == ["answered"] * 3
    assert not rows["Measured while busy"].any()
    assert len({row.start.seed for row in runs.recent()}) == 3, "one seed per instruction"


def test_blind_list_hides_figures_until_revealed(scripted: None) -> None:
    app = page(ask="list", blind="true", left_model=LLAMA, right_model=NEOX)
    named(app.text_area, "Instructions, one per line").set_value("Why?\nWhen?")
    press(app, "Run both")
    finish(app)
    assert list(app.dataframe[0].value.columns) == ["#", "Instruction", "Your vote", "State"]
    assert not [name for name in NAMES if name in texts(app)]
    assert not pickers(app) and len(app.code) == 2, "two answers to copy, but no link"
    assert not [key for key in app.query_params if "model" in key]
    press(app, "Reveal now")
    assert "A tokens/s" in app.dataframe[0].value.columns
    assert all(name in "\n".join(app.table[0].value["Side"]) for name in NAMES)
    assert [model for model, _, _ in pickers(app)] == [LLAMA, NEOX]
    assert LLAMA in app.query_params["left_model"]


def test_a_list_is_judged_row_by_row(scripted: None, votes: VoteStore, runs: RunStore) -> None:
    app = page(ask="list", blind="true")
    named(app.text_area, "Instructions, one per line").set_value("Why?\nWhen?")
    press(app, "Run both")
    finish(app)
    assert "Why?" in texts(app), "the first row is open"
    press(app, "A is better")
    assert "Votes: A 1 · B 0 · tie 0" in texts(app)
    assert "Ratings are shown after the last blind vote." in texts(app)
    assert not [name for name in NAMES if name in texts(app)]
    app.switch_page(str(CHECKOUT / "pages" / "metrics.py"))
    assert "Votes" not in checked(app.run()).dataframe[0].value.columns
    assert not [each for each in app.dataframe if "Origin" in each.value.columns], "no answers"
    app.switch_page(str(CHECKOUT / "pages" / "account.py"))
    assert "Stored data" in [each.value for each in checked(app.run()).subheader]
    assert not [name for name in NAMES if name in texts(app)]
    app.switch_page(str(CHECKOUT / "pages" / "compare.py"))
    checked(app.run())
    press(app, "Tie")
    assert "Votes: A 1 · B 0 · tie 1" in texts(app)
    asked = {run.start.instruction for run in runs.recent()}
    assert asked == {"Why?", "When?"}
    assert sorted(vote.verdict for vote in votes.recent()) == [Verdict.LEFT, Verdict.TIE]
    assert len({vote.left_run for vote in votes.recent()}) == 2, "one vote per instruction"
    assert all(name in texts(app) for name in NAMES)
    labels = [each.proto.label for each in app.get("download_button")]
    assert labels[:4] == ["Markdown", "CSV", "JSON", "Web page (HTML)"]


def test_invalid_list_shows_an_error() -> None:
    app = page(ask="list")
    named(app.text_area, "Instructions, one per line").set_value("x\n" * 201)
    checked(app.run())
    assert "There are 201 cases. Use at most 200" in app.warning[0].value
    press(app, "Run both")
    assert "The list has no instruction" in texts(app)


# Export


def test_comparison_can_be_exported(scripted: None) -> None:
    app = page()
    run(app)
    labels = [each.proto.label for each in app.get("download_button")]
    assert labels == ["Markdown", "JSON", "Web page (HTML)"]
