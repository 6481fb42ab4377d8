"""Gradient steps: against torch.optim.SGD on a network with another backward pass, and what they do to Theorem 5.2."""

import itertools
from collections.abc import Callable

import pytest
import torch
from test_conservation import HIDDEN_LAYERS, RULES, random_flow
from torch import Tensor, nn

from flowsim import Flow, descent, solve
from flowsim.observables import conserved
from flowsim.weights import DeepWeights

MOMENTA = [0.0, 0.4]


class FeedbackLinear(torch.autograd.Function):
    """x W^T whose backward pass sends the error through B in the place of W."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, feedback: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(inputs, feedback)
        return inputs @ weight.T

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        inputs, feedback = ctx.saved_tensors
        (gradient,) = gradients
        return gradient @ feedback, gradient.T @ inputs, None


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": lambda outputs, targets: nn.functional.cross_entropy(outputs, targets.argmax(-1)),
    "logistic": lambda outputs, targets: nn.functional.softplus(-targets * outputs).mean(),
}


def by_sgd(
    flow: Flow, weights: DeepWeights, steps: int, eta: Callable[[int], float], momentum: float, rule: str
) -> list[Tensor]:
    """Train torch parameters with torch.optim.SGD and autograd, on the same network."""
    layers = [nn.Parameter(layer.clone()) for layer in weights.layers]
    optimizer = torch.optim.SGD(layers, lr=eta(0), momentum=momentum)
    fixed = flow.rule.feedback_matrices(weights)
    for number in range(steps):
        optimizer.param_groups[0]["lr"] = eta(number)
        optimizer.zero_grad()
        activation = flow.dataset.inputs @ layers[0].T
        for level, layer in enumerate(layers[1:]):
            feedback = {"gd": layer.detach(), "sign-fa": 0.5 * layer.detach().sign()}.get(rule, fixed[level])
            hidden = nn.functional.leaky_relu(activation, flow.slope)
            activation = FeedbackLinear.apply(hidden, layer, feedback)
        LOSSES[str(flow.loss)](activation, flow.dataset.targets).backward()  # type: ignore[arg-type]
        optimizer.step()
    return [layer.detach() for layer in layers]


LOSS_AND_OUTPUTS = [("cross-entropy", 3), ("logistic", 1)]
COMBINED = [
    (rule, momentum, hidden_layers, *LOSS_AND_OUTPUTS[(number + hidden_layers + (momentum > 0)) % 2])
    for (number, rule), momentum, hidden_layers in itertools.product(enumerate(RULES), MOMENTA, HIDDEN_LAYERS)
]
"""Every rule with and without momentum at every depth; each of these with both losses."""
EVERY = pytest.mark.parametrize(("rule", "momentum", "hidden_layers", "loss", "outputs"), COMBINED)


@EVERY
def test_50_steps_are_those_of_sgd_with_the_rules_backward_pass(
    rule: str, momentum: float, hidden_layers: int, loss: str, outputs: int
) -> None:
    flow, weights = random_flow(rule, loss, outputs, hidden_layers)

    def eta(number: int) -> float:
        return 0.1 if number < 25 else 0.01

    state = descent.start(weights)
    for number in range(50):
        state = descent.step(flow, state, eta(number), momentum)
    moved = (state.weights.layers[0] - weights.layers[0]).abs().max()
    assert moved > 0.1
    for ours, theirs in zip(
        state.weights.layers, by_sgd(flow, weights, 50, eta, momentum, rule), strict=True
    ):  # fmt: skip
        # 50 steps of a few roundings of numbers of size 1, and what instability makes of them
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.2])
@EVERY
def test_what_steps_add_to_conserved_quantities_is_the_correction(
    rule: str, momentum: float, hidden_layers: int, loss: str, outputs: int, decay: float
) -> None:
    """At every layer and neuron, after each of 30 steps, half of them smaller, through changes of sign."""
    flow, weights = random_flow(rule, loss, outputs, hidden_layers, decay=decay)
    state, first = descent.start(weights), conserved(flow, weights)
    largest = 0.0
    for number in range(30):
        state = descent.step(flow, state, 0.1 if number < 15 else 0.05, momentum)
        for now, then, added in zip(conserved(flow, state.weights), first, state.correction, strict=True):
            # so many steps with a few roundings of numbers of size 10 each
            torch.testing.assert_close(now - then, added, rtol=0, atol=30 * 10 * 10 * 2.2e-16)
            largest = max(largest, (now - then).abs().max().item())
    assert largest > 1e-4, "without the correction the law fails visibly"


def test_correction_of_fa_without_momentum_is_half_the_squared_steps() -> None:
    """<W_2, B> - |W_1|^2 / 2 + sum eta^2 |Delta_1|^2 / 2 is constant: the formula of the flow's velocity alone."""
    flow, weights = random_flow("fa", "cross-entropy", 3, 1)
    state, total = descent.start(weights), torch.zeros(4, dtype=torch.float64)
    for _ in range(50):
        total += 0.5 * 0.1**2 * flow.velocity(state.weights).layers[0].square().sum(-1)
        state = descent.step(flow, state, 0.1)
    torch.testing.assert_close(state.correction[0], -total, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_divergence_is_the_rest_of_the_potentials_first_order(rule: str) -> None:
    """D_Psi = Psi(W') - Psi(W) - <B(W), W' - W>, for entries that change their sign, keep it, or leave 0."""
    flow, before = random_flow(rule, "cross-entropy", 3, 2)
    before.layers[1][0, 0] = 0.0
    _, other = random_flow("gd", "cross-entropy", 3, 2)
    generator = torch.Generator().manual_seed(1)
    after = other.map(lambda layer: layer + torch.randn(layer.shape, generator=generator, dtype=layer.dtype))
    old, new = flow.rule.potentials(before), flow.rule.potentials(after)
    for level, found in enumerate(flow.rule.divergences(before, after)):
        first, second = old[level], new[level]
        assert found is not None and first is not None and second is not None
        move = after.layers[level + 1] - before.layers[level + 1]
        first_order = (flow.rule.feedback_matrices(before)[level] * move).sum(-2)
        torch.testing.assert_close(found, second - first - first_order)
        assert (found >= 0).all()
        assert rule in ("fa", "adafa") or found.max() > 0.1


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("rule", RULES)
def test_small_steps_tend_to_the_flow_which_momentum_speeds_up(rule: str, momentum: float) -> None:
    """W after t / eta steps is the flow at t / (1 - momentum), up to an error of order eta.

    Where in a step a kink or a change of sign falls scatters the error: a factor of 2 is allowed.
    """
    flow, weights = random_flow(rule, "logistic", 1, 1)
    exact = solve(flow, weights, 1.0).evaluate(1.0)
    errors = []
    for steps in (100, 800):
        state = descent.start(weights)
        for _ in range(steps):
            state = descent.step(flow, state, (1 - momentum) / steps, momentum)
        errors.append((state.weights.layers[0] - exact.layers[0]).abs().max().item())
    assert errors[0] < 0.1
    assert 4 < errors[0] / errors[1] < 16


@pytest.mark.parametrize("rule", ["gd", "fa"])
def test_deviation_of_steps_is_proportional_to_their_size(rule: str) -> None:
    """Over a fixed time, halving eta halves it: the law is that of the flow (sign-FA has rare flips)."""
    deviations = []
    for steps in (200, 400):
        flow, weights = random_flow(rule, "logistic", 1, 1)
        state = descent.start(weights)
        for _ in range(steps):
            state = descent.step(flow, state, 2.0 / steps)
        change = conserved(flow, state.weights)[0] - conserved(flow, weights)[0]
        deviations.append(change.abs().sum().item())
    assert deviations[0] / deviations[1] == pytest.approx(2, rel=0.05)
