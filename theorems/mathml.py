"""Formulas in LaTeX as MathML, which browsers show without help, spaced as in LaTeX."""

from __future__ import annotations

import html
import itertools
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markupsafe import Markup

SIGNS = {"\N{MINUS SIGN}", "+"}
SPELLED = {r"\lbrace": "{", r"\rbrace": "}", "~": "\N{TILDE OPERATOR}"}
"""What latex2mathml leaves of braces that are large, and makes of \\sim."""

OPENING = {"(", "[", "{", "\N{MATHEMATICAL LEFT ANGLE BRACKET}"}
CLOSING = {")", "]", "|", "}", "\N{MATHEMATICAL RIGHT ANGLE BRACKET}"}
"""A sign behind one of these stands between two terms."""

FUNCTIONS = {"log", "exp", "cos", "sin", "min", "max", "inf", "sup"}
LIMITS = {"min", "max", "inf", "sup"}
LETTERS = {"\N{INFINITY}", "\N{HORIZONTAL ELLIPSIS}"}
"""What latex2mathml takes for operators, which have space around them."""

RELATIONS = set("⪯≲∼⟂")
"""What latex2mathml or browsers do not know to be relations."""

PRIMES = "\N{PRIME}\N{DOUBLE PRIME}"

UPRIGHT = set("ΓΔΘΛΞΠΣΦΨΩ")
THIN, THICK = "0.167em", "0.278em"


def mathml(latex: str) -> Markup:
    """A displayed formula."""
    return Markup(ElementTree.tostring(formula(latex), encoding="unicode"))


def formula(latex: str, display: str = "block") -> Element:
    r"""A formula that stands by itself (`display` is "block") or in a line ("inline").

    >>> "".join(formula(r"x \in \lbrace -1, +1\rbrace").itertext())
    'x∈{−1,+1}'
    """
    whole = convert_to_element(latex, display=display)
    for item in whole.iter():
        item.text = html.unescape(item.text or "")  # it has entities for characters
        item.text = SPELLED.get(item.text, item.text)
    for item in whole.iter():
        _set_kind(item)
    for row in list(whole.iter("mrow")):
        _group_fences(row)
        for before, item in itertools.pairwise([None, *row]):
            if item is not None and item.text in SIGNS and begins_term(before):
                item.set("form", "prefix")
        for before, item, behind in zip([None, *row], row, [*row[1:], None], strict=False):
            if _core(item).text in FUNCTIONS:
                _space_function(before, _core(item), behind)
    return whole


def _set_kind(item: Element) -> None:
    """Whether a part is a letter or an operator, and how it stretches."""
    if item.text in OPENING | CLOSING - {"|"} and item.tag == "mi":
        item.tag = "mo"
        item.set("stretchy", "false")
    elif item.text in LETTERS:
        item.tag = "mi"
    elif item.text in RELATIONS:
        item.tag = "mo"
        item.attrib |= {"lspace": THICK, "rspace": THICK}
    elif item.text in UPRIGHT:
        item.set("mathvariant", "normal")
    elif item.text in {"|", "/"}:
        item.attrib |= {"lspace": "0", "rspace": "0"}
        if item.get("fence") is None:
            item.set("stretchy", "true" if item.get("minsize") else "false")
    elif item.tag == "msub" and item[0].text in LIMITS:
        item.tag = "munder"
        item[0].set("movablelimits", "true")
    elif item.tag == "msup" and item[1].text and not item[1].text.strip(PRIMES):
        item.tag = "mrow"  # the sign is high as it is
        item[1].tag = "mo"
        item[1].attrib |= {"lspace": "0", "rspace": "0"}


def _core(item: Element) -> Element:
    """What an index belongs to."""
    return item[0] if item.tag in {"msub", "msup", "munder"} else item


def begins_term(before: Element | None) -> bool:
    """Whether what stands behind this part begins a term, so that a sign there is no operation between two of them."""
    return before is None or (before.tag == "mo" and before.text not in CLOSING)


def _space_function(before: Element | None, name: Element, argument: Element | None) -> None:
    """A name such as log, with a thin space behind a factor, and before what it is of unless that is in parentheses."""
    of = None if argument is None else _core(argument)
    apart = of is not None and (of.tag != "mo" or of.text in FUNCTIONS | {"|"})
    name.tag = "mo"
    name.attrib |= {"form": "prefix", "lspace": "0" if begins_term(before) else THIN, "rspace": THIN if apart else "0"}


def _group_fences(row: Element) -> None:
    """Between large parentheses with an exponent all is one base, so that both are of one size."""
    for item in list(row):
        if item.tag in {"msub", "msup", "msubsup"} and item[0].get("minsize"):
            parts = list(row)
            end = parts.index(item)
            start = next((k for k in reversed(range(end)) if parts[k].get("minsize")), None)
            if start is not None:
                base = Element("mrow")
                base.extend([*parts[start:end], item[0]])
                for part in parts[start:end]:
                    row.remove(part)
                item[0] = base
