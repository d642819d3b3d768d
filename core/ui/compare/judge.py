"""Lets a person judge a match, and shows what all votes so far say of the models."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.compare.ratings import MEAN_RATING, Ratings, rate
from core.compare.setup import LETTERS
from core.db import Subject
from core.db.vote_values import COMMENT_LIMIT
from core.db.votes import Trait
from core.errors import RecordsError
from core.store.resolver import recorded_name, recorded_title
from core.ui.compare.state import Comparison, Shown
from core.ui.compare.votes import Judgement, NoBest
from core.ui.widgets.resources import shared_votes
from core.ui.widgets.safe_text import safe_inline, safe_markdown

COUNTED_BY: dict[str, tuple[Trait, ...]] = {
    "Model": ("model",),
    "Model and precision": ("model", "precision"),
    "Everything": ("model", "precision", "device", "runtime"),
}
"""What tells models apart in the table."""
_USUALLY = "Model and precision"


def draw_judge(shown: Shown, state: Comparison) -> None:
    """The question which answer is better; once it is answered, the judgement."""
    if not shown.can_be_judged:
        if shown.hidden:
            _draw_reveal(shown, state, "A side that failed or was not asked cannot be judged.")
        return
    with st.container(border=True, key="judge"):
        if shown.judgement is not None:
            _draw_judgement(shown, shown.judgement, state)
            return
        count = len(shown.match.setup.sides)
        st.markdown(f"**Which answer is {'better' if count == 2 else 'best'}?**")
        comment_key = f"comment_{shown.match.id}"
        with st.container(horizontal=True, gap="small"):
            for label, icon, best in _choices(count):
                st.button(
                    label,
                    icon=f":material/{icon}:",
                    key=f"vote_{best}",
                    on_click=_vote,
                    args=(state, shown, best, comment_key),
                )
        st.text_input(
            "Comment",
            key=comment_key,
            max_chars=COMMENT_LIMIT,
            placeholder="Why? (optional; write it before you vote)",
            label_visibility="collapsed",
        )
        if shown.hidden:
            _draw_reveal(shown, state, "Your vote reveals the names.")


def draw_ratings() -> None:
    """The table of models by all votes on this machine, and how sure it is."""
    st.subheader("Ratings from votes", anchor=False)
    try:
        if not shared_votes().count():
            st.caption("Nobody has voted yet. Run a comparison and say which answer is better.")
            return
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            counted_by, blind_only = _pick_votes()
        pairs = shared_votes().pairs(
            COUNTED_BY[counted_by], name=recorded_name, blind=True if blind_only else None
        )
    except RecordsError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    ratings = rate(pairs)
    if not ratings.standings:
        st.caption(
            "The votes that count here are all on one model against itself; they rate nothing."
            if pairs
            else "None of the votes was blind."
        )
        return
    st.dataframe(
        ratings_rows(ratings),
        hide_index=True,
        key="ratings",
        column_config={
            "Rating": st.column_config.NumberColumn(format="%.0f"),
            "Ahead for sure": st.column_config.TextColumn(
                help="Whether it is better than the next one in the table beyond doubt (95 %) or, "
                "if not, how many more votes on these two it takes as things look now."
            ),
        },
    )
    st.caption(
        f"Bradley–Terry ratings around {MEAN_RATING:.0f} with 95 % intervals; 400 points are odds "
        "of ten to one. Ties, and both bad, count as half a win for each."
        + (
            " Models of different groups were never voted on together, directly or over others: "
            "their ratings cannot be compared."
            if len(ratings.groups) > 1
            else ""
        )
    )


def ratings_rows(ratings: Ratings[Subject]) -> list[dict[str, Any]]:
    """The rows of the table, the best first, group by group."""
    rows = []
    several = len(ratings.groups) > 1
    for place, standing in enumerate(ratings.standings):
        row: dict[str, Any] = {"Group": standing.group + 1} if several else {}
        subject = standing.subject
        row["Model"] = recorded_title(subject.model, subject.title)
        for trait in ("precision", "device", "runtime"):
            if (value := getattr(subject, trait)) is not None:
                row[trait.capitalize()] = value.upper() if trait == "precision" else value
        following = ratings.standings[place + 1 : place + 2]
        same_group = bool(following) and following[0].group == standing.group
        rows.append(
            row
            | {
                "Rating": standing.rating,
                "95 % interval": f"{standing.low:.0f} – {standing.high:.0f}",
                "Wins": standing.wins,
                "Losses": standing.losses,
                "Ties": standing.ties,
                "Both bad": standing.both_bad,
                "Votes": standing.votes,
                "Ahead for sure": _certainty(ratings, subject, following[0].subject)
                if same_group
                else "—",
            }
        )
    return rows


def _certainty(ratings: Ratings[Subject], subject: Subject, following: Subject) -> str:
    missing = ratings.votes_needed(subject, following)
    if missing is None:
        return "equal so far"
    return f"{missing:,} more {'vote' if missing == 1 else 'votes'}" if missing else "yes"


def _pick_votes() -> tuple[str, bool]:
    """By what models are told apart, and whether blind votes alone count."""
    counted_by = st.segmented_control(
        "Tell apart by",
        list(COUNTED_BY),
        default=_USUALLY,
        required=True,
        key="ratings_by",
        persist_state="session",
    )
    blind_only = st.toggle(
        "Blind votes only",
        key="ratings_blind",
        persist_state="session",
        help="Leaves out the votes of people who saw the names.",
    )
    return counted_by or _USUALLY, blind_only


def _choices(count: int) -> list[tuple[str, str, int | NoBest]]:
    better = "is better" if count == 2 else "is best"
    return [
        *((f"{LETTERS[side]} {better}", "thumb_up", side) for side in range(count)),
        ("Tie", "balance", NoBest.TIE),
        ("Both bad" if count == 2 else "All bad", "thumb_down", NoBest.BOTH_BAD),
    ]


def _vote(state: Comparison, shown: Shown, best: int | NoBest, comment_key: str) -> None:
    state.judge(shown, Judgement(best, st.session_state.get(comment_key) or ""))


def _draw_judgement(shown: Shown, judgement: Judgement, state: Comparison) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        sentence = judgement.sentence(len(shown.match.setup.sides))
        blind = " You voted blind." if judgement.blind else ""
        st.markdown(f":material/how_to_vote: **{sentence}**{blind}", width="stretch")
        st.button(
            "Take the vote back",
            icon=":material/undo:",
            type="tertiary",
            key="take_back",
            on_click=state.take_back,
            args=(shown,),
        )
    if judgement.comment:
        st.caption(safe_markdown(judgement.comment))
    if shown.hidden:
        _draw_reveal(shown, state, "The names show once you have voted on the whole list.")


def _draw_reveal(shown: Shown, state: Comparison, sentence: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f":material/visibility_off: {sentence}", width="stretch")
        st.button(
            "Reveal without voting",
            type="tertiary",
            key="reveal",
            on_click=state.reveal,
            args=(shown,),
        )
