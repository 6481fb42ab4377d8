"""Theorem 5.2 with weight sharing: conservation on channels, beyond the paper (README.md, section 13).

networks    small ones with every kind of layer, and those of the controls
measuring   both sides of the law in a backward pass, along a flow, and over steps
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from flowsim.modules.layers import RuleName
from theorems.check import Check, Examined, Role, Statement, require_role
from theorems.ensembles import Scope
from theorems.hypothesis import Hypothesis, fact
from theorems.measurement import Margin
from theorems.one_claim import combined_on_claim, examined_on_claim, named_claim
from theorems.thresholds import EQUALITY_ERROR
from theorems.weight_sharing import measuring, networks
from theorems.weight_sharing.measuring import Deviation, Instance, Measure
from theorems.weight_sharing.networks import Make

RATES = "<B[:,c], dW[:,c]> over readers = <W[c], dW[c]> + b_c db_c over writers"
ALONG = "c(t) = c(0) on all channels"
AFTER = "c(n) - c(0) = the correction of n steps, on all channels"
SOFTMAX = "sums over outputs of the last layer's dW and db are 0"

STATEMENT = Statement(
    name="weight_sharing",
    title="Theorem 5.2 with weight sharing, conservation on channels",
    formula=r"\sum_{\mathrm{readers}} \Psi(W[:,c]) - \tfrac12 \sum_{\mathrm{writers}} (|W[c]|^2 + b_c^2) = "
    r"\mathrm{const}",
    hypotheses=lambda _: [],
    claims=[named_claim(name, "equality") for name in (RATES, ALONG, AFTER, SOFTMAX)],
    beyond=True,
)
"""A case has one of its claims, and hypotheses of its own: they are about networks, not solutions."""


def is_read(instance: Instance) -> Hypothesis:
    """The channels are those that the network is read to have the law on."""
    claimed, read = ({group.name for group in groups} for groups in (instance.groups(), instance.own_groups()))
    return fact("on every channel J(z) z = f(z), and all writers and readers are counted", claimed <= read)


def has_biases(instance: Instance) -> Hypothesis:
    """Biases count as incoming weights."""
    return fact("a bias counts as an incoming weight", instance.with_biases)


def is_cross_entropy(instance: Instance) -> Hypothesis:
    """The loss does not change when all outputs rise by the same."""
    return fact("loss is cross-entropy", instance.loss == "cross-entropy")


@dataclass(frozen=True)
class Case:
    """A claim on networks: a theorem case meets the hypotheses; a control breaks one of them.

    Args:
        label: what the networks are.
        role: theorem or control.
        claim: what is said to be equal.
        hypotheses: of an instance.
        measure: the deviation from the claim on an instance.
        runs: the instances.
        statement: that it is a case of.
    """

    label: str
    role: Role
    claim: str
    hypotheses: Callable[[Instance], list[Hypothesis]]
    measure: Measure
    runs: Sequence[Instance]
    statement: Statement = STATEMENT

    def examined(self, number: int) -> Examined:
        """Measure an instance.

        Raises:
            DoesNotApplyError: if a theorem's hypotheses do not hold there.
            ValueError: if a control breaks no hypothesis.
        """
        instance = self.runs[number]
        hypotheses = self.hypotheses(instance)
        require_role(self.statement, self.label, self.role, hypotheses)
        margin = _margin(self.measure(instance))
        return examined_on_claim(self.claim, margin, hypotheses, number, str(instance))

    def combined(self, instances: Sequence[Examined]) -> Check:
        """The check of the case, as `theorems.check` decides on an equality."""
        return combined_on_claim(self.statement, self.claim, self.label, self.role, instances)


def _margin(found: Deviation) -> Margin:
    """The margin of an equality."""
    deviation, error = torch.tensor(found, dtype=torch.float64)[:, None]
    violated = deviation > error.clamp(min=EQUALITY_ERROR)
    return Margin(-deviation, -deviation - error, torch.zeros(1), torch.zeros(1).long(), violated)


def cases(scope: Scope) -> list[Case]:
    """Every kind of layer, rule and loss in one backward pass; flows; steps; and what breaks the law."""
    return [*_theorems(scope), *_controls(scope)]


def _theorems(scope: Scope) -> list[Case]:
    some, each, few = partial(_some, scope), partial(_each, scope), partial(_some, scope, seeds=1)
    zeros = partial(networks.Residual, shortcut="zeros")
    with_norm = partial(networks.Residual, nn.BatchNorm2d)
    return [
        _rates("as LeNet, every rule and loss", "theorem", each(networks.chain)),
        _rates("overlapping, L2 and global pooling, stride", "theorem", some(networks.pooling)),
        _rates("groups, dilation, borders, PReLU, dropout", "theorem", some(networks.kernels)),
        _rates("channels side by side, a layer used twice", "theorem", some(networks.Branches)),
        _rates("residual streams, every rule and loss", "theorem", each(networks.Residual)),
        _rates("residual streams, zero-padded shortcuts", "theorem", some(zeros)),
        _rates("residual streams, batch norm", "theorem", some(with_norm)),
        _rates("group, instance and layer norm", "theorem", some(networks.norms)),
        _softmax("last layer under cross-entropy", "theorem", some(networks.chain)),
        _flow("along a flow", "theorem", few(networks.smooth, ("gd", "fa", "adafa"))),
        _steps("mini-batches, momentum, decay", "theorem", few(networks.chain)),
        _steps("mini-batches, momentum, decay, batch norm", "theorem", few(with_norm)),
    ]


def _controls(scope: Scope) -> list[Case]:
    some, few = partial(_some, scope), partial(_some, scope, seeds=1)
    relu, no_norm = partial(networks.with_activation, nn.ReLU), partial(networks.with_norm, nn.Identity)
    curved = partial(networks.smooth, nn.Tanh)
    no_shortcut = partial(networks.Residual, shortcut="none")
    tanh, gelu = (partial(networks.with_activation, kind) for kind in (nn.Tanh, nn.GELU))
    batch_norm, group_norm = (partial(networks.with_norm, kind) for kind in (nn.BatchNorm2d, partial(nn.GroupNorm, 2)))
    return [
        _rates("biases left out", "control", some(networks.chain, with_biases=False)),
        _rates("tanh", "control", some(tanh, believed=relu)),
        _rates("GELU", "control", some(gelu, believed=relu)),
        _rates("one conv2 before a shortcut, alone", "control", some(networks.Residual, believed=no_shortcut)),
        _rates("batch norm taken for nothing", "control", some(batch_norm, believed=no_norm)),
        _rates("group norm taken for nothing", "control", some(group_norm, believed=no_norm)),
        _flow("along a flow, tanh", "control", few(curved, ("gd", "fa"), believed=networks.smooth)),
        _softmax("last layer under squared loss", "control", some(networks.chain, loss="squared")),
        _steps("the correction of steps left out", "control", few(networks.chain)),
    ]


RULES: tuple[RuleName, ...] = get_args(RuleName)


def _some(
    scope: Scope,
    make: Make,
    rules: Sequence[RuleName] = RULES,
    loss: str = "cross-entropy",
    seeds: int | None = None,
    **options: Any,
) -> list[Instance]:
    """Each rule with each seed, or the first ones."""
    return [
        Instance(make, rule, loss, seed, device=scope.device, **options)
        for rule in rules
        for seed in range(seeds or scope.seeds)
    ]


def _each(scope: Scope, make: Make) -> list[Instance]:
    """Each rule with each loss."""
    return [instance for loss in measuring.LOSSES for instance in _some(scope, make, loss=loss)]


def _only(*hypotheses: Callable[[Instance], Hypothesis]) -> Callable[[Instance], list[Hypothesis]]:
    return lambda instance: [hypothesis(instance) for hypothesis in hypotheses]


def _rates(label: str, role: Role, runs: list[Instance]) -> Case:
    return Case(label, role, RATES, _only(is_read, has_biases), measuring.rates, runs)


def _flow(label: str, role: Role, runs: list[Instance]) -> Case:
    return Case(label, role, ALONG, _only(is_read), measuring.flow, runs)


def _softmax(label: str, role: Role, runs: list[Instance]) -> Case:
    return Case(label, role, SOFTMAX, _only(is_cross_entropy), measuring.softmax_rates, runs)


def _steps(label: str, role: Role, runs: list[Instance]) -> Case:
    counted = role == "theorem"
    hypothesis = fact("what the size of steps adds is counted", counted)
    measure = measuring.steps if counted else measuring.steps_uncorrected
    return Case(label, role, AFTER, _only(is_read, lambda _: hypothesis), measure, runs)
