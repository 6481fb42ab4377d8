"""Formulas as MathML: nothing is lost, and spaces are those of LaTeX."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from theorems.mathml import formula

ROOT = Path(__file__).parents[1]


def texts(element: Element) -> str:
    return "".join(element.itertext())


def named(element: Element, text: str) -> list[Element]:
    return [item for item in element.iter() if item.text == text]


@pytest.mark.parametrize("document", ["theorems/README.md", "flowsim/README.md"])
def test_every_formula_of_the_theory_has_commands_that_are_known(document: str) -> None:
    text = re.sub(r"`[^`\n]*`", "", (ROOT / document).read_text())
    displayed = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
    inline = re.findall(r"\$([^$]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL))
    assert len(displayed) + len(inline) > 400
    for latex in [*displayed, *inline]:
        assert "\\" not in texts(formula(latex)), latex


def test_signs_of_terms_have_no_space_and_those_between_terms_have() -> None:
    element = formula(r"a \in \lbrace -1, +1\rbrace - b")
    assert [item.get("form") for item in named(element, "\N{MINUS SIGN}")] == ["prefix", None]
    assert [item.get("form") for item in named(element, "+")] == ["prefix"]


def test_large_parentheses_and_their_exponent_are_one_base() -> None:
    (power,) = formula(r"x \Big(\frac12 + y\Big)^{2}").iter("msup")
    assert texts(power[0]) == "(12+y)"
    assert [item.get("minsize") for item in (power[0][0], power[0][-1])] == ["1.623em"] * 2


@pytest.mark.parametrize(
    ("latex", "before", "behind"),
    [
        (r"\log n", "0", "0.167em"),
        (r"\log(n)", "0", "0"),
        (r"-\log n", "0", "0.167em"),
        (r"b\log(n)", "0.167em", "0"),
        (r"|b|\log|n|", "0.167em", "0.167em"),
        (r"\log\frac1n", "0", "0.167em"),
    ],
)
def test_a_function_stands_apart_from_factors_and_not_from_parentheses(latex: str, before: str, behind: str) -> None:
    (name,) = named(formula(latex), "log")
    assert (name.tag, name.get("lspace"), name.get("rspace")) == ("mo", before, behind)


def test_a_function_of_a_function_stands_apart() -> None:
    assert [item.get("rspace") for item in formula(r"\max_i\min_j x").iter("mo")] == ["0.167em"] * 2


def test_a_prime_is_as_high_as_its_glyph_is() -> None:
    element = formula(r"\phi'(z) + x''")
    assert list(element.iter("msup")) == []
    assert texts(element) == "\N{GREEK PHI SYMBOL}\N{PRIME}(z)+x\N{DOUBLE PRIME}"


def test_what_a_minimum_is_over_stands_below_it_where_there_is_room() -> None:
    (under,) = formula(r"\min_i u_i").iter("munder")
    assert (under[0].text, under[0].get("movablelimits"), texts(under[1])) == ("min", "true", "i")


def test_bars_do_not_stretch_unless_they_are_told_to() -> None:
    assert {item.get("stretchy") for item in named(formula(r"|w|^2 s\lvert x\rvert_1"), "|")} == {"false"}
    assert {item.get("stretchy") for item in named(formula(r"\Big|x\Big|"), "|")} == {"true"}
    assert {item.get("stretchy") for item in named(formula(r"\left| \frac12 \right|"), "|")} != {"false"}


@pytest.mark.parametrize(("latex", "sign"), [(r"\preceq", "⪯"), (r"\sim", "∼"), (r"\perp", "⟂")])
def test_relations_have_space_around_them(latex: str, sign: str) -> None:
    (relation,) = named(formula(rf"0 {latex} A"), sign)
    assert (relation.tag, relation.get("lspace"), relation.get("rspace")) == ("mo", "0.278em", "0.278em")
