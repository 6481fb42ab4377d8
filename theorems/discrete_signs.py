"""Lemma 5.4 for gradient steps of finite size under FA, beyond the paper (section 14.6).

    b_j v_j(n) = c_j(0) + |w_j(n)|^2 / 2 - sum_k eta^2 |Delta_1j(k)|^2 / 2

after n full-batch steps W <- W + eta Delta. So b_j v_j stays positive while c_j(0) >= sum_k eta^2 |Delta_1j|^2 / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import FeedbackAlignment, Flow, Weights, descent
from flowsim.activation import Activation, Tanh
from flowsim.data import Dataset
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.observables import conserved
from theorems.check import Check, Examined, Role, Statement, require_role
from theorems.ensembles import SLOPE, SMALL, WIDTH, Scope, dataset_of
from theorems.hypothesis import Hypothesis, fact
from theorems.measurement import Compared, Margin
from theorems.one_claim import combined_on_claim, examined_on_claim, named_claim
from theorems.thresholds import EQUALITY_ERROR, RESOLVED, ROUNDING_PER_STEP


class History(NamedTuple):
    """What the steps of a descent did to each neuron, before the first step and after each.

    Args:
        products: b_j v_j.
        norms: |w_j|^2 / 2.
        spent: the sum of eta^2 |Delta_1j|^2 / 2 so far.
        homogeneous: the largest |phi'(z) z - phi(z)|.
    """

    products: Float[Tensor, "times m"]
    norms: Float[Tensor, "times m"]
    spent: Float[Tensor, "times m"]
    homogeneous: float


@dataclass(frozen=True, eq=False)
class Descent:
    """Some full-batch steps of FA with two layers and scalar output."""

    flow: Flow
    weights: Weights
    eta: float
    steps: int

    @cached_property
    def history(self) -> History:
        """Take the steps."""
        state, off, columns = descent.start(self.weights), 0.0, []
        for taken in range(self.steps + 1):
            hidden, spent = state.weights.layers[0], -state.correction[0]
            columns.append((*self.flow.rule.potentials(state.weights), 0.5 * hidden.square().sum(-1), spent))
            (z,) = self.flow.pre_activations(state.weights)
            value, slope = self.flow.activation(z)
            off = max(off, (slope * z - value).abs().max().item())
            if taken < self.steps:
                state = descent.step(self.flow, state, self.eta)
        products, norms, spent = (torch.stack(column) for column in zip(*columns, strict=True))
        return History(products, norms, spent, off)

    @property
    def gaps(self) -> Float[Tensor, " m"]:
        """c_j(0)."""
        return conserved(self.flow, self.weights)[0]

    @property
    def rounding(self) -> float:
        """Of what the steps add up, relative to its size."""
        return ROUNDING_PER_STEP * torch.finfo(torch.float64).eps * self.steps


def change(run: Descent, factor: float = 1.0) -> Compared:
    """b_j v_j - c_j(0) - |w_j|^2 / 2 + factor times what was spent, and the sum of the sizes of its terms."""
    products, norms, spent, _ = run.history
    return Compared(products - run.gaps - norms + factor * spent, products.abs() + run.gaps.abs() + norms + spent)


def signs(run: Descent) -> Compared:
    """b_j v_j, and the sum of |c_j(0)|, |w_j|^2 / 2 and what was spent, of all neurons."""
    products, norms, spent, _ = run.history
    return Compared(products, (run.gaps.abs() + norms + spent).sum(-1, keepdim=True).expand_as(products))


EXACT = "b_j v_j(n) = c_j(0) + |w_j(n)|^2 / 2 - sum eta^2 |Delta_1j|^2 / 2"
KEPT = "b_j v_j(n) > 0"


STATEMENT = Statement(
    name="discrete_signs",
    title="Lemma 5.4 for gradient steps, signs are kept while gaps last",
    formula=r"b_j v_j(n) = c_j(0) + \tfrac12|w_j(n)|^2 - \tfrac12 \sum_{k < n} \eta^2 |\Delta_{1j}(k)|^2, \qquad "
    r"c_j(0) \ge \tfrac12 \sum_{k < n} \eta^2 |\Delta_{1j}(k)|^2 \ \Rightarrow\ b_j v_j(n) \ge 0",
    hypotheses=lambda _: [],
    claims=[named_claim(EXACT, "equality"), named_claim(KEPT, "inequality")],
    beyond=True,
)
"""A case has one of its claims, and hypotheses of its own: they are about steps, not solutions."""


def is_homogeneous(run: Descent) -> Hypothesis:
    """The hypothesis phi'(z) z = phi(z)."""
    return Hypothesis("phi'(z) z = phi(z)", torch.tensor(-run.history.homogeneous))


def gaps_last(run: Descent) -> Hypothesis:
    """The hypothesis that c_j(0) is at least what was spent."""
    slack = (run.gaps - run.history.spent[-1]).amin()
    return Hypothesis("c_j(0) >= sum eta^2 |Delta_1j|^2 / 2", slack, rounding=run.rounding)


@dataclass(frozen=True)
class Case:
    """A claim on descents: a theorem case meets the hypotheses; a control breaks one of them.

    Args:
        label: what the descents are.
        role: theorem or control.
        claim: what is said of them.
        hypotheses: of a descent.
        values: what the claim compares.
        runs: the descents.
        statement: that it is a case of.
    """

    label: str
    role: Role
    claim: str
    hypotheses: Callable[[Descent], list[Hypothesis]]
    values: Callable[[Descent], Compared]
    runs: Sequence[Descent]
    statement: Statement = STATEMENT

    def examined(self, number: int) -> Examined:
        """Take the steps of a descent and measure.

        Raises:
            DoesNotApplyError: if a theorem's hypotheses do not hold there.
            ValueError: if a control breaks no hypothesis.
        """
        run = self.runs[number]
        hypotheses = self.hypotheses(run)
        require_role(self.statement, self.label, self.role, hypotheses)
        margin = _margin(self.values(run), run, equality=self.claim == EXACT)
        place = f"step {margin.time.item() / run.eta:.0f}"
        return examined_on_claim(self.claim, margin, hypotheses, number, place)

    def combined(self, descents: Sequence[Examined]) -> Check:
        """The check of the case, as `theorems.check` decides on the claim."""
        return combined_on_claim(self.statement, self.claim, self.label, self.role, descents)


def _margin(compared: Compared, run: Descent, equality: bool) -> Margin:
    """The smallest ratio of all steps and neurons, or minus the largest deviation of an equality, up to rounding."""
    ratios = compared.excess / compared.size
    smallest, index = (-ratios.abs() if equality else ratios).flatten().min(0)
    time, part = run.eta * (index // ratios.shape[-1]), index % ratios.shape[-1]
    error = torch.as_tensor(run.rounding, dtype=ratios.dtype)
    violated = -smallest > (error.clamp(min=EQUALITY_ERROR) if equality else error + RESOLVED)
    return Margin(*(column.reshape(1) for column in (smallest, smallest - error, time, part, violated)))


# --- descents ---


@cache
def shrinking(seed: int, eta: float, activation: Activation | None = None) -> Descent:
    """Exponential loss, orthonormal inputs, w_j near -0.3 b_j sum_i y_i x_i, c_j = 0.02, up to the time 10.

    Each |w_j| shrinks first, and where it is 0 only c_j less what was spent is left of b_j v_j.
    """
    dataset = dataset_of("boundary", SMALL, seed)
    signs = random_signs(WIDTH, seed)
    rule = FeedbackAlignment(signs)
    hidden = -0.3 * signs.unsqueeze(-1) * (dataset.labels.unsqueeze(-1) * dataset.inputs).sum(-2)
    hidden = hidden + 0.03 * gaussian(WIDTH, dataset.dimension, seed).hidden
    slope = SLOPE if activation is None else None
    flow = Flow(dataset, rule, slope=slope, activation=activation)
    return Descent(flow, with_gaps(hidden, rule, 0.02), eta, round(10 / eta))


def onto_zero(share: float) -> Descent:
    """One sample, an inactive neuron w = -x, and the step that takes it to 0; c is a share of |eta Delta|^2 / 2."""
    rule = FeedbackAlignment([1.0])
    flow = Flow(Dataset([[1.0, 0.0]], [1]), rule, "logistic", SLOPE)
    weights = with_gaps(torch.tensor([[-1.0, 0.0]], dtype=torch.float64), rule, 0.5 * share)
    return Descent(flow, weights, 1 / flow.velocity(weights).layers[0][0, 0].item(), 1)


def cases(scope: Scope) -> list[Case]:
    """Small steps and large ones; a step that spends a percent less or more than the gap."""

    def case(label: str, role: Role, claim: str, runs: Sequence[Descent], factor: float = 1.0) -> Case:
        counted = fact("what the size of steps spends is counted as stated", factor == 1)
        if claim == EXACT:
            values = partial(change, factor=factor)
            return Case(label, role, claim, lambda run: [is_homogeneous(run), counted], values, runs)
        return Case(label, role, claim, lambda run: [is_homogeneous(run), gaps_last(run)], signs, runs)

    def several(eta: float, activation: Activation | None = None) -> list[Descent]:
        return [shrinking(seed, eta, activation) for seed in range(scope.seeds)]

    small, large = several(0.05), several(0.5)
    return [
        case("eta = 0.05", "theorem", EXACT, small),
        case("eta = 0.5", "theorem", EXACT, large),
        case("eta = 0.05, signs", "theorem", KEPT, small),
        case("one step, 1.01 of what it spends", "theorem", KEPT, [onto_zero(1.01)]),
        case("eta = 0.5, signs", "control", KEPT, large),
        case("one step, 0.99 of what it spends", "control", KEPT, [onto_zero(0.99)]),
        case("1.01 times what steps spend", "control", EXACT, small, 1.01),
        case("what steps spend left out", "control", EXACT, small, 0.0),
        case("tanh", "control", EXACT, several(0.05, Tanh())),
    ]
