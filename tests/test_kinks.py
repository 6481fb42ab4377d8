"""Which inputs share a kink, and what that does to slopes and drives."""

import numpy as np
import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
from flowsim.integrators.event.kinks import Kinks, list_columns

X = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
INPUTS = torch.stack([X, torch.tensor([0.0, 1.0, 1.0]).double(), -2 * X, torch.zeros(3).double(), 0.25 * X]).unsqueeze(
    0
)


def test_parallel_inputs_share_the_kink_of_the_first_and_an_input_0_has_none() -> None:
    kinks = Kinks.of(INPUTS)
    assert kinks.first.tolist() == [[0, 1, 0, 3, 0]]
    assert kinks.ratio.tolist() == [[1.0, 1.0, -2.0, 1.0, 0.25]]
    assert kinks.exists.tolist() == [[True, True, False, False, False]]
    assert not kinks.distinct


def test_nearly_parallel_inputs_have_kinks_of_their_own() -> None:
    inputs = torch.stack([X, X + torch.tensor([0.0, 0.0, 1e-9]).double()]).unsqueeze(0)
    assert Kinks.of(inputs).distinct


@pytest.mark.parametrize("exponent", [-495, -300, -200, 200, 300, 495])
def test_inputs_of_any_length_are_parallel_when_they_are(exponent: int) -> None:
    scaled = Kinks.of(torch.from_numpy(np.ldexp(INPUTS.numpy(), exponent)))
    plain = Kinks.of(INPUTS)
    for name in ("first", "ratio", "exists"):
        assert torch.equal(getattr(scaled, name), getattr(plain, name))
    assert np.array_equal(scaled.length.numpy(), np.ldexp(plain.length.numpy(), exponent))


def test_a_long_and_a_short_input_share_a_kink() -> None:
    pair = torch.stack([X * 2.0**-450, -X * 2.0**450, X]).unsqueeze(0)
    assert Kinks.of(pair).first.tolist() == [[0, 0, 0]]
    assert Kinks.of(pair).ratio.tolist() == [[1.0, -(2.0**900), 2.0**450]]


def problem(exponent: int, samples: list) -> tuple[Flow, Weights, float]:
    """x -> c x; w, v, b -> those over sqrt(c); t -> t / c: the same outputs and the same kinks."""
    c, root = 2.0**exponent, 2.0 ** (-exponent // 2)
    generator = torch.Generator().manual_seed(8)
    hidden, output, feedback = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 2), (5,), (5,))
    )
    inputs = torch.tensor(samples, dtype=torch.float64)
    labels = [1 - 2 * (index % 2) for index in range(len(samples))]
    flow = Flow(Dataset(inputs * c, labels), FeedbackAlignment(feedback * root))
    return flow, Weights(hidden * root, output * root), 3.0 / c


PARALLEL = [[1.0, 0.5], [2.0, 1.0], [-0.5, -0.25], [0.3, -1.0], [0.6, 0.1]]


@pytest.mark.parametrize("exponent", [-494, -300, 300, 494])
def test_a_flow_on_long_or_short_parallel_inputs_is_that_in_other_units(exponent: int) -> None:
    """Powers of two: every rounding is the same, and so is every bit, events and slides included."""
    runs = [
        solve(flow, weights, t_final, rtol=1e-8, atol=1e-300)
        for flow, weights, t_final in (problem(0, PARALLEL), problem(exponent, PARALLEL))
    ]
    plain, scaled = (run.evaluate(run.t_final) for run in runs)
    assert torch.equal(scaled.hidden * 2.0 ** (exponent // 2), plain.hidden)
    assert torch.equal(scaled.output * 2.0 ** (exponent // 2), plain.output)
    assert runs[0].events.kind == runs[1].events.kind
    assert {"crossing", "sliding entry"} <= set(runs[0].events.kind)


@pytest.mark.parametrize("exponent", [-1000, -566, -514, 514, 566, 1000])
def test_inputs_whose_squares_over_or_underflow_are_refused_with_the_units_to_take(exponent: int) -> None:
    flow, weights, t_final = problem(exponent, PARALLEL)
    with pytest.raises(ValueError, match=r"inputs must have lengths from 1e-150 to 1e\+150, or 0") as error:
        solve(flow, weights, t_final, atol=1e-300)
    assert "\n" not in str(error.value)


def test_sides_and_slopes_of_samples_are_those_of_their_kink_turned_for_opposite_inputs() -> None:
    kinks = Kinks.of(INPUTS)
    side = torch.tensor([[[1, -1, 0], [1, 1, -1], [9, 9, 9], [-1, -1, -1], [9, 9, 9]]], dtype=torch.int8)
    assert kinks.of_samples(side)[0].tolist() == [[1, -1, 0], [1, 1, -1], [-1, 1, 0], [-1, -1, -1], [1, -1, 0]]
    expected = [[1, 0.3, 0], [1, 1, 0.3], [0.3, 1, 0], [0.3, 0.3, 0.3], [1, 0.3, 0]]
    assert kinks.slopes(side, 0.3)[0].tolist() == expected


def test_drives_on_the_two_sides_are_sums_over_the_samples_of_the_kink() -> None:
    """dw/dt = sum_i phi'_i E_i x_i, as a multiple of the first input."""
    kinks = Kinks.of(INPUTS)
    error = torch.tensor([[0.7, -1.0, 0.4, 3.0, -2.0]], dtype=torch.float64)
    kink = torch.tensor([[0, 1]])
    active, inactive = kinks.ends(torch.tensor([0]), kink, error, 0.3)
    torch.testing.assert_close(active, torch.tensor([[0.7 - 2 * 0.3 * 0.4 - 0.25 * 2.0, -1.0]]).double())
    torch.testing.assert_close(inactive, torch.tensor([[0.3 * 0.7 - 2 * 0.4 - 0.25 * 0.3 * 2.0, -0.3]]).double())
    with_terms = kinks.ends(torch.tensor([0]), kink, error.unsqueeze(-1) * torch.tensor([1.0, 2.0]).double(), 0.3)
    torch.testing.assert_close(with_terms[0][..., 1], 2 * active)


def test_listed_has_an_entry_for_every_column_of_the_longest_row() -> None:
    index, there = list_columns(torch.tensor([[False, False], [False, False]]))
    assert index.shape == there.shape == (2, 0)
    index, there = list_columns(torch.tensor([[True, False, True], [False, False, True]]))
    assert index[0].tolist() == [0, 2]
    assert index[1, 0] == 2
    assert there.tolist() == [[True, True], [True, False]]
