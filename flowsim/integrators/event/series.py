"""Taylor series of the flow of a two-layer network while its activation pattern is fixed.

Between events the flow is analytic, and its Taylor coefficients follow from each other by Cauchy products
(theorems/README.md, section 10).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators.event.front import Mode
from flowsim.integrators.event.kinks import Kinks, listed
from flowsim.integrators.event.scratch import Scratch
from flowsim.losses import named
from flowsim.rules import GradientDescent, SignFeedbackAlignment
from flowsim.weights import Weights


@dataclass(frozen=True, eq=False)
class Sliding:
    """The neurons that slide, or might: for each its kinks, and an orthonormal basis of their normals.

    U^T = basis @ triangle for the matrix U of the normals u_k as rows, those that are not there being 0.
    """

    trajectory: Int[Tensor, " rows"]
    neuron: Int[Tensor, " rows"]
    kink: Int[Tensor, "rows k"]
    there: Bool[Tensor, "rows k"]
    basis: Float[Tensor, "rows r k"]
    triangle: Float[Tensor, "rows k k"]

    @classmethod
    def of(cls, kinks: Kinks, side: Int[Tensor, "ensemble n m"], watched: Bool[Tensor, "ensemble m"]) -> Sliding:
        """The sliding kinks of the watched neurons."""
        if not watched.any():
            none, inputs = torch.zeros(0, dtype=torch.long, device=side.device), kinks.inputs
            empty = inputs.new_zeros(0, inputs.shape[-1], 0), inputs.new_zeros(0, 0, 0)
            return cls(none, none, none.reshape(0, 0), none.reshape(0, 0).bool(), *empty)
        trajectory, neuron = torch.nonzero(watched, as_tuple=True)
        kink, there = listed((side[trajectory, :, neuron] == 0) & kinks.exists[trajectory])
        normals = kinks.inputs[trajectory.unsqueeze(-1), kink] * there.unsqueeze(-1)
        basis, triangle = torch.linalg.qr(normals.mT)
        columns = basis.shape[-1]  # a neuron slides on at most r kinks with independent normals
        basis = basis * there[:, None, :columns]
        triangle = triangle[:, :, :columns] + torch.diag_embed((~there[:, :columns]).to(basis.dtype))
        return cls(trajectory, neuron, kink[:, :columns], there[:, :columns], basis, triangle)

    def along(self, rows: Float[Tensor, "rows r"]) -> Float[Tensor, "rows r"]:
        """The part of a vector of each neuron along all kinks that it slides on."""
        return rows - (self.basis @ (self.basis.mT @ rows.unsqueeze(-1))).squeeze(-1)

    def drives(self, rest: Float[Tensor, "rows r terms"]) -> Float[Tensor, "rows k terms"]:
        """The drives p of the sliding samples, which hold the neuron on its kinks: U^T p = -(what leads off them)."""
        return -torch.linalg.solve_triangular(self.triangle, self.basis.mT @ rest, upper=True)


@dataclass(frozen=True, eq=False)
class Series:
    """Taylor coefficients in t / unit, for each trajectory; those of order k at index k of the first dimension.

    Those of W are transposed. Of the neurons of `sliding` only, per unit of time: `error` holds E_ij = sum_c B_cj e_ic,
    with the terms last, `contributions` the sizes sum_c |B_cj e_ic| of what it adds up at the start, `rest` the
    velocity without the sliding samples.
    """

    hidden: Float[Tensor, "terms ensemble r m"]
    output: Float[Tensor, "terms ensemble k m"]
    pre_activations: Float[Tensor, "terms ensemble n m"]
    f: Float[Tensor, "terms-1 ensemble n k"]
    sliding: Sliding
    error: Float[Tensor, "rows n terms-1"]
    contributions: Float[Tensor, "rows n"]
    rest: Float[Tensor, "rows r terms-1"]


def summed(terms: Float[Tensor, "terms ensemble p q"], factors: Float[Tensor, "ensemble terms"]) -> Tensor:
    """sum_k factors_k terms_k."""
    return torch.bmm(factors.unsqueeze(1), terms.flatten(2).transpose(0, 1)).reshape(terms.shape[1:])


def feedback(flow: Flow, weights: Weights, mode: Mode) -> Float[Tensor, "ensemble k m"]:
    """B in this mode: under sign-FA by the stored signs, which are right on both sides of v = 0."""
    if isinstance(flow.rule, SignFeedbackAlignment):
        return flow.rule.scale * mode.sign.to(weights.hidden.dtype)
    (matrix,) = flow.rule.feedback_matrices(weights)
    return matrix


def taylor(
    flow: Flow,
    kinks: Kinks,
    weights: Weights,
    mode: Mode,
    sliding: Sliding,
    unit: Float[Tensor, " ensemble"],
    order: int,
    scratch: Scratch,
) -> Series:
    """The Taylor series of the flow at given weights in a given mode, up to t^order, in units of time `unit`.

    It lies in `scratch`, and is lost when that is used for the next one.

    With H = phi' * Z and e = -dl/df / n, the terms of order k are

        Z_k = X W_k^T,   f_k = sum_l H_l v_{k-l},   e_k by the recursion of the loss,   E_k = (e b)_k,
        v_{k+1} = sum_l e_l^T H_{k-l} / (k+1),   W_{k+1} = (phi' * E_k)^T X / (k+1), along the kinks of sliding neurons.
    """
    inputs, targets = flow.dataset.inputs, flow.dataset.targets
    first, last = weights.layers
    (batch, n, r), k_out, m = inputs.shape, *last.shape[-2:]
    slopes = kinks.slopes(mode.side, flow.slope)
    matrix = feedback(flow, weights, mode)
    rows = (sliding.trajectory, slice(None), sliding.neuron) if sliding.trajectory.numel() else None
    loss = named(flow.loss)
    assert loss.series is not None
    errors = loss.series(targets, order)
    next(errors)

    hidden, output = scratch.empty("W", order + 1, batch, r, m), scratch.empty("v", order + 1, batch, k_out, m)
    z, outputs = scratch.empty("Z", order + 1, batch, n, m), scratch.empty("f", order, batch, k_out, n)
    drive = scratch.empty("D", batch, n, m)  # phi' * E
    # The two factors of a Cauchy product lie one behind the other, the terms of the first one reversed: one product of
    # matrices sums over l and samples, or neurons. It has k rows, one mostly: faster than k columns
    active, active_by_neuron = scratch.empty("H", batch, order * n, m), scratch.empty("H^T", batch, order * m, n)
    past_output = scratch.empty("past v", batch, k_out, order * m)
    past_error = scratch.empty("past e", batch, k_out, order * n)
    past_error_by_sample = scratch.empty("past e by sample", batch, n, order * k_out)
    h, h_by_neuron = active.unflatten(1, (order, n)).unbind(1), active_by_neuron.unflatten(1, (order, m)).mT.unbind(1)
    v, v_reversed = output.unbind(), past_output.unflatten(2, (order, m)).unbind(2)[::-1]
    e_reversed = past_error.unflatten(2, (order, n)).unbind(2)[::-1]
    kept_error, kept_rest = (first.new_empty(sliding.trajectory.numel(), size, order) for size in (n, r))
    contributions = first.new_empty(sliding.trajectory.numel(), n)

    per_sample = (unit / n).reshape(-1, 1, 1)  # e in units: then all that is linear in it is, too
    descent = isinstance(flow.rule, GradientDescent)
    hidden[0], output[0] = first.mT, last
    for k, (w, following, z_k, f) in enumerate(zip(hidden[:-1], hidden[1:], z[:-1], outputs, strict=True)):
        torch.bmm(inputs, w, out=z_k)
        torch.mul(slopes, z_k, out=h[k])
        h_by_neuron[k].copy_(h[k])
        v_reversed[k].copy_(v[k])
        torch.bmm(past_output[..., -(k + 1) * m :], active_by_neuron[:, : (k + 1) * m], out=f)
        e = errors.send(f.mT) * per_sample
        e_reversed[k].copy_(e.mT)
        v[k + 1].baddbmm_(past_error[..., -(k + 1) * n :], active[:, : (k + 1) * n], beta=0, alpha=1 / (k + 1))
        if descent:
            start = (order - 1 - k) * k_out
            past_error_by_sample[..., start : start + k_out] = e
            error = torch.bmm(past_error_by_sample[..., start:], output[: k + 1].transpose(0, 1).flatten(1, 2))
        else:
            error = e * matrix if k_out == 1 else torch.bmm(e, matrix)
        following.baddbmm_(inputs.mT, torch.mul(slopes, error, out=drive), beta=0, alpha=1 / (k + 1))
        if rows:
            if k == 0:
                columns = matrix[sliding.trajectory, :, sliding.neuron].unsqueeze(-1)
                contributions = (e.abs()[sliding.trajectory] @ columns.abs()).squeeze(-1)
            rest = following[rows]
            kept_error[:, :, k], kept_rest[:, :, k] = error[rows], (k + 1) * rest
            following[rows] = sliding.along(rest)
    torch.bmm(inputs, hidden[order], out=z[order])
    return Series(hidden, output, z, outputs.mT, sliding, kept_error, contributions, kept_rest)
