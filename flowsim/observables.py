"""What is measured along a solution: functions of a flow and weights, broadcasting over times and ensemble.

    accuracy              the share of samples on the right side
    alignment             cos(W_l, B_l) per layer, and over the network           Def. 4.1
    alignment_bound       what is proved of it, from the start                    Proposition 5.3, Lemma 5.4
    conserved             Psi(W_{l+1}[:, i]) - |W_l[i, :]|^2 / 2                   Theorem 5.2, Eq. (2)
    descent_factors       |grad|, |fa|, their cosine and inner product            Eq. (1)
    dominance_ratio       <grad, fa> / (L - L*)^alpha                             Def. 4.2
    normalized_margin     min_i y_i f(x_i) / |theta|^(H+1)                        Lyu and Li (2020)

Formulas: theorems/README.md, sections 2 and 4. The risk itself is `Flow.risk`, its logarithm `Flow.log_risk`. All raise
a ValueError for arguments that are no flow and weights; those that need the outputs, for weights that do not fit the
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.errors import UndefinedError
from flowsim.flow import Flow, Slopes
from flowsim.rules import FeedbackAlignment, SignFeedbackAlignment, is_one_of
from flowsim.validation import require_count, require_positive, shown
from flowsim.weights import NetworkWeights, require_weights


def accuracy(flow: Flow, weights: NetworkWeights) -> Float[Tensor, "*batch"]:
    """The share of samples with y f > 0, or with the largest output at their class.

    >>> from flowsim import Dataset, GradientDescent, Weights
    >>> flow = Flow(Dataset([[1.0], [-1.0]], [1, 1]), GradientDescent())
    >>> accuracy(flow, Weights(torch.ones(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))).item()
    0.5
    """
    _layers(flow, weights)
    outputs, targets = flow.outputs(weights), flow.dataset.targets
    if flow.dataset.classes is None:
        right = (outputs * targets > 0).squeeze(-1)
    else:
        right = outputs.argmax(-1) == targets.argmax(-1)
    return right.to(outputs.dtype).mean(-1)


def normalized_margin(flow: Flow, weights: NetworkWeights) -> Float[Tensor, "*batch"]:
    """min_i y_i f(x_i) / |theta|^(H+1), which rescaling all weights leaves as it is; below 0 if a sample is wrong.

    With classes the output at the sample's class, less the largest at another, stands for y_i f(x_i).

    >>> from flowsim import Dataset, GradientDescent, Weights
    >>> flow = Flow(Dataset([[2.0]], [1]), GradientDescent())
    >>> round(normalized_margin(flow, Weights(torch.ones(1, 1), torch.ones(1))).item(), 12)
    1.0
    """
    layers = _layers(flow, weights)
    outputs, targets = flow.outputs(weights), flow.dataset.targets
    if flow.dataset.classes is None:
        margins = (outputs * targets).squeeze(-1)
    else:
        own = (outputs * targets).sum(-1)
        margins = own - outputs.masked_fill(targets > 0, -torch.inf).amax(-1)
    return margins.amin(-1) / _norm(layers) ** len(layers)


def alignment(
    flow: Flow, weights: NetworkWeights, feedback: Sequence[Tensor] | None = None
) -> tuple[Float[Tensor, "*batch"], ...]:
    """cos(W_l, B_l) = <W_l, B_l> / (|W_l|_F |B_l|_F) of the layers l = 2 .. H+1 (NaN where one of them is 0).

    `feedback` as in `Flow.velocity`: B where the weights do not tell it.

    Raises:
        ValueError: if the feedback is direct past other layers, and so not shaped like the forward weights.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0, 1.0]))
    >>> cosine, = alignment(flow, Weights(torch.ones(2, 1), torch.tensor([3.0, 4.0])))
    >>> round(cosine.item(), 6) == round(7 / (5 * 2**0.5), 6)
    True
    """
    layers = _layers(flow, weights)
    _require_forward(flow, layers)
    matrices = flow.rule.feedback_matrices(weights) if feedback is None else feedback
    pairs = zip(layers[1:], matrices, strict=True)
    return tuple(_cosine([layer], [feedback]) for layer, feedback in pairs)


def network_alignment(flow: Flow, weights: NetworkWeights) -> Float[Tensor, "*batch"]:
    """The cosine of all forward weights W_2 .. W_{H+1} with all feedback weights, as one vector each.

    Raises:
        ValueError: as `alignment`.
    """
    layers = _layers(flow, weights)
    _require_forward(flow, layers)
    return _cosine(layers[1:], flow.rule.feedback_matrices(weights))


def alignment_bound(flow: Flow, weights: NetworkWeights) -> tuple[Float[Tensor, "*batch"], ...]:
    """The numbers below which cos(W_l, B_l), l = 2 .. H+1, never falls from these initial weights, by the paper.

    Under sign-FA 1/sqrt(N_l) at a layer with N_l entries (Proposition 5.3). Under FA, for a leaky ReLU and a scalar
    output, min |b_j| / |b| at the last layer where all of its c_j >= 0 and b_j != 0 (Lemma 5.4; theorems/README.md,
    section 14, for deep networks). NaN where nothing is promised.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0, 3.0]))
    >>> hidden, output = torch.ones(2, 2, 1), torch.tensor([[0.5, 1.0], [0.4, 1.0]])  # c = 0 and 2.5; -0.1 and 2.5
    >>> alignment_bound(flow, Weights(hidden, output))
    (tensor([0.3162,    nan], dtype=torch.float64),)
    """
    layers = _layers(flow, weights)
    batch = flow.require_fit(weights)
    if is_one_of(flow.rule, SignFeedbackAlignment):
        return tuple(layer.new_full(batch, layer.shape[-2:].numel() ** -0.5) for layer in layers[1:])
    bounds = [layer.new_full(batch, torch.nan) for layer in layers[1:]]
    scalar, leaky = layers[-1].shape[-2] == 1, flow.activation.leaky_slope is not None
    if is_one_of(flow.rule, FeedbackAlignment) and flow.follows_rule and scalar and leaky:
        gaps, feedback = conserved(flow, weights)[-1], flow.rule.feedback_matrices(weights)[-1].squeeze(-2)
        holds = (gaps >= -rounding_of_gaps(layers[-2])).all(-1) & (feedback != 0).all(-1)
        bounds[-1] = torch.where(holds, smallest_share(feedback), torch.nan).expand(batch)
    return tuple(bounds)


def smallest_share(feedback: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch"]:
    """min |b_j| / |b|, which is 1 / sqrt(m) for b in {-1, +1}^m: the bound of Lemma 5.4."""
    return feedback.abs().amin(-1) / feedback.norm(dim=-1)


def rounding_of_gaps(hidden: Float[Tensor, "*batch m d"]) -> Float[Tensor, "*batch m"]:
    """A bound on the rounding of c_j where b_j v_j was chosen to be near |w_j|^2 / 2, a sum of d squares."""
    return 2 * hidden.shape[-1] * torch.finfo(hidden.dtype).eps * 0.5 * hidden.square().sum(-1)


def _require_forward(flow: Flow, layers: Sequence[Tensor]) -> None:
    if flow.rule.direct and len(layers) > 2:
        raise UndefinedError(
            f"rule {type(flow.rule).__name__} must stand for the forward weights to be compared with them, "
            f"but it passes over layers in a network of {len(layers)}"
        )


def conserved(
    flow: Flow, weights: NetworkWeights, layers: Sequence[int] | None = None
) -> tuple[Float[Tensor, "*batch _m"], ...]:
    """Psi(W_{l+1}[:, i]) - |W_l[i, :]|^2 / 2 for the neurons i of the given hidden layers, all l = 1 .. H if None.

    Psi is the rule's potential: <W, B> for FA, s |W|_1 for sign-FA, |W|^2 / 2 for GD. For a scalar output these are
    the gaps c_j = b_j v_j - |w_j|^2 / 2. Theorem 5.2: constant along the flow.

    Raises:
        ValueError: if there is no such layer, or the rule conserves nothing there: of direct feedback alignment ask for
            the last one only, `layers=[H]`.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0, -1.0]))
    >>> conserved(flow, Weights(torch.ones(2, 1), torch.tensor([3.0, 4.0])))
    (tensor([ 2.5000, -4.5000], dtype=torch.float64),)
    """
    matrices = _layers(flow, weights)
    potentials = dict(enumerate(flow.rule.potentials(weights), 1))
    found = []
    for number in potentials if layers is None else _numbers(layers, len(potentials)):
        potential = potentials[number]
        if potential is None:
            where = flow.rule.layers_with_law(weights)
            cure = f"ask for layers={where}" if where else "it has no potentials"
            name = type(flow.rule).__name__
            raise UndefinedError(f"rule {name} conserves nothing at hidden layer {number} of {len(potentials)}: {cure}")
        found.append(potential - 0.5 * matrices[number - 1].square().sum(-1))
    return tuple(found)


def _numbers(layers: Sequence[int], count: int) -> list[int]:
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        raise ValueError(f"layers must be a list of numbers of hidden layers, as [1], got {shown(layers)}")
    return [require_count("layers", number, most=count) for number in layers]


def conserved_per_layer(
    flow: Flow, weights: NetworkWeights, layers: Sequence[int] | None = None
) -> tuple[Float[Tensor, "*batch"], ...]:
    """The sum of `conserved` over the neurons of each hidden layer, Psi(W_{l+1}) - |W_l|_F^2 / 2."""
    return tuple(values.sum(-1) for values in conserved(flow, weights, layers))


class DescentFactors(NamedTuple):
    """The factors of Eq. (1), dL/dt = -|grad| |fa| cos; `product` is <grad, fa>, computed without dividing."""

    gradient_norm: Float[Tensor, "*batch"]
    update_norm: Float[Tensor, "*batch"]
    cosine: Float[Tensor, "*batch"]
    product: Float[Tensor, "*batch"]


def descent_factors(
    flow: Flow, weights: NetworkWeights, slopes: Slopes | None = None, feedback: Sequence[Tensor] | None = None
) -> DescentFactors:
    """|grad|, |fa|, cos(grad, fa) (NaN where one of them is 0) and <grad, fa>, with d theta / dt = -fa.

    Weight decay, if the flow has any, is counted to fa, so that dL/dt = -<grad, fa> all the same.

    `slopes` and `feedback` as in `Flow.velocity`, for both: where the weights do not tell them.

    >>> from flowsim import Dataset, GradientDescent, Weights
    >>> flow = Flow(Dataset([[2.0]], [1]), GradientDescent())
    >>> factors = descent_factors(flow, Weights(torch.ones(1, 1), torch.ones(1)))
    >>> round(factors.cosine.item(), 12)
    1.0
    """
    _layers(flow, weights)
    return factors_of(flow.gradient(weights, slopes), flow.velocity(weights, slopes, feedback))


def factors_of(gradient: NetworkWeights, velocity: NetworkWeights) -> DescentFactors:
    """The factors of Eq. (1) from the gradient and d theta / dt = -fa."""
    along, update = gradient.layers, [-part for part in velocity.layers]
    return DescentFactors(_norm(along), _norm(update), _cosine(along, update), _inner(along, update))


def dominance_ratio(flow: Flow, weights: NetworkWeights, alpha: float) -> Float[Tensor, "*batch"]:
    """<grad, fa> / (L - L*)^alpha with L* = 0: alpha-alignment dominance says that it stays above some mu > 0.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> dominance_ratio(flow, Weights(torch.ones(1, 1), torch.zeros(1)), alpha=2).item()
    1.0
    """
    alpha = require_positive("alpha", alpha)
    return descent_factors(flow, weights).product / flow.risk(weights) ** alpha


def _layers(flow: Flow, weights: NetworkWeights) -> tuple[Tensor, ...]:
    if not isinstance(flow, Flow):
        raise ValueError(f"flow must be a flowsim.Flow, got {type(flow).__name__}: the order is flow, weights")
    require_weights("weights", weights)
    return weights.layers


def _inner(left: tuple[Tensor, ...] | list[Tensor], right: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Inner product over all layers."""
    return torch.stack([(a * b).sum((-2, -1)) for a, b in zip(left, right, strict=True)]).sum(0)


def _norm(layers: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return _inner(layers, layers).sqrt()


def _cosine(left: tuple[Tensor, ...] | list[Tensor], right: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return _inner(left, right) / (_norm(left) * _norm(right))
