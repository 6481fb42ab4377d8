"""Pieces of a run as the claims see them: at Lobatto nodes, with the mode of the piece (theorems/README.md, section 9).

Between events a run is smooth, so what is observed there is a polynomial up to a rest that its coefficients show. On
which side of its kinks a neuron is, which kinks it slides on, and the signs of the feedback under sign-FA do not change
within a piece. They are read off the weights, not asked of the integrator. At the ends of a piece, where
pre-activations vanish up to rounding, the one-sided limits are observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim import Flow, Solution
from flowsim.losses import named
from flowsim.observables import DescentFactors, descent_factors
from flowsim.solution import Pieces
from flowsim.weights import NetworkWeights
from theorems.polynomial import NODES, PLACES
from theorems.thresholds import IN_BOX, INDEPENDENT, ON_KINK

CHUNK = 2**23
"""Numbers observed at a time, to bound the memory."""


@dataclass(eq=False)
class Observation:
    """Some pieces of a solution at their nodes.

    Args:
        solution: what is observed.
        pieces: trajectory, start and end of each.
        flow: with the data and feedback of each piece's trajectory.
        times: of the nodes.
        weights: at the nodes, `nodes x pieces x m x d` and `nodes x pieces x k x m` as layers.
        start: at t = 0, `pieces x m x d` and `pieces x k x m`.
        sides: of each hidden layer, 1 active, -1 inactive, 0 sliding. None for activations other than leaky ReLU.
        slopes: phi' at each hidden layer, `nodes x pieces x n x m`, between gamma and 1 while sliding. None likewise.
        feedback: the matrices B_2 .. B_{H+1}.
        integral: from 0 to each node of the rate that `measure` was given.
        integral_error: of the integral, by two rules of different degree on each piece.
    """

    solution: Solution
    pieces: Pieces
    flow: Flow
    times: Float[Tensor, "nodes pieces"]
    weights: NetworkWeights
    start: NetworkWeights
    sides: tuple[Int[Tensor, "pieces n m"], ...] | None
    slopes: tuple[Float[Tensor, "nodes pieces n m"], ...] | None
    feedback: tuple[Tensor, ...]
    integral: Float[Tensor, "nodes pieces"] = field(init=False)
    integral_error: Float[Tensor, "nodes pieces"] = field(init=False)

    @cached_property
    def risk(self) -> Float[Tensor, "nodes pieces"]:
        """L(t)."""
        return self.flow.risk(self.weights)

    @cached_property
    def initial_risk(self) -> Float[Tensor, " pieces"]:
        """L(0)."""
        return self.flow.risk(self.start)

    @cached_property
    def factors(self) -> DescentFactors:
        """The factors of Eq. (1), with the direction that the rule prescribes in the mode of the piece."""
        return descent_factors(_rule_only(self.flow), self.weights, self.slopes, self.feedback)

    def dominance(self, alpha: float) -> Float[Tensor, "nodes pieces"]:
        """The dominance ratio <grad, fa> / L^alpha."""
        return self.factors.product / self.risk**alpha

    def of(self, constants: Float[Tensor, "ensemble *parts"]) -> Float[Tensor, "pieces *parts"]:
        """For each piece what belongs to its trajectory."""
        return constants[self.pieces.trajectory]


def observe(
    solution: Solution,
    pieces: Pieces,
    places: Float[Tensor, " nodes"] = PLACES,
    *,
    whole: Pieces | None = None,
    like: Observation | None = None,
) -> Observation:
    """Observe pieces of a solution, at places in [0, 1] of each.

    The mode of a piece is read off the weights at its Lobatto nodes; of a part of a piece, off those of the `whole`. A
    companion is observed in the mode of the solution that it belongs to, given by `like`: the two differ by their
    errors then, and not by where exactly observables jump.
    """
    trajectory = pieces.trajectory
    flow = solution.flow_of(trajectory)
    times, weights = _at(solution, pieces, places)
    initial = solution.start.with_layers(
        [layer.reshape(-1, *layer.shape[-2:])[trajectory] for layer in solution.start.layers]
    )  # fmt: skip
    by_sign = flow.rule.at_zero == "jumps"
    whole = pieces if whole is None else whole
    if not by_sign:
        feedback = flow.rule.feedback_matrices(weights)
    elif like is None:
        feedback = flow.rule.feedback_matrices(solution.evaluate((whole.start + whole.end) / 2, trajectory))
    else:
        feedback = like.feedback
    if like is not None or not has_kinks(flow):
        sides = None if like is None else like.sides
    else:
        nodes = weights if places is PLACES and whole is pieces else _at(solution, whole, PLACES)[1]
        sides = _sides(flow, nodes, feedback if by_sign else flow.rule.feedback_matrices(nodes))
    slopes = None if sides is None else _slopes(flow, weights, sides, feedback)
    return Observation(solution, pieces, flow, times, weights, initial, sides, slopes, feedback)


def _at(solution: Solution, pieces: Pieces, places: Tensor) -> tuple[Float[Tensor, "nodes pieces"], NetworkWeights]:
    """Times and weights at places in [0, 1] of each piece."""
    trajectory, start, end = pieces
    times = (start + places.to(start).unsqueeze(-1) * (end - start)).clamp(max=solution.t_final)
    return times, solution.evaluate(times, trajectory.expand_as(times))


def has_kinks(flow: Flow) -> bool:
    """Whether the activation is the leaky ReLU (with slope 1 as well)."""
    return flow.activation.leaky_slope is not None


def in_chunks(solution: Solution, pieces: Pieces) -> Iterator[slice]:
    """Parts of the pieces, an even number each, so large that CHUNK numbers are observed at a time."""
    inputs, layers = solution.flow.dataset.inputs, solution.start.layers
    numbers = sum(layer.shape[-2:].numel() + 3 * inputs.shape[-2] * layer.shape[-2] for layer in layers)
    size = 2 * max(1, CHUNK // (2 * NODES * numbers))
    for first in range(0, len(pieces.start), size):
        yield slice(first, first + size)


def _rule_only(flow: Flow) -> Flow:
    """The flow without what a control adds to its rule; its activation is kept."""
    return flow if flow.follows_rule else Flow(flow.dataset, flow.rule, flow.loss, activation=flow.activation)


def prescribed(observation: Observation) -> NetworkWeights:
    """The velocity that the rule prescribes, in the mode of the piece."""
    return _rule_only(observation.flow).velocity(observation.weights, observation.slopes, observation.feedback)


def reach(flow: Flow, weights: NetworkWeights) -> list[Float[Tensor, "*batch n m"]]:
    """|a_{l-1}(x_i)| |w_j| at each hidden layer: what |z_ij| can be at most, and what its rounding is relative to."""
    below = [flow.dataset.inputs, *(flow.activation(z)[0] for z in flow.pre_activations(weights)[:-1])]
    pairs = zip(below, weights.layers[:-1], strict=True)
    return [a.norm(dim=-1).unsqueeze(-1) * layer.norm(dim=-1).unsqueeze(-2) for a, layer in pairs]


def _sides(flow: Flow, weights: NetworkWeights, feedback: Sequence[Tensor]) -> tuple[Int[Tensor, "pieces n m"], ...]:
    """The sides of each hidden layer: the signs of the pre-activations where these are largest on the piece.

    A pre-activation that is 0 all over the piece, up to rounding, is that of a neuron that slides, if a drive within
    its interval holds it there. (Deep networks are followed by a Runge-Kutta method, which does not slide.)
    """
    if flow.slope == 1:  # no kinks
        return tuple(torch.ones_like(z[0], dtype=torch.int8) for z in flow.pre_activations(weights))
    found, rests = [], []
    for z, size in zip(flow.pre_activations(weights), reach(flow, weights), strict=True):
        largest = z.gather(0, z.abs().argmax(0, keepdim=True)).squeeze(0)
        found.append(torch.where(largest > 0, 1, -1).to(torch.int8))
        rests.append(z.abs().amax(0) <= ON_KINK * size.amax(0))
    if len(found) == 1:
        rests[0] &= (flow.dataset.inputs != 0).any(-1, keepdim=True)
        found[0] = torch.where(_held(flow, weights, found[0], rests[0], feedback[0]), 0, found[0]).to(torch.int8)
    return tuple(found)


def _held(
    flow: Flow, weights: NetworkWeights, sides: Tensor, rests: Tensor, feedback: Float[Tensor, "*pieces k m"]
) -> Tensor:
    """Which of the samples with z = 0 are held there by drives that lie between their ends, all over the piece."""
    for _ in range(flow.dataset.samples):  # one sample leaves at least in each round
        piece, neuron = torch.nonzero(rests.any(-2), as_tuple=True)
        if not len(piece):
            break
        slopes = _slopes_of(flow, weights, sides)
        drive, error = _holding(flow, weights, slopes, rests, feedback, piece, neuron)
        ends = torch.stack([flow.slope * error, error])
        off = torch.maximum(ends.amin(0) - drive, drive - ends.amax(0)) / (drive.abs() + error.abs()).clamp(min=1e-300)
        leaves = (off.amax(1) > IN_BOX) & rests[piece, :, neuron]
        if not leaves.any():
            break
        rests = rests.clone()
        rests[piece, :, neuron] &= ~leaves
    return rests


def _slopes_of(
    flow: Flow, weights: NetworkWeights, side: Int[Tensor, "pieces n m"]
) -> Float[Tensor, "nodes pieces n m"]:
    """phi' by the side: 1 where active, gamma elsewhere."""
    like = weights.layers[0]
    return (side > 0).to(like).clamp(min=flow.slope).expand(like.shape[0], *side.shape)


def _slopes(
    flow: Flow, weights: NetworkWeights, sides: Sequence[Int[Tensor, "pieces n m"]], feedback: Sequence[Tensor]
) -> tuple[Float[Tensor, "nodes pieces n m"], ...]:
    """phi' by the sides: 1 where active, gamma where inactive, and where a neuron slides what keeps it there.

    That is sigma = p / E with the drives p of `_holding`.
    """
    slopes = [_slopes_of(flow, weights, side) for side in sides]
    slides = sides[0] == 0
    piece, neuron = torch.nonzero(slides.any(-2), as_tuple=True)
    if len(piece):
        drive, error = _holding(flow, weights, slopes[0], slides, feedback[0], piece, neuron)
        there = slides[piece, :, neuron].unsqueeze(1)
        sigma = torch.where(there & (error != 0), drive / error, slopes[0][:, piece, :, neuron])
        slopes[0] = slopes[0].clone()
        slopes[0][:, piece, :, neuron] = sigma
    return tuple(slopes)


def _holding(
    flow: Flow,
    weights: NetworkWeights,
    slopes: Float[Tensor, "nodes pieces n m"],
    slides: Tensor,
    feedback: Float[Tensor, "*pieces k m"],
    piece: Int[Tensor, " rows"],
    neuron: Int[Tensor, " rows"],
) -> tuple[Float[Tensor, "rows nodes n"], Float[Tensor, "rows nodes n"]]:
    """The drives p that hold neurons on their kinks, and E: K_SS p_S = -K_SR p_R with p_ij = sigma_ij E_ij.

    Where inputs on the kinks depend on each other, p_S of least norm: dw_j / dt is unique even so. (Section 10.)
    """
    there = slides[piece, :, neuron]
    inputs = flow.dataset.inputs[piece]
    outputs = (slopes * (flow.dataset.inputs @ weights.layers[0].mT)) @ weights.layers[1].mT
    e = named(flow.loss).negative_gradient(outputs, flow.dataset.targets) / flow.dataset.samples
    error = (e @ feedback)[:, piece, :, neuron]  # rows x nodes x n: what is indexed comes first
    drive = slopes[:, piece, :, neuron] * error
    rest = (drive * ~there.unsqueeze(1)) @ inputs
    on_kinks = inputs * there.unsqueeze(-1)
    return -rest @ torch.linalg.pinv(on_kinks, rtol=INDEPENDENT), error
