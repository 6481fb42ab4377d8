"""Certificates of proved verdicts: what they rest on, for a checker that shares no code with what proved it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

from flowsim.enclosure.certificate import Claim, infimum_claim, write_certificate
from flowsim.enclosure.roots import Unseparated
from flowsim.errors import Undecided
from flowsim.shell import Attempts
from theorems.rigorous.alignment import output_not_zero
from theorems.rigorous.claims import EnclosedRun

CONSERVED = Fraction(1, 10**20)
"""What Theorem 5.2 conserves is certified to stay within this of what it is at t = 0."""

DIGITS = 10
"""Of infima."""


def claims_of(run: EnclosedRun) -> list[Claim]:
    """What the statements say of a run: Theorem 5.2's law, the least dominance ratio, and the least cosine.

    The verdicts compare the last two with constants of the data, such as mu, which are rational numbers.
    """
    claims = [infimum_claim(run.enclosure, Claim("dominance"), DIGITS)]
    if run.instance.rule != "GD" and output_not_zero(run).holds:
        claims.append(infimum_claim(run.enclosure, Claim("alignment"), DIGITS))
    for neuron, gap in enumerate(run.instance.gaps):
        claims.append(Claim("gap", lower=gap - CONSERVED, neuron=neuron))
        claims.append(Claim("gap", lower=-gap - CONSERVED, neuron=neuron, negated=True))
    return claims


def write_certificates(
    paths: Mapping[str, Path], runs: Mapping[str, Callable[[], EnclosedRun]], failed: Attempts
) -> None:
    """Write the certificate of the run under each rule; those that cannot be are noted as failed."""
    for rule, enclosed in runs.items():
        with failed.at(f"--certificate {paths[rule]}"):
            try:
                run = enclosed()
                write_certificate(run.enclosure, paths[rule], claims_of(run))
            except (Undecided, Unseparated) as stop:
                failed.stopped.append(f"--certificate {paths[rule]}: {stop}")
