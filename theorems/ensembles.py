"""The ensembles that the checks run on, and their solutions, each solved once per process.

Every function returns the solution of an ensemble with one trajectory per seed 0 .. seeds-1. Flows with another
activation than leaky ReLU are left to a Runge-Kutta method, and are small and short.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch

from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
    Weights,
    data,
    solve,
)
from flowsim.activation import Activation
from flowsim.initialization import adafa, deep_gaussian, gaussian, random_signs, with_gaps
from flowsim.integrators import LOOSER
from flowsim.losses import Loss
from flowsim.rules import Rule
from flowsim.weights import AnyWeights, stack
from theorems.controls import joined

RTOL, ATOL, MAX_STEPS = 1e-13, 1e-15, 100_000
DIMENSION, WIDTH, SAMPLES = 6, 6, 5
SLOPE, KAPPA, GAP, SCALE = 0.3, 0.2, 0.05, 0.5
T_FINAL = 30.0

RuleName = Literal["gd", "fa", "adafa", "sign-fa"]
MarginRule = Literal["fa", "sign-fa"]
TightKind = Literal["single", "identical", "orthogonal", "simplex"]
DataKind = Literal["separable", "boundary", "nearly orthogonal", "contradictory", "opposed"]


class Shape(NamedTuple):
    """Samples n, width m and slope gamma: the same for all trajectories of an ensemble."""

    samples: int
    width: int
    slope: float


QUICK = (Shape(4, 5, 0.3), Shape(8, 20, 0.1))
FULL = tuple(
    Shape(samples, width, slope)
    for (samples, width), slope in zip(
        itertools.product([4, 16], [5, 20, 50]), itertools.cycle([0.3, 0.1, 0.9, 0.5]), strict=False
    )
)
WIDE = (Shape(4, 50, 0.9), Shape(4, 200, 0.5))
TALL = Shape(64, 20, 0.5)
GAUSSIAN, LARGE_GAUSSIAN, DEEP, SMOOTH = Shape(10, 4, 0.3), Shape(20, 16, 0.1), Shape(10, 8, 0.3), Shape(3, 4, 0.7)
SMALL = Shape(SAMPLES, WIDTH, SLOPE)
"""For controls."""


@dataclass(frozen=True)
class Scope:
    """How much to run: trajectories per ensemble, the device, whether to take all shapes, and whether to prove."""

    seeds: int
    device: str
    full: bool = False
    rigorous: bool = False

    def shapes(self, kind: DataKind, wide: bool = False) -> tuple[Shape, ...]:
        """The shapes to run data of a kind on, with wide networks where a statement is about widths."""
        if self.full:
            # 64 orthogonal inputs need 64 dimensions, which makes them slow
            tall = TALL if kind == "separable" else Shape(64, 5, 0.9)
            return tuple(dict.fromkeys((*FULL, *WIDE, tall)))  # one of the wide ones is among them
        return (*QUICK, Shape(64 if kind == "separable" else 16, 5, 0.7), *(WIDE if wide else ()))


def has_events(flow: Flow) -> bool:
    """Whether the event-driven integrator can solve it: leaky ReLU, and nothing moves it but rule and decay."""
    return flow.moves_as_given and flow.activation.leaky_slope is not None


def solved(
    flow: Flow, weights: AnyWeights, t_final: float, device: str, *, looser: float = 1.0
) -> Solution[AnyWeights]:
    """The solution at the tolerances of the checks, times `looser`, on the device.

    That is the CPU for deep networks and weight decay, which the event-driven integrator takes there only.
    """
    device = "cpu" if len(weights.layers) > 2 or flow.decay > 0 else device
    on_device = flow.map_matrices(weights, lambda matrix: matrix.to(device))
    method = "event" if has_events(flow) else "dopri8"
    return solve(*on_device, t_final, method=method, rtol=looser * RTOL, atol=looser * ATOL, max_steps=MAX_STEPS)


@cache
def margin_run(
    kind: DataKind,
    rule: MarginRule,
    shape: Shape,
    seeds: int,
    device: str,
    *,
    loss: str | Loss = "exponential",
    gap: float = GAP,
    t_final: float = T_FINAL,
) -> Solution[Weights]:
    """Two layers, scalar output, gaps c_j = gap e^{N(0, 1)}: the setting of Lemma 5.4 and Proposition 5.7.

    No neuron slides on separable data with c_j > 0 (section 1); elsewhere slope = 1 has no kinks.
    """
    dataset = data.stack([dataset_of(kind, shape, seed) for seed in range(seeds)])
    scale = shape.width**-0.5
    hidden = torch.stack([gaussian(shape.width, dataset.dimension, seed, scale=scale).hidden for seed in range(seeds)])
    signs = torch.stack([random_signs(shape.width, seed) for seed in range(seeds)])
    generator = torch.Generator().manual_seed(shape.width)
    gaps = gap * torch.randn(seeds, shape.width, generator=generator, dtype=torch.float64).exp()
    if rule == "fa":
        learning: Rule = FeedbackAlignment(signs)
        weights = with_gaps(hidden, learning, gaps)
    else:
        learning = SignFeedbackAlignment(SCALE)
        weights = with_gaps(hidden, learning, gaps, signs)
    return solved(Flow(dataset, learning, loss, shape.slope), weights, t_final, device)


def dataset_of(kind: DataKind, shape: Shape, seed: int) -> Dataset:
    """Data of the kinds of section 7, and two that are not separable enough for it.

    "boundary": orthogonal inputs, M_ik = 0 off the diagonal. "nearly orthogonal": half the rho that Proposition 5.7
    allows. "contradictory": separable data with one input repeated under the opposite label. "opposed": nearly parallel
    inputs with both labels.
    """
    n, dimension = shape.samples, shape.samples + 1
    if kind == "nearly orthogonal":
        return data.nearly_orthogonal(n, dimension, 0.5 * shape.slope**2, seed)
    if kind == "boundary":
        return data.nearly_orthogonal(n, dimension, 0.0, seed)
    separable = data.orthogonally_separable(n, DIMENSION, KAPPA, seed)
    if kind == "separable":
        return separable
    inputs, labels = separable.inputs.clone(), separable.labels.clone()
    if kind == "contradictory":
        inputs[1], labels[1] = inputs[0], -labels[0]
        return Dataset(inputs, labels)
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype)
    return Dataset(inputs.new_ones(DIMENSION) / DIMENSION**0.5 + 0.05 * spread, labels)


@cache
def tight_run(
    inputs: TightKind, device: str, *, slope: float = SLOPE, loss: str = "exponential", gap: float = GAP
) -> Solution[Weights]:
    """One trajectory on which the constant of Proposition 5.7 is attained up to 0.1 %.

    All labels +1 and w_j = -h sum_i x_i with a small h, so that all g_i are equal, all neurons inactive, |grad_v|^2 is
    small, and S stays near S0. "identical" inputs attain gamma^2 S0 kappa, "orthogonal" ones gamma^2 S0 R^2 / n; a
    "simplex", x_i . x_k = -rho R^2 / n, attains the constant of nearly orthogonal data for gamma = 1. With a "single"
    input the risk has one part.
    """
    rows = _rows(inputs)
    rule = FeedbackAlignment(torch.ones(1, WIDTH))
    hidden = (-1e-3 * rows.sum(0)).expand(1, WIDTH, rows.shape[1])
    flow = Flow(Dataset(rows.unsqueeze(0), torch.ones(1, len(rows))), rule, loss, slope)
    return solved(flow, with_gaps(hidden, rule, gap), 1e-3, device)


TIGHT_SAMPLES = 4


def _rows(inputs: TightKind) -> torch.Tensor:
    """Inputs with the inner products of `tight_run`."""
    n = 1 if inputs == "single" else TIGHT_SAMPLES
    gram = {
        "single": torch.ones(1, 1),
        "identical": torch.ones(n, n),
        "orthogonal": torch.eye(n),
        "simplex": (1 + 0.5 / n) * torch.eye(n) - 0.5 / n * torch.ones(n, n),
    }[inputs].to(torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()


@cache
def one_wrong_sign_run(device: str) -> Solution[Weights]:
    """S0 = sum_j c_j > 0, but c_1 < 0: neuron 1, alone active, moves against the data, and outweighs the others.

    Then s_ik = gamma^2 sum_{j > 1} b_j v_j - |b_1 v_1| < 0, and so is <grad_W, fa_W>.
    """
    rows = _rows("identical")
    rule = FeedbackAlignment(torch.ones(1, WIDTH))
    sides = torch.tensor([1.0] + [-1.0] * (WIDTH - 1), dtype=torch.float64)
    hidden = (1e-3 * sides.unsqueeze(-1) * rows[0]).unsqueeze(0)
    gaps = torch.where(sides > 0, -2 * GAP, GAP).unsqueeze(0)
    flow = Flow(Dataset(rows.unsqueeze(0), torch.ones(1, TIGHT_SAMPLES)), rule, slope=SLOPE)
    return solved(flow, with_gaps(hidden, rule, gaps), 1e-3, device)


@cache
def any_run(
    rule: RuleName,
    seeds: int,
    device: str,
    *,
    shape: Shape | None = None,
    loss: str = "logistic",
    outputs: int | None = None,
    hidden_layers: int = 1,
    bias: bool = False,
    activation: Activation | None = None,
    decay: float = 0.0,
) -> Solution:
    """Gaussian inputs, weights and feedback, arbitrary labels: what Theorem 5.2 and Proposition 5.3 are about.

    Runs are long, and slide; with another activation than leaky ReLU small and short. With a bias, the last input is 1.
    """
    long = activation is None
    shape = (shape or (DEEP if hidden_layers > 1 else GAUSSIAN)) if long else SMOOTH
    flow, start = any_problem(rule, seeds, shape, loss, outputs, hidden_layers, bias, activation, decay)
    return solved(flow, start, T_FINAL if long else 0.25, device)


def any_problem(
    rule: RuleName,
    seeds: int,
    shape: Shape,
    loss: str,
    outputs: int | None,
    hidden_layers: int,
    bias: bool = False,
    activation: Activation | None = None,
    decay: float = 0.0,
) -> tuple[Flow, DeepWeights]:
    """The flow and the start of `any_run`."""
    samples = shape.samples
    widths = (DIMENSION, *[shape.width] * hidden_layers, outputs or 1)
    datasets = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(1000 + seed)
        inputs = torch.randn(samples, DIMENSION, generator=generator, dtype=torch.float64)
        if bias:
            inputs[:, -1] = 1.0
        numbers = torch.arange(samples)
        datasets.append(
            Dataset(inputs, 1.0 - 2.0 * (numbers % 2))
            if outputs is None
            else Dataset(inputs, numbers % outputs, classes=outputs)
        )

    def layers(first_seed: int) -> list[torch.Tensor]:
        networks = [deep_gaussian(widths, first_seed + seed).layers for seed in range(seeds)]
        return [torch.stack(level) for level in zip(*networks, strict=True)]

    start = DeepWeights(tuple(layers(0)))
    rules: dict[RuleName, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(tuple(layers(500)[1:])),
        "adafa": adafa(start),
        "sign-fa": SignFeedbackAlignment(SCALE),
    }
    slope = shape.slope if activation is None else None
    return Flow(data.stack(datasets), rules[rule], loss, slope, activation, decay), start


@cache
def changed_feedback_run(seeds: int, device: str) -> Solution:
    """FA whose feedback changes from B to another matrix midway; the solution's flow has B."""
    flow, start = any_problem("fa", seeds, Shape(SAMPLES, 4, SLOPE), "logistic", None, 1)
    other = FeedbackAlignment(deep_gaussian((DIMENSION, 4, 1), 900).layers[1])

    def at(looser: float) -> Solution:
        before = solved(flow, start, 1.0, device, looser=looser)
        after = solved(replace(flow, rule=other), before.evaluate(1.0), 1.0, device, looser=looser)
        return joined(before, after, lambda: at(LOOSER * looser))

    return at(1.0)


@cache
def wide_run(seeds: int, device: str) -> Solution[Weights]:
    """A wide network under adaFA with squared loss: the kernel regime of Theorem 5.1 with alpha = 1."""
    dataset = data.stack([data.nearly_orthogonal(4, DIMENSION, 0.0, seed) for seed in range(seeds)])
    weights = stack([gaussian(32, DIMENSION, seed, scale=2.0) for seed in range(seeds)])
    return solved(Flow(dataset, adafa(weights), "squared", SLOPE), weights, 4.0, device)


@cache
def kernel_run(
    width: int, paired: bool, seeds: int, device: str, *, times: float = 1.0, output: float = 1.0,
    loss: str = "squared",
) -> Solution[Weights]:  # fmt: skip
    """Four orthonormal inputs in six dimensions, Gaussian weights; b = v(0), or independent of it.

    Args:
        width: m.
        paired: whether b = v(0).
        seeds: trajectories.
        device: to solve on.
        times: the run ends at this over the width, times 128.
        output: factor of v(0) and b, whose entries have variance 1 / m.
        loss: of the flow.
    """
    dataset = data.stack([data.nearly_orthogonal(4, DIMENSION, 0.0, seed) for seed in range(seeds)])
    first, other = (
        stack([gaussian(width, DIMENSION, start + seed) for seed in range(seeds)]) for start in (0, 500)
    )  # fmt: skip
    weights = Weights(first.hidden, output * first.output)
    rule = adafa(weights) if paired else FeedbackAlignment(output * other.output)
    return solved(Flow(dataset, rule, loss, SLOPE), weights, 128 * times / width, device)


@cache
def linear_run(seeds: int, device: str) -> Solution[Weights]:
    """Linear networks from zero hidden weights, FA, squared loss (section 8, solution 3)."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(seeds, 4, DIMENSION, generator=generator, dtype=torch.float64)
    labels = (1.0 - 2.0 * (torch.arange(4) % 2)).expand(seeds, 4)
    feedback = torch.stack([random_signs(WIDTH, seed) for seed in range(seeds)])
    weights = Weights(torch.zeros(seeds, WIDTH, DIMENSION, dtype=torch.float64), 0.5 * feedback)
    return solved(Flow(Dataset(inputs, labels), FeedbackAlignment(feedback), "squared", 1.0), weights, 3.0, device)


@cache
def shrinking_run(seeds: int, device: str) -> Solution[Weights]:
    """FA with b_j v_j(0) > 0 but c_j < 0: hidden weights start against the data, shrink, and v_j changes sign.

    With orthonormal x_i and w_j = -0.3 b_j sum_i y_i x_i, each |w_j| first shrinks to 0; there b_j v_j = c_j < 0.
    """
    dataset = data.stack([dataset_of("boundary", SMALL, seed) for seed in range(seeds)])
    signs = torch.stack([random_signs(WIDTH, seed) for seed in range(seeds)])
    direction = (dataset.labels.unsqueeze(-1) * dataset.inputs).sum(-2)
    hidden = -0.3 * signs.unsqueeze(-1) * direction.unsqueeze(-2)
    rule = FeedbackAlignment(signs)
    return solved(Flow(dataset, rule, "exponential", SLOPE), with_gaps(hidden, rule, -0.05), T_FINAL, device)


def any_runs(scope: Scope, rule: RuleName, **options: Any) -> list[Callable[[], Solution]]:
    """`any_run` on the shapes of the scope: with 20 samples and 16 neurons, too, in the full run."""
    shapes = [None, LARGE_GAUSSIAN] if scope.full else [None]
    return [partial(any_run, rule, scope.seeds, scope.device, shape=shape, **options) for shape in shapes]


def margin_runs(
    scope: Scope, kind: DataKind, rule: MarginRule, *, gap: float = GAP, wide: bool = False
) -> list[Callable[[], Solution]]:
    """`margin_run` on the shapes of the scope."""
    return [
        partial(margin_run, kind, rule, shape, scope.seeds, scope.device, gap=gap) for shape in scope.shapes(kind, wide)
    ]


def wrong_signs(scope: Scope) -> Callable[[], Solution]:
    """FA with b_j v_j(0) < 0 for all j, for a short time."""
    return partial(margin_run, "separable", "fa", SMALL, scope.seeds, scope.device, gap=-0.5, t_final=0.5)
