"""Initial weights: plain Gaussian, with prescribed gaps c_j, and the adaFA pairing of feedback with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.rules import FeedbackAlignment, Rule, require_rule
from flowsim.validation import (
    as_finite,
    as_nonzero,
    as_per_neuron,
    require_count,
    require_positive,
    require_room,
    require_seed,
    shown,
)
from flowsim.weights import DeepWeights, NetworkWeights, Weights, require_weights


def gaussian(width: int, dimension: int, seed: int, *, outputs: int | None = None, scale: float = 1.0) -> Weights:
    """Return independent Gaussian weights, of variance scale^2 / fan-in: hidden `m x d`, output `m` or `k x m`.

    Raises:
        ValueError: if a size is not a positive integer, or the scale not positive.

    >>> gaussian(width=5, dimension=3, seed=0, outputs=2).output.shape
    torch.Size([2, 5])
    """
    sizes = {"dimension": dimension, "width": width, "outputs": 1 if outputs is None else outputs}
    sizes = {name: require_count(name, size) for name, size in sizes.items()}
    require_room("width and dimension", sizes["width"], sizes["dimension"])
    require_room("outputs and width", sizes["outputs"], sizes["width"])
    layers = deep_gaussian(list(sizes.values()), seed, scale=scale).layers
    return Weights(layers[0], layers[1][0] if outputs is None else layers[1])


def deep_gaussian(widths: Sequence[int], seed: int, *, scale: float = 1.0) -> DeepWeights:
    """Return independent Gaussian weights, of variance scale^2 / fan-in, for the widths d, m_1, .., m_H, k.

    Raises:
        ValueError: if a width is not a positive integer, or the scale not positive.

    >>> [tuple(layer.shape) for layer in deep_gaussian((3, 5, 4, 1), seed=0).layers]
    [(5, 3), (4, 5), (1, 4)]
    """
    if isinstance(widths, (str, bytes)) or not isinstance(widths, Iterable):
        raise ValueError(f"widths must be a list of the integers d, m_1, .., m_H, k, got {shown(widths)}")
    widths = [require_count(f"widths[{index}]", width) for index, width in enumerate(widths)]
    if len(widths) < 3:
        raise ValueError(f"widths must be at least three, d, m_1 and k, got {len(widths)}")
    for below, above in itertools.pairwise(widths):
        require_room("widths", below, above)
    scale = require_positive("scale", scale)
    generator = torch.Generator().manual_seed(require_seed(seed))
    return DeepWeights(
        tuple(
            torch.randn(above, below, generator=generator, dtype=torch.float64) * (scale / below**0.5)
            for below, above in itertools.pairwise(widths)
        )
    )


def random_signs(width: int, seed: int) -> Float[Tensor, " m"]:
    """Return m random signs +-1, both of them present for m >= 2.

    Raises:
        ValueError: if the width is not a positive integer, or the seed not an integer from 0 to 2^32 - 1.

    >>> sorted(random_signs(2, seed=0).tolist())
    [-1.0, 1.0]
    """
    width = require_count("width", width)
    generator = torch.Generator().manual_seed(require_seed(seed))
    alternating = 1.0 - 2.0 * (torch.arange(width) % 2)
    return alternating[torch.randperm(width, generator=generator)].to(torch.float64)


def with_gaps(
    hidden: Float[Tensor, "*batch m d"], rule: Rule, gaps: Any, signs: Float[Tensor, "*batch m"] | None = None
) -> Weights:
    """Return scalar-output weights with hidden layer W and the conserved quantities c_j = Psi_j - |w_j|^2 / 2 = gaps.

    FA: v_j = (c_j + |w_j|^2 / 2) / b_j. sign-FA: |v_j| = (c_j + |w_j|^2 / 2) / s. GD: v_j^2 = 2 c_j + |w_j|^2.
    (theorems/README.md, section 4.)

    Args:
        hidden: W.
        rule: the learning rule; for FA its feedback is b, `*batch x m`.
        gaps: c_j, a number or `*batch x m`.
        signs: of v_j, for sign-FA and GD; all + if not given.

    Raises:
        ValueError: if no v_j has the gap: c_j + |w_j|^2 / 2 < 0 for sign-FA or GD, b_j = 0 for FA; or if signs are
            given for FA, where b decides them.

    >>> weights = with_gaps(torch.eye(2, dtype=torch.float64), FeedbackAlignment([1.0, -1.0]), gaps=0.25)
    >>> weights.output
    tensor([ 0.7500, -0.7500], dtype=torch.float64)
    """
    require_rule(rule)
    hidden = as_finite("hidden", hidden)
    if hidden.ndim < 2 or 0 in hidden.shape[-2:]:
        raise ValueError(f"hidden must have shape (*batch, m, d) with m, d >= 1, got {tuple(hidden.shape)}")
    norms = 0.5 * hidden.square().sum(-1)
    potential = norms + as_per_neuron("gaps", gaps, norms)
    output = rule.inverse_potential(potential, None if signs is None else as_nonzero("signs", signs, norms).sign())
    if output.isnan().any():
        index = tuple(torch.nonzero(output.isnan())[0].tolist())
        lowest, gap = -norms[index].item(), (potential - norms)[index].item()
        raise ValueError(f"gaps must be at least -|w_j|^2 / 2 = {lowest:g}, got {gap:g} at index {index}")
    return Weights(hidden, output)


def adafa(weights: NetworkWeights) -> FeedbackAlignment:
    """Return adaFA's rule: feedback alignment with the feedback set to the initial forward weights, B = W(0).

    Raises:
        ValueError: if there are no weights, or one is not finite.

    >>> adafa(Weights(torch.ones(2, 3), torch.tensor([1.0, -2.0]))).feedback
    tensor([ 1., -2.], dtype=torch.float64)
    """
    require_weights("weights", weights)
    return FeedbackAlignment(weights.output if isinstance(weights, Weights) else weights.layers[1:])
