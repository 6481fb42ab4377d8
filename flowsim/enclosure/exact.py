"""The problem in exact rational numbers: floats are dyadic rationals, and nothing is rounded here.

Equal samples and equal neurons are merged, with their multiplicities. Parallel inputs share a kink: x_i = factor_i u
with the normal u of the kink, so that z_ij = factor_i zeta_j with zeta_j = w_j . u, and the sides follow.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

from flint import fmpq, fmpq_mat
from torch import Tensor

from flowsim.enclosure.losses import LOSSES as ENCLOSED
from flowsim.enclosure.losses import MarginLoss, margin_loss
from flowsim.flow import Flow
from flowsim.losses import LOSSES, named
from flowsim.rules import FeedbackAlignment, GradientDescent, SignFeedbackAlignment, is_one_of
from flowsim.validation import shown
from flowsim.weights import Weights, require_finite

Number = float | Fraction | int
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Sample:
    """A sample, or several equal ones: x = factor times the normal of its kink; kink None if x = 0."""

    kink: int | None
    factor: fmpq
    label: int
    weight: fmpq
    """The share of all samples."""


@dataclass(frozen=True)
class Neuron:
    """The initial weights of a neuron, or of `count` equal ones, and its feedback where that is fixed."""

    hidden: tuple[fmpq, ...]
    output: fmpq
    feedback: fmpq | None
    count: int


@dataclass(frozen=True, eq=False)
class ExactProblem:
    """A flow of a two-layer network with scalar output and its initial weights, exactly.

    `scale` is s of sign-FA (b_j = s sign v_j) and None under the other rules; the feedback of neurons is None
    unless it is fixed. `neuron_of` says which of `neurons` each neuron of the network is.
    """

    normals: fmpq_mat
    names: tuple[int, ...]
    """Of each kink the first sample on it, whose input is the normal."""
    samples: tuple[Sample, ...]
    neurons: tuple[Neuron, ...]
    neuron_of: tuple[int, ...]
    slope: fmpq
    loss: MarginLoss
    scale: fmpq | None

    @property
    def kinks(self) -> int:
        """The number of kinks that a neuron has."""
        return self.normals.nrows()

    @property
    def dimension(self) -> int:
        """That of the inputs."""
        return self.normals.ncols()

    @property
    def fixed(self) -> bool:
        """Whether the feedback is fixed numbers b_j."""
        return self.neurons[0].feedback is not None

    @property
    def bent(self) -> bool:
        """Whether its kinks matter: not those of a linear network."""
        return self.slope != 1

    @property
    def follows_signs(self) -> bool:
        """Whether b_j jumps where v_j changes sign."""
        return self.scale is not None

    @cached_property
    def inputs(self) -> fmpq_mat:
        """The inputs of the merged samples, as rows."""
        rows = [
            [fmpq(0)] * self.dimension
            if sample.kink is None
            else [sample.factor * self.normals[sample.kink, c] for c in range(self.dimension)]
            for sample in self.samples
        ]
        return fmpq_mat(len(rows), self.dimension, [entry for row in rows for entry in row])

    def slope_on(self, sample: Sample, side: int) -> fmpq:
        """phi'(z) of the sample where its kink's zeta has sign `side`."""
        return fmpq(1) if side * sample.factor > 0 else self.slope


def rational(number: Number) -> fmpq:
    """The number exactly.

    >>> rational(0.1) == fmpq(3602879701896397, 2**55), rational(Fraction(1, 3))
    (True, 1/3)
    """
    fraction = Fraction(number)
    return fmpq(fraction.numerator, fraction.denominator)


def exact_problem(
    inputs: Sequence[Sequence[Number]],
    labels: Sequence[float],
    hidden: Sequence[Sequence[Number]],
    output: Sequence[Number],
    *,
    feedback: Sequence[Number] | None = None,
    scale: Number | None = None,
    slope: Number,
    loss: str,
) -> ExactProblem:
    """Return the problem with the numbers given, floats or fractions.

    With `feedback` the rule is FA, with `scale` sign-FA, without both GD.

    Raises:
        ValueError: for labels that are not -1 or +1, a slope outside [0, 1], or a scale that is not positive or given
            beside feedback.

    >>> problem = exact_problem([[2], [-1], [2]], [1, 1, 1], [[Fraction(1, 3)]], [1], slope=0.5, loss="exponential")
    >>> problem.kinks, [(sample.factor, sample.weight) for sample in problem.samples]
    (1, [(1, 2/3), (-1/2, 1/3)])
    """
    if not (all(label in (-1, 1) for label in labels) and 0 <= slope <= 1):
        raise ValueError(f"labels must be -1 or +1, and the slope in [0, 1], got {shown(labels)} and {shown(slope)}")
    if scale is not None and not (scale > 0 and feedback is None):
        raise ValueError(f"scale must be above 0 and without feedback, got {shown(scale)} and {shown(feedback)}")
    rows = [tuple(map(rational, row)) for row in inputs]
    normals: dict[tuple[fmpq, ...], int] = {}
    samples, names = [], []
    for (row, label), count in _counted(zip(rows, map(int, labels), strict=True)):
        kink, factor = _place(row, normals)
        if len(normals) > len(names):
            names.append(rows.index(row))
        samples.append(Sample(kink, factor, label, fmpq(count, len(rows))))
    fixed = [None] * len(output) if feedback is None else [rational(number) for number in feedback]
    given = list(zip((tuple(map(rational, row)) for row in hidden), map(rational, output), fixed, strict=True))
    merged = _counted(given)
    return ExactProblem(
        normals=fmpq_mat(len(normals), len(rows[0]), [entry for normal in normals for entry in normal]),
        names=tuple(names),
        samples=tuple(samples),
        neurons=tuple(Neuron(*neuron, count) for neuron, count in merged),
        neuron_of=tuple([neuron for neuron, _ in merged].index(one) for one in given),
        slope=rational(slope),
        loss=margin_loss(loss),
        scale=None if scale is None else rational(scale),
    )


def problem_of(flow: Flow, weights: Weights) -> ExactProblem:
    """Return the problem of a flow and its initial weights.

    Raises:
        ValueError: for a flow or weights that are not of the kind that can be enclosed.
    """
    if not isinstance(flow, Flow) or not isinstance(weights, Weights):
        kinds = f"{type(flow).__name__} and {type(weights).__name__}"
        raise ValueError(f"flow and weights must be a flowsim.Flow and flowsim.Weights, got {kinds}")
    if not weights.scalar_output:
        raise ValueError(f"weights must have one output to be enclosed, got {weights.layers[-1].shape[-2]}")
    require_finite(weights)
    if batch := tuple(flow.require_fit(weights)):
        raise ValueError(f"flow and weights must be of one trajectory to be enclosed, got batch shape {batch}")
    if not is_one_of(flow.rule, GradientDescent, FeedbackAlignment, SignFeedbackAlignment):
        raise ValueError(f"rule must be GD, FA or sign-FA to be enclosed, got {shown(flow.rule)}")
    if not flow.follows_rule:
        raise ValueError(f"flow must move by its rule alone, without decay, to be enclosed, got {flow!r}")
    if flow.activation.leaky_slope is None:
        raise ValueError(f"activation must be a leaky ReLU to be enclosed, got {flow.activation!r}")
    if flow.dataset.classes is not None:
        raise ValueError(f"labels must be -1 or +1 to be enclosed, got classes={flow.dataset.classes}")
    loss, rule = named(flow.loss), flow.rule
    if loss is not LOSSES.get(loss.name):
        raise ValueError(f"loss must be flowsim's own {', '.join(ENCLOSED)} to be enclosed, got the Loss {loss.name!r}")
    return exact_problem(
        flow.dataset.inputs.tolist(),
        flow.dataset.labels.tolist(),
        weights.hidden.tolist(),
        weights.output.tolist(),
        feedback=_vector(rule.feedback_matrices(weights)) if isinstance(rule, FeedbackAlignment) else None,
        scale=rule.scale if isinstance(rule, SignFeedbackAlignment) else None,
        slope=flow.slope,
        loss=loss.name,
    )


def _vector(matrices: tuple[Tensor, ...]) -> list[float]:
    return matrices[0].reshape(-1).tolist()


def _counted(items: Iterable[Item]) -> list[tuple[Item, int]]:
    """The different items in the order of their first occurrence, and how often each occurs."""
    counts: dict[Item, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return list(counts.items())


def _place(row: tuple[fmpq, ...], normals: dict[tuple[fmpq, ...], int]) -> tuple[int | None, fmpq]:
    """The kink of an input and its factor; a new kink has the input itself as its normal."""
    if not any(row):
        return None, fmpq(0)
    for normal, kink in normals.items():
        lead = next(c for c, entry in enumerate(normal) if entry)
        factor = row[lead] / normal[lead]
        if factor and all(a == factor * b for a, b in zip(row, normal, strict=True)):
            return kink, factor
    normals[row] = len(normals)
    return normals[row], fmpq(1)
