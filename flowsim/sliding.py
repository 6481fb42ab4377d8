"""Slides: the slopes that hold pre-activations at 0, in one layer or in several (flowsim/README.md, section 10).

A neuron that slides on the kink of a sample has z = 0 there, and keeps it: its slope lies between gamma and 1, and is
what makes dz/dt = 0. It is found here from weights and sides alone, for any depth, rule and loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.losses import named
from flowsim.weights import NetworkWeights

DEPENDENT = 1e-13
"""Kinks depend on each other if a pivot or a singular value of M, whose diagonal is about 1, is at most so large,
relative to the largest; inputs share a kink if the square of the sine of their angle is."""


def effective_slopes(
    flow: Flow,
    weights: NetworkWeights,
    sides: Sequence[Int[Tensor, "*_batch n _m"]],
    feedback: Sequence[Tensor] | None = None,
) -> tuple[Float[Tensor, "*batch n _m"], ...]:
    """phi' at each hidden layer: 1 on the side 1, gamma on the side -1, and what holds z at 0 where the side is 0.

    With D the slopes off the slides, 0 on them, and a drive c_s for each slide s = (l, i, j), of sample i and neuron j,

        delta_l = D_l e_l + c_l,    e_l = B_{l+1}^T delta_{l+1},    a_l = D_l z_l.

    All that moves is affine in the drives of all layers together. dz/dt = 0 at all slides is one linear system,

        M c = -(dz/dt at c = 0),    M_ts = sum over layers q of <a_{q-1}(t), a_{q-1}(s)> <U_q(t), V_q(s)>,

    where U_q(t), the derivative of z_t by z_q, and V_q(s), what a unit of c_s adds to delta_q, are unit vectors at the
    layer of t and of s, and U_q = D_q W_{q+1}^T U_{q+1}, V_q = D_q B_{q+1}^T V_{q+1} below it. The slope is c / e.

    Samples with parallel inputs share a kink, and go from one side of it to the other together: it is the sum of their
    drives that is found, and each gets the same share of the way from its inactive to its active end. Where kinks
    depend on each other otherwise, more of one neuron than it has independent inputs, the drives of least norm are
    taken. Where e = 0, and the slope does nothing, it is gamma.

    A slope outside of [gamma, 1] says that no neuron slides there: the sides are not those of a mode.

    Args:
        flow: with leaky ReLU.
        weights: on the kinks where a side is 0.
        sides: of each hidden layer, 1, -1 or 0; they broadcast with the weights.
        feedback: the matrices of the rule where the weights do not tell them: under sign-FA, at an entry 0.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[1.0, 0.0], [0.6, 1.2]], [-1, 1]), FeedbackAlignment([1.0]), slope=0.3)
    >>> weights = Weights(torch.tensor([[0.0, 0.3]]), torch.tensor([0.2]))
    >>> (slopes,) = effective_slopes(flow, weights, [torch.tensor([[0], [1]])])  # it slides on the kink of sample 0
    >>> bool(0.3 < slopes[0, 0] < 1)
    True
    >>> moves = flow.velocity(weights, [slopes]).hidden @ flow.dataset.inputs.T
    >>> bool(moves[0, 0].abs() < 1e-15)
    True
    """
    layers, gamma, dataset = flow.layers_of(weights), flow.slope, flow.dataset
    matrices = flow.rule.feedback_matrices(weights) if feedback is None else feedback
    everything = [dataset.inputs, *layers, *matrices, *sides]
    lead = np.broadcast_shapes(*(matrix.shape[:-2] for matrix in everything))
    slopes = [(side > 0).to(layers[0]).clamp(min=gamma).expand(*lead, *side.shape[-2:]) for side in sides]
    slid = torch.stack([(side == 0).flatten(-2).any(-1).expand(lead) for side in sides]).any(0)
    rows = torch.nonzero(slid.unsqueeze(0), as_tuple=True)
    if len(rows[0]):
        slopes = [slope.clone() for slope in slopes]

        def of_rows(matrix: Tensor) -> Tensor:
            return matrix.expand(1, *lead, *matrix.shape[-2:])[rows]

        held = [of_rows(side) == 0 for side in sides]
        passing = [of_rows(slope).masked_fill(where, 0.0) for slope, where in zip(slopes, held, strict=True)]
        network = _Network.of(
            flow, of_rows(dataset.inputs), of_rows(dataset.targets),
            [of_rows(layer) for layer in layers], [of_rows(matrix) for matrix in matrices], passing,
        )  # fmt: skip
        for slope, found in zip(slopes, _hold(network, _Slides.of(held)), strict=True):
            slope.unsqueeze(0)[rows] = found
    return tuple(slopes)


@dataclass(frozen=True, eq=False)
class _Network:
    """Networks in a mode, one in each row: what goes forward in them, and what is sent back.

    Args:
        layers, feedback: W_1 .. W_{H+1} and B_2 .. B_{H+1}.
        slopes: D_1 .. D_H.
        activations: a_0 .. a_H.
        error: delta_{H+1}.
    """

    layers: list[Float[Tensor, "rows _above _below"]]
    feedback: list[Float[Tensor, "rows _above _below"]]
    slopes: list[Float[Tensor, "rows n _m"]]
    activations: list[Float[Tensor, "rows n _m"]]
    error: Float[Tensor, "rows n k"]
    direct: bool
    gamma: float

    @classmethod
    def of(
        cls,
        flow: Flow,
        inputs: Tensor,
        targets: Tensor,
        layers: list[Tensor],
        feedback: list[Tensor],
        slopes: list[Tensor],
    ) -> _Network:
        """That of a flow."""
        activations = [inputs]
        for layer, slope in zip(layers[:-1], slopes, strict=True):
            activations.append(slope * (activations[-1] @ layer.mT))
        gradient = named(flow.loss).negative_gradient(activations[-1] @ layers[-1].mT, targets)
        error = gradient / inputs.shape[-2]
        return cls(layers, feedback, slopes, activations, error, flow.rule.direct, flow.slope)

    def error_at(self, level: int, above: Float[Tensor, "rows n above"]) -> Float[Tensor, "rows n m"]:
        """e_l of a hidden layer from delta_{l+1}."""
        return (self.error if self.direct else above) @ self.feedback[level - 1]

    def speeds(self, top: int) -> list[Float[Tensor, "rows n _m"]]:
        """dz/dt at c = 0 of the hidden layers up to `top`."""
        delta, deltas = self.error, []
        for level in range(len(self.slopes), 0, -1):
            delta = self.slopes[level - 1] * self.error_at(level, delta)
            deltas.insert(0, delta)
        found: list[Tensor] = []
        for level in range(top):
            below = self.activations[level]
            found.append((below @ below.mT) @ deltas[level])
            if level > 0:
                found[level] += (self.slopes[level - 1] * found[level - 1]) @ self.layers[level].mT
        return found


@dataclass(frozen=True, eq=False)
class _Slides:
    """The slides of all rows, in blocks that do not influence each other.

    In a row that slides in the first layer only, each neuron is a block; any other row is one.

    Args:
        row: of each block.
        layer: of each slide of a block, numbered from 1; 0 where a block has fewer slides than the largest.
        sample, neuron: of each slide.
    """

    row: Int[Tensor, "blocks 1"]
    layer: Int[Tensor, "blocks slides"]
    sample: Int[Tensor, "blocks slides"]
    neuron: Int[Tensor, "blocks slides"]

    @classmethod
    def of(cls, slid: Sequence[Bool[Tensor, "rows n _m"]]) -> _Slides:
        """Of rows with one slide at least."""
        samples, widths = slid[0].shape[-2], torch.tensor([layer.shape[-1] for layer in slid])
        row, column = torch.nonzero(torch.cat([layer.mT.flatten(1) for layer in slid], 1), as_tuple=True)
        number, sample = column // samples, column % samples  # of neurons of all layers
        layer = torch.repeat_interleave(widths).to(row.device)[number] + 1
        neuron = number - (widths.cumsum(0) - widths).to(row.device)[layer - 1]
        deep = torch.zeros_like(slid[0][:, 0, 0])
        deep[row[layer > 1]] = True
        blocks = row * widths.sum() + torch.where(deep[row], 0, number)
        _, block, counts = torch.unique_consecutive(blocks, return_inverse=True, return_counts=True)
        start = counts.cumsum(0) - counts
        at = block, torch.arange(len(row), device=row.device) - start[block]

        def table(column: Tensor) -> Tensor:
            return column.new_zeros(len(counts), int(counts.max())).index_put(at, column)

        return cls(row[start].unsqueeze(-1), table(layer), table(sample), table(neuron))

    @property
    def top(self) -> int:
        """The highest layer in which anything slides."""
        return int(self.layer.max())

    def of_samples(self, rows: Float[Tensor, "rows n width"]) -> Float[Tensor, "blocks slides width"]:
        """What belongs to the samples of the slides."""
        return rows[self.row, self.sample]

    def units(self, level: int, like: Float[Tensor, "rows n m"]) -> Float[Tensor, "blocks slides m"]:
        """Unit vectors at the neurons of the slides of a layer, 0 for those of others."""
        neurons = torch.arange(like.shape[-1], device=like.device)
        return ((self.neuron.unsqueeze(-1) == neurons) & (self.layer == level).unsqueeze(-1)).to(like)

    def take(self, level: int, values: Float[Tensor, "rows n m"]) -> Float[Tensor, "blocks slides"]:
        """The values at the slides of a layer, 0 at those of others."""
        neuron = self.neuron.clamp(max=values.shape[-1] - 1)
        return values[self.row, self.sample, neuron] * (self.layer == level)

    def put(self, level: int, into: Float[Tensor, "rows n m"], values: Float[Tensor, "blocks slides"]) -> Tensor:
        """A copy with the values at the slides of a layer."""
        own = self.layer == level
        row = self.row.expand_as(self.layer)
        return into.index_put((row[own], self.sample[own], self.neuron[own]), values[own])


def _hold(network: _Network, slides: _Slides) -> list[Float[Tensor, "rows n _m"]]:
    """The slopes of all hidden layers, from the last one down: e takes what the drives above it do."""
    slopes, delta, gamma = list(network.slopes), network.error, network.gamma
    drive, ratios = _find_drives(network, slides), _find_shared(network, slides)
    forward, backward = ratios.clamp(min=0), ratios.clamp(max=0)
    total = _applied(ratios, drive)
    for level in range(len(slopes), 0, -1):
        error = network.error_at(level, delta)
        if level <= slides.top:
            own = slides.take(level, error)
            active, inactive = _applied(forward + gamma * backward, own), _applied(gamma * forward + backward, own)
            share = torch.where(active != inactive, (total - inactive) / (active - inactive), 0.0)
            slopes[level - 1] = slides.put(level, slopes[level - 1], gamma + (1 - gamma) * share)
        delta = slopes[level - 1] * error
    return slopes


def _applied(matrix: Float[Tensor, "blocks t s"], values: Float[Tensor, "blocks s"]) -> Float[Tensor, "blocks t"]:
    return (matrix @ values.unsqueeze(-1)).squeeze(-1)


def _find_drives(network: _Network, slides: _Slides) -> Float[Tensor, "blocks slides"]:
    """The solution of M c = -(dz/dt at c = 0), by normals of length 1; of least norm where M is singular."""
    speeds, here = network.speeds(slides.top), slides.layer > 0
    speed, size = torch.zeros(2, *here.shape, dtype=network.error.dtype, device=here.device)
    for level in range(1, slides.top + 1):
        speed += slides.take(level, speeds[level - 1])
        size += slides.take(level, network.activations[level - 1].norm(dim=-1, keepdim=True))
    size = torch.where(size > 0, size, 1.0)
    matrix = _find_matrix(network, slides) / (size.unsqueeze(-1) * size.unsqueeze(-2)) + torch.diag_embed(
        (~here).double()
    )
    right = (-speed / size).unsqueeze(-1)
    factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    pivot = factors.diagonal(dim1=-2, dim2=-1).abs()
    singular = ~(pivot.amin(-1) > DEPENDENT * pivot.amax(-1))
    drive = torch.linalg.lu_solve(factors, pivots, right)
    drive[singular] = torch.linalg.pinv(matrix[singular], rtol=DEPENDENT) @ right[singular]
    return drive.squeeze(-1) / size


def _find_matrix(network: _Network, slides: _Slides) -> Float[Tensor, "blocks slides slides"]:
    """M, layer by layer from the highest one down."""
    row, matrices = slides.row.squeeze(-1), []
    derivative = sent = slides.units(slides.top, network.slopes[slides.top - 1])
    for level in range(slides.top, 0, -1):
        below = slides.of_samples(network.activations[level - 1])
        matrices.append((below @ below.mT) * (derivative @ sent.mT))
        if level > 1:
            units, slope = slides.units(level - 1, below), slides.of_samples(network.slopes[level - 2])
            derivative = units + slope * (derivative @ network.layers[level - 1][row])
            sent = units if network.direct else units + slope * (sent @ network.feedback[level - 2][row])
    return torch.stack(matrices).sum(0)


def _find_shared(network: _Network, slides: _Slides) -> Float[Tensor, "blocks t s"]:
    """Where slides t and s are of parallel inputs x_s = r x_t, and share a kink: r. Above the first layer r > 0."""
    inputs = slides.of_samples(network.activations[0])
    gram = inputs @ inputs.mT
    squared = gram.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    alike = gram.square() >= (1 - DEPENDENT) * squared * squared.mT
    for column in (slides.layer, slides.neuron):
        alike &= column.unsqueeze(-1) == column.unsqueeze(-2)
    alike &= (gram > 0) | ((gram < 0) & (slides.layer == 1).unsqueeze(-1))
    return torch.where(alike, gram / squared, 0.0)
