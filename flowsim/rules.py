r"""Learning rules: which feedback weights carry the error back (theorems/README.md, section 1).

A rule gives the feedback matrices at given weights; `Flow` uses them in the place of the transposed forward weights.
Where a feedback matrix is the gradient of a potential Psi of the forward weights that it stands for,
Psi(W_{l+1}[:, i]) - |W_l[i, :]|^2 / 2 is what the flow conserves (Theorem 5.2, section 4):

    GradientDescent             B = W            Psi = |W|^2 / 2
    FeedbackAlignment           B fixed          Psi = <W, B>
    SignFeedbackAlignment       B = s sign(W)    Psi = s |W|_1
    DirectFeedbackAlignment     B fixed          Psi = <W, B> at the last hidden layer, none below it

A rule of one's own derives from `Rule`, which asks for the feedback matrices only. What else it says about itself makes
more of the library work with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.validation import as_finite, as_nonzero, require_positive, shown
from flowsim.weights import NetworkWeights


class Rule(ABC):
    """What is asked of a learning rule. Only `feedback_matrices` must be given; all else has a default.

    | who asks | what |
    |---|---|
    | `Flow`, and so the Runge-Kutta methods | `feedback_matrices`, `direct` |
    | `Solution.events` of a Runge-Kutta method | `at_zero` |
    | the event-driven integrator | `fixed` or else `feedback_term`; `at_zero`, `feedback_in_mode` |
    | `observables.conserved`, Theorem 5.2 | `potentials` |
    | `descent.step` | `divergences` |
    | `initialization.with_gaps` | `inverse_potential` |
    | ensembles of feedback weights | `map_matrices` |

    `solve` compares `fixed`, `feedback_term` and `potentials` with the matrices, and refuses what contradicts them.

    An example: Kolen and Pollack's rule moves feedback and forward weights alike, so that without decay W - B keeps its
    value and B = W + C is a function of W, the gradient of Psi = |W|^2 / 2 + <C, W>.

    >>> from flowsim import Dataset, Flow, Weights, solve
    >>> from flowsim.observables import conserved
    >>> class KolenPollack(Rule):
    ...     def __init__(self, difference):
    ...         self.difference = difference  # C, shaped like the output weights
    ...
    ...     def feedback_matrices(self, weights):
    ...         return (weights.layers[1] + self.difference,)
    ...
    ...     def potentials(self, weights):
    ...         output = weights.layers[1]
    ...         return ((0.5 * output.square() + self.difference * output).sum(-2),)
    >>> rule = KolenPollack(torch.tensor([0.5, -2.0], dtype=torch.float64))
    >>> flow = Flow(Dataset([[1.0, 0.0], [0.6, 1.2]], [1, -1]), rule)
    >>> solution = solve(flow, Weights(torch.eye(2), torch.tensor([1.0, 1.0])), t_final=1.0, method="dopri5")
    >>> (gaps,) = conserved(flow, solution.evaluate([0.0, 1.0]))
    >>> bool((gaps[1] - gaps[0]).abs().max() < 1e-8)
    True

    With `feedback_term`, here the term of W itself for k >= 1, it runs under `method="event"`, too.
    """

    direct: ClassVar[bool] = False
    """Whether each matrix carries the error of the outputs to its hidden layer, and not that of the layer above."""

    fixed: ClassVar[bool] = False
    """Whether the feedback stays the same while weights move and none of them changes its sign."""

    at_zero: ClassVar[Literal["nothing", "jumps", "vanishes"]] = "nothing"
    """What happens to an entry of the feedback where the weight that it stands for passes 0: nothing; it jumps; or it
    vanishes with it, having its sign on both sides. Where it vanishes, kinks that attracted now repel."""

    @abstractmethod
    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """B_2 .. B_{H+1}, shaped like W_2 .. W_{H+1} (up to batch dimensions), see `feedback_shapes`.

        They may depend on W_2 .. W_{H+1}, but not on W_1, which is solved for in the span of the inputs.
        """

    def feedback_shapes(self, weights: NetworkWeights) -> list[tuple[int, int]]:
        """The shapes of the feedback matrices without batch dimensions: for each hidden layer (m_{l+1}, m_l).

        With `direct` feedback (k, m_l).
        """
        above, outputs = weights.layers[1:], weights.layers[-1].shape[-2]
        return [(outputs if self.direct else layer.shape[-2], layer.shape[-1]) for layer in above]

    def feedback_in_mode(self, weights: NetworkWeights, signs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The feedback matrices if the weights W_2 .. W_{H+1} have the given signs, which matter where they are 0.

        Where the feedback jumps these are its limits from the given side.
        """
        if self.at_zero != "jumps":
            return self.feedback_matrices(weights)
        first, *above = weights.layers
        smallest = [torch.finfo(layer.dtype).tiny * sign.to(layer) for layer, sign in zip(above, signs, strict=True)]
        sided = [torch.where(w.sign() == s.sign(), w, s) for w, s in zip(above, smallest, strict=True)]
        return self.feedback_matrices(weights.with_layers([first, *sided]))

    def feedback_term(
        self, weights: Float[Tensor, "one_more *batch k m"], feedback: Float[Tensor, "terms *batch k m"]
    ) -> Float[Tensor, "*batch k m"] | None:
        """The next Taylor coefficient of B of a two-layer network along a curve, given one more of W_2 than of B.

        It has order k = len(feedback) >= 1. None if it is not known, the default. `fixed` feedback has no such terms.
        """
        return None

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor | None, ...]:
        """Psi(W_{l+1}[:, i]) for each hidden layer l, `*batch x m_l`; None for a layer that has no law. The default."""
        return (None,) * (len(weights.layers) - 1)

    def layers_with_law(self, weights: NetworkWeights) -> list[int]:
        """The hidden layers l = 1 .. H at which the rule conserves something: those with a potential."""
        return [number for number, potential in enumerate(self.potentials(weights), 1) if potential is not None]

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor | None, ...]:
        """D_Psi(W', W) = Psi(W') - Psi(W) - <B(W), W' - W> for each W_{l+1}[:, i], `*batch x m_l`; None as above.

        The default takes these differences, and so has the rounding of Psi.
        """
        found = []
        layers = zip(before.layers[1:], after.layers[1:], self.feedback_matrices(before), strict=True)
        potentials = zip(self.potentials(before), self.potentials(after), strict=True)
        for (old, new, matrix), (first, second) in zip(layers, potentials, strict=True):
            if first is None or second is None:
                found.append(None)
            else:
                found.append(second - first - (matrix * (new - old)).sum(-2))
        return tuple(found)

    def inverse_potential(
        self, potential: Float[Tensor, "*batch m"], signs: Float[Tensor, "*batch m"] | None
    ) -> Float[Tensor, "*batch m"]:
        """The output weights v of a two-layer network with scalar output whose potentials are given.

        NaN where there are none. `signs` are those of v where the potential leaves a choice, all + if None.

        Raises:
            ValueError: if the rule does not know them.
        """
        raise ValueError(
            f"rule {type(self).__name__} must have inverse_potential to find output weights by their gaps; "
            "or choose them yourself"
        )

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> Rule:
        """Return the rule with `function` applied to each of its own feedback matrices (`*batch x p x q`).

        The default returns the rule itself: what it has of its own must have no batch dimensions.

        Raises:
            ValueError: if it has.
        """
        mapped = self.feedback_matrices(weights.with_layers([function(layer) for layer in weights.layers]))
        for before, after in zip(self.feedback_matrices(weights), mapped, strict=True):
            try:
                wanted = function(before.expand(*weights.batch_shape, *before.shape[-2:])).shape
                fits = after.expand(wanted).shape == wanted
            except RuntimeError:
                fits = False
            if not fits:
                raise ValueError(
                    f"rule {type(self).__name__} must have map_matrices if it holds feedback of an ensemble, "
                    f"got shape {tuple(after.shape)}"
                )
        return self


def require_rule(rule: Any) -> None:
    """Check that it is a learning rule.

    Raises:
        ValueError: if it is not, or if it is a class of rules.
    """
    if not isinstance(rule, Rule):
        raise ValueError(
            "rule must be GradientDescent(), FeedbackAlignment(feedback), SignFeedbackAlignment(scale), "
            "DirectFeedbackAlignment(feedback), or an instance of a class of your own derived from flowsim.Rule, "
            f"got {shown(rule)}"
        )


def require_feedback(rule: Rule, weights: NetworkWeights) -> tuple[Tensor, ...]:
    """Return the feedback matrices at the weights; they must fit the layers.

    Raises:
        ValueError: if their number or shapes are wrong.
    """
    matrices = rule.feedback_matrices(weights)
    wanted, given = rule.feedback_shapes(weights), [tuple(matrix.shape[-2:]) for matrix in matrices]
    if given != wanted:
        raise ValueError(f"feedback_matrices of rule {type(rule).__name__} must have shapes {wanted}, got {given}")
    return matrices


def is_one_of(rule: Rule, *kinds: type[Rule]) -> bool:
    """Whether it is a rule of one of these classes itself: what derives from them may have another feedback.

    >>> is_one_of(GradientDescent(), FeedbackAlignment, GradientDescent)
    True
    """
    return type(rule) in kinds


@dataclass(frozen=True)
class GradientDescent(Rule):
    """Gradient flow: B = W.

    >>> from flowsim import Weights
    >>> GradientDescent().potentials(Weights(torch.ones(2, 3), torch.tensor([1.0, 2.0])))
    (tensor([0.5000, 2.0000], dtype=torch.float64),)
    """

    at_zero = "vanishes"

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """The forward weights themselves."""
        return weights.layers[1:]

    def feedback_term(self, weights: Tensor, feedback: Tensor) -> Tensor:
        """That of the forward weights."""
        return weights[-1]

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """|W_{l+1}[:, i]|^2 / 2."""
        return tuple(0.5 * layer.square().sum(-2) for layer in weights.layers[1:])

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """|W' - W|^2 / 2."""
        pairs = zip(before.layers[1:], after.layers[1:], strict=True)
        return tuple(0.5 * (new - old).square().sum(-2) for old, new in pairs)

    def inverse_potential(self, potential: Tensor, signs: Tensor | None) -> Tensor:
        """v^2 = 2 Psi."""
        size = (2 * potential).sqrt()
        return size if signs is None else signs * size

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> GradientDescent:
        """The rule itself: it has no feedback weights of its own."""
        return self


@dataclass(frozen=True, eq=False)
class _FixedFeedback(Rule):
    """Feedback matrices that stay what they are."""

    feedback: Float[Tensor, "*batch m"] | Float[Tensor, "*batch k m"] | tuple[Tensor, ...]

    fixed = True

    def __init__(self, feedback: Any) -> None:
        if isinstance(feedback, (tuple, list)) and feedback and all(_is_matrix(entry) for entry in feedback):
            value = tuple(as_finite(f"feedback[{index}]", matrix) for index, matrix in enumerate(feedback))
        else:
            value = as_finite("feedback", feedback)
            if value.numel() == 0:
                raise ValueError(f"feedback must hold at least one number, got shape {tuple(value.shape)}")
        object.__setattr__(self, "feedback", value)

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """The fixed matrices, one for each hidden layer.

        Raises:
            ValueError: if they do not fit the layers.
        """
        if isinstance(self.feedback, tuple):
            matrices = self.feedback
        else:
            vector = weights.scalar_output and self.feedback.ndim > 0
            matrices = (self.feedback.unsqueeze(-2) if vector else self.feedback,)
        wanted, given = self.feedback_shapes(weights), [tuple(matrix.shape[-2:]) for matrix in matrices]
        if wanted != given:
            shaped = "one (k, m_l) for each hidden layer" if self.direct else "shaped like the layers above the first"
            raise ValueError(f"feedback must be {shaped}, which is {wanted} for these weights, got {given}")
        return matrices

    def inverse_potential(self, potential: Tensor, signs: Tensor | None) -> Tensor:
        """v = Psi / b.

        Raises:
            ValueError: if an entry of the feedback is 0, or it is not a vector b, or signs are given.
        """
        if signs is not None:
            raise ValueError("signs must not be given for feedback alignment: the feedback decides them")
        if isinstance(self.feedback, tuple):
            raise ValueError(f"feedback must be a vector b (*batch, m), got {len(self.feedback)} matrices")
        return potential / as_nonzero("feedback", self.feedback, potential)

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the rule with `function` applied to the feedback matrices."""
        return type(self)(tuple(function(matrix) for matrix in self.feedback_matrices(weights)))


@dataclass(frozen=True, eq=False, init=False)
class FeedbackAlignment(_FixedFeedback):
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

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """<W_{l+1}[:, i], B_{l+1}[:, i]>."""
        pairs = zip(weights.layers[1:], self.feedback_matrices(weights), strict=True)
        return tuple((layer * matrix).sum(-2) for layer, matrix in pairs)

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """0: Psi is linear."""
        return tuple(torch.zeros_like(layer[..., 0, :]) for layer in after.layers[1:])


@dataclass(frozen=True, eq=False, init=False)
class DirectFeedbackAlignment(_FixedFeedback):
    """Direct feedback alignment (Nokland 2016): fixed matrices carry the error of the outputs to every hidden layer.

    delta_l = phi'(z_l) * (B_l^T delta_{H+1}). For two layers it is feedback alignment. The last hidden layer has the
    same law. Those below have none: <B_l^T delta_{H+1}, a_l> is not the rate of any function of W_{l+1}.

    Args:
        feedback: for two layers as for `FeedbackAlignment`; for deep networks the tuple B_1 .. B_H, each
            `*batch x k x m_l`.

    Raises:
        ValueError: if an entry is not finite.

    >>> from flowsim import DeepWeights
    >>> rule = DirectFeedbackAlignment((torch.ones(1, 4), torch.tensor([[1.0, -1.0]])))
    >>> rule.potentials(DeepWeights((torch.ones(4, 3), torch.ones(2, 4), torch.tensor([[2.0, 3.0]]))))
    (None, tensor([ 2., -3.], dtype=torch.float64))
    """

    direct = True

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor | None, ...]:
        """<W_{H+1}[:, i], B_H[:, i]> for the last hidden layer; None for those below."""
        last = (weights.layers[-1] * self.feedback_matrices(weights)[-1]).sum(-2)
        return (*[None] * (len(weights.layers) - 2), last)

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor | None, ...]:
        """0 for the last hidden layer: Psi is linear."""
        return (*[None] * (len(after.layers) - 2), torch.zeros_like(after.layers[-1][..., 0, :]))


def _is_matrix(entry: Any) -> bool:
    """Whether this is an array, and no number."""
    return isinstance(entry, (Tensor, np.ndarray)) and entry.ndim > 0


@dataclass(frozen=True)
class SignFeedbackAlignment(Rule):
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

    fixed = True
    at_zero = "jumps"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", require_positive("scale", self.scale))

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """s sign(W_{l+1})."""
        return tuple(self.scale * torch.sign(layer) for layer in weights.layers[1:])

    def feedback_in_mode(self, weights: NetworkWeights, signs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """s times the given signs."""
        return tuple(self.scale * sign.to(weights.layers[0].dtype) for sign in signs)

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """s |W_{l+1}[:, i]|_1."""
        return tuple(self.scale * layer.abs().sum(-2) for layer in weights.layers[1:])

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """2 s |w'| for each entry that changes its sign, s |w'| for one that leaves 0."""
        pairs = zip(before.layers[1:], after.layers[1:], strict=True)
        return tuple(self.scale * (new.abs() * (1 - old.sign() * new.sign())).sum(-2) for old, new in pairs)

    def inverse_potential(self, potential: Tensor, signs: Tensor | None) -> Tensor:
        """|v| = Psi / s; there is none for Psi < 0."""
        size = torch.where(potential < 0, torch.nan, potential)
        return (size if signs is None else signs * size) / self.scale

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> SignFeedbackAlignment:
        """The rule itself: it has no feedback weights of its own."""
        return self
