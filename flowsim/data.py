"""Data sets, their separability constants, and generators that construct and certify them.

Definitions 5.5 and 5.6 of the paper; derivations in theorems/README.md, section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.scaling import scaled_rows, times_power
from flowsim.validation import (
    as_finite,
    as_members,
    require_alike,
    require_count,
    require_not_negative,
    require_positive,
    require_room,
    require_seed,
    shown,
)


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
        _require_no_truth_values(labels, "2 * labels - 1" if classes is None else "1 * labels")
        inputs, given = as_finite("inputs", inputs), labels
        labels = as_finite("labels", labels)
        if not isinstance(given, Tensor):
            labels = labels.to(inputs.device)
        elif labels.device != inputs.device:
            raise ValueError(
                f"labels must be on the device of the inputs, {inputs.device}, got {labels.device}: "
                f"use labels.to(inputs.device)"
            )
        if inputs.ndim < 2 or 0 in inputs.shape:
            raise ValueError(f"inputs must have shape (*batch, n, d) with n, d >= 1, got {tuple(inputs.shape)}")
        if labels.shape != inputs.shape[:-1]:
            raise ValueError(
                f"labels must have shape (*batch, n) = {tuple(inputs.shape[:-1])} as the inputs, "
                f"got {tuple(labels.shape)}"
            )
        if classes is None:
            allowed, rule = labels.abs() == 1, "-1 or +1"
            cure = _cure_of(labels)
        else:
            classes = require_count("classes", classes)
            require_room("labels and classes", labels.numel(), classes)
            allowed = (labels >= 0) & (labels < classes) & (labels == labels.round())
            rule, cure = f"class numbers 0 .. {classes - 1}", ""
        if not allowed.all():
            index = tuple(torch.nonzero(~allowed)[0].tolist())
            raise ValueError(f"labels must be {rule}, got {labels[index].item():g} at index {index}{cure}")
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

    def _products(self) -> tuple[Float[Tensor, "*batch n n"], Int[Tensor, "*batch n 1"]]:
        """x_i . x_k of the rows scaled by powers of two to sizes of 1, and the exponents of what they were."""
        rows, exponent = scaled_rows(self.inputs)
        return rows @ rows.mT, exponent

    @property
    def gram(self) -> Float[Tensor, "*batch n n"]:
        """K = X X^T, the inner products x_i . x_k.

        Raises:
            ValueError: if one of them over- or underflows, and likewise for all that is made of them, below.
        """
        products, exponent = self._products()
        return _representable("x_i . x_k", times_power(products, exponent + exponent.mT), products != 0)

    @property
    def signed_gram(self) -> Float[Tensor, "*batch n n"]:
        """M_ik = y_i y_k x_i . x_k, for labels +-1."""
        self._require_signs("M_ik = y_i y_k x_i.x_k")
        return self.labels.unsqueeze(-1) * self.gram * self.labels.unsqueeze(-2)

    def _require_signs(self, purpose: str) -> None:
        if self.classes is not None:
            raise ValueError(f"labels must be -1 or +1 for {purpose}, got {self.classes} classes")

    @property
    def kappa(self) -> Float[Tensor, "*batch"]:
        """The largest kappa of Def. 5.5, min over all i, k of y_i y_k x_i . x_k (not positive: not separable).

        >>> Dataset([[1.0, 0.0], [0.6, 1.2]], [1, 1]).kappa.item()
        0.6
        """
        self._require_signs("kappa")
        products, exponent = self._products()
        signed = self.labels.unsqueeze(-1) * products * self.labels.unsqueeze(-2)
        smallest = times_power(signed, exponent + exponent.mT).amin((-2, -1))
        # 0 is right if no product is negative and one is 0
        vanishes = (signed < 0).any(-1).any(-1) | (signed > 0).all(-1).all(-1)
        return _representable("kappa", smallest, vanishes)

    @property
    def squared_radius(self) -> Float[Tensor, "*batch"]:
        """R^2 = min_i |x_i|^2 of Def. 5.6."""
        products, exponent = self._products()
        squared = products.diagonal(dim1=-2, dim2=-1)
        smallest = times_power(squared, 2 * exponent.squeeze(-1)).amin(-1)
        return _representable("R^2 = min |x_i|^2", smallest, (squared > 0).all(-1))

    @property
    def rho(self) -> Float[Tensor, "*batch"]:
        """The smallest rho of Def. 5.6, n max_{i != k} |x_i . x_k| / R^2 (infinite if some x_i = 0).

        >>> Dataset([[1.0, 0.0], [0.6, 1.2]], [1, 1]).rho.item()
        1.2
        """
        products, exponent = self._products()
        least = exponent.amin((-2, -1), keepdim=True)  # in units of the shortest input, up to a factor 2
        squared = times_power(products.diagonal(dim1=-2, dim2=-1), 2 * (exponent - least).squeeze(-1)).amin(-1)
        own = torch.eye(self.samples, dtype=torch.bool, device=self.inputs.device)
        others = products.abs().masked_fill(own, 0.0)
        largest = times_power(others, exponent + exponent.mT - 2 * least).amax((-2, -1))
        exists = squared > 0
        ratio = self.samples * largest / torch.where(exists, squared, 1.0)
        ratio = _representable("rho", torch.where(exists, ratio, 1.0), (others != 0).any(-1).any(-1))
        return torch.where(exists, ratio, torch.inf)

    @property
    def svm_margin(self) -> Float[Tensor, "*batch"]:
        """The hard-margin SVM margin through the origin, max_w min_i y_i w . x_i / |w|; 0 if not separable.

        It is attained by a separator, never too large, and at most 1e-12 of it too small, whatever the lengths of the
        inputs: see `flowsim.margin`. A margin that took too long to verify is announced by a UserWarning.

        Raises:
            ValueError: if it over- or underflows.

        >>> round(Dataset([[1.0, 1.0], [-1.0, 1.0], [5.0, 0.0]], [1, -1, 1]).svm_margin.item(), 12)
        1.0
        """
        from flowsim.margin import hard_margin  # noqa: PLC0415, scipy takes a fifth of the time to load flowsim

        self._require_signs("a margin")
        signed = (self.labels.unsqueeze(-1) * self.inputs).detach().cpu().numpy()
        rows = signed.reshape(-1, self.samples, self.dimension)
        margins = torch.tensor([hard_margin(matrix) for matrix in rows], dtype=torch.float64)
        return margins.reshape(self.batch_shape).to(self.inputs.device)


def _cure_of(labels: Float[Tensor, "*batch n"]) -> str:
    """What may be done about labels that are not -1 and +1."""
    if ((labels == 0) | (labels == 1)).all():
        return "; for labels 0 and 1 pass 2 * labels - 1"
    if (labels >= 0).all() and (labels == labels.round()).all():
        last = int(labels.max())
        return f"; for classes 0 .. {last} give classes={last + 1}"
    return ""


def _require_no_truth_values(labels: Any, cure: str) -> None:
    entries = np.asarray(labels, dtype=object) if isinstance(labels, (list, tuple)) else np.zeros(0)
    truth = getattr(labels, "dtype", None) in (torch.bool, np.bool_)
    if truth or any(isinstance(entry, (bool, np.bool_)) for entry in entries.ravel()):
        raise ValueError(f"labels must be numbers, got {shown(labels)} of bool: pass {cure} of an array of them")


def _representable(name: str, values: Tensor, above_zero: Bool[Tensor, "..."]) -> Tensor:
    """The values; all must be finite, and not 0 where they are known not to be."""
    lost = ~torch.isfinite(values) | ((values == 0) & above_zero)
    if lost.any():
        index = tuple(torch.nonzero(lost)[0].tolist())
        flows = "underflows" if values[index] == 0 else "overflows"
        raise ValueError(f"inputs must be scaled: {name} {flows} at index {index}; multiply them all by one number")
    return values


def stack(ensemble: Sequence[Dataset]) -> Dataset:
    """Return several data sets of one shape as an ensemble, along a new first dimension.

    Raises:
        ValueError: if there is none, or they differ in shape, classes or device.

    >>> stack([orthogonally_separable(4, 3, 0.1, seed) for seed in range(2)]).inputs.shape
    torch.Size([2, 4, 3])
    """
    ensemble = as_members("ensemble", ensemble, (Dataset,))
    require_alike("ensemble", [(tuple(item.inputs.shape), item.classes, str(item.inputs.device)) for item in ensemble])
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
    n, d = _sizes(samples, dimension)
    kappa = require_positive("kappa", kappa)
    generator = np.random.default_rng(require_seed(seed))
    axis = _unit_rows(generator.standard_normal((1, d)))[0]
    spread = generator.standard_normal((n, d)) / np.sqrt(d)
    spread -= np.outer(spread @ axis, axis)
    spread /= np.sqrt(max((spread @ spread.T).min(), 1.0))
    signed = spread + np.sqrt(max(1 - (spread @ spread.T).min(), 0.0)) * axis
    labels = _random_labels(n, generator)
    for inflation in (0.0, 1e-15, 1e-14, 1e-13, 1e-12):  # rounding may leave the smallest product below kappa
        dataset = Dataset(labels[:, None] * signed * (np.sqrt(kappa) * (1 + inflation)), labels)
        try:
            reached = dataset.signed_gram.amin()
        except ValueError:
            break
        if reached >= kappa:
            return dataset
    raise ValueError(f"kappa must be representable, got {kappa}: products of such inputs under- or overflow")


def _sizes(samples: int, dimension: int) -> tuple[int, int]:
    n, d = require_count("samples", samples), require_count("dimension", dimension)
    require_room("samples and dimension", n, d)
    require_room("samples and samples", n, n)  # of their products
    return n, d


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
    n, d = _sizes(samples, dimension)
    rho = require_not_negative("rho", rho)
    generator = np.random.default_rng(require_seed(seed))
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


def gaussian(samples: int, dimension: int, seed: int) -> Dataset:
    """Return independent Gaussian inputs, of variance 1/d, with random labels, both of them present for n >= 2.

    Raises:
        ValueError: if n or d is not a positive integer, or the seed not an integer from 0 to 2^32 - 1.

    >>> gaussian(samples=4, dimension=3, seed=0)
    Dataset(inputs (4, 3), labels +-1)
    """
    n, d = _sizes(samples, dimension)
    generator = np.random.default_rng(require_seed(seed))
    return Dataset(generator.standard_normal((n, d)) / np.sqrt(d), _random_labels(n, generator))


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
    from scipy.optimize import brentq  # noqa: PLC0415, as for the margin

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
