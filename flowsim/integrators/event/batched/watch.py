"""What may change the mode within a step, and when (flowsim/README.md, section 10).

KINK         a pre-activation reaches 0
TO_ACTIVE    the drive of a sliding sample reaches the end of its interval where it becomes active
TO_INACTIVE  or inactive
SIGN         an output weight reaches 0: under sign-FA the feedback changes its sign, under GD that of the drives
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from flowsim.flow import Flow
from flowsim.integrators.event.batched.batch import Batch
from flowsim.integrators.event.batched.roots import find_earliest_roots
from flowsim.integrators.event.batched.scratch import Scratch
from flowsim.integrators.event.batched.series import Series, Sliding, sum_series
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.tolerances import AT_END, AT_REST, INDEPENDENT, TOGETHER, ZERO

KINK, TO_ACTIVE, TO_INACTIVE, SIGN = range(4)


@dataclass(frozen=True, eq=False)
class Watch:
    """What may change the mode within a step: polynomials in the share of the step, positive until it happens.

    The rows of `what`: trajectory; kind, one of KINK, TO_ACTIVE, TO_INACTIVE, SIGN; sample, or for SIGN output; neuron.
    """

    what: Int[Tensor, "4 events"]
    polynomial: Float[Tensor, "events terms"]

    @classmethod
    def of(cls, trajectory: Tensor, kind: int, row: Tensor, neuron: Tensor, polynomial: Tensor) -> Watch:
        """Events of one kind."""
        return cls(torch.stack([trajectory, torch.full_like(row, kind), row, neuron]), polynomial)

    @classmethod
    def of_all(cls, parts: Sequence[Watch]) -> Watch:
        """Events of several kinds."""
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.what for part in parts], 1), torch.cat([part.polynomial for part in parts]))

    trajectory = property(lambda self: self.what[0])
    kind = property(lambda self: self.what[1])
    row = property(lambda self: self.what[2])
    neuron = property(lambda self: self.what[3])

    def where(self, mask: Bool[Tensor, " events"]) -> Watch:
        """Some of them."""
        return Watch(self.what[:, mask], self.polynomial[mask])

    def places(self, kind: int) -> tuple[Tensor, Tensor, Tensor]:
        """Trajectories, rows and neurons of one kind."""
        trajectory, _, row, neuron = self.what[:, self.kind == kind]
        return trajectory, row, neuron


def set_watch(
    flow: Flow, kinks: Kinks, batch: Batch, series: Series, ratio: Float[Tensor, "ensemble terms"], scratch: Scratch
) -> tuple[Watch, Bool[Tensor, "ensemble n m"]]:
    """What can happen within the step, and which neurons stay on a kink for the whole of it without sliding.

    Polynomials without a zero by the size of their coefficients are left out. At a contact the zero at the start is
    divided out: t by one, or t^2 by two.
    """
    still = torch.zeros_like(batch.contact, dtype=torch.bool)
    parts = []
    if flow.slope < 1:
        side, power = batch.mode.side, batch.contact
        z = series.pre_activations
        if batch.contact.amax() == 2:
            power = _find_powers_of_leaving(kinks, batch, series, ratio)
            still = (batch.contact == 2) & (power == 0)
        # |z_0| <= sum_k |z_k| at the end of the step
        factors = functional.pad(ratio[:, 1:], (1, 0), value=-1.0)
        reach = sum_series(torch.abs(z, out=scratch.empty("absolute values", *z.shape)), factors)
        near = kinks.exists.unsqueeze(-1) & side.bool() & ~still & ((reach >= 0) | power.bool())
        trajectory, sample, neuron = torch.nonzero(near, as_tuple=True)
        polynomial = z[:, trajectory, sample, neuron].T * ratio[trajectory]
        polynomial = polynomial * side[trajectory, sample, neuron].unsqueeze(-1)
        polynomial = _divide_out_start(polynomial, power[trajectory, sample, neuron])
        parts.append(Watch.of(trajectory, KINK, sample, neuron, polynomial))
        parts += _watch_exits(flow, kinks, series, ratio)
    parts += _watch_signs(flow, batch, series, ratio)
    return Watch.of_all(parts) if parts else Watch(batch.index.new_zeros(4, 0), ratio[:0]), still


def _divide_out_start(polynomial: Float[Tensor, "events terms"], contact: Tensor) -> Float[Tensor, "events terms"]:
    """The polynomials divided by t^contact."""
    if not contact.any():
        return polynomial
    index = torch.arange(polynomial.shape[-1], device=polynomial.device) + contact.long().unsqueeze(-1)
    beyond = index >= polynomial.shape[-1]
    return torch.where(beyond, 0.0, polynomial.gather(-1, torch.where(beyond, 0, index)))


def _find_powers_of_leaving(kinks: Kinks, batch: Batch, series: Series, ratio: Tensor) -> Int[Tensor, "ensemble n m"]:
    """The power of t with which z leaves 0 at each contact; 0 for neurons that stay there without sliding.

    These move along the kink because they slide on others, or do not move at all, up to rounding.
    """
    trajectory, sample, neuron = torch.nonzero(batch.contact == 2, as_tuple=True)
    row = find_rows(series.sliding, batch.contact.shape, trajectory, neuron)
    normal = kinks.inputs[trajectory, sample]
    length = kinks.length[trajectory, sample]
    basis = series.sliding.basis[row]
    off = normal - (basis @ (basis.mT @ normal.unsqueeze(-1))).squeeze(-1)
    dependent = torch.linalg.vector_norm(off, dim=-1) <= INDEPENDENT * length
    # rounding of z_k is relative to the sum of what adds up to dw/dt
    later = (series.error * ratio[series.sliding.trajectory, None, :-1]).abs().amax(-1)
    size = (torch.maximum(later, series.contributions) * kinks.length[series.sliding.trajectory]).sum(-1)
    terms = (series.pre_activations[1:, trajectory, sample, neuron].T * ratio[trajectory, 1:]).abs()
    moves = (terms > AT_REST * (length * size[row] * ratio[trajectory, 1]).unsqueeze(-1)) & ~dependent.unsqueeze(-1)
    leading = torch.where(moves.any(-1), moves.to(torch.int8).argmax(-1) + 1, 0)
    return batch.contact.index_put((trajectory, sample, neuron), leading.to(torch.int8))


def find_rows(sliding: Sliding, shape: torch.Size, trajectory: Tensor, neuron: Tensor) -> Tensor:
    """Rows of `sliding` for trajectories and neurons, which are among them."""
    table = torch.full((shape[0], shape[-1]), -1, dtype=torch.long, device=trajectory.device)
    table[sliding.trajectory, sliding.neuron] = torch.arange(len(sliding.trajectory), device=trajectory.device)
    return table[trajectory, neuron]


def _watch_exits(flow: Flow, kinks: Kinks, series: Series, ratio: Tensor) -> list[Watch]:
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
        polynomial = functional.pad(distance[row, place], (0, 1))
        rounding = AT_END * (inactive - active)[row, place].abs().amax(-1, keepdim=True)
        moves = polynomial.abs() > rounding
        # at the end, or beyond it by rounding: the first power of t above rounding says where it goes
        power = torch.where(polynomial[:, 0] > 0, 0, moves.to(torch.int8).argmax(-1))
        polynomial = _divide_out_start(polynomial, power)
        watch = Watch.of(sliding.trajectory[row], kind, sliding.kink[row, place], sliding.neuron[row], polynomial)
        watches.append(watch.where(moves.any(-1)))  # one that stays at the end stays on the kink, too
    return watches


def _watch_signs(flow: Flow, batch: Batch, series: Series, ratio: Tensor) -> list[Watch]:
    """Output weights whose sign matters: all under sign-FA; under GD those of neurons that slide."""
    v = series.output
    if flow.rule.at_zero == "jumps":
        matters = torch.ones_like(batch.sign_contact, dtype=torch.bool)
    elif flow.rule.at_zero == "vanishes" and v.shape[-2] == 1:
        matters = (batch.mode.side == 0).any(1, keepdim=True)
    else:
        return []
    reach = sum_series(v[1:].abs(), ratio[:, 1:])
    # no sign yet, at v = 0 and dv/dt = 0: it gets one as soon as v moves, which is at once
    unsigned = (batch.mode.sign == 0) & (reach > ZERO * reach.amax((-2, -1), keepdim=True))
    near = matters & ((v[0].abs() <= reach) | (batch.sign_contact > 0)) & ((batch.mode.sign != 0) | unsigned)
    trajectory, output, neuron = torch.nonzero(near, as_tuple=True)
    polynomial = v[:, trajectory, output, neuron].T * ratio[trajectory]
    polynomial = polynomial * batch.mode.sign[trajectory, output, neuron].unsqueeze(-1)
    contact = batch.sign_contact[trajectory, output, neuron]
    return [Watch.of(trajectory, SIGN, output, neuron, _divide_out_start(polynomial, contact))]


def tell_negligible(
    kinks: Kinks, watch: Watch, ratio: Float[Tensor, "ensemble terms"], allowed: Float[Tensor, " ensemble"]
) -> Bool[Tensor, " events"]:
    """What displaces a neuron by less than the error allowed in the step, whether its mode is right or wrong."""
    largest = watch.polynomial.abs().amax(-1)
    normal = kinks.length[watch.trajectory, watch.row.clamp(max=kinks.length.shape[1] - 1)]
    by_drive = largest * normal * ratio[watch.trajectory, 1]
    displacement = torch.where(watch.kind == SIGN, largest, torch.where(watch.kind == KINK, largest / normal, by_drive))
    return displacement <= allowed[watch.trajectory]


def find_times(flow: Flow, batch: Batch, watch: Watch) -> Float[Tensor, " events"]:
    """When each event happens, as a share of the step; infinity if it does not, or well after another one.

    Under GD all drives of a neuron vanish where its output weight passes 0; with two classes, where its two output
    weights are equal. A sliding sample then reaches both ends of its interval at once, up to the truncation of the
    series. In the first case that is the event v = 0, not that of leaving the kink. In the second, the later end
    counts: from there on the kink repels, and the neuron leaves to the active side if it can.
    """
    root = find_earliest_roots(watch.polynomial, watch.trajectory, len(batch.index), TOGETHER)
    leaving = torch.nonzero((watch.kind == TO_ACTIVE) | (watch.kind == TO_INACTIVE)).squeeze(-1)
    if not leaving.numel():
        return root
    trajectory, kind, row, neuron = watch.what[:, leaving]
    passes = watch.kind == SIGN
    if flow.rule.at_zero == "vanishes" and passes.any():
        zero = torch.full_like(batch.sign_contact[:, 0], torch.inf, dtype=root.dtype)
        zero[watch.trajectory[passes], watch.neuron[passes]] = root[passes]
        with_weight = (root[leaving] - zero[trajectory, neuron]).abs() <= TOGETHER
        root[leaving[with_weight]] = torch.inf
    ends = torch.full((2, *batch.contact.shape), torch.inf, dtype=root.dtype, device=root.device)
    to_active = kind == TO_ACTIVE
    ends[to_active.long(), trajectory, row, neuron] = root[leaving]
    ends = ends[:, trajectory, row, neuron]
    both = (ends[0] - ends[1]).abs() <= TOGETHER
    root[leaving[both]] = torch.where(to_active, ends.amax(0), torch.inf)[both]
    return root
