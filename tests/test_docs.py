"""Pages of the site: their examples do what they say, and sections that are cited exist."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from sections import CITATION, QUOTED, numbered, slug, titles

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def with_examples() -> list[Path]:
    return [page for page in PAGES if ">>> " in page.read_text()]


@pytest.mark.parametrize("page", with_examples(), ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_the_examples_of_a_page_do_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0)
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert tried > 0
    assert failed == 0, capsys.readouterr().out
