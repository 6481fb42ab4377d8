"""Where a neuron goes that sits on kinks (flowsim/README.md, section 10)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.integrators.event.tolerances import BLOCKED, EXCHANGES, ZERO


def choose_sides(
    normals: Float[Tensor, "rows k r"],
    rest: Float[Tensor, "rows r"],
    active: Float[Tensor, "rows k"],
    inactive: Float[Tensor, "rows k"],
    side: Int[Tensor, "rows k"],
    size: Float[Tensor, " rows"],
) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k"], Bool[Tensor, " rows"]]:
    r"""To which side neurons go that sit on kinks: the sides of the Filippov velocity, and the speeds dz/dt there.

    Each row is a neuron at w with w . u_k = 0 for all its kinks k; dw/dt = rest + sum_k p_k u_k, where p_k is
    `active` beyond the kink, `inactive` before it, and in between on it.

    A kink attracts if active < inactive. Over these, dw/dt is the element of least norm of the set-valued drive: the
    solution of min |rest + sum_k p_k u_k|^2, active_k <= p_k <= inactive_k, found by an active-set method
    (bounded least squares, Stark and Parker 1995): at the lower end the neuron becomes active, at the upper end
    inactive, in between it slides. A repelling kink has the side given in `side` if the neuron leaves to that side,
    and the other one if not; each change lowers a potential of the flow, so that this ends.

    Args:
        normals: u_k; rows of 0 do not count.
        rest: the drive of the samples that are not on a kink.
        active: drives p_k of the kinks beyond them, where z > 0.
        inactive: drives p_k before them, where z < 0.
        side: where to start; 0 for kinks that the neuron slid on before.
        size: sum of the sizes of all contributions to dw/dt, for the rounding error.

    Returns:
        Sides, speeds dz_k/dt (0 where they are not above rounding), and whether the search ended.
    """
    gram = normals @ normals.mT
    length = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    rounding = ZERO * length * size.unsqueeze(-1)
    linear = (normals @ rest.unsqueeze(-1)).squeeze(-1)
    exists = length > 0
    attracts = exists & (active < inactive)
    side = torch.where(attracts | (side != 0), side, side.new_ones(()))
    drive = torch.where(side > 0, active, torch.where(side < 0, inactive, 0.5 * (active + inactive)))
    speed = linear + (gram @ drive.unsqueeze(-1)).squeeze(-1)
    todo = (side * speed < rounding) & exists  # where it starts is right already if it leaves every kink to its side
    if not todo.any():
        return side, speed, ~todo.any(-1)
    for _ in range(EXCHANGES[0] + EXCHANGES[1] * gram.shape[-1]):
        free = (side == 0) & exists
        target = _solve_free(gram, linear, drive, free)
        drive, stopping, at_lower = _go_to_first_end(drive, target, free, active, inactive)
        stopped = stopping.any(-1, keepdim=True)
        speed = linear + (gram @ drive.unsqueeze(-1)).squeeze(-1)
        wrong = exists & ~free & (side * speed < -rounding) & ~stopped
        worst = torch.where(wrong & attracts, speed.abs() / length, -1.0).max(-1, keepdim=True)
        freed = torch.zeros_like(free).scatter(1, worst.indices, worst.values > 0)
        crossing = wrong & ~attracts & (worst.values <= 0)
        moved = side
        side = torch.where(stopping, torch.where(at_lower, 1, -1), side)
        side = torch.where(freed, 0, side)
        side = torch.where(crossing, -side, side).to(moved.dtype)
        drive = torch.where(crossing, torch.where(side > 0, active, inactive), drive)
        todo = stopped.squeeze(-1) | freed.any(-1) | crossing.any(-1)
        if not todo.any():
            break
    return side, torch.where(speed.abs() > rounding, speed, 0.0), ~todo


def _solve_free(gram: Tensor, linear: Tensor, drive: Tensor, free: Tensor) -> Float[Tensor, "rows k"]:
    """The drives with which the speeds at free kinks are 0, those of the others being what they are."""
    fixed = torch.where(free, 0.0, drive)
    right = -(linear + (gram @ fixed.unsqueeze(-1)).squeeze(-1))
    both = free.unsqueeze(-1) & free.unsqueeze(-2)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(torch.where(both, gram, identity), torch.where(free, right, drive))


def _go_to_first_end(
    drive: Tensor, target: Tensor, free: Tensor, active: Tensor, inactive: Tensor
) -> tuple[Float[Tensor, "rows k"], Bool[Tensor, "rows k"], Bool[Tensor, "rows k"]]:
    """The drives on the way to the target where the first free one is at an end of its interval, or else there.

    Also: which one is at an end, if any, and which would be at the lower end or beyond.
    """
    near = BLOCKED * (inactive - active)
    low, high = free & (target <= active + near), free & (target >= inactive - near)
    end = torch.where(low, active, inactive)
    way = target - drive
    share = torch.where(low | high, ((end - drive) / way).nan_to_num(0.0).clamp(0, 1), torch.inf)
    least, which = share.min(-1, keepdim=True)
    drive = torch.where(free, drive + least.clamp(max=1) * way, drive)
    stopping = torch.zeros_like(free).scatter(1, which, torch.isfinite(least))
    return torch.where(stopping, end, drive), stopping, low
