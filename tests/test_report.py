"""The HTML report: what it says, what it plots, and that a browser shows it without loading anything."""

import html
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from matplotlib.figure import Figure
from rich.console import Console
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from theorems import report, tables
from theorems.cases import MODULES, decide
from theorems.check import Check, Statement
from theorems.ensembles import Scope
from theorems.pictures import LEAST, pictures
from theorems.report import commit, formula_parts, mathml, pieces, summary, write_html, write_json

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

CASES = {
    "equation_1": ["FA with weight decay"],
    "theorem_5_2": ["FA, logistic"],
    "proposition_5_3": ["sign-FA, 3 outputs, squared"],
    "lemma_5_4": ["c_j = 0, boundary"],
    "proposition_5_7": ["FA, separable, tight", "FA, nearly orthogonal, tight", "FA, separable, 1.1 mu"],
}
"""Cheap ones, of every kind."""

NASTY = "<b>&\"'</b><script>alert(1)</script>"
NUMBER = r"-?\d(\.\d+)?e[+-]\d\d"


def statements() -> list[Statement]:
    return [case.statement for name in CASES for case in MODULES[name].cases(Scope(1, "cpu"))]


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return [
        decide(next(case for case in MODULES[name].cases(Scope(1, "cpu")) if case.label == label))
        for name, labels in CASES.items()
        for label in labels
    ]


def odd_checks() -> list[Check]:
    """One that could not be solved; one that is not as expected, and whose names need escaping."""
    claim = {"margin": -0.25, "error_bound": 1e-3, "trajectory": 0, "time": 0.5, "place": NASTY}
    details = {
        "hypotheses": {NASTY: {"holds": True, "slack": float("inf")}},
        "claims": {NASTY: {**claim, "claimed": 2.0, "measured": 1.5}, "without a constant": {**claim, "margin": 3.0}},
        "runs": [],
    }
    return [
        Check("proposition_5_7", "stopped", "theorem", "undecided", None, None, 0, {"reason": f"because {NASTY}"}),
        Check("proposition_5_7", NASTY, "theorem", "violated", -0.25, 1e-3, 1, details),
    ]


MORE: dict[str, Any] = {
    "findings": [
        {
            "statement": "lemma_5_4",
            "broken": f"c_j < 0 {NASTY}",
            "conclusion": "signs stay",
            "survives": 3,
            "trajectories": 4,
            "margin": 0.0234,
        }
    ],
    "data": {"kappa": 0.1864, NASTY: 0.75},
    "kinds": {f"separable {NASTY}": {NASTY: {"holds": False, "slack": -0.375}}},
    "inapplicable": [
        {
            "name": "lemma_5_4",
            "case": f"gd {NASTY}",
            "hypotheses": {
                "rule is FeedbackAlignment": {"holds": False, "slack": float("-inf")},
                NASTY: {"holds": True, "slack": 0.125},
            },
        }
    ],
    "search": [
        {
            "statement": "lemma_5_4",
            "case": f"FA {NASTY}",
            "margin": 1.5e-6,
            "error_bound": 2.5e-12,
            "evaluations": 4321,
            "file": f"tightest/{NASTY}.npz",
        }
    ],
}


@pytest.fixture(scope="module")
def file(checks: list[Check], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that there can be."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(str(path), summary([*checks, *odd_checks()], "cpu", 1.25, **MORE), statements(), f"seeds {NASTY}")
    return path


@pytest.fixture(scope="module")
def page(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of the table rows that start with a cell, tags taken off."""
    found = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", page, re.S)]
    cells = [[html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in found]
    return [row for row in cells if row and row[0] == first]


# --- what it says ---


def test_names_are_escaped(page: str) -> None:
    assert "<script" not in page
    assert "<b>&" not in page
    assert page.count(html.escape("<script>alert(1)</script>")) >= 10


def test_the_page_refers_to_nothing_outside(page: str) -> None:
    assert not re.search(r"\b(src|href|srcset|data|action|poster)\s*=|@import|url\s*\(|<(link|script|iframe)", page)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}
    assert set(re.findall(r"https?://[^\"'\s<]*", page)) == namespaces


def test_formulas_are_mathml_once_for_each_statement(page: str) -> None:
    sections = re.findall(r'<section>\s*<h2>(.*?)</h2>\s*<div class="formula">(.*?)</div>', page, re.S)
    assert [heading.split(",")[0] for heading, _ in sections] == [
        "Equation (1)",
        "Theorem 5.2",
        "Proposition 5.3",
        "Lemma 5.4",
        "Proposition 5.7",
    ]
    assert all("<math" in formula for _, formula in sections)
    assert page.count("<math") == sum(formula.count("<math") for _, formula in sections)
    assert "\\frac" not in page


@pytest.mark.parametrize("statement", statements(), ids=lambda statement: statement.title)
def test_formulas_lose_nothing(statement: Statement) -> None:
    """Letters and digits of the formula are those of its MathML, in order; no command is left."""
    shown = "".join(mathml(piece) for part in formula_parts(statement.name, [statement]) for piece in pieces(part))
    text = html.unescape(re.sub("<[^>]*>", "", shown))
    assert "\\" not in text
    latex = re.sub(r"\\[A-Za-z]+", "", statement.formula).replace("\\", "")
    for name in ("cos", "min", "max", "log"):
        text = text.replace(name, "")
    assert re.findall("[A-Za-z0-9]", text) == re.findall("[A-Za-z0-9]", latex)


def test_formulas_are_cut_at_wide_spaces_outside_braces() -> None:
    statement = replace(statements()[0], formula=r"a \quad\Rightarrow\qquad \text{b \quad c} \quadratic")
    assert formula_parts(statement.name, [statement]) == ["a ", r"\Rightarrow", r" \text{b \quad c} \quadratic"]


def test_mathml_is_escaped_and_spaced() -> None:
    assert "<img" not in mathml(r"a < \text{<img>} & b")
    tree = ET.fromstring(mathml(r"a = -|b| - c, (-d) - e"))
    forms = [item.get("form") for item in tree.iter() if item.text == "\N{MINUS SIGN}"]
    assert forms == ["prefix", None, "prefix", None]
    assert all(item.get("lspace") == item.get("rspace") == "0" for item in tree.iter() if item.text == "|")


def test_verdicts_margins_and_constants_are_in_the_tables(checks: list[Check], page: str) -> None:
    for check in checks:
        (row,) = [row for row in rows(page, check.case) if len(row) == 8]
        claimed, measured = tables.claimed_and_measured(check)
        claim = min(check.details["claims"].values(), key=lambda claim: claim["margin"])
        assert row[1] == check.verdict
        assert row[2:4] == [f"{check.margin:.2e}", f"{check.error_bound:.1e}"]
        assert row[4:6] == ["-" if value is None else f"{value:.3g}" for value in (claimed, measured)]
        assert row[6] == f"{check.trajectories}"
        assert row[7].startswith(claim["place"])
        assert row[7].endswith(f"t = {claim['time']:.3g}") or claim["time"] == 0


def test_every_case_has_its_claims_hypotheses_and_ensembles(checks: list[Check], page: str) -> None:
    for check in checks:
        details = page[page.index(f"<details><summary>{html.escape(check.case)}") :]
        details = details[: details.index("</details>")]
        for name, claim in check.details["claims"].items():
            (row,) = rows(details, name)
            assert row[1:3] == [f"{claim['margin']:.2e}", f"{claim['error_bound']:.1e}"]
            if "claimed" in claim:
                assert row[3:5] == [f"{claim['claimed']:.4g}", f"{claim['measured']:.4g}"]
                assert row[5] == f"{claim['measured'] / claim['claimed']:.4g}" == f"{1 + claim['margin']:.4g}"
            else:
                assert row[3:6] == ["-", "-", "-"]
        for name, state in check.details["hypotheses"].items():
            (row,) = rows(details, name)
            assert row[1] == ("yes" if state["holds"] else "no")
        for ensemble in check.details["runs"]:
            smallest = min(claim["margin"] for claim in ensemble["claims"].values())
            assert [
                f"{ensemble['samples']}",
                f"{ensemble['dimension']}",
                ", ".join(map(str, ensemble["widths"])),
                f"{ensemble['slope']:g}",
                f"{ensemble['t_final']:g}",
                f"{ensemble['trajectories']}",
                f"{smallest:.2e}",
            ] in rows(details, f"{ensemble['samples']}")
    assert "fails d theta/dt = -fa" in page, "which hypothesis a control breaks"


def test_a_check_that_is_not_as_expected_stands_out(checks: list[Check], page: str) -> None:
    assert re.search(rf'class="fails"><b>{len(checks)} of\s+{len(checks) + 2} checks as expected', page)
    (row,) = [row for row in rows(page, NASTY) if len(row) == 8]
    assert row[1] == "violated (unexpected)"
    assert row[4:6] == ["2", "1.5"]
    assert [row[1:7] for row in rows(page, "stopped")] == [["undecided (unexpected)", "-", "-", "-", "-", "0"]]
    assert page.count(html.escape("because <b>&")) == 2  # on top, and with the case


def test_findings_own_data_and_search_have_their_sections(page: str) -> None:
    finding, searched = [row for row in rows(page, "lemma_5_4") if len(row) in (5, 6)][::-1]
    assert finding[1:] == [f"c_j < 0 {NASTY}", "signs stay", "3 of 4", "2.3e-02"]
    assert searched[1:] == [f"FA {NASTY}", "1.50e-06", "2.5e-12", "4321", f"tightest/{NASTY}.npz"]
    assert rows(page, "kappa") == [["kappa", "0.1864"]]
    assert re.search(r"<h3>separable .*: no</h3>", page)
    assert [NASTY, "no", "-0.375"] in rows(page, NASTY)
    assert re.search(r"lemma_5_4, gd .*: fails rule is FeedbackAlignment</summary>", page)
    assert ["rule is FeedbackAlignment", "no", "-"] in rows(page, "rule is FeedbackAlignment")
    assert [NASTY, "yes", "0.125"] in rows(page, NASTY)
    assert [NASTY, "yes", "-"] in rows(page, NASTY), "an infinite slack"


def test_sections_that_have_nothing_are_left_out(checks: list[Check], tmp_path: Path) -> None:
    path = tmp_path / "small.html"
    write_html(str(path), summary(checks[:1], "cpu", 1.0, findings=[]), statements(), "seeds 0")
    page = path.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Equation (1)", "Figures"]
    assert page.count("<svg") == 1


def test_no_checks_at_all_make_a_page(tmp_path: Path) -> None:
    """As where a search is stopped at once, or no statement applies to the data."""
    path = tmp_path / "empty.html"
    write_html(str(path), summary([], "cpu", 1.0), statements(), "seeds 0")
    assert "0 of\n0 checks" in path.read_text(encoding="utf-8")


def test_the_foot_says_what_ran(page: str) -> None:
    foot = page[page.index("<footer>") :]
    assert f"seeds {escape(NASTY)}" in foot
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC; 1.25 s on cpu, float64", foot)
    assert all(f"{package} " in foot for package in ("flowsim", "python", "torch", "torchdiffeq", "scipy"))
    assert html.escape(commit(Path(report.__file__))) in foot


def test_the_page_is_of_the_json(checks: list[Check], page: str, tmp_path: Path) -> None:
    """A page made from the file that --json writes is the same."""
    path = tmp_path / "report.json"
    write_json(str(path), summary([*checks, *odd_checks()], "cpu", 1.25, **MORE))
    again = tmp_path / "report.html"
    write_html(str(again), json.loads(path.read_text()), statements(), f"seeds {NASTY}")
    one, other = (re.sub(r"\d\d:\d\d UTC", "", text) for text in (page, again.read_text(encoding="utf-8")))
    assert one == other


# --- the commit ---


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
def test_the_commit_is_that_of_the_checkout_which_has_the_file(tmp_path: Path) -> None:
    """Not that of a repository around it, in which a virtual environment may lie."""
    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.touch()
    assert commit(file) == "not a git checkout"
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "unrelated")
    assert commit(file) == "not a git checkout"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "with the file")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(file) == head
    (tmp_path / "other.py").touch()
    assert commit(file) == f"{head} + uncommitted changes"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(Path(report.__file__)) == "not a git checkout"


# --- what is plotted ---


def series(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """What matplotlib was given, by the names in the legend."""
    lines = figure.axes[0].get_lines()
    return {
        str(line.get_label()): (list(np.asarray(line.get_xdata())), list(np.asarray(line.get_ydata())))
        for line in lines
        if not str(line.get_label()).startswith("_")
    }


EQUALITIES = {
    (statement.name, claim.name) for statement in statements() for claim in statement.claims if claim.kind == "equality"
}


def labels(figure: Figure) -> list[str]:
    """Of the rows, without spaces: they may be broken into lines."""
    return [unspaced(label.get_text()) for label in figure.axes[0].get_yticklabels()]


def unspaced(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_margins_and_errors_are_plotted_as_measured(checks: list[Check]) -> None:
    made = pictures([*checks, *odd_checks()], EQUALITIES)
    figures = {picture.title.split(":")[0]: picture.figure for picture in made}
    theorems = [check for check in checks if check.role == "theorem"]
    drawn = {
        "Inequalities": ("margin", [check for check in theorems if check.name != "theorem_5_2"]),
        "Equalities": ("deviation", [check for check in theorems if check.name == "theorem_5_2"]),
        "Controls": ("violation", [check for check in checks if check.role == "control"]),
    }
    assert all(some for _, some in drawn.values())
    for title, (meaning, some) in drawn.items():
        found = series(figures[title])
        sizes, at = found[meaning]
        assert sizes == [abs(check.margin or 0.0) for check in some]
        assert [labels(figures[title])[int(row)] for row in at] == [unspaced(check.case) for check in some]
        errors = found["error bound"][0][: len(some)]
        assert errors == [check.error_bound for check in some]
    unexpected = series(figures["Inequalities"])["margin, not as expected"]
    assert unexpected[0] == [0.25]
    assert labels(figures["Inequalities"])[int(unexpected[1][0])] == unspaced(NASTY)
    assert "stopped" not in labels(figures["Inequalities"])


def test_a_deviation_of_0_is_drawn_at_the_left_end() -> None:
    claims = {"a = b": {"margin": -0.0, "error_bound": 1e-15, "time": 0.0, "place": "start"}}
    exact = Check("theorem_5_2", "exact", "theorem", "holds", -0.0, 1e-15, 1, {"claims": claims})
    (picture,) = pictures([exact], {("theorem_5_2", "a = b")})
    assert series(picture.figure)["deviation"][0] == [LEAST]
    assert picture.figure.axes[0].get_xlim()[0] <= LEAST


def test_cosines_are_plotted_over_the_entries_of_the_layer(checks: list[Check]) -> None:
    (picture,) = [item for item in pictures(checks, EQUALITIES) if "alignment" in item.title]
    found = series(picture.figure)
    by_name = {check.name: check for check in checks}
    claim = by_name["proposition_5_3"].details["runs"][0]["claims"]["cos(W_l, B_l) > 1 / sqrt(N_l)"]
    assert found["Proposition 5.3: smallest cosine"] == ([12], [claim["measured"]])  # 3 outputs, width 4
    runs = by_name["lemma_5_4"].details["runs"]
    cosines = [ensemble["claims"]["cos(v, b) > min|b_j| / |b|"] for ensemble in runs]
    widths = [ensemble["widths"][0] for ensemble in runs]
    assert found["Lemma 5.4: smallest cosine"] == (widths, [item["measured"] for item in cosines])
    assert found["claimed"] == ([12, *widths], [claim["claimed"], *(item["claimed"] for item in cosines)])
    np.testing.assert_allclose(found["claimed"][1], np.array([12, *widths]) ** -0.5)


def test_tightness_is_plotted_for_every_claim(checks: list[Check]) -> None:
    (picture,) = [item for item in pictures(checks, EQUALITIES) if "tight" in item.title]
    some = [check for check in checks if check.name == "proposition_5_7" and check.role == "theorem"]
    assert labels(picture.figure) == [unspaced(check.case) for check in some]
    found = series(picture.figure)
    assert list(found) == list(some[0].details["claims"])
    for name, (ratios, at) in found.items():
        claims = [check.details["claims"][name] for check in some]
        assert ratios == [1 + claim["margin"] for claim in claims]
        assert [round(row) for row in at] == [0, 1]
        for ratio, claim in zip(ratios, claims, strict=True):
            assert 1 < ratio < 1.001
            assert "claimed" not in claim or ratio == pytest.approx(claim["measured"] / claim["claimed"])


def test_figures_without_data_are_left_out(checks: list[Check]) -> None:
    by_role = {check.role: check for check in checks if check.name == "proposition_5_7"}
    for some, titles in [
        ([], []),
        (odd_checks()[:1], []),
        ([by_role["control"]], ["Controls"]),
        ([by_role["theorem"]], ["Inequalities", "Proposition 5.7"]),
    ]:
        assert [picture.title.split(":")[0] for picture in pictures(some, EQUALITIES)] == titles


def test_the_svg_shows_every_mark_where_it_belongs(checks: list[Check]) -> None:
    """Markers are written out instead of referred to: one for every point, in the coordinates of the page."""
    for picture in pictures(checks, EQUALITIES):
        root = ET.fromstring(picture.svg)
        assert root.get("role") == "img"
        assert root[0].text == picture.title
        places = [re.fullmatch(r"translate\((\S+) (\S+)\)", item.get("transform", "")) for item in root.iter()]
        shown = np.array([[float(number) for number in place.groups()] for place in places if place])
        points = np.concatenate([np.stack(at, -1) for at in series(picture.figure).values()])
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        x, y = picture.figure.axes[0].transData.transform(points).T * 72 / picture.figure.dpi
        assert (x >= 0).all() and (x <= width).all()
        for place in np.stack([x, height - y], -1):
            assert np.abs(shown - place).max(-1).min() < 1e-3


# --- in a browser ---

missing = [str(path) for path in (CHROMIUM, DRIVER) if not path.exists()]
in_chromium = pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} missing: apt-get install chromium-driver")


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
        ]:
            options.add_argument(argument)
        chrome = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            yield chrome
        finally:
            chrome.quit()


def events(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the browser's network did since it was last asked."""
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [entry for entry in entries if entry["method"].startswith("Network.")]


def opened(browser: webdriver.Chrome, file: Path, width: int) -> None:
    """Show a page at a width, with all details open."""
    size = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(file.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(item => item.open = true)")


def sizes(browser: webdriver.Chrome, selector: str) -> np.ndarray:
    script = """return [...document.querySelectorAll(arguments[0])].map(item => {
        const box = item.getBoundingClientRect(); return [box.width, box.height] })"""
    return np.array(browser.execute_script(script, selector))


@in_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_fails_to_load_and_nothing_is_loaded(browser: webdriver.Chrome, file: Path, width: int) -> None:
    browser.get("about:blank")
    for log in ("performance", "browser"):
        browser.get_log(log)
    opened(browser, file, width)
    seen = events(browser)
    requests = [event["params"]["request"]["url"] for event in seen if event["method"] == "Network.requestWillBeSent"]
    assert requests == [file.as_uri()]
    assert not [event["params"] for event in seen if event["method"] == "Network.loadingFailed"]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@in_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_formulas_and_figures_are_shown(browser: webdriver.Chrome, file: Path, page: str, width: int) -> None:
    opened(browser, file, width)
    for selector, tag in [("math", "<math"), ("svg", "<svg")]:
        shown = sizes(browser, selector)
        assert len(shown) == page.count(tag)
        assert (shown > 5).all(), "an arrow by itself is low"
    assert (sizes(browser, "svg")[:, 0] > 300).all()
    names = browser.execute_script("return [...document.querySelectorAll('math, mfrac')].map(x => x.namespaceURI)")
    assert set(names) == {"http://www.w3.org/1998/Math/MathML"}
    fractions = sizes(browser, "mfrac")
    assert (fractions[:, 1] > 12).all(), "numerators above denominators"


@pytest.fixture(scope="module")
def pages(file: Path) -> dict[str, Path]:
    """What is measured, with everything that there can be; every formula; and what is proved."""
    every = [case.statement for module in MODULES.values() for case in module.cases(Scope(1, "cpu"))]
    names = dict.fromkeys(statement.name for statement in every)
    stopped = [Check(name, "stopped", "theorem", "undecided", None, None, 0, {"reason": "x"}) for name in names]
    interval = ["2.80075412326388888881e-1", "2.80075412326388888889e-1"]
    details = {
        "hypotheses": {"y_i y_j <x_i, x_j> >= kappa |x_i| |x_j|": {"holds": True, "slack": interval}},
        "claims": {"cos(v, b)^2 >= (min|b_j| / |b|)^2": {"verdict": "proved", "interval": interval, "time": interval}},
        "runs": [
            {
                **{"rule": "SignFeedbackAlignment", "loss": "exponential", "samples": 8, "dimension": 10},
                **{"widths": [10, 10], "slope": 0.3, "t_final": 100.0, "bits": 192, "steps": 12345, "events": 80},
            }
        ],
    }
    proved = Check("lemma_5_4", "c_j > 0, n = 8, m = 10, T = 100", "theorem", "proved", None, None, 1, details)
    kinds = {"linearly separable": {"SVM margin > 0": {"holds": True, "slack": interval}}}
    data = {"data": {"kappa": interval}, "kinds": kinds, "rigorous": {"flint": "3"}}
    found = {"measured": file, "formulas": file.with_name("formulas.html"), "proved": file.with_name("proved.html")}
    write_html(str(found["formulas"]), summary(stopped, "cpu", 1.0), every, "seeds 0")
    write_html(str(found["proved"]), summary([proved], "cpu", 1.0, **data), every, "seeds 0")
    return found


@in_chromium
@pytest.mark.parametrize("name", ["measured", "formulas", "proved"])
def test_a_phone_scrolls_nothing_sideways(browser: webdriver.Chrome, pages: dict[str, Path], name: str) -> None:
    """Neither the page nor a table or a formula in a frame of its own."""
    opened(browser, pages[name], 360)
    script = """return [...document.querySelectorAll('html, .wide, .formula span')].map(
        item => [item.scrollWidth, item.clientWidth, item.textContent.slice(0, 50)])"""
    found = browser.execute_script(script)
    assert found[0][:2] == [360, 360]
    assert len(found) > 3
    assert [item for item in found if item[0] > item[1]] == []


@in_chromium
def test_cells_say_what_they_are_where_headings_are_left_out(browser: webdriver.Chrome, file: Path) -> None:
    script = """return [...document.querySelectorAll('table')].map(table => [
        [...table.querySelectorAll('thead th')].map(item => item.textContent),
        ...[...table.querySelectorAll('tbody tr')].map(row => [...row.querySelectorAll('td')].map(item =>
            getComputedStyle(item, '::before').content))])"""
    for width, shown in [(360, True), (1300, False)]:
        opened(browser, file, width)
        tables = browser.execute_script(script)
        assert len(tables) > 10
        for heads, *rows in tables:
            for row in (row for row in rows if row):
                named = ['"' + head + ' "' if shown else "none" for head in heads[1:]]
                assert row[1:] in (named, ["none"]), "of data the value needs no name"
        assert (sizes(browser, "thead")[:, 1] == 0).all() == shown


@in_chromium
def test_text_in_figures_can_be_read_on_a_phone(browser: webdriver.Chrome, file: Path) -> None:
    opened(browser, file, 360)
    script = """return Math.min(...[...document.querySelectorAll('svg text')].filter(x => x.textContent.trim()).map(
        x => parseFloat(getComputedStyle(x).fontSize) * x.getScreenCTM().d))"""
    assert browser.execute_script(script) > 6, "exponents; other text is larger"


@in_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_figures_are_not_cut_off_and_their_labels_do_not_overlap(
    browser: webdriver.Chrome, file: Path, width: int
) -> None:
    opened(browser, file, width)
    script = """return [...document.querySelectorAll('svg')].map(svg => [svg, ...svg.querySelectorAll('text')].map(
        item => { const box = item.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom] }))"""
    for frame, *texts in browser.execute_script(script):
        boxes = np.array(texts)
        assert (boxes[:, :2] >= np.array(frame[:2]) - 1).all()
        assert (boxes[:, 2:] <= np.array(frame[2:]) + 1).all()
        for one, other in itertools.combinations(boxes, 2):
            overlap = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
            height = min(one[3] - one[1], other[3] - other[1])
            assert not (overlap[0] > 1 and overlap[1] > 0.4 * height), (one, other)


def test_what_goes_beyond_the_paper_is_starred_and_only_that() -> None:
    def shown(*beyond: bool) -> str:
        checks = [
            Check("lemma_5_4", f"case {n}", "theorem", "holds", 1.0, 0.1, 1, {}, it) for n, it in enumerate(beyond)
        ]
        console = Console(width=100)
        with console.capture() as captured:
            console.print(tables.table(checks))
        return captured.get()

    both = shown(True, False)
    assert "case 0 *" in both
    assert "case 1 *" not in both
    assert "* beyond the paper" in both
    assert "beyond" not in shown(False)
