"""The slopes that hold pre-activations at 0: against the kernel, derivatives along the flow, bounded least squares."""

import itertools
from typing import Any

import pytest
import torch
from conformance.reference_runs import flow_and_weights, load_runs
from scipy.optimize import lsq_linear
from torch import Tensor

from flowsim import (
    Dataset,
    DeepWeights,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Weights,
    solve,
)
from flowsim.flat import join
from flowsim.integrators.event import batched, compiled
from flowsim.integrators.event.kernel import Kernel
from flowsim.integrators.event.records import Layout, Record
from flowsim.rules import Rule
from flowsim.sliding import effective_slopes
from theorems import ensembles

RUNS = load_runs()
Sides = list[Tensor]


def off(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
    """The largest difference at each time, relative to the largest entry of the layer."""
    pairs = zip(found, wanted, strict=True)
    return torch.stack([(a - b).abs().amax((-2, -1)) / b.abs().amax((-2, -1)) for a, b in pairs]).amax(0)


@pytest.mark.parametrize("seed", RUNS)
def test_with_these_slopes_the_rule_gives_the_velocity_of_deep_runs_that_slide(seed: int) -> None:
    """In the middle of all pieces. Solved at 1e-13; the worst of the runs is off by 6e-14."""
    flow, start = flow_and_weights(RUNS[seed][0])
    solution = solve(flow, start, RUNS[seed][0].t_final, rtol=1e-13, atol=1e-15)
    middle = (solution.pieces.start + solution.pieces.end) / 2
    weights, sides, wanted = (getattr(solution, name)(middle) for name in ("evaluate", "pattern", "velocity"))
    deep = torch.stack([(side == 0).any(-1).any(-1) for side in sides[1:]]).any(0)
    assert deep.any()
    feedback = flow.rule.feedback_matrices(weights)

    def with_sides(changed: Sides) -> Tensor:
        slopes = effective_slopes(flow, weights, changed, feedback)
        return off(flow.velocity(weights, slopes, feedback).layers, wanted.layers)

    slopes = torch.cat([s[side == 0] for s, side in zip(effective_slopes(flow, weights, sides), sides, strict=True)])
    assert ((flow.slope <= slopes) & (slopes <= 1)).all(), "every one lies in its interval"
    assert with_sides(list(sides)).max() < 1e-12
    # controls: drives above the first layer ignored; those of the highest layer that slides given to the one below
    ignored = [sides[0], *(torch.where(side == 0, -1, side) for side in sides[1:])]
    assert with_sides(ignored)[deep].min() > 1e-9
    assert with_sides(ignored)[deep].max() > 1e-2
    moved = list(sides)
    level = max(level for level, side in enumerate(sides) if (side == 0).any())
    where = torch.nonzero(sides[level] == 0)[0].tolist()
    there = [*where[:2], min(where[2], sides[level - 1].shape[-1] - 1)]
    moved[level], moved[level - 1] = sides[level].clone(), sides[level - 1].clone()
    moved[level][tuple(where)], moved[level - 1][tuple(there)] = -1, 0
    assert with_sides(moved)[where[0]] > 1e-6


def network(rule: str, seed: int, widths: tuple[int, ...] = (5, 6, 5, 4, 3)) -> tuple[Flow, DeepWeights, Sides]:
    """Three hidden layers and three outputs, in an ensemble of two, put on kinks in every layer."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layers = [random(2, above, below) for below, above in itertools.pairwise(widths)]
    rules: dict[str, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(tuple(random(2, *layer.shape[-2:]) for layer in layers[1:])),
        "sign-fa": SignFeedbackAlignment(0.5),
        "direct": DirectFeedbackAlignment(tuple(random(2, 3, width) for width in widths[1:-1])),
    }
    flow = Flow(Dataset(random(2, 4, 5), (torch.arange(4) % 3).expand(2, 4), classes=3), rules[rule], "squared", 0.2)
    slid = [(0, 0, 1), (0, 2, 1), (0, 2, 4), (1, 1, 0), (1, 2, 3), (2, 2, 1), (2, 3, 2)]  # layer, sample, neuron
    sides, a = [], flow.dataset.inputs
    for level, layer in enumerate(layers[:-1]):
        for neuron in range(layer.shape[-2]):
            on = [sample for where, sample, other in slid if (where, other) == (level, neuron)]
            if on:
                along = torch.linalg.pinv(a[:, on]) @ (a[:, on] @ layer[:, neuron].unsqueeze(-1))
                layer[:, neuron] -= along.squeeze(-1)
        z = a @ layer.mT
        sides.append(torch.where(z > 0, 1, -1))
        for where, sample, neuron in slid:
            if where == level:
                sides[level][:, sample, neuron] = 0
        a = torch.where(sides[level] > 0, z, 0.2 * z).masked_fill(sides[level] == 0, 0.0)
    return flow, DeepWeights(tuple(layers)), sides


@pytest.mark.parametrize(("rule", "seed"), [*itertools.product(["gd", "fa", "sign-fa", "direct"], range(4))])
def test_with_these_slopes_pre_activations_of_all_layers_stay_at_0(rule: str, seed: int) -> None:
    """d/dt of z along the velocity by automatic differentiation of the forward pass, at every slide of every layer.

    It vanishes to rounding, which grows with the slopes: at random weights some are far outside of [gamma, 1].
    """
    flow, weights, sides = network(rule, seed)
    slopes = effective_slopes(flow, weights, sides)

    def pre_activations(*layers: Tensor) -> tuple[Tensor, ...]:
        found, a = [], flow.dataset.inputs
        for layer, slope in zip(layers[:-1], slopes, strict=True):
            found.append(a @ layer.mT)
            a = slope * found[-1]
        return tuple(found)

    def speeds(velocity: DeepWeights) -> tuple[Tensor, ...]:
        return torch.func.jvp(pre_activations, weights.layers, velocity.layers)[1]

    held, free = (torch.cat([v[side == 0] for v, side in zip(found, sides, strict=True)]) for found in (
        speeds(flow.velocity(weights, slopes)),
        speeds(flow.velocity(weights, [s.masked_fill(side == 0, 0.2) for s, side in zip(slopes, sides, strict=True)])),
    ))  # fmt: skip
    assert len(held) == 14
    largest = max(slope.abs().max().item() for slope in slopes)
    assert held.abs().max() < 1e-14 * (1 + largest) ** 2 * free.abs().max()
    assert (free.abs() > 1e-6).all(), "without their drives all would leave"


def velocity_of(kernel: Kernel, flow: Flow, weights: DeepWeights, sides: Sides) -> list[Tensor]:
    """What a kernel says, in a mode that it is given."""
    layout, ensemble = Layout.of(flow, weights), torch.arange(len(flow.dataset.inputs))
    start, one = torch.zeros(len(ensemble), dtype=torch.float64), torch.ones(len(ensemble), dtype=torch.float64)
    side, sign = join(sides).to(torch.int8), join([layer.sign() for layer in weights.layers[1:]]).to(torch.int8)
    record = Record(layout, ensemble, start, start, join(weights.layers), side, sign)
    return layout.split_weights(kernel.evaluate(flow, record, one, ensemble, start, 2, True, False))


@pytest.mark.parametrize(
    ("kernel", "widths"),
    [(compiled.KERNEL, (5, 6, 5, 4, 3)), (compiled.KERNEL, (5, 6, 3)), (batched.KERNEL, (5, 6, 3))],
    ids=["compiled, deep", "compiled", "batched"],
)
@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa", "direct"])
@pytest.mark.parametrize("seed", range(4, 8))
def test_the_kernels_hold_what_slides_in_random_modes_by_the_same_drives(
    kernel: Kernel, widths: tuple[int, ...], rule: str, seed: int
) -> None:
    """Matrices have conditions below 1e3 here, so that both find drives, slopes times errors, up to 1e-12 of them."""
    flow, weights, sides = network(rule, seed, widths)
    slopes = effective_slopes(flow, weights, sides)
    wanted, largest = flow.velocity(weights, slopes).layers, max(slope.abs().max().item() for slope in slopes)
    for found, expected in zip(velocity_of(kernel, flow, weights, sides), wanted, strict=True):
        assert (found - expected).abs().max() < 1e-12 * (1 + largest) * (1 + expected.abs().max())
    off = velocity_of(kernel, flow, weights, [torch.where(side == 0, 1, side) for side in sides])
    assert (off[0] - wanted[0]).abs().max() > 1e-3


def test_the_matrix_of_gradient_descent_needs_no_feedback_of_its_own() -> None:
    """FA with B = W has the slopes of GD, and an ensemble those of its members."""
    flow, weights, sides = network("gd", 0)
    slopes = effective_slopes(flow, weights, sides)
    same = effective_slopes(flow, weights, sides, weights.layers[1:])
    alone = effective_slopes(
        Flow(Dataset(flow.dataset.inputs[1], flow.dataset.labels[1], classes=3), GradientDescent(), "squared", 0.2),
        DeepWeights(tuple(layer[1] for layer in weights.layers)),
        [side[1] for side in sides],
    )
    for one, other, single in zip(slopes, same, alone, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one[1], single, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", ["fa", "sign-fa", "gd"])
def test_in_one_layer_drives_are_those_of_the_formula_for_a_single_neuron(rule: Any) -> None:
    """K_SS p_S = -K_SR p_R for each neuron by itself (section 10), by a pseudo-inverse of its inputs."""
    solution = ensembles.any_run(rule, 1, "cpu")
    flow, middle = solution.flow, (solution.pieces.start + solution.pieces.end) / 2
    weights, (side,) = solution.evaluate(middle), solution.pattern(middle)
    (slopes,) = effective_slopes(flow, weights, [side])
    outputs, (feedback,) = flow.outputs(weights), flow.rule.feedback_matrices(weights)
    error = (
        flow.dataset.labels.unsqueeze(-1) * torch.sigmoid(-flow.dataset.labels.unsqueeze(-1) * outputs) / 10
    ) @ feedback
    inputs, count = flow.dataset.inputs[0], 0
    for step, _, neuron in torch.nonzero((side == 0).any(-2)).tolist():
        on, e = side[step, 0, :, neuron] == 0, error[step, 0, :, neuron]
        rest = torch.where(side[step, 0, :, neuron] > 0, e, flow.slope * e)[~on] @ inputs[~on]
        drives = -rest @ torch.linalg.pinv(inputs[on])
        torch.testing.assert_close(slopes[step, 0, on, neuron], drives / e[on], rtol=1e-10, atol=1e-12)
        count += 1
    assert count > 10


@pytest.mark.parametrize("ratio", [1.0, 2.0, -0.1])
def test_samples_with_parallel_inputs_slide_together_within_their_intervals(ratio: float) -> None:
    """dw/dt of least norm among the drives in their intervals, by scipy; each drive alone is not determined."""
    inputs = torch.tensor([[1.0, 0.2], [ratio, 0.2 * ratio], [0.3, 1.0]], dtype=torch.float64)
    flow = Flow(Dataset(inputs, [-1, -1 if ratio > 0 else 1, 1]), FeedbackAlignment([1.0]), slope=0.1)
    weights = Weights(torch.tensor([[-0.2, 1.0]], dtype=torch.float64), torch.tensor([0.3]))
    (slopes,) = effective_slopes(flow, weights, [torch.tensor([[0], [0], [1]])])
    error = flow.dataset.labels * torch.exp(-flow.dataset.labels * flow.outputs(weights).squeeze(-1)) / 3
    low, high = torch.minimum(0.1 * error, error), torch.maximum(0.1 * error, error)
    low[2] = high[2] - 1e-9  # active
    best = lsq_linear(inputs.T.numpy(), [0.0, 0.0], (low.numpy(), high.numpy()), tol=1e-14)
    moves = flow.velocity(weights, [slopes]).hidden
    torch.testing.assert_close(moves[0], torch.from_numpy(inputs.T.numpy() @ best.x), rtol=0, atol=1e-8)
    assert (moves @ inputs.T)[:, :2].abs().max() < 1e-15
    assert ((slopes[:2] > 0.1) & (slopes[:2] < 1)).all()
    first, second = slopes[:2, 0].tolist()
    assert second == pytest.approx(first if ratio > 0 else 1.1 - first, rel=1e-12), "the same share of the way"


def test_more_kinks_than_inputs_are_independent_are_held_by_drives_of_least_norm() -> None:
    inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
    flow = Flow(Dataset(inputs, [-1, -1, -1, 1]), FeedbackAlignment([1.0]), slope=0.2)
    weights = Weights(torch.zeros(1, 2), torch.tensor([0.3]))
    (slopes,) = effective_slopes(flow, weights, [torch.tensor([[0], [0], [0], [1]])])
    assert flow.velocity(weights, [slopes]).hidden.abs().max() < 1e-15
    error = flow.dataset.labels / 4
    length = inputs[:3].norm(dim=-1)  # the norm is that of the pushes, drives times the lengths of normals
    wanted = -torch.linalg.pinv((inputs[:3] / length.unsqueeze(-1)).T) @ (error[3] * inputs[3]) / length
    torch.testing.assert_close(slopes[:3, 0] * error[:3], wanted, rtol=1e-12, atol=1e-15)


def test_where_nothing_comes_down_to_a_neuron_its_slope_is_gamma() -> None:
    """Sign-FA with two neurons above that cancel: e = 0 exactly."""
    flow = Flow(Dataset([[1.0]], [1]), SignFeedbackAlignment(), slope=0.2)
    one = torch.ones(1, 1, dtype=torch.float64)
    layers = (0 * one, torch.tensor([[1.0], [-1.0]]), torch.ones(1, 2))
    sides = [torch.zeros(1, 1), torch.ones(1, 2)]
    slopes = effective_slopes(flow, DeepWeights(layers), sides)
    assert slopes[0].item() == 0.2
    assert all(torch.isfinite(layer).all() for layer in flow.velocity(DeepWeights(layers), slopes).layers)
