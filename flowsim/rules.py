r"""Learning rules: which feedback weights carry the error back (theorems/README.md, section 1).

A rule gives the feedback matrices B_2 .. B_{H+1} at given weights; `Flow` uses them in the place of the transposed
forward weights. Each feedback matrix is the gradient of a potential Psi of the forward weights, and
Psi(W_{l+1}[:, i]) - |W_l[i, :]|^2 / 2 is what the flow conserves (Theorem 5.2, section 4):

    GradientDescent           B = W            Psi = |W|^2 / 2
    FeedbackAlignment         B fixed          Psi = <W, B>
    SignFeedbackAlignment     B = s sign(W)    Psi = s |W|_1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.validation import as_finite, require_positive
from flowsim.weights import NetworkWeights


@runtime_checkable
class Rule(Protocol):
    """What a flow needs of a learning rule."""

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """B_2 .. B_{H+1}, shaped like W_2 .. W_{H+1} (up to batch dimensions)."""
        ...

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """Psi(W_{l+1}[:, i]) for each hidden layer l, `*batch x m_l`."""
        ...

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """D_Psi(W', W) = Psi(W') - Psi(W) - <B(W), W' - W> for each W_{l+1}[:, i], `*batch x m_l`; never negative."""
        ...

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> Rule:
        """Return the rule with `function` applied to each of its own feedback matrices (`*batch x p x q`)."""
        ...


@dataclass(frozen=True)
class GradientDescent:
    """Gradient flow: B = W.

    >>> from flowsim import Weights
    >>> GradientDescent().potentials(Weights(torch.ones(2, 3), torch.tensor([1.0, 2.0])))
    (tensor([0.5000, 2.0000], dtype=torch.float64),)
    """

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """The forward weights themselves."""
        return weights.layers[1:]

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """|W_{l+1}[:, i]|^2 / 2."""
        return tuple(0.5 * layer.square().sum(-2) for layer in weights.layers[1:])

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """|W' - W|^2 / 2."""
        pairs = zip(before.layers[1:], after.layers[1:], strict=True)
        return tuple(0.5 * (new - old).square().sum(-2) for old, new in pairs)

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> GradientDescent:
        """The rule itself: it has no feedback weights of its own."""
        return self


@dataclass(frozen=True, eq=False)
class FeedbackAlignment:
    """Feedback alignment: B fixed. With B = W(0) it is adaFA, see `flowsim.initialization.adafa`.

    Args:
        feedback: shaped like the output weights of a two-layer network, b `*batch x m` or B `*batch x k x m`;
            for deep networks the tuple B_2 .. B_{H+1}, each shaped like its layer.

    Raises:
        ValueError: if an entry is not finite.

    >>> from flowsim import Weights
    >>> rule = FeedbackAlignment(torch.tensor([1.0, -1.0]))
    >>> rule.potentials(Weights(torch.ones(2, 3), torch.tensor([1.0, 2.0])))
    (tensor([ 1., -2.], dtype=torch.float64),)
    """

    feedback: Float[Tensor, "*batch m"] | Float[Tensor, "*batch k m"] | tuple[Tensor, ...]

    def __init__(self, feedback: Any) -> None:
        if isinstance(feedback, (tuple, list)) and feedback and all(_is_matrix(entry) for entry in feedback):
            value = tuple(as_finite(f"feedback[{index}]", matrix) for index, matrix in enumerate(feedback))
        else:
            value = as_finite("feedback", feedback)
            if value.numel() == 0:
                raise ValueError(f"feedback must hold at least one number, got shape {tuple(value.shape)}")
        object.__setattr__(self, "feedback", value)

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """The fixed matrices B_2 .. B_{H+1}.

        Raises:
            ValueError: if they are not shaped like the layers that they stand for.
        """
        if isinstance(self.feedback, tuple):
            matrices = self.feedback
        else:
            vector = weights.scalar_output and self.feedback.ndim > 0
            matrices = (self.feedback.unsqueeze(-2) if vector else self.feedback,)
        wanted = [tuple(layer.shape[-2:]) for layer in weights.layers[1:]]
        given = [tuple(matrix.shape[-2:]) for matrix in matrices]
        if wanted != given:
            raise ValueError(f"feedback must be shaped like the layers above the first, {wanted}, got {given}")
        return matrices

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """<W_{l+1}[:, i], B_{l+1}[:, i]>."""
        pairs = zip(weights.layers[1:], self.feedback_matrices(weights), strict=True)
        return tuple((layer * matrix).sum(-2) for layer, matrix in pairs)

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """0: Psi is linear."""
        return tuple(torch.zeros_like(layer[..., 0, :]) for layer in after.layers[1:])

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> FeedbackAlignment:
        """Return the rule with `function` applied to the feedback matrices."""
        return FeedbackAlignment(tuple(function(matrix) for matrix in self.feedback_matrices(weights)))


def _is_matrix(entry: Any) -> bool:
    """Whether this is an array, and no number."""
    return isinstance(entry, (Tensor, np.ndarray)) and entry.ndim > 0


@dataclass(frozen=True)
class SignFeedbackAlignment:
    """Sign feedback alignment: B = s sign(W), with sign(0) = 0.

    Args:
        scale: s > 0.

    Raises:
        ValueError: if the scale is not positive and finite.

    >>> from flowsim import Weights
    >>> SignFeedbackAlignment(0.5).potentials(Weights(torch.ones(2, 3), torch.tensor([1.0, -2.0])))
    (tensor([0.5000, 1.0000], dtype=torch.float64),)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", require_positive("scale", self.scale))

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """s sign(W_{l+1})."""
        return tuple(self.scale * torch.sign(layer) for layer in weights.layers[1:])

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """s |W_{l+1}[:, i]|_1."""
        return tuple(self.scale * layer.abs().sum(-2) for layer in weights.layers[1:])

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """2 s |w'| for each entry that changes its sign, s |w'| for one that leaves 0."""
        pairs = zip(before.layers[1:], after.layers[1:], strict=True)
        return tuple(self.scale * (new.abs() * (1 - old.sign() * new.sign())).sum(-2) for old, new in pairs)

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> SignFeedbackAlignment:
        """The rule itself: it has no feedback weights of its own."""
        return self
