"""The angle between gradient and feedback direction: Kantorovich's bound against autograd, and where it is attained."""

import pytest
import torch
from torch.nn.functional import leaky_relu

from flowsim import Solution, Weights
from theorems import ensembles, equation_1
from theorems.ensembles import SMALL, margin_run
from theorems.equation_1 import ANGLE, _balanced_run
from theorems.measurement import measure
from theorems.observation import observe


@pytest.fixture(scope="module")
def run() -> Solution[Weights]:
    return margin_run("contradictory", "fa", SMALL, 1, "cpu", loss="logistic")


@pytest.mark.parametrize("time", [0.1, 2.0, 20.0])
def test_the_cosine_of_autograds_gradient_is_above_the_bound(run: Solution[Weights], time: float) -> None:
    """The gradient by autograd, the feedback direction as D grad with D = 1 and b_j / v_j."""
    at, dataset = run.evaluate(time), run.flow.dataset
    hidden, output = at.hidden[0].clone().requires_grad_(), at.output[0].clone().requires_grad_()
    outputs = leaky_relu(dataset.inputs[0] @ hidden.T, run.flow.slope) @ output
    risk = torch.nn.functional.softplus(-outputs * dataset.labels[0]).mean()
    of_hidden, of_output = torch.autograd.grad(risk, (hidden, output))
    ratios = run.flow.rule.feedback_matrices(at)[0][0, 0] / output.detach()
    gradient = torch.cat([of_hidden.flatten(), of_output])
    direction = torch.cat([(ratios.unsqueeze(-1) * of_hidden).flatten(), of_output])
    velocity = run.flow.velocity(at)
    assert torch.allclose(-direction, torch.cat([velocity.hidden.flatten(), velocity.output.flatten()]), rtol=1e-10)
    low, high = ratios.amin().clamp(max=1), ratios.amax().clamp(min=1)
    cosine = torch.cosine_similarity(gradient, direction, dim=0)
    assert cosine > 2 * (low * high).sqrt() / (low + high)


def test_extremes_and_the_margin_are_those_of_a_sum_over_neurons(run: Solution[Weights]) -> None:
    seen = observe(run, run.pieces)
    low, high = equation_1.extremes(seen)
    ratios = seen.weights.layers[1][..., 0, :] / seen.feedback[0][..., 0, :]
    everything = torch.cat([torch.ones_like(ratios[..., :1]), ratios], -1)
    assert torch.equal(low, everything.amin(-1))
    assert torch.equal(high, everything.amax(-1))


def test_the_bound_is_attained_where_half_the_squared_norm_is_the_gap() -> None:
    """One sample, one neuron: |fa_v|^2 = (v/b) |fa_w|^2 there; the run starts beside it, and comes nowhere nearer."""
    margin = measure(ANGLE.claims, _balanced_run("cpu"))[0]
    assert 0 < margin.surely.item() < margin.margin.item() < 1e-4


@pytest.mark.parametrize("factor", [1.01, 2.0])
def test_a_bound_that_is_1_percent_too_large_is_violated(factor: float) -> None:
    assert measure(equation_1._angle(factor).claims, _balanced_run("cpu"))[0].violated.item()


def test_the_hypothesis_notices_a_sign_that_is_lost_on_the_way() -> None:
    shrinking = ensembles.shrinking_run(1, "cpu")
    assert [item.name for item in ANGLE.hypotheses(shrinking) if not item.holds] == ["b_j v_j(t) > 0"]
    start = shrinking.start.output * shrinking.flow.rule.feedback_matrices(shrinking.start)[0].squeeze(-2)
    assert (start > 0).all()
