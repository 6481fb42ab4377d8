"""Weights of a network: the state that flows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.validation import as_finite, as_members, as_real, require_alike, require_callable, shown


@runtime_checkable
class NetworkWeights(Protocol):
    """What a flow needs of its state: the layers as matrices, and the way back."""

    @property
    def layers(self) -> tuple[Tensor, ...]:
        """W_1 .. W_{H+1}, each `*batch x fan_out x fan_in`; a scalar output is a layer with one row."""
        ...

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors as they were given, by name."""
        ...

    @property
    def batch_shape(self) -> torch.Size:
        """The ensemble's shape `*batch`."""
        ...

    @property
    def scalar_output(self) -> bool:
        """Whether the output weights are kept as a vector (*batch, m)."""
        ...

    def with_layers(self, layers: Sequence[Tensor]) -> Self:
        """Return weights of the same kind from matrices as in `layers`."""
        ...

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return weights of the same kind, `function` applied to every tensor."""
        ...


AnyWeights = TypeVar("AnyWeights", bound=NetworkWeights)


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """Weights of a two-layer network, theta = (W, v) or (W, V).

    Args:
        hidden: W, `*batch x m x d`; row j is w_j. Weights are copied, as float64 on the device they are on, and
            detached: no gradient flows back to the tensors given.
        output: v, `*batch x m` for a scalar output, or V, `*batch x k x m` for k outputs.

    Raises:
        ValueError: if the shapes do not fit each other.

    >>> Weights(hidden=torch.zeros(5, 3), output=torch.zeros(5)).layers[1].shape
    torch.Size([1, 5])
    """

    hidden: Float[Tensor, "*batch m d"]
    output: Float[Tensor, "*batch m"] | Float[Tensor, "*batch k m"]

    def __post_init__(self) -> None:
        self._set(as_real("hidden", self.hidden), as_real("output", self.output))

    def _set(self, hidden: Tensor, output: Tensor) -> None:
        object.__setattr__(self, "hidden", hidden)
        object.__setattr__(self, "output", output)
        if hidden.ndim < 2 or 0 in hidden.shape[-2:]:
            raise ValueError(f"hidden must have shape (*batch, m, d) with m, d >= 1, got {tuple(hidden.shape)}")
        batch = hidden.shape[:-2]
        scalar = output.shape[:-1] == batch and output.ndim == hidden.ndim - 1
        vector = output.shape[:-2] == batch and output.ndim == hidden.ndim
        if not (scalar or vector) or output.shape[-1] != hidden.shape[-2]:
            raise ValueError(
                f"output must have shape (*batch, m) or (*batch, k, m) with (*batch, m) = "
                f"{tuple(hidden.shape[:-1])} as in hidden, got {tuple(output.shape)}"
            )

    @classmethod
    def sharing(cls, hidden: Float[Tensor, "*batch m d"], output: Tensor) -> Weights:
        """Weights that share the tensors given, for what is computed: not copied, not detached."""
        weights = object.__new__(cls)
        weights._set(hidden.to(torch.float64), output.to(torch.float64))
        return weights

    def __repr__(self) -> str:
        return f"Weights(hidden {tuple(self.hidden.shape)}, output {tuple(self.output.shape)})"

    @property
    def layers(self) -> tuple[Tensor, ...]:
        """W_1 and W_2 as matrices, `*batch x m x d` and `*batch x k x m` (k = 1 for a scalar output)."""
        return self.hidden, self.output.unsqueeze(-2) if self.scalar_output else self.output

    @property
    def tensors(self) -> dict[str, Tensor]:
        """`hidden` and `output`."""
        return {"hidden": self.hidden, "output": self.output}

    @property
    def batch_shape(self) -> torch.Size:
        """The ensemble's shape `*batch`."""
        return self.hidden.shape[:-2]

    @property
    def scalar_output(self) -> bool:
        """Whether `output` is a vector v rather than a matrix V."""
        return self.output.ndim == self.hidden.ndim - 1

    def with_layers(self, layers: Sequence[Tensor]) -> Weights:
        """Return two-layer weights of the same kind of output from the matrices W_1 and W_2."""
        if len(layers) != 2:
            raise ValueError(f"layers must be the two matrices W_1 and W_2, got {len(layers)}")
        hidden, output = layers
        return Weights.sharing(hidden, output.squeeze(-2) if self.scalar_output else output)

    def map(self, function: Callable[[Tensor], Tensor]) -> Weights:
        """Return the weights with `function` applied to both tensors."""
        require_callable("function", function)
        return Weights.sharing(function(self.hidden), function(self.output))


@dataclass(frozen=True, eq=False, repr=False)
class DeepWeights:
    """Weights of a fully connected network with H >= 1 hidden layers.

    Args:
        layers: W_1 .. W_{H+1}, each `*batch x fan_out x fan_in`; copied and detached, as in `Weights`.

    Raises:
        ValueError: if there are fewer than two layers, or one does not fit the next.

    >>> DeepWeights((torch.zeros(4, 3), torch.zeros(5, 4), torch.zeros(1, 5))).batch_shape
    torch.Size([])
    """

    layers: tuple[Float[Tensor, "*batch _fan_out _fan_in"], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, (list, tuple)):
            raise ValueError(f"layers must be a tuple of matrices W_1 .. W_{{H+1}}, got {shown(self.layers)}")
        self._set(tuple(as_real(f"layers[{index}]", layer) for index, layer in enumerate(self.layers)))

    def _set(self, layers: tuple[Tensor, ...]) -> None:
        object.__setattr__(self, "layers", layers)
        if len(layers) < 2:
            raise ValueError(f"layers must hold at least two matrices, got {len(layers)}")
        shapes = [tuple(layer.shape) for layer in layers]
        for below, above in itertools.pairwise(shapes):
            fit = len(below) == len(above) >= 2 and below[:-2] == above[:-2] and below[-2] == above[-1]
            if not fit or 0 in below[-2:] + above[-2:]:
                raise ValueError(f"layers must fit each other as (*batch, fan_out, fan_in), got {shapes}")

    @classmethod
    def sharing(cls, layers: Sequence[Tensor]) -> DeepWeights:
        """Weights that share the tensors given, for what is computed: not copied, not detached."""
        weights = object.__new__(cls)
        weights._set(tuple(layer.to(torch.float64) for layer in layers))
        return weights

    def __repr__(self) -> str:
        return f"DeepWeights({', '.join(str(tuple(layer.shape)) for layer in self.layers)})"

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The layers by name, `layers[0]` to `layers[H]`."""
        return {f"layers[{index}]": layer for index, layer in enumerate(self.layers)}

    @property
    def batch_shape(self) -> torch.Size:
        """The ensemble's shape `*batch`."""
        return self.layers[0].shape[:-2]

    @property
    def scalar_output(self) -> bool:
        """False: the last layer of a deep network is always a matrix."""
        return False

    def with_layers(self, layers: Sequence[Tensor]) -> DeepWeights:
        """Return deep weights from the given matrices."""
        return DeepWeights.sharing(layers)

    def map(self, function: Callable[[Tensor], Tensor]) -> DeepWeights:
        """Return the weights with `function` applied to every layer."""
        require_callable("function", function)
        return DeepWeights.sharing([function(layer) for layer in self.layers])


def require_weights(name: str, weights: Any) -> None:
    """Check that `weights` are the weights of a network.

    Raises:
        ValueError: if they are something else.

    >>> require_weights("weights", (torch.ones(1, 1), torch.ones(1)))
    Traceback (most recent call last):
        ...
    ValueError: weights must be flowsim.Weights(hidden, output) or flowsim.DeepWeights(layers), got a tuple
    """
    if isinstance(weights, (Weights, DeepWeights)):
        return
    if isinstance(weights, type) or not all(
        hasattr(weights, part) for part in ("layers", "with_layers", "batch_shape")
    ):
        got = shown(weights) if isinstance(weights, type) else f"a {type(weights).__name__}"
        raise ValueError(f"{name} must be flowsim.Weights(hidden, output) or flowsim.DeepWeights(layers), got {got}")


def require_finite(weights: NetworkWeights) -> None:
    """Check that every weight is finite.

    Raises:
        ValueError: naming the tensor that holds a NaN or an infinity.

    >>> require_finite(Weights(torch.ones(1, 1), torch.tensor([float("nan")])))
    Traceback (most recent call last):
        ...
    ValueError: output must be finite, got nan at index (0,)
    """
    require_weights("weights", weights)
    for name, tensor in weights.tensors.items():
        as_finite(name, tensor)


def stack(ensemble: Sequence[AnyWeights]) -> AnyWeights:
    """Return the weights of several trajectories as one ensemble, along a new first dimension.

    Raises:
        ValueError: if there are none, or they differ in kind, shape or device.

    >>> stack([Weights(torch.zeros(2, 3), torch.zeros(2))] * 4).hidden.shape
    torch.Size([4, 2, 3])
    """
    members = as_members("ensemble", ensemble, (Weights, DeepWeights))
    require_alike(
        "ensemble",
        [
            (type(weights).__name__, *((tuple(part.shape), str(part.device)) for part in weights.tensors.values()))
            for weights in members
        ],
    )
    return members[0].with_layers([torch.stack(layers) for layers in zip(*(w.layers for w in members), strict=True)])
