"""The scripts that pages of ours run in the browser: the content policy allows these by their hash.

Whatever is not listed here, an answer's included, the browser does not run.
"""

SCROLL_TO_MATCH = """{ // a block: the script may run again on the same page
const place = document.querySelector(".st-key-current");
if (place) {
  place.style.scrollMarginTop = "4.5rem"; // the menu lies over the top
  place.scrollIntoView({behavior: "smooth", block: "start"});
}
}"""

ALL = (SCROLL_TO_MATCH,)
