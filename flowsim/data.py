"""Data sets, their separability constants, and generators that construct and certify them.

Definitions 5.5 and 5.6 of the paper; derivations in theorems/README.md, section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq, nnls
from torch import Tensor

from flowsim.validation import as_finite, require_count, require_positive


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Inputs x_i and labels y_i, i = 1..n.

    Args:
        inputs: `*batch x n x d`, row i is x_i.
        labels: `*batch x n` in {-1, +1}; with `classes=k` the class numbers 0 .. k-1.
        classes: the number of classes, for networks with vector output; None for labels +-1.

    Arrays are copied, as float64 tensors on the device they are on, and detached: what is written into them later
    changes nothing, and no gradient flows back to them.

    Raises:
        ValueError: for shapes that do not fit, non-finite inputs, or labels outside the allowed values.

    >>> Dataset([[1.0, 0.0], [0.6, 1.2]], [-1, 1]).gram
    tensor([[1.0000, 0.6000],
            [0.6000, 1.8000]], dtype=torch.float64)
    """

    inputs: Float[Tensor, "*batch n d"]
    labels: Float[Tensor, "*batch n"]
    classes: int | None = None
    targets: Float[Tensor, "*batch n k"] = field(init=False, repr=False)
    """What the loss compares the outputs with: the labels as one column, or the one-hot classes."""

    def __init__(self, inputs: Any, labels: Any, classes: int | None = None) -> None:
        inputs, labels = as_finite("inputs", inputs), as_finite("labels", labels)
        if inputs.ndim < 2 or 0 in inputs.shape:
            raise ValueError(f"inputs must have shape (*batch, n, d) with n, d >= 1, got {tuple(inputs.shape)}")
        if labels.shape != inputs.shape[:-1]:
            raise ValueError(
                f"labels must have shape (*batch, n) = {tuple(inputs.shape[:-1])} as the inputs, "
                f"got {tuple(labels.shape)}"
            )
        if classes is None:
            allowed, rule = labels.abs() == 1, "-1 or +1"
        else:
            allowed = (labels >= 0) & (labels < require_count("classes", classes)) & (labels == labels.round())
            rule = f"class numbers 0 .. {classes - 1}"
        if not allowed.all():
            index = tuple(torch.nonzero(~allowed)[0].tolist())
            raise ValueError(f"labels must be {rule}, got {labels[index].item():g} at index {index}")
        self._set(inputs, labels, classes)

    def _set(self, inputs: Tensor, labels: Tensor, classes: int | None) -> None:
        if classes is None:
            targets = labels.unsqueeze(-1)
        else:
            targets = torch.nn.functional.one_hot(labels.long(), classes).to(inputs)
        for name, value in [
            ("inputs", inputs),
            ("labels", labels),
            ("classes", classes),
            ("targets", targets),
        ]:
            object.__setattr__(self, name, value)

    def sharing(self, inputs: Float[Tensor, "*batch n d"], labels: Float[Tensor, "*batch n"]) -> Dataset:
        """The same kind of data set on tensors made from this one's: neither copied nor checked again."""
        dataset = object.__new__(Dataset)
        dataset._set(inputs, labels, self.classes)
        return dataset

    def __repr__(self) -> str:
        labels = "labels +-1" if self.classes is None else f"{self.classes} classes"
        return f"Dataset(inputs {tuple(self.inputs.shape)}, {labels})"

    @property
    def batch_shape(self) -> torch.Size:
        """The ensemble's shape `*batch`."""
        return self.inputs.shape[:-2]

    @property
    def samples(self) -> int:
        """The number of samples n."""
        return self.inputs.shape[-2]

    @property
    def dimension(self) -> int:
        """The dimension d of the inputs."""
        return self.inputs.shape[-1]

    @property
    def gram(self) -> Float[Tensor, "*batch n n"]:
        """K = X X^T, the inner products x_i . x_k."""
        return self.inputs @ self.inputs.mT

    @property
    def signed_gram(self) -> Float[Tensor, "*batch n n"]:
        """M_ik = y_i y_k x_i . x_k, for labels +-1."""
        if self.classes is not None:
            raise ValueError(f"labels must be -1 or +1 for M_ik = y_i y_k x_i.x_k, got {self.classes} classes")
        return self.labels.unsqueeze(-1) * self.gram * self.labels.unsqueeze(-2)

    @property
    def kappa(self) -> Float[Tensor, "*batch"]:
        """The largest kappa of Def. 5.5, min over all i, k of y_i y_k x_i . x_k (not positive: not separable).

        >>> Dataset([[1.0, 0.0], [0.6, 1.2]], [1, 1]).kappa.item()
        0.6
        """
        return self.signed_gram.amin((-2, -1))

    @property
    def squared_radius(self) -> Float[Tensor, "*batch"]:
        """R^2 = min_i |x_i|^2 of Def. 5.6."""
        return self.inputs.square().sum(-1).amin(-1)

    @property
    def rho(self) -> Float[Tensor, "*batch"]:
        """The smallest rho of Def. 5.6, n max_{i != k} |x_i . x_k| / R^2 (infinite if some x_i = 0).

        >>> Dataset([[1.0, 0.0], [0.6, 1.2]], [1, 1]).rho.item()
        1.2
        """
        off_diagonal = ~torch.eye(self.samples, dtype=torch.bool, device=self.inputs.device)
        largest = (self.gram.abs() * off_diagonal).amax((-2, -1))
        return torch.where(self.squared_radius > 0, self.samples * largest / self.squared_radius, torch.inf)

    @property
    def svm_margin(self) -> Float[Tensor, "*batch"]:
        """The hard-margin SVM margin through the origin, max_w min_i y_i w . x_i / |w|; 0 if not separable.

        Its square is min over the simplex of p^T M p (theorems/README.md, section 7). The minimiser is that of
        |S^T u|^2 + (sum u - 1)^2 over u >= 0, up to scale, with the rows y_i x_i in S. The value returned is
        min_i y_i w . x_i / |w| at w = S^T u, so that it is attained by a separator and never too large.

        >>> round(Dataset([[1.0, 1.0], [-1.0, 1.0], [5.0, 0.0]], [1, -1, 1]).svm_margin.item(), 12)
        1.0
        """
        signed = (self.labels.unsqueeze(-1) * self.inputs).detach().cpu().numpy()
        if self.classes is not None:
            raise ValueError(f"labels must be -1 or +1 for a margin, got {self.classes} classes")
        rows = signed.reshape(-1, self.samples, self.dimension)
        margins = torch.tensor([_hard_margin(matrix) for matrix in rows], dtype=torch.float64)
        return margins.reshape(self.batch_shape).to(self.inputs.device)


def _hard_margin(signed: np.ndarray) -> float:
    scale = np.abs(signed).max()
    if scale == 0:
        return 0.0
    n, d = signed.shape
    system = np.vstack([signed.T / scale, np.ones(n)])
    solution, _ = nnls(system, np.append(np.zeros(d), 1.0))
    separator = signed.T @ solution
    norm = np.linalg.norm(separator)
    return max(float((signed @ separator).min() / norm), 0.0) if norm > 0 else 0.0


def stack(ensemble: Sequence[Dataset]) -> Dataset:
    """Return several data sets of one shape as an ensemble, along a new first dimension.

    >>> stack([orthogonally_separable(4, 3, 0.1, seed) for seed in range(2)]).inputs.shape
    torch.Size([2, 4, 3])
    """
    return Dataset(
        torch.stack([dataset.inputs for dataset in ensemble]),
        torch.stack([dataset.labels for dataset in ensemble]),
        ensemble[0].classes,
    )


def orthogonally_separable(samples: int, dimension: int, kappa: float, seed: int) -> Dataset:
    """Return data that is kappa-orthogonally separable (Def. 5.5), with its constant certified.

    Construction: y_i x_i = a u + p_i with a unit vector u, random p_i orthogonal to u with |p_i| ~ sqrt(kappa), and
    a^2 = kappa - min_ik p_i . p_k, so that the smallest y_i y_k x_i . x_k is kappa (a rounding error above it).
    Labels are random, both of them present for n >= 2. Such data exists for all n, d >= 1 and kappa > 0.

    Raises:
        ValueError: if kappa is not positive and finite, or n or d is not a positive integer.

    >>> orthogonally_separable(samples=20, dimension=40, kappa=0.1, seed=0).kappa >= 0.1
    tensor(True)
    """
    n, d = require_count("samples", samples), require_count("dimension", dimension)
    kappa = require_positive("kappa", kappa)
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    axis = _unit_rows(generator.standard_normal((1, d)))[0]
    spread = generator.standard_normal((n, d)) / np.sqrt(d)
    spread -= np.outer(spread @ axis, axis)
    spread /= np.sqrt(max((spread @ spread.T).min(), 1.0))
    signed = spread + np.sqrt(max(1 - (spread @ spread.T).min(), 0.0)) * axis
    labels = _random_labels(n, generator)
    for inflation in (0.0, 1e-15, 1e-14, 1e-13, 1e-12):  # rounding may leave the smallest product below kappa
        dataset = Dataset(labels[:, None] * signed * (np.sqrt(kappa) * (1 + inflation)), labels)
        if dataset.kappa >= kappa and torch.isfinite(dataset.gram).all():
            return dataset
    raise ValueError(f"kappa must be representable: {kappa} gives inputs whose products under- or overflow")


def nearly_orthogonal(samples: int, dimension: int, rho: float, seed: int) -> Dataset:
    """Return unit vectors that are rho-nearly orthogonal (Def. 5.6), with their constant certified.

    With d >= n: rows cos(t) q_i + sin(t) s_i u of orthonormal q_i, random signs s_i and a random unit vector u,
    normalised, with t chosen such that max_{i != k} |x_i . x_k| = rho / n (at most 1).
    With d < n, rho >= n is no restriction. Below that the Welch bound sqrt((n-d)/(d(n-1))) limits max |x_i . x_k|;
    between it and what alternating projections reach, whether such data exists is not known in general, and the
    request is refused too.
    Labels are random, both of them present for n >= 2.

    Raises:
        ValueError: if rho is negative or not finite, n or d is not a positive integer, or the request is infeasible.

    >>> nearly_orthogonal(samples=6, dimension=8, rho=0.05, seed=0).rho <= 0.05
    tensor(True)
    """
    n, d = require_count("samples", samples), require_count("dimension", dimension)
    if not (isinstance(rho, Real) and np.isfinite(rho) and rho >= 0):
        raise ValueError(f"rho must be a finite number of at least 0, got {rho!r}")
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    coherence = min(rho / n, 1.0)
    if d < n <= rho or n == 1:  # no restriction on unit vectors
        rows = _unit_rows(generator.standard_normal((n, d)))
    elif d >= n:
        rows = _frame_around_a_basis(n, d, coherence, generator)
    else:
        rows = _frame_by_projections(n, d, coherence, rho, generator)
    labels = _random_labels(n, generator)
    dataset = Dataset(rows, labels)
    if dataset.rho > rho:
        raise ValueError(
            f"rho must be above the rounding of the inner products, got {rho}, reached {dataset.rho.item()}"
        )
    return dataset


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=-1, keepdims=True)


def _random_labels(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Balanced random labels: both signs occur for n >= 2."""
    return generator.permutation(np.where(np.arange(samples) % 2 == 0, 1.0, -1.0))


def _coherence(rows: np.ndarray) -> float:
    """max_{i != k} |x_i . x_k| / min_i |x_i|^2."""
    gram = np.abs(rows @ rows.T)
    return (gram - np.diag(np.diag(gram))).max() / np.diag(gram).min()


def _frame_around_a_basis(n: int, d: int, coherence: float, generator: np.random.Generator) -> np.ndarray:
    """n unit vectors in R^d, d >= n, of the given coherence up to rounding, and not above it."""
    if coherence == 0:
        # coordinate vectors: the only choice whose inner products are 0 in floating point too
        return np.eye(d)[generator.permutation(d)[:n]]
    basis = np.linalg.qr(generator.standard_normal((d, n)))[0].T
    line = generator.choice([-1.0, 1.0], (n, 1)) * _unit_rows(generator.standard_normal((1, d)))

    def rows(angle: float) -> np.ndarray:
        return _unit_rows(np.cos(angle) * basis + np.sin(angle) * line)

    # the coherence grows continuously from 0 to 1; aim a rounding error below the request
    aim = coherence * (1 - 1e-9) - 8 * np.finfo(float).eps
    if aim <= 0:
        return np.eye(d)[generator.permutation(d)[:n]]
    return rows(float(brentq(lambda angle: _coherence(rows(angle)) - aim, 0.0, np.pi / 2, xtol=1e-15)))  # type: ignore[arg-type]


def _frame_by_projections(
    n: int, d: int, coherence: float, rho: float, generator: np.random.Generator, rounds: int = 5000
) -> np.ndarray:
    """n > d unit vectors of at most the given coherence, by alternating projections (Tropp et al. 2005).

    The Gram matrix goes back and forth between the matrices of rank d and those with entries clipped half-way between
    the Welch bound and the target, since the limit is reached from above.
    """
    welch = np.sqrt((n - d) / (d * (n - 1)))
    if coherence < welch:
        raise ValueError(
            f"rho must be at least n sqrt((n-d)/(d(n-1))) = {n * welch:.6g} for n = {n} inputs in dimension d = {d} "
            f"(Welch bound), got {rho}"
        )
    aim = (welch + coherence) / 2
    rows = _unit_rows(generator.standard_normal((n, d)))
    best = _coherence(rows)
    for _ in range(rounds):
        if best <= coherence * (1 - 1e-15):
            return rows
        gram = np.clip(rows @ rows.T, -aim, aim)
        np.fill_diagonal(gram, 1.0)
        values, vectors = np.linalg.eigh(gram)
        rows = _unit_rows(vectors[:, -d:] * np.sqrt(np.maximum(values[-d:], 0.0)))
        best = min(best, _coherence(rows))
    raise ValueError(
        f"rho = {rho} is above the Welch bound {n * welch:.6g} for n = {n}, d = {d}, but no such inputs were found: "
        f"alternating projections reached rho = {n * best:.6g}"
    )
