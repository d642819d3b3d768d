"""Stored data of a user: answers and votes, to view, download and delete."""

from __future__ import annotations

import json
from dataclasses import asdict

import streamlit as st

from core.db import RunRecord, RunStart
from core.errors import RecordsError
from core.inference.engine import Engine
from core.metrics.rows import precision_label
from core.runtimes.spec import RuntimeName
from core.store.resolver import recorded_title
from core.ui.instruct.stream_view import stop_text
from core.ui.widgets.person import Person, person
from core.ui.widgets.resources import shared_votes
from core.ui.widgets.safe_text import emphasised, safe_inline, safe_markdown
from core.units import bytes_text, counted

SHOWN = 20
"""Number of the newest answers in the list; the download has all of them."""
MOST = 100_000
_SHORT = 90
"""Most characters of an instruction in the list."""


def draw_data(engine: Engine, someone: Person) -> None:
    """Draw the counts, the latest answers, and the buttons to download and delete all."""
    which = _filter_of(someone)
    try:
        total, mine = engine.runs.count(), engine.runs.count(**which)
        my_votes = shared_votes().count(**which)
        latest = engine.runs.recent(SHOWN, **which)
    except RecordsError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        st.stop()
    st.subheader("Stored data", anchor=False)
    _draw_figures(engine, someone, total, mine, my_votes)
    if latest:
        _draw_answers(engine, latest, mine)
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            "Download your data",
            lambda: everything(engine, someone),
            file_name="paddock-my-data.json",
            mime="application/json",
            icon=":material/download:",
            key="my_data",
            on_click="ignore",
            disabled=not mine and not my_votes,
        )
        _draw_delete(engine, someone, mine, my_votes)


def everything(engine: Engine, someone: Person) -> str:
    """Return all answers and votes of a user as JSON, the newest first."""
    which = _filter_of(someone)
    return json.dumps(
        {
            "answers": [run.flat() for run in engine.runs.recent(MOST, **which)],
            "votes": [asdict(vote.vote) for vote in shared_votes().recent(MOST, **which)],
        },
        indent=2,
        ensure_ascii=False,
        default=str,
    )


def _filter_of(someone: Person) -> dict[str, str]:
    """Return the filter for a user's rows; a guest only gets those of the current session.

    All guests share one owner id.
    """
    mine = {"owner": someone.owner}
    return mine if someone.account else mine | {"session": someone.session}


def _draw_figures(engine: Engine, someone: Person, total: int, mine: int, my_votes: int) -> None:
    figures = [
        ("Your answers" if someone.account else "Answers of this session", f"{mine:,}"),
        ("Your votes" if someone.account else "Votes of this session", f"{my_votes:,}"),
    ]
    if someone.access.manage:
        disk = sum(stored.manifest.folder_bytes for stored in engine.store.list())
        figures += [
            ("Answers of all users", f"{total:,}"),
            ("Converted models on disk", bytes_text(disk)),
        ]
    for column, (label, value) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(label, value, border=True)
    if someone.local:  # paths of this machine are only shown to users who sit at it
        external = engine.settings.database_url is not None
        st.caption(
            "Models are stored in this folder, answers in the database of PADDOCK_DATABASE_URL:"
            if external
            else "Models and answers are stored in this folder:"
        )
        st.code(str(engine.settings.home), language=None)


def _draw_answers(engine: Engine, latest: list[RunRecord], count: int) -> None:
    rest = f" The latest {len(latest)} of {count:,} are listed." if count > len(latest) else ""
    st.caption(f"Other users cannot see your instructions and answers.{rest}")
    with st.container(border=True, key="my_answers"):
        for run in latest:
            _draw_answer(engine, run)


def _draw_answer(engine: Engine, run: RunRecord) -> None:
    start, result = run.start, run.result
    line = " ".join(start.instruction.split())
    short = line if len(line) <= _SHORT else f"{line[:_SHORT]} …"
    with st.expander(
        f"{start.started_at:%Y-%m-%d %H:%M} · {safe_inline(short)}",
        type="compact",
        key=f"run_{run.id}",
    ):
        st.markdown(emphasised(start.instruction))
        if start.context:
            st.markdown(safe_markdown(start.context))
        st.markdown(safe_markdown(result.text) if result and result.text else "*No text.*")
        tokens = f" · {counted(result.new_tokens, 'token')}" if result and result.new_tokens else ""
        stop = stop_text(result.stop_reason, result.new_tokens) if result else run.state.value
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(
                f"{safe_inline(recorded_title(start.model, start.title))} · "
                f"{safe_inline(_variant(start))}{tokens} · {stop}",
                width="stretch",
            )
            st.button(
                "Delete",
                icon=":material/delete:",
                type="tertiary",
                key=f"delete_{run.id}",
                on_click=_delete_one,
                args=(engine, run.id),
            )


def _draw_delete(engine: Engine, someone: Person, mine: int, my_votes: int) -> None:
    what = "your answers" if someone.account else "the answers of this session"
    with st.popover(f"Delete {what}", icon=":material/delete:", disabled=not mine and not my_votes):
        st.markdown(
            f"Delete {counted(mine, 'answer')} and {counted(my_votes, 'vote')}? "
            "This cannot be undone."
        )
        if st.button("Delete all", type="primary"):
            which = _filter_of(person())
            try:
                engine.runs.delete_all(**which)
                shared_votes().delete_all(**which)
            except RecordsError as error:
                st.error(safe_inline(str(error)), icon=":material/error:")
            else:
                st.rerun()


def _delete_one(engine: Engine, run_id: str) -> None:
    """Callback: delete one answer."""
    try:
        engine.runs.delete(run_id, owner=person().owner)
    except RecordsError as error:
        st.toast(safe_inline(str(error)), icon=":material/error:")


def _variant(start: RunStart) -> str:
    """Return precision and device of a run, or its remote server."""
    if start.runtime == RuntimeName.REMOTE:
        return f"on {start.device}"
    return f"{start.weights or precision_label(start.precision)} · {start.device}"
