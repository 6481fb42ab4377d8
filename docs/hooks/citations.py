"""Citations of sections by number, in pages and in docstrings, become links to them."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from sections import CITATION, NUMBER, QUOTED, anchor


class Citations(Extension):
    """Links "section 4" and "(theorems/README.md, section 4)" to the section, on whatever page it is."""

    def extendMarkdown(self, md: Markdown) -> None:
        """What Markdown calls."""
        md.inlinePatterns.register(_Numbers(CITATION.pattern, md), "sections", 25)
        md.inlinePatterns.register(_Title(QUOTED.pattern, md), "titled_sections", 26)


class _Numbers(InlineProcessor):
    ANCESTOR_EXCLUDES = ("a",)

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:
        span = Element("span")
        span.text = f"{m['word']} "
        texts = re.split(rf"({NUMBER})", m["numbers"])
        for number, behind in zip(texts[1::2], texts[2::2], strict=True):
            _link(span, anchor(number), number).tail = behind
        return span, m.start(), m.end()


class _Title(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:
        span = Element("span")
        _link(span, m["title"].lower().replace(" ", "-"), f"“{m['title']}”")
        return span, m.start(), m.end()


def _link(parent: Element, identifier: str, text: str) -> Element:
    """One that mkdocs-autorefs resolves among the headings of all pages; a strict build fails where there is none."""
    link = SubElement(parent, "autoref", {"identifier": identifier})
    link.text = text
    return link
