"""Images of handwritten digits through the command line: 0 against 1, orthogonally separable once centred."""

import math
from pathlib import Path

import numpy as np
import pytest

from flowsim import Dataset, FeedbackAlignment
from flowsim.commands.simulate import main
from flowsim.initialization import gaussian, random_signs, with_gaps

WIDTH = 6


def zeros_and_ones(count: int) -> Dataset:
    """The first images of 0 (label +1) and 1 (label -1), centred by the mean of all such images, of norm about 1."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()  # takes long to load
    chosen = digits.target < 2
    images, classes = digits.data[chosen], digits.target[chosen]
    centred = images - images.mean(0)
    return Dataset(
        (centred / np.linalg.norm(centred, axis=1).mean())[:count], np.where(classes == 0, 1.0, -1.0)[:count]
    )


def test_centred_zeros_and_ones_are_orthogonally_separable() -> None:
    dataset = zeros_and_ones(20)
    assert dataset.inputs.shape == (20, 64)
    assert set(dataset.labels.tolist()) == {-1.0, 1.0}
    assert dataset.kappa > 0.01  # far above the rounding of inner products of vectors of norm about 1
    assert dataset.svm_margin**2 >= dataset.kappa  # theorems/README.md, section 7


def test_feedback_alignment_learns_zeros_and_ones_from_the_command_line(tmp_path: Path) -> None:
    dataset = zeros_and_ones(20)
    feedback = random_signs(WIDTH, seed=1)
    weights = with_gaps(gaussian(WIDTH, 64, seed=0).hidden, FeedbackAlignment(feedback), gaps=0.1)
    problem, output = tmp_path / "digits.npz", tmp_path / "run.npz"
    np.savez(
        problem,
        inputs=dataset.inputs.numpy(),
        labels=dataset.labels.numpy(),
        hidden=weights.hidden.numpy(),
        output=weights.output.numpy(),
        feedback=feedback.numpy(),
    )
    options = ["--rule", "fa", "--t-final", "5", "--times", "50", "--output", str(output)]
    assert main([str(problem), *options]) == 0
    with np.load(output) as run:
        assert run["hidden"].shape == (50, WIDTH, 64)
        # Proposition 5.7: the loss falls; between the first times by less than rounding resolves
        assert (np.diff(run["loss"]) <= 1e-15 * run["loss"][0]).all()
        assert run["loss"][-1] < 0.5 * run["loss"][0]
        # Theorem 5.2, to the error of some 100 steps of relative tolerance 1e-10
        np.testing.assert_allclose(run["conserved"], 0.1, rtol=0, atol=1e-8)
        # Lemma 5.4: all gaps are positive and b = +-1
        assert (run["alignment"] >= 1 / math.sqrt(WIDTH)).all()
        # and no output weight changes its sign
        assert (np.sign(run["output"]) == feedback.numpy()).all()
