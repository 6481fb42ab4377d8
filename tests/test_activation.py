"""Activations: what they are, that phi' is the derivative of phi, and who recognises a leaky ReLU."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sample_problems import separable
from torch import Tensor

from flowsim import Dataset, Flow, GradientDescent, Weights, solve
from flowsim.activation import Activation, LeakyReLU, Softplus, Tanh
from flowsim.flow import Slopes
from flowsim.weights import AnyWeights
from theorems import theorem_5_2
from theorems.check import hypotheses_of
from theorems.observation import observe

DATA = Dataset([[1.0, 0.0], [0.6, 1.2]], [1, -1])


class Saturating(Activation):
    """Leaky ReLU up to z = 1, smooth saturation beyond; `slope` is a name that anyone may choose."""

    slope = 0.3

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, derivative = LeakyReLU(self.slope)(z)
        bent = torch.tanh(z - 1)
        return torch.where(z > 1, 1 + bent, value), torch.where(z > 1, 1 - bent.square(), derivative)


@pytest.mark.parametrize(
    "activation", [LeakyReLU(0.3), LeakyReLU(0.0), LeakyReLU(1.0), Tanh(), Softplus(), Saturating()]
)
def test_the_second_value_is_the_derivative_of_the_first(activation: Activation) -> None:
    """Against automatic differentiation; the two round differently in a few operations."""
    z = torch.linspace(-30, 30, 600, dtype=torch.float64).requires_grad_()
    value, derivative = activation(z)
    (expected,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(derivative, expected, rtol=1e-14, atol=4 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        (Tanh(), torch.tanh),
        (Softplus(), lambda z: torch.log1p(torch.exp(z))),
        (LeakyReLU(0.2), lambda z: torch.nn.functional.leaky_relu(z, 0.2)),
    ],
)
def test_values_are_those_of_their_names(activation: Activation, function: Any) -> None:
    z = torch.linspace(-20, 20, 401, dtype=torch.float64)
    torch.testing.assert_close(activation(z)[0], function(z), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("slope", [np.float32(0.25), np.float64(0.25), np.int64(1), 1, 0])
def test_slopes_of_any_real_type_become_numbers(slope: Any) -> None:
    flow = Flow(DATA, GradientDescent(), slope=slope)
    assert type(flow.slope) is float
    assert flow.slope == slope


@pytest.mark.parametrize("slope", [-1e-9, 1.001, float("nan"), True, "0.3", None, 1j])
def test_slopes_outside_0_to_1_are_refused(slope: Any) -> None:
    with pytest.raises(ValueError, match=r"slope must lie in \[0, 1\], got") as error:
        LeakyReLU(slope)
    assert "\n" not in str(error.value)


def test_a_flow_has_the_leaky_relu_of_its_slope_and_0_3_if_nothing_is_said() -> None:
    assert Flow(DATA, GradientDescent()).activation == LeakyReLU(0.3)
    assert repr(Flow(DATA, GradientDescent())).endswith("exponential loss, slope 0.3)")
    assert Flow(DATA, GradientDescent(), "logistic", 0.5).activation == LeakyReLU(0.5)
    assert Flow(DATA, GradientDescent(), activation=LeakyReLU(0.5)).slope == 0.5


def test_a_flow_with_another_activation_has_no_slope() -> None:
    with pytest.raises(ValueError, match=r"activation must be a leaky ReLU to have a slope, got Tanh\(\)"):
        _ = Flow(DATA, GradientDescent(), activation=Tanh()).slope
    assert repr(Flow(DATA, GradientDescent(), activation=Tanh())).endswith("exponential loss, Tanh())")


@pytest.mark.parametrize("activation", [LeakyReLU(0.7), Tanh()])
def test_the_activation_stays_with_the_flow(activation: Activation) -> None:
    flow = Flow(DATA, GradientDescent(), activation=activation)
    mapped, _ = flow.map_matrices(Weights(torch.ones(2, 2), torch.ones(2)), lambda matrix: matrix.unsqueeze(0))
    others = [replace(flow, loss="logistic"), flow.with_inputs(flow.dataset.inputs), mapped]
    for other in (*others, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert other.activation == activation


@pytest.mark.parametrize("activation", [Tanh(), Softplus(), Saturating()])
def test_the_event_driven_integrator_asks_whether_it_is_piecewise_linear(activation: Activation) -> None:
    flow, weights = separable(1)
    other = Flow(flow.dataset, flow.rule, activation=activation)
    with pytest.raises(ValueError, match=r"method 'event' needs a piecewise linear activation, got .*method='dopri5'"):
        solve(other, weights, 1.0)
    assert solve(other, weights, 0.1, method="dopri5", rtol=1e-6).t_final == 0.1


def test_a_leaky_relu_cannot_be_altered_behind_its_slope() -> None:
    with pytest.raises(TypeError, match="Altered must derive from Activation"):

        class Altered(LeakyReLU):
            pass


def test_a_flow_cannot_override_its_activation() -> None:
    """An attribute of each flow, which would win over a method of its class without a word."""
    with pytest.raises(TypeError, match="Old must not override activation: give the flow an Activation instead"):

        class Old(Flow):
            def activation(self, z: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
                return z, z


class Twice(Flow):
    """Twice as fast as the rule says."""

    def velocity(self, weights: AnyWeights, slopes: Slopes | None = None, feedback: Any = None) -> AnyWeights:
        return weights.with_layers([2 * moves for moves in super().velocity(weights, slopes, feedback).layers])


def test_a_flow_of_ones_own_is_not_taken_for_its_rule() -> None:
    flow, weights = separable(1)
    own = Twice(flow.dataset, flow.rule)
    assert flow.follows_rule
    assert not own.follows_rule
    with pytest.raises(ValueError, match="method 'event' is for flows that move as Flow says, got Twice"):
        solve(own, weights, 1.0)
    solution = solve(own, weights, 0.01, method="dopri5", rtol=1e-12)
    (broken,) = [item for item in hypotheses_of(theorem_5_2.STATEMENT, solution) if not item.holds]
    assert broken.name == "d theta/dt = -fa"


@pytest.mark.parametrize("activation", [LeakyReLU(0.7), Tanh()])
def test_what_a_rule_prescribes_keeps_the_activation_of_a_flow_that_adds_to_it(activation: Activation) -> None:
    flow, weights = separable(1)
    solution = solve(Twice(flow.dataset, flow.rule, activation=activation), weights, 0.01, method="dopri5", rtol=1e-8)
    seen = observe(solution, solution.pieces)
    expected = Flow(flow.dataset, flow.rule, activation=activation).velocity(seen.weights)
    # slopes at the ends of pieces, which may be kinks, are one-sided: there the two may differ
    torch.testing.assert_close(seen.velocity.layers[0][1:-1], expected.layers[0][1:-1], rtol=1e-12, atol=1e-14)
