"""Losses l and their negative gradients with respect to the outputs (theorems/README.md, section 1).

`value` maps outputs f and targets (both `*batch x n x k`) to `*batch x n`; `negative_gradient` to -dl/df,
`*batch x n x k`. The targets are the labels y in one column (k = 1), or one-hot classes.
All have the infimum 0, the paper's L*.

`series` differentiates along a curve: from the Taylor coefficients of f(t) it makes those of -dl/df, one by one, by the
recursion that a differential equation for the loss gives (section 10).
"""

from collections.abc import Callable, Generator
from dataclasses import KW_ONLY, dataclass, field
from itertools import count
from typing import Any, Literal, SupportsIndex

import torch
from torch import Tensor
from torch.nn import functional

from flowsim.messages import meant
from flowsim.validation import require_callable, require_positive, shown

EPS = torch.finfo(torch.float64).eps

Terms = Generator[Tensor, Tensor, None]
"""Is sent the Taylor coefficients k = 0, 1, .. of one function of time, and yields those of another.

It is started with `next`, which yields nothing of use.
"""


@dataclass(frozen=True)
class Loss:
    """A loss: its name, its value per sample, -dl/df, and which kind of targets it is defined for.

    A `negative_gradient` left out is derived from `value` by automatic differentiation. One that is given is compared
    with that when a `Flow` is made, and so is `series`: see `flowsim.loss_check`.

    `series(targets, order)`: the Terms of -dl/df from those of f, k <= order; None if there is no recursion, and only
    Runge-Kutta methods can be used. `stride(outputs, targets)`: how far they may go in one step of such a series,
    `*batch x n x k` or one number. Beyond may be a place where -dl/df is e^20 times larger without a trace in the first
    terms; the singularities of the logistic loss and of the cross-entropy are pi away, in f or in differences of
    outputs, that of the polynomial loss 1 + u. None if the gradient is linear. `log_value(outputs, targets)`: log l,
    also where l underflows; None: the logarithm of `value`.

    Raises:
        ValueError: if one of these is not a function, or there are no such targets.

    >>> cubic = Loss("cubic", lambda outputs, targets: (outputs - targets).abs().pow(3).sum(-1), targets="any")
    >>> cubic.negative_gradient(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    tensor([[-12.]])
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    negative_gradient: Callable[[Tensor, Tensor], Tensor] = None  # type: ignore[assignment]  # __post_init__ fills it in
    _: KW_ONLY
    targets: Literal["signs", "classes", "any"]
    series: Callable[[Tensor, int], Terms] | None = None
    stride: Callable[[Tensor, Tensor], Tensor | float] | None = None
    log_value: Callable[[Tensor, Tensor], Tensor] | None = None
    origin: tuple[Callable[..., "Loss"], str | float] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    """How one of flowsim's is made again, for pickle and files: a function and its argument. None for any other."""

    checked: set[tuple[int, int, bool]] = field(default_factory=set, init=False, repr=False, compare=False)
    """The sizes n, k, and whether labels are signs, for which the functions were found to belong to each other."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return super().__reduce_ex__(protocol) if self.origin is None else (self.origin[0], self.origin[1:])

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isprintable():
            raise ValueError(f"name must be a string of one line, got {shown(self.name)}")
        require_callable("value", self.value)
        if self.negative_gradient is None or isinstance(self.negative_gradient, Derived):
            object.__setattr__(self, "negative_gradient", Derived(self.value))
        for name in ("negative_gradient", "series", "stride", "log_value"):
            if (function := getattr(self, name)) is not None:
                require_callable(name, function)
        if self.targets not in ("signs", "classes", "any"):
            raise ValueError(f"targets must be 'signs', 'classes' or 'any', got {shown(self.targets)}")


@dataclass(frozen=True)
class Derived:
    """-dl/df of a loss by automatic differentiation of its value, also inside of inference mode."""

    value: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """-dl/df at the outputs, `*batch x n x k`."""
        with torch.inference_mode(False), torch.enable_grad():
            # tensors made under inference mode cannot be differentiated: copies can
            there, nested = outputs.clone(), outputs.requires_grad
            if not nested:
                there.requires_grad_()
            (gradient,) = torch.autograd.grad(self.value(there, targets.clone()).sum(), there, create_graph=nested)
        return -gradient


def _made_by(origin: tuple[Callable[..., Loss], str | float], loss: Loss) -> Loss:
    object.__setattr__(loss, "origin", origin)
    return loss


def _margin_loss(
    name: str,
    of: Callable[[Tensor], Tensor],
    negative_slope: Callable[[Tensor], Tensor],
    slope_series: Callable[[int], Terms],
    stride: Callable[[Tensor], Tensor | float],
    log_of: Callable[[Tensor], Tensor],
) -> Loss:
    """l(u) of the margin u = y f, from l, -l', the Terms of -l', how far u may go in one step, and log l."""

    def series(labels: Tensor, order: int) -> Terms:
        slope = slope_series(order)
        next(slope)
        term = labels
        while True:
            outputs = yield term
            term = labels * slope.send(labels * outputs)

    return Loss(
        name,
        value=lambda outputs, labels: of(labels * outputs).squeeze(-1),
        negative_gradient=lambda outputs, labels: labels * negative_slope(labels * outputs),
        targets="signs",
        series=series,
        stride=lambda outputs, labels: stride(labels * outputs),
        log_value=lambda outputs, labels: log_of(labels * outputs).squeeze(-1),
    )


def _sigmoid(u: Tensor) -> Tensor:
    """1 / (1 + exp(-u)); torch's, and its powers, are rounded by their place in memory: exp and log1p are not."""
    return 1 / (1 + torch.exp(-u))


def _power(u: Tensor, exponent: float) -> Tensor:
    """(1 + u)^a."""
    return torch.exp(exponent * torch.log1p(u))


class _Product:
    """Taylor coefficients sum_{l=first..k-last} a_l b_{k-l} of the product of two functions, known up to some order.

    The terms lie last: a sum over any other dimension is rounded by the place of a number among the others.
    """

    def __init__(self, order: int, like: Tensor) -> None:
        self.order = order
        self.left = like.new_empty(*like.shape, order + 1)
        self.reversed_right = torch.empty_like(self.left)

    def append(self, k: int, left: Tensor | None = None, right: Tensor | None = None) -> None:
        """Take a_k, b_k, or both."""
        if left is not None:
            self.left[..., k] = left
        if right is not None:
            self.reversed_right[..., self.order - k] = right

    def term(self, k: int, first: int = 0, last: int = 0) -> Tensor:
        """The coefficient k, without the first and the last terms of the sum."""
        start = self.order - k + first
        return (self.left[..., first : k + 1 - last] * self.reversed_right[..., start : self.order + 1 - last]).sum(-1)


def _exponential_terms(order: int) -> Terms:
    """g = exp(-u): g' = -u' g, so k g_k = -sum_{l=1..k} l u_l g_{k-l}."""
    u = yield torch.empty(0)
    g = torch.exp(-u)
    product = _Product(order, u)
    for k in count(1):
        product.append(k - 1, right=g)
        u = yield g
        product.append(k, left=(-k) * u)
        g = product.term(k, first=1) / k


def _logistic_terms(order: int) -> Terms:
    """g = 1 / (1 + exp(u)): g' = -u' w with w = g (1 - g)."""
    u = yield torch.empty(0)
    g = _sigmoid(-u)
    w = g * _sigmoid(u)
    by_u, square = _Product(order, u), _Product(order, u)
    away = 1 - 2 * g
    for k in count(1):
        square.append(k - 1, g, g)
        by_u.append(k - 1, right=w)
        u = yield g
        by_u.append(k, left=(-k) * u)
        g = by_u.term(k, first=1) / k
        w = away * g - square.term(k, first=1, last=1)


def _power_terms(order: int, factor: float, exponent: float) -> Terms:
    """g = c (1 + u)^a: (1 + u) g' = a u' g, so k (1 + u_0) g_k = sum_{l=1..k} (a l - (k - l)) u_l g_{k-l}."""
    u = yield torch.empty(0)
    base = torch.where(u > -1, 1 + u, torch.nan)
    g = torch.where(u > -1, factor * _power(u, exponent), torch.inf)
    plain, weighted = _Product(order, u), _Product(order, u)
    for k in count(1):
        plain.append(k - 1, right=g)
        weighted.append(k - 1, right=g)
        u = yield g
        plain.append(k, left=u)
        weighted.append(k, left=k * u)
        g = ((exponent + 1) * weighted.term(k, first=1) - k * plain.term(k, first=1)) / (k * base)


def _log_logistic(u: Tensor) -> Tensor:
    """log log(1 + e^-u) = -u + log(log(1 + x) / x) with x = e^-u, which is -u but for x / 2 where x is small."""
    x = torch.exp(-u)
    return torch.where(x > EPS, torch.log(-functional.logsigmoid(u.clamp(max=700.0))), -u)


def polynomial(power: float) -> Loss:
    """l(u) = (1 + u)^(-p) for margins u > -1, infinite below: dominance with alpha = 2 + 2/p (section 3).

    Raises:
        ValueError: if the power p is not positive.

    >>> polynomial(2).value(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    tensor([0.2500])
    """
    p = require_positive("power", power)
    loss = _margin_loss(
        f"polynomial({p:g})",
        of=lambda u: torch.where(u > -1, _power(u, -p), torch.inf),
        negative_slope=lambda u: torch.where(u > -1, p * _power(u, -p - 1), torch.inf),
        slope_series=lambda order: _power_terms(order, p, -p - 1),
        stride=lambda u: 0.5 * (1 + u),
        log_of=lambda u: torch.where(u > -1, -p * torch.log1p(u), torch.inf),
    )
    return _made_by((polynomial, p), loss)


exponential = _margin_loss(
    "exponential",
    of=lambda u: torch.exp(-u),
    negative_slope=lambda u: torch.exp(-u),
    slope_series=_exponential_terms,
    stride=lambda u: 3.0,
    log_of=lambda u: -u,
)
"""l(u) = exp(-u), u = y f."""

logistic = _margin_loss(
    "logistic",
    of=lambda u: -functional.logsigmoid(u),
    negative_slope=lambda u: _sigmoid(-u),
    slope_series=_logistic_terms,
    stride=lambda u: 3.0,
    log_of=_log_logistic,
)
"""l(u) = log(1 + exp(-u)), u = y f (torch's softplus would be linear beyond 20, off by 2e-9 there)."""


def _squared_series(targets: Tensor, order: int) -> Terms:
    outputs = yield targets
    outputs = yield targets - outputs
    while True:
        outputs = yield -outputs


squared = Loss(
    "squared",
    value=lambda outputs, targets: 0.5 * (outputs - targets).square().sum(-1),
    negative_gradient=lambda outputs, targets: targets - outputs,
    targets="any",
    series=_squared_series,
)
"""l = |f - y|^2 / 2, with y the label +-1 or the one-hot class."""


def _cross_entropy_series(targets: Tensor, order: int) -> Terms:
    """p = softmax(f): p_c' = p_c (f_c' - a), a = sum_d p_d f_d'."""
    outputs = yield targets
    p = torch.softmax(outputs, -1)
    mean, change = _Product(order, p), _Product(order, p)
    term = targets - p
    for k in count(1):
        mean.append(k - 1, right=p)
        change.append(k - 1, right=p)
        outputs = yield term
        slope = k * outputs
        mean.append(k, left=slope)
        change.append(k, left=slope - mean.term(k, first=1).sum(-1, keepdim=True))
        p = change.term(k, first=1) / k
        term = -p


cross_entropy = Loss(
    "cross-entropy",
    value=lambda outputs, targets: -(targets * torch.log_softmax(outputs, -1)).sum(-1),
    negative_gradient=lambda outputs, targets: targets - torch.softmax(outputs, -1),
    targets="classes",
    series=_cross_entropy_series,
    stride=lambda outputs, targets: 1.5,
    log_value=lambda outputs, targets: _log_logistic(
        (targets * outputs).sum(-1) - torch.logsumexp(torch.where(targets > 0, -torch.inf, outputs), -1)
    ),
)
"""l = -log softmax(f)_y, with y the class."""

LOSSES = {loss.name: loss for loss in (exponential, logistic, squared, cross_entropy)}


def named(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the loss itself.

    Raises:
        ValueError: if there is no such loss, or it is not an instance of `Loss`.

    >>> named("logistic").name
    'logistic'
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(
            f"loss must be one of {', '.join(LOSSES)} or an instance of flowsim.losses.Loss, got {shown(loss)}"
            f"{meant(loss, LOSSES) if isinstance(loss, str) else ''}"
        )
    return LOSSES[loss]


for _loss in LOSSES.values():
    _made_by((named, _loss.name), _loss)
