"""Pieces of a run as the claims see them: at Lobatto nodes, with the mode of the piece (theorems/README.md, section 9).

Between events a run is smooth, so what is observed there is a polynomial up to a rest that its coefficients show. On
which side of its kinks a neuron is, which kinks it slides on, and the signs of the feedback under sign-FA do not change
within a piece. They are read off the weights, not asked of the integrator. At the ends of a piece, where
pre-activations vanish up to rounding, the one-sided limits are observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim import Flow, Solution
from flowsim.observables import DescentFactors, descent_factors
from flowsim.sliding import effective_slopes
from flowsim.solution import Pieces
from flowsim.weights import NetworkWeights
from theorems.polynomial import NODES, PLACES
from theorems.thresholds import IN_BOX, ON_KINK

CHUNK = 2**22
"""Numbers observed at a time, to bound the memory."""

KEPT = 4
"""Chunks that are kept with all that was read off them, since every hypothesis and claim asks for the same."""


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
    def pre_activations(self) -> tuple[Float[Tensor, "nodes pieces n m"], ...]:
        """z_l of each hidden layer."""
        return self.flow.pre_activations(self.weights)

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
    slopes = None if sides is None else effective_slopes(flow, weights, sides, feedback)
    return Observation(solution, pieces, flow, times, weights, initial, sides, slopes, feedback)


def _at(solution: Solution, pieces: Pieces, places: Tensor) -> tuple[Float[Tensor, "nodes pieces"], NetworkWeights]:
    """Times and weights at places in [0, 1] of each piece."""
    trajectory, start, end = pieces
    times = (start + places.to(start).unsqueeze(-1) * (end - start)).clamp(max=solution.t_final)
    return times, solution.evaluate(times, trajectory.expand_as(times))


@lru_cache(maxsize=KEPT)
def _seen(solution: Solution, first: int, last: int) -> Observation:
    return observe(solution, chosen(solution.pieces, slice(first, last)))


@lru_cache(maxsize=KEPT)
def _seen_along_companion(solution: Solution, first: int, last: int) -> Observation:
    here = _seen(solution, first, last)
    return observe(solution.companion, here.pieces, like=here)


def in_turn(solution: Solution) -> Iterator[tuple[slice, Observation]]:
    """All pieces of a solution in chunks: which they are, observed. Its companion is not asked."""
    for part in in_chunks(solution, solution.pieces):
        yield part, _seen(solution, part.start, part.stop)


def in_pairs(solution: Solution) -> Iterator[tuple[slice, tuple[Observation, Observation]]]:
    """All pieces of a solution in chunks: which they are, observed along the solution and along its companion."""
    for part, here in in_turn(solution):
        yield part, (here, _seen_along_companion(solution, part.start, part.stop))


def chosen(pieces: Pieces, which: slice | Tensor) -> Pieces:
    """Some of the pieces."""
    return Pieces(*(column[which] for column in pieces))


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


def reach(
    flow: Flow, weights: NetworkWeights, pre_activations: Sequence[Float[Tensor, "*batch n m"]]
) -> list[Float[Tensor, "*batch n m"]]:
    """|a_{l-1}(x_i)| |w_j| at each hidden layer: what |z_ij| can be at most, and what its rounding is relative to."""
    below = [flow.dataset.inputs, *(flow.activation(z)[0] for z in pre_activations[:-1])]
    pairs = zip(below, weights.layers[:-1], strict=True)
    return [a.norm(dim=-1).unsqueeze(-1) * layer.norm(dim=-1).unsqueeze(-2) for a, layer in pairs]


def _sides(flow: Flow, weights: NetworkWeights, feedback: Sequence[Tensor]) -> tuple[Int[Tensor, "pieces n m"], ...]:
    """The sides of each hidden layer: the signs of the pre-activations where these are largest on the piece.

    A pre-activation that is 0 all over the piece, up to rounding, is that of a neuron that slides, if slopes between
    gamma and 1 hold it there. (Where nothing gets to a neuron from a sample, it is no kink.)
    """
    pre_activations = flow.pre_activations(weights)
    if flow.slope == 1:  # no kinks
        return tuple(torch.ones_like(z[0], dtype=torch.int8) for z in pre_activations)
    signs, rests = [], []
    for z, size in zip(pre_activations, reach(flow, weights, pre_activations), strict=True):
        low, high = z.aminmax(dim=0)
        signs.append(torch.where(high > -low, 1, -1).to(torch.int8))
        largest = size.amax(0)
        rests.append((torch.maximum(high, -low) <= ON_KINK * largest) & (largest > 0))
    return _held(flow, weights, signs, rests, feedback)


def _held(
    flow: Flow,
    weights: NetworkWeights,
    signs: Sequence[Int[Tensor, "pieces n m"]],
    rests: Sequence[Bool[Tensor, "pieces n m"]],
    feedback: Sequence[Tensor],
) -> tuple[Int[Tensor, "pieces n m"], ...]:
    """The sides: 0 where slopes in [gamma, 1] hold z = 0 all over the piece, the signs elsewhere."""
    sides, open_ = [sign.masked_fill(rest, 0) for sign, rest in zip(signs, rests, strict=True)], _some(rests)
    while open_.any():  # in each round a slide ends at least
        asked = [torch.where(open_[:, None, None], side, sign) for side, sign in zip(sides, signs, strict=True)]
        ends = []
        for slope, side in zip(effective_slopes(flow, weights, asked, feedback), asked, strict=True):
            off = torch.maximum(flow.slope - slope, slope - 1) / (1 + slope.abs())
            ends.append((side == 0) & (off.amax(0) > IN_BOX))
        sides = [torch.where(end, sign, side) for side, sign, end in zip(sides, signs, ends, strict=True)]
        open_ = _some(ends)
    return tuple(sides)


def _some(masks: Sequence[Bool[Tensor, "pieces n m"]]) -> Bool[Tensor, " pieces"]:
    """The pieces with an entry set in some layer."""
    return torch.stack([mask.flatten(1).any(1) for mask in masks]).any(0)
