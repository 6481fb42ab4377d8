"""Numbered sections of the theory and of the numerical method: their headings, and citations of them by number.

The sources are theorems/README.md and flowsim/README.md, which share one numbering; code says "(theorems/README.md,
section 4)", or "(section 4)" where no other document can be meant.
"""

from __future__ import annotations

import re
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
