"""The problems of the benchmarks: FA with exponential loss, slope 0.3, as ensembles with a trajectory for each seed."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits

from flowsim import Dataset, FeedbackAlignment, Flow, Weights, data
from flowsim.initialization import gaussian, random_signs, with_gaps

T_FINAL = 100.0


def separable(seeds: int, samples: int = 20, width: int = 50) -> tuple[Flow, Weights]:
    """Orthogonally separable, d = 2 n: every pre-activation crosses 0 once at most, and none slides."""
    return _with_gaps(
        [data.orthogonally_separable(samples, 2 * samples, kappa=0.2, seed=seed) for seed in range(seeds)], width
    )


def nearly_orthogonal(seeds: int, samples: int = 20, width: int = 50) -> tuple[Flow, Weights]:
    """Nearly orthogonal in dimension 2000, with half the rho that Proposition 5.7 allows."""
    return _with_gaps(
        [data.nearly_orthogonal(samples, 2000, rho=0.5 * 0.3**2, seed=seed) for seed in range(seeds)], width
    )


def _with_gaps(datasets: list[Dataset], width: int) -> tuple[Flow, Weights]:
    dataset = data.stack(datasets)
    rule = FeedbackAlignment(torch.stack([random_signs(width, seed) for seed in range(len(datasets))]))
    hidden = torch.stack([gaussian(width, dataset.dimension, seed).hidden for seed in range(len(datasets))])
    return Flow(dataset, rule), with_gaps(hidden, rule, 0.05)


def arbitrary_labels(seeds: int, samples: int = 40, dimension: int = 20, width: int = 50) -> tuple[Flow, Weights]:
    """Gaussian inputs, labels at random: many neurons slide."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((seeds, samples, dimension)) / dimension**0.5
    return _gaussian(Dataset(inputs, generator.choice([-1.0, 1.0], (seeds, samples))), width)


def digits(seeds: int, samples: int = 60, width: int = 30) -> tuple[Flow, Weights]:
    """Zeros against ones of scikit-learn's digits, of norm about 1, a fifth of the labels flipped."""
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


def _gaussian(dataset: Dataset, width: int) -> tuple[Flow, Weights]:
    seeds = dataset.batch_shape[0]
    drawn = [gaussian(width, dataset.dimension, seed) for seed in range(seeds)]
    weights = Weights(
        torch.stack([weights.hidden for weights in drawn]), torch.stack([weights.output for weights in drawn])
    )
    feedback = torch.stack([random_signs(width, seed) for seed in range(seeds)])
    return Flow(dataset, FeedbackAlignment(feedback)), weights


PROBLEMS: dict[str, Callable[[int], tuple[Flow, Weights]]] = {
    "separable": separable,
    "nearly orthogonal": nearly_orthogonal,
    "arbitrary labels": arbitrary_labels,
    "digits": digits,
}
