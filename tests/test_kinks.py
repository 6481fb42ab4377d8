"""Which inputs share a kink, and what that does to slopes and drives."""

import torch

from flowsim.integrators.event.kinks import Kinks, listed

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
    index, there = listed(torch.tensor([[False, False], [False, False]]))
    assert index.shape == there.shape == (2, 0)
    index, there = listed(torch.tensor([[True, False, True], [False, False, True]]))
    assert index[0].tolist() == [0, 2]
    assert index[1, 0] == 2
    assert there.tolist() == [[True, True], [True, False]]
