"""Weights: which shapes fit. Reduction to the span of the data: exact, and no rule moves the rest."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Weights,
    solve,
)
from flowsim.reduction import reduce
from flowsim.rules import Rule
from flowsim.weights import NetworkWeights, require_finite, stack

EPS = torch.finfo(torch.float64).eps


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "output", "named"),
    [
        ((3,), (3,), "hidden must have shape"),
        ((), (), "hidden must have shape"),
        ((3, 2), (2,), "output must have shape"),
        ((3, 2), (), "output must have shape"),
        ((3, 2), (3, 1), "output must have shape"),
        ((4, 3, 2), (3,), "output must have shape"),
        ((4, 3, 2), (5, 3), "output must have shape"),
        ((4, 3, 2), (5, 2, 3), "output must have shape"),
        ((3, 2), (4, 2, 3), "output must have shape"),
    ],
)
def test_weights_of_shapes_that_do_not_fit_are_refused(
    hidden: tuple[int, ...], output: tuple[int, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=named) as error:
        Weights(torch.zeros(hidden), torch.zeros(output))
    assert str(hidden if "hidden must" in named else output) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("hidden", "output", "batch", "scalar", "last"),
    [
        ((3, 2), (3,), (), True, (1, 3)),
        ((3, 2), (1, 3), (), False, (1, 3)),
        ((3, 2), (5, 3), (), False, (5, 3)),
        ((4, 3, 2), (4, 3), (4,), True, (4, 1, 3)),
        ((7, 4, 3, 2), (7, 4, 5, 3), (7, 4), False, (7, 4, 5, 3)),
    ],
)
def test_weights_give_their_layers_as_matrices_and_come_back_from_them(
    hidden: tuple[int, ...], output: tuple[int, ...], batch: tuple[int, ...], scalar: bool, last: tuple[int, ...]
) -> None:
    weights = Weights(normal(*hidden), normal(*output, seed=1))
    assert weights.batch_shape == batch
    assert weights.scalar_output is scalar
    assert [tuple(layer.shape) for layer in weights.layers] == [hidden, last]
    back = weights.with_layers(weights.layers)
    assert torch.equal(back.hidden, weights.hidden)
    assert torch.equal(back.output, weights.output)
    doubled = weights.map(lambda tensor: 2 * tensor)
    assert torch.equal(doubled.output, 2 * weights.output)


@pytest.mark.parametrize(
    "shapes",
    [
        [],
        [(3, 2)],
        [(3, 2), (1, 2)],
        [(2,), (1, 2)],
        [(3, 2), (3,)],
        [(5, 3, 2), (1, 3)],
        [(5, 3, 2), (4, 1, 3)],
        [(3, 2), (4, 3), (1, 3)],
    ],
    ids=str,
)
def test_deep_weights_that_do_not_fit_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"layers must (fit each other|hold at least two)") as error:
        DeepWeights(tuple(torch.zeros(shape) for shape in shapes))
    assert str(shapes if len(shapes) > 1 else len(shapes)) in str(error.value)


def test_deep_weights_name_their_layers_and_map_over_them() -> None:
    weights = DeepWeights((normal(4, 3), normal(5, 4, seed=1), normal(2, 5, seed=2)))
    assert list(weights.tensors) == ["layers[0]", "layers[1]", "layers[2]"]
    assert weights.batch_shape == ()
    assert not weights.scalar_output
    doubled = weights.map(lambda tensor: 2 * tensor)
    assert all(torch.equal(new, 2 * old) for new, old in zip(doubled.layers, weights.layers, strict=True))


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        (Weights(torch.tensor([[math.nan]]), torch.ones(1)), "hidden must be finite, got nan at index (0, 0)"),
        (Weights(torch.ones(2, 1), torch.tensor([1.0, -math.inf])), "output must be finite, got -inf at index (1,)"),
        (DeepWeights((torch.ones(1, 1), torch.tensor([[math.inf]]))), "layers[1] must be finite, got inf"),
    ],
)
def test_the_tensor_that_is_not_finite_is_named(weights: NetworkWeights, named: str) -> None:
    with pytest.raises(ValueError) as error:
        require_finite(weights)
    assert named in str(error.value)


def test_weights_are_converted_to_float64_and_complex_ones_refused() -> None:
    converted = Weights(torch.ones(2, 1, dtype=torch.float32), torch.ones(2, dtype=torch.int64))
    assert converted.hidden.dtype == converted.output.dtype == torch.float64
    with pytest.raises(ValueError, match="hidden must be an array of real numbers"):
        Weights(torch.ones(1, 1) * 1j, torch.ones(1))


def test_weights_from_lists_keep_their_values_in_float64() -> None:
    weights = Weights([[0.6]], [1.2])  # type: ignore[arg-type]
    assert weights.hidden.tolist() == [[0.6]]
    assert weights.output.tolist() == [1.2]


def test_a_network_without_neurons_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden"):
        Weights(torch.zeros(0, 2), torch.zeros(0))


def test_stack_puts_trajectories_along_a_new_first_dimension() -> None:
    members = [Weights(normal(3, 2, seed=seed), normal(3, seed=seed + 9)) for seed in range(4)]
    ensemble = stack(members)
    assert ensemble.batch_shape == (4,)
    assert torch.equal(ensemble.hidden[2], members[2].hidden)
    assert torch.equal(ensemble.output[3], members[3].output)


# --- reduction -------------------------------------------------------------------------------------------------------


def low_rank(n: int, d: int, rank: int, seed: int) -> Tensor:
    return normal(n, rank, seed=seed) @ normal(rank, d, seed=seed + 100)


REPEATED = torch.cat([normal(3, 4, seed=5)] * 2)
INPUTS: dict[str, tuple[Tensor, int]] = {
    # name: inputs and the dimension that the reduction must reach
    "d > n": (normal(4, 9), 4),
    "d < n, rank deficient": (low_rank(8, 5, 3, seed=1), 5),
    "d < n, full rank": (normal(8, 5, seed=2), 5),
    "d > n, rank deficient": (low_rank(5, 9, 2, seed=3), 5),
    "repeated inputs": (REPEATED, 4),
    "a zero input": (torch.cat([torch.zeros(1, 6).double(), normal(2, 6, seed=6)]), 3),
    "zero inputs only": (torch.zeros(2, 3).double(), 2),
    "large inputs": (1e120 * low_rank(5, 6, 2, seed=7), 5),
    "small inputs": (1e-120 * low_rank(5, 6, 2, seed=8), 5),
    "ensemble": (torch.stack([low_rank(5, 7, 3, seed=seed) for seed in range(4)]), 5),
    "ensemble of different ranks": (torch.stack([low_rank(5, 7, rank, seed=rank) for rank in (1, 4, 2)]), 5),
}
ARCHITECTURES = ["scalar", "vector", "deep"]
RULES = ["gd", "fa", "sign-fa"]


def problem(name: str, architecture: str, rule: str, slope: float = 0.3) -> tuple[Flow, NetworkWeights]:
    inputs, _ = INPUTS[name]
    *batch, n, d = inputs.shape
    size = inputs.abs().max().item() or 1.0
    hidden = normal(*batch, 6, d, seed=20) / size
    classes = None if architecture == "scalar" else 3
    labels = torch.arange(n).expand(*batch, n) % 3 if classes else 1.0 - 2.0 * (torch.arange(n).expand(*batch, n) % 2)
    if architecture == "deep":
        weights: NetworkWeights = DeepWeights((hidden, normal(*batch, 4, 6, seed=21), normal(*batch, 3, 4, seed=22)))
        feedback: Any = (normal(*batch, 4, 6, seed=23), normal(*batch, 3, 4, seed=24))
    else:
        shape = (*batch, 6) if architecture == "scalar" else (*batch, 3, 6)
        weights, feedback = Weights(hidden, normal(*shape, seed=21)), normal(*shape, seed=23)
    rules: dict[str, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(feedback),
        "sign-fa": SignFeedbackAlignment(0.7),
    }
    return Flow(Dataset(inputs, labels, classes), rules[rule], "squared", slope), weights


def assert_close_to_rounding(found: Tensor, wanted: Tensor) -> None:
    """Each entry is a few sums of at most 10 products and a rotation of at most 9 coordinates.

    Every one of these loses at most 10 eps of the largest value. Their number is below 20, and slopes, weights and
    singular values in these problems amplify by less than 1e2: 2e4 eps in all, 5e-12.
    """
    scale = wanted.abs().max().item()
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e4 * EPS * scale)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", INPUTS)
def test_velocity_in_reduced_coordinates_lifts_to_the_full_velocity(name: str, architecture: str, rule: str) -> None:
    flow, weights = problem(name, architecture, rule)
    reduction = reduce(flow, weights)
    assert reduction.weights.layers[0].shape[-1] == INPUTS[name][1]
    first, *others = reduction.flow.velocity(reduction.weights).layers
    basis = reduction.basis
    if basis is not None:
        first = first @ basis
        identity = torch.eye(basis.shape[-2]).double().expand(*basis.shape[:-1], basis.shape[-2])
        assert_close_to_rounding(basis @ basis.mT, identity)
    for found, wanted in zip([first, *others], flow.velocity(weights).layers, strict=True):
        assert_close_to_rounding(found, wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", INPUTS)
def test_lifting_undoes_reducing_at_the_start(name: str, architecture: str) -> None:
    flow, weights = problem(name, architecture, "fa")
    reduction = reduce(flow, weights)
    lifted = reduction.lift(reduction.weights, torch.tensor(0.0))
    assert type(lifted) is type(weights)
    for found, wanted in zip(lifted.layers, weights.layers, strict=True):
        assert found.shape == wanted.shape
        assert_close_to_rounding(found, wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", INPUTS)
def test_outputs_and_risk_are_those_of_the_full_network(name: str, architecture: str) -> None:
    flow, weights = problem(name, architecture, "gd")
    reduction = reduce(flow, weights)
    assert_close_to_rounding(reduction.flow.outputs(reduction.weights), flow.outputs(weights))
    assert_close_to_rounding(reduction.flow.risk(reduction.weights), flow.risk(weights))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["d > n", "d < n, rank deficient", "repeated inputs", "ensemble of different ranks"])
def test_no_rule_moves_the_part_of_the_hidden_weights_orthogonal_to_the_data(name: str, architecture: str) -> None:
    flow, weights = problem(name, architecture, "fa", slope=1.0)  # without kinks, so that no neuron slides on one
    method = "dopri5" if architecture == "deep" else "event"
    hidden = solve(flow, weights, 0.5, method=method, rtol=1e-6, atol=1e-8).evaluate([0.0, 0.2, 0.5]).layers[0]
    # the orthogonal complement by another way than the code's: of the rows' pseudo-inverse
    inputs = flow.dataset.inputs
    across = torch.eye(inputs.shape[-1]).double() - torch.linalg.pinv(inputs, rtol=1e-10) @ inputs
    moved = hidden - weights.layers[0]
    assert moved[1:].abs().amax() > 1e-2  # the rest does move
    # independent of the tolerances of the solve: only rounding, as the condition of the inputs is below 1e2
    assert (moved @ across).abs().max() <= 1e4 * EPS * hidden.abs().max()


def test_nothing_is_reduced_where_the_inputs_span_everything() -> None:
    flow, weights = problem("d < n, full rank", "scalar", "gd")
    reduction = reduce(flow, weights)
    assert reduction.flow is flow
    assert reduction.weights is weights
    assert reduction.basis is None


def test_nothing_is_reduced_where_the_flow_leaves_the_span() -> None:
    class Leaving(Flow):
        stays_in_span = False

    flow, weights = problem("d > n", "scalar", "gd")
    assert reduce(Leaving(flow.dataset, flow.rule, flow.loss, flow.slope), weights).basis is None


def test_lift_takes_times_in_front_of_the_ensemble() -> None:
    flow, weights = problem("ensemble", "scalar", "gd")
    reduction = reduce(flow, weights)
    several = reduction.weights.map(lambda tensor: torch.stack([tensor, 2 * tensor, 0 * tensor]))
    lifted = reduction.lift(several, torch.zeros(3, 1)).layers[0]
    assert lifted.shape == (3, *weights.layers[0].shape)
    assert_close_to_rounding(lifted[0], weights.layers[0])
    offset = reduction.offset
    assert offset is not None
    assert torch.equal(lifted[2], offset)


def test_reduction_does_not_depend_on_the_order_of_samples() -> None:
    flow, weights = problem("d > n, rank deficient", "scalar", "fa")
    order = np.random.default_rng(0).permutation(5)
    data = flow.dataset
    other = Flow(Dataset(data.inputs[order], data.labels[order]), flow.rule, flow.loss, flow.slope)
    velocities = []
    for each in (flow, other):
        reduction = reduce(each, weights)
        basis = reduction.basis
        assert basis is not None
        velocities.append(reduction.flow.velocity(reduction.weights).layers[0] @ basis)
    assert_close_to_rounding(*velocities)
