"""Rules of a user's own whose Taylor terms, potentials or `fixed` contradict their feedback are refused by `solve`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sample_problems import gaussian_data
from torch import Tensor

from flowsim import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    Rule,
    SignFeedbackAlignment,
    Weights,
    solve,
    solving,
)
from flowsim.initialization import deep_gaussian, gaussian
from flowsim.observables import conserved
from flowsim.rule_check import check
from flowsim.weights import NetworkWeights

SINGLE = gaussian(4, 3, 0)


class Squares(Rule):
    """B = W^2 / 2, whose potential is W^3 / 6; factors other than 1 are mistakes in its terms and its potential."""

    def __init__(self, terms: tuple[float, ...] = (1, 1, 1), potential: float | Tensor = 1.0) -> None:
        self.terms, self.factor = terms, potential

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        return tuple(layer.square() / 2 for layer in weights.layers[1:])

    def feedback_term(self, weights: Tensor, feedback: Tensor) -> Tensor:
        k = len(feedback)
        factor = self.terms[k - 1] if k <= len(self.terms) else 1.0
        return factor * (weights * weights.flip(0)).sum(0) / 2

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        return tuple(self.factor * layer.pow(3).sum(-2) / 6 for layer in weights.layers[1:])


def flow_and_weights(rule: Rule) -> tuple[Flow, Weights]:
    flow, weights = gaussian_data("gd", 2, samples=8, dimension=4, width=4, loss="logistic")
    return Flow(flow.dataset, rule, "logistic"), weights


@pytest.mark.parametrize("widths", [(3, 4, 1), (3, 4, 2), (3, 4, 5, 1), (3, 1, 1)])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_what_the_rules_of_the_library_say_is_so(widths: tuple[int, ...], batch: tuple[int, ...]) -> None:
    weights = deep_gaussian(widths, 0)
    shapes = [layer.shape for layer in weights.layers[1:]]
    above = tuple(torch.randn(*batch, *shape) for shape in shapes)
    direct = tuple(torch.randn(*batch, widths[-1], shape[-1]) for shape in shapes)
    rules = [GradientDescent(), SignFeedbackAlignment(0.7), FeedbackAlignment(above), DirectFeedbackAlignment(direct)]
    for rule in rules:
        check(rule, weights, torch.Size(batch))


def test_a_rule_that_says_what_is_so_is_solved_and_conserves_its_potential() -> None:
    flow, weights = flow_and_weights(Squares())
    solution = solve(flow, weights, 5.0)
    (gaps,) = conserved(flow, solution.evaluate([0.0, 5.0]))
    assert (gaps[1] - gaps[0]).abs().max() < 1e-8
    expected = solve(flow, weights, 0.2, method="dopri5", rtol=1e-11, atol=1e-13).evaluate(0.2)
    torch.testing.assert_close(solution.evaluate(0.2).hidden, expected.hidden, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_a_wrong_taylor_term_of_any_order_is_refused_with_the_right_one(order: int, method: str) -> None:
    terms = tuple(1 + 1e-3 * (k == order) for k in (1, 2, 3))
    flow, weights = flow_and_weights(Squares(terms))
    message = (
        rf"feedback_term of rule Squares must be the Taylor term of its feedback, (\S+) of order {order}, got \S+:"
    )
    with pytest.raises(ValueError, match=message):
        solve(flow, weights, 1.0, method=method)


def test_without_the_check_a_wrong_taylor_term_lets_a_run_follow_another_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what is refused is a mistake that nothing else would tell."""
    monkeypatch.setattr(solving, "require_consistent", lambda *_: None)
    (wrong, weights), (right, _) = flow_and_weights(Squares((1.4,))), flow_and_weights(Squares())
    ends = [solve(flow, weights, 1.0).evaluate(1.0).hidden for flow in (wrong, right)]
    assert (ends[0] - ends[1]).abs().max() > 1e-5
    moved, _ = flow_and_weights(Squares(potential=1.5))
    (gaps,) = conserved(moved, solve(right, weights, 1.0).evaluate([0.0, 1.0]))
    assert (gaps[1] - gaps[0]).abs().max() > 1e-3


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("factor", [1.001, -1.0, torch.tensor([1.0, 1.0, 1.0, 0.5], dtype=torch.float64)])
def test_a_wrong_potential_is_refused_even_of_one_neuron(factor: Any, deep: bool) -> None:
    weights = deep_gaussian((3, 4, 4, 1), 0) if deep else SINGLE
    with pytest.raises(ValueError, match=r"potentials of rule Squares must have the feedback for their gradient, and"):
        check(Squares(potential=factor), weights, weights.batch_shape)


def test_a_mistake_in_one_trajectory_is_found() -> None:
    factors = torch.ones(3, 1, 1, dtype=torch.float64)
    check(Squares(potential=factors[:, 0]), SINGLE, torch.Size([3]))
    factors[1] = 1.01
    with pytest.raises(ValueError, match="potentials of rule Squares"):
        check(Squares(potential=factors[:, 0]), SINGLE, torch.Size([3]))


class Stays(Squares):
    """It says that its feedback stays, which it does not."""

    fixed = True


def test_feedback_that_is_said_to_be_fixed_and_moves_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rule Stays says that its feedback is fixed, but that of layer 2 moves by"):
        solve(*flow_and_weights(Stays()), 1.0)


class Of(Rule):
    """B = function(W), and nothing more said but a term, or potentials."""

    def __init__(self, function: Callable[[Tensor], Tensor], term: Any = None, potentials: Any = None) -> None:
        self.function, self.term = function, term
        self.given = potentials

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        return (self.function(weights.layers[1]),)

    def feedback_term(self, weights: Tensor, feedback: Tensor) -> Any:
        return self.term(weights, feedback) if self.term else None

    def potentials(self, weights: NetworkWeights) -> Any:
        return self.given(weights.layers[1]) if self.given else (None,)


@pytest.mark.parametrize(
    ("function", "potential"),
    [
        (lambda w: torch.from_numpy(w.numpy().copy()), lambda w: w.square() / 2),  # automatic differentiation is lost
        (torch.tanh, lambda w: torch.cosh(w).log()),
        (lambda w: torch.tanh(50 * w), lambda w: torch.cosh(50 * w).log() / 50),
        (lambda w: (w - 1).abs(), lambda w: (w - 1) * (w - 1).abs() / 2),  # a kink among the weights that are tried
        (lambda w: w.sqrt(), lambda w: w.pow(1.5) / 1.5),  # not a number below 0
        (lambda w: w.new_full(w.shape, torch.nan), lambda w: w.square()),
    ],
)
def test_feedback_of_any_kind_passes_with_its_potential(function: Any, potential: Any) -> None:
    check(Of(function, potentials=lambda w: (potential(w).sum(-2),)), SINGLE, torch.Size())


@pytest.mark.parametrize("function", [torch.tanh, lambda w: (w - 1).abs(), lambda w: w.sqrt()])
def test_and_not_with_another(function: Any) -> None:
    with pytest.raises(ValueError, match="potentials of rule Of"):
        check(Of(function, potentials=lambda w: (w.square().sum(-2),)), SINGLE, torch.Size())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            Of(lambda w: w, term=lambda w, _: w[-1, ..., :-1]),
            r"feedback_term of rule Of must have the shape of the output weights, \(1, 4\), got Tensor of shape \(1, 3",
        ),
        (Of(lambda w: w, term=lambda *_: 1.0), "feedback_term of rule Of must have the shape .* got 1.0"),
        (
            Of(lambda w: w, potentials=lambda w: (w[..., 0, :-1],)),
            r"one number for each neuron, \[4\], or None, got \[3",
        ),
        (Of(lambda w: w, potentials=lambda _: ()), r"one number for each neuron, \[4\], or None, got \[\]"),
    ],
)
def test_what_has_another_shape_is_refused(rule: Rule, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(rule, SINGLE, torch.Size())
