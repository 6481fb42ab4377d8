"""Any small flow, degenerate ones on purpose, and what a solve of it must have whatever the flow is."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowsim import (
    Dataset,
    DeepWeights,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
    solve,
)
from flowsim.integrators.event.crawl import CrawlingWarning
from flowsim.losses import polynomial
from flowsim.observables import conserved
from flowsim.rules import Rule, is_one_of

T_FINAL = 5.0
INPUTS = ["generic", "whole", "repeated", "opposite", "dependent", "zero"]
STARTS = [*["generic"] * 4, "whole", "small", "one layer 0", "all 0", "equal", "on a kink"]
Choose = Callable[[Sequence[Any]], Any]
"""One of several: by a generator of random numbers, or by hypothesis, which finds the simplest one that fails."""


def random_flow(
    seed: int,
    choose: Choose | None = None,
    layers: Sequence[int] = (2, 3, 4),
    decays: Sequence[float] = (0.0, 0.0, 0.1),
) -> tuple[Flow, DeepWeights]:
    """Widths and dimensions from 1 to 4, 1 to 6 samples; all rules, losses and slopes."""
    rng = np.random.default_rng(seed)
    pick = choose or (lambda options: options[rng.integers(len(options))])
    samples, dimension, depth = pick([1, 2, 3, 4, 6]), pick([1, 2, 3, 4]), pick(layers)
    outputs = pick([1, 1, 1, 2, 3])
    widths = [dimension, *(pick([1, 2, 3, 4]) for _ in range(depth - 1)), outputs]
    inputs = random_inputs(rng, pick(INPUTS), samples, dimension)
    drawn = [rng.standard_normal((m, k)) / np.sqrt(k) for k, m in itertools.pairwise(widths)]
    weights = degenerate(rng, pick(STARTS), drawn, inputs)
    if outputs == 1:
        dataset = Dataset(torch.from_numpy(inputs), torch.from_numpy(rng.choice([-1.0, 1.0], samples)))
        loss = pick(["exponential", "logistic", "squared", polynomial(1.5)])
    else:
        dataset = Dataset(torch.from_numpy(inputs), torch.from_numpy(rng.integers(0, outputs, samples)), outputs)
        loss = pick(["cross-entropy", "squared"])
    rule = random_rule(rng, pick(["gd", "fa", "adafa", "sign-fa", "direct"]), weights)
    return Flow(dataset, rule, loss, pick([0.0, 0.1, 0.3, 0.7, 1.0]), decay=pick(decays)), weights


def random_inputs(rng: np.random.Generator, kind: str, samples: int, dimension: int) -> np.ndarray:
    if kind == "whole":
        return rng.integers(-2, 3, (samples, dimension)).astype(float)
    inputs = rng.standard_normal((samples, dimension))
    if kind == "repeated":
        inputs[-1] = inputs[0]
    elif kind == "opposite":
        inputs[-1] = -2 * inputs[0]
    elif kind == "dependent":
        inputs[-1] = inputs[0] + 0.5 * inputs[samples // 2]
    elif kind == "zero":
        inputs[0] = 0
    return inputs


def degenerate(rng: np.random.Generator, kind: str, layers: list[np.ndarray], inputs: np.ndarray) -> DeepWeights:
    """The layers made special in some way."""
    special = int(rng.integers(len(layers)))
    if kind == "whole":
        layers = [rng.integers(-2, 3, layer.shape).astype(float) for layer in layers]
    elif kind == "small":
        layers = [1e-6 * layer for layer in layers]
    elif kind == "one layer 0":
        layers[special][:] = 0
    elif kind == "all 0":
        layers = [0 * layer for layer in layers]
    elif kind == "equal":
        for below, above in itertools.pairwise(layers):
            below[:] = below[0]
            above[:] = above[:, :1]
    elif kind == "on a kink" and (inputs[0] @ inputs[0]) > 0:
        layers[0][0] -= inputs[0] * (layers[0][0] @ inputs[0]) / (inputs[0] @ inputs[0])
    return DeepWeights(tuple(torch.from_numpy(layer) for layer in layers))


def random_rule(rng: np.random.Generator, name: str, weights: DeepWeights) -> Rule:
    layers = weights.layers[1:]

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape))

    rules: dict[str, Callable[[], Rule]] = {
        "gd": GradientDescent,
        "fa": lambda: FeedbackAlignment(tuple(normal(*layer.shape) for layer in layers)),
        "adafa": lambda: FeedbackAlignment(tuple(layer.clone() for layer in layers)),
        "sign-fa": lambda: SignFeedbackAlignment(0.7),
        "direct": lambda: DirectFeedbackAlignment(tuple(normal(len(layers[-1]), layer.shape[1]) for layer in layers)),
    }
    return rules[name]()


class Verdict(NamedTuple):
    """How a flow ended, and by how much its runs at two tolerances differ, relative to the size of the weights.

    Args:
        ending: "ended", or the reason why not.
        time: up to which both runs can be asked.
        difference: the largest, of weights at times up to there.
        converges: whether a third, tighter run differs from the tighter of them by much less.
        faults: what no solution may have.
    """

    ending: str
    time: float
    difference: float
    converges: bool
    faults: list[str]


def run(flow: Flow, weights: DeepWeights, rtol: float, max_steps: int = 3000) -> Solution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CrawlingWarning)
        return solve(flow, weights, T_FINAL, rtol=rtol, atol=rtol / 100, max_steps=max_steps, throw=False)


def judge(flow: Flow, weights: DeepWeights) -> Verdict:
    loose, tight = (run(flow, weights, rtol) for rtol in (1e-9, 1e-11))
    # where a run stops the weights may be about to grow without bound, and with them any difference
    until = min(loose.status.time.item(), tight.status.time.item())
    until *= 1.0 if loose.status.ended and tight.status.ended else 0.9
    times = torch.linspace(0, until, 41, dtype=torch.float64)
    off = difference(loose, tight, times)
    converges = off < 1e-6 or difference(tight, run(flow, weights, 1e-13), times) < off / 5
    return Verdict(ending(tight), until, off, converges, list(find_faults(tight, times)))


def ending(solution: Solution) -> str:
    return "ended" if solution.status.ended else solution.status.reason.item()


def difference(one: Solution, other: Solution, times: Tensor) -> float:
    times = times.clamp(max=min(one.status.time.item(), other.status.time.item()))
    pairs = list(zip(one.evaluate(times).layers, other.evaluate(times).layers, strict=True))
    size = 1 + max(here.abs().max().item() for here, _ in pairs)
    return max((here - there).abs().max().item() for here, there in pairs) / size


def find_faults(solution: Solution, times: Tensor) -> list[str]:
    """What contradicts itself: Theorem 5.2, the sides of kinks, the velocity off the kinks, the risk under GD."""
    flow, at, moves = solution.flow, solution.evaluate(times), solution.velocity(times)
    size = 1 + max(layer.abs().max().item() for layer in at.layers)
    faults = []
    if not all(torch.isfinite(layer).all() for layer in at.layers):
        faults.append("weights that are not finite")
    if flow.decay == 0:
        top = len(at.layers) - 1
        gaps = conserved(flow, at, [top] if flow.rule.direct else None)
        off = max((gap - gap[0]).abs().max().item() for gap in gaps) / size**2
        if off > 1e-8:
            faults.append(f"Theorem 5.2 off by {off:.2g}")
    patterns, signals = solution.pattern(times), flow.pre_activations(at)
    for level, (side, z) in enumerate(zip(patterns, signals, strict=True), 1):
        wrong = torch.where(side == 0, z.abs(), -side * z).max().item() / size ** (level + 1)
        if flow.slope < 1 and wrong > 1e-8:
            faults.append(f"z = {wrong:.2g} on the wrong side in layer {level}")
    slopes = [(side > 0) + flow.slope * (side < 0).double() for side in patterns]
    off = (moves.layers[-1] - flow.velocity(at, slopes).layers[-1]).abs().max().item()
    if off > 1e-6 * (1 + max(layer.abs().max().item() for layer in moves.layers)):
        faults.append(f"velocity of the top layer off by {off:.2g}")
    if is_one_of(flow.rule, GradientDescent):
        risk = flow.risk(at) + 0.5 * flow.decay * sum(layer.square().sum((-1, -2)) for layer in at.layers)
        rise = (risk.diff() / (1 + risk[1:])).max().item()
        if rise > 1e-8:
            faults.append(f"the risk rises by {rise:.2g} under GD")
    return faults
