"""Weight decay: against closed forms, automatic differentiation, its own law, and a solve that reduces nothing."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import flowsim
from flowsim import Dataset, DeepWeights, FeedbackAlignment, Flow, GradientDescent, Solution, descent, solve
from flowsim.activation import LeakyReLU, Softplus
from flowsim.initialization import deep_gaussian
from flowsim.observables import conserved, descent_factors

DECAY = 0.3
WIDTHS = (7, 4, 3, 1)
TIMES = torch.linspace(0, 2, 9, dtype=torch.float64)


class Unreduced(Flow):
    """The same flow, solved in the coordinates that it is given in."""

    stays_in_span = False
    moves_as_given = True


def problem(slope: float = 0.3, loss: str = "logistic", flow_type: type[Flow] = Flow) -> tuple[Flow, DeepWeights]:
    """Three layers, 3 samples in 7 dimensions, so that most of W_1 lies across the data; no neuron slides."""
    inputs = torch.randn(3, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    feedback = FeedbackAlignment(deep_gaussian(WIDTHS, 1).layers[1:])
    flow = flow_type(Dataset(inputs, [1, -1, 1]), feedback, loss, slope, decay=DECAY)
    return flow, deep_gaussian(WIDTHS, 0)


def run(flow: Flow, weights: DeepWeights) -> Solution:
    return solve(flow, weights, 2.0, method="dopri8", rtol=1e-11, atol=1e-13, max_steps=3000)


def off(found: Any, wanted: Any) -> float:
    """The largest difference of weights."""
    pairs = zip(found.layers, wanted.layers, strict=True)
    return max((here - there).abs().max().item() for here, there in pairs)


def forgetting(solution: Solution) -> Solution:
    """The solution whose part across the data is taken to rest."""
    still = solution.reduction
    return replace(solution, reduction=replace(still, flow=replace(still.flow, decay=0.0)))


def test_weights_that_no_data_move_decay_exponentially() -> None:
    """With inputs 0 every layer is e^(-decay t) theta(0); W_1 partly in the coordinates solved in, partly across."""
    _, weights = problem()
    flow = Flow(Dataset(torch.zeros(3, 7), [1, -1, 1]), GradientDescent(), decay=DECAY)
    solution = run(flow, weights)
    assert solution.reduction.basis is not None
    left = torch.exp(-DECAY * TIMES).reshape(-1, 1, 1)
    at, moves = solution.evaluate(TIMES), solution.velocity(TIMES)
    # some 10 steps of a relative tolerance 1e-11 of weights of size up to 4
    assert off(at, at.with_layers([left * layer for layer in weights.layers])) < 1e-9
    assert off(moves, at.with_layers([-DECAY * left * layer for layer in weights.layers])) < 1e-9
    assert off(forgetting(solution).evaluate(TIMES), at) > 0.1


@pytest.mark.parametrize("loss", ["exponential", "logistic", "squared"])
def test_velocity_of_gd_is_that_of_the_risk_with_a_penalty_by_automatic_differentiation(loss: str) -> None:
    """-grad (L + decay |theta|^2 / 2)."""
    _, weights = problem()
    flow = Flow(problem()[0].dataset, GradientDescent(), loss, decay=DECAY)
    for layer in weights.layers:
        layer.requires_grad_()
    penalized = flow.risk(weights) + 0.5 * DECAY * sum(layer.square().sum() for layer in weights.layers)
    expected = torch.autograd.grad(penalized, weights.layers)
    for ours, theirs in zip(flow.velocity(weights).layers, expected, strict=True):
        # sums of 10 products of numbers of size 10
        torch.testing.assert_close(ours, -theirs, rtol=1e-12, atol=1e-13)


def test_velocity_of_a_rule_is_that_without_decay_and_the_gradient_is_that_of_the_risk_alone() -> None:
    flow, weights = problem()
    alone = replace(flow, decay=0.0)
    pairs = zip(flow.velocity(weights).layers, alone.velocity(weights).layers, weights.layers, strict=True)
    for ours, rule, layer in pairs:
        torch.testing.assert_close(ours - rule, -DECAY * layer, rtol=1e-12, atol=1e-14)
    assert off(flow.gradient(weights), alone.gradient(weights)) == 0


def test_descent_of_the_risk_counts_the_decay() -> None:
    """dL/dt = -<grad, fa>, with dL/dt by central differences along the run: errors of 1e-10 / 1e-4 and 1e-8."""
    flow, weights = problem(slope=1.0)
    at = run(flow, weights).evaluate([1 - 1e-4, 1.0, 1 + 1e-4])
    risk = flow.risk(at)
    product = descent_factors(flow, at).product[1].item()
    assert (risk[2] - risk[0]).item() / 2e-4 == pytest.approx(-product, abs=3e-6)
    assert abs(descent_factors(replace(flow, decay=0.0), at).product[1].item() - product) > 1e-2


def law(solution: Solution, decay: float) -> Tensor:
    """e^(l t) c(t) - c(0) - l int_0^t e^(l s) |W_l[i, :]|^2 / 2 ds of all hidden neurons, l = decay, t = 2.

    Theorem 5.2 with decay under FA; the integral by 40 Gauss-Legendre nodes, exact to rounding for a smooth integrand.
    """
    nodes, shares = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(40))
    times = 1 + nodes
    first, last = (torch.cat(conserved(solution.flow, solution.evaluate(time)), -1) for time in (0.0, 2.0))
    halves = torch.cat([0.5 * layer.square().sum(-1) for layer in solution.evaluate(times).layers[:-1]], -1)
    integral = (shares * torch.exp(decay * times)) @ halves
    return np.exp(2 * decay) * last - first - decay * integral


def test_gaps_of_fa_follow_the_law_of_decay() -> None:
    """In a linear network, where nothing has kinks; c = b v - |w|^2 / 2 knows all of w, across the data too."""
    solution = run(*problem(slope=1.0))
    # the error of the run, 1e-10, times the weights and e^(0.6)
    assert law(solution, DECAY).abs().max() < 1e-8
    assert law(solution, 0.0).abs().max() > 0.1, "nothing is conserved"
    first = law(forgetting(solution), DECAY)[:4]
    assert first.abs().min() > 0.01, "and not if the part across the data is taken to rest"


@pytest.mark.parametrize("slope", [0.3, 1.0])
def test_the_reduced_solve_is_the_one_in_all_coordinates(slope: float) -> None:
    flow, weights = problem(slope)
    reduced, whole = run(flow, weights), run(*problem(slope, flow_type=Unreduced))
    assert reduced.reduction.basis is not None
    assert whole.reduction.basis is None
    # tolerances of 1e-11 over some 50 steps; kinks, where the velocity jumps, add as much
    assert off(reduced.evaluate(TIMES), whole.evaluate(TIMES)) < 1e-8
    assert off(reduced.velocity(TIMES), whole.velocity(TIMES)) < 1e-7
    assert off(reduced.companion.evaluate(TIMES), whole.evaluate(TIMES)) < 1e-6
    without = forgetting(reduced)
    assert off(without.evaluate(TIMES), whole.evaluate(TIMES)) > 0.1
    assert off(without.velocity(TIMES), whole.velocity(TIMES)) > 0.1


def test_trajectories_of_an_ensemble_are_lifted_at_times_of_their_own(tmp_path: Path) -> None:
    """Extended, selected, saved and loaded too; in a linear network, whose steps no kink makes short."""
    flow, weights = problem(slope=1.0)
    several = weights.map(lambda layer: torch.stack([layer, 0.5 * layer]))
    solution = run(flow, several)
    alone = [run(flow, weights.map(lambda layer, size=size: size * layer)) for size in (1.0, 0.5)]
    whose = torch.tensor([1, 0, 1])
    times = torch.tensor([0.3, 1.7, 2.0], dtype=torch.float64)
    solution.save(tmp_path / "solution.npz")
    kept = flowsim.load(tmp_path / "solution.npz")
    assert kept.flow.decay == DECAY
    for each in (solution, kept, pickle.loads(pickle.dumps(solution))):
        for row, (index, time) in enumerate(zip(whose.tolist(), times.tolist(), strict=True)):
            for name in ("evaluate", "velocity"):
                found = getattr(each, name)(times, whose).map(lambda layer, row=row: layer[row])
                assert off(found, getattr(alone[index], name)(time)) == 0
        assert off(each[1].evaluate(1.0), alone[1].evaluate(1.0)) == 0
    longer = solution.extend(3.0)
    at_once = solve(flow, several, 3.0, method="dopri8", rtol=1e-11, atol=1e-13)
    assert off(longer.evaluate(1.0), solution.evaluate(1.0)) == 0
    assert off(longer.evaluate(3.0), at_once.evaluate(3.0)) < 1e-8


FLOW = problem()[0]
SAME: dict[str, Callable[[], Flow]] = {
    "replace": lambda: replace(FLOW, loss="squared"),
    "with_inputs": lambda: FLOW.with_inputs(torch.ones(3, 2)),
    "map_matrices": lambda: FLOW.map_matrices(problem()[1], lambda matrix: matrix.unsqueeze(0))[0],
    "pickle": lambda: pickle.loads(pickle.dumps(FLOW)),
    "copy": lambda: copy.deepcopy(FLOW),
}


@pytest.mark.parametrize("name", SAME)
def test_the_decay_stays_with_the_flow(name: str) -> None:
    assert SAME[name]().decay == DECAY


def test_a_flow_says_its_decay_and_that_it_does_not_follow_its_rule() -> None:
    assert repr(FLOW).endswith("logistic loss, slope 0.3, decay 0.3)")
    alone = replace(FLOW, decay=0.0)
    assert repr(alone).endswith("logistic loss, slope 0.3)")
    assert alone.follows_rule
    assert not FLOW.follows_rule


@pytest.mark.parametrize("name", ["decay", "follows_rule"])
def test_a_subclass_cannot_hide_the_decay(name: str) -> None:
    with pytest.raises(TypeError, match=f"Hiding must not override {name}: "):
        type("Hiding", (Flow,), {name: True})


def test_a_subclass_that_moves_as_given_follows_its_rule_without_decay() -> None:
    unreduced = problem(flow_type=Unreduced)[0]
    assert not unreduced.follows_rule
    assert replace(unreduced, decay=0.0).follows_rule


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("activation", [LeakyReLU(0.3), Softplus()])
def test_steps_are_those_of_sgd_with_weight_decay(momentum: float, activation: Any) -> None:
    flow = Flow(FLOW.dataset, GradientDescent(), "logistic", activation=activation, decay=DECAY)
    state = descent.start(problem()[1])
    layers = [torch.nn.Parameter(layer.clone()) for layer in state.weights.layers]
    optimizer = torch.optim.SGD(layers, lr=0.1, momentum=momentum, weight_decay=DECAY)
    for _ in range(50):
        state = descent.step(flow, state, 0.1, momentum)
        optimizer.zero_grad()
        flow.risk(_as_weights(layers)).backward()
        optimizer.step()
    # 50 steps of a few roundings of numbers of size 1
    assert off(state.weights, DeepWeights(tuple(layer.detach() for layer in layers))) < 1e-12


def _as_weights(layers: list[torch.nn.Parameter]) -> Any:
    """Weights that autograd sees through, as `DeepWeights` copies and detaches what it is given."""
    return problem()[1].with_layers(layers)
