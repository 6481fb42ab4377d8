"""What is run: the settings, the problem as one flow of an ensemble of runs, and each run's own rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from figures.experiments.images import Images, Part
from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, Rule, SignFeedbackAlignment, Weights
from flowsim.weights import NetworkWeights

DATASETS = ("digits", "mnist", "fashion-mnist")
RULES = ("GD", "FA", "adaFA", "sign-FA")
CLASSES = 10


@dataclass(frozen=True)
class Protocol:
    """The settings of the experiment; what the paper's appendix A does not say is marked.

    Args:
        dataset: digits, mnist or fashion-mnist.
        samples: training images, drawn anew for each repeat.
        tests: test images, drawn anew where there are more; those of the data set's own test set, if it has one.
        widths: of the hidden layer.
        repeats: seeds 0 .. repeats-1: another subset, noise, weights and feedback.
        epochs: full-batch steps.
        every: epochs between records.
        noise: the share of training labels that are replaced by another class (which: not said).
        eta: the step size at the start; it is divided by 10 after every `decay` epochs.
        decay: see eta.
        momentum: of the heavy ball.
        slope: of leaky ReLU for z < 0 (not said; PyTorch's default).
    """

    dataset: str = "digits"
    samples: int = 200
    tests: int = 500
    widths: tuple[int, ...] = (15, 30, 60, 100, 200)
    repeats: int = 4
    epochs: int = 2500
    every: int = 20
    noise: float = 0.2
    eta: float = 0.05
    decay: int = 1000
    momentum: float = 0.05
    slope: float = 0.01

    def step_size(self, epoch: int) -> float:
        """Of the step from `epoch` to the next."""
        return self.eta / 10 ** (epoch // self.decay)

    def records(self, epoch: int) -> bool:
        """Whether is recorded after an epoch: 0, every so many, and the last."""
        return epoch % self.every == 0 or epoch == self.epochs

    @property
    def recorded(self) -> list[int]:
        """The epochs after which is recorded."""
        return [epoch for epoch in range(self.epochs + 1) if self.records(epoch)]


PAPER_WIDTHS = (15, 30, 45, 60, 75, 100, 125, 150, 175, 200)


def papers(dataset: str) -> Protocol:
    """The paper's own: 4000 images, 10 widths, 6 repeats, 6000 epochs."""
    return Protocol(dataset, samples=4000, tests=10_000, widths=PAPER_WIDTHS, repeats=6, epochs=6000, every=5)


OneRule = GradientDescent | FeedbackAlignment | SignFeedbackAlignment


@dataclass(frozen=True, eq=False)
class EachItsOwn(Rule):
    """Rules of an ensemble whose first dimension is the rule: entry r of it follows rules[r], times scale[r].

    Feedback, potentials and divergences are linear in the scale; it makes the feedback of sign-FA s sign(V). It is for
    steps of all runs at once; integrators take them one by one, see `alone`.

    Args:
        rules: the library's, one for each entry of the first dimension.
        scale: `rules x 1 x widths`.
    """

    rules: tuple[OneRule, ...]
    scale: Float[Tensor, "rules 1 widths"]

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """B, `rules x repeats x widths x k x m`."""
        return self._each(lambda rule, own, _: rule.feedback_matrices(own), weights)

    def potentials(self, weights: NetworkWeights) -> tuple[Tensor, ...]:
        """Psi, `rules x repeats x widths x m`."""
        return self._each(lambda rule, own, _: rule.potentials(own), weights)

    def divergences(self, before: NetworkWeights, after: NetworkWeights) -> tuple[Tensor, ...]:
        """D_Psi, `rules x repeats x widths x m`."""
        return self._each(lambda rule, own, other: rule.divergences(own, other), before, after)

    def map_matrices(self, weights: NetworkWeights, function: Callable[[Tensor], Tensor]) -> Rule:
        """Refused: what the function makes of the first dimension is not known.

        Raises:
            ValueError: always.
        """
        raise ValueError("rule EachItsOwn must be taken apart to be solved: use `alone` for one run")

    def alone(self, number: int, weights: NetworkWeights) -> OneRule:
        """That of the first run of a rule, given its weights without batch dimensions."""
        rule = self.rules[number]
        if rule.at_zero == "jumps":
            return SignFeedbackAlignment(self.scale[number].flatten()[0].item())
        return rule.map_matrices(weights, lambda matrix: matrix[0, 0])

    def _each(
        self,
        of: Callable[[OneRule, NetworkWeights, NetworkWeights], tuple[Tensor, ...]],
        weights: NetworkWeights,
        other: NetworkWeights | None = None,
    ) -> tuple[Tensor, ...]:
        parts = zip(self.rules, _apart(weights), _apart(weights if other is None else other), strict=True)
        (found,) = zip(*(of(*part) for part in parts), strict=True)
        stacked = torch.stack([tensor.expand(found[0].shape) for tensor in found])
        return (stacked * self.scale.reshape(*self.scale.shape, *[1] * (stacked.ndim - self.scale.ndim)),)


def _apart(weights: NetworkWeights) -> list[NetworkWeights]:
    """The weights of each rule."""
    count = weights.layers[0].shape[0]
    return [weights.with_layers([layer[number] for layer in weights.layers]) for number in range(count)]


class Ensemble(NamedTuple):
    """All runs as an ensemble `rules x repeats x widths`: the flow on the training images, that on the test images."""

    flow: Flow
    test: Flow
    weights: Weights
    rule: EachItsOwn


def draw_ensemble(protocol: Protocol, images: Images, device: str = "cpu") -> Ensemble:
    """Draw data, weights and feedback for each repeat; the same ones for all rules. The images are rows of `pixels`.

    Entries of W, V and of FA's B are N(0, 1/m), our reading of the paper's initialisation by width; adaFA has B = V(0).
    sign-FA's scale is s = sqrt(2 / (m + k)), that of BioTorch, the package that the paper used. Narrower networks are
    filled up with neurons whose weights and feedback are 0, and stay so.

    Raises:
        ValueError: if there are fewer images than asked for.
    """
    available = len(images.train[0])
    if protocol.samples >= available:
        raise ValueError(
            f"samples must be fewer than the {available} images of {protocol.dataset}, got {protocol.samples}"
        )
    drawn = [_draw_images(protocol, images, seed) for seed in range(protocol.repeats)]
    train, test = (_stacked([pair[which] for pair in drawn], device) for which in (0, 1))
    hidden, output, feedback = (
        torch.stack(parts).to(device)
        for parts in zip(*(_weights(protocol, train.dimension, seed) for seed in range(protocol.repeats)), strict=True)
    )
    each = (len(RULES), -1, -1, -1, -1)
    weights = Weights(hidden.expand(each).clone(), output.expand(each).clone())
    scale = torch.ones(len(RULES), 1, len(protocol.widths), dtype=torch.float64, device=device)
    scale[RULES.index("sign-FA"), 0] = (2 / (torch.tensor(protocol.widths, dtype=torch.float64) + CLASSES)).sqrt()
    rules: dict[str, OneRule] = {
        "GD": GradientDescent(),
        "FA": FeedbackAlignment(feedback),
        "adaFA": FeedbackAlignment(output),
        "sign-FA": SignFeedbackAlignment(),
    }
    rule = EachItsOwn(tuple(rules[name] for name in RULES), scale)
    flow, at_test = (Flow(dataset, rule, "cross-entropy", protocol.slope) for dataset in (train, test))
    return Ensemble(flow, at_test, weights, rule)


def _draw_images(protocol: Protocol, images: Images, seed: int) -> tuple[Part, Part]:
    """Training images with noisy labels, and test images, of one repeat."""
    generator = np.random.default_rng(seed)
    inputs, labels = images.train
    order = generator.permutation(len(inputs))
    chosen, rest = order[: protocol.samples], order[protocol.samples :]
    others, classes = images.test or (inputs[rest], labels[rest])
    test = generator.permutation(len(others))[: protocol.tests]
    noisy = labels[chosen].copy()
    wrong = generator.permutation(protocol.samples)[: round(protocol.noise * protocol.samples)]
    noisy[wrong] = (noisy[wrong] + generator.integers(1, CLASSES, len(wrong))) % CLASSES
    return (inputs[chosen], noisy), (others[test], classes[test])


def _stacked(parts: list[Part], device: str) -> Dataset:
    """The images of all repeats, `repeats x 1 x n x d`."""
    inputs, labels = (torch.from_numpy(np.stack([part[which] for part in parts])) for which in (0, 1))
    return Dataset(inputs.unsqueeze(1).to(device), labels.unsqueeze(1).to(device), CLASSES)


def _weights(protocol: Protocol, dimension: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """W, V and B of one repeat, `widths x m x d` and twice `widths x k x m`, with m the largest width."""
    generator = torch.Generator().manual_seed(seed)
    largest = max(protocol.widths)
    layers = [torch.zeros(len(protocol.widths), *shape, dtype=torch.float64) for shape in
              [(largest, dimension), (CLASSES, largest), (CLASSES, largest)]]  # fmt: skip
    for place, width in enumerate(protocol.widths):
        for layer, shape in zip(layers, [(width, dimension), (CLASSES, width), (CLASSES, width)], strict=True):
            layer[place, : shape[0], : shape[1]] = (
                torch.randn(shape, generator=generator, dtype=torch.float64) / width**0.5
            )  # fmt: skip
    return layers[0], layers[1], layers[2]
