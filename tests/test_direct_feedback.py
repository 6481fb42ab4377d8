"""Direct feedback alignment: its backward pass, and at which layer it has a law."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from test_flow import random_problem, torch_risk
from torch import Tensor

from flowsim import (
    Dataset,
    DeepWeights,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    Solution,
    Weights,
    descent,
    solve,
)
from flowsim.initialization import deep_gaussian, with_gaps
from flowsim.observables import alignment, conserved, conserved_per_layer, network_alignment
from theorems import equation_1, theorem_5_2
from theorems.check import DoesNotApplyError, check

SLOPE = 0.3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Direct(torch.autograd.Function):
    """The identity; what comes back is the error of the outputs through a fixed matrix, whatever comes from above."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, signal: Tensor) -> Tensor:
        ctx.save_for_backward(signal)
        return hidden.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (signal,) = ctx.saved_tensors
        return signal, None


@pytest.mark.parametrize(
    ("loss", "hidden_layers", "seed"),
    list(itertools.product(["exponential", "logistic", "squared", "cross-entropy"], [1, 2, 3], [0, 1])),
)
def test_velocity_equals_automatic_differentiation_with_the_error_sent_to_each_layer(
    loss: str, hidden_layers: int, seed: int
) -> None:
    dataset, layers, _ = random_problem(loss, hidden_layers, seed)
    outputs = layers[-1].shape[-2]
    feedback = [normal(len(layers[0]), outputs, 4, seed=level) for level in range(hidden_layers)]
    flow = Flow(dataset, DirectFeedbackAlignment(tuple(feedback)), loss, SLOPE)
    velocity = flow.velocity(DeepWeights(tuple(layers)))
    for b in range(len(layers[0])):
        leaves = [layer[b].clone().requires_grad_() for layer in layers]

        def network(signals: list[Tensor] | None, b: int = b, leaves: list[Tensor] = leaves) -> Tensor:
            hidden = dataset.inputs[b]
            for level, layer in enumerate(leaves[:-1]):
                hidden = torch.nn.functional.leaky_relu(hidden @ layer.mT, SLOPE)
                if signals is not None:
                    sent = Direct.apply(hidden, signals[level])
                    assert isinstance(sent, Tensor)
                    hidden = sent
            return hidden @ leaves[-1].mT

        found = network(None).detach().requires_grad_()
        (error,) = torch.autograd.grad(torch_risk(loss, found, dataset.labels[b]), found)
        risk = torch_risk(loss, network([error @ matrix[b] for matrix in feedback]), dataset.labels[b])
        for ours, theirs in zip(velocity.layers, torch.autograd.grad(risk, leaves), strict=True):
            torch.testing.assert_close(ours[b], -theirs, rtol=1e-12, atol=1e-13)


def test_the_gradient_is_still_that_of_the_risk() -> None:
    dataset, layers, _ = random_problem("squared", 2, 1)
    weights = DeepWeights(tuple(layers))
    leaves = [layer.requires_grad_() for layer in layers]
    rule = DirectFeedbackAlignment((normal(3, 4), normal(3, 4)))
    flow = Flow(dataset, rule, "squared", SLOPE)
    expected = torch.autograd.grad(flow.risk(weights.with_layers(leaves)).sum(), leaves)
    for ours, theirs in zip(flow.gradient(weights).layers, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_for_two_layers_it_is_feedback_alignment_to_the_bit(method: str) -> None:
    dataset = Dataset(normal(5, 3), [1, -1, 1, 1, -1])
    feedback, hidden = normal(4, seed=1), normal(4, 3, seed=2)
    direct, fixed = DirectFeedbackAlignment(feedback), FeedbackAlignment(feedback)
    weights = with_gaps(hidden, direct, 0.1)
    assert torch.equal(weights.output, with_gaps(hidden, fixed, 0.1).output)
    ours, theirs = (solve(Flow(dataset, rule), weights, 0.5, method=method, rtol=1e-8) for rule in (direct, fixed))
    times = torch.linspace(0, 0.5, 11, dtype=torch.float64)
    assert torch.equal(ours.evaluate(times).hidden, theirs.evaluate(times).hidden)
    for quantity in (conserved, alignment):
        (here,), (there,) = (quantity(run.flow, run.evaluate(times)) for run in (ours, theirs))
        assert torch.equal(here, there)


def deep_run(t_final: float = 0.5) -> Solution[DeepWeights]:
    """Widths 5, 4, 3, 3: at both hidden layers the direct matrix is shaped like the forward one, and might be taken."""
    weights = deep_gaussian((5, 4, 3, 3), seed=4)
    rule = DirectFeedbackAlignment((normal(3, 4, seed=5), normal(3, 3, seed=6)))
    dataset = Dataset(normal(3, 5, seed=7), [0, 1, 2], classes=3)
    return solve(Flow(dataset, rule, "cross-entropy", 0.7), weights, t_final, method="dopri5", rtol=1e-11, atol=1e-13)


def test_the_last_hidden_layer_has_the_law() -> None:
    solution = deep_run()
    times = torch.linspace(0, 0.5, 20, dtype=torch.float64)
    at = solution.evaluate(times)
    (gaps,) = conserved(solution.flow, at, layers=[2])
    (companion,) = conserved(solution.flow, solution.companion.evaluate(times), layers=[2])
    assert (at.layers[1][-1] - at.layers[1][0]).abs().max() > 1e-2, "a layer at rest would conserve everything"
    assert (gaps - gaps[0]).abs().max() <= (gaps - companion).abs().max() + 1e-12
    assert (gaps - gaps[0]).abs().max() < 1e-9
    torch.testing.assert_close(conserved_per_layer(solution.flow, at, [2])[0], gaps.sum(-1))


def test_a_lower_layer_does_not_but_with_a_shadow_read_out() -> None:
    """dM = e a_1^T, a read-out of layer 1 that nobody uses: <M[:, i], B_1[:, i]> - |W_1[i, :]|^2 / 2 is constant.

    The integral by Gauss' rule on the smooth pieces of the run; with W_2 in the place of M it is far from constant.
    """
    solution = deep_run()
    flow, pieces = solution.flow, solution.pieces
    lower = flow.rule.feedback_matrices(solution.start)[0]
    nodes, factors = (torch.from_numpy(item) for item in np.polynomial.legendre.leggauss(8))
    length = pieces.end - pieces.start
    at = solution.evaluate((pieces.start + (nodes.unsqueeze(-1) + 1) / 2 * length).flatten())
    activation, _ = flow.activation(flow.dataset.inputs @ at.layers[0].mT)
    error = (flow.dataset.targets - torch.softmax(flow.outputs(at), -1)) / flow.dataset.samples
    moves = ((error @ lower) * activation).sum(-2).unflatten(0, (8, -1))
    gained = (0.5 * factors.unsqueeze(-1) * length).unsqueeze(-1).mul(moves).sum((0, 1))
    first, last = solution.evaluate([0.0, 0.5]).layers[0].square().sum(-1) / 2
    assert (gained - (last - first)).abs().max() < 1e-9
    taken = ((solution.evaluate(0.5).layers[1] - solution.start.layers[1]) * lower).sum(-2)
    assert (taken - (last - first)).abs().max() > 1e-2


def test_what_has_no_law_is_said_and_what_has_is_named() -> None:
    solution = deep_run(0.01)
    with pytest.raises(ValueError) as error:
        conserved(solution.flow, solution.start)
    assert str(error.value) == (
        "rule DirectFeedbackAlignment conserves nothing at hidden layer 1 of 2: ask for layers=[2]"
    )
    for layers in ([0], [3], [-1]):
        with pytest.raises(ValueError, match=rf"layers must be an integer of at .*, got {layers[0]}"):
            conserved(solution.flow, solution.start, layers)
    for quantity in (alignment, network_alignment):
        with pytest.raises(ValueError, match="rule DirectFeedbackAlignment must stand for the forward weights"):
            quantity(solution.flow, solution.start)
    with pytest.raises(DoesNotApplyError, match="B is the gradient of Psi"):
        check(theorem_5_2.STATEMENT, "direct", "theorem", [solution])
    assert check(equation_1.STATEMENT, "direct", "theorem", [solution]).verdict == "holds"


def test_steps_have_their_correction_at_the_last_hidden_layer_only() -> None:
    solution = deep_run(0.01)
    flow, state = solution.flow, descent.start(solution.start)
    for _ in range(10):
        state = descent.step(flow, state, 0.1, 0.4)
    (now,), (then,) = (conserved(flow, weights, [2]) for weights in (state.weights, solution.start))
    torch.testing.assert_close(now - then, state.correction[1], rtol=0, atol=1e-13)
    assert state.correction[1].abs().max() > 1e-4
    assert state.correction[0].isnan().all()


@pytest.mark.parametrize(
    ("weights", "feedback"),
    [
        (deep_gaussian((3, 5, 4, 2), 0), (torch.ones(4, 5), torch.ones(2, 4))),
        (deep_gaussian((3, 5, 4, 2), 0), (torch.ones(2, 5),)),
        (deep_gaussian((3, 5, 4, 2), 0), torch.ones(2, 4)),
        (Weights(torch.ones(5, 3), torch.ones(5)), torch.ones(4)),
    ],
)
def test_matrices_that_do_not_carry_the_outputs_error_to_each_layer_are_refused(weights: Any, feedback: Any) -> None:
    with pytest.raises(
        ValueError, match=r"feedback must be one \(k, m_l\) for each hidden layer, which is \[\("
    ) as error:
        DirectFeedbackAlignment(feedback).feedback_matrices(weights)
    assert "\n" not in str(error.value)


def test_map_matrices_keeps_the_kind_of_rule() -> None:
    weights = deep_gaussian((3, 5, 4, 2), 0)
    rule = DirectFeedbackAlignment((normal(2, 5), normal(2, 4)))
    doubled = rule.map_matrices(weights, lambda matrix: 2 * matrix)
    assert type(doubled) is DirectFeedbackAlignment
    assert torch.equal(doubled.feedback_matrices(weights)[0], 2 * normal(2, 5))
