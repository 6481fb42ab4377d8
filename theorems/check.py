"""Verdicts: what a claim, a hypothesis and a check are (theorems/README.md, section 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowsim import Flow, Solution
from flowsim.observables import dominance_ratio
from flowsim.weights import NetworkWeights

Verdict = Literal["holds", "violated", "undecided"]
Role = Literal["theorem", "control"]

EQUALITY_ERROR = 1e-9
"""An equality counts only if its relative error bound is at most this."""

GRID = 200
"""Logarithmically spaced times at which margins are evaluated, besides 0 and both sides of every located event."""

BESIDE = 1e-6
"""How far from a kink, relative to its time, its sides are taken: observables may jump there."""

ON_KINK = 1e-12
"""A neuron is on a kink, up to rounding, if |z| is at most so large, relative to |x| |w|."""

ROUNDING_PER_STEP = 16
"""Roundings of a weight per step: the terms of a series, or the stages of a step, are summed for the state and again in
dense output."""


@dataclass(frozen=True)
class Hypothesis:
    """A condition of a statement: it holds for a trajectory where `slack >= 0` (`> 0` if strict).

    Args:
        name: the condition as a formula.
        slack: one number per trajectory, `*batch`.
        strict: whether the condition is a strict inequality.
        rounding: bound on the rounding error of the slack; so much below 0 still holds, if not strict.
    """

    name: str
    slack: Float[Tensor, "*batch"]
    strict: bool = False
    rounding: Tensor | float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it holds for every trajectory.

        >>> Hypothesis("gamma > 0", torch.tensor(0.0), strict=True).holds
        False
        """
        return bool((self.slack > 0).all() if self.strict else (self.slack >= -self.rounding).all())


@dataclass(frozen=True)
class Claim:
    """One conclusion of a statement, as numbers along a solution.

    Args:
        name: the conclusion as a formula.
        kind: "inequality": all values must be positive; "equality": all must vanish.
        values: of a solution at times in increasing order, `times x *batch x parts`, relative to the size of what is
            compared.
    """

    name: str
    kind: Literal["inequality", "equality"]
    values: Callable[[Solution, Tensor], Float[Tensor, "times *batch parts"]]


@dataclass(frozen=True)
class Statement:
    """A statement of the paper: where it is found, what it assumes, what it claims.

    Args:
        name: the module's name.
        title: the statement's number and subject.
        formula: what it says, in one line.
        hypotheses: measured on a solution at given times.
        claims: its conclusions.
        constants: of the statement on a solution, by name, to be reported.
    """

    name: str
    title: str
    formula: str
    hypotheses: Callable[[Solution, Tensor], list[Hypothesis]]
    claims: Sequence[Claim]
    constants: Callable[[Solution, Tensor], dict[str, Tensor]] = lambda solution, times: {}


@dataclass(frozen=True)
class Case:
    """A statement on an ensemble: a theorem case meets the hypotheses; a control breaks one of them."""

    statement: Statement
    label: str
    role: Role
    solution: Callable[[], Solution]


@dataclass(frozen=True)
class Check:
    """The outcome of a case, as `python -m theorems --json` writes it."""

    name: str
    case: str
    role: Role
    verdict: Verdict
    margin: float | None
    error_bound: float | None
    trajectories: int
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        """Whether a theorem holds, or a control is violated."""
        return self.verdict == ("holds" if self.role == "theorem" else "violated")


class DoesNotApplyError(ValueError):
    """The hypotheses of a statement do not hold; `hypotheses` tells which."""

    def __init__(self, statement: Statement, hypotheses: list[Hypothesis]) -> None:
        broken = [f"{item.name} (slack {item.slack.min().item():.4g})" for item in hypotheses if not item.holds]
        super().__init__(f"{statement.name} does not apply: {'; '.join(broken)}")
        self.hypotheses = hypotheses


class NoMarginError(ValueError):
    """A claim has no finite margin on a run: nothing can be decided."""


def sampled_times(solution: Solution) -> Float[Tensor, " times"]:
    """0, GRID logarithmically spaced times up to t_final, and both sides of every located event, in order."""
    device = solution.flow.dataset.inputs.device
    end = torch.tensor(solution.t_final, dtype=torch.float64, device=device)
    grid = torch.logspace(-5, 0, GRID, dtype=torch.float64, device=device) * end
    kinks = solution.events.time
    sides = [kinks * (1 - BESIDE), kinks * (1 + BESIDE)]
    return torch.cat([grid.new_zeros(1), grid, *sides]).clamp(max=end).unique()


@dataclass(frozen=True)
class Measurement:
    """A claim on a solution: its margins and their error bounds, `times x ensemble`.

    The margin is the smallest value of an inequality's parts, or minus the largest deviation of an equality's.
    """

    claim: Claim
    times: Float[Tensor, " times"]
    margins: Float[Tensor, "times ensemble"]
    errors: Float[Tensor, "times ensemble"]

    @property
    def violated(self) -> Bool[Tensor, " ensemble"]:
        """Where the margin lies below 0 by more than its error at some time."""
        return (self.margins < -self.errors).any(0)

    @property
    def holds(self) -> Bool[Tensor, " ensemble"]:
        """Where the margin exceeds its error throughout; for an equality, where it vanishes within a small error."""
        if self.claim.kind == "inequality":
            return (self.margins > self.errors).all(0)
        return ~self.violated & (self.errors <= EQUALITY_ERROR).all(0)

    @property
    def worst(self) -> dict[str, float]:
        """The smallest margin with its error bound, time and trajectory."""
        index, count = int(self.margins.argmin()), self.margins.shape[1]
        time, trajectory = divmod(index, count)
        return {
            "margin": self.margins[time, trajectory].item(),
            "error_bound": self.errors[time, trajectory].item(),
            "time": self.times[time].item(),
            "trajectory": trajectory,
        }


def measure(claim: Claim, solution: Solution, times: Float[Tensor, " times"]) -> Measurement:
    """Evaluate a claim along a solution and bound its error by that of the companion (section 10).

    The error bound is the largest difference between the two over the claim's parts, up to the time in question (an
    equality is judged as a whole: over the run), plus rounding accumulated over the steps.
    """
    here, there = (
        claim.values(curve, times).reshape(len(times), solution.batch_shape.numel(), -1)
        for curve in (solution, solution.companion)
    )
    steps = solution.statistics["steps"].reshape(-1).to(here)
    errors = (here - there).abs().amax(-1).cummax(0).values
    if claim.kind == "equality":
        errors = errors[-1].expand_as(errors)
    errors = errors + ROUNDING_PER_STEP * torch.finfo(here.dtype).eps * steps
    margins = here.amin(-1) if claim.kind == "inequality" else -here.abs().amax(-1)
    if not (torch.isfinite(margins).all() and torch.isfinite(errors).all()):
        raise NoMarginError(f"the claim {claim.name!r} has no finite margin on this problem")
    return Measurement(claim, times, margins, errors)


def verdict(measurements: Sequence[Measurement], role: Role) -> Verdict:
    """Combine the claims of all trajectories.

    A theorem holds if every claim holds on every trajectory, and is violated if one is. A control is violated only if
    every trajectory violates a claim.
    """
    violated = torch.stack([item.violated for item in measurements]).any(0)
    holds = torch.stack([item.holds for item in measurements]).all()
    if violated.any() if role == "theorem" else violated.all():
        return "violated"
    return "holds" if holds else "undecided"


def check(statement: Statement, label: str, role: Role, solution: Solution) -> Check:
    """Decide a statement on a solution.

    Raises:
        DoesNotApplyError: if a theorem's hypotheses do not hold there.
        NoMarginError: if a claim has no finite margin.
        ValueError: if a control breaks no hypothesis.
    """
    times = sampled_times(solution)
    hypotheses = statement.hypotheses(solution, times)
    applies = all(hypothesis.holds for hypothesis in hypotheses)
    if role == "theorem" and not applies:
        raise DoesNotApplyError(statement, hypotheses)
    if role == "control" and applies:
        raise ValueError(f"the control {statement.name}: {label} breaks no hypothesis")
    measurements = [measure(claim, solution, times) for claim in statement.claims]
    worst = min((item.worst for item in measurements), key=lambda item: item["margin"])
    details = {
        "hypotheses": {item.name: {"holds": item.holds, "slack": item.slack.min().item()} for item in hypotheses},
        "claims": {item.claim.name: item.worst for item in measurements},
        "constants": {name: value.tolist() for name, value in statement.constants(solution, times).items()},
        "t_final": solution.t_final,
        "solver": {name: count.tolist() for name, count in solution.statistics.items()},
    }
    return Check(
        name=statement.name,
        case=label,
        role=role,
        verdict=verdict(measurements, role),
        margin=worst["margin"],
        error_bound=worst["error_bound"],
        trajectories=solution.batch_shape.numel(),
        details=details,
    )


def run(case: Case) -> Check:
    """Solve a case and decide it; errors as in `check`, and `flowsim.IntegrationError`."""
    return check(case.statement, case.label, case.role, case.solution())


def follows_its_rule(solution: Solution) -> Hypothesis:
    """The hypothesis that weights move as the rule says, and by nothing else (decay, noise)."""
    start = solution.evaluate(0.0)
    pairs = zip(solution.flow.velocity(start).layers, Flow.velocity(solution.flow, start).layers, strict=True)
    difference = torch.stack([(moves - says).abs().amax((-2, -1)) for moves, says in pairs]).amax(0)
    return Hypothesis("d theta/dt = -fa", -difference)


def prescribed(solution: Solution, times: Tensor | float) -> tuple[NetworkWeights, NetworkWeights]:
    """The weights at the times, and the velocity d theta / dt that the rule prescribes there.

    The velocity comes from the formula of the rule, not from the solver, except for neurons whose phi' is not
    determined by the weights: |z| is below ON_KINK |x| |w|, because they slide or have just left a kink that they slid
    on. Theirs is the Filippov velocity.
    """
    rule_only = Flow(solution.flow.dataset, solution.flow.rule, solution.flow.loss, solution.flow.slope)
    weights = solution.evaluate(times)
    velocity = rule_only.velocity(weights)
    if len(weights.layers) > 2:
        return weights, velocity
    (pattern,), (z,) = solution.pattern(times), solution.flow.pre_activations(weights)
    lengths = solution.flow.dataset.inputs.norm(dim=-1).unsqueeze(-1) * weights.layers[0].norm(dim=-1).unsqueeze(-2)
    on_kink = ((pattern == 0) | (pattern != z.sign())) & (z.abs() <= ON_KINK * lengths)
    undetermined = on_kink.any(-2).unsqueeze(-1)
    if not undetermined.any():
        return weights, velocity
    hidden = torch.where(undetermined, solution.velocity(times).layers[0], velocity.layers[0])
    return weights, velocity.with_layers([hidden, velocity.layers[1]])


def dominance_along(solution: Solution, times: Tensor | float, alpha: float) -> Float[Tensor, "*times *batch"]:
    """<grad, fa> / L^alpha along a solution, with the velocity that the rule prescribes."""
    weights, velocity = prescribed(solution, times)
    return dominance_ratio(solution.flow, weights, alpha, velocity)


def is_rule(solution: Solution, *rules: type) -> Hypothesis:
    """The hypothesis that the learning rule is one of the given."""
    name = " or ".join(rule.__name__ for rule in rules)
    return fact(f"rule is {name}", isinstance(solution.flow.rule, rules))


def layers_not_zero(solution: Solution) -> Hypothesis:
    """The hypothesis that the layers with feedback do not start at 0, where they have no direction."""
    norms = [layer.square().sum((-2, -1)) for layer in solution.evaluate(0.0).layers[1:]]
    return Hypothesis("W_l(0) != 0", torch.stack(norms).amin(0), strict=True)


def fact(name: str, true: bool) -> Hypothesis:
    """A hypothesis that is true or false, with nothing to measure."""
    return Hypothesis(name, torch.tensor(0.0 if true else -torch.inf))
