"""The ensembles that the checks run on, and their solutions, each solved once per process.

Every function returns the solution of an ensemble with one trajectory per seed 0 .. seeds-1. Deep networks and the
flows of controls are left to a Runge-Kutta method, and are small and short, since each kink costs it about 50 steps.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    IntegrationError,
    SignFeedbackAlignment,
    Solution,
    Weights,
    data,
    solve,
)
from flowsim.initialization import adafa, deep_gaussian, gaussian, random_signs, with_gaps
from flowsim.losses import Loss
from flowsim.rules import Rule
from flowsim.weights import AnyWeights

RTOL, ATOL, MAX_STEPS = 1e-13, 1e-15, 10_000
SAMPLES, DIMENSION, WIDTH = 5, 6, 6
SLOPE, KAPPA, GAP, SCALE = 0.3, 0.2, 0.05, 0.5
RHO = 0.5 * SLOPE**2
"""Half of what Proposition 5.7 allows on nearly orthogonal data."""

RuleName = Literal["gd", "fa", "adafa", "sign-fa"]
MarginRule = Literal["fa", "sign-fa"]
TightKind = Literal["identical", "orthogonal", "simplex"]
DataKind = Literal["separable", "boundary", "nearly orthogonal", "contradictory", "opposed"]


def has_events(flow_type: type, layers: int) -> bool:
    """Whether the event-driven integrator can solve it: two layers, and the flow itself."""
    return layers == 2 and flow_type is Flow


def solved(flow: Flow, weights: AnyWeights, t_final: float, device: str) -> Solution[AnyWeights]:
    """The solution at the tolerances of the checks, on the device."""
    on_device = flow.map_matrices(weights, lambda matrix: matrix.to(device))
    method = "event" if has_events(type(flow), len(weights.layers)) else "dopri5"
    return solve(*on_device, t_final, method=method, rtol=RTOL, atol=ATOL, max_steps=MAX_STEPS)


@cache
def margin_run(
    kind: DataKind,
    rule: MarginRule,
    seeds: int,
    device: str,
    *,
    loss: str | Loss = "exponential",
    gap: float = GAP,
    slope: float = SLOPE,
    t_final: float = 30.0,
    flow_type: type[Flow] = Flow,
) -> Solution[Weights]:
    """Two layers, scalar output, with all gaps c_j = gap: the setting of Lemma 5.4 and Proposition 5.7.

    No neuron slides on separable data with c_j > 0 (section 1); elsewhere slope = 1 has no kinks.
    """
    dataset = data.stack([dataset_of(kind, seed) for seed in range(seeds)])
    hidden = torch.stack([gaussian(WIDTH, DIMENSION, seed).hidden for seed in range(seeds)])
    signs = torch.stack([random_signs(WIDTH, seed) for seed in range(seeds)])
    if rule == "fa":
        learning: Rule = FeedbackAlignment(signs)
        weights = with_gaps(hidden, learning, gap)
    else:
        learning = SignFeedbackAlignment(SCALE)
        weights = with_gaps(hidden, learning, gap, signs)
    return solved(flow_type(dataset, learning, loss, slope), weights, t_final, device)


def dataset_of(kind: DataKind, seed: int) -> Dataset:
    """Data of the kinds of section 7, and two that are not separable enough for it.

    "boundary": orthogonal inputs, M_ik = 0 off the diagonal. "contradictory": separable data with one input repeated
    under the opposite label. "opposed": nearly parallel inputs with both labels.
    """
    if kind == "nearly orthogonal":
        return data.nearly_orthogonal(SAMPLES, DIMENSION, RHO, seed)
    if kind == "boundary":
        return data.nearly_orthogonal(SAMPLES, DIMENSION, 0.0, seed)
    separable = data.orthogonally_separable(SAMPLES, DIMENSION, KAPPA, seed)
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
def tight_run(inputs: TightKind, device: str) -> Solution[Weights]:
    """One trajectory on which the constant of Proposition 5.7 is attained up to 0.1 %.

    All labels +1 and w_j = -h sum_i x_i with a small h, so that all g_i are equal, all neurons inactive, |grad_v|^2 is
    small, and S stays near S0. "identical" inputs attain gamma^2 S0 kappa, "orthogonal" ones gamma^2 S0 R^2 / n; a
    "simplex", x_i . x_k = -rho R^2 / n, attains the constant of nearly orthogonal data for gamma = 1.
    """
    n = 4
    gram = {
        "identical": torch.ones(n, n),
        "orthogonal": torch.eye(n),
        "simplex": (1 + 0.5 / n) * torch.eye(n) - 0.5 / n * torch.ones(n, n),
    }[inputs].to(torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    rows = vectors * values.clamp(min=0).sqrt()
    rule = FeedbackAlignment(torch.ones(1, WIDTH))
    hidden = (-1e-3 * rows.sum(0)).expand(1, WIDTH, n)
    flow = Flow(Dataset(rows.unsqueeze(0), torch.ones(1, n)), rule, slope=1.0 if inputs == "simplex" else SLOPE)
    return solved(flow, with_gaps(hidden, rule, GAP), 1e-3, device)


@cache
def any_run(
    rule: RuleName,
    seeds: int,
    device: str,
    *,
    loss: str = "logistic",
    outputs: int | None = None,
    hidden_layers: int = 1,
    flow_type: type[Flow] = Flow,
) -> Solution:
    """Gaussian inputs, weights and feedback, arbitrary labels: what Theorem 5.2 and Proposition 5.3 are about.

    Two-layer networks run long, and slide. A Runge-Kutta method cannot slide: its runs are short, and where a neuron
    slides before the end, they end a tenth short of that.
    """
    long = has_events(flow_type, hidden_layers + 1)
    parts = [_any_problem(rule, seed, 10 if long else 3, outputs, hidden_layers) for seed in range(seeds)]
    datasets, weights, feedback = zip(*parts, strict=True)
    layers = [torch.stack(level) for level in zip(*(item.layers for item in weights), strict=True)]
    matrices = [torch.stack(level) for level in zip(*feedback, strict=True)]
    start = DeepWeights(tuple(layers))
    rules: dict[RuleName, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(tuple(matrices)),
        "adafa": adafa(start),
        "sign-fa": SignFeedbackAlignment(SCALE),
    }
    flow = flow_type(data.stack(datasets), rules[rule], loss, SLOPE if long else 0.7)
    if long:
        return solved(flow, start, 30.0, device)
    try:
        return solved(flow, start, 0.5, device)
    except IntegrationError as stop:
        return solved(flow, start, 0.9 * stop.time, device)


def _any_problem(
    rule: RuleName, seed: int, samples: int, outputs: int | None, hidden_layers: int
) -> tuple[Dataset, DeepWeights, tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(1000 + seed)
    inputs = torch.randn(samples, DIMENSION, generator=generator, dtype=torch.float64)
    if outputs is None:
        dataset = Dataset(inputs, 1.0 - 2.0 * (torch.arange(samples) % 2))
    else:
        dataset = Dataset(inputs, torch.arange(samples) % outputs, classes=outputs)
    widths = (DIMENSION, *[4] * hidden_layers, outputs or 1)
    return dataset, deep_gaussian(widths, seed), deep_gaussian(widths, 500 + seed).layers[1:]


@cache
def wide_run(seeds: int, device: str) -> Solution[Weights]:
    """A wide network under adaFA with squared loss: the kernel regime of Theorem 5.1 with alpha = 1."""
    dataset = data.stack([data.nearly_orthogonal(4, DIMENSION, 0.0, seed) for seed in range(seeds)])
    parts = [gaussian(32, DIMENSION, seed, scale=2.0) for seed in range(seeds)]
    weights = Weights(torch.stack([part.hidden for part in parts]), torch.stack([part.output for part in parts]))
    return solved(Flow(dataset, adafa(weights), "squared", SLOPE), weights, 4.0, device)


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
    dataset = data.stack([dataset_of("boundary", seed) for seed in range(seeds)])
    signs = torch.stack([random_signs(WIDTH, seed) for seed in range(seeds)])
    direction = (dataset.labels.unsqueeze(-1) * dataset.inputs).sum(-2)
    hidden = -0.3 * signs.unsqueeze(-1) * direction.unsqueeze(-2)
    rule = FeedbackAlignment(signs)
    return solved(Flow(dataset, rule, "exponential", SLOPE), with_gaps(hidden, rule, -0.05), 30.0, device)
