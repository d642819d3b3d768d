"""Stored data of a user: answers and votes, to view, download and delete."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import streamlit as st

from core.db import RunRecord
from core.inference.engine import Engine
from core.metrics.rows import precision_label
from core.runtimes.spec import RuntimeName
from core.store.resolver import recorded_title
from core.ui.compare.state import hidden_runs
from core.ui.instruct.stream_view import stop_text
from core.ui.widgets.actions import action, confirmed_action, draw_download
from core.ui.widgets.answer_text import draw_answer, draw_plain
from core.ui.widgets.person import Person
from core.ui.widgets.resources import shared_votes
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, counted

SHOWN = 20
"""Number of the newest answers in the list; the download has all of them."""
MOST = 100_000
_FIGURE_PX = 171
"""Width of a figure, two of which fit beside each other on a phone."""
_SHORT = 90
"""Most characters of an instruction in the list."""


def draw_data(engine: Engine, someone: Person) -> None:
    """Draw the counts, the latest answers, and the buttons to download and delete all."""
    which = _filter_of(someone)
    mine, votes = engine.runs.count(**which), shared_votes().count(**which)
    tests = sum(engine.evaluations.count(someone.holder))
    hidden = hidden_runs()  # the list would tell the names of a blind comparison
    latest = [run for run in engine.runs.recent(SHOWN, **which) if run.id not in hidden]
    st.subheader("Stored data", anchor=False)
    _draw_figures(engine, someone, mine, votes)
    if latest:
        rest = f" The latest {len(latest)} of {mine:,} are listed." if mine > len(latest) else ""
        st.caption(f"Other users cannot see your instructions and answers.{rest}")
        with st.container(border=True, key="my_answers"):
            for run in latest:
                _draw_answer(engine, someone, run)
    nothing = not (mine or votes or tests)
    with st.container(horizontal=True, gap="small"):
        draw_download(
            "paddock-my-data.json",
            lambda: everything(engine, someone),
            "my_data",
            label="Download your data",
            disabled=nothing,
        )
        confirmed_action(
            f"Delete {'your answers' if someone.account else 'the answers of this session'}",
            "delete",
            "delete_all",
            f"Delete {counted(mine, 'answer')} and {counted(votes, 'vote')}, and all your "
            "conversations and test sets? This cannot be undone.",
            *(_delete_all, engine, someone),
            answer="Delete all",
            disabled=nothing,
        )


def everything(engine: Engine, someone: Person) -> str:
    """Return a user's answers, votes, conversations and test sets as JSON, the newest first."""
    which, holder = _filter_of(someone), someone.holder
    conversations, sets = engine.conversations.store, engine.evaluations
    whole_runs = (sets.run(each.id, holder) for each in sets.runs(holder))
    return json.dumps(
        {
            "answers": [run.flat() for run in engine.runs.recent(MOST, **which)],
            "votes": [asdict(vote) for vote in shared_votes().recent(MOST, **which)],
            "conversations": [
                asdict(each)
                | {"exchanges": list(map(asdict, conversations.exchanges(each.id, holder) or []))}
                for each in conversations.list(holder, limit=MOST)
            ],
            "test_sets": {
                "sets": [sets.get_set(each.id, holder) for each in sets.sets(holder)],
                "runs": [
                    asdict(run) | {"results": sets.results(run.id)} for run in whole_runs if run
                ],
            },
        },
        indent=2,
        ensure_ascii=False,
        default=str,
    )


def _filter_of(someone: Person) -> dict[str, str]:
    """Return the filter for a user's rows; a guest only gets those of the current session.

    All guests share one owner id.
    """
    mine: dict[str, Any] = {"owner": someone.owner}
    return mine if someone.account else mine | {"session": someone.session}


def _draw_figures(engine: Engine, someone: Person, mine: int, votes: int) -> None:
    figures = {
        "Your answers" if someone.account else "Answers here": f"{mine:,}",
        "Your votes" if someone.account else "Votes here": f"{votes:,}",
    }
    if someone.access.manage:
        disk = sum(stored.manifest.folder_bytes for stored in engine.store.list())
        figures["All users' answers"] = f"{engine.runs.count():,}"
        figures["Models on disk"] = bytes_text(disk)
    with st.container(horizontal=True, gap="small", key="figures"):
        for label, value in figures.items():
            st.metric(label, value, border=True, width=_FIGURE_PX)
    if someone.account is None:
        st.caption("Answers and votes here are those of this session.")
    if someone.local:  # paths of this machine are only shown to users who sit at it
        external = engine.settings.database_url is not None
        st.caption(
            "Models are stored in this folder, answers in the database of PADDOCK_DATABASE_URL:"
            if external
            else "Models and answers are stored in this folder:"
        )
        st.code(str(engine.settings.home), language=None)


def _draw_answer(engine: Engine, someone: Person, run: RunRecord) -> None:
    start, result = run.start, run.result
    line = " ".join(start.instruction.split())
    short = line if len(line) <= _SHORT else f"{line[:_SHORT]} …"
    with st.expander(
        f"{start.started_at:%Y-%m-%d %H:%M} · {safe_inline(short)}",
        type="compact",
        key=f"run_{run.id}",
    ):
        draw_plain(start.instruction, bold=True)
        if start.context:
            draw_plain(start.context)
        if result and result.text:
            draw_answer(result.text, run.id)
        else:
            st.caption("No text.")
        tokens = f" · {counted(result.new_tokens, 'token')}" if result and result.new_tokens else ""
        stop = stop_text(result.stop_reason, result.new_tokens) if result else run.state.value
        variant = f"{start.weights or precision_label(start.precision)} · {start.device}"
        if start.runtime == RuntimeName.REMOTE:
            variant = f"on {start.device}"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(
                f"{safe_inline(recorded_title(start.model, start.title))} · "
                f"{safe_inline(variant)}{tokens} · {stop}",
                width="stretch",
            )
            action(
                "Delete",
                "delete",
                f"delete_{run.id}",
                lambda: engine.runs.delete(run.id, owner=someone.owner),
                of=f"the answer to {short}",
            )


def _delete_all(engine: Engine, someone: Person) -> None:
    """Callback."""
    which = _filter_of(someone)
    engine.runs.delete_all(**which)
    shared_votes().delete_all(**which)
    engine.conversations.store.delete_all(someone.holder)
    engine.evaluations.delete_all(someone.holder)
