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
IDLE_MS = 120_000
"""After the last touch, until a kiosk's page starts afresh."""
_QUIET_MS = 3000
"""After which a page on which nothing has changed lets the charts' program be loaded: while an
answer streams, that would take half a second of one core from its model."""


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
        "else {"
        "let timer;"
        "const wait = () => {clearTimeout(timer);"
        f"timer = setTimeout(() => {{changes.disconnect(); idle(load);}}, {_QUIET_MS});}};"
        "const changes = new MutationObserver(wait);"
        "changes.observe(document, {childList: true, subtree: true, characterData: true});"
        "wait();}}"
    )


LOAD_CHARTS = _load_ahead("PlotlyChart")
"""In the head of every page, see :class:`core.server.preload.PreloadMiddleware`."""

START_AFRESH = f"""{{
const afresh = () => location.replace(new URL("./", location.href));
let timer;
const touched = () => {{clearTimeout(timer); timer = setTimeout(afresh, {IDLE_MS});}};
for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"])
addEventListener(kind, touched, {{capture: true, passive: true}});
}}"""
"""In a kiosk, in the head of every page: the next visitor finds the first page as it began."""

ALL = (SCROLL_TO_MATCH, LOAD_CHARTS, LOAD_CHARTS + START_AFRESH)
