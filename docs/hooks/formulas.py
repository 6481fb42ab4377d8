"""Formulas as MathML, which browsers show without help: none is left to a script."""

from __future__ import annotations

import html
import itertools
import re
from xml.etree.ElementTree import Element, tostring

from theorems.mathml import begins_term, formula

ARITHMATEX = re.compile(
    r'<div class="arithmatex">\\\[(?P<block>.*?)\\\]</div>'
    r'|(?P<before>[(\[“]*)<span class="arithmatex">\\\((?P<inline>.*?)\\\)</span>(?P<after>[^\s<]*)',
    re.DOTALL,
)
TAG = re.compile(r"\s*\\tag\{(.*?)\}")

BREAKS = set("=≤≥<>≠≈∼≲∈→↦←⊂⪯⟂,;+−·∘")
"""A line may end behind these where they are inline, between parts that are whole, as in TeX."""


def as_mathml(page: str) -> str:
    """A page with its formulas, which Arithmatex marked, as MathML.

    Raises:
        ValueError: if a formula has a command that is not known.
    """
    return ARITHMATEX.sub(_shown, page)


def _shown(match: re.Match[str]) -> str:
    if match["block"] is not None:
        return _block(match["block"])
    return _inline(*match.group("before", "inline", "after"))


def _block(latex: str) -> str:
    """A displayed formula in a box that scrolls if it is too wide, with its tag beside it."""
    latex = html.unescape(latex)
    tag = TAG.search(latex)
    beside = f'<span class="tag">({html.escape(tag[1])})</span>' if tag else ""
    return f'<div class="formula"><div>{_text(_converted(TAG.sub("", latex), "block"))}</div>{beside}</div>'


def _inline(before: str, latex: str, after: str) -> str:
    """A formula in a line, as several where the line may be broken; what stands next to it stays there."""
    first, *others = map(_text, breakable(_converted(html.unescape(latex), "inline")))
    parts = [before + first, *others]
    parts[-1] += after
    return "".join(f'<span class="whole">{part}</span>' if before or after else part for part in parts)


def breakable(whole: Element) -> list[Element]:
    """An inline formula, cut behind the relations and operations that are in no group.

    >>> [part.findtext(".//mn") for part in breakable(formula("x = 1, y = 2", "inline"))]
    [None, '1', None, '2']
    """
    (row,) = whole
    parts: list[list[Element]] = [[]]
    for before, item in itertools.pairwise([None, *row]):
        assert item is not None
        parts[-1].append(item)
        if item.tag == "mo" and item.text in BREAKS and not begins_term(before) and item is not row[-1]:
            item.set("form", "infix")
            parts.append([])
    if len(parts) == 1:
        return [whole]
    cut = []
    for part in parts:
        cut.append(Element(whole.tag, whole.attrib))
        cut[-1].append(Element("mrow"))
        cut[-1][0].extend(part)
    return cut


def _converted(latex: str, display: str) -> Element:
    element = formula(latex, display)
    unknown = re.search(r"\\[A-Za-z]+", "".join(element.itertext()))
    if unknown:
        raise ValueError(f"a formula must have commands that latex2mathml knows, got {unknown[0]} in {latex!r}")
    return element


def _text(element: Element) -> str:
    return tostring(element, encoding="unicode")
