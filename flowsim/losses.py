"""Losses l and their negative gradients with respect to the outputs (theorems/README.md, section 1).

`value` maps outputs f and targets (both `*batch x n x k`) to `*batch x n`; `negative_gradient` to -dl/df,
`*batch x n x k`. The targets are the labels y in one column (k = 1), or one-hot classes.
All have the infimum 0, the paper's L*.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from flowsim.validation import require_positive


@dataclass(frozen=True)
class Loss:
    """A loss: its name, its value per sample, -dl/df, and which kind of targets it is defined for."""

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    negative_gradient: Callable[[Tensor, Tensor], Tensor]
    targets: Literal["signs", "classes", "any"]


def _margin_loss(name: str, of: Callable[[Tensor], Tensor], negative_slope: Callable[[Tensor], Tensor]) -> Loss:
    """l(u) of the margin u = y f, from l and -l'."""
    return Loss(
        name,
        value=lambda outputs, labels: of(labels * outputs).squeeze(-1),
        negative_gradient=lambda outputs, labels: labels * negative_slope(labels * outputs),
        targets="signs",
    )


def polynomial(power: float) -> Loss:
    """l(u) = (1 + u)^(-p) for margins u > -1, infinite below: dominance with alpha = 2 + 2/p (section 3).

    Raises:
        ValueError: if the power p is not positive.

    >>> polynomial(2).value(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    tensor([0.2500])
    """
    p = require_positive("power", power)
    return _margin_loss(
        f"polynomial({p:g})",
        of=lambda u: torch.where(u > -1, (1 + u) ** -p, torch.inf),
        negative_slope=lambda u: torch.where(u > -1, p * (1 + u) ** (-p - 1), torch.inf),
    )


exponential = _margin_loss("exponential", of=lambda u: torch.exp(-u), negative_slope=lambda u: torch.exp(-u))
"""l(u) = exp(-u), u = y f."""

logistic = _margin_loss("logistic", of=lambda u: -functional.logsigmoid(u), negative_slope=lambda u: torch.sigmoid(-u))
"""l(u) = log(1 + exp(-u)), u = y f (torch's softplus would be linear beyond 20, off by 2e-9 there)."""

squared = Loss(
    "squared",
    value=lambda outputs, targets: 0.5 * (outputs - targets).square().sum(-1),
    negative_gradient=lambda outputs, targets: targets - outputs,
    targets="any",
)
"""l = |f - y|^2 / 2, with y the label +-1 or the one-hot class."""

cross_entropy = Loss(
    "cross-entropy",
    value=lambda outputs, targets: -(targets * torch.log_softmax(outputs, -1)).sum(-1),
    negative_gradient=lambda outputs, targets: targets - torch.softmax(outputs, -1),
    targets="classes",
)
"""l = -log softmax(f)_y, with y the class."""

LOSSES = {loss.name: loss for loss in (exponential, logistic, squared, cross_entropy)}


def named(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the loss itself.

    Raises:
        ValueError: if there is no such loss.

    >>> named("logistic").name
    'logistic'
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)} or a Loss, got {loss!r}")
    return LOSSES[loss]
