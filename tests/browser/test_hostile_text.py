"""Text from a model, or from a link, is shown and never acted upon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.screen import Screen, Stagehand, eventually

HOSTILE = (
    """First ![a](http://evil.example/i.png) and ![b][r] and [![c](http://evil.example/c.png)](x).

<img src="http://evil.example/h.png" onerror="alert(1)"><script>alert(2)</script>
<svg onload="alert(3)"></svg> <iframe src="http://evil.example/f"></iframe>

[click](javascript:alert(4)) <http://evil.example/auto> http://evil.example/bare www.evil.example
me@evil.example [ref][r] and `code ![d](http://evil.example/d.png)` and
\\![e](http://evil.example/e)

It costs $x^2$ or $$y$$, \\(z\\), :red[colour] :material/home: :blue-badge[badge] :streamlit: :wave:

www&#46;evil.example/e1 http&#58;//evil.example/e2 me&#64;evil.example &#58;material/home&#58;

> ![q](http://evil.example/q.png)
> [r]: http://evil.example/r.png

| a | b |
|---|--:|
| $1$ | ![t](http://evil.example/t.png) |

[r]: http://evil.example/r.png

"""
    + "long" * 400
)

ENDINGS = {
    "unclosed fence": "\n\n```python\nprint('$x$ <b> ![f](http://evil.example/f.png)')",
    "unclosed backtick": "\n\nan `open tick ![g](http://evil.example/g.png) $x$",
    "unclosed link": "\n\n![h](http://evil.example/h",
}
VISIBLE = (
    "![a](http://evil.example/i.png)",
    '<img src="http://evil.example/h.png" onerror="alert(1)">',
    "<script>alert(2)</script>",
    "[click](javascript:alert(4))",
    "$x^2$ or $$y$$",
    ":red[colour] :material/home: :blue-badge[badge]",
)

ACTIVE = "img, a[href], script, iframe, svg, object, embed, form, input, .katex, math"
WATCH = f"""
window.seenActive = [];
new MutationObserver(changes => {{
  for (const change of changes) for (const node of change.addedNodes) {{
    if (!node.querySelectorAll || !node.closest('[data-testid="stMarkdownContainer"]')
        && !node.querySelector('[data-testid="stMarkdownContainer"]')) continue;
    const within = [node, ...node.querySelectorAll('*')];
    for (const found of within)
      if (found.matches('{ACTIVE}') && found.closest('[data-testid="stMarkdownContainer"]'))
        window.seenActive.push(found.outerHTML.slice(0, 200));
  }}
}}).observe(document, {{childList: true, subtree: true}});
"""


@pytest.fixture
def watched(scripted: Stagehand, open_screen: Callable[..., Screen]) -> Screen:
    """A page that notes each active element that ever appears in a text, even for a moment."""
    screen = open_screen("about:blank", fresh=True)
    screen.page.add_init_script(WATCH)
    screen.page.goto(f"{scripted.url}/instruct")
    return screen.ready()


def assert_harmless(screen: Screen) -> None:
    """Nothing active is in a text now, and nothing was before."""
    assert screen.page.evaluate("window.seenActive") == []
    assert screen.page.locator(f'[data-testid="stMarkdownContainer"] :is({ACTIVE})').count() == 0
    assert screen.outside == []
    assert screen.errors == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_hostile_output_is_harmless_while_it_streams_and_after(
    watched: Screen, scripted: Stagehand, ending: str
) -> None:
    scripted.script(HOSTILE + ENDINGS[ending], tokens_per_s=300)
    watched.page.get_by_role("slider", name="Max new tokens").press("End")
    eventually(lambda: "tokens=1000" in watched.url, "the setting is taken")
    watched.ask("Be hostile.")
    eventually(lambda: "evil" in watched.live_text(), "it streams")
    assert_harmless(watched)
    watched.await_answer()
    assert_harmless(watched)
    shown = watched.answer_text()
    for text in VISIBLE:
        assert text in shown
    # The rest of the page stands below it.
    watched.page.get_by_role("button", name="Regenerate").wait_for()
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert watched.page.evaluate(wide), "a long word makes the page scroll sideways"


def test_a_hostile_instruction_and_context_are_harmless(
    watched: Screen, scripted: Stagehand
) -> None:
    watched.page.get_by_text("Context passage (optional)").click()
    watched.context_box.fill(HOSTILE)
    watched.ask(HOSTILE)
    watched.await_answer()
    watched.entries.first.get_by_text("Context passage").click()
    assert_harmless(watched)
    shown = watched.text_of(watched.entries.first)
    for text in VISIBLE:
        assert text in shown
    assert HOSTILE.strip() in scripted.state()["prompts"][0]


def test_ordinary_markdown_stays(screen: Screen, scripted: Stagehand) -> None:
    scripted.script("# Title\n\n- **bold**\n\n|a|b|\n|-|-|\n|1|2|\n\n```python\nx = 1\n```\n")
    screen.ask("Format.")
    screen.await_answer()
    answer = screen.entries.first
    assert answer.locator("h1").inner_text() == "Title"
    assert answer.locator("li strong").inner_text() == "bold"
    assert answer.locator("td").all_inner_texts() == ["1", "2"]
    assert answer.locator("pre code").inner_text().strip() == "x = 1"
