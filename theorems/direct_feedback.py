"""Direct feedback alignment, beyond the paper: every hidden layer gets B_l^T e from the outputs' error (section 14.11).

last hidden layer    <W_{H+1}[:, i], B_H[:, i]> - |W_H[i, :]|^2 / 2 is constant
every hidden layer   <M_l[:, i], B_l[:, i]> - |W_l[i, :]|^2 / 2 is constant for a shadow read-out, dM_l/dt = sum e a_l^T
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import DirectFeedbackAlignment, Solution
from flowsim.activation import Activation, Tanh
from flowsim.initialization import deep_gaussian
from flowsim.losses import named
from theorems.check import Case, Statement
from theorems.ensembles import DEEP, Scope, any_problem, any_run, solved
from theorems.hypothesis import Hypothesis, fact, is_rule
from theorems.measurement import Claim, Compared
from theorems.observation import Observation
from theorems.theorem_5_2 import norms
from theorems.validity import homogeneous


def law_at(seen: Observation, layer: int) -> Compared:
    """The change of <W_{l+1}[:, i], B_l[:, i]> - |W_l[i, :]|^2 / 2 since the start, and the sizes of its terms.

    The layer counts from 0, or from the last one. Where B_l has not the shape of W_{l+1} there is no such thing.
    """
    matrix, terms = seen.feedback[layer], []
    for layers in (seen.weights.layers, seen.start.layers):
        hidden, above = layers[:-1][layer], layers[1:][layer]
        terms.append(((above * matrix).sum(-2), 0.5 * hidden.square().sum(-1)))
    (now, norms), (first, norms_first) = terms
    size = torch.maximum(now.abs() + norms, first.abs() + norms_first)
    return Compared(now - norms - first + norms_first, size)


def shadow_rate(seen: Observation) -> Float[Tensor, "nodes pieces entries"]:
    """Entries of dM_l/dt = sum e a_l^T, of all hidden layers."""
    dataset, flow = seen.flow.dataset, seen.flow
    error = named(flow.loss).negative_gradient(seen.outputs, dataset.targets) / dataset.samples
    return torch.cat([(error.mT @ flow.activation(z)[0]).flatten(-2) for z in seen.pre_activations], -1)


def shadow_law(seen: Observation) -> Compared:
    """<M_l[:, i], B_l[:, i]> with M_l(0) = 0 less the gain of |W_l[i, :]|^2 / 2, of all hidden neurons; their sizes."""
    hidden, initial = norms(seen.weights), norms(seen.start)
    shadows = seen.integral.split([matrix.shape[-2:].numel() for matrix in seen.feedback], -1)
    pairs = zip(shadows, seen.feedback, strict=True)
    products = torch.cat([(shadow.unflatten(-1, matrix.shape[-2:]) * matrix).sum(-2) for shadow, matrix in pairs], -1)
    return Compared(products - hidden + initial, products.abs() + hidden + initial)


def _setting(last: bool, solution: Solution) -> list[Hypothesis]:
    return [
        is_rule(solution, DirectFeedbackAlignment),
        homogeneous(solution),
        fact("of the last hidden layer, or a shadow read-out", last),
    ]


FORMULA = (
    r"\langle W_{H+1}[:,i], B_H[:,i] \rangle - \tfrac12 |W_H[i,:]|^2 = \mathrm{const}, \qquad "
    r"\langle M_l[:,i], B_l[:,i] \rangle - \tfrac12 |W_l[i,:]|^2 = \mathrm{const}, \quad \dot M_l = \sum e \, a_l^T"
)

LAST = Statement(
    name="direct_feedback",
    title="Direct feedback, the law of the last hidden layer",
    formula=FORMULA,
    hypotheses=partial(_setting, True),
    claims=[Claim("<W_{H+1}, B_H> - |w|^2 / 2 is constant", "equality", partial(law_at, layer=-1))],
    beyond=True,
)
SHADOW = Statement(
    name="direct_feedback",
    title="Direct feedback, the law of a shadow read-out at every layer",
    formula=FORMULA,
    hypotheses=partial(_setting, True),
    claims=[Claim("<M_l, B_l> - |w|^2 / 2 is constant", "equality", shadow_law)],
    rate=shadow_rate,
    beyond=True,
)
BELOW = replace(
    LAST,
    hypotheses=partial(_setting, False),
    claims=[Claim("<W_2, B_1> - |w|^2 / 2 is constant", "equality", partial(law_at, layer=0))],
)

SQUARE = DEEP._replace(width=3)
"""As many neurons in each hidden layer as outputs: B_1 has the shape of W_2."""


@cache
def direct_run(
    seeds: int,
    device: str,
    *,
    hidden_layers: int = 2,
    loss: str = "cross-entropy",
    width: int = DEEP.width,
    activation: Activation | None = None,
) -> Solution:
    """As `ensembles.any_run`, three outputs, under direct feedback."""
    shape = DEEP._replace(width=width)
    flow, start = any_problem("fa", seeds, shape, loss, 3, hidden_layers, activation=activation)
    drawn = [
        [deep_gaussian((width, width, 3), 900 + 100 * level + seed).layers[1] for seed in range(seeds)]
        for level in range(hidden_layers)
    ]
    rule = DirectFeedbackAlignment(tuple(torch.stack(matrices) for matrices in drawn))
    return solved(replace(flow, rule=rule), start, 10.0 if activation is None else 0.1, device)


def cases(scope: Scope) -> list[Case]:
    """Three and four layers; the controls take the law below the last hidden layer, bend phi, or send errors by FA."""
    seeds, device = scope.seeds, scope.device

    def runs(**options: Any) -> list[Callable[[], Solution]]:
        return [partial(direct_run, seeds, device, **options)]

    tanh, square = runs(width=4, activation=Tanh()), runs(width=3)
    by_layer = [partial(any_run, "fa", seeds, device, shape=SQUARE, loss="cross-entropy", outputs=3, hidden_layers=2)]
    return [
        Case(LAST, "last layer of 3, squared", "theorem", runs(loss="squared")),
        Case(LAST, "last layer of 4, cross-entropy", "theorem", runs(hidden_layers=3)),
        Case(SHADOW, "shadow, 3 layers, squared", "theorem", runs(loss="squared")),
        Case(SHADOW, "shadow, 4 layers, cross-entropy", "theorem", runs(hidden_layers=3)),
        Case(BELOW, "below the last layer", "control", square),
        Case(LAST, "last layer of 3, tanh", "control", tanh),
        Case(SHADOW, "shadow, FA", "control", by_layer),
    ]
