"""What may change the mode within a step."""

from dataclasses import replace

import pytest
import torch
from sample_problems import gaussian_data

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, Rule, SignFeedbackAlignment, Weights
from flowsim.integrators.event.batched.batch import Batch, Mode, find_largest
from flowsim.integrators.event.batched.roots import list_powers
from flowsim.integrators.event.batched.rounds import Step, _move
from flowsim.integrators.event.batched.scratch import Scratch
from flowsim.integrators.event.batched.series import Series, Sliding, expand
from flowsim.integrators.event.batched.switch import start_batch
from flowsim.integrators.event.batched.watch import KINK, SIGN, set_watch
from flowsim.integrators.event.kinks import Kinks

ORDER = 5


def at_contacts(tilt: float = 0.0, off: float = 0.0) -> tuple[Flow, Kinks, Batch, Series]:
    """Neuron 0 slides on x_0 and x_1, and so stays on the kink of x_2 = x_0 + x_1; neuron 1 is about to leave x_3.

    x_2 is tilted out of the plane of x_0 and x_1, and neuron 0 is off its kinks, by this much.
    """
    flow, weights = gaussian_data("fa", 1, samples=5, dimension=4, width=2)
    inputs = flow.dataset.inputs.clone()
    inputs[0, 2] = inputs[0, 0] + inputs[0, 1] + tilt * inputs[0, 4]
    hidden = weights.hidden.clone()
    for neuron, on in ((0, inputs[0, :2]), (1, inputs[0, 3:4])):
        hidden[0, neuron] -= torch.linalg.pinv(on) @ (on @ hidden[0, neuron])
    hidden[0, 0] += off * inputs[0, :2].sum(0)
    flow = Flow(Dataset(inputs, flow.dataset.labels), flow.rule, slope=0.3)
    flow, weights = flow.map_matrices(Weights(hidden, weights.output), lambda matrix: matrix)
    weights = Weights(*weights.layers)
    kinks = Kinks.of(flow.dataset.inputs)
    batch, _ = start_batch(flow, kinks, weights)
    side, contact = batch.mode.side.clone(), torch.zeros_like(batch.contact)
    side[0, :2, 0], side[0, 2, 0], contact[0, 2, 0] = 0, 1, 2
    contact[0, 3, 1] = 2
    batch = replace(batch, mode=Mode(side, batch.mode.sign), contact=contact)
    sliding = Sliding.of(kinks, side, batch.touching())
    scratch = Scratch(torch.float64, side.device)
    return flow, kinks, batch, expand(flow, kinks, weights, batch.mode, sliding, batch.unit, ORDER, scratch)


@pytest.mark.parametrize("tilt", [0.0, 1e-10])
def test_a_neuron_that_slides_stays_on_kinks_that_depend_on_its_own_and_nothing_is_watched_there(tilt: float) -> None:
    """Also where z_2 moves by more than rounding, as x_2 is in the plane of the others up to INDEPENDENT only."""
    flow, kinks, batch, series = at_contacts(tilt)
    ratio = list_powers(torch.ones(1, dtype=torch.float64), ORDER)
    watch, still = set_watch(flow, kinks, batch, series, ratio, Scratch(torch.float64, ratio.device))
    assert still.nonzero().tolist() == [[0, 2, 0]]
    assert [0, KINK, 2, 0] not in watch.what.T.tolist()


def test_at_a_contact_the_power_of_t_with_which_z_leaves_is_divided_out() -> None:
    """It leaves x_3 at a speed, which was not known: by t, not by t^2."""
    flow, kinks, batch, series = at_contacts()
    ratio = list_powers(torch.full((1,), 0.5, dtype=torch.float64), ORDER)
    watch, _ = set_watch(flow, kinks, batch, series, ratio, Scratch(torch.float64, ratio.device))
    (row,) = [place for place, what in enumerate(watch.what.T.tolist()) if what == [0, KINK, 3, 1]]
    expected = batch.mode.side[0, 3, 1] * series.pre_activations[1:, 0, 3, 1] * ratio[0, 1:]
    torch.testing.assert_close(watch.polynomial[row, :-1], expected)
    assert watch.polynomial[row, -1] == 0


def test_a_contact_ends_with_the_step_but_where_the_neuron_stays_or_takes_none() -> None:
    _, _, batch, series = at_contacts()
    still = torch.zeros_like(batch.contact, dtype=torch.bool)
    still[0, 2, 0] = True
    one, ones = torch.ones(1, dtype=torch.bool), torch.ones(1, dtype=torch.float64)
    step = Step(ones, list_powers(ones, ORDER), ones, ~one, ~one, ~one)
    moved = _move(batch, series, step, ones, list_powers(ones, ORDER), one, still)
    assert moved.contact.nonzero().tolist() == [[0, 2, 0]]
    assert moved.steps.tolist() == [1]
    assert moved.size.equal(find_largest(moved.weights.layers))
    assert not moved.size.equal(batch.size)
    stayed = _move(batch, series, step, ones, list_powers(ones, ORDER), ~one, still)
    assert stayed.contact.equal(batch.contact)
    assert stayed.steps.tolist() == [0]
    assert stayed.idle.tolist() == [1]


def test_a_step_ends_on_the_kinks_that_neurons_slide_on_however_far_it_began_from_them() -> None:
    """1e-12 from them. A projection is rounded by some EPS of weights times inputs, of 4 numbers each."""
    flow, _, batch, series = at_contacts(off=1e-12)
    one, ones = torch.ones(1, dtype=torch.bool), torch.ones(1, dtype=torch.float64)
    step, still = Step(ones, list_powers(ones, ORDER), ones, ~one, ~one, ~one), torch.zeros_like(batch.contact).bool()
    moved = _move(batch, series, step, ones, 1e-3 ** torch.arange(ORDER + 1.0).double().unsqueeze(0), one, still)
    inputs = flow.dataset.inputs[0, :2]

    def distances(weights: Weights) -> torch.Tensor:
        neuron = weights.hidden[0, 0]
        return (inputs @ neuron).abs() / (inputs.norm(dim=-1) * neuron.norm())

    rounding = 16 * torch.finfo(torch.float64).eps
    assert (distances(batch.weights) > 10 * rounding).all()
    assert (distances(moved.weights) < rounding).all()


@pytest.mark.parametrize(
    ("rule", "watched_at"),
    [(GradientDescent(), [0]), (SignFeedbackAlignment(), [0, 1]), (FeedbackAlignment(torch.ones(1, 1, 2)), [])],
    ids=["vanishes", "jumps", "nothing"],
)
def test_output_weights_near_0_are_watched_as_the_rule_says_what_happens_there(
    rule: Rule, watched_at: list[int]
) -> None:
    """Neuron 0 slides, neuron 1 does not: where the feedback vanishes with the weight only that of neuron 0 matters."""
    flow = Flow(Dataset(torch.tensor([[[1.0, 0.0], [0.6, 1.2]]]), torch.tensor([[-1.0, -1.0]])), rule)
    hidden = torch.tensor([[[0.0, 0.5], [0.3, 0.5]]], dtype=torch.float64)
    weights = Weights(hidden, torch.full((1, 1, 2), 1e-3, dtype=torch.float64))
    kinks, scratch = Kinks.of(flow.dataset.inputs), Scratch(torch.float64, hidden.device)
    batch = start_batch(flow, kinks, weights)[0]
    side = batch.mode.side.clone()
    side[0, 0, 0] = 0
    batch = replace(batch, mode=Mode(side, batch.mode.sign))
    sliding = Sliding.of(kinks, side, batch.touching())
    series = expand(flow, kinks, weights, batch.mode, sliding, torch.ones(1).double(), ORDER, scratch)
    watch, _ = set_watch(flow, kinks, batch, series, list_powers(torch.ones(1, dtype=torch.float64), ORDER), scratch)
    assert watch.neuron[watch.kind == SIGN].tolist() == watched_at
