"""Theorem 5.2: conservation of alignment at every hidden neuron, any depth, output width and loss (section 4)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Solution
from flowsim.observables import conserved
from theorems import problems
from theorems.check import Case, Claim, Hypothesis, Statement, follows_its_rule
from theorems.controls import DecayFlow, TanhFlow


def deviation(solution: Solution, times: Tensor) -> Float[Tensor, "times *batch neurons"]:
    """(c(t) - c(0)) / size for all hidden neurons, size = the largest |Psi(t)| + |w(t)|^2 / 2 over the run."""
    weights = solution.evaluate(times)
    values = torch.cat(conserved(solution.flow, weights), -1)
    norms = torch.cat([0.5 * layer.square().sum(-1) for layer in weights.layers[:-1]], -1)
    sizes = ((values + norms).abs() + norms).amax(0)
    # a neuron without weights has size 0 and must not move either
    return (values - values[0]) / torch.where(sizes > 0, sizes, 1.0)


def homogeneous(solution: Solution) -> Hypothesis:
    """phi'(z) z = phi(z) at the initial pre-activations."""
    slack = []
    for pre_activation in solution.flow.pre_activations(solution.evaluate(0.0)):
        value, slope = solution.flow.activation(pre_activation)
        slack.append(-(slope * pre_activation - value).abs().amax((-2, -1)))
    return Hypothesis("phi'(z) z = phi(z)", torch.stack(slack).amin(0))


STATEMENT = Statement(
    name="theorem_5_2",
    title="Theorem 5.2, conservation of alignment",
    formula="Psi(W_{l+1}[:, i]) - |W_l[i, :]|^2 / 2 is constant; Psi = <W, B> (FA), s|W|_1 (sign-FA), |W|^2 / 2 (GD)",
    hypotheses=lambda solution, times: [homogeneous(solution), follows_its_rule(solution)],
    claims=[Claim("Psi(t) - |w(t)|^2 / 2 = Psi(0) - |w(0)|^2 / 2", "equality", deviation)],
)


def cases(seeds: int, device: str) -> list[Case]:
    """Every rule, loss, depth 2 to 4, one and three outputs; the controls break homogeneity and the rule."""

    def case(label: str, rule: problems.RuleName, **options: object) -> Case:
        return Case(STATEMENT, label, "theorem", lambda: problems.any_run(rule, seeds, device, **options))

    def control(label: str, rule: problems.RuleName, **options: object) -> Case:
        return Case(STATEMENT, label, "control", lambda: problems.any_run(rule, seeds, device, **options))

    return [
        Case(STATEMENT, "FA, separable", "theorem", lambda: problems.margin_run("separable", "fa", seeds, device)),
        case("FA, logistic", "fa"),
        case("adaFA, squared", "adafa", loss="squared"),
        case("sign-FA, squared", "sign-fa", loss="squared"),
        case("GD, exponential", "gd", loss="exponential"),
        case("FA, 3 outputs, cross-entropy", "fa", loss="cross-entropy", outputs=3),
        case("sign-FA, 3 outputs, squared", "sign-fa", loss="squared", outputs=3),
        case("FA, 3 layers, cross-entropy", "fa", loss="cross-entropy", outputs=3, hidden_layers=2),
        case("sign-FA, 3 layers, logistic", "sign-fa", hidden_layers=2),
        case("GD, 3 layers, logistic", "gd", hidden_layers=2),
        case("FA, 4 layers, logistic", "fa", hidden_layers=3),
        control("FA, tanh", "fa", flow_type=TanhFlow),
        control("sign-FA, 3 layers, tanh", "sign-fa", hidden_layers=2, flow_type=TanhFlow),
        control("FA with weight decay", "fa", flow_type=DecayFlow),
    ]
