"""The flow of a network under a learning rule: forward pass, risk, gradient, velocity.

Formulas: theorems/README.md, section 1. Every function broadcasts over leading dimensions, so that weights may carry
times in front of the ensemble, `*times x *batch x m x d`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.activation import Activation, LeakyReLU
from flowsim.data import Dataset
from flowsim.loss_check import require_consistent
from flowsim.losses import Loss, named
from flowsim.rules import Rule, require_feedback, require_rule
from flowsim.validation import require_not_negative, shown
from flowsim.weights import AnyWeights, NetworkWeights, Weights, require_weights

__all__ = ["Flow", "Weights"]

SLOPE = 0.3
"""Of the leaky ReLU where nothing else is said."""

NOT_OVERRIDDEN = {
    "activation": "give the flow an Activation instead",
    "decay": "give the flow a number instead",
    "follows_rule": "say moves_as_given = True if rule and decay are all that moves it",
}
"""What a subclass may not have under its name, and what it may do instead."""

Slopes = Sequence[Float[Tensor, "*batch n _m"]]
"""phi'(z_l) of each hidden layer."""


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Flow:
    """d theta / dt = -fa(theta) - decay theta for a leaky-ReLU network of any depth >= 2 on a data set.

    With a_0 = x, z_l = W_l a_{l-1}, a_l = phi(z_l), f = z_{H+1}, delta_{H+1} = -dl/df / n:

        delta_l = phi'(z_l) * (B_{l+1}^T delta_{l+1}),
        dW_l / dt = sum over samples of delta_l a_{l-1}^T - decay W_l

    with the feedback matrices B of the rule; under a rule with direct feedback B_l^T delta_{H+1} stands in the place of
    B_{l+1}^T delta_{l+1}. phi(z) = z for z > 0 and slope z for z <= 0; phi'(0) = slope.

    Args:
        dataset: inputs `*batch x n x d` and labels.
        rule: GradientDescent(), FeedbackAlignment(feedback), SignFeedbackAlignment(scale),
            DirectFeedbackAlignment(feedback), or one of your own, derived from `flowsim.Rule`.
        loss: "exponential", "logistic", "squared", "cross-entropy", or a `flowsim.losses.Loss`.
        slope: gamma in [0, 1]; 0 is ReLU, 1 a linear network. 0.3 if it is not given.
        activation: phi in the place of the leaky ReLU, see `flowsim.activation`; then there is no slope to be given.
        decay: of all weights, at least 0: L2 regularization by decay |theta|^2 / 2.

    Raises:
        ValueError: for an unknown loss or rule, a slope outside [0, 1] or beside an activation, a decay below 0, or a
            loss that does not fit the labels.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[2.0]], [1]), FeedbackAlignment([1.0]), slope=0.5)
    >>> weights = Weights(hidden=torch.tensor([[0.5]]), output=torch.tensor([0.0]))
    >>> flow.risk(weights).item(), flow.velocity(weights).hidden.item(), flow.velocity(weights).output.item()
    (1.0, 2.0, 1.0)
    """

    dataset: Dataset
    rule: Rule
    loss: str | Loss
    activation: Activation
    decay: float

    stays_in_span: ClassVar[bool] = True
    """But for its decay the first layer moves in the span of the inputs only, so that the flow can be reduced to it."""

    moves_as_given: ClassVar[bool] = True
    """Weights move by rule and decay, and by nothing else. False for a subclass, unless it says otherwise."""

    def __init__(
        self,
        dataset: Dataset,
        rule: Rule,
        loss: str | Loss = "exponential",
        slope: float | None = None,
        activation: Activation | None = None,
        decay: float = 0.0,
    ) -> None:
        if slope is not None and activation is not None:
            given = f"{shown(slope)} and {shown(activation)}"
            raise ValueError(f"slope must not be given beside an activation, got {given}: leave it out")
        if activation is None:
            activation = LeakyReLU(SLOPE if slope is None else slope)
        decay = require_not_negative("decay", decay)
        fields = {"dataset": dataset, "rule": rule, "loss": loss, "activation": activation, "decay": decay}
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.moves_as_given = cls.__dict__.get("moves_as_given", False)
        for name, cure in NOT_OVERRIDDEN.items():
            if name in cls.__dict__:
                raise TypeError(f"{cls.__name__} must not override {name}: {cure}")

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, Dataset):
            raise ValueError(
                f"dataset must be a flowsim.Dataset, got {type(self.dataset).__name__}: "
                "the order is dataset, rule, loss, slope"
            )
        require_rule(self.rule)
        if not isinstance(self.activation, Activation):
            raise ValueError(
                "activation must be LeakyReLU(slope), Tanh(), Softplus() or an instance of a "
                f"flowsim.activation.Activation of your own, got {shown(self.activation)}"
            )
        loss = named(self.loss)
        kind = "signs" if self.dataset.classes is None else "classes"
        if loss.targets not in ("any", kind):
            raise ValueError(f"loss {loss.name!r} is for {_unfit(loss.targets, self.dataset.classes)}")
        require_consistent(loss, self.dataset.targets, signs=self.dataset.classes is None)

    def __repr__(self) -> str:
        loss, slope = named(self.loss).name, self.activation.leaky_slope
        phi = repr(self.activation) if slope is None else f"slope {slope:g}"
        decay = f", decay {self.decay:g}" if self.decay > 0 else ""
        return f"{type(self).__name__}({self.dataset!r}, {type(self.rule).__name__}, {loss} loss, {phi}{decay})"

    @property
    def slope(self) -> float:
        """The slope of the leaky ReLU.

        Raises:
            ValueError: if the activation is another one.
        """
        if self.activation.leaky_slope is None:
            raise ValueError(f"activation must be a leaky ReLU to have a slope, got {self.activation!r}")
        return self.activation.leaky_slope

    @property
    def follows_rule(self) -> bool:
        """Whether weights move as the rule says and by nothing else, so that its laws hold: without decay."""
        return self.moves_as_given and self.decay == 0

    def require_fit(self, weights: NetworkWeights) -> torch.Size:
        """Return the joint ensemble shape `*batch` of data set, feedback and weights.

        Raises:
            ValueError: if the weights do not fit the inputs, the labels, the feedback or their batch shapes.
        """
        self.layers_of(weights)
        return self._joint_shape(weights, require_feedback(self.rule, weights))

    def _joint_shape(self, weights: NetworkWeights, feedback: Sequence[Tensor] = ()) -> torch.Size:
        shapes = [self.dataset.batch_shape, weights.batch_shape, *(matrix.shape[:-2] for matrix in feedback)]
        try:
            return torch.Size(np.broadcast_shapes(*shapes))  # torch's own imports sympy, which takes a second
        except ValueError:
            found = [tuple(shape) for shape in shapes]
            raise ValueError(f"batch shapes of data, weights and feedback must broadcast, got {found}") from None

    def layers_of(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """The layers of weights, which must fit data and labels.

        Raises:
            ValueError: if they are no weights, or do not fit the inputs, the labels, or their batch shapes.
        """
        require_weights("weights", weights)
        layers = weights.layers
        first, last = layers[0], layers[-1]
        if first.shape[-1] != self.dataset.dimension:
            raise ValueError(
                f"hidden weights must have d = {self.dataset.dimension} columns as the inputs, "
                f"got shape {tuple(first.shape)}"
            )
        outputs = self.dataset.targets.shape[-1]
        if last.shape[-2] != outputs:
            raise ValueError(
                f"output weights must give k = {outputs} outputs, one per label column, got {last.shape[-2]}"
            )
        self._joint_shape(weights)
        return layers

    def _forward(
        self, layers: Sequence[Tensor], slopes: Slopes | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Outputs, then a_0 .. a_H, z_1 .. z_H and phi'(z_1) .. phi'(z_H), each with samples as rows."""
        activations, pre_activations, derivatives = [self.dataset.inputs], [], []
        for level, layer in enumerate(layers[:-1]):
            pre_activations.append(activations[-1] @ layer.mT)
            if slopes is None:
                activation, derivative = self.activation(pre_activations[-1])
            else:
                activation, derivative = slopes[level] * pre_activations[-1], slopes[level]
            activations.append(activation)
            derivatives.append(derivative)
        return activations[-1] @ layers[-1].mT, activations, pre_activations, derivatives

    def _descent(
        self, layers: Sequence[Tensor], feedback: Sequence[Tensor], slopes: Slopes | None, direct: bool
    ) -> list[Tensor]:
        """dW_l / dt for each layer, with the given matrices in the backward pass, from layer to layer or direct."""
        outputs, activations, _, derivatives = self._forward(layers, slopes)
        error = named(self.loss).negative_gradient(outputs, self.dataset.targets) / self.dataset.samples
        delta, descent = error, [error.mT @ activations[-1]]
        for level in reversed(range(len(derivatives))):
            delta = derivatives[level] * ((error if direct else delta) @ feedback[level])
            descent.insert(0, delta.mT @ activations[level])
        return descent

    def forward(self, weights: NetworkWeights) -> tuple[Float[Tensor, "*batch n k"], tuple[Tensor, ...]]:
        """The outputs f(x_i) and the pre-activations z_1 .. z_H, from one pass."""
        outputs, _, pre_activations, _ = self._forward(self.layers_of(weights))
        return outputs, tuple(pre_activations)

    def pre_activations(self, weights: NetworkWeights) -> tuple[Float[Tensor, "*batch n _m"], ...]:
        """z_l of each hidden layer, entry (i, j) for sample i and neuron j."""
        return self.forward(weights)[1]

    def outputs(self, weights: NetworkWeights) -> Float[Tensor, "*batch n k"]:
        """f(x_i), with k = 1 for a scalar output."""
        return self.forward(weights)[0]

    def risk(self, weights: NetworkWeights) -> Float[Tensor, "*batch"]:
        """L = (1/n) sum_i l(f(x_i), y_i)."""
        return self.risk_of(self.outputs(weights))

    def risk_of(self, outputs: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch"]:
        """L of given outputs."""
        return named(self.loss).value(outputs, self.dataset.targets).mean(-1)

    def log_risk(self, weights: NetworkWeights) -> Float[Tensor, "*batch"]:
        """log L, also where L is below all floating-point numbers, if the loss has a `log_value`."""
        loss, (outputs, targets) = named(self.loss), (self.outputs(weights), self.dataset.targets)
        if loss.log_value is None:
            return self.risk_of(outputs).log()
        return torch.logsumexp(loss.log_value(outputs, targets), -1) - math.log(self.dataset.samples)

    def gradient(self, weights: AnyWeights, slopes: Slopes | None = None) -> AnyWeights:
        """The gradient of the risk, written out (phi'(0) = slope).

        `slopes` are the phi'(z_l) where the weights do not tell them: on a kink.
        """
        layers = self.layers_of(weights)
        return weights.with_layers([-part for part in self._descent(layers, layers[1:], slopes, False)])

    def velocity(
        self, weights: AnyWeights, slopes: Slopes | None = None, feedback: Sequence[Tensor] | None = None
    ) -> AnyWeights:
        """d theta / dt = -fa - decay theta, with the update direction fa of the rule.

        `slopes` and `feedback` are the phi'(z_l) and the matrices of the rule where the weights do not tell them: on
        a kink, or, under sign-FA, at an entry 0.
        """
        layers = self.layers_of(weights)
        matrices = self.rule.feedback_matrices(weights) if feedback is None else feedback
        moves = self._descent(layers, matrices, slopes, self.rule.direct)
        if self.decay > 0:
            moves = [move - self.decay * layer for move, layer in zip(moves, layers, strict=True)]
        return weights.with_layers(moves)

    def with_inputs(self, inputs: Float[Tensor, "*batch n r"]) -> Flow:
        """Return the same flow on other inputs with the same labels."""
        return replace(self, dataset=self.dataset.sharing(inputs, self.dataset.labels))

    def map_matrices(self, weights: AnyWeights, function: Callable[[Tensor], Tensor]) -> tuple[Flow, AnyWeights]:
        """Return flow and weights with `function` applied to inputs, labels, feedback and layers as `*batch x p x q`.

        Ensembles are flattened and taken apart with it; `function` must leave the last two dimensions alone.
        """
        data = self.dataset
        labels = function(data.labels.unsqueeze(-1)).squeeze(-1)
        flow = replace(
            self,
            dataset=data.sharing(function(data.inputs), labels),
            rule=self.rule.map_matrices(weights, function),
        )
        return flow, weights.with_layers([function(layer) for layer in weights.layers])


def _unfit(targets: str, classes: int | None) -> str:
    """What a loss is for, what the labels are instead, and which losses they have."""
    if targets == "signs":
        return f"labels -1 and +1, got {classes} classes: use cross-entropy or squared"
    return "classes, got labels -1 and +1: use exponential, logistic or squared, or give the data set classes=k"
