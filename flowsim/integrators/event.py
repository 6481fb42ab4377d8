"""The event-driven integrator: a two-layer flow as Taylor series between events (theorems/README.md, section 10).

Between events the activation pattern is fixed and the flow analytic. A step takes the Taylor series of the flow, finds
the first event within it, goes exactly there, and chooses the next mode:

    a pre-activation reaches 0: it crosses the kink, or slides along it (kinks.filippov_sides)
    the drive of a sliding sample reaches an end of its interval: it leaves the kink to that side
    an output weight reaches 0: under sign-FA the feedback changes its sign, under GD that of the drives
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators import Settings, StoppedError
from flowsim.integrators.kinks import ZERO, Kinks, filippov_sides, listed
from flowsim.integrators.roots import first_root, powers
from flowsim.integrators.series import Mode, Series, Sliding, feedback, taylor
from flowsim.losses import named
from flowsim.rules import GradientDescent, SignFeedbackAlignment
from flowsim.solution import Events
from flowsim.weights import NetworkWeights, Weights

EPS = torch.finfo(torch.float64).eps

ON_KINK = 64 * EPS
"""A neuron is on a kink if |z| is at most so large, relative to |x| |w|."""

AT_END = 1e-13
"""The drive of a sliding sample is at an end of its interval if it is so near, relative to the interval."""

AT_REST = 1e-12
"""A neuron at a contact does not leave the kink if |z| grows to no more, relative to what adds up to it. Well above
AT_END: what leaves sliding by rounding must not be sent back."""

WITH_WEIGHT = 1e-6
"""Under GD, a drive that reaches the end of its interval so near v = 0, relative to the step, does so because v = 0."""

TIE = 8 * EPS
"""Events are simultaneous if they are at most so far apart, relative to the step."""

LONGEST = 1e3
"""Largest growth of the step from one to the next."""

IDLE = 50
"""Rounds in a row in which a mode may be corrected without a step; many more than kinks meet in one point."""

CHUNK = 2**21
"""Numbers in the series evaluated at a time in dense output, to bound its memory."""

UNDECIDED = 10
"""Corrections after which a mode is left as it is over a step so short that it makes no difference above the tolerance."""

KINK, TO_ACTIVE, TO_INACTIVE, SIGN = range(4)
"""Kinds of events: z reaches 0; a sliding sample leaves; an output weight reaches 0."""


def order_for(rtol: float) -> int:
    """Order of the series: each term is about e^3 = 20 times smaller than the one before at the end of a full step.

    The least work per unit time is at e^2 (Jorba and Zou 2005); but most steps end at an event, well before.

    >>> order_for(1e-10)
    9
    """
    return max(4, math.ceil(1 - math.log(min(rtol, 1.0)) / 3))


@dataclass(frozen=True, eq=False)
class Front:
    """Where the trajectories are that have not reached the end, and what is needed to go on.

    Args:
        index: their numbers in the ensemble.
        time: reached.
        weights: there.
        mode: there.
        contact: of each kink and neuron: 0 if z != 0; 1 if z = 0 and the neuron leaves at some speed; 2 if z = 0 and
            the speed is 0 too, as after sliding, or not known (int8).
        sign_contact: of each output weight: 0 if it is not 0, or has no sign; else the power of t with which it leaves
            0 (int8).
        unit: of time, about the length of the next step.
        steps, terms: taken and computed so far.
        idle: rounds without a step.
    """

    index: Int[Tensor, " ensemble"]
    time: Float[Tensor, " ensemble"]
    weights: Weights
    mode: Mode
    contact: Int[Tensor, "ensemble n m"]
    sign_contact: Int[Tensor, "ensemble k m"]
    unit: Float[Tensor, " ensemble"]
    idle: Int[Tensor, " ensemble"]

    def of_trajectories(self, some: Tensor) -> Front:
        """Some of the trajectories."""
        return Front(
            self.index[some],
            self.time[some],
            self.weights.map(lambda tensor: tensor[some]),
            Mode(self.mode.side[some], self.mode.sign[some]),
            self.contact[some],
            self.sign_contact[some],
            self.unit[some],
            self.idle[some],
        )


@dataclass(frozen=True, eq=False)
class Record:
    """The start of a step, for the trajectories that took one."""

    index: Int[Tensor, " some"]
    time: Float[Tensor, " some"]
    hidden: Float[Tensor, "some m r"]
    output: Float[Tensor, "some k m"]
    side: Int[Tensor, "some n m"]
    sign: Int[Tensor, "some k m"]


@dataclass(frozen=True, eq=False)
class Watch:
    """What may change the mode within a step: polynomials in the share of the step, positive until it happens.

    `kind` is one of KINK, TO_ACTIVE, TO_INACTIVE, SIGN; `row` a sample, or for SIGN an output.
    """

    trajectory: Int[Tensor, " events"]
    kind: Int[Tensor, " events"]
    row: Int[Tensor, " events"]
    neuron: Int[Tensor, " events"]
    polynomial: Float[Tensor, "events terms"]

    def where(self, mask: Tensor) -> Watch:
        """Some of them."""
        return Watch(*(getattr(self, item.name)[mask] for item in fields(self)))

    @classmethod
    def all(cls, parts: Sequence[Watch]) -> Watch:
        """Several lists as one."""
        return cls(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)))


def integrate(
    flow: Flow,
    weights: NetworkWeights,
    t_final: float,
    settings: Settings,
    advanced: Callable[[float], None] = lambda gained: None,
) -> EventPath:
    """Integrate every trajectory of a flattened ensemble of two-layer networks, each with its own steps and events.

    Args:
        flow: data and feedback with one batch dimension.
        weights: initial weights with one batch dimension.
        t_final: end of the time interval.
        settings: tolerances per step, in the maximum norm over a trajectory's weights; steps allowed.
        advanced: called after each round with the time gained.

    Raises:
        ValueError: for networks with more than two layers, a flow other than `Flow`, a loss without a series.
        StoppedError: if a trajectory cannot go on.
    """
    _require_supported(flow, weights)
    order = order_for(settings.rtol)
    kinks = Kinks.of(flow.dataset.inputs)
    here = Weights(*weights.layers)
    terms = torch.zeros(len(here.hidden), dtype=torch.long, device=here.hidden.device)
    path = EventPath(flow, weights, kinks, order, t_final, [], terms)
    problem, near = flow, kinks
    front = _start(problem, near, here, t_final)
    steps = torch.zeros(len(front.index), dtype=torch.long, device=front.index.device)
    while True:
        terms[front.index] += order
        front, gained, reasons = _round(problem, near, front, t_final, order, settings, path.records)
        if reasons:
            _stop(path, front, reasons)
        steps[front.index] += gained > 0
        advanced(gained.sum().item())
        if (steps > settings.max_steps).any():
            position = int((steps[front.index] > settings.max_steps).nonzero()[0])
            _stop(path, front, {position: f"more than max_steps = {settings.max_steps} steps"})
        going = front.time < t_final
        if not going.all():
            if not going.any():
                return path
            remaining = torch.nonzero(going).squeeze(-1)
            problem, _ = problem.map_matrices(front.weights, lambda matrix, index=remaining: matrix[index])
            near = near.of_trajectories(remaining)
            front = front.of_trajectories(remaining)


def _state(flow: Flow, front: Front, position: int) -> str:
    """Speed and smallest margin y f of a trajectory, as the reason for a stop."""
    speed = _size(flow.velocity(front.weights).layers)[position].item()
    lowest = (flow.outputs(front.weights) * flow.dataset.targets).sum(-1)[position].min().item()
    return f"velocities reach {speed:.3g} at the smallest margin y f = {lowest:.4g}"


def _require_supported(flow: Flow, weights: NetworkWeights) -> None:
    if len(weights.layers) != 2:
        raise ValueError(
            f"method 'event' is for two-layer networks, got {len(weights.layers)} layers; use method='dopri5'"
        )
    if type(flow) is not Flow:
        raise ValueError(f"method 'event' is for flowsim.Flow, got {type(flow).__name__}; use method='dopri5'")
    if named(flow.loss).series is None:
        raise ValueError(
            f"method 'event' needs a loss with a Taylor series, got {named(flow.loss).name!r}; use method='dopri5'"
        )


def _stop(path: EventPath, front: Front, reasons: dict[int, str]) -> None:
    position, reason = next(iter(reasons.items()))
    index, time = int(front.index[position]), front.time[position].item()
    raise StoppedError(index, time, reason, path.only(index, time) if time > 0 else None)


def _start(flow: Flow, kinks: Kinks, weights: Weights, t_final: float) -> Front:
    """The mode at t = 0. Neurons that start on a repelling kink leave it to the active side where they can."""
    z = flow.dataset.inputs @ weights.hidden.mT
    velocity = flow.velocity(weights)
    if not all(torch.isfinite(layer).all() for layer in velocity.layers):
        finite = torch.stack([torch.isfinite(layer).all(-1).all(-1) for layer in velocity.layers]).all(0)
        margins = (flow.outputs(weights) * flow.dataset.targets).sum(-1).amin(-1)
        index = int((~finite).nonzero()[0])
        lowest = margins[index].item()
        reason = f"the velocity overflows: the loss is too steep at the smallest margin y f = {lowest:.4g}"
        raise StoppedError(index, 0.0, reason, None)
    output, moving = weights.output, velocity.output
    zero = output == 0
    sign = torch.where(zero, moving, output).sign().to(torch.int8)
    size, speed = _size(weights.layers), _size(velocity.layers)
    unit = torch.where(size > 0, size, 1.0) / speed
    count = len(size)
    front = Front(
        index=torch.arange(count, device=z.device),
        time=z.new_zeros(count),
        weights=weights,
        mode=Mode(z.sign().to(torch.int8), sign),
        contact=torch.zeros_like(z, dtype=torch.int8),
        sign_contact=(zero & (sign != 0)).to(torch.int8),
        unit=unit.clamp(max=t_final),
        idle=torch.zeros(count, dtype=torch.long, device=z.device),
    )
    if flow.slope == 1:
        return replace(front, mode=Mode(torch.ones_like(front.mode.side), sign))
    lengths = flow.dataset.inputs.norm(dim=-1).unsqueeze(-1) * weights.hidden.norm(dim=-1).unsqueeze(-2)
    on, exists = z.abs() <= ON_KINK * lengths, kinks.exists.unsqueeze(-1)
    # nothing has moved yet: no direction of travel, and the active side to begin with (an input 0 is never active)
    side = torch.where(on, torch.where(exists, 1, -1), front.mode.side).to(torch.int8)
    front = replace(front, mode=Mode(side, sign))
    trajectory, neuron = torch.nonzero((on & exists).any(1), as_tuple=True)
    front, settled = _settled(flow, kinks, front, trajectory, neuron, weights.hidden.norm(dim=-1), None)
    if not settled.all():
        index = int(trajectory[~settled][0])
        raise StoppedError(index, 0.0, UNSETTLED, None)
    return front


UNSETTLED = "the mode of a neuron on several kinks at once could not be decided"


def _round(
    flow: Flow, kinks: Kinks, front: Front, t_final: float, order: int, settings: Settings, records: list[Record]
) -> tuple[Front, Float[Tensor, " ensemble"], dict[int, str]]:  # fmt: skip
    """One step for each trajectory, or a correction of its mode. Also: time gained; why a trajectory stops."""
    side = front.mode.side
    watched = ((side == 0) & kinks.exists.unsqueeze(-1)).any(1) | (front.contact == 2).any(1)
    sliding = Sliding.of(kinks, side, watched)
    series = taylor(flow, kinks, front.weights, front.mode, sliding, front.unit, order)
    allowed = settings.atol + settings.rtol * _size(front.weights.layers)
    share, overflow = _controlled(series, allowed)
    if overflow.any():
        front = replace(front, unit=torch.where(overflow, 1e-3 * front.unit, front.unit))
    share = share * 0.5 ** (front.idle - UNDECIDED).clamp(min=0)
    controlled = share * front.unit
    remaining = t_final - front.time
    last = ~overflow & (controlled >= remaining)
    length = torch.where(last, remaining, controlled)
    tiny = ~overflow & ~last & (length <= 4 * EPS * front.time)
    if tiny.any():
        position = int(tiny.nonzero()[0])
        return (
            front,
            torch.zeros_like(length),
            {position: f"the step size fell below rounding: {_state(flow, front, position)}"},
        )
    ratio = powers(length / front.unit, order)  # (t / unit)^k at the end of the step
    watch, still = _watched(flow, kinks, front, series, ratio)
    wrong = watch.polynomial[:, 0] <= 0
    if (front.idle >= UNDECIDED).any():
        undecided = wrong & (front.idle >= UNDECIDED)[watch.trajectory] & _negligible(kinks, watch, length, allowed)
        watch, wrong = watch.where(~undecided), wrong[~undecided]
    part = torch.ones_like(length)
    if wrong.any():
        wrong &= ~overflow[watch.trajectory]
        front = _corrected(flow, kinks, front, series, ratio, watch.where(wrong))
        part[watch.trajectory[wrong]] = 0.0
    part = torch.where(overflow, 0.0, part)
    moving = part > 0
    if not moving.all():
        watch = watch.where(moving[watch.trajectory])
    root = _roots(flow, front, watch)
    earliest = torch.ones_like(part).scatter_reduce(0, watch.trajectory, root, "amin")
    part = torch.where(moving, earliest, part)
    hit = watch.where(torch.isfinite(root) & (root <= part[watch.trajectory] + TIE))

    monomials = ratio * powers(part, order)
    hidden = _summed(series.hidden, monomials)
    output = _summed(series.output, monomials)
    if len(sliding.trajectory):
        hidden[sliding.trajectory, sliding.neuron] = sliding.along(hidden[sliding.trajectory, sliding.neuron])
    hidden = torch.where(moving.reshape(-1, 1, 1), hidden, front.weights.hidden)
    output = torch.where(moving.reshape(-1, 1, 1), output, front.weights.output)
    gained = torch.where(moving, part * length, 0.0)
    ended = last & (part == 1.0)
    time = torch.where(ended, torch.full_like(front.time, t_final), front.time + gained)
    which = slice(None) if moving.all() else torch.nonzero(moving).squeeze(-1)
    records.append(
        Record(
            front.index[which], front.time[which], front.weights.hidden[which], front.weights.output[which],
            front.mode.side[which], front.mode.sign[which],
        )
    )  # fmt: skip
    step = moving.reshape(-1, 1, 1)
    before = front.weights.hidden.norm(dim=-1)
    sign = front.mode.sign
    if isinstance(flow.rule, GradientDescent):  # only that of neurons that slide is watched
        sign = torch.where(output == 0, sign, output.sign().to(sign.dtype))
    front = replace(
        front,
        time=time,
        weights=Weights(hidden, output),
        mode=Mode(front.mode.side, sign),
        contact=torch.where(step & ~still, 0, front.contact).to(torch.int8),
        sign_contact=torch.where(step, 0, front.sign_contact).to(torch.int8),
        unit=torch.where(moving, controlled.clamp(max=t_final), front.unit),
        idle=torch.where(moving, 0, front.idle + 1),
    )
    reasons = {}
    finite = torch.isfinite(hidden).all(-1).all(-1) & torch.isfinite(output).all(-1).all(-1)
    if not finite.all():
        reasons[int((~finite).nonzero()[0])] = "the weights overflow"
    elif (front.idle > IDLE).any():
        position = int((front.idle > IDLE).nonzero()[0])
        why = "the Taylor series overflows" if overflow[position] else UNSETTLED
        reasons[position] = f"{why}: {_state(flow, front, position)}"
    elif len(hit.trajectory):
        front, settled = _switched(flow, kinks, front, series, monomials, hit, before)
        if not settled.all():
            reasons[int((~settled).nonzero()[0])] = UNSETTLED
    return front, gained, reasons


def _roots(flow: Flow, front: Front, watch: Watch) -> Float[Tensor, " events"]:
    """When each event happens, as a share of the step; infinity if it does not.

    Under GD all drives of a neuron vanish with its output weight: a sliding sample reaches both ends at once, up to the
    truncation of the series. That is the event v = 0, not that of leaving the kink.
    """
    root = first_root(watch.polynomial)
    if not isinstance(flow.rule, GradientDescent) or not (watch.kind == SIGN).any():
        return root
    passes = watch.kind == SIGN
    zero = torch.full_like(front.sign_contact[:, 0], torch.inf, dtype=root.dtype)
    zero[watch.trajectory[passes], watch.neuron[passes]] = root[passes]
    leaves = (watch.kind == TO_ACTIVE) | (watch.kind == TO_INACTIVE)
    with_weight = leaves & ((root - zero[watch.trajectory, watch.neuron]).abs() <= WITH_WEIGHT)
    return torch.where(with_weight, torch.inf, root)


def _summed(terms: Float[Tensor, "terms ensemble p q"], monomials: Float[Tensor, "ensemble terms"]) -> Tensor:
    """The value of polynomials."""
    return torch.bmm(monomials.unsqueeze(1), terms.flatten(2).transpose(0, 1)).reshape(terms.shape[1:])


def _size(layers: Sequence[Tensor]) -> Float[Tensor, " ensemble"]:
    """The maximum norm over a trajectory's weights."""
    first, last = (torch.linalg.vector_norm(layer, ord=math.inf, dim=(-2, -1)) for layer in layers)
    return torch.maximum(first, last)


def _controlled(series: Series, allowed: Float[Tensor, " ensemble"]) -> tuple[Tensor, Tensor]:
    """The step in units such that the last two terms are below what is allowed; and where they are not finite."""
    before, last = (_size((series.hidden[k], series.output[k])) for k in (-2, -1))
    order = len(series.hidden) - 1
    share = torch.minimum((allowed / last) ** (1 / order), (allowed / before) ** (1 / (order - 1)))
    overflow = ~torch.isfinite(last + before)
    return torch.where(overflow, 0.0, share.clamp(max=LONGEST)), overflow


def _negligible(kinks: Kinks, watch: Watch, length: Tensor, allowed: Tensor) -> Bool[Tensor, " events"]:
    """What displaces a neuron by less than the error allowed in the step, whether its mode is right or wrong."""
    largest = watch.polynomial.abs().amax(-1)
    normal = kinks.inputs[watch.trajectory, watch.row.clamp(max=kinks.inputs.shape[1] - 1)].norm(dim=-1)
    by_drive = largest * normal * length[watch.trajectory]
    displacement = torch.where(watch.kind == SIGN, largest, torch.where(watch.kind == KINK, largest / normal, by_drive))
    return displacement <= allowed[watch.trajectory]


def _watched(
    flow: Flow, kinks: Kinks, front: Front, series: Series, ratio: Float[Tensor, "ensemble terms"]
) -> tuple[Watch, Bool[Tensor, "ensemble n m"]]:  # fmt: skip
    """What can happen within the step, and which neurons stay on a kink for the whole of it without sliding.

    Polynomials without a zero by the size of their coefficients are left out. At a contact the zero at the start is
    divided out: t by one, or t^2 by two.
    """
    still = torch.zeros_like(front.contact, dtype=torch.bool)
    parts = []
    if flow.slope < 1:
        side, power = front.mode.side, front.contact
        z = series.pre_activations
        if (front.contact == 2).any():
            power = _powers_of_leaving(kinks, front, series, ratio)
            still = (front.contact == 2) & (power == 0)
        reach = _summed(z[1:].abs(), ratio[:, 1:])
        near = kinks.exists.unsqueeze(-1) & (side != 0) & ~still & ((z[0].abs() <= reach) | (power > 0))
        trajectory, sample, neuron = torch.nonzero(near, as_tuple=True)
        polynomial = z[:, trajectory, sample, neuron].T * ratio[trajectory]
        polynomial = polynomial * side[trajectory, sample, neuron].unsqueeze(-1)
        polynomial = _without_start(polynomial, power[trajectory, sample, neuron])
        parts.append(Watch(trajectory, torch.full_like(sample, KINK), sample, neuron, polynomial))
        parts += _exits(flow, kinks, series, ratio)
    parts += _sign_changes(flow, front, series, ratio)
    if not parts:
        none = torch.zeros(0, dtype=torch.long, device=ratio.device)
        parts.append(Watch(none, none, none, none, ratio[:0]))
    return Watch.all(parts), still


def _without_start(polynomial: Float[Tensor, "events terms"], contact: Tensor) -> Float[Tensor, "events terms"]:
    """The polynomials divided by t^contact."""
    if not (contact > 0).any():
        return polynomial
    index = torch.arange(polynomial.shape[-1], device=polynomial.device) + contact.long().unsqueeze(-1)
    beyond = index >= polynomial.shape[-1]
    return torch.where(beyond, 0.0, polynomial.gather(-1, torch.where(beyond, 0, index)))


def _powers_of_leaving(kinks: Kinks, front: Front, series: Series, ratio: Tensor) -> Int[Tensor, "ensemble n m"]:
    """The power of t with which z leaves 0 at each contact; 0 for neurons that stay there without sliding.

    These move along the kink because they slide on others, or do not move at all, up to rounding.
    """
    trajectory, sample, neuron = torch.nonzero(front.contact == 2, as_tuple=True)
    row = _row_of(series.sliding, front.contact.shape, trajectory, neuron)
    normal = kinks.inputs[trajectory, sample]
    length = normal.norm(dim=-1)
    basis = series.sliding.basis[row]
    dependent = (normal - (basis @ (basis.mT @ normal.unsqueeze(-1))).squeeze(-1)).norm(dim=-1) <= 1e-10 * length
    # rounding of z_k is relative to the sum of what adds up to dw/dt
    later = (series.error * ratio[series.sliding.trajectory, None, :-1]).abs().amax(-1)
    size = (torch.maximum(later, series.contributions) * kinks.inputs[series.sliding.trajectory].norm(dim=-1)).sum(-1)
    step = ratio[trajectory, 1] * front.unit[trajectory]
    terms = (series.pre_activations[1:, trajectory, sample, neuron].T * ratio[trajectory, 1:]).abs()
    moves = (terms > AT_REST * (length * size[row] * step).unsqueeze(-1)) & ~dependent.unsqueeze(-1)
    leading = torch.where(moves.any(-1), moves.to(torch.int8).argmax(-1) + 1, 0)
    return front.contact.index_put((trajectory, sample, neuron), leading.to(torch.int8))


def _row_of(sliding: Sliding, shape: torch.Size, trajectory: Tensor, neuron: Tensor) -> Tensor:
    """Rows of `sliding` for trajectories and neurons, which are among them."""
    table = torch.full((shape[0], shape[-1]), -1, dtype=torch.long, device=trajectory.device)
    table[sliding.trajectory, sliding.neuron] = torch.arange(len(sliding.trajectory), device=trajectory.device)
    return table[trajectory, neuron]


def _exits(flow: Flow, kinks: Kinks, series: Series, ratio: Tensor) -> list[Watch]:
    """The distances of the drives of sliding samples from the ends of their intervals."""
    sliding = series.sliding
    if not sliding.there.any():
        return []
    scale = ratio[sliding.trajectory, None, :-1]
    drive = sliding.drives(series.rest) * scale
    active, inactive = kinks.ends(sliding.trajectory, sliding.kink, series.error * scale, flow.slope)
    row, place = torch.nonzero(sliding.there, as_tuple=True)
    watches = []
    for kind, distance in ((TO_ACTIVE, drive - active), (TO_INACTIVE, inactive - drive)):
        polynomial = torch.nn.functional.pad(distance[row, place], (0, 1))
        rounding = AT_END * (inactive - active)[row, place].abs().amax(-1, keepdim=True)
        moves = polynomial.abs() > rounding
        # at the end, or beyond it by rounding: the first power of t above rounding says where it goes
        power = torch.where(polynomial[:, 0] > 0, 0, moves.to(torch.int8).argmax(-1))
        polynomial = _without_start(polynomial, power)
        watch = Watch(
            sliding.trajectory[row], torch.full_like(row, kind), sliding.kink[row, place], sliding.neuron[row], polynomial
        )  # fmt: skip
        watches.append(watch.where(moves.any(-1)))  # one that stays at the end stays on the kink, too
    return watches


def _sign_changes(flow: Flow, front: Front, series: Series, ratio: Tensor) -> list[Watch]:
    """Output weights whose sign matters: all under sign-FA; under GD those of neurons that slide."""
    v = series.output
    if isinstance(flow.rule, SignFeedbackAlignment):
        matters = torch.ones_like(front.sign_contact, dtype=torch.bool)
    elif isinstance(flow.rule, GradientDescent) and v.shape[-2] == 1:
        matters = (front.mode.side == 0).any(1, keepdim=True)
    else:
        return []
    reach = _summed(v[1:].abs(), ratio[:, 1:])
    # no sign yet, at v = 0 and dv/dt = 0: it gets one as soon as v moves, which is at once
    unsigned = (front.mode.sign == 0) & (reach > ZERO * reach.amax((-2, -1), keepdim=True))
    near = matters & ((v[0].abs() <= reach) | (front.sign_contact > 0)) & ((front.mode.sign != 0) | unsigned)
    trajectory, output, neuron = torch.nonzero(near, as_tuple=True)
    polynomial = v[:, trajectory, output, neuron].T * ratio[trajectory]
    polynomial = polynomial * front.mode.sign[trajectory, output, neuron].unsqueeze(-1)
    contact = front.sign_contact[trajectory, output, neuron]
    return [Watch(trajectory, torch.full_like(output, SIGN), output, neuron, _without_start(polynomial, contact))]


def _corrected(
    flow: Flow, kinks: Kinks, front: Front, series: Series, ratio: Float[Tensor, "ensemble terms"], wrong: Watch
) -> Front:
    """Modes in which something would happen at once, changed: one change per trajectory, which takes no step.

    A kink left at speed 0 to the wrong side: a neuron pushed back to it slides, another one leaves to the other side.
    """
    order = torch.arange(len(wrong.trajectory), device=wrong.trajectory.device)
    first = torch.full_like(front.index, len(order)).scatter_reduce(0, wrong.trajectory, order, "amin")
    change = wrong.where(first[wrong.trajectory] == order)
    side, sign, contact, sign_contact = (
        tensor.clone() for tensor in (front.mode.side, front.mode.sign, front.contact, front.sign_contact)
    )
    at_kink = change.where(change.kind == KINK)
    known = contact[at_kink.trajectory, at_kink.row, at_kink.neuron] == 2
    off = at_kink.where(~known)  # beyond the kink by rounding
    contact[off.trajectory, off.row, off.neuron] = 2
    at_kink = at_kink.where(known)
    if len(at_kink.trajectory):
        row = _row_of(series.sliding, side.shape, at_kink.trajectory, at_kink.neuron)
        active, inactive = kinks.ends(at_kink.trajectory, at_kink.row.unsqueeze(-1), series.error[row], flow.slope)
        width = (inactive - active).squeeze(1)
        significant = width.abs() > ZERO * width.abs().amax(-1, keepdim=True)
        leading = width.gather(-1, significant.to(torch.int8).argmax(-1, keepdim=True)).squeeze(-1)
        where = at_kink.trajectory, at_kink.row, at_kink.neuron
        side[where] = torch.where(leading > 0, 0, -side[where]).to(torch.int8)
        contact[where] = torch.where(leading > 0, 0, 2).to(torch.int8)
    for kind, leaves_to in ((TO_ACTIVE, 1), (TO_INACTIVE, -1)):
        leaving = change.where(change.kind == kind)
        side[leaving.trajectory, leaving.row, leaving.neuron] = leaves_to
        contact[leaving.trajectory, leaving.row, leaving.neuron] = 2
    flipped = change.where(change.kind == SIGN)
    where = flipped.trajectory, flipped.row, flipped.neuron
    moving = series.output[1:, flipped.trajectory, flipped.row, flipped.neuron].T * ratio[flipped.trajectory, 1:]
    leading = (moving.abs() > ZERO * moving.abs().amax(-1, keepdim=True)).to(torch.int8).argmax(-1)
    towards = moving.gather(-1, leading.unsqueeze(-1)).squeeze(-1).sign().to(sign.dtype)
    sign[where] = torch.where(sign[where] == 0, towards, -sign[where])
    sign_contact[where] = (leading + 1).to(torch.int8)
    return replace(front, mode=Mode(side, sign), contact=contact, sign_contact=sign_contact)


def _switched(
    flow: Flow, kinks: Kinks, front: Front, series: Series, monomials: Tensor, hit: Watch, before: Tensor
) -> tuple[Front, Bool[Tensor, " ensemble"]]:  # fmt: skip
    """The modes after the events that were hit; False for trajectories where one could not be decided."""
    side, sign, contact, sign_contact = (
        tensor.clone() for tensor in (front.mode.side, front.mode.sign, front.contact, front.sign_contact)
    )
    what = set(hit.kind.tolist())
    for kind in what & {TO_ACTIVE, TO_INACTIVE}:
        leaving = hit.where(hit.kind == kind)
        side[leaving.trajectory, leaving.row, leaving.neuron] = 1 if kind == TO_ACTIVE else -1
        contact[leaving.trajectory, leaving.row, leaving.neuron] = 2
    decide = torch.zeros_like(side[:, 0], dtype=torch.bool)
    arrived = torch.zeros_like(side, dtype=torch.bool)
    output = front.weights.output
    if SIGN in what:
        flipped = hit.where(hit.kind == SIGN)
        where = flipped.trajectory, flipped.row, flipped.neuron
        output = output.index_put(where, output.new_zeros(()))
        sign[where] = -sign[where]
        sign_contact[where] = 1
        decide[flipped.trajectory, flipped.neuron] = (side == 0).any(1)[flipped.trajectory, flipped.neuron]
    if KINK in what:
        arriving = hit.where(hit.kind == KINK)
        arrived[arriving.trajectory, arriving.row, arriving.neuron] = True
        decide[arriving.trajectory, arriving.neuron] = True
    front = replace(
        front,
        weights=Weights(front.weights.hidden, output),
        mode=Mode(side, sign),
        contact=contact,
        sign_contact=sign_contact,
    )
    trajectory, neuron = torch.nonzero(decide, as_tuple=True)
    settled = torch.ones(len(front.index), dtype=torch.bool, device=side.device)
    if len(trajectory):
        # d/dt of the step's polynomial at its end, up to a factor: the direction of travel
        orders = torch.arange(1, monomials.shape[-1], dtype=monomials.dtype, device=monomials.device)
        weighted = orders * monomials[trajectory, :-1]
        travel = (weighted.unsqueeze(-1) * series.hidden[1:, trajectory, neuron].transpose(0, 1)).sum(1)
        front, decided = _settled(flow, kinks, front, trajectory, neuron, before, travel, arrived)
        settled[trajectory[~decided]] = False
    return front, settled


def _settled(
    flow: Flow, kinks: Kinks, front: Front, trajectory: Tensor, neuron: Tensor, before: Tensor,
    travel: Float[Tensor, "rows r"] | None, arrived: Tensor | None = None,
) -> tuple[Front, Bool[Tensor, " rows"]]:  # fmt: skip
    """The sides of some neurons that sit on kinks, and their weights put exactly there."""
    if not len(trajectory):
        return front, torch.ones(0, dtype=torch.bool, device=trajectory.device)
    inputs = flow.dataset.inputs[trajectory]
    hidden, output = front.weights.hidden, front.weights.output
    lengths = inputs.norm(dim=-1)
    row = hidden[trajectory, neuron]
    size = torch.maximum(row.norm(dim=-1), before[trajectory, neuron])
    z = (inputs @ row.unsqueeze(-1)).squeeze(-1)
    side = front.mode.side[trajectory, :, neuron]
    on = (side == 0) | (z.abs() <= ON_KINK * lengths * size.unsqueeze(-1))
    if arrived is not None:
        on |= arrived[trajectory, :, neuron]
    kink, there = listed(on & kinks.exists[trajectory])
    normals = inputs.gather(1, kink.unsqueeze(-1).expand(-1, -1, inputs.shape[-1])) * there.unsqueeze(-1)
    # put the neuron on its kinks: the correction is of the order of rounding
    off = (z.gather(1, kink) * there).unsqueeze(-2)
    inverse = normals / normals.square().sum(-1, keepdim=True) if normals.shape[1] == 1 else _pseudoinverse(normals)
    row = row - (off @ inverse).squeeze(-2)
    hidden = hidden.index_put((trajectory, neuron), row)

    error, contributions = _row_errors(flow, kinks, front, trajectory, neuron)
    active, inactive = kinks.ends(trajectory, kink, error, flow.slope)
    mask = torch.zeros_like(side).scatter(1, kink, there.to(side.dtype))
    others = torch.where(mask > 0, 0, side)
    slopes = kinks.of_trajectories(trajectory).slopes(others.unsqueeze(-1), flow.slope).squeeze(-1)
    rest = ((slopes * error).unsqueeze(-2) @ inputs).squeeze(-2)
    start = side.gather(1, kink)
    if travel is not None:
        heading = (normals @ travel.unsqueeze(-1)).squeeze(-1)
        resting = heading.abs() <= 1e-12 * normals.norm(dim=-1) * travel.norm(dim=-1, keepdim=True)
        start = torch.where((start == 0) | resting, start, heading.sign().to(start.dtype))
    after, speed, settled = filippov_sides(normals, rest, active, inactive, start, contributions)
    at, place = torch.nonzero(there, as_tuple=True)
    where = trajectory[at], kink[at, place], neuron[at]
    leaving = after[at, place] != 0
    slow = speed[at, place] == 0
    if isinstance(flow.rule, GradientDescent):  # E = 0 where v = 0: the speed is that of just after
        slow |= (output[trajectory, :, neuron] == 0).all(-1)[at]
    contact = torch.where(leaving, torch.where(slow, 2, 1), 0).to(torch.int8)
    front = replace(
        front,
        weights=Weights(hidden, output),
        mode=Mode(front.mode.side.index_put(where, after[at, place]), front.mode.sign),
        contact=front.contact.index_put(where, contact),
    )
    return front, settled


def _pseudoinverse(normals: Float[Tensor, "rows k r"]) -> Float[Tensor, "rows k r"]:
    """Transposed; normals that depend on each other are told by their singular values."""
    return torch.linalg.pinv(normals, rtol=1e-10).mT


def _row_errors(
    flow: Flow, kinks: Kinks, front: Front, trajectory: Tensor, neuron: Tensor
) -> tuple[Float[Tensor, "rows n"], Float[Tensor, " rows"]]:
    """E_ij of some neurons, up to a positive factor, and the size of the contributions to their dw/dt."""
    inputs = flow.dataset.inputs[trajectory]
    hidden, output = front.weights.hidden[trajectory], front.weights.output[trajectory]
    z = inputs @ hidden.mT
    slopes = kinks.of_trajectories(trajectory).slopes(front.mode.side[trajectory], flow.slope)
    outputs = (slopes * z) @ output.mT
    e = named(flow.loss).negative_gradient(outputs, flow.dataset.targets[trajectory]) / flow.dataset.samples
    column = feedback(flow, front.weights, front.mode)[trajectory, :, neuron]
    if isinstance(flow.rule, GradientDescent) and column.shape[-1] == 1:
        column = torch.where(column == 0, front.mode.sign[trajectory, :, neuron].to(e.dtype), column)
    error = (e @ column.unsqueeze(-1)).squeeze(-1)
    contributions = (e.abs() @ column.abs().unsqueeze(-1)).squeeze(-1)
    return error, (contributions * inputs.norm(dim=-1)).sum(-1)


@dataclass(frozen=True, eq=False)
class EventPath:
    """The starts of all steps, with the mode. The series of a step is computed again when it is asked for."""

    flow: Flow
    weights: NetworkWeights
    kinks: Kinks
    order: int
    t_final: float
    records: list[Record]
    terms: Int[Tensor, " ensemble"]

    def only(self, index: int, t_final: float) -> EventPath:
        """The path of one trajectory, up to the time that it reached."""
        records = []
        for record in self.records:
            some = record.index == index
            if some.any():
                parts = {item.name: getattr(record, item.name)[some] for item in fields(Record)}
                records.append(Record(**{**parts, "index": torch.zeros_like(parts["index"])}))
        flow, weights = self.flow.map_matrices(self.weights, lambda matrix: matrix[index : index + 1])
        one = slice(index, index + 1)
        return EventPath(
            flow, weights, self.kinks.of_trajectories(one), self.order, t_final, records, self.terms[one]
        )  # fmt: skip

    @cached_property
    def steps(self) -> Steps:
        """The steps of all trajectories in order."""
        counts = [len(record.index) for record in self.records]
        device = self.kinks.inputs.device
        trajectory = torch.cat([record.index for record in self.records])
        time = torch.cat([record.time for record in self.records])
        number = torch.repeat_interleave(torch.arange(len(counts), device=device), torch.tensor(counts, device=device))
        first = torch.tensor([0, *counts[:-1]], device=device).cumsum(0)
        place = torch.arange(len(time), device=device) - first[number]
        order = torch.argsort(trajectory, stable=True)  # records are in order of time
        ensemble = len(self.kinks.inputs)
        count = torch.bincount(trajectory, minlength=ensemble)
        return Steps(
            order, trajectory[order], time[order], number[order], place[order], count, count.cumsum(0) - count
        )  # fmt: skip

    def _starts(self, which: Int[Tensor, " some"]) -> tuple[Weights, Mode]:
        """State and mode at the start of some steps, given in increasing order of their records."""
        number, place = self.steps.number[which], self.steps.place[which]
        records, counts = torch.unique_consecutive(number, return_counts=True)
        parts = [
            [getattr(self.records[record], name)[chosen] for name in ("hidden", "output", "side", "sign")]
            for record, chosen in zip(records.tolist(), place.split(counts.tolist()), strict=True)
        ]
        hidden, output, side, sign = (torch.cat(column) for column in zip(*parts, strict=True))
        return Weights(hidden, output), Mode(side, sign)

    def evaluate(self, times: Float[Tensor, " times"]) -> NetworkWeights:
        """Weights at the times, `times x ensemble` in front."""
        hidden, output = self._terms_at(times, derivative=False)
        return self.weights.with_layers([hidden, output])

    def velocity(self, times: Float[Tensor, " times"]) -> NetworkWeights:
        """d theta / dt at the times, `times x ensemble` in front: while sliding, the Filippov velocity."""
        hidden, output = self._terms_at(times, derivative=True)
        return self.weights.with_layers([hidden, output])

    def pattern(self, times: Float[Tensor, " times"]) -> tuple[Tensor, ...]:
        """The activation pattern, `times x ensemble` in front: 0 for sliding samples."""
        if self.flow.slope == 1:  # no kinks
            return tuple(layer.sign().to(torch.int8) for layer in self.flow.pre_activations(self.evaluate(times)))
        which, _ = self._steps_at(times)
        order = torch.argsort(self.steps.number[which], stable=True)
        _, mode = self._starts(which[order])
        side = self.kinks.of_trajectories(self.steps.trajectory[which[order]]).of_samples(mode.side)
        pattern = torch.empty_like(side)
        pattern[order] = side
        return (pattern.reshape(len(times), -1, *side.shape[1:]),)

    def _steps_at(self, times: Float[Tensor, " times"]) -> tuple[Tensor, Tensor]:
        """The steps that contain the times, and the times, for all trajectories: `times x ensemble`, flattened."""
        ensemble = len(self.steps.count)
        trajectory = torch.arange(ensemble, device=times.device).expand(len(times), -1).reshape(-1)
        asked = times.unsqueeze(-1).expand(-1, ensemble).reshape(-1)
        return self.steps.before(trajectory, asked), asked

    def _terms_at(self, times: Float[Tensor, " times"], derivative: bool) -> tuple[Tensor, Tensor]:
        which, asked = self._steps_at(times)
        steps = self.steps
        order = torch.argsort(steps.number[which], stable=True)  # neighbours in a part share records and series
        shapes = [layer.shape[1:] for layer in self.weights.layers]
        layers = [asked.new_empty(len(asked), *shape) for shape in shapes]
        m, n = shapes[0][0], self.flow.dataset.samples
        numbers = self.order * (sum(shape.numel() for shape in shapes) + 3 * n * m)
        for part in order.split(max(1, CHUNK // numbers)):
            distinct, inverse = torch.unique_consecutive(which[part], return_inverse=True)
            series, unit = self._series(distinct, steps.end(distinct, self.t_final) - steps.time[distinct])
            share = (asked[part] - steps.time[which[part]]) / unit[inverse]
            for layer, terms in zip(layers, (series.hidden, series.output), strict=True):
                monomials = powers(share, self.order)
                if derivative:
                    orders = torch.arange(1, self.order + 1, dtype=share.dtype, device=share.device)
                    terms, monomials = terms[1:], orders * monomials[:, :-1] / unit[inverse].unsqueeze(-1)
                layer[part] = _summed(terms[:, inverse], monomials)
        hidden, output = (layer.reshape(len(times), -1, *layer.shape[1:]) for layer in layers)
        return hidden, output

    def _series(self, which: Int[Tensor, " steps"], length: Tensor) -> tuple[Series, Tensor]:
        trajectory = self.steps.trajectory[which]
        weights, mode = self._starts(which)
        flow, _ = self.flow.map_matrices(self.weights, lambda matrix: matrix[trajectory])
        kinks = self.kinks.of_trajectories(trajectory)
        sliding = Sliding.of(kinks, mode.side, ((mode.side == 0) & kinks.exists.unsqueeze(-1)).any(1))
        unit = torch.where(length > 0, length, 1.0)
        return taylor(flow, kinks, weights, mode, sliding, unit, self.order), unit

    def events(self) -> Events:
        """Changes of the mode from one step to the next."""
        order = self.steps.order
        sides, signs = (
            torch.cat([getattr(record, name) for record in self.records])[order] for name in ("side", "sign")
        )
        later = torch.nonzero(self.steps.trajectory[1:] == self.steps.trajectory[:-1]).squeeze(-1) + 1
        exists = (self.flow.dataset.inputs != 0).any(-1)
        columns = []
        for part in later.split(max(1, CHUNK // sides[0].numel())):
            trajectory = self.steps.trajectory[part]
            kinks = self.kinks.of_trajectories(trajectory)
            before, after = kinks.of_samples(sides[part - 1]), kinks.of_samples(sides[part])
            changed = (before != after) & exists[trajectory].unsqueeze(-1)
            step, sample, neuron = torch.nonzero(changed, as_tuple=True)
            columns.append((part[step], sample, neuron, before[changed], after[changed]))
            if isinstance(self.flow.rule, SignFeedbackAlignment):
                before, after = signs[part - 1], signs[part]
                step, _, neuron = torch.nonzero(before != after, as_tuple=True)
                columns.append(
                    (part[step], torch.full_like(step, -1), neuron, before[before != after], after[before != after])
                )
        if not columns:
            none = torch.zeros(0, dtype=torch.long, device=order.device)
            columns.append((none, none, none, sides.new_zeros(0), sides.new_zeros(0)))
        step, sample, neuron, before, after = (torch.cat(column) for column in zip(*columns, strict=True))
        in_order = torch.argsort(step, stable=True)
        step, sample, neuron = step[in_order], sample[in_order], neuron[in_order]
        return Events(
            self.steps.time[step], self.steps.trajectory[step], torch.ones_like(step), sample, neuron,
            before[in_order], after[in_order],
        )  # fmt: skip

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Per trajectory: steps; Taylor coefficients computed; kinks crossed; times that a sample began to slide."""
        events = self.events()
        count = len(self.kinks.inputs)
        crossed, entered = (
            torch.bincount(events.trajectory[mask & (events.sample >= 0)], minlength=count)
            for mask in (events.before * events.after == -1, events.after == 0)
        )
        return {"steps": self.steps.count, "terms": self.terms, "crossings": crossed, "slides": entered}


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of an ensemble, ordered by trajectory, then time.

    Args:
        order: their order in the concatenated records.
        trajectory, time: of each step, at its start.
        number, place: of the record, and within it.
        count, first: of each trajectory, how many steps, and the first of them.
    """

    order: Int[Tensor, " steps"]
    trajectory: Int[Tensor, " steps"]
    time: Float[Tensor, " steps"]
    number: Int[Tensor, " steps"]
    place: Int[Tensor, " steps"]
    count: Int[Tensor, " ensemble"]
    first: Int[Tensor, " ensemble"]

    def before(self, trajectory: Int[Tensor, " times"], times: Float[Tensor, " times"]) -> Int[Tensor, " times"]:
        """The last step of the trajectory that starts at or before the time."""
        low, high = self.first[trajectory], self.first[trajectory] + self.count[trajectory]
        while bool((high - low > 1).any()):  # bisection, all at once
            middle = (low + high) // 2
            right = self.time[middle.clamp(max=len(self.time) - 1)] <= times
            open_ = high - low > 1
            low, high = torch.where(open_ & right, middle, low), torch.where(open_ & ~right, middle, high)
        return low

    def end(self, which: Int[Tensor, " some"], t_final: float) -> Float[Tensor, " some"]:
        """Where steps end."""
        following = (which + 1).clamp(max=len(self.time) - 1)
        own = (which + 1 < len(self.time)) & (self.trajectory[following] == self.trajectory[which])
        return torch.where(own, self.time[following], torch.full_like(self.time[which], t_final))
