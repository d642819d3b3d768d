"""Who uses this Paddock, and what it keeps about them."""

import streamlit as st

from core.errors import RecordsError
from core.ui.cached import shared_engine, shared_votes
from core.ui.history import session_id
from core.units import bytes_text

engine, session = shared_engine(), session_id() or "none"  # a page always has one

st.title("You and your data", anchor=False)
st.markdown(
    "This Paddock listens on this machine only, so whoever sits at it may use everything, without "
    "an account. What you ask and what the models answer stays here."
)

try:
    total = engine.runs.count()
    mine = engine.runs.recent(100_000, session=session)
    my_votes = shared_votes().count(session=session)
except RecordsError as error:
    st.error(str(error), icon=":material/error:")
    st.stop()

disk = sum(stored.manifest.folder_bytes for stored in engine.store.list())
for column, (label, value) in zip(
    st.columns(3),
    [
        ("Answers on record", f"{total:,}"),
        ("Of this browser session", f"{len(mine):,}"),
        ("Converted models on disk", bytes_text(disk)),
    ],
    strict=True,
):
    column.metric(label, value, border=True)

elsewhere = engine.settings.database_url is not None
st.caption(
    "The models are kept in this folder, the answers in the database of PADDOCK_DATABASE_URL:"
    if elsewhere
    else "They are kept in this folder:"
)
st.code(str(engine.settings.home), language=None)

with st.popover(
    "Delete the answers of this session",
    icon=":material/delete:",
    disabled=not mine and not my_votes,
):
    st.markdown(
        f"{len(mine)} answers and {my_votes} votes on them leave the records. "
        "This cannot be undone."
    )
    if st.button("Delete them", type="primary"):
        try:
            for run in mine:
                engine.runs.delete(run.id)
            shared_votes().delete_session(session)
        except RecordsError as error:
            st.error(str(error), icon=":material/error:")
        else:
            st.rerun()
