"""What steps of stochastic gradient descent add to the conserved quantities, counted while an optimizer takes them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowsim.modules.groups import Group, Term
from flowsim.modules.law import (
    Channels,
    as_weights,
    conserved_in,
    feedback,
    gather,
    groups_of,
    incoming,
    outgoing,
    rule_of,
)
from flowsim.validation import require_positive, shown


class _Weights(NamedTuple):
    """Copies of the weights that the law is about, by layer, as matrices: what comes in, what goes out, and B."""

    incoming: dict[str, Tensor]
    outgoing: dict[str, Tensor]
    feedback: dict[str, Tensor]

    def alignment(self, term: Term) -> Tensor:
        """<B[:, c], W[:, c]> of all channels that a layer reads."""
        return (self.feedback[term.layer] * self.outgoing[term.layer]).sum(0)

    def squares(self, term: Term) -> Tensor:
        """|W[c]|^2 + b_c^2 of all channels that a layer writes."""
        return self.incoming[term.layer].square().sum(-1)


class Ledger:
    """Counts, step by step, what `torch.optim.SGD` adds to the quantities that the flow conserves.

    With momentum beta and decay lambda a step is u' = beta u + Delta - lambda W, W' = W + eta u', where Delta is the
    direction of descent of whatever mini-batch. The conserved quantity of a channel c changes by exactly

        eta carried + sum over readers D_Psi(W'[:, c], W[:, c]) - sum over writers |W'[c] - W[c]|^2 / 2,
        carried = beta mismatch - lambda (sum over readers <B[:, c], W[:, c]> - sum over writers |W[c]|^2)

    with the Bregman divergence D_Psi of the rule's potential and, after the step,

        mismatch' = carried + sum over readers <B'[:, c] - B[:, c], u'[:, c]> - eta sum over writers |u'[c]|^2,

    where W[c] has the bias with it, as in `conserved`. The law makes no other difference: what `drift - correction`
    leaves is rounding (theorems/README.md, section 13).

    Args:
        module: the network, see `conserved`.
        optimizer: a `torch.optim.SGD` of its parameters, with one step size, momentum (no Nesterov, no dampening) and
            decay for all; the step size may change between steps. The ledger is kept by hooks: train as you would.

    Raises:
        ValueError: if the optimizer is another, has other parameters, or if there is nothing conserved; at a step, if
            a parameter has no gradient.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    >>> ledger = Ledger(network, optimizer)
    >>> for _ in range(10):
    ...     optimizer.zero_grad()
    ...     network(torch.ones(5, 3, dtype=torch.float64)).square().sum().backward()
    ...     optimizer.step()
    >>> bool(ledger.drift["0 -> 2"].abs().max() > 1e-6)
    True
    >>> torch.testing.assert_close(ledger.drift, ledger.correction, rtol=0, atol=1e-14)
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer, self.groups = module, optimizer, groups_of(module)
        self._require_covered()
        self._settings()
        self.start: dict[str, Channels] = {group.name: conserved_in(module, group) for group in self.groups}
        """The conserved quantities before the first step."""
        self.correction: dict[str, Channels] = {name: torch.zeros_like(value) for name, value in self.start.items()}
        """What the steps so far have added, by the formula."""
        self.mismatch: dict[str, Channels] = {group.name: self._mismatch(group) for group in self.groups}
        """What momentum carries: 0 before the first step of an optimizer."""
        self._before: _Weights | None = None
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._open()),
            optimizer.register_step_post_hook(lambda *_: self._close()),
        ]

    @property
    def drift(self) -> dict[str, Channels]:
        """What the conserved quantities have changed by since the start."""
        return {group.name: conserved_in(self.module, group) - self.start[group.name] for group in self.groups}

    def state_dict(self) -> dict[str, dict[str, Channels]]:
        """What is needed to go on with a training that was saved, with those of the network and the optimizer."""
        return {name: dict(getattr(self, name)) for name in ("start", "correction", "mismatch")}

    def load_state_dict(self, state: dict[str, dict[str, Channels]]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: if it is that of another network.
        """
        for name in ("start", "correction", "mismatch"):
            mine, saved = getattr(self, name), state.get(name, {})
            if {key: value.shape for key, value in mine.items()} != {key: value.shape for key, value in saved.items()}:
                raise ValueError(f"state must have {name} of this network's groups, got {shown(list(saved))}")
            setattr(self, name, {key: saved[key].to(mine[key]) for key in mine})

    def close(self) -> None:
        """Take the hooks off the optimizer."""
        for hook in self._hooks:
            hook.remove()

    # --- one step ---

    def _open(self) -> None:
        self._settings()
        for name, parameter in self._parameters():
            if parameter.grad is None:
                raise ValueError(f"{name} must have a gradient at every step, got none: SGD leaves it where it is")
        self._before = self._weights()

    def _close(self) -> None:
        eta, momentum, decay = self._settings()
        assert self._before is not None  # the other hook came first
        before, after = self._before, self._weights()
        for group in self.groups:
            name = group.name
            readers, writers = partial(gather, group, group.readers), partial(gather, group, group.writers)
            pull = readers(before.alignment) - writers(before.squares)
            carried = momentum * self.mismatch[name] - decay * pull
            length = writers(lambda term: (after.incoming[term.layer] - before.incoming[term.layer]).square().sum(-1))
            turned = readers(lambda term: _turned(term.layer, before, after))
            divergence = readers(lambda term: self._divergence(term, before, after))
            self.correction[name] = self.correction[name] + eta * carried + divergence - 0.5 * length
            self.mismatch[name] = carried + (turned - length) / eta
        self._before = None

    def _weights(self) -> _Weights:
        readers = {term.layer: term for group in self.groups for term in group.readers}
        writers = {term.layer: term for group in self.groups for term in group.writers}
        return _Weights(
            {name: incoming(self.module, term) for name, term in writers.items()},
            {name: outgoing(self.module, term, _copy) for name, term in readers.items()},
            {name: feedback(self.module, term, _copy) for name, term in readers.items()},
        )

    def _divergence(self, term: Term, before: _Weights, after: _Weights) -> Tensor:
        """D_Psi(W'[:, c], W[:, c]) of all channels that a layer reads."""
        old, new = (as_weights(weights.outgoing[term.layer]) for weights in (before, after))
        (divergence,) = rule_of(self.module, term).divergences(old, new)
        assert divergence is not None  # these rules have a potential
        return divergence

    # --- what it is for ---

    def _settings(self) -> tuple[float, float, float]:
        """Step size, momentum and decay of the optimizer, which must be one for all parameters."""
        if type(self.optimizer) is not torch.optim.SGD:
            raise ValueError(f"optimizer must be a torch.optim.SGD, got {shown(self.optimizer)}")
        names = ("lr", "momentum", "weight_decay", "nesterov", "dampening", "maximize")
        settings = {tuple(options[name] for name in names) for options in self.optimizer.param_groups}
        if len(settings) > 1:
            raise ValueError(f"optimizer must have one {', '.join(names)} for all parameters, got {sorted(settings)}")
        eta, momentum, decay, nesterov, dampening, maximize = settings.pop()
        for name, value in (("nesterov", nesterov), ("dampening", dampening), ("maximize", maximize)):
            if value:
                raise ValueError(f"optimizer must be without {name}, got {name}={value}")
        return require_positive("lr", float(eta)), float(momentum), float(decay)

    def _require_covered(self) -> None:
        """The optimizer must move every parameter that the law is about."""
        moved = {id(parameter) for options in self.optimizer.param_groups for parameter in options["params"]}
        for name, parameter in self._parameters():
            if id(parameter) not in moved:
                raise ValueError(f"optimizer must have all parameters of module, got none for {name}")

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Those of the layers that the law is about."""
        for layer in dict.fromkeys(term.layer for group in self.groups for term in (*group.writers, *group.readers)):
            for name, parameter in self.module.get_submodule(layer).named_parameters(recurse=False):
                yield f"{layer}.{name}", parameter

    def _mismatch(self, group: Group) -> Channels:
        """That of the optimizer's momentum now: <B, u> over readers less <W, u> over writers."""

        def update(parameter: Tensor) -> Tensor:
            buffer = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            return torch.zeros_like(parameter) if buffer is None else -buffer

        def along(term: Term) -> Tensor:
            return (feedback(self.module, term) * outgoing(self.module, term, update)).sum(0)

        def against(term: Term) -> Tensor:
            return (incoming(self.module, term) * incoming(self.module, term, update)).sum(-1)

        return gather(group, group.readers, along) - gather(group, group.writers, against)


def _turned(layer: str, before: _Weights, after: _Weights) -> Tensor:
    """<B'[:, c] - B[:, c], W'[:, c] - W[:, c]> of all channels that a layer reads."""
    steps = after.outgoing[layer] - before.outgoing[layer]
    return ((after.feedback[layer] - before.feedback[layer]) * steps).sum(0)


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().clone()
