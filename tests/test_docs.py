"""Pages of the site: their examples do what they say, and sections that are cited exist."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context
from PIL import Image
from sections import anchor, numbered, slug, unresolved

from figures import overview
from figures.style import STYLE, save

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = {name: (ROOT / name).read_text() for name in ("theorems/README.md", "flowsim/README.md")}
CITING = [
    *(path for folder in ("flowsim", "theorems", "figures", "tests") for path in (ROOT / folder).rglob("*.py")),
    *PAGES,
    *(ROOT / name for name in DOCUMENTS),
]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if ">>> " in page.read_text()],
    ids=lambda page: str(page.relative_to(ROOT / "docs")),
)
def test_the_examples_of_a_page_do_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0)
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert tried > 0
    assert failed == 0, capsys.readouterr().out


def test_the_example_of_the_readme_draws_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gallery").mkdir()
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    drawn = overview.measure()
    assert names["solution"].events.time.equal(drawn.events.time)
    assert names["solution"].evaluate(1.0).hidden.equal(drawn.evaluate(1.0).hidden)
    with rc_context(STYLE):
        save(overview.draw(drawn), Path("gallery"), "overview", overview, overview.SEEDS)
    with Image.open("overview.png") as own, Image.open("gallery/overview.png") as shown:
        assert (own.size, own.tobytes()) == (shown.size, shown.tobytes())


def test_every_section_that_is_cited_exists() -> None:
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in CITING
        if path != Path(__file__) and (found := unresolved(path.read_text(), DOCUMENTS))
    }
    assert wrong == {}
    assert sum("section 10" in path.read_text() for path in CITING) > 15


@pytest.mark.parametrize(
    "citation",
    [
        "theorems/README.md, section 15",
        "theorems/README.md,\n    section 15",
        "theorems/README.md,\n# section 15",
        "flowsim/README.md, section 4",
        "theorems/README.md, section 10",
        "section 14.13",
        "sections 2 and 15",
        "sections 2, 15 and 3",
        'flowsim/README.md, "Certificates"',
    ],
)
def test_a_citation_of_no_section_is_found(citation: str) -> None:
    assert len(unresolved(f"A comment ({citation}), with section 4.", DOCUMENTS)) == 1


def test_sections_of_the_paper_are_none_of_ours() -> None:
    assert unresolved("the paper's section 6.2, and 3 sections", DOCUMENTS) == []


def test_numbers_are_given_once_and_in_order() -> None:
    numbers = [section.number for text in DOCUMENTS.values() for section in numbered(text)]
    assert sorted(numbers, key=lambda number: [int(part) for part in number.split(".")]) == [
        *map(str, range(1, 15)),
        *(f"14.{number}" for number in range(1, 13)),
    ]
    assert anchor("14.2") == "section-14-2"


def test_contents_on_github_lead_to_headings() -> None:
    for text in DOCUMENTS.values():
        contents = text[text.index("Contents:") :].partition("\n\n")[0]
        links = [link.partition(")")[0] for link in contents.split("](#")[1:]]
        headings = {slug(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")}
        assert links and set(links) <= headings


@pytest.mark.parametrize("name", ["sections", "formulas", "docstrings"])
def test_the_examples_of_what_builds_the_pages(name: str) -> None:
    module = pytest.importorskip(name, exc_type=ImportError)
    failed, tried = doctest.testmod(module)
    assert tried > 0 and failed == 0


def test_a_list_of_a_document_stays_one() -> None:
    sources = pytest.importorskip("sources", exc_type=ImportError)
    text = "Verdicts\n- one,\n  of two lines\n- two\n\nMore.\n"
    assert sources.linked(text, "CHANGELOG.md", "changelog.md") == "Verdicts\n\n" + text.partition("\n")[2]


def test_links_to_documents_lead_to_their_pages_and_other_files_are_named() -> None:
    sources = pytest.importorskip("sources", exc_type=ImportError)
    text = "[all](../theorems/README.md#14-beyond-the-paper), [times](../tests/benchmarks/results.md), "
    text += "[a](rules.py), [b](#11-enclosures)"
    page = sources.linked(text, "flowsim/README.md", "theory/10.md")
    assert (
        page
        == "[all](14.md#section-14), [times](../results/benchmarks.md), a (`flowsim/rules.py`), [b](11.md#section-11)"
    )
