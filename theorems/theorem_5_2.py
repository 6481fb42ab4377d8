"""Theorem 5.2: conservation of alignment at every hidden neuron, any depth, output width and loss (section 4)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Flow, Solution
from flowsim.activation import Softplus, Tanh
from flowsim.observables import conserved
from flowsim.weights import NetworkWeights
from theorems import ensembles
from theorems.check import Case, Statement
from theorems.ensembles import Scope
from theorems.hypothesis import Hypothesis, fact
from theorems.measurement import Claim, Compared
from theorems.observation import Observation
from theorems.validity import homogeneous


def deviation(seen: Observation) -> Compared:
    """c(t) - c(0) for all hidden neurons, and |Psi| + |w|^2 / 2 at 0 or t, the larger."""
    return _deviation(seen.flow, seen.weights, seen.start)


def layer_deviation(seen: Observation) -> Compared:
    """The same summed over the neurons of each hidden layer."""
    excess, size = deviation(seen)
    widths = [layer.shape[-2] for layer in seen.weights.layers[:-1]]
    return Compared(*(torch.stack([part.sum(-1) for part in sums.split(widths, -1)], -1) for sums in (excess, size)))


def deviation_without_bias(seen: Observation) -> Compared:
    """The same with the last input, a bias, left out of |w|^2."""

    def without(weights: NetworkWeights) -> NetworkWeights:
        first, *others = weights.layers
        return weights.with_layers([first[..., :-1], *others])

    return _deviation(seen.flow, without(seen.weights), without(seen.start))


def _deviation(flow: Flow, weights: NetworkWeights, start: NetworkWeights) -> Compared:
    (now, size_now), (first, size_first) = (gaps(flow, at) for at in (weights, start))
    size = torch.maximum(size_now, size_first)
    # a neuron without weights has size 0 and must not move either
    return Compared(now - first, torch.where(size > 0, size, 1.0))


def gaps(flow: Flow, weights: NetworkWeights) -> tuple[Tensor, Tensor]:
    """c and |Psi| + |w|^2 / 2 of all hidden neurons."""
    values, half = torch.cat(conserved(flow, weights), -1), norms(weights)
    return values, (values + half).abs() + half


def norms(weights: NetworkWeights) -> Float[Tensor, "*some neurons"]:
    """|w|^2 / 2 of all hidden neurons."""
    return torch.cat([0.5 * layer.square().sum(-1) for layer in weights.layers[:-1]], -1)


def has_law(solution: Solution) -> Hypothesis:
    """The feedback of every hidden layer is the gradient of a potential, as the rule says."""
    potentials = solution.flow.rule.potentials(solution.start)
    return fact("B is the gradient of Psi", all(potential is not None for potential in potentials))


STATEMENT = Statement(
    name="theorem_5_2",
    title="Theorem 5.2, conservation of alignment",
    formula=r"\Psi(W_{l+1}[:,i]) - \tfrac12 |W_l[i,:]|^2 = \mathrm{const}, \qquad "
    r"\Psi(w) = \langle w, b \rangle \ (\mathrm{FA}), \quad s|w|_1 \ (\mathrm{sign\text{-}FA}), \quad "
    r"\tfrac12|w|^2 \ (\mathrm{GD})",
    hypotheses=lambda solution: [homogeneous(solution), has_law(solution)],
    claims=[
        Claim("Psi(t) - |w(t)|^2 / 2 = Psi(0) - |w(0)|^2 / 2", "equality", deviation),
        Claim("the same summed over each layer", "equality", layer_deviation),
    ],
)

BIAS_LEFT_OUT = Statement(
    name=STATEMENT.name,
    title=STATEMENT.title,
    formula=STATEMENT.formula,
    hypotheses=lambda solution: [homogeneous(solution), fact("the bias counts as an incoming weight", False)],
    claims=[Claim("Psi(t) - |w(t)|^2 / 2 = Psi(0) - |w(0)|^2 / 2, no bias in w", "equality", deviation_without_bias)],
)


def cases(scope: Scope) -> list[Case]:
    """Every rule, loss, depth 2 to 4, one and three outputs; the controls break homogeneity and the rule."""
    seeds, device = scope.seeds, scope.device

    def case(label: str, rule: ensembles.RuleName, **options: Any) -> Case:
        return Case(STATEMENT, label, "theorem", ensembles.any_runs(scope, rule, **options))

    def control(label: str, rule: ensembles.RuleName, **options: Any) -> Case:
        return Case(STATEMENT, label, "control", [partial(ensembles.any_run, rule, seeds, device, **options)])

    with_bias = partial(ensembles.any_run, "fa", seeds, device, bias=True)
    return [
        Case(STATEMENT, "FA, separable", "theorem", ensembles.margin_runs(scope, "separable", "fa")),
        case("FA, logistic", "fa"),
        Case(
            STATEMENT,
            "FA, logistic, m = 40",
            "theorem",
            [partial(ensembles.any_run, "fa", seeds, device, shape=ensembles.GAUSSIAN._replace(width=40))],
        ),
        case("adaFA, squared", "adafa", loss="squared"),
        case("sign-FA, squared", "sign-fa", loss="squared"),
        case("GD, exponential", "gd", loss="exponential"),
        case("FA, 3 outputs, cross-entropy", "fa", loss="cross-entropy", outputs=3),
        case("sign-FA, 3 outputs, squared", "sign-fa", loss="squared", outputs=3),
        case("FA, 3 layers, cross-entropy", "fa", loss="cross-entropy", outputs=3, hidden_layers=2),
        case("sign-FA, 3 layers, logistic", "sign-fa", hidden_layers=2),
        case("GD, 3 layers, logistic", "gd", hidden_layers=2),
        case("FA, 4 layers, logistic", "fa", hidden_layers=3),
        Case(STATEMENT, "FA with biases", "theorem", [with_bias]),
        Case(BIAS_LEFT_OUT, "FA, biases left out", "control", [with_bias]),
        control("FA, tanh", "fa", activation=Tanh()),
        control("sign-FA, 3 layers, tanh", "sign-fa", hidden_layers=2, activation=Tanh()),
        control("FA, softplus", "fa", activation=Softplus()),
        control("FA with weight decay", "fa", decay=0.1),
        Case(
            STATEMENT,
            "FA, feedback changed midway",
            "control",
            [partial(ensembles.changed_feedback_run, seeds, device)],
        ),
    ]
