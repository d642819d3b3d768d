"""Voting on a comparison, and the ratings of the models from all votes."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.compare.ratings import MEAN_RATING, Ratings, rate
from core.compare.setup import LETTERS
from core.db import Subject, Verdict
from core.db.vote_values import COMMENT_LIMIT
from core.db.votes import Trait
from core.errors import RecordsError
from core.metrics.rows import precision_label
from core.store.resolver import recorded_name, recorded_title
from core.ui.compare.state import CompareState, MatchView
from core.ui.compare.votes import Judgement
from core.ui.widgets.actions import action
from core.ui.widgets.model_choices import models_here
from core.ui.widgets.resources import shared_engine, shared_votes
from core.ui.widgets.safe_text import safe_inline

GROUP_BY: dict[str, tuple[Trait, ...]] = {
    "Model": ("model",),
    "Model and precision": ("model", "precision", "weights"),
    "Full configuration": ("model", "precision", "weights", "device", "runtime"),
}
"""Columns by which votes are grouped in the ratings table."""
_DEFAULT_GROUP_BY = "Model and precision"


def draw_judge(view: MatchView, state: CompareState) -> None:
    """Draw the vote buttons, or the vote once it has been cast."""
    if not view.can_be_judged:
        if view.hidden:
            _draw_reveal(view, state, "You cannot vote, because a side failed or did not start.")
        elif view.continued:
            st.caption("You cannot vote, because an answer goes on from a token that you chose.")
        return
    with st.container(border=True, key="judge"):
        if view.judgement is not None:
            _draw_judgement(view, view.judgement, state)
            return
        count = len(view.match.setup.sides)
        comment_key = f"comment_{view.match.id}"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**Which is {'better' if count == 2 else 'best'}?**", width="content")
            for label, icon, best in _choices(count):
                arguments = (_vote, state, view, best, comment_key)
                action(label, icon, f"vote_{best}", *arguments, kind="secondary")
            st.text_input(
                "Comment",
                key=comment_key,
                max_chars=COMMENT_LIMIT,
                placeholder="Why? (optional, before you vote)",
                label_visibility="collapsed",
                width=220,
            )
        if view.hidden:
            _draw_reveal(view, state, "The names are revealed after you vote.")


def draw_ratings() -> None:
    """Draw the ratings table of the models from all votes on this server."""
    st.subheader("Ratings from votes", anchor=False)
    try:
        if not shared_votes().count():
            st.caption("There are no votes yet. Run a comparison and vote for an answer.")
            return
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            group_by, blind_only, here_only = _pick_votes()
        pairs = shared_votes().pairs(
            GROUP_BY[group_by], name=recorded_name, blind=True if blind_only else None
        )
    except RecordsError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    if here_only:
        here = models_here(shared_engine())
        pairs = [pair for pair in pairs if {pair.left.model, pair.right.model} <= here]
    ratings = rate(pairs)
    if not ratings.standings:
        st.caption(
            "All of these votes compare a model with itself, so there are no ratings."
            if pairs
            else "There are no such votes."
        )
        return
    st.dataframe(
        ratings_rows(ratings),
        hide_index=True,
        key="ratings",
        column_config={
            "Rating": st.column_config.NumberColumn(format="%.0f"),
            "Significant": st.column_config.TextColumn(
                help="Whether the model is significantly better (95 %) than the next one in the "
                "table. If not, the estimated number of further votes on these two models that "
                "would show a significant difference."
            ),
        },
    )
    st.caption(
        f"Bradley–Terry ratings with a mean of {MEAN_RATING:.0f} and 95 % confidence intervals; a "
        "difference of 400 means odds of ten to one. Ties and “both bad” count as half a win for "
        "each side."
        + (
            " Models in different groups are not connected by any votes, so their ratings cannot "
            "be compared."
            if len(ratings.groups) > 1
            else ""
        )
    )


def ratings_rows(ratings: Ratings) -> list[dict[str, Any]]:
    """Return the rows of the ratings table, group by group, the best first."""
    rows = []
    several = len(ratings.groups) > 1
    for place, standing in enumerate(ratings.standings):
        row: dict[str, Any] = {"Group": standing.group + 1} if several else {}
        subject = standing.subject
        row["Model"] = recorded_title(subject.model, subject.title)
        if subject.precision is not None:
            row["Precision"] = subject.weights or precision_label(subject.precision)
        for trait in ("device", "runtime"):
            if (value := getattr(subject, trait)) is not None:
                row[trait.capitalize()] = value
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
                "Significant": _significance(ratings, subject, following[0].subject)
                if same_group
                else "—",
            }
        )
    return rows


def _significance(ratings: Ratings, subject: Subject, following: Subject) -> str:
    found = ratings.difference(subject, following)
    missing = None if found is None else found.votes_needed
    if missing is None:
        return "equal so far"
    return f"{missing:,} more {'vote' if missing == 1 else 'votes'}" if missing else "yes"


def _pick_votes() -> tuple[str, bool, bool]:
    """Draw the grouping and the filters and return what is selected."""
    group_by = st.segmented_control(
        "Group by",
        list(GROUP_BY),
        default=_DEFAULT_GROUP_BY,
        required=True,
        key="ratings_by",
        persist_state="session",
    )
    blind_only = st.toggle(
        "Blind votes only",
        key="ratings_blind",
        persist_state="session",
        help="Exclude votes of users who saw the names.",
    )
    here_only = st.toggle(
        "Only models on this machine",
        key="ratings_here",
        persist_state="session",
        help="Leave out votes on deleted models, and on models of servers.",
    )
    return group_by or _DEFAULT_GROUP_BY, blind_only, here_only


def _choices(count: int) -> list[tuple[str, str, int | Verdict]]:
    better = "is better" if count == 2 else "is best"
    return [
        *((f"{LETTERS[side]} {better}", "thumb_up", side) for side in range(count)),
        ("Tie", "balance", Verdict.TIE),
        ("Both bad" if count == 2 else "All bad", "thumb_down", Verdict.BOTH_BAD),
    ]


def _vote(state: CompareState, view: MatchView, best: int | Verdict, comment_key: str) -> None:
    state.judge(view, Judgement(best, st.session_state.get(comment_key) or ""))


def _draw_judgement(view: MatchView, judgement: Judgement, state: CompareState) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        sentence = judgement.sentence(len(view.match.setup.sides))
        blind = " You voted blind." if judgement.blind else ""
        st.markdown(f":material/how_to_vote: **{sentence}**{blind}", width="stretch")
        action("Undo vote", "undo", "take_back", state.withdraw_vote, view)
    if judgement.comment:
        st.caption(safe_inline(judgement.comment))
    if view.hidden:
        _draw_reveal(view, state, "The names are revealed after you have voted on the whole list.")


def _draw_reveal(view: MatchView, state: CompareState, sentence: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f":material/visibility_off: {sentence}", width="stretch")
        action("Reveal without voting", "visibility", "reveal", state.reveal, view.entry)
