"""Losses of a user's own: what does not belong together is refused when the flow is made; what is left out, derived."""

import math
import pickle
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, Weights, losses, solve
from flowsim.initialization import gaussian
from flowsim.losses import LOSSES, Loss, polynomial
from flowsim.observables import conserved

EXPONENTIAL, SQUARED, CROSS_ENTROPY = losses.exponential, losses.squared, losses.cross_entropy
INPUTS = [[1.0, 0.0], [0.6, 1.2], [-0.3, 0.4]]
SIGNS, CLASSES = Dataset(INPUTS, [1, -1, 1]), Dataset(INPUTS, [0, 3, 2], classes=4)
SHIPPED = [*LOSSES.values(), *(polynomial(power) for power in (0.1, 0.5, 1, 2, 3.7, 20))]


def exponential_value(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.exp(-labels * outputs).squeeze(-1)


def made(loss: Loss, dataset: Dataset | None = None) -> Flow:
    fitting = CLASSES if loss.targets == "classes" else SIGNS
    return Flow(dataset or fitting, GradientDescent(), loss)


@pytest.mark.parametrize("loss", SHIPPED, ids=lambda loss: loss.name)
@pytest.mark.parametrize("samples", [1, 3, 100])
def test_every_loss_that_ships_belongs_together(loss: Loss, samples: int) -> None:
    inputs = torch.ones(samples, 2)
    for classes in {"signs": (None,), "classes": (1, 2, 7), "any": (None, 1, 7)}[loss.targets]:
        labels = torch.ones(samples) if classes is None else torch.zeros(samples)
        made(replace(loss), Dataset(inputs, labels, classes))


def wrong_term(loss: Loss, wrong: int, change: float) -> Loss:
    """The loss with one term of its series changed by a part."""

    def series(targets: Tensor, order: int) -> Generator[Tensor, Tensor, None]:
        assert loss.series is not None
        right = loss.series(targets, order)
        next(right)
        outputs, number = (yield targets), 0
        while True:
            outputs = yield right.send(outputs) * (1 + change * (number == wrong))
            number += 1

    return replace(loss, series=series)


def flipped_for_minus(outputs: Tensor, labels: Tensor) -> Tensor:
    return EXPONENTIAL.negative_gradient(outputs, labels).abs()


def of_the_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return SQUARED.negative_gradient(outputs, targets) / outputs.shape[-2]


def detached(outputs: Tensor, labels: Tensor) -> Tensor:
    return exponential_value(outputs.detach(), labels)


def raises(outputs: Tensor, labels: Tensor) -> Tensor:
    raise KeyError("not\nhere")


def _with(loss: Loss, negative_gradient: Any) -> Loss:
    return replace(loss, negative_gradient=negative_gradient)


def _of(value: Any) -> Loss:
    return Loss("mine", value, targets="any")


squared_series: Any = SQUARED.series

BELONGS_NOT: dict[str, tuple[Loss, str]] = {
    "wrong sign": (_with(EXPONENTIAL, lambda f, y: -y * torch.exp(-y * f)), "negative_gradient must"),
    "sign of the label forgotten": (_with(EXPONENTIAL, flipped_for_minus), "negative_gradient must"),
    "factor 2": (_with(SQUARED, lambda f, y: 2 * (y - f)), "negative_gradient must be -d value / df"),
    "1/2 forgotten": (replace(SQUARED, value=lambda f, y: (f - y).square().sum(-1)), "negative_gradient must"),
    "divided by n": (_with(SQUARED, of_the_mean), "negative_gradient must"),
    "off by 1e-5": (_with(SQUARED, lambda f, y: (y - f) * (1 + 1e-5)), "negative_gradient must"),
    "one class forgotten": (
        _with(CROSS_ENTROPY, lambda f, y: (y - torch.softmax(f, -1)) * (1 - y)), "negative_gradient",
    ),
    "NaN": (_with(SQUARED, lambda f, y: (y - f) * math.nan), r"negative_gradient must .* got \[nan\]"),
    "gradient per sample": (_with(SQUARED, lambda f, y: (y - f).squeeze(-1)), "negative_gradient must"),
    "gradient in float32": (_with(SQUARED, lambda f, y: (y - f).float()), "float64, got .*float32"),
    "gradient a number": (_with(SQUARED, lambda f, y: 1.0), "negative_gradient must .* got 1.0"),
    "value a mean": (_of(lambda f, y: (f - y).square().mean()), "value must be one number"),
    "value per output": (_of(lambda f, y: (f - y).square()), "value must be one number"),
    "value detached": (_of(detached), "value must be made of torch's operations"),
    "value in numpy": (_of(lambda f, y: torch.from_numpy(f.numpy()).sum(-1)), "value must work on"),
    "value that raises": (_of(raises), "value must work on .* got KeyError: 'not"),
    "value that is infinite": (_of(lambda f, y: f.sum(-1) / 0), "value must be finite somewhere"),
    "derivative NaN": (
        _of(lambda f, y: torch.where(f > 0, f.sqrt(), -f).squeeze(-1)),
        "value must have a finite gradient .* give negative_gradient",
    ),
    **{
        f"term {number} of the series": (wrong_term(loss, number, 1e-4), f"series must .* its term {number} is off by")
        for loss, number in zip([EXPONENTIAL, losses.logistic, polynomial(2), CROSS_ENTROPY, SQUARED], (0, 1, 2, 3, 1),
                                strict=True)
    },
    "series of another loss": (replace(EXPONENTIAL, series=losses.logistic.series), "series must .* term 0"),
    "series that ends": (replace(EXPONENTIAL, series=lambda y, order: (term for term in [y])), "series must work on"),
    "series of one number": (
        replace(SQUARED, series=lambda y, order: squared_series(y[:1, :1], order)), "series must",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BELONGS_NOT)
def test_functions_that_do_not_belong_together_are_refused_in_one_line(case: str) -> None:
    loss, message = BELONGS_NOT[case]
    with pytest.raises(ValueError, match=message) as error:
        made(loss)
    assert str(error.value).startswith(f"loss {loss.name!r}: ")
    assert "\n" not in str(error.value)
    assert not loss.checked


def test_a_loss_that_is_finite_on_a_part_only_is_checked_there() -> None:
    def value(outputs: Tensor, labels: Tensor) -> Tensor:
        margins = labels * outputs
        return torch.where(margins > 0.2, -torch.log(margins.clamp(min=0.1)), torch.inf).squeeze(-1)

    wall = Loss("wall", value, lambda outputs, labels: 1 / outputs, targets="signs")
    made(wall)
    with pytest.raises(ValueError, match="negative_gradient must"):
        made(replace(wall, negative_gradient=lambda f, y: 2 / f))


def test_weights_of_the_samples_may_be_part_of_a_loss() -> None:
    of_sample = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    weighted = Loss("weighted", lambda f, y: of_sample * exponential_value(f, y), targets="signs")
    assert made(weighted).risk(gaussian(4, 2, 0)) > 0
    with pytest.raises(ValueError, match=r"value must work on outputs and targets .* got RuntimeError"):
        made(weighted, Dataset(INPUTS[:2], [1, -1]))


def test_a_loss_is_checked_once_for_each_shape() -> None:
    calls = []

    def value(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(outputs.shape)
        return exponential_value(outputs, targets)

    counted = replace(EXPONENTIAL, value=value)
    flow = made(counted)
    assert len(calls) == 1
    made(counted)
    flow.with_inputs(torch.ones(3, 7))
    made(counted, Dataset([INPUTS] * 2, [[1, -1, 1]] * 2))
    assert len(calls) == 1
    made(counted, Dataset(INPUTS[:2], [1, 1]))
    assert len(calls) == 2
    made(replace(counted, name="new"))
    assert len(calls) == 3


@pytest.mark.parametrize("loss", SHIPPED, ids=lambda loss: loss.name)
def test_a_gradient_left_out_is_that_of_the_formula(loss: Loss) -> None:
    derived = replace(loss, negative_gradient=None)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    outputs = 0.5 * torch.rand(3, 5, 1 if loss.targets == "signs" else 4, generator=generator, dtype=torch.float64)
    targets = (
        torch.nn.functional.one_hot(torch.arange(5) % 4, 4).double() if loss.targets != "signs" else torch.ones(5, 1)
    )
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            result = derived.negative_gradient(outputs.clone(), targets.double().clone())
        torch.testing.assert_close(result, loss.negative_gradient(outputs, targets.double()), rtol=1e-13, atol=1e-15)
        assert not result.requires_grad


def test_derived_gradients_are_differentiable_where_the_outputs_are() -> None:
    outputs = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    derived = Loss("mine", exponential_value, targets="signs")
    result = derived.negative_gradient(outputs, torch.ones(1, 1, dtype=torch.float64))
    (second,) = torch.autograd.grad(result.sum(), outputs)
    assert second.item() == pytest.approx(-math.exp(-0.5), rel=1e-15)


def test_another_value_has_another_derived_gradient() -> None:
    first = Loss("mine", exponential_value, targets="signs")
    second = replace(first, value=lambda f, y: 3 * exponential_value(f, y))
    outputs, labels = torch.ones(1, 1).double(), torch.ones(1, 1).double()
    assert second.negative_gradient(outputs, labels) == 3 * first.negative_gradient(outputs, labels)
    made(second)


@pytest.mark.parametrize("method", ["dopri5", "event"])
def test_a_run_with_a_derived_gradient_is_that_with_the_formula(method: str) -> None:
    given = EXPONENTIAL if method == "event" else replace(EXPONENTIAL, series=None)
    derived = Loss("mine", exponential_value, targets="signs", series=given.series, stride=given.stride)
    separable, weights = Dataset([[1.0, 0.2], [-0.4, -1.2]], [1, -1]), gaussian(4, 2, seed=1)
    solutions = [
        solve(Flow(separable, FeedbackAlignment([1.0, -1.0, 0.5, 1.0]), loss), weights, 2.0, method=method, rtol=1e-8)
        for loss in (given, derived)
    ]
    runs = [solution.evaluate([0.0, 0.7, 2.0]) for solution in solutions]
    # -d/df exp(-y f) by backward passes is the same product of the same numbers: up to its rounding in each step
    torch.testing.assert_close(runs[0].hidden, runs[1].hidden, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(runs[0].output, runs[1].output, rtol=1e-12, atol=1e-13)
    gaps = conserved(solutions[1].flow, runs[1])[0]
    torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=0, atol=1e-6)


def test_a_derived_loss_and_its_state_can_be_pickled() -> None:
    loss = Loss("mine", exponential_value, targets="signs")
    made(loss)
    copy = pickle.loads(pickle.dumps(loss))
    assert copy == loss
    assert copy.checked == loss.checked == {(3, 1, True)}


def test_a_flow_made_in_inference_mode_is_checked_too() -> None:
    bad: Any = BELONGS_NOT["wrong sign"][0]
    with torch.inference_mode():
        made(replace(EXPONENTIAL))
        with pytest.raises(ValueError, match="negative_gradient must"):
            made(bad)
        weights = Weights(torch.ones(3, 2), torch.ones(3))
        assert torch.isfinite(made(Loss("mine", exponential_value, targets="signs")).velocity(weights).hidden).all()
