"""Cases that have one of their statement's claims each, on instances that are no ensembles: steps, or networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from theorems.check import Check, Examined, Role, Statement, combined
from theorems.hypothesis import Hypothesis
from theorems.measurement import Claim, Compared, Margin


def named_claim(name: str, kind: Literal["inequality", "equality"]) -> Claim:
    """A claim of such a statement, which has its name and kind; what is compared is for a case to say."""
    return Claim(name, kind, lambda _: Compared(torch.zeros(()), torch.ones(())))


def examined_on_claim(
    claim: str, margin: Margin, hypotheses: Sequence[Hypothesis], number: int, place: str
) -> Examined:  # fmt: skip
    """What the claim comes to on instance `number` of a case; `place` is where the margin sits."""
    entry = {
        "margin": margin.margin.item(),
        "error_bound": margin.error.item(),
        "trajectory": number,
        "time": margin.time.item(),
        "place": place,
    }
    return Examined(hypotheses, [margin], {"trajectories": 1, "claims": {claim: entry}})


def combined_on_claim(statement: Statement, claim: str, label: str, role: Role, instances: Sequence[Examined]) -> Check:
    """The check of a case from what the claim comes to on its instances."""
    claims = [item for item in statement.claims if item.name == claim]
    found = combined(replace(statement, claims=claims), label, role, instances)
    return replace(found, details={name: value for name, value in found.details.items() if name != "runs"})
