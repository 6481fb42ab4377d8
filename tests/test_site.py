"""The site, built as it is published and opened in a browser: nothing fails, nothing is fetched, nothing is cut off."""

from __future__ import annotations

import contextlib
import functools
import html
import itertools
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).parents[1]
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

mkdocs = pytest.importorskip("mkdocs.__main__")
pytest.importorskip("mkdocstrings")
missing = [str(path) for path in (CHROMIUM, DRIVER) if not path.exists()]
in_chromium = pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} missing: apt-get install chromium-driver")

PHONE, SCREEN = 360, 1300

CUT_OFF = """
const page = document.documentElement, width = page.clientWidth;
document.getAnimations().forEach(item => item.finish());
const scrolls = item => ['auto', 'scroll'].includes(getComputedStyle(item).overflowX);
const shown = item => item.checkVisibility() && item.getBoundingClientRect().width > 0;
const beyond = [...document.querySelectorAll('article *')].filter(shown).filter(item => {
    if (item.getBoundingClientRect().right <= width + 1) return false;
    for (let box = item; box; box = box.parentElement) if (scrolls(box)) return false;
    return true;
}).map(item => item.outerHTML.slice(0, 200));
return [window.innerWidth, Math.max(0, page.scrollWidth - width), beyond];
"""
"""At rest: the width of the window, how far the page scrolls sideways, and what of the text reaches beyond the window
without a box of its own that scrolls."""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once for all test processes, by the command but without starting Python once more."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "site"
    with FileLock(shared / "site.lock"), pytest.MonkeyPatch.context() as patch:
        if not folder.exists():
            patch.chdir(ROOT)
            patch.setenv("NO_MKDOCS_2_WARNING", "1")
            try:
                mkdocs.cli(["build", "--strict", "--site-dir", str(folder)], standalone_mode=False)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return folder


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Where a folder is served."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with served(site) as address:
        yield address


@pytest.fixture
def without_index(site: Path, tmp_path: Path) -> Iterator[str]:
    """Where the site is served with nothing to search: on every page the browser reads all that there is."""
    copy = shutil.copytree(site, tmp_path / "site")
    index = copy / "search/search_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"docs": []}))
    with served(copy) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        quiet = ["disable-background-networking", "disable-component-update", "disable-sync", "no-first-run"]
        one_process = "disable-features=BackForwardCache,ProactivelySwapBrowsingInstance"  # not another for each page
        shown = ["headless=new", "kiosk", "no-sandbox", "disable-gpu", one_process, f"user-data-dir={profile}"]
        for argument in [*shown, *quiet]:
            options.add_argument(f"--{argument}")
        chrome = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            yield chrome
        finally:
            chrome.quit()


def pages(site: Path) -> list[str]:
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))


def network(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the browser's network did since it was last asked."""
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [entry for entry in entries if entry["method"].startswith("Network.")]


def set_width(browser: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_every_page_of_the_navigation_is_built(site: Path) -> None:
    built = pages(site)
    assert len(built) > 60
    assert {"index.html", "theory/14-12.html", "api/solve.html", "extending/rule.html", "gallery.html"} <= set(built)


def test_no_formula_is_left_as_latex(site: Path) -> None:
    count = 0
    for page in pages(site):
        text = (site / page).read_text()
        assert "arithmatex" not in text and "\\tag{" not in text, page
        count += text.count("<math")
    assert count > 2000


def test_sections_are_linked_in_pages_and_in_docstrings(site: Path) -> None:
    assert 'href="10.html#section-10"' in (site / "theory/9.html").read_text()
    assert 'href="../theory/4.html#section-4"' in (site / "api/rules.html").read_text()
    assert 'href="../theory/10.html#section-10"' in (site / "api/solve.html").read_text()


def test_the_gallery_has_every_figure_with_its_caption_and_code(site: Path) -> None:
    text = (site / "gallery.html").read_text()
    figures = sorted((ROOT / "figures/gallery").glob("*.png"))
    assert len(figures) > 10
    for figure in figures:
        assert f'src="gallery/{figure.name}"' in text
        assert (site / "gallery" / figure.name).read_bytes() == figure.read_bytes()
    shown = html.unescape(re.sub(r"<[^>]+>", "", text))
    for module in (ROOT / "figures/signs.py", ROOT / "figures/noisy_digits/losses.py"):
        assert module.read_text().strip() in shown
    assert text.count("<details") == len(figures)


def require_no_failure(browser: webdriver.Chrome, address: str, page: str) -> None:
    """Nothing failed since the browser was last asked, all came from the site, and the console is empty."""
    seen: dict[str, list[dict[str, Any]]] = {}
    for event in network(browser):
        seen.setdefault(event["method"], []).append(event["params"])
    requests = [event["request"]["url"] for event in seen["Network.requestWillBeSent"]]
    answers = [event["response"] for event in seen["Network.responseReceived"]]
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == [], page
    assert [answer["url"] for answer in answers if answer["status"] >= 400] == [], page
    assert seen.get("Network.loadingFailed", []) == [], page
    assert browser.get_log("browser") == [], page


@in_chromium
def test_no_page_fails_to_load_fetches_from_elsewhere_or_scrolls_sideways(
    browser: webdriver.Chrome, site: Path, without_index: str
) -> None:
    """One is opened on a phone, and shown on a screen after that; the next the other way round."""
    browser.get("about:blank")  # the browser's own first page loads much
    network(browser)
    ways = itertools.cycle([(PHONE, SCREEN), (SCREEN, PHONE)])
    for page, (first, then) in zip(pages(site), ways, strict=False):
        set_width(browser, first)
        browser.get(f"{without_index}/{page}")
        assert browser.execute_script(CUT_OFF) == [first, 0, []], page
        set_width(browser, then)
        assert browser.execute_script(CUT_OFF) == [then, 0, []], page
        require_no_failure(browser, without_index, page)


@in_chromium
def test_formulas_are_shown_in_the_font_that_comes_with_the_site(
    browser: webdriver.Chrome, site: Path, address: str
) -> None:
    set_width(browser, SCREEN)
    browser.get(f"{address}/theory/7.html")
    loaded = "return document.fonts.ready.then(() => document.fonts.check('16px \"STIX Two Math\"'))"
    assert browser.execute_script(loaded)
    heights = browser.execute_script(
        "return [...document.querySelectorAll('mfrac')].map(item => item.getBoundingClientRect().height)"
    )
    assert len(heights) > 30 and min(heights) > 8


@in_chromium
def test_the_search_finds_a_section(browser: webdriver.Chrome, address: str) -> None:
    network(browser)
    set_width(browser, SCREEN)
    browser.get(f"{address}/index.html?q=Dale")
    found = browser.execute_async_script(
        """const done = arguments[0];
        const tell = () => {
            const link = document.querySelector('.md-search-result__link');
            if (link) done(link.href);
        };
        new MutationObserver(tell).observe(document.body, {childList: true, subtree: true});
        tell();"""
    )
    assert found.startswith(address)
    require_no_failure(browser, address, "index.html")
