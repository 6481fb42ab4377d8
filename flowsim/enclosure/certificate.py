"""Writes certificates: all that `flowsim.enclosure.checker` needs to check a run, and claims about it, again.

What the enclosure found is recorded: modes, discs, tails, times of events. What the checker would have to search for
is found here, with the checker's own formulas: tails that suffice for it, balls for the weights at the start of each
step, and pieces on which it can see a sign.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, lcm, log10
from operator import mul
from pathlib import Path
from typing import Any

from flint import arb, ctx, fmpq

from flowsim.enclosure import checker
from flowsim.enclosure.enclosure import Enclosure
from flowsim.enclosure.exact import ExactProblem, Number
from flowsim.enclosure.modes import Mode
from flowsim.enclosure.points import Point, alignment, conserved, descent_product, risk
from flowsim.enclosure.roots import Unseparated
from flowsim.enclosure.steps import Change, Step
from flowsim.files import whole

SPARE = 1.01
"""Tails and radii are recorded so much larger: roundings of another version of Arb must not matter."""

SHRUNK = (0.99, 0.9, 0.8)
"""Discs are recorded so much smaller, the first that will do."""

TRIES = 40
"""Tails, times of events and cuts looked for, each larger or finer than the last."""

ZERO, ONE = arb(0), arb(1)

DEEPEST = 100
"""Steps are halved at most so often."""


@dataclass(frozen=True)
class Claim:
    """An observable stays above `lower` on [0, t_final], and comes down to `upper` at `time`; either may be None.

    `observable`: "risk"; "descent", <grad, fa>; "dominance", <grad, fa> / L^alpha with alpha 1 or 2; "alignment",
    cos(v, b); "sign", b_j v_j of a neuron; "gap", b_j v_j - |w_j|^2 / 2 (v_j^2 / 2 for b_j v_j under GD); the last
    two also `negated`, for bounds from above.
    """

    observable: str
    lower: Fraction | None = None
    upper: Fraction | None = None
    time: Number | None = None
    alpha: int = 2
    neuron: int = 0
    negated: bool = False


OBSERVABLES: dict[str, Callable[[Claim, Point[Any]], Any]] = {
    "risk": lambda _, point: risk(point),
    "descent": lambda _, point: descent_product(point),
    "dominance": lambda claim, point: descent_product(point) / risk(point) ** claim.alpha,
    "alignment": lambda _, point: alignment(point),
    "sign": lambda claim, point: _of_neuron(claim, point, list(map(mul, point.feedback_merged, point.output_merged))),
    "gap": lambda claim, point: _of_neuron(claim, point, conserved(point)),
}
"""What claims are about, as `Enclosure.infimum` takes it: the checker has formulas of its own."""


def _of_neuron(claim: Claim, point: Point[Any], merged: list[Any]) -> Any:
    number = merged[point.problem.neuron_of[claim.neuron]]
    return -number if claim.negated else number


def infimum_claim(enclosure: Enclosure, claim: Claim, digits: int = 20) -> Claim:
    """The claim that the infimum of an observable has so many digits, or those that balls allow: bounds and a time."""
    found = enclosure.infimum(lambda point: OBSERVABLES[claim.observable](claim, point), digits=digits + 5)
    with checker.digits(enclosure.bits):
        lower, upper = (Fraction(str(bound.fmpq())) for bound in (found.lower, found.upper))
        time = max(Fraction(str(found.time.mid().fmpq())), Fraction(0))
    finest = max(abs(upper) / 10**digits, 100 * (upper - lower))  # the checker's balls may be wider
    unit = Fraction(10) ** ceil(log10(finest)) if finest else Fraction(1, 10**digits)
    return replace(claim, lower=(lower // unit - 1) * unit, upper=(upper // unit + 2) * unit, time=time)


def write_certificate(enclosure: Enclosure, path: str | Path, claims: Iterable[Claim] = ()) -> None:
    """Write a certificate of an enclosure and of claims about it as a JSON file.

    Raises:
        Unseparated: if a claim, or a step, cannot be proved with the checker's means at the enclosure's bits.
        OSError: if the file cannot be written.
    """
    text = json.dumps(certificate(enclosure, list(claims)), separators=(",", ":"))
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def certificate(enclosure: Enclosure, claims: Sequence[Claim] = ()) -> dict[str, Any]:
    """The certificate as what JSON knows: see `write_certificate`."""
    data = _data(enclosure.problem)
    with checker.digits(enclosure.bits):
        problem, records = checker.CertifiedProblem(data), []
        stated = [_stated(claim) for claim in claims]
        start = [*(entry for n in problem.neurons for entry in n.hidden), *(n.output for n in problem.neurons)]
        balls, vanishing, before = [arb(entry) for entry in start], {}, None
        time = latest = arb(0)
        for number, step in enumerate(enclosure.steps):
            length = step.length
            if number + 1 == len(enclosure.steps):  # a little more, so that t_final is reached for certain
                length = (enclosure.t_final * (1 + arb(2) ** (8 - enclosure.bits)) - time).upper()
            record, checked = _provable(problem, step, balls, length)
            if before is None:
                vanishing = checker.check_begins(problem, checked)
            else:
                vanishing = checker.check_passes(before, records[-1]["event"], checked)
            checked = _timed(problem, record, checked, vanishing)
            for claim, given in zip(stated, claims, strict=True):
                _add(claim, given, checked, number, time, (latest, enclosure.t_final))
            records.append(record)
            latest += checked.disc * checked.end
            before, time = checked, time + checked.disc * checked.begin
            balls = [arb(end.mid(), end.rad() * SPARE) for end in checked.at_end(checked.weights)]
    t_final = str(enclosure.t_final.fmpq())
    return {
        "format": checker.FORMAT, "bits": enclosure.bits, "data": data, "t_final": t_final,
        "steps": records, "claims": stated,
    }  # fmt: skip


def _data(problem: ExactProblem) -> dict[str, Any]:
    """The problem without merging; equal samples stand side by side."""
    neurons = [problem.neurons[j] for j in problem.neuron_of]
    samples = [i for i, count in enumerate(_counts(problem)) for _ in range(count)]
    return {
        "inputs": [[str(problem.inputs[i, c]) for c in range(problem.dimension)] for i in samples],
        "labels": [problem.samples[i].label for i in samples],
        "hidden": [[str(entry) for entry in neuron.hidden] for neuron in neurons],
        "output": [str(neuron.output) for neuron in neurons],
        "feedback": [str(n.feedback) for n in neurons if n.feedback is not None] if problem.fixed else None,
        "scale": None if problem.scale is None else str(problem.scale),
        "slope": str(problem.slope),
        "loss": problem.loss.name,
    }


def _counts(problem: ExactProblem) -> list[int]:
    """How often each sample occurs."""
    whole = lcm(*(int(sample.weight.q) for sample in problem.samples))
    return [int((sample.weight * whole).p) for sample in problem.samples]


def _dyadic(number: arb) -> str:
    """An exact ball as the checker reads it."""
    mantissa, exponent = number.man_exp()
    return f"{int(mantissa):x}p{int(exponent)}"


def _ball(number: arb) -> str:
    return f"{_dyadic(number.mid())} {_dyadic(number.rad())}"


def _letters(problem: ExactProblem, mode: Mode) -> str:
    """The letters of a mode, one per sample: see `checker.Mode`."""
    found = ""
    for sample, count in zip(problem.samples, _counts(problem), strict=True):
        side = 1 if sample.kink is None else mode.sides[sample.kink]
        rests = sample.kink in mode.resting
        upper = sample.kink is None or side * sample.factor > 0
        letter = "0" if side == 0 else ("a" if upper else "i") if rests else "+" if upper else "-"
        found += letter * count
    return found


def _event(problem: ExactProblem, changes: tuple[Change, ...]) -> dict[str, Any] | None:
    """The change that all others of the same event follow from: an arrival, if there is one."""
    if not changes:
        return None
    change = next((one for one in changes if one.before != 0), changes[0])
    if change.kink is None:
        return {"neuron": change.neuron, "sample": None}
    first = next(i for i, one in enumerate(problem.samples) if one.kink == change.kink)
    event = {"neuron": change.neuron, "sample": sum(_counts(problem)[:first])}
    if change.before != 0:
        return event
    # The checker's normals may point the other way: its upper side is that of a positive first coordinate.
    lead = next(entry for entry in problem.normals.tolist()[change.kink] if entry)
    return event | {"to": "up" if change.after * lead > 0 else "down"}


def _provable(
    problem: checker.CertifiedProblem, step: Step, balls: list[arb], length: arb
) -> tuple[dict[str, Any], checker.Step]:
    """The record of a step, without pieces, with tails that the checker can prove."""
    for shrunk in SHRUNK:
        record = _record(step, balls, length, _short(step.disc.rho * shrunk))
        tails = [_short(curve.tail) for curve in (*step.hidden, *step.output)]
        checked = checker.Step(problem, record | {"tails": [_dyadic(tail) for tail in tails]})
        for _ in range(TRIES):
            image = checked.image()
            if not all(bound.is_finite() for bound in image):
                break
            if all(new <= one.tail <= new * SPARE**2 for new, one in zip(image, checked.weights, strict=True)):
                return record | {"tails": [_dyadic(one.tail) for one in checked.weights]}, checked
            checked.expand([_short(SPARE * new) for new in image])
    raise Unseparated("the checker finds no tails that it can prove")


def _record(step: Step, balls: list[arb], length: arb, disc: arb) -> dict[str, Any]:
    """The record of a step without tails and pieces."""
    source = step.state.modes[0].problem
    share = length / disc if step.changes else (length / disc).upper()
    return {
        "modes": [_letters(source, mode) for mode in step.state.modes],
        "signs": "".join("-0+"[mode.sign + 1] for mode in step.state.modes),
        "start": [_ball(ball) for ball in balls],
        "order": step.disc.order,
        "disc": _dyadic(disc),
        "length": [_dyadic(share.lower()), _dyadic(share.upper())],
        "event": _event(source, step.changes),
        "pieces": {},
    }


def _short(number: arb) -> arb:
    """A number of few digits above."""
    with checker.digits(24):
        return number.upper()


def _timed(
    problem: checker.CertifiedProblem, record: dict[str, Any], checked: checker.Step, vanishing: dict[str, int]
) -> checker.Step:
    """Add to a record the time of its event, wide enough for the checker to see it, and the pieces of all watches."""
    meeting = checker.event_names(checked, record["event"])
    if meeting:
        watches = checker.watched(checked, vanishing)
        begin, end = checked.begin, checked.end
        width = (end - begin + end * arb(2) ** (8 - checker.ctx.prec)).upper()
        for _ in range(TRIES):
            if all(watches[name].at(begin) > 0 and watches[name].at(end) < 0 for name in meeting):
                break
            begin, end, width = (begin - width).lower(), (end + width).upper(), 4 * width
        else:
            raise Unseparated("the checker finds no time of an event that it can prove")
        record["length"] = [_dyadic(begin), _dyadic(end)]
        checked.begin, checked.end = begin, end
    for name, series in checker.watched(checked, vanishing).items():
        cuts = _event_cuts(series, checked.end) if name in meeting else _cuts([series], checked.end, all)
        if cuts:
            record["pieces"][name] = cuts
    checker.check_lasts(checked, record, vanishing)
    return checked


def _event_cuts(series: checker.Series, end: arb) -> list[str]:
    """Pieces up to the one in which the series falls through 0."""
    cut = arb(0)
    for _ in range(TRIES):
        if checker.falls(series, (end * cut).lower(), end):
            return [] if cut == 0 else [*_cuts([series], end, all, arb(0), cut), _dyadic(cut)]
        cut = (1 + cut) / 2
    raise Unseparated("the checker does not see how a function falls at an event")


def _cuts(
    series: list[checker.Series], length: arb, every: Callable[[Iterable[bool]], bool],
    low: arb = ZERO, high: arb = ONE, depth: int = 0,
) -> list[str]:  # fmt: skip
    """The fractions of the length between `low` and `high` at which pieces end on which all (any) are positive."""
    piece = (length * low).lower(), (length * high).upper()
    if every(checker.positive(one, *piece) for one in series):
        return []
    if depth == DEEPEST:
        raise Unseparated("the checker cannot prove a sign")
    middle = (low + high) / 2
    left = _cuts(series, length, every, low, middle, depth + 1)
    return [*left, _dyadic(middle), *_cuts(series, length, every, middle, high, depth + 1)]


def _stated(claim: Claim) -> dict[str, Any]:
    """A claim as it is recorded, without pieces and witness."""
    keys = {"dominance": ("alpha",), "sign": ("neuron", "negated"), "gap": ("neuron", "negated")}
    given = {key: getattr(claim, key) for key in keys.get(claim.observable, ())}
    lower, upper = (None if bound is None else str(Fraction(bound)) for bound in (claim.lower, claim.upper))
    return {"observable": claim.observable, **given, "lower": lower, "upper": upper, "pieces": {}}


def _add(
    stated: dict[str, Any], claim: Claim, checked: checker.Step, number: int, time: arb, bounds: tuple[arb, arb]
) -> None:
    """Add to a claim the pieces of one step, and the witness if its time is in that step.

    `bounds`: the latest time at which the step starts, and t_final, which the witness must not be behind.
    """
    latest, t_final = bounds
    if claim.lower is not None:
        every, series = checker.above(checked, stated, checker.exact(stated["lower"]))
        if cuts := _cuts(series, checked.end, every):
            stated["pieces"][str(number)] = cuts
    if claim.upper is not None and claim.time is not None and "step" not in stated:
        local = ((arb(fmpq(*Fraction(claim.time).as_integer_ratio())) - time) / checked.disc).mid()
        if local <= checked.begin:
            last = ((t_final * (1 - arb(2) ** (8 - ctx.prec)) - latest) / checked.disc).lower()  # rounding included
            stated |= {"step": number, "time": _dyadic(max(min(local, last), arb(0)))}
    checker.check_claim(checked, number, stated | {"step": stated.get("step")}, *bounds)
