"""Learning rules: feedback as the gradient of a potential. Initial weights: gaps, signs, variances."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Weights,
)
from flowsim.initialization import adafa, deep_gaussian, gaussian, random_signs, with_gaps
from flowsim.observables import conserved
from flowsim.rules import Rule
from flowsim.weights import NetworkWeights

EPS = torch.finfo(torch.float64).eps
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NETWORKS: dict[str, tuple[NetworkWeights, Any]] = {
    "scalar": (Weights(normal(5, 3), normal(5, seed=1)), normal(5, seed=2)),
    "scalar ensemble": (Weights(normal(4, 5, 3), normal(4, 5, seed=1)), normal(4, 5, seed=2)),
    "vector": (Weights(normal(5, 3), normal(2, 5, seed=1)), normal(2, 5, seed=2)),
    "deep": (
        DeepWeights((normal(5, 3), normal(4, 5, seed=1), normal(2, 4, seed=2))),
        (normal(4, 5, seed=3), normal(2, 4, seed=4)),
    ),
    "deep ensemble": (
        DeepWeights((normal(6, 5, 3), normal(6, 4, 5, seed=1), normal(6, 1, 4, seed=2))),
        (normal(6, 4, 5, seed=3), normal(6, 1, 4, seed=4)),
    ),
}
RULES = ["gd", "fa", "sign-fa"]


def rule_named(name: str, feedback: Any) -> GradientDescent | FeedbackAlignment | SignFeedbackAlignment:
    return {"gd": GradientDescent(), "fa": FeedbackAlignment(feedback), "sign-fa": SignFeedbackAlignment(0.7)}[name]


def flow_with(rule: Rule, dimension: int = 3) -> Flow:
    return Flow(Dataset(torch.ones(1, dimension), [1]), rule)


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_feedback_is_the_gradient_of_the_potential(network: str, name: str) -> None:
    weights, feedback = NETWORKS[network]
    rule = rule_named(name, feedback)
    leaves = [layer.detach().clone().requires_grad_() for layer in weights.layers]
    potentials = rule.potentials(weights.with_layers(leaves))
    assert [p.shape for p in potentials] == [layer.shape[:-1] for layer in weights.layers[:-1]]  # one per neuron
    gradients = torch.autograd.grad(sum((p.sum() for p in potentials), torch.zeros(())), leaves[1:])
    for matrix, gradient, layer in zip(rule.feedback_matrices(weights), gradients, weights.layers[1:], strict=True):
        assert matrix.shape == layer.shape
        torch.testing.assert_close(matrix, gradient, rtol=2 * EPS, atol=0)  # at most one multiplication each


@pytest.mark.parametrize("name", RULES)
def test_potential_of_a_neuron_depends_on_its_own_outgoing_weights_only(name: str) -> None:
    weights, feedback = NETWORKS["deep"]
    rule = rule_named(name, feedback)
    before = rule.potentials(weights)
    layers = [layer.clone() for layer in weights.layers]
    layers[0] += 1
    layers[2][:, 1] += 1  # what leaves neuron 1 of the second hidden layer
    after = rule.potentials(weights.with_layers(layers))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1] != after[1], torch.tensor([False, True, False, False]))


def test_sign_feedback_of_a_zero_weight_is_zero() -> None:
    weights = Weights(torch.ones(3, 2), torch.tensor([0.0, -0.0, -3.0]))
    assert SignFeedbackAlignment(2.0).feedback_matrices(weights)[0].tolist() == [[0.0, 0.0, -2.0]]


def test_lists_of_feedback_become_float64_without_passing_through_float32() -> None:
    feedback = FeedbackAlignment([0.6, -1.2]).feedback
    assert isinstance(feedback, Tensor)
    assert feedback.dtype == torch.float64
    assert feedback.tolist() == [0.6, -1.2]


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, "1"])
def test_scale_that_is_not_positive_is_refused(scale: Any) -> None:
    with pytest.raises(ValueError, match="scale must be a finite number above 0") as error:
        SignFeedbackAlignment(scale)
    assert repr(scale) in str(error.value)


@pytest.mark.parametrize(
    ("feedback", "named"),
    [
        ([1.0, math.nan], "nan at index (1,)"),
        ((torch.ones(2, 2), torch.tensor([[math.inf, 1.0]])), "feedback[1] must be finite, got inf at index (0, 0)"),
        (["a", "b"], "numbers"),
        (np.array([1j]), "real"),
    ],
    ids=["NaN", "inf in a tuple", "strings", "complex"],
)
def test_feedback_that_is_not_finite_and_real_is_refused(feedback: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"^feedback") as error:
        FeedbackAlignment(feedback)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("network", "feedback"),
    [
        ("scalar", torch.ones(4)),
        ("scalar", (torch.ones(5),)),
        ("scalar", torch.tensor(1.0)),
        ("vector", torch.ones(5)),
        ("vector", torch.ones(5, 2)),
        ("deep", (torch.ones(4, 5),)),
        ("deep", (torch.ones(5, 4), torch.ones(2, 4))),
        ("deep", torch.ones(2, 4)),
    ],
)
def test_feedback_of_the_wrong_shape_is_refused(network: str, feedback: Any) -> None:
    weights, _ = NETWORKS[network]
    rule = FeedbackAlignment(feedback)
    for use in (rule.feedback_matrices, rule.potentials):
        with pytest.raises(ValueError, match="feedback must be shaped like the layers above the first") as error:
            use(weights)
        wanted = [tuple(layer.shape) for layer in weights.layers[1:]]
        assert str(wanted) in str(error.value)


def test_map_matrices_reaches_the_feedback_and_leaves_the_other_rules_alone() -> None:
    weights, feedback = NETWORKS["deep"]
    doubled = FeedbackAlignment(feedback).map_matrices(weights, lambda matrix: 2 * matrix)
    for new, old in zip(doubled.feedback_matrices(weights), feedback, strict=True):
        assert torch.equal(new, 2 * old)
    for rule in (GradientDescent(), SignFeedbackAlignment(0.7)):
        assert rule.map_matrices(weights, lambda matrix: 2 * matrix) is rule


# --- prescribed gaps -------------------------------------------------------------------------------------------------


def gap_error(weights: Weights, rule: Rule, wanted: Tensor) -> Tensor:
    """|c - wanted| over its rounding bound: some eps of the terms Psi and |w_j|^2 / 2 that c is the difference of."""
    (found,) = conserved(flow_with(rule, weights.hidden.shape[-1]), weights)
    half = 0.5 * weights.hidden.square().sum(-1)
    bound = (weights.hidden.shape[-1] + 8) * EPS * (half + wanted.abs())
    return (found - wanted).abs() / bound


@PROPERTY
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(-10, 10))
def test_with_gaps_reproduces_gaps_for_feedback_alignment_with_any_feedback(
    m: int, d: int, seed: int, offset: float
) -> None:
    hidden, feedback, wanted = normal(m, d, seed=seed), normal(m, seed=seed + 1), normal(m, seed=seed + 2) + offset
    rule = FeedbackAlignment(feedback)
    weights = with_gaps(hidden, rule, wanted)
    assert weights.hidden is hidden or torch.equal(weights.hidden, hidden)
    assert (gap_error(weights, rule, wanted) <= 1).all()


@pytest.mark.parametrize("rule", [SignFeedbackAlignment(0.3), SignFeedbackAlignment(4.0), GradientDescent()], ids=repr)
@PROPERTY
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(-1, 5))
def test_with_gaps_reproduces_gaps_and_signs(rule: Rule, m: int, d: int, seed: int, share: float) -> None:
    hidden = normal(m, d, seed=seed)
    wanted = 0.5 * share * hidden.square().sum(-1)  # down to the smallest that there are, -|w_j|^2 / 2
    wanted = torch.maximum(wanted, -0.5 * hidden.square().sum(-1))
    signs = torch.where(normal(m, seed=seed + 1) > 0, 1.0, -1.0)
    weights = with_gaps(hidden, rule, wanted, signs)
    assert (gap_error(weights, rule, wanted) <= 1).all()
    assert (signs * weights.output >= 0).all()
    if share > -0.99:
        assert torch.equal(torch.sign(weights.output), signs.to(torch.float64))
        assert (with_gaps(hidden, rule, wanted).output > 0).all()  # all + if not given


def test_with_gaps_takes_ensembles_and_one_number_for_all() -> None:
    hidden = normal(4, 3, 2)
    for rule in (FeedbackAlignment(normal(4, 3, seed=1)), SignFeedbackAlignment(0.5), GradientDescent()):
        weights = with_gaps(hidden, rule, 0.25)
        assert weights.output.shape == (4, 3)
        assert (gap_error(weights, rule, torch.full((4, 3), 0.25).double()) <= 1).all()


@pytest.mark.parametrize("rule", [SignFeedbackAlignment(2.0), GradientDescent()], ids=repr)
def test_gaps_below_minus_half_the_squared_norm_are_refused(rule: Rule) -> None:
    hidden = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
    assert with_gaps(hidden, rule, [-2.0, -0.5]).output.tolist() == [0.0, 0.0]  # the smallest gaps
    with pytest.raises(ValueError, match=r"gaps must be at least -\|w_j\|\^2 / 2 = -0\.5, got -0\.75 at index"):
        with_gaps(hidden, rule, [-2.0, -0.75])


@pytest.mark.parametrize("feedback", [[1.0, 0.0], (torch.ones(1, 2),)], ids=["a zero", "matrices"])
def test_gaps_for_feedback_with_zeros_or_matrices_are_refused(feedback: Any) -> None:
    with pytest.raises(ValueError, match=r"feedback must (not be 0, got 0 at|be a vector b .* got 1 matrices)"):
        with_gaps(torch.eye(2).double(), FeedbackAlignment(feedback), 0.5)


def test_signs_are_refused_for_feedback_alignment_where_the_feedback_decides() -> None:
    with pytest.raises(ValueError, match="signs must not be given"):
        with_gaps(torch.eye(2).double(), FeedbackAlignment([1.0, 1.0]), 0.5, torch.ones(2))


@pytest.mark.parametrize(
    "rule", [FeedbackAlignment([1.0, -1.0]), SignFeedbackAlignment(), GradientDescent()], ids=["fa", "sign-fa", "gd"]
)
@pytest.mark.parametrize("gaps", [[1.0, 1.0, 1.0], math.nan, "a"], ids=["three for two", "NaN", "string"])
def test_gaps_that_do_not_fit_are_refused_by_name(rule: Rule, gaps: Any) -> None:
    with pytest.raises(ValueError, match="gaps"):
        with_gaps(torch.eye(2).double(), rule, gaps)


def test_feedback_of_another_width_than_hidden_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="feedback"):
        with_gaps(torch.eye(2).double(), FeedbackAlignment([1.0, 1.0, 1.0]), 0.5)


@pytest.mark.parametrize(
    "signs", [torch.tensor([1.0, 0.0]), torch.tensor([1.0, math.nan]), torch.ones(3)], ids=["zero", "NaN", "three"]
)
def test_signs_that_are_no_signs_are_refused_by_name(signs: Tensor) -> None:
    # a sign 0 or NaN would silently give v_j = 0, whose gap is not the one asked for
    with pytest.raises(ValueError, match="signs"):
        with_gaps(torch.eye(2).double(), GradientDescent(), 0.5, signs)


def test_rules_of_another_kind_are_refused() -> None:
    other: Any = "fa"
    with pytest.raises(ValueError, match=r"rule must be .* derived from flowsim.Rule, got 'fa'"):
        with_gaps(torch.eye(2).double(), other, 0.5)


# --- adaFA, Gaussian weights, signs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_adafa_takes_the_forward_weights_as_feedback_and_aligns_with_gradient_flow_at_the_start(network: str) -> None:
    weights, _ = NETWORKS[network]
    rule = adafa(weights)
    for matrix, layer in zip(rule.feedback_matrices(weights), weights.layers[1:], strict=True):
        assert torch.equal(matrix, layer)
    doubled = weights.map(lambda tensor: 2 * tensor)
    for matrix, layer in zip(rule.feedback_matrices(doubled), weights.layers[1:], strict=True):
        assert torch.equal(matrix, layer)  # it stays what it was


def test_gaussian_weights_have_variance_scale_squared_over_fan_in() -> None:
    layers = (
        *gaussian(400, 50, seed=0, outputs=100, scale=1.5).layers,
        *deep_gaussian((50, 400, 300, 10), seed=1, scale=1.5).layers,
    )
    for layer in layers:
        wanted = 1.5**2 / layer.shape[-1]
        # mean and variance of N samples scatter by sqrt(wanted/N) and wanted sqrt(2/N); five of these
        assert layer.dtype == torch.float64
        assert abs(layer.mean().item()) < 5 * math.sqrt(wanted / layer.numel())
        assert abs(layer.var().item() - wanted) < 5 * wanted * math.sqrt(2 / layer.numel())


def test_gaussian_weights_have_the_shapes_asked_for_and_follow_the_seed() -> None:
    assert gaussian(5, 3, seed=0).output.shape == (5,)
    assert gaussian(5, 3, seed=0, outputs=1).output.shape == (1, 5)
    assert gaussian(5, 3, seed=0, outputs=2).output.shape == (2, 5)
    assert torch.equal(gaussian(5, 3, seed=7).hidden, gaussian(5, 3, seed=7).hidden)
    assert not torch.equal(gaussian(5, 3, seed=7).hidden, gaussian(5, 3, seed=8).hidden)
    assert torch.equal(2 * gaussian(5, 3, seed=7).output, gaussian(5, 3, seed=7, scale=2).output)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"width": 0}, "got 0"),
        ({"dimension": 2.0}, "got 2.0"),
        ({"outputs": -1}, "got -1"),
        ({"scale": 0}, "scale must be a finite number above 0, got 0"),
        ({"scale": math.nan}, "scale must be a finite number above 0, got nan"),
    ],
)
def test_sizes_and_scales_of_gaussian_weights_are_checked(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError) as error:
        gaussian(**{"width": 2, "dimension": 3, "seed": 0, **changed})
    assert named in str(error.value)


@pytest.mark.parametrize("changed", [{"dimension": 0}, {"outputs": 0}])
def test_a_bad_size_of_gaussian_weights_is_named(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        gaussian(**{"width": 2, "dimension": 3, "seed": 0, **changed})


@PROPERTY
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_random_signs_are_signs_with_both_of_them_present(width: int, seed: int) -> None:
    signs = random_signs(width, seed)
    assert signs.shape == (width,)
    assert signs.dtype == torch.float64
    assert torch.equal(signs, random_signs(width, seed))
    assert set(signs.tolist()) == ({1.0, -1.0} if width > 1 else {1.0})


def test_random_signs_depend_on_the_seed_and_need_a_width() -> None:
    assert len({tuple(random_signs(8, seed).tolist()) for seed in range(10)}) > 1
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        random_signs(0, seed=0)
