"""The true error of float solutions."""

import re
from dataclasses import replace

import pytest
import torch
from calibration import draw_problem

from enclosure.runs import gaussian, one_neuron
from flowsim import enclose, solve
from flowsim.activation import Tanh
from flowsim.weights import stack


def test_a_loose_solution_has_a_large_error_and_a_tight_one_a_small_one() -> None:
    flow, weights = gaussian(0, "fa")
    enclosure = enclose(flow, weights, 5.0, bits=128)
    loose, tight = (enclosure.compare(solve(flow, weights, 5.0, rtol=r, atol=r)) for r in (1e-5, 1e-12))
    assert 1e-10 < loose.largest < 1e-3 and tight.largest < 1e-11
    assert max(loose.lower) > 1e-10


def test_a_solution_of_another_start_is_proved_not_to_be_it() -> None:
    flow, weights = one_neuron()
    other = weights.map(lambda tensor: tensor + 1e-6)
    compared = enclose(flow, weights, 2.0).compare(solve(flow, other, 2.0))
    assert compared.understated and not compared.within and min(compared.lower) > 1e-8


def test_what_is_enclosed_and_compared_is_shown_in_a_short_line() -> None:
    flow, weights = gaussian(0, "fa")
    enclosure = enclose(flow, weights, 1.0, bits=128)
    point, compared = repr(enclosure.at(0.5)), repr(enclosure.compare(solve(flow, weights, 1.0)))
    rows, columns = weights.hidden.shape
    assert point == f"Point(t = 0.500000, hidden ({rows}, {columns}), output ({rows}))"
    assert re.fullmatch(r"Comparison\(error <= \S+, estimate \S+, \d+ times\)", compared), compared
    with pytest.raises(ValueError, match=r"^time must lie in \[0, 1\.00000\], got 2.0$"):
        enclosure.at(2.0)


def test_another_activation_than_the_leaky_relu_is_refused_by_its_name() -> None:
    flow, weights = one_neuron()
    with pytest.raises(ValueError, match=r"activation must be a leaky ReLU to be enclosed, got Tanh\(\)"):
        enclose(replace(flow, activation=Tanh()), weights, 1.0)


def test_ensembles_are_refused() -> None:
    flow, weights = one_neuron()
    with pytest.raises(ValueError, match="one trajectory"):
        enclose(flow, weights, 1.0).compare(solve(flow, stack([weights, weights]), 1.0))


@pytest.mark.parametrize(("seed", "rtol"), [(27, 1e-10), (34, 1e-11), (74, 1e-6)])
def test_the_error_estimate_covers_the_true_error_by_what_one_step_is_allowed(seed: int, rtol: float) -> None:
    """The difference to the companion alone does not: it is in the middle of a step."""
    _, flow, weights = draw_problem(seed)
    enclosure = enclose(flow, weights, 10.0, bits=128)
    solution = solve(flow, weights, 10.0, rtol=rtol, atol=rtol / 100)
    compared = enclosure.compare(solution)
    assert compared.within
    largest = max(layer.abs().max().item() for layer in solution.evaluate(list(compared.times)).layers)
    differences = [estimate - rtol / 100 - rtol * largest for estimate in compared.estimate[1:]]
    assert any(bound > difference for bound, difference in zip(compared.lower[1:], differences, strict=True))


def test_times_may_be_chosen() -> None:
    flow, weights = one_neuron()
    compared = enclose(flow, weights, 1.0).compare(solve(flow, weights, 1.0), times=torch.linspace(0, 1, 5).tolist())
    assert len(compared.upper) == 5
