"""The pages in a real browser: no script runs, nothing is refused, everything fits and can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import browser
from tests.pages.browser import Tab
from tests.pages.conftest import CAPTAIN, Web, settle

ALL = [
    "",
    "hosts",
    "hosts/hold01.atcr.io",
    "repos/did:web:bad.example.org",
    f"collections/{CAPTAIN}",
    "docs",
    "hosts/none",
]
ATTACK = (
    "</style></title><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    "<svg onload=\"document.title='pwned'\"><a href=\"javascript:document.title='pwned'\">"
)
LEAST_CONTRAST = """(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => { const [r, g, b] = parts(rgb).map(c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
                         return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { const c = getComputedStyle(e).backgroundColor;
                        return parts(c)[3] === 0 && e.parentElement ? behind(e.parentElement) : c; };
  let least = [99, ''];
  for (const e of document.body.querySelectorAll('*')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 200)];
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = browser.installed()
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with browser.running(program, tmp_path_factory.mktemp("browser") / "profile") as tab:
        yield tab


def test_in_a_browser_no_script_runs_and_everything_can_be_read(web: Web, tab: Tab) -> None:
    settle(web)
    captain = dict.fromkeys(("region", "provider", "owner", "deployedAt"), ATTACK) | {"public": True}
    web.add_host("bad.example.org", last_error=ATTACK, stream_error=ATTACK, owner=ATTACK)
    web.add_repo("did:web:bad.example.org", "bad.example.org", {f"{CAPTAIN}/self": captain}, position=1, reason=ATTACK)
    with web.serving() as url:
        for path in [*ALL, "hosts/bad.example.org", f"search?q={'%3Cscript%3E'}document.title='pwned'%3C/script%3E"]:
            for scheme, width in (("light", 1200), ("dark", 320)):
                tab.look(width=width, scheme=scheme)
                tab.open(f"{url}/{path}")
                assert tab.value("document.title").endswith("atcr-discovery"), path
                refused = [each for each in tab.complaints if "status of 40" not in each]  # of a page that is an error
                assert refused == [], path
                assert tab.value("document.scripts.length") == 0
                assert tab.value("document.documentElement.scrollWidth") <= width, (path, width)
                contrast, where = tab.value(LEAST_CONTRAST)
                assert contrast >= 4.5, (path, scheme, where)


def test_a_reader_without_a_mouse_gets_to_the_content_and_to_the_search(web: Web, tab: Tab, tmp_path: Path) -> None:
    settle(web)
    with web.serving() as url:
        tab.look(width=1200)
        tab.open(url)
        for name in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=name, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert tab.value("document.activeElement.textContent") == "Skip to content"
        assert tab.value("document.activeElement.getBoundingClientRect().left") >= 0
        tab.value("document.querySelector('[name=q]').focus()")
        tab.call("Input.insertText", text="HOLD01.atcr.io")
        tab.call("Input.dispatchKeyEvent", type="char", text="\r")
        tab.loaded()
        assert tab.value("location.pathname") == "/hosts/hold01.atcr.io"
        assert tab.complaints == []
