"""Taylor series of the flow of a two-layer network while its activation pattern is fixed.

Between events the flow is analytic, and its Taylor coefficients follow from each other by Cauchy products
(flowsim/README.md, section 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators.event.batched.batch import Mode
from flowsim.integrators.event.batched.scratch import Scratch
from flowsim.integrators.event.kinks import Kinks, list_columns
from flowsim.losses import Loss, cross_entropy, named, squared
from flowsim.rules import Rule
from flowsim.weights import Weights


@dataclass(frozen=True, eq=False)
class Sliding:
    """The neurons that slide, or might: for each its kinks, and an orthonormal basis of their normals.

    U^T = basis @ triangle for the matrix U of the normals u_k as rows, those that are not there being 0. All orders of
    a series are projected by it. `flowsim.sliding` finds slides of any depth by weights and data alone, for verdicts,
    which trust nothing of this: code of its own.
    """

    trajectory: Int[Tensor, " rows"]
    neuron: Int[Tensor, " rows"]
    kink: Int[Tensor, "rows k"]
    there: Bool[Tensor, "rows k"]
    basis: Float[Tensor, "rows r k"]
    triangle: Float[Tensor, "rows k k"]

    @classmethod
    @cache
    def none(cls, r: int, dtype: torch.dtype, device: torch.device) -> Sliding:
        """No neurons, of r weights each."""
        index = torch.zeros(0, dtype=torch.long, device=device)
        basis, triangle = (torch.zeros(0, size, 0, dtype=dtype, device=device) for size in (r, 0))
        return cls(index, index, index.reshape(0, 0), index.reshape(0, 0).bool(), basis, triangle)

    @classmethod
    def of(cls, kinks: Kinks, side: Int[Tensor, "ensemble n m"], watched: Bool[Tensor, "ensemble m"]) -> Sliding:
        """The sliding kinks of the watched neurons."""
        if not watched.any():
            return cls.none(kinks.inputs.shape[-1], kinks.inputs.dtype, side.device)
        trajectory, neuron = torch.nonzero(watched, as_tuple=True)
        kink, there = list_columns((side[trajectory, :, neuron] == 0) & kinks.exists[trajectory])
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
    with the terms last, `contributions` the sizes of what it adds up at the start, `rest` the velocity
    without the sliding samples.
    """

    hidden: Float[Tensor, "terms ensemble r m"]
    output: Float[Tensor, "terms ensemble k m"]
    pre_activations: Float[Tensor, "terms ensemble n m"]
    f: Float[Tensor, "terms-1 ensemble n k"]
    sliding: Sliding
    error: Float[Tensor, "rows n terms-1"]
    contributions: Float[Tensor, "rows n"]
    rest: Float[Tensor, "rows r terms-1"]


def sum_series(terms: Float[Tensor, "terms ensemble p q"], factors: Float[Tensor, "ensemble terms"]) -> Tensor:
    """sum_k factors_k terms_k."""
    return torch.bmm(factors.unsqueeze(1), terms.flatten(2).transpose(0, 1)).reshape(terms.shape[1:])


def find_feedback(flow: Flow, weights: Weights, mode: Mode) -> Float[Tensor, "ensemble k m"]:
    """B in this mode: under sign-FA by the stored signs, which are right on both sides of v = 0."""
    (matrix,) = flow.rule.feedback_in_mode(weights, (mode.sign,))
    return matrix.expand_as(weights.layers[1])


def measure_gradient(
    loss: Loss, gradient: Float[Tensor, "*batch n k"], targets: Float[Tensor, "*batch n k"],
    spread: Float[Tensor, "*batch n k"],
) -> Float[Tensor, "*batch n k"]:  # fmt: skip
    """The sizes of what adds up to -dl/df, which its rounding is relative to; `spread` are those of the outputs f.

    f is a sum of products, whose rounding is EPS times the sum of their sizes, and not times what they leave. In the
    squared loss that is what -dl/df = y - f is wrong by, however small it is; in that of classes y - p cancels, too.
    The slopes of the others are products, which are as exact as f is.
    """
    if loss.origin == squared.origin:
        return targets.abs() + spread
    if loss.origin == cross_entropy.origin:
        return targets.abs() + (targets - gradient)
    return gradient.abs()


def _append_feedback_term(
    rule: Rule, output: Float[Tensor, "terms ensemble k m"], matrices: Float[Tensor, "terms ensemble k m"]
) -> Float[Tensor, "ensemble terms*k m"]:
    """The terms of B as rows, the last of which is computed here from those of v."""
    if len(matrices) > 1:
        term = rule.feedback_term(output, matrices[:-1])
        assert term is not None
        matrices[-1] = term
    return matrices.transpose(0, 1).flatten(1, 2)


def expand(
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

        Z_k = X W_k^T,   f_k = sum_l H_l v_{k-l},   e_k by the recursion of the loss,   E_k = sum_l e_l b_{k-l},
        v_{k+1} = sum_l e_l^T H_{k-l} / (k+1),   W_{k+1} = (phi' * E_k)^T X / (k+1), along the kinks of sliding neurons.
    """
    inputs, targets = flow.dataset.inputs, flow.dataset.targets
    first, last = weights.layers
    (batch, n, r), k_out, m = inputs.shape, *last.shape[-2:]
    slopes = kinks.slopes(mode.side, flow.slope)
    matrix = find_feedback(flow, weights, mode)
    rows = (sliding.trajectory, slice(None), sliding.neuron) if sliding.trajectory.numel() else None
    loss = named(flow.loss)
    assert loss.series is not None
    errors = loss.series(targets, order)
    next(errors)

    hidden, output = scratch.empty("W", order + 1, batch, r, m), scratch.empty("v", order + 1, batch, k_out, m)
    z, outputs = scratch.empty("Z", order + 1, batch, n, m), scratch.empty("f", order, batch, k_out, n)
    drive = scratch.empty("D", batch, n, m)  # phi' * E
    # The two factors of a Cauchy product lie one behind the other, the terms of H reversed: one product of matrices
    # sums over l and samples, or neurons. It has k rows, one mostly: faster than k columns
    active, active_by_neuron = scratch.empty("H", batch, order * n, m), scratch.empty("H^T", batch, order * m, n)
    all_v, all_e = scratch.empty("v in rows", batch, k_out, order * m), scratch.empty("e", batch, k_out, order * n)
    past_e = scratch.empty("past e", batch, n, order * k_out)  # reversed
    h = active.unflatten(1, (order, n)).unbind(1)[::-1]
    h_by_neuron = active_by_neuron.unflatten(1, (order, m)).mT.unbind(1)[::-1]
    v, v_in_rows = output.unbind(), all_v.unflatten(2, (order, m)).unbind(2)
    e_terms = all_e.unflatten(2, (order, n)).permute(2, 0, 3, 1)
    kept_error, kept_rest = (first.new_empty(sliding.trajectory.numel(), size, order) for size in (n, r))
    contributions = first.new_empty(sliding.trajectory.numel(), n)

    per_sample = (unit / n).reshape(-1, 1, 1)  # e in units: then all that is linear in it is, too
    matrices = scratch.empty("B", order, batch, k_out, m)
    hidden[0], output[0], matrices[0] = first.mT, last, matrix
    for k, (w, following, z_k, f, e) in enumerate(zip(hidden[:-1], hidden[1:], z[:-1], outputs, e_terms, strict=True)):
        torch.bmm(inputs, w, out=z_k)
        torch.mul(slopes, z_k, out=h[k])
        h_by_neuron[k].copy_(h[k])
        v_in_rows[k].copy_(v[k])
        torch.bmm(all_v[..., : (k + 1) * m], active_by_neuron[:, -(k + 1) * m :], out=f)
        torch.mul(errors.send(f.mT), per_sample, out=e)
        v[k + 1].baddbmm_(all_e[..., : (k + 1) * n], active[:, -(k + 1) * n :], beta=0, alpha=1 / (k + 1))
        if not flow.rule.fixed:
            start = (order - 1 - k) * k_out
            past_e[..., start : start + k_out] = e
            error = torch.bmm(past_e[..., start:], _append_feedback_term(flow.rule, output[: k + 1], matrices[: k + 1]))
        else:
            error = e * matrix if k_out == 1 else torch.bmm(e, matrix)
        following.baddbmm_(inputs.mT, torch.mul(slopes, error, out=drive), beta=0, alpha=1 / (k + 1))
        if rows:
            rest = following[rows]
            kept_error[:, :, k], kept_rest[:, :, k] = error[rows], (k + 1) * rest
            following[rows] = sliding.along(rest)
    torch.bmm(inputs, hidden[order], out=z[order])
    if rows:
        gradient, spread = loss.negative_gradient(outputs[0].mT, targets), h[0].abs() @ last.abs().mT
        sizes = per_sample * measure_gradient(loss, gradient, targets, spread)
        columns = matrix[sliding.trajectory, :, sliding.neuron].unsqueeze(-1)
        contributions = (sizes[sliding.trajectory] @ columns.abs()).squeeze(-1)
    return Series(hidden, output, z, outputs.mT, sliding, kept_error, contributions, kept_rest)
