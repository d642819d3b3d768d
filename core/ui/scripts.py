"""The scripts that pages of ours run in the browser: the content policy allows these by their hash.

Whatever is not listed here, an answer's included, the browser does not run.
"""

from pathlib import Path

from streamlit import file_util

SCROLL_TO_MATCH = """{ // a block: the script may run again on the same page
const place = document.querySelector(".st-key-current");
if (place) {
  place.style.scrollMarginTop = "4.5rem"; // the menu lies over the top
  place.scrollIntoView({behavior: "smooth", block: "start"});
}
}"""

_CHUNKS = Path(file_util.get_static_dir(), "static", "js")


def _importing(*chunks: str) -> str:
    """A script that makes the browser evaluate parts of Streamlit's program.

    Args:
        chunks: names up to the hash in them; those that this Streamlit does not have are left out.
    """
    files = [path.name for chunk in chunks for path in sorted(_CHUNKS.glob(f"{chunk}.*.js"))]
    return "".join(f'import("./static/js/{name}").catch(() => {{}});' for name in files)


LOAD_CHARTS = _importing("PlotlyChart")
"""Lets the browser load plotly, which takes it half a second, while the server is still reading."""

ALL = (SCROLL_TO_MATCH, LOAD_CHARTS)
