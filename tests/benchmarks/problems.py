"""The problems of the benchmarks: FA with exponential loss, slope 0.3, as ensembles with a trajectory for each seed."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, Weights, data
from flowsim.initialization import deep_gaussian, gaussian, random_signs, with_gaps
from flowsim.weights import NetworkWeights, stack

SLOPE = 0.3
FEEDBACK_SEEDS = 1000
"""Added to a trajectory's seed for the feedback of deep networks."""


def separable(seeds: int, samples: int = 20, width: int = 50) -> tuple[Flow, Weights]:
    """Orthogonally separable, d = 2 n: every pre-activation crosses 0 once at most, and none slides."""
    dataset = data.stack(
        [data.orthogonally_separable(samples, 2 * samples, kappa=0.2, seed=seed) for seed in range(seeds)]
    )
    rule = FeedbackAlignment(torch.stack([random_signs(width, seed) for seed in range(seeds)]))
    hidden = torch.stack([gaussian(width, dataset.dimension, seed).hidden for seed in range(seeds)])
    return Flow(dataset, rule, slope=SLOPE), with_gaps(hidden, rule, 0.05)


def arbitrary_labels(seeds: int, samples: int = 40, dimension: int = 20, width: int = 50) -> tuple[Flow, Weights]:
    """Gaussian inputs, labels at random: many neurons slide."""
    return _gaussian(_random_data(seeds, samples, dimension), width)


def digits(seeds: int, samples: int = 60, width: int = 30) -> tuple[Flow, Weights]:
    """Zeros against ones of scikit-learn's digits, of norm about 1, a fifth of the labels flipped."""
    from sklearn.datasets import load_digits  # noqa: PLC0415, it takes long to load

    images, classes = load_digits(n_class=2, return_X_y=True)
    images = images / np.linalg.norm(images, axis=1).mean()
    inputs, labels = [], []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        chosen = generator.permutation(len(images))[:samples]
        flipped = np.where(np.arange(samples) < samples // 5, -1.0, 1.0)
        inputs.append(images[chosen])
        labels.append(np.where(classes[chosen] == 0, 1.0, -1.0) * generator.permutation(flipped))
    return _gaussian(Dataset(np.stack(inputs), np.stack(labels)), width)


def _random_data(seeds: int, samples: int, dimension: int) -> Dataset:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((seeds, samples, dimension)) / dimension**0.5
    return Dataset(inputs, generator.choice([-1.0, 1.0], (seeds, samples)))


def _gaussian(dataset: Dataset, width: int) -> tuple[Flow, Weights]:
    seeds = range(dataset.batch_shape[0])
    weights = stack([gaussian(width, dataset.dimension, seed) for seed in seeds])
    feedback = torch.stack([random_signs(width, seed) for seed in seeds])
    return Flow(dataset, FeedbackAlignment(feedback), slope=SLOPE), weights


def deep(
    seeds: int, hidden: tuple[int, ...], samples: int = 10, dimension: int = 6, scale: float = 1.0
) -> tuple[Flow, NetworkWeights]:
    """Gaussian inputs, weights and feedback, labels at random, hidden layers of some widths."""
    dataset, widths = _random_data(seeds, samples, dimension), (dimension, *hidden, 1)
    weights = stack([deep_gaussian(widths, seed, scale=scale) for seed in range(seeds)])
    feedback = stack([deep_gaussian(widths, FEEDBACK_SEEDS + seed, scale=scale) for seed in range(seeds)])
    return Flow(dataset, FeedbackAlignment(feedback.layers[1:]), slope=SLOPE), weights


class Setting(NamedTuple):
    """A problem: how to make an ensemble of it, to which time it runs, and what its trajectories meet."""

    make: Callable[[int], tuple[Flow, NetworkWeights]]
    t_final: float
    kind: str


CROSSING, SLIDING, DEEP = "crossing", "sliding", "deep"


def by_size(samples: int, width: int) -> tuple[str, Setting]:
    """A separable problem by its name."""
    return f"n = {samples}, m = {width}", Setting(
        partial(separable, samples=samples, width=width), 100.0, CROSSING
    )  # fmt: skip


BASE, _ = by_size(20, 50)
"""The problem of the ensembles."""

SINGLE = dict(by_size(samples, width) for samples, width in ((20, 50), (20, 10), (20, 400), (160, 50)))
GROWTH = dict(
    by_size(samples, width)
    for samples, width in (*((20, width) for width in (25, 50, 100, 200, 400)), *((n, 50) for n in (10, 40, 80, 160)))
)
HARD = {
    "arbitrary labels": Setting(arbitrary_labels, 100.0, SLIDING),
    "digits": Setting(digits, 100.0, SLIDING),
    "3 layers (8, 7)": Setting(partial(deep, hidden=(8, 7)), 20.0, DEEP),
    "4 layers (8, 7, 6)": Setting(partial(deep, hidden=(8, 7, 6)), 20.0, DEEP),
    "3 layers (50, 50)": Setting(partial(deep, hidden=(50, 50), samples=20, dimension=20), 20.0, DEEP),
}
SETTINGS = SINGLE | GROWTH | HARD
