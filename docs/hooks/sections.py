"""Numbered sections of the theory and of the numerical method: their headings, and citations of them by number.

The sources are theorems/README.md and flowsim/README.md, which share one numbering; code says "(theorems/README.md,
section 4)", or "(section 4)" where no other document can be meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

HEADING = re.compile(r"^(#{2,3}) (?:(\d+(?:\.\d+)?) )?(.+)$", re.MULTILINE)
POINTER = "Beside the code:"
"""How a section begins that stands in the other document."""

NUMBER = r"\d+(?:\.\d+)?"
CITATION = re.compile(
    rf"(?<!paper's )(?:\b(?P<document>theorems/README\.md|flowsim/README\.md), )?"
    rf"\b(?P<word>[Ss]ections?) (?P<numbers>{NUMBER}(?:(?:, and |, | and | or | to ){NUMBER})*)"
)
"""Sections cited by number; those of the paper are told by the words "the paper's" before them."""

QUOTED = re.compile(r"\b(?P<document>theorems/README\.md|flowsim/README\.md), \"(?P<title>[^\"]+)\"")
"""A section without a number, cited by its title."""


@dataclass(frozen=True)
class Section:
    """What stands from one heading to the next that is numbered; `level` is 2 or 3."""

    number: str
    title: str
    level: int
    body: str

    @property
    def anchor(self) -> str:
        """The name of its heading on the site."""
        return anchor(self.number)


def anchor(number: str) -> str:
    """The name of the heading of a section: `section-14-2` for 14.2."""
    return f"section-{number.replace('.', '-')}"


def slug(heading: str) -> str:
    """The name that GitHub gives to a heading.

    >>> slug("2 Equation (1), Definitions 4.1 and 4.2")
    '2-equation-1-definitions-41-and-42'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def numbered(text: str) -> list[Section]:
    """The numbered sections of a document, in order; those that only point elsewhere are left out."""
    found = [match for match in HEADING.finditer(text) if match[2]]
    ends = [match.start() for match in found[1:]] + [len(text)]
    sections = [
        Section(match[2], match[3], len(match[1]), text[match.end() : end].strip())
        for match, end in zip(found, ends, strict=True)
    ]
    return [section for section in sections if not section.body.startswith(POINTER)]


def titles(text: str) -> set[str]:
    """The titles of all headings of a document, without numbers."""
    return {match[3] for match in HEADING.finditer(text)}


def unresolved(text: str, documents: Mapping[str, str]) -> list[str]:
    """The citations in a text, docstrings and comments included, that no heading of the documents answers.

    >>> documents = {"theorems/README.md": "## 2 Something", "flowsim/README.md": "## 3 Other"}
    >>> unresolved("(flowsim/README.md, section 2), sections 2 and 3, section 4", documents)
    ['flowsim/README.md, section 2', 'section 4']
    """
    joined = re.sub(r"\s*\n\s*(?:# )?", " ", text)
    sections = {name: {section.number for section in numbered(document)} for name, document in documents.items()}
    wrong = []
    for match in CITATION.finditer(joined):
        known = sections[match["document"]] if match["document"] else set().union(*sections.values())
        if not set(re.findall(NUMBER, match["numbers"])) <= known:
            wrong.append(match[0])
    for match in QUOTED.finditer(joined):
        if match["title"] not in titles(documents[match["document"]]):
            wrong.append(match[0])
    return wrong
