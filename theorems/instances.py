"""The instances of a search: points of the unit cube as problems that meet a target's hypotheses by construction."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from flowsim import Dataset, FeedbackAlignment, Flow, SignFeedbackAlignment, Weights
from theorems.targets import InputKind, Target

SMALL, UNEQUAL = 1e-6, 1e-3
"""How near instances come to limits where margins vanish, nearer than which they drop below what `measure` resolves.
SMALL: |w_j|^2 / 2 relative to b_j v_j, components of inputs, inner products of nearly orthogonal ones. UNEQUAL: the
b_j v_j of an instance, relative to each other."""


class Setting(NamedTuple):
    """What the instances of an ensemble share. They have n + 1 dimensions, so that any Gram matrix of theirs exists."""

    samples: int
    width: int
    slope: float
    t_final: float


def _blocks(setting: Setting) -> dict[str, tuple[int, ...]]:
    """The shapes of what a point of the cube holds; signs come last, since derivatives by them vanish."""
    n, m, d = setting.samples, setting.width, setting.samples + 1
    return {
        "inputs": (n, d),
        "radii": (n, 1),
        "closeness": (1, 1),
        "hidden": (m, d),
        "products": (m,),
        "shares": (m,),
        "feedback": (m,),
        "labels": (n,),
        "output signs": (m,),
        "feedback signs": (m,),
    }


def dimension(setting: Setting) -> int:
    """The dimension of the cube."""
    return sum(math.prod(shape) for shape in _blocks(setting).values())


def continuous(setting: Setting) -> int:
    """The number of coordinates that are no signs."""
    return dimension(setting) - setting.samples - 2 * setting.width


Blocks = dict[str, Float[Tensor, "points *shape"]]


def _geometric(unit: Tensor, low: float, high: float) -> Tensor:
    """From low at 0 to high at 1, on a logarithmic scale."""
    return low * (high / low) ** unit


def _sign(unit: Tensor) -> Tensor:
    return torch.where(unit < 0.5, -1.0, 1.0).to(unit)


def _signed(unit: Tensor) -> Tensor:
    """From -1 to 1."""
    return 2 * unit - 1


def _gathered(unit: Float[Tensor, "points n *d"], near: Float[Tensor, "points 1 1"]) -> Tensor:
    """Samples drawn towards the first."""
    return unit[:, :1] + near * (unit - unit[:, :1])


def _signed_inputs(kind: InputKind, setting: Setting, at: Blocks) -> Float[Tensor, "points n d"]:
    """y_i x_i. Up to rotation, every data set of the kind has such a form.

    Where all inputs are alike, or orthogonal, and of one norm, mu is attained; "closeness" says how far from there.
    """
    n, unit, sizes = setting.samples, at["inputs"], at["radii"]
    near = _geometric(at["closeness"], SMALL, 1 - SMALL)
    radii = _geometric(sizes if kind in ("any", "separable") else _gathered(sizes, near), 0.3, 2.0)
    identity = torch.eye(n, n + 1).to(unit)
    if kind == "nearly orthogonal":
        # (n - 1) |x_i.x_k| < gamma^2 R^2: the Gram matrix is diagonally dominant
        off = torch.tril(_signed(unit), -1)[..., :n] * near
        off = (setting.slope * radii.amin(-2, keepdim=True)) ** 2 / (n - 1) * (off + off.mT)
        return torch.linalg.cholesky(torch.diag_embed(radii.squeeze(-1) ** 2) + off) @ identity
    if kind == "orthogonally separable":
        rows = _geometric(_gathered(unit, near), SMALL, 1.0)  # see below
    elif kind == "boundary":
        # a matrix M >= 0, also entry by entry, is S S^T with S >= 0 of n columns if n <= 4 (Maxfield and Minc 1962)
        rows = _geometric(unit, SMALL, 1.0) * torch.where(identity == 1, 1.0, near)
    elif kind == "separable":  # along a separator, positive
        rows = torch.cat([_geometric(unit[..., :1], 0.05, 1.0), _signed(unit[..., 1:])], -1)
    else:
        rows = _signed(unit)
    return radii * normalize(rows, dim=-1)


def _weights(target: Target, at: Blocks) -> tuple[Float[Tensor, "points m"], Weights]:
    """b (for FA) and the weights, from sizes P_j = |b_j v_j| and from |w_j|^2 / 2 relative to them."""
    products, shares = _geometric(at["products"], UNEQUAL, 1.0), _geometric(at["shares"], SMALL, 0.99)
    hidden, signs = _signed(at["hidden"]), _sign(at["output signs"])
    feedback = signs * _geometric(at["feedback"], 0.3, 3.0)
    if target.gaps == "any":
        feedback = feedback * _sign(at["feedback signs"])
        shares = 4 * shares
    if target.rule == "fa" or target.gaps == "each":
        rows = normalize(hidden, dim=-1) * (2 * shares * products).sqrt().unsqueeze(-1)
        return feedback, Weights(rows, signs * products / (feedback.abs() if target.rule == "fa" else 1))
    whole = normalize(hidden.flatten(1), dim=-1).reshape(hidden.shape)
    squared = 2 * shares[:, 0] * products.sum(-1)
    return feedback, Weights(whole * squared.sqrt()[:, None, None], signs * products)


def instances(target: Target, setting: Setting, points: Float[Tensor, "points k"]) -> tuple[Flow, Weights]:
    """The problems of points of the cube, as an ensemble. They meet the target's hypotheses wherever the points are."""
    sizes = {name: math.prod(shape) for name, shape in _blocks(setting).items()}
    parts = zip(_blocks(setting).items(), points.split(list(sizes.values()), -1), strict=True)
    at = {name: part.reshape(-1, *shape) for (name, shape), part in parts}
    labels = _sign(at["labels"])
    dataset = Dataset(labels.unsqueeze(-1) * _signed_inputs(target.data, setting, at), labels)
    feedback, weights = _weights(target, at)
    rule = FeedbackAlignment(feedback) if target.rule == "fa" else SignFeedbackAlignment()
    return Flow(dataset, rule, target.loss, setting.slope), weights


Arrays = dict[str, np.ndarray | float]


def arrays_of(target: Target, setting: Setting, point: Float[Tensor, " k"]) -> Arrays:
    """The instance of a point, as `--data` reads it."""
    flow, weights = instances(target, setting, point.unsqueeze(0))
    tensors = {"inputs": flow.dataset.inputs, "labels": flow.dataset.labels, **weights.tensors}
    if target.rule == "fa":
        (feedback,) = flow.rule.feedback_matrices(weights)
        tensors["feedback"] = feedback.squeeze(-2)
    arrays = {name: tensor[0].cpu().numpy() for name, tensor in tensors.items()}
    return {**arrays, "slope": setting.slope, "t_final": setting.t_final}
