"""What a search for counterexamples minimises: statements under a rule, on data and gaps of a kind."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from theorems import (
    any_start,
    equation_1,
    lemma_5_4,
    margin_growth,
    own_data,
    proposition_5_3,
    proposition_5_7,
    theorem_5_2,
)
from theorems.check import Statement
from theorems.ensembles import MarginRule

InputKind = Literal["any", "separable", "orthogonally separable", "boundary", "nearly orthogonal"]
Gaps = Literal["any", "admissible", "each"]


@dataclass(frozen=True)
class Target:
    """What is searched: a statement under a rule, on data of a kind.

    Args:
        statement: whose smallest margin is minimised.
        rule: FA, or sign-FA with scale 1.
        data: the inputs that instances have.
        gaps: "admissible": every c_j >= 0 for FA, sum_j c_j > 0 for sign-FA; "each": every c_j >= 0; or "any".
        loss: its name.
    """

    statement: Statement
    rule: MarginRule
    data: InputKind
    gaps: Gaps = "admissible"
    loss: str = "exponential"

    @property
    def case(self) -> str:
        """The name among the statement's targets."""
        more = [f"{self.loss} loss"] * (self.loss != "exponential") + ["each c_j >= 0"] * (self.gaps == "each")
        return ", ".join(["FA" if self.rule == "fa" else "sign-FA", f"{self.data} data", *more])

    @property
    def file(self) -> str:
        """The name of the file for what is found."""
        return re.sub(r"\W+", "_", f"{self.statement.name} {self.case}".lower()) + ".npz"


_THEOREM_5_1 = next(statement for statement in own_data.STATEMENTS if statement.name == "theorem_5_1")
_RULES: tuple[MarginRule, ...] = ("fa", "sign-fa")


def _of_the_paper(statement: Statement) -> Statement:
    """Proposition 5.7 with the paper's two claims only.

    The sharper ones beyond the paper follow from those on separable data (section 7), and are searched there. They are
    tighter, so that beside them the paper's would not be minimised.
    """
    return replace(statement, claims=statement.claims[:2])


_NICE_DATA: dict[InputKind, Statement] = {
    "orthogonally separable": _of_the_paper(proposition_5_7.SEPARABLE),
    "boundary": _of_the_paper(proposition_5_7.BOUNDARY),
    "nearly orthogonal": _of_the_paper(proposition_5_7.NEARLY_ORTHOGONAL),
}

TARGETS: list[Target] = [
    *(Target(equation_1.STATEMENT, rule, "any", "any") for rule in _RULES),
    *(Target(_THEOREM_5_1, rule, "separable") for rule in _RULES),  # where a mu > 0 exists
    *(Target(theorem_5_2.STATEMENT, rule, "any", "any") for rule in _RULES),
    Target(proposition_5_3.STATEMENT, "sign-fa", "any", "any"),
    Target(lemma_5_4.STATEMENT, "fa", "any"),
    *(Target(statement, rule, kind) for kind, statement in _NICE_DATA.items() for rule in _RULES),
    *(Target(proposition_5_7.ANY_SEPARABLE, rule, "separable") for rule in _RULES),
    *(Target(proposition_5_7.LOGISTIC, rule, "separable", loss="logistic") for rule in _RULES),
    *(Target(equation_1.ANGLE, rule, "any", "each") for rule in _RULES),
    Target(any_start.STATEMENT, "fa", "separable", "any"),
    *(Target(margin_growth.STATEMENT, rule, "any", "each") for rule in _RULES),
    *(Target(margin_growth.DESCENT, rule, "any", "each", "logistic") for rule in _RULES),
]
"""As `--data` checks them, with exponential loss unless said."""

SEARCHED = tuple(dict.fromkeys(target.statement.name for target in TARGETS))
"""The names of the statements that are searched."""
