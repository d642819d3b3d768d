"""Choosing, adding, editing and exporting test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import streamlit as st

from core.db import Holder
from core.errors import BadRequestError, PaddockError
from core.evaluation.cases import (
    MAX_CASES,
    Case,
    TestSet,
    checked,
    content_of,
    decode_upload,
    held_out_set,
    preset_set,
    read_test_set,
    to_csv,
    to_json,
)
from core.evaluation.checks import KINDS
from core.inference.engine import Engine
from core.ui.widgets.actions import action, confirmed_action, draw_download
from core.ui.widgets.link import link_choice
from core.ui.widgets.person import person
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.state import show_new_label
from core.units import counted

if TYPE_CHECKING:
    import pandas as pd

SET = "set"
"""Key of the choice, and name of its URL parameter."""
_EDITED, _UPLOADS = "set_edited", "set_uploads"
_FIELDS = ("instruction", "context", "expected", "checks", "tags", "id")
_EXAMPLES = [kind.example for kind in KINDS.values()]


@dataclass
class _Edited:
    """The set in the editor; a plain object in the session state.

    The table that the editor was given must not change while its edits are kept by the browser.
    """

    id: str
    table: pd.DataFrame
    saved: TestSet


def pick_set(engine: Engine, holder: Holder) -> tuple[str, TestSet] | None:
    """Draw the choice of a test set with the forms that add one.

    Returns:
        Id and content of the selected set, as stored; None if there is none yet.
    """
    known = engine.evaluations.sets(holder)
    if not known:
        _draw_first(engine)
        return None
    labels = {each.id: f"{each.name} · {counted(each.size, 'case')}" for each in known}
    linked = link_choice(SET, None, str)
    if st.session_state[SET] not in labels:
        st.session_state[SET] = known[0].id
    show_new_label(SET, labels[st.session_state[SET]])
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="set_row"):
        set_id = st.selectbox(
            "Test set",
            labels,
            format_func=lambda each: labels.get(each, ""),
            width=360,
            label_visibility="collapsed",
            **linked,
        )
        set_id = set_id or known[0].id
        content = engine.evaluations.get_set(set_id, holder)
        if content is None:  # deleted in another tab
            st.rerun()
        chosen = TestSet.model_validate(content)
        uploads = st.session_state.setdefault(_UPLOADS, 0)
        # A new key creates a new popover, which is closed.
        with st.popover("Add", icon=":material/add:", key=f"add_set_{uploads}"):
            _draw_offers(engine)
        with st.popover("Export", icon=":material/download:", type="tertiary", key="export_set"):
            draw_download("paddock-test-set.json", lambda: to_json(chosen), "set_json")
            draw_download("paddock-test-set.csv", lambda: to_csv(chosen), "set_csv")
        confirmed_action(
            "Delete",
            "delete",
            f"delete_set_{set_id}",
            "Delete this test set? The exported files of its runs are kept.",
            *(engine.evaluations.delete_set, set_id, holder),
            answer="Delete the set and its runs",
        )
    return set_id, chosen


def draw_editor(engine: Engine, set_id: str, chosen: TestSet, *, opened: bool) -> TestSet | None:
    """Draw the cases for editing and return them; None if they cannot be used.

    Every change is stored at once.
    """
    edited = _edited(set_id, chosen)
    label = f"{counted(len(edited.saved.cases), 'case')} and their checks"
    # Another key: it closes when the first run starts, whatever the user has done before.
    with st.expander(
        label, icon=":material/edit_note:", expanded=opened, key=f"cases_{set_id}_{opened}"
    ):
        table = st.data_editor(
            edited.table,
            key=f"editor_{set_id}",
            num_rows="dynamic",
            hide_index=True,
            placeholder="",
            height=min(320, 74 + 35 * len(edited.table)),
            column_order=_FIELDS[:5],
            column_config=_columns(edited.saved),
            alt="The cases of the test set: instruction, context, expected answer, checks, tags",
        )
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            name = st.text_input("Name", edited.saved.name, key=f"name_{set_id}", width=260)
            checks = st.multiselect(
                "Checks of cases without their own",
                list(dict.fromkeys([*edited.saved.default_checks, *_EXAMPLES])),
                default=list(edited.saved.default_checks),
                accept_new_options=True,
                key=f"default_{set_id}",
                width=520,
            )
            _draw_help()
    try:
        now = checked(TestSet(name=name, cases=_cases(table), default_checks=tuple(checks)))
        if now != edited.saved:
            summary = (now.name, content_of(now), len(now.cases))
            engine.evaluations.save_set(set_id, person().holder, *summary)
            edited.saved = now
            st.rerun()
    except PaddockError as error:
        st.warning(f"Not stored: {safe_inline(str(error))}", icon=":material/error:")
        return None
    for problem in now.problems()[:5]:
        st.warning(safe_inline(problem), icon=":material/rule:")
    return now


def _edited(set_id: str, chosen: TestSet) -> _Edited:
    import pandas as pd

    edited: _Edited | None = st.session_state.get(_EDITED)
    if edited is None or edited.id != set_id:
        rows = [
            case.model_dump() | {"checks": list(case.checks), "tags": list(case.tags)}
            for case in chosen.cases
        ]
        edited = _Edited(set_id, pd.DataFrame(rows, columns=list(_FIELDS)), chosen)
        st.session_state[_EDITED] = edited
    return edited


def _cases(table: pd.DataFrame) -> tuple[Case, ...]:
    def value(cell: Any) -> Any:
        """Return a cell's text or list; an empty one may be None or NaN."""
        if isinstance(cell, str):
            return cell
        return list(cell) if hasattr(cell, "__iter__") else None

    rows: list[dict[str, Any]] = table.to_dict("records")
    return tuple(Case(**{name: value(row.get(name)) for name in _FIELDS}) for row in rows)


def _columns(test_set: TestSet) -> dict[str, Any]:
    used = dict.fromkeys(check for case in test_set.cases for check in case.checks)
    text = st.column_config.TextColumn
    return {
        "instruction": text("Instruction", width="large", required=True),
        "context": text("Context", width="medium"),
        "expected": text("Expected answer", width="medium"),
        "checks": st.column_config.MultiselectColumn(
            "Checks",
            width="medium",
            options=list(dict.fromkeys([*used, *_EXAMPLES])),
            accept_new_options=True,
        ),
        "tags": st.column_config.MultiselectColumn(
            "Tags", width="small", options=list(test_set.tags), accept_new_options=True
        ),
    }


def _draw_help() -> None:
    with st.popover("All checks", icon=":material/help:", type="tertiary"):
        lines = [
            f"| `{k.example.replace('|', chr(92) + '|')}` | {k.help} |" for k in KINDS.values()
        ]
        st.markdown("\n".join(["| check | passes if |", "|---|---|", *lines]))
        st.caption("Type a check into its cell, or choose one and change it.")


# Adding


def _draw_first(engine: Engine) -> None:
    """Draw the offers on a page without a test set."""
    with st.container(border=True, key="first_set"):
        st.subheader("No test set yet", anchor=False)
        st.markdown(
            "A test set is a table of your own instructions with checks of the answers. Upload or "
            "paste yours, or begin with one that comes with Paddock."
        )
        _draw_offers(engine)


def _draw_offers(engine: Engine) -> None:
    """Draw what adds a test set: ready ones, a file, pasted text."""
    offers: tuple[tuple[str, str, Callable[[], TestSet]], ...] = (
        ("Examples", "auto_awesome", preset_set),
        ("Held-out tasks", "model_training", held_out_set),
        ("An empty set", "note_add", _empty_set),
    )
    with st.container(horizontal=True, gap="small"):
        for label, icon, make in offers:
            action(label, icon, f"offer_{icon}", _add, engine, make, kind="secondary")
    uploads = st.session_state.setdefault(_UPLOADS, 0)
    file = st.file_uploader(
        f"A CSV, JSON or JSON lines file with up to {MAX_CASES:,} cases",
        type=["csv", "tsv", "json", "jsonl", "ndjson", "txt"],
        key=f"set_file_{uploads}",
        help="Fields: instruction, context, expected, checks, tags. Those of databricks-dolly-15k "
        "are understood too.",
    )
    pasted = st.text_area(
        "Or paste the cases",
        key=f"set_text_{uploads}",
        height=100,
        placeholder="One instruction per line, a table copied from a spreadsheet, or JSON",
    )
    action(
        "Add the cases",
        "upload",
        "add_cases",
        *(_add, engine, lambda: _read(file, pasted)),
        kind="primary",
        disabled=file is None and not pasted.strip(),
    )


def _read(file: Any, pasted: str) -> TestSet:
    """Return the uploaded or pasted cases; the error of a file names it."""
    if file is None:
        return read_test_set(pasted)
    try:
        return checked(read_test_set(decode_upload(file.getvalue(), file.name), file.name))
    except PaddockError as error:
        raise BadRequestError(f"{PurePath(file.name).name}: {error}") from error


def _add(engine: Engine, make: Callable[[], TestSet]) -> None:
    """Callback: store a new set and select it."""
    new = checked(make())
    summary = (new.name, content_of(new), len(new.cases))
    st.session_state[SET] = engine.evaluations.save_set(None, person().holder, *summary)
    st.session_state[_UPLOADS] = st.session_state.get(_UPLOADS, 0) + 1


def _empty_set() -> TestSet:
    case = Case(
        instruction="What is the capital of France?", expected="Paris", checks=("contains: Paris",)
    )
    return TestSet(name="New test set", cases=(case,))
