"""Which mode comes next: at the start, at an event, and where a mode turns out wrong (flowsim/README.md, section 10).

The functions return the batch with its mode changed, and which trajectories or neurons could not be decided.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators.event.batched.batch import Batch, Mode, find_largest
from flowsim.integrators.event.batched.filippov import choose_sides
from flowsim.integrators.event.batched.series import Series, find_feedback, measure_gradient
from flowsim.integrators.event.batched.watch import KINK, SIGN, TO_ACTIVE, TO_INACTIVE, Watch, find_rows
from flowsim.integrators.event.kinks import Kinks, list_columns
from flowsim.integrators.event.tolerances import INDEPENDENT, ON_KINK, RESTING, ZERO
from flowsim.losses import named
from flowsim.weights import Weights


def start_batch(flow: Flow, kinks: Kinks, weights: Weights) -> tuple[Batch, Bool[Tensor, " ensemble"]]:
    """The mode at t = 0. Neurons that start on a repelling kink leave it to the active side where they can.

    Where the velocity is not finite there is none.
    """
    z = flow.dataset.inputs @ weights.hidden.mT
    velocity = flow.velocity(weights)
    zero = weights.output == 0
    sign = torch.where(zero, velocity.output, weights.output).sign().to(torch.int8)
    size, speed = find_largest(weights.layers), find_largest(velocity.layers)
    count = len(size)
    batch = Batch(
        index=torch.arange(count, device=z.device),
        time=z.new_zeros(count),
        end=z.new_zeros(count),
        weights=weights,
        mode=Mode(z.sign().to(torch.int8), sign),
        size=size,
        contact=torch.zeros_like(z, dtype=torch.int8),
        sign_contact=(zero & (sign != 0)).to(torch.int8),
        unit=torch.where(size > 0, size, 1.0) / speed,
        steps=torch.zeros(count, dtype=torch.long, device=z.device),
        rounds=torch.zeros(count, dtype=torch.long, device=z.device),
        idle=torch.zeros(count, dtype=torch.long, device=z.device),
    )
    settled = torch.ones(count, dtype=torch.bool, device=z.device)
    if flow.slope == 1:
        side = torch.where(kinks.exists.unsqueeze(-1), 1, -1).to(torch.int8).expand_as(z)
        return replace(batch, mode=Mode(side, sign)), settled
    width = torch.linalg.vector_norm(weights.hidden, dim=-1)
    on = z.abs() <= ON_KINK * kinks.length.unsqueeze(-1) * width.unsqueeze(-2)
    exists = kinks.exists.unsqueeze(-1)
    # nothing has moved yet: no direction of travel, and the active side to begin with (an input 0 is never active)
    side = torch.where(on, torch.where(exists, 1, -1), batch.mode.side).to(torch.int8)
    trajectory, neuron = torch.nonzero((on & exists).any(1) & torch.isfinite(speed).unsqueeze(-1), as_tuple=True)
    batch = replace(batch, mode=Mode(side, sign))
    if trajectory.numel():
        batch, decided = _settle(flow, kinks, batch, trajectory, neuron, on, width[trajectory, neuron])
        settled[trajectory[~decided]] = False
    return batch, settled


def correct_modes(
    flow: Flow, kinks: Kinks, batch: Batch, series: Series, ratio: Float[Tensor, "ensemble terms"], wrong: Watch
) -> Batch:
    """Modes in which something would happen at once, changed: one change per trajectory, which takes no step.

    A kink left at speed 0 to the wrong side: a neuron pushed back to it slides, another one leaves to the other side.
    """
    order = torch.arange(len(wrong.trajectory), device=wrong.trajectory.device)
    first = torch.full_like(batch.index, len(order)).scatter_reduce(0, wrong.trajectory, order, "amin")
    change = wrong.where(first[wrong.trajectory] == order)
    side, sign, contact, sign_contact = (
        tensor.clone() for tensor in (batch.mode.side, batch.mode.sign, batch.contact, batch.sign_contact)
    )
    at_kink = change.places(KINK)
    known = contact[at_kink] == 2
    contact[at_kink] = 2  # the others were beyond the kink by rounding
    where = trajectory, sample, neuron = tuple(item[known] for item in at_kink)
    if trajectory.numel():
        row = find_rows(series.sliding, side.shape, trajectory, neuron)
        active, inactive = kinks.ends(trajectory, sample.unsqueeze(-1), series.error[row], flow.slope)
        width = (inactive - active).squeeze(1)
        significant = width.abs() > ZERO * width.abs().amax(-1, keepdim=True)
        leading = width.gather(-1, significant.to(torch.int8).argmax(-1, keepdim=True)).squeeze(-1)
        side[where] = torch.where(leading > 0, 0, -side[where]).to(torch.int8)
        contact[where] = torch.where(leading > 0, 0, 2).to(torch.int8)
    for kind, leaves_to in ((TO_ACTIVE, 1), (TO_INACTIVE, -1)):
        leaving = change.places(kind)
        side[leaving], contact[leaving] = leaves_to, 2
    where = trajectory, output, neuron = change.places(SIGN)
    moving = series.output[1:, trajectory, output, neuron].T * ratio[trajectory, 1:]
    leading = (moving.abs() > ZERO * moving.abs().amax(-1, keepdim=True)).to(torch.int8).argmax(-1)
    towards = moving.gather(-1, leading.unsqueeze(-1)).squeeze(-1).sign().to(sign.dtype)
    sign[where] = torch.where(sign[where] == 0, towards, -sign[where])
    sign_contact[where] = (leading + 1).to(torch.int8)
    return replace(batch, mode=Mode(side, sign), contact=contact, sign_contact=sign_contact)


def switch_modes(
    flow: Flow,
    kinks: Kinks,
    batch: Batch,
    hit: Watch,
    hidden_before: Float[Tensor, "ensemble m r"],
    series: Series,
    monomials: Float[Tensor, "ensemble terms"],
) -> tuple[Batch, Bool[Tensor, " ensemble"]]:
    """The modes after the events that were hit at the end of a step, and for which trajectories they could be decided.

    `hidden_before`, `series` and `monomials` are the weights at the start of the step, its series, and the powers of
    its length.
    """
    side, sign, contact, sign_contact = (
        tensor.clone() for tensor in (batch.mode.side, batch.mode.sign, batch.contact, batch.sign_contact)
    )
    kinds, output = set(hit.kind.tolist()), batch.weights.output
    decide = torch.zeros_like(side[:, 0], dtype=torch.bool)
    arrived = torch.zeros_like(side, dtype=torch.bool)
    for kind, leaves_to in ((TO_ACTIVE, 1), (TO_INACTIVE, -1)):
        if kind in kinds:
            leaving = hit.places(kind)
            side[leaving], contact[leaving] = leaves_to, 2
    if SIGN in kinds:
        flipped = trajectory, _, neuron = hit.places(SIGN)
        output = output.index_put(flipped, output.new_zeros(()))
        sign[flipped], sign_contact[flipped] = -sign[flipped], 1
        decide[trajectory, neuron] = (side == 0).any(1)[trajectory, neuron]
    if KINK in kinds:
        arriving = trajectory, _, neuron = hit.places(KINK)
        arrived[arriving], decide[trajectory, neuron] = True, True
    batch = replace(
        batch,
        weights=Weights.sharing(batch.weights.hidden, output),
        mode=Mode(side, sign),
        contact=contact,
        sign_contact=sign_contact,
    )
    trajectory, neuron = torch.nonzero(decide, as_tuple=True)
    settled = torch.ones_like(batch.index, dtype=torch.bool)
    if trajectory.numel():
        travel = _find_travel(series, monomials, trajectory, neuron)
        # a neuron may have come close to w = 0: what it had before says how exact z is
        both = torch.stack([hidden[trajectory, neuron] for hidden in (hidden_before, batch.weights.hidden)])
        width = torch.linalg.vector_norm(both, dim=-1).amax(0)
        batch, decided = _settle(flow, kinks, batch, trajectory, neuron, arrived, width, travel)
        settled[trajectory[~decided]] = False
    return batch, settled


def _find_travel(series: Series, monomials: Tensor, trajectory: Tensor, neuron: Tensor) -> Float[Tensor, "rows r"]:
    """The directions in which neurons travel: d/dt of the step's polynomial at its end, up to a factor."""
    orders = torch.arange(1, monomials.shape[-1], dtype=monomials.dtype, device=monomials.device)
    weighted = (orders * monomials[trajectory, :-1]).unsqueeze(-1)
    return (weighted * series.hidden[1:, trajectory, :, neuron]).sum(1)


def _settle(
    flow: Flow,
    kinks: Kinks,
    batch: Batch,
    trajectory: Int[Tensor, " rows"],
    neuron: Int[Tensor, " rows"],
    arrived: Bool[Tensor, "ensemble n m"],
    width: Float[Tensor, " rows"],
    travel: Float[Tensor, "rows r"] | None = None,
) -> tuple[Batch, Bool[Tensor, " rows"]]:
    """The sides of some neurons that sit on kinks, and their weights put exactly there.

    They sit on those that they arrived at, or slide on, and where z = 0 up to the rounding of weights of size `width`.
    """
    near = kinks.of_trajectories(trajectory)
    inputs, (hidden, output) = near.inputs, batch.weights.layers
    side, row = batch.mode.side[trajectory, :, neuron], hidden[trajectory, neuron]
    z = inputs @ hidden[trajectory].mT
    error, contributions = _find_errors(flow, near, batch, trajectory, neuron, z)
    own = z.gather(-1, neuron.reshape(-1, 1, 1).expand(-1, z.shape[1], -1)).squeeze(-1)
    on = (own.abs() <= ON_KINK * near.length * width.unsqueeze(-1)) | (side == 0) | arrived[trajectory, :, neuron]
    kink, there = list_columns(on & near.exists)
    normals = inputs.gather(1, kink.unsqueeze(-1).expand(-1, -1, inputs.shape[-1])) * there.unsqueeze(-1)
    # put the neuron on its kinks: the correction is of the order of rounding
    off = (row.unsqueeze(-2) @ normals.mT) @ _pseudo_invert(normals)
    hidden = hidden.index_put((trajectory, neuron), row - off.squeeze(-2))

    active, inactive = kinks.ends(trajectory, kink, error, flow.slope)
    rest = _find_rest(near, side, kink, there, error, flow.slope)
    first = side.gather(1, kink)
    if travel is not None:
        first = _cross_by_travel(first, normals, near.length.gather(1, kink), travel)
    after, speed, decided = choose_sides(normals, rest, active, inactive, first, contributions)
    at, place = torch.nonzero(there, as_tuple=True)
    where = trajectory[at], kink[at, place], neuron[at]
    leaving = after[at, place] != 0
    slow = speed[at, place] == 0
    if flow.rule.at_zero == "vanishes":  # E = 0 where v = 0: the speed is that of just after
        slow |= (output[trajectory, :, neuron] == 0).all(-1)[at]
    contact = torch.where(leaving, torch.where(slow, 2, 1), 0).to(torch.int8)
    batch = replace(
        batch,
        weights=Weights.sharing(hidden, output),
        mode=Mode(batch.mode.side.index_put(where, after[at, place]), batch.mode.sign),
        contact=batch.contact.index_put(where, contact),
    )
    return batch, decided


def _find_rest(
    near: Kinks,
    side: Int[Tensor, "rows n"],
    kink: Int[Tensor, "rows k"],
    there: Bool[Tensor, "rows k"],
    error: Float[Tensor, "rows n"],
    slope: float,
) -> Float[Tensor, "rows r"]:
    """The drive of the samples whose kinks neurons do not sit on."""
    on_kinks = torch.zeros_like(side).scatter(1, kink, there.to(side.dtype))
    others = torch.where(on_kinks > 0, 0, side)
    slopes = near.slopes(others.unsqueeze(-1), slope).squeeze(-1)
    return ((slopes * error).unsqueeze(-2) @ near.inputs).squeeze(-2)


def _cross_by_travel(
    side: Int[Tensor, "rows k"],
    normals: Float[Tensor, "rows k r"],
    length: Float[Tensor, "rows k"],
    travel: Float[Tensor, "rows r"],
) -> Int[Tensor, "rows k"]:
    """The sides that neurons travel to; as given where they slide, or travel along the kink."""
    heading = (normals @ travel.unsqueeze(-1)).squeeze(-1)
    speed = torch.linalg.vector_norm(travel, dim=-1, keepdim=True)
    resting = heading.abs() <= RESTING * length * speed
    return torch.where((side == 0) | resting, side, heading.sign().to(side.dtype))


def _pseudo_invert(normals: Float[Tensor, "rows k r"]) -> Float[Tensor, "rows k r"]:
    """Transposed; normals that depend on each other are told by their singular values."""
    if normals.shape[1] == 1:
        return normals / normals.square().sum(-1, keepdim=True).clamp(min=torch.finfo(normals.dtype).tiny)
    return torch.linalg.pinv(normals, rtol=INDEPENDENT).mT


def _find_errors(
    flow: Flow, near: Kinks, batch: Batch, trajectory: Tensor, neuron: Tensor, z: Float[Tensor, "rows n m"]
) -> tuple[Float[Tensor, "rows n"], Float[Tensor, " rows"]]:
    """E_ij of some neurons, up to a positive factor, and the size of the contributions to their dw/dt.

    `near` are the kinks of their trajectories, z the pre-activations of all neurons of these.
    """
    active = near.slopes(batch.mode.side[trajectory], flow.slope) * z
    output, targets = batch.weights.output[trajectory], flow.dataset.targets[trajectory]
    loss = named(flow.loss)
    gradient = loss.negative_gradient(active @ output.mT, targets)
    sizes = measure_gradient(loss, gradient, targets, active.abs() @ output.abs().mT)
    column = find_feedback(flow, batch.weights, batch.mode)[trajectory, :, neuron]
    if flow.rule.at_zero == "vanishes" and column.shape[-1] == 1:
        column = torch.where(column == 0, batch.mode.sign[trajectory, :, neuron].to(gradient.dtype), column)
    error = (gradient @ column.unsqueeze(-1)).squeeze(-1) / flow.dataset.samples
    contributions = (sizes @ column.abs().unsqueeze(-1)).squeeze(-1) / flow.dataset.samples
    return error, (contributions * near.length).sum(-1)
