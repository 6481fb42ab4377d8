"""The law of a shadow read-out under direct feedback: against finite steps, and planted mistakes."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from flowsim import DirectFeedbackAlignment, Flow, Solution, Weights, solve
from flowsim.data import orthogonally_separable
from flowsim.initialization import deep_gaussian, gaussian, random_signs
from flowsim.losses import named
from theorems import direct_feedback
from theorems.check import Statement, check, hypotheses_of
from theorems.ensembles import any_run
from theorems.integrals import integrals_before
from theorems.measurement import Claim


def deep() -> Solution:
    return direct_feedback.direct_run(1, "cpu", loss="squared")


def test_the_law_holds_at_any_weights_with_the_shadow_written_out() -> None:
    """<B_l[:, i], sum e a_l^T> = <W_l[i, :], dW_l/dt[i, :]>, by the definitions, at both hidden layers."""
    solution = deep()
    flow, weights = solution.flow, deep_gaussian((6, 8, 8, 3), 77)
    matrices = [matrix[0] for matrix in flow.rule.feedback_matrices(solution.start)]
    activation, layers = solution.flow_of(torch.tensor([0])).dataset.inputs[0], weights.layers
    activations = []
    for layer in layers[:-1]:
        z = activation @ layer.mT
        activation = torch.where(z > 0, z, flow.slope * z)
        activations.append(activation)
    dataset = solution.flow_of(torch.tensor([0])).dataset
    outputs = activation @ layers[-1].mT
    error = named(flow.loss).negative_gradient(outputs, dataset.targets[0]) / dataset.samples
    one = Flow(
        dataset, DirectFeedbackAlignment(tuple(matrix.unsqueeze(0) for matrix in matrices)), "squared", flow.slope
    )
    velocity = one.velocity(weights.with_layers([layer.unsqueeze(0) for layer in layers])).layers
    for level, matrix in enumerate(matrices):
        shadow = error.mT @ activations[level]
        rate = (layers[level] * velocity[level][0]).sum(-1)
        torch.testing.assert_close((matrix * shadow).sum(-2), rate, rtol=1e-11, atol=1e-13)


def test_at_the_last_hidden_layer_the_shadow_is_what_the_output_weights_gain() -> None:
    solution = deep()
    before = integrals_before(direct_feedback.shadow_rate, solution)[0][-1]
    at = solution.pieces.start[-1].item()
    gain = solution.evaluate(at).layers[-1][0] - solution.start.layers[-1][0]
    torch.testing.assert_close(before[-gain.numel() :].reshape(gain.shape), gain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("factor", [0.99, 1.01, -1.0])
def test_a_shadow_that_is_a_percent_off_is_noticed(factor: float) -> None:
    statement = direct_feedback.SHADOW
    assert check(statement, "x", "theorem", [deep()]).verdict == "holds"
    off = replace(statement, rate=lambda seen: factor * direct_feedback.shadow_rate(seen))
    assert check(off, "x", "theorem", [deep()]).verdict == "violated"


def test_no_law_below_the_last_hidden_layer_but_the_last_one_holds_there() -> None:
    run = direct_feedback.direct_run(1, "cpu", width=3)
    claims = [Claim("x", "equality", partial(direct_feedback.law_at, layer=layer)) for layer in (0, 1)]
    verdicts = [check(replace(direct_feedback.LAST, claims=[claim]), "x", "theorem", [run]).verdict for claim in claims]
    assert verdicts == ["violated", "holds"]


@pytest.mark.parametrize("statement", [direct_feedback.LAST, direct_feedback.SHADOW], ids=["last", "shadow"])
def test_hypotheses_notice_their_breach(statement: Statement) -> None:
    by_layer = any_run("fa", 1, "cpu", loss="cross-entropy", outputs=3, hidden_layers=2)
    assert {item.name for item in hypotheses_of(statement, by_layer) if not item.holds} == {
        "rule is DirectFeedbackAlignment"
    }
    flow = Flow(orthogonally_separable(4, 5, 0.2, 0), DirectFeedbackAlignment(random_signs(4, 0)), slope=0.3)
    start: Weights = gaussian(4, 5, 0)
    assert (
        check(statement, "two layers", "theorem", [solve(flow, start, 2.0, rtol=1e-13, atol=1e-15)]).verdict == "holds"
    )
