"""Dense output: the series of steps, computed again from their starts."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from flowsim.flat import join
from flowsim.flow import Flow
from flowsim.integrators.event.batched.batch import Mode
from flowsim.integrators.event.batched.roots import list_powers
from flowsim.integrators.event.batched.scratch import Scratch
from flowsim.integrators.event.batched.series import Series, Sliding, expand, sum_series
from flowsim.integrators.event.kinks import find_kinks
from flowsim.integrators.event.records import Record
from flowsim.weights import Weights


def evaluate(
    flow: Flow,
    starts: Record,
    length: Float[Tensor, " steps"],
    which: Int[Tensor, " times"],
    share: Float[Tensor, " times"],
    order: int,
    derivative: bool,
    logarithmic: bool,
) -> Float[Tensor, "times parameters"]:
    """The sums of the series of steps, or of their derivatives by time, one row for each time.

    Args:
        flow: of the flattened ensemble.
        starts: of the steps.
        length: of each step, the unit of time of its series.
        which: of the steps each time lies in.
        share: of the step that has passed by then.
        order: of the series.
        derivative: whether by time.
        logarithmic: False, as `begin` sees to.
    """
    series = _expand_steps(flow, starts, length, order)
    monomials = list_powers(share, order)
    if derivative:
        orders = torch.arange(1, order + 1, dtype=share.dtype, device=share.device)
        monomials = functional.pad(orders * monomials[:, :-1] / length[which].unsqueeze(-1), (1, 0))
    sums = join([sum_series(series.hidden[:, which], monomials).mT, sum_series(series.output[:, which], monomials)])
    if not derivative:  # at their start the terms of a series may be infinite
        sums[share == 0] = starts.weights[which[share == 0]]
    return sums


def _expand_steps(flow: Flow, starts: Record, length: Float[Tensor, " steps"], order: int) -> Series:
    trajectory = starts.index
    hidden, output = starts.layout.split_weights(starts.weights)
    (side,), (sign,) = starts.layout.split_sides(starts.side), starts.layout.split_signs(starts.sign)
    ensemble = len(flow.dataset.inputs)
    like = Weights.sharing(*(layer[:1].expand(ensemble, -1, -1) for layer in (hidden, output)))  # for its shape
    own, _ = flow.map_matrices(like, lambda matrix: matrix[trajectory])
    kinks = find_kinks(flow).of_trajectories(trajectory)
    sliding = Sliding.of(kinks, side, ((side == 0) & kinks.exists.unsqueeze(-1)).any(1))
    weights, scratch = Weights.sharing(hidden, output), Scratch(length.dtype, length.device)
    return expand(own, kinks, weights, Mode(side, sign), sliding, length, order, scratch)
