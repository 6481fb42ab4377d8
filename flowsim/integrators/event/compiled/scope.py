"""What the compiled kernel is for, and how it is told about a flow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from flowsim import losses
from flowsim.flow import Flow
from flowsim.integrators.event.compiled.problem import (
    CROSS_ENTROPY,
    EXPONENTIAL,
    FIXED,
    FORWARD,
    LOGISTIC,
    POLYNOMIAL,
    SIGNED,
    SQUARED,
    Problem,
)
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.records import Layout
from flowsim.rules import GradientDescent, Rule, SignFeedbackAlignment, is_one_of
from flowsim.weights import DeepWeights

LOSSES = {
    losses.exponential.origin: EXPONENTIAL, losses.logistic.origin: LOGISTIC, losses.squared.origin: SQUARED,
    losses.cross_entropy.origin: CROSS_ENTROPY,
}  # fmt: skip
"""The losses whose series are compiled, by how they are made; and all polynomial ones."""


def has_compiled_series(flow: Flow) -> bool:
    """Whether rule and loss of a flow are among those that are compiled, and its tensors on the CPU."""
    return _find_feedback(flow.rule) is not None and _find_loss(flow) is not None and flow.dataset.inputs.is_cpu


def require_decaying(flow: Flow) -> None:
    """Check that e^s times the drives of a flow can be told by their exponents, at all times s.

    Raises:
        ValueError: for the losses that are not a function of the margin y f.
    """
    loss = _find_loss(flow)
    if loss is None or loss[0] not in (EXPONENTIAL, LOGISTIC, POLYNOMIAL):
        raise ValueError(
            "time 'log' is for losses of the margin y f (exponential, logistic, polynomial), whose slope keeps all its "
            f"digits however small it is, got {losses.named(flow.loss).name!r}; use time='t'"
        )


def _find_feedback(rule: Rule) -> int | None:
    if is_one_of(rule, GradientDescent):
        return FORWARD
    if is_one_of(rule, SignFeedbackAlignment):
        return SIGNED
    return FIXED if rule.fixed and rule.at_zero == "nothing" else None


def _find_loss(flow: Flow) -> tuple[int, float] | None:
    """Which loss it is, and the power of a polynomial one."""
    origin = losses.named(flow.loss).origin
    if origin is not None and origin[0] is losses.polynomial:
        return POLYNOMIAL, float(origin[1])
    return (LOSSES[origin], 0.0) if origin in LOSSES else None


_PROBLEMS: WeakKeyDictionary[Flow, list[Problem]] = WeakKeyDictionary()


def find_problems(flow: Flow, layout: Layout, logarithmic: bool) -> list[Problem]:
    """The problems of the trajectories of a flattened ensemble, made once for each flow.

    Raises:
        ValueError: as `_make_problems`.
    """
    if flow not in _PROBLEMS:
        _PROBLEMS[flow] = _make_problems(flow, layout)
    problems = _PROBLEMS[flow]
    return [problem._replace(logarithmic=True) for problem in problems] if logarithmic else problems


def _make_problems(flow: Flow, layout: Layout) -> list[Problem]:
    """The problems of the trajectories of a flattened ensemble.

    Raises:
        ValueError: if an input is so long or short that its square may over- or underflow on the way of a neuron.
    """
    kinks, samples, count = Kinks.of(flow.dataset.inputs), flow.dataset.samples, flow.dataset.inputs.shape[0]
    widths = [layout.shapes[0][1], *(rows for rows, _ in layout.shapes)]
    zeros = [torch.zeros(1, dtype=torch.float64).expand(count, *shape) for shape in layout.shapes]
    matrices = flow.rule.feedback_matrices(DeepWeights.sharing(zeros))
    feedback, loss = _find_feedback(flow.rule), _find_loss(flow)
    assert feedback is not None and loss is not None
    everyone = [matrix.expand(count, *matrix.shape[-2:]).flatten(1) for matrix in matrices]
    shared = {
        "widths": np.array(widths),
        "at_weights": _add_up(above * below for below, above in itertools.pairwise(widths)),
        "at_signals": _add_up(samples * width for width in widths[1:]),
        "at_feedback": _add_up(matrix.shape[-2:].numel() for matrix in matrices),
        "rule": feedback, "direct": flow.rule.direct,
        "scale": float(flow.rule.scale) if isinstance(flow.rule, SignFeedbackAlignment) else 1.0,
        "loss": loss[0], "power": loss[1], "slope": float(flow.slope), "decay": float(flow.decay),
        "logarithmic": False,
    }  # fmt: skip
    problems = []
    for index in range(count):
        inputs = _as_array(flow.dataset.inputs[index])
        first, ratio, exists = _find_groups(kinks, index)
        problems.append(
            Problem(
                inputs=inputs,
                targets=_as_array(flow.dataset.targets[index]),
                gram=inputs @ inputs.T,
                feedback=_as_array(torch.cat([matrix[index] for matrix in everyone])),
                first=first,
                ratio=ratio,
                exists=exists,
                distinct=(first == np.arange(samples)).all(1),
                **shared,
            )
        )
    return problems


def _as_array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float64)


def _add_up(sizes: Iterable[int]) -> np.ndarray:
    return np.array([0, *itertools.accumulate(sizes)])


def _find_groups(kinks: Kinks, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which samples share kinks: in the first layer all parallel ones, above it those with a positive ratio only."""
    first, ratio = kinks.first[index].numpy(), kinks.ratio[index].numpy()
    above, ratio_above = np.arange(len(first)), np.ones(len(first))
    for i in np.flatnonzero(first != above):
        alike = np.flatnonzero((first == first[i]) & (ratio * ratio[i] > 0))
        above[i], ratio_above[i] = alike[0], ratio[i] / ratio[alike[0]]
    there = (kinks.length[index] > 0).numpy()
    exists = np.stack([there & (first == np.arange(len(first))), there & (above == np.arange(len(first)))])
    return np.stack([first, above]), np.stack([ratio, ratio_above]), exists
