"""What a statement assumes, as a number on each trajectory (theorems/README.md, section 9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Rule, Solution
from flowsim.losses import named
from flowsim.rules import is_one_of
from theorems.observation import has_kinks

RULE_IS = "rule is "
"""What the names of hypotheses about the rule begin with."""


@dataclass(frozen=True)
class Hypothesis:
    """A condition of a statement: it holds for a trajectory where `slack >= 0` (`> 0` if strict), up to rounding.

    Args:
        name: the condition as a formula.
        slack: one number per trajectory, `*batch`.
        strict: whether the condition is a strict inequality.
        rounding: bound on the rounding error of the slack. So much below 0 still holds, if not strict; if strict, the
            slack must be more.
    """

    name: str
    slack: Float[Tensor, "*batch"]
    strict: bool = False
    rounding: Tensor | float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it holds for every trajectory.

        >>> Hypothesis("gamma > 0", torch.tensor(0.0), strict=True).holds
        False
        """
        return bool((self.slack > self.rounding).all() if self.strict else (self.slack >= -self.rounding).all())

    @property
    def shown(self) -> str:
        """The smallest slack, for an error."""
        return f"{self.slack.min().item():.4g}"


def all_hold(hypotheses: Iterable[Hypothesis]) -> bool:
    """Whether each of them holds, for every trajectory."""
    return all(hypothesis.holds for hypothesis in hypotheses)


def fact(name: str, true: bool) -> Hypothesis:
    """A hypothesis that is true or false, with nothing to measure."""
    return Hypothesis(name, torch.tensor(0.0 if true else -torch.inf))


def is_rule(solution: Solution, *rules: type[Rule]) -> Hypothesis:
    """The hypothesis that the learning rule is one of the given."""
    name = " or ".join(rule.__name__ for rule in rules)
    return fact(f"{RULE_IS}{name}", is_one_of(solution.flow.rule, *rules))


def two_layers(solution: Solution, *rules: type[Rule]) -> list[Hypothesis]:
    """The hypotheses that the network has two layers, one output, and leaky ReLU, and the rule is one of the given."""
    flow = solution.flow
    return [
        is_rule(solution, *rules),
        fact("two layers, labels +-1", len(solution.start.layers) == 2 and flow.dataset.classes is None),
        fact("leaky ReLU", has_kinks(flow)),
    ]


def has_loss(solution: Solution, name: str) -> Hypothesis:
    """The hypothesis that the loss is the named one."""
    return fact(f"{name} loss", named(solution.flow.loss).name == name)


def slope_positive(solution: Solution) -> Hypothesis:
    """The hypothesis gamma > 0."""
    return Hypothesis("gamma > 0", torch.tensor(solution.flow.slope, dtype=torch.float64), strict=True)


def layers_not_zero(solution: Solution) -> Hypothesis:
    """The hypothesis that layers with feedback, which have no direction at 0, are not 0 at the start and at events."""
    pieces = solution.pieces
    layers = solution.evaluate(pieces.start, pieces.trajectory).layers[1:]
    norms = torch.stack([layer.square().sum((-2, -1)) for layer in layers]).amin(0)
    smallest = norms.new_full((solution.batch_shape.numel(),), torch.inf)
    smallest = smallest.scatter_reduce(0, pieces.trajectory, norms, "amin")
    return Hypothesis("W_l != 0 at the start and at events", smallest, strict=True)
