"""JavaScript of the pages; the Content-Security-Policy allows exactly these scripts by their hash.

The browser runs no other inline script, in particular none in an answer.
"""

from pathlib import Path

from streamlit import file_util

SCROLL_TO_MATCH = """{ // a block: the script may run again on the same page
const place = document.querySelector(".st-key-current");
if (place && place.getBoundingClientRect().top > innerHeight / 2) {
  place.style.scrollMarginTop = "4.5rem"; // the menu lies over the top
  place.scrollIntoView({block: "start"});
}
}"""
"""Shows the answers of a comparison where its controls fill more than half of the window."""

SCROLL_TO_NEWEST = """{
const newest = document.querySelector(".st-key-turns > :last-child");
if (newest) {
  newest.style.scrollMarginTop = "4.5rem"; // the menu lies over the top
  newest.scrollIntoView({block: "start"});
}
}"""
"""Puts the newest question at the top of the window, with its answer below it."""

_CHUNKS = Path(file_util.get_static_dir(), "static", "js")
IDLE_MS = 120_000
"""Time without user input after which a kiosk returns to the first page."""
_QUIET_MS = 3000
"""Time without a change on the page, a key or a move of the pointer after which the chart code is
loaded: that blocks the page, and takes a core from the model, for up to a second."""


def _imports(chunk: str) -> str:
    """Return a script that loads a part of Streamlit's frontend, by its name without the hash.

    A name that this Streamlit version does not have is ignored.
    """
    files = sorted(path.name for path in _CHUNKS.glob(f"{chunk}.*.js"))
    return "".join(f'import("./static/js/{name}").catch(() => {{}});' for name in files)


ONE_ENTRY_PER_PAGE = """{
const push = history.pushState;
history.pushState = function (state, title, url) {
  const same = url && new URL(url, location.href).pathname === location.pathname;
  return (same ? history.replaceState : push).call(history, state, title, url);
};
}"""
"""In the head of every page: a changed setting, which changes the link, adds no entry to the
history, so that the browser's Back leaves the page at the first press."""

FOCUS_SELECTED = """addEventListener("focusin", ({target, relatedTarget}) => {
const group = target.closest?.('[role="radiogroup"]');
if (!group || group.contains(relatedTarget) || !target.matches(":focus-visible")) return;
group.querySelector('[aria-checked="true"]')?.focus();
});"""
"""In the head of every page: the Tab key reaches a segmented control at its selected segment."""

PRELOAD = f"""{{
const idle = self.requestIdleCallback ?? setTimeout;
const charts = () => {{{_imports("PlotlyChart")}}};
idle(() => {{{_imports("rehype-raw")}}});
if (/\\/metrics\\/?$/.test(location.pathname)) idle(charts);
else {{
  let timer;
  const loaded = new AbortController();
  const wait = () => {{
    clearTimeout(timer);
    timer = setTimeout(() => {{loaded.abort(); changes.disconnect(); idle(charts);}}, {_QUIET_MS});
  }};
  for (const kind of ["keydown", "pointermove"])
    addEventListener(kind, wait, {{capture: true, passive: true, signal: loaded.signal}});
  const changes = new MutationObserver(wait);
  changes.observe(document, {{childList: true, subtree: true, characterData: true}});
  wait();
}}
}}"""
"""In the head of every page: loads what draws an answer, and later the code of the charts, when the
browser is idle. Plotly takes a second, which would otherwise delay the first chart."""

KIOSK_RESET = f"""{{
const afresh = () => location.replace(new URL("./", location.href));
let timer;
const touched = () => {{clearTimeout(timer); timer = setTimeout(afresh, {IDLE_MS});}};
for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"])
addEventListener(kind, touched, {{capture: true, passive: true}});
}}"""
"""In the head of every page of a kiosk: resets the app for the next visitor."""

HEAD = ONE_ENTRY_PER_PAGE + FOCUS_SELECTED + PRELOAD
"""In the head of every page, see :func:`core.app.page_routes`."""
ALL = (SCROLL_TO_MATCH, SCROLL_TO_NEWEST, HEAD, HEAD + KIOSK_RESET)
