"""Rules of one's own, and what of the library works with how much they say about themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sample_problems import gaussian_data
from scipy.integrate import solve_ivp
from torch import Tensor

from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    Rule,
    SignFeedbackAlignment,
    Weights,
    descent,
    solve,
)
from flowsim.initialization import deep_gaussian, gaussian, with_gaps
from flowsim.observables import conserved
from flowsim.weights import NetworkWeights
from theorems import lemma_5_4, theorem_5_2
from theorems.check import DoesNotApplyError, check

EPS = torch.finfo(torch.float64).eps


class Matrices(Rule):
    """Kolen and Pollack's rule without decay: W - B stays -C. No more is said than it must."""

    def __init__(self, difference: Tensor) -> None:
        self.difference = difference

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        return (weights.layers[1] + self.difference,)


class KolenPollack(Matrices):
    """The same with its potential and its Taylor series."""

    def feedback_term(self, weights: Tensor, feedback: Tensor) -> Tensor:
        return weights[-1]

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor | None, ...]:
        output = weights.layers[1]
        return ((0.5 * output.square() + self.difference * output).sum(-2),)

    def inverse_potential(self, potential: Tensor, signs: Tensor | None) -> Tensor:
        root = (self.difference.square() + 2 * potential).sqrt()
        return (root if signs is None else signs * root) - self.difference


DIFFERENCE = torch.tensor([0.8, -0.5, 1.5, -1.0], dtype=torch.float64)


def problem(rule: Rule, seeds: int = 2, loss: str = "logistic") -> tuple[Flow, Weights]:
    """Gaussian data, for which neurons cross kinks and slide along them."""
    flow, weights = gaussian_data("gd", seeds, samples=8, dimension=4, width=4, loss=loss)
    return Flow(flow.dataset, rule, loss), weights


def two_way(flow: Flow, weights: Weights, t_final: float) -> NDArray:
    """W, v and B with dB/dt = dv/dt, B a state of its own as the rule is meant, by scipy; a single trajectory."""
    inputs, labels = flow.dataset.inputs.numpy(), flow.dataset.labels.numpy()
    m, d = weights.hidden.shape

    def rate(_: float, state: NDArray) -> NDArray:
        hidden, output, feedback = state[: m * d].reshape(m, d), state[m * d : -m], state[-m:]
        z = inputs @ hidden.T
        active = np.where(z > 0, z, 0.3 * z)
        error = labels / (1 + np.exp(labels * (active @ output))) / len(labels)
        moves = error @ active
        through = np.where(z > 0, 1.0, 0.3) * np.outer(error, feedback)
        return np.concatenate([(through.T @ inputs).ravel(), moves, moves])

    start = np.concatenate(
        [weights.hidden.numpy().ravel(), weights.output.numpy(), (weights.output + DIFFERENCE).numpy()]
    )
    return solve_ivp(rate, (0, t_final), start, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]


def test_kolen_pollack_is_the_rule_whose_feedback_moves_as_the_weights_do() -> None:
    flow, weights = problem(KolenPollack(DIFFERENCE))
    flow, weights = flow.map_matrices(weights, lambda matrix: matrix[0])
    expected = two_way(flow, weights, 1.0)
    for method in ("dopri5", "event"):
        end = solve(flow, weights, 1.0, method=method).evaluate(1.0)
        (feedback,) = flow.rule.feedback_matrices(end)
        found = torch.cat([end.hidden.flatten(), end.output, feedback[0]]).numpy()
        assert abs(found - expected).max() < 1e-6  # scipy's steps across kinks have errors of their tolerance


def test_kolen_pollack_conserves_what_its_potential_says() -> None:
    flow, weights = problem(KolenPollack(DIFFERENCE))
    solution = solve(flow, weights, 1.0, method="dopri5", rtol=1e-10)
    (gaps,) = conserved(flow, solution.evaluate([0.0, 0.5, 1.0]))
    moved = (solution.evaluate(1.0).hidden - weights.hidden).abs().max()
    assert moved > 0.1
    assert (gaps - gaps[0]).abs().max() < 1e-8
    assert (
        check(theorem_5_2.STATEMENT, "Kolen-Pollack", "theorem", [solve(flow, weights, 1.0, rtol=1e-13)]).verdict
        == "holds"
    )


@pytest.mark.parametrize("loss", ["exponential", "squared"])
def test_a_rule_with_taylor_terms_runs_from_event_to_event_and_slides(loss: str) -> None:
    flow, weights = problem(KolenPollack(DIFFERENCE), loss=loss)
    solution = solve(flow, weights, 20.0, rtol=1e-11, atol=1e-13)
    assert solution.statistics["crossings"].sum() > 0
    assert solution.statistics["slides"].sum() > 0
    (gaps,) = conserved(flow, solution.evaluate(torch.linspace(0, 20, 50, dtype=torch.float64)))
    assert (gaps - gaps[0]).abs().max() < 1e-9


def test_without_a_difference_it_is_gradient_descent() -> None:
    """Also where the output weight of a sliding neuron passes 0, and with it the drives: an event under GD only."""
    same, weights = problem(KolenPollack(torch.zeros(4, dtype=torch.float64)))
    flow, _ = problem(GradientDescent())
    ends = [solve(each, weights, 20.0, rtol=1e-11, atol=1e-13).evaluate(20.0) for each in (same, flow)]
    for ours, theirs in zip(*(end.layers for end in ends), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_matrices_alone_run_under_a_runge_kutta_method_and_have_no_law() -> None:
    flow, weights = problem(Matrices(DIFFERENCE))
    solution = solve(flow, weights, 0.5, method="dopri5")
    other, _ = problem(KolenPollack(DIFFERENCE))
    expected = solve(other, weights, 0.5, method="dopri5").evaluate(0.5)
    assert torch.equal(solution.evaluate(0.5).hidden, expected.hidden)
    with pytest.raises(
        ValueError, match=r"rule Matrices conserves nothing at hidden layer 1 of 1: it has no potentials$"
    ):
        conserved(flow, solution.evaluate(0.5))
    with pytest.raises(DoesNotApplyError, match="B is the gradient of Psi"):
        check(theorem_5_2.STATEMENT, "no law", "theorem", [solution])


def test_matrices_alone_are_refused_by_what_needs_more() -> None:
    flow, weights = problem(Matrices(DIFFERENCE))
    with pytest.raises(
        ValueError, match=r"method 'event' needs a rule with the Taylor series.*got Matrices; use method='do"
    ):
        solve(flow, weights, 1.0)
    with pytest.raises(
        ValueError, match="rule Matrices must have inverse_potential to find output weights by their gaps"
    ):
        with_gaps(weights.hidden, flow.rule, 0.1)


def test_a_rule_must_give_feedback_matrices() -> None:
    class Nothing(Rule):
        pass

    with pytest.raises(TypeError, match="feedback_matrices"):
        Nothing()  # type: ignore[abstract]


def test_gaps_can_be_prescribed_by_the_inverse_of_the_potential() -> None:
    rule, hidden = KolenPollack(DIFFERENCE), gaussian(4, 3, 0).hidden
    wanted = torch.tensor([0.1, 0.2, -0.1, 0.0], dtype=torch.float64)
    for signs in (None, torch.tensor([1.0, -1.0, 1.0, -1.0])):
        weights = with_gaps(hidden, rule, wanted, signs)
        (found,) = conserved(Flow(Dataset(torch.ones(1, 3), [1]), rule), weights)
        # v is the difference of numbers of size 3, and Psi of v has the slope v + C
        torch.testing.assert_close(found, wanted, rtol=0, atol=50 * EPS)
    with pytest.raises(ValueError, match=r"gaps must be at least .* got -5 at index \(2,\)"):
        with_gaps(hidden, rule, torch.tensor([0.1, 0.1, -5.0, 0.1]))


class Altered(FeedbackAlignment):
    """Derived from a rule, with another feedback."""

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        return tuple(-matrix for matrix in super().feedback_matrices(weights))


def test_a_rule_derived_from_another_is_not_taken_for_it() -> None:
    weights = with_gaps(gaussian(4, 3, 0).hidden, FeedbackAlignment(torch.ones(4)), 0.1)
    solution = solve(Flow(Dataset(torch.eye(3), [1, -1, 1]), Altered(torch.ones(4))), weights, 1e-2)
    names = {item.name for item in lemma_5_4.STATEMENT.hypotheses(solution) if not item.holds}
    assert "rule is FeedbackAlignment" in names


@dataclass(frozen=True)
class Step(Rule):
    """B = s sign(W) and nothing said but that it jumps."""

    at_zero = "jumps"
    fixed = True

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        return tuple(0.5 * layer.sign() for layer in weights.layers[1:])


def test_a_rule_that_jumps_has_its_limits_from_the_side_of_the_mode() -> None:
    weights = Weights(torch.ones(4, 2), torch.tensor([0.0, 0.0, 2.0, -1e-18]))
    signs = torch.tensor([[1, -1, 1, 1]], dtype=torch.int8)
    for rule in (Step(), SignFeedbackAlignment(0.5)):
        (found,) = rule.feedback_in_mode(weights, (signs,))
        assert found.tolist() == [[0.5, -0.5, 0.5, 0.5]]


@pytest.mark.usefixtures("batched_kernel")
def test_a_rule_that_jumps_runs_as_sign_fa_does_with_its_sign_changes() -> None:
    own, weights = problem(Step())
    flow, _ = problem(SignFeedbackAlignment(0.5))
    ours, theirs = (solve(each, weights, 10.0, rtol=1e-11, atol=1e-13) for each in (own, flow))
    assert torch.equal(ours.evaluate(10.0).hidden, theirs.evaluate(10.0).hidden)
    assert (ours.events.sample < 0).sum() == (theirs.events.sample < 0).sum() > 0
    short = [solve(each, weights, 0.5, method="dopri5", rtol=1e-8) for each in (own, flow)]
    assert torch.equal(short[0].events.time, short[1].events.time)


@pytest.mark.parametrize("rule", [GradientDescent(), FeedbackAlignment(torch.ones(1, 4)), SignFeedbackAlignment(0.7)])
def test_divergences_follow_from_potentials_where_a_rule_does_not_give_them(rule: Any) -> None:
    before, after = (Weights(*deep_gaussian((3, 4, 1), seed).layers) for seed in (0, 1))
    (derived,), (given,) = Rule.divergences(rule, before, after), rule.divergences(before, after)
    torch.testing.assert_close(derived, given, rtol=0, atol=20 * EPS)


def test_steps_of_a_rule_without_a_law_are_taken_and_their_correction_is_not_defined() -> None:
    flow, weights = problem(Matrices(DIFFERENCE), seeds=1)
    state = descent.step(flow, descent.start(weights), 0.1, 0.5)
    expected = weights.hidden + 0.1 * flow.velocity(weights).hidden
    assert torch.equal(state.weights.hidden, expected)
    assert state.correction[0].isnan().all()
    assert descent.step(flow, state, 0.1, 0.5).mismatch[0].isnan().all()


def test_steps_of_a_rule_with_a_potential_have_their_correction() -> None:
    flow, weights = problem(KolenPollack(DIFFERENCE), seeds=1)
    state = descent.start(weights)
    for _ in range(20):
        state = descent.step(flow, state, 0.1, 0.5)
    (now,), (then,) = conserved(flow, state.weights), conserved(flow, weights)
    torch.testing.assert_close(now - then, state.correction[0], rtol=0, atol=20 * 20 * 10 * EPS)
    assert state.correction[0].abs().max() > 1e-3


def test_feedback_of_an_ensemble_needs_map_matrices() -> None:
    """One matrix for all trajectories does not: the rule can stay as it is where trajectories are taken out."""
    flow, weights = problem(Matrices(torch.stack([DIFFERENCE, -DIFFERENCE]).unsqueeze(-2)))
    assert flow.require_fit(weights) == (2,)
    with pytest.raises(ValueError, match="rule Matrices must have map_matrices if it holds feedback of an ensemble"):
        solve(flow, weights, 1.0, method="dopri5")
    shared, _ = problem(Matrices(DIFFERENCE))
    together = solve(shared, weights, 0.2, method="dopri5").evaluate(0.2).hidden
    alone = solve(*shared.map_matrices(weights, lambda matrix: matrix[1]), 0.2, method="dopri5").evaluate(0.2).hidden
    torch.testing.assert_close(together[1], alone, rtol=0, atol=1e-9)


def test_feedback_that_depends_on_the_first_layer_is_refused_where_that_is_reduced() -> None:
    class OfHidden(Rule):
        def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
            return (weights.layers[0].sum(-1).unsqueeze(-2),)

    weights = gaussian(4, 7, seed=0)
    flow = Flow(Dataset(torch.eye(7)[:2], [1, -1]), OfHidden())
    with pytest.raises(ValueError, match="rule OfHidden must not depend on the first layer's weights"):
        solve(flow, weights, 1.0, method="dopri5")


@pytest.mark.parametrize(
    "matrices",
    [lambda layer: (layer.mT,), lambda layer: (layer, layer), lambda layer: (layer[..., :-1],), lambda layer: ()],
)
def test_feedback_that_does_not_fit_the_layers_is_refused(matrices: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    class Misfit(Rule):
        def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
            return matrices(weights.layers[1])

    flow, weights = problem(Misfit())
    with pytest.raises(ValueError, match=r"feedback_matrices of rule Misfit must have shapes \[\(1, 4\)\], got \["):
        solve(flow, weights, 1.0, method="dopri5")
