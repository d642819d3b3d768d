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
_LATER_MS = 1500
"""After which a page that draws no charts lets them be loaded: its own things come first."""


def _load_ahead(*chunks: str) -> str:
    """A script that lets the browser load parts of Streamlit's program when it has time.

    Plotly takes it half a second, with which it would otherwise begin when the first chart comes.

    Args:
        chunks: names up to the hash in them; those that this Streamlit does not have are left out.
    """
    files = [path.name for chunk in chunks for path in sorted(_CHUNKS.glob(f"{chunk}.*.js"))]
    if not files:
        return ""
    imports = "".join(f'import("./static/js/{name}").catch(() => {{}});' for name in files)
    return (
        "{const idle = self.requestIdleCallback ?? setTimeout;"
        f"const load = () => {{{imports}}};"
        r"if (/\/metrics\/?$/.test(location.pathname)) idle(load);"
        f"else setTimeout(() => idle(load), {_LATER_MS});}}"
    )


LOAD_CHARTS = _load_ahead("PlotlyChart")
"""In the head of every page, see :class:`core.web.ahead.ScriptInPage`."""

ALL = (SCROLL_TO_MATCH, LOAD_CHARTS)
