"""Losses: gradients against automatic differentiation, accuracy far out, and which names exist."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsim import losses
from flowsim.losses import LOSSES, Loss, named, polynomial

EPS = torch.finfo(torch.float64).eps
ALL = [*LOSSES.values(), polynomial(0.5), polynomial(2), polynomial(3.7)]


def samples(loss: Loss) -> tuple[Tensor, Tensor]:
    """Outputs and targets `batch x n x k` that the loss is defined for."""
    generator = torch.Generator().manual_seed(0)
    if loss.targets == "classes":
        outputs = 3 * torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
        classes = torch.randint(0, 4, (2, 7), generator=generator)
        return outputs, torch.nn.functional.one_hot(classes, 4).to(torch.float64)
    outputs = 3 * torch.randn(2, 7, 1, generator=generator, dtype=torch.float64)
    labels = 1.0 - 2.0 * torch.randint(0, 2, (2, 7, 1), generator=generator).to(torch.float64)
    if loss.name.startswith("polynomial"):
        outputs = labels * (outputs.abs() - 0.9)  # margins above -1
    return outputs, labels


def at(loss: Loss, margin: float, label: float = 1.0) -> tuple[float, float]:
    """l(u) and -l'(u), the latter from -dl/df = -l'(u) y."""
    outputs, labels = (torch.tensor([[x]], dtype=torch.float64) for x in (label * margin, label))
    return loss.value(outputs, labels).item(), label * loss.negative_gradient(outputs, labels).item()


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_negative_gradient_is_minus_the_derivative_of_value(loss: Loss) -> None:
    outputs, targets = samples(loss)
    outputs.requires_grad_()
    value = loss.value(outputs, targets)
    assert value.shape == outputs.shape[:-1]
    (gradient,) = torch.autograd.grad(value.sum(), outputs)
    # both are a handful of operations on numbers, each exact to eps relative to the largest intermediate value
    torch.testing.assert_close(loss.negative_gradient(outputs, targets), -gradient, rtol=64 * EPS, atol=16 * EPS)


def test_squared_loss_of_one_hot_classes_has_the_gradient_of_its_value() -> None:
    outputs, targets = samples(losses.cross_entropy)
    outputs.requires_grad_()
    value = losses.squared.value(outputs, targets)
    (gradient,) = torch.autograd.grad(value.sum(), outputs)
    torch.testing.assert_close(losses.squared.negative_gradient(outputs, targets), -gradient, rtol=8 * EPS, atol=0)
    expected = [
        sum(0.5 * (f - y) ** 2 for f, y in zip(*pair, strict=True))
        for pair in zip(outputs.flatten(0, 1).tolist(), targets.flatten(0, 1).tolist(), strict=True)
    ]
    assert value.flatten().tolist() == pytest.approx(expected, rel=8 * EPS)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_no_loss_is_negative(loss: Loss) -> None:
    assert (loss.value(*samples(loss)) >= 0).all()


@pytest.mark.parametrize("label", [1.0, -1.0])
@pytest.mark.parametrize("margin", [-700.0, -30.0, -1e-9, 0.0, 1e-9, 20.5, 30.0, 36.8, 700.0])
def test_logistic_loss_is_accurate_to_rounding_far_out(margin: float, label: float) -> None:
    # log(1 + e^-u), written for each sign such that nothing cancels or overflows; exp is exact to a few eps relative
    value = math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)
    slope = math.exp(-margin) / (1 + math.exp(-margin)) if margin > 0 else 1 / (1 + math.exp(margin))
    assert at(losses.logistic, margin, label) == pytest.approx((value, slope), rel=16 * EPS, abs=0)


def test_logistic_loss_neither_vanishes_at_700_nor_overflows_at_minus_1e6() -> None:
    value, slope = at(losses.logistic, 700.0)
    assert 0 < value < 1e-303
    assert 0 < slope < 1e-303
    assert at(losses.logistic, -1e6) == (1e6, 1.0)


@pytest.mark.parametrize("margin", [-700.0, -1.0, 0.0, 1.0, 700.0])
def test_exponential_loss_equals_its_slope_and_the_exponential(margin: float) -> None:
    value, slope = at(losses.exponential, margin, label=-1.0)
    assert value == slope == pytest.approx(math.exp(-margin), rel=8 * EPS, abs=0)


def test_polynomial_loss_blows_up_at_minus_one_and_is_infinite_below() -> None:
    loss = polynomial(2)
    # exp(a log1p(u)): the logarithm, times 3 at most, is rounded twice
    assert at(loss, 1.0) == pytest.approx((0.25, 0.25), rel=4 * EPS, abs=0)
    assert at(loss, -1 + 2.0**-20) == pytest.approx((2.0**40, 2.0**61), rel=3 * 20 * EPS, abs=0)
    for margin in (-1.0, -1.5, -100.0):
        assert at(loss, margin) == (math.inf, math.inf)


def test_polynomial_satisfies_the_identity_of_its_dominance_exponent() -> None:
    # g = p l^(1 + 1/p): theorems/README.md, section 3
    for p in (0.5, 1.0, 2.0, 3.7):
        for margin in (-0.9, 0.0, 5.0):
            value, slope = at(polynomial(p), margin)
            assert slope == pytest.approx(p * value ** (1 + 1 / p), rel=64 * EPS)


def test_cross_entropy_does_not_change_under_a_shift_of_all_outputs() -> None:
    outputs, targets = samples(losses.cross_entropy)
    for shift in (1.0, -50.0, 1000.0):
        shifted = outputs + shift  # rounds each output by up to eps |shift|; value and gradient are 2-Lipschitz in it
        error = 8 * EPS * (abs(shift) + outputs.abs().max().item())
        for function in (losses.cross_entropy.value, losses.cross_entropy.negative_gradient):
            torch.testing.assert_close(function(shifted, targets), function(outputs, targets), rtol=0, atol=error)


def test_cross_entropy_gradient_sums_to_zero_and_stays_finite_far_out() -> None:
    outputs, targets = samples(losses.cross_entropy)
    gradient = losses.cross_entropy.negative_gradient(outputs, targets)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(2, 7).double(), rtol=0, atol=8 * EPS)
    far = torch.tensor([[1e5, -1e5]]).double()
    assert losses.cross_entropy.value(far, torch.tensor([[0.0, 1.0]]).double()).tolist() == [2e5]
    assert losses.cross_entropy.value(far, torch.tensor([[1.0, 0.0]]).double()).tolist() == [0.0]


def test_cross_entropy_of_two_classes_is_the_logistic_loss_of_their_difference() -> None:
    outputs = torch.tensor([[0.3, -1.1], [4.0, 9.0]]).double()
    value = losses.cross_entropy.value(outputs, torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double())
    expected = losses.logistic.value(outputs[:, :1] - outputs[:, 1:], torch.ones(2, 1).double())
    torch.testing.assert_close(value, expected, rtol=0, atol=64 * EPS)  # differences of numbers of order 10


def slope(function: Callable, time: torch.Tensor) -> torch.Tensor:
    return torch.func.jvp(function, (time,), (torch.ones_like(time),))[1]


@pytest.mark.parametrize("loss", [*LOSSES.values(), polynomial(1.5)], ids=lambda loss: loss.name)
def test_series_of_a_loss_are_the_derivatives_along_a_curve(loss: Loss) -> None:
    """By automatic differentiation of -dl/df along f(t) = sum_k f_k t^k, nested; rounding is relative to the terms."""
    order = 6
    outputs, targets = samples(loss)
    generator = torch.Generator().manual_seed(1)
    curve = [0.3 * outputs, *torch.randn(order, *outputs.shape, generator=generator, dtype=torch.float64)]
    terms = loss.series(targets, order)  # type: ignore[misc]
    next(terms)

    def along(time: torch.Tensor) -> torch.Tensor:
        return loss.negative_gradient(sum((f * time**k for k, f in enumerate(curve)), torch.zeros(())), targets)

    derivative, time = along, torch.zeros((), dtype=torch.float64)
    for k, f in enumerate(curve[:-1]):
        expected = derivative(time) / math.factorial(k)
        torch.testing.assert_close(terms.send(f), expected, rtol=1e-10, atol=1e-12 * expected.abs().max().item())
        derivative = partial(slope, derivative)


def test_losses_are_found_by_name_and_pass_through() -> None:
    assert {name: named(name) for name in LOSSES} == LOSSES
    assert set(LOSSES) == {"exponential", "logistic", "squared", "cross-entropy"}
    loss = polynomial(2)
    assert named(loss) is loss
    assert loss.name == "polynomial(2)"


@pytest.mark.parametrize("name", ["hinge", "Logistic", "", None, 3, ["logistic"]])
def test_unknown_losses_are_refused_with_the_list_of_those_that_exist(name: Any) -> None:
    with pytest.raises(ValueError, match="loss must be one of exponential, logistic, squared, cross-entropy") as error:
        named(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("power", [0, -2.0, math.nan, math.inf, "2"])
def test_polynomial_of_a_power_that_is_not_positive_is_refused(power: Any) -> None:
    with pytest.raises(ValueError, match="power must be a finite number above 0") as error:
        polynomial(power)
    assert repr(power) in str(error.value)
