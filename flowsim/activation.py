"""Activations phi and their derivatives (theorems/README.md, section 1).

    LeakyReLU(slope)    z for z > 0, slope z for z <= 0: what the statements are about
    Tanh(), Softplus()  not positively homogeneous: for controls

An activation of one's own derives from `Activation` and says what it is at z.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flowsim.validation import require_within


class Activation(ABC):
    """An activation: called with pre-activations z it returns phi(z) and phi'(z), entry by entry.

    >>> class Square(Activation):
    ...     def __call__(self, z):
    ...         return z.square(), 2 * z
    >>> Square()(torch.tensor([3.0]))
    (tensor([9.]), tensor([6.]))
    """

    @abstractmethod
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """phi(z) and phi'(z)."""

    @property
    def leaky_slope(self) -> float | None:
        """The slope for z <= 0 if phi is a leaky ReLU, as the event-driven integrator needs it; else None."""
        return None


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """phi(z) = z for z > 0 and slope z for z <= 0; phi'(0) = slope.

    Args:
        slope: gamma in [0, 1]; 0 is ReLU, 1 linear.

    Raises:
        ValueError: if the slope lies outside [0, 1].

    >>> LeakyReLU(0.5)(torch.tensor([-2.0, 0.0, 3.0]))
    (tensor([-1.,  0.,  3.]), tensor([0.5000, 0.5000, 1.0000]))
    """

    slope: float

    def __init__(self, slope: Any) -> None:
        object.__setattr__(self, "slope", require_within("slope", slope, 0, 1))

    def __init_subclass__(cls) -> None:
        raise TypeError(f"{cls.__name__} must derive from Activation: a LeakyReLU is solved by its slope alone")

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """phi(z) = phi'(z) z, and phi'(z)."""
        derivative = (z > 0).to(z.dtype).clamp(min=self.slope)
        return derivative * z, derivative

    @property
    def leaky_slope(self) -> float:
        """The slope."""
        return self.slope


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent, for which phi'(z) z is not phi(z).

    >>> Tanh()(torch.zeros(1))
    (tensor([0.]), tensor([1.]))
    """

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """tanh(z) and 1 - tanh(z)^2."""
        value = torch.tanh(z)
        return value, 1 - value.square()


@dataclass(frozen=True)
class Softplus(Activation):
    """A smooth ReLU, log(1 + e^z), for which phi'(z) z is not phi(z).

    >>> Softplus()(torch.zeros(1))
    (tensor([0.6931]), tensor([0.5000]))
    """

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log(1 + e^z) and 1 / (1 + e^-z)."""
        return -functional.logsigmoid(-z), torch.sigmoid(z)
