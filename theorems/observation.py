"""Pieces of a run as the claims see them: at Lobatto nodes, with the mode of the piece (theorems/README.md, section 9).

Between events a run is smooth, so what is observed there is a polynomial up to a rest that its coefficients show. On
which side of its kinks a neuron is, which kinks it slides on, and the signs of the feedback under sign-FA do not change
within a piece. They are read off the weights, not asked of the integrator. At the ends of a piece, where
pre-activations vanish up to rounding, the one-sided limits are observed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim import Flow, Solution
from flowsim.observables import DescentFactors, factors_of
from flowsim.sliding import effective_slopes
from flowsim.solution import Pieces
from flowsim.weights import NetworkWeights
from theorems.pieces import chosen
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
        feedback: the matrices B_2 .. B_{H+1}.
        in_mode: hands over the observation whose mode these pieces have; their own, if not given.
    """

    solution: Solution
    pieces: Pieces
    flow: Flow
    times: Float[Tensor, "nodes pieces"]
    weights: NetworkWeights
    feedback: tuple[Tensor, ...]
    in_mode: Callable[[], Observation] | None = None
    integral: Float[Tensor, "nodes pieces *parts"] = field(init=False)
    """From 0 to each node, of the rate that `measure` was given."""

    integral_error: Float[Tensor, "nodes pieces *parts"] = field(init=False)
    """Of the integral, by two rules of different degree on each piece."""

    @cached_property
    def start(self) -> NetworkWeights:
        """The weights at t = 0, `pieces x m x d` and `pieces x k x m`."""
        start = self.solution.start
        return start.with_layers([self.of(layer.reshape(-1, *layer.shape[-2:])) for layer in start.layers])

    @cached_property
    def sides(self) -> tuple[Int[Tensor, "pieces n _m"], ...] | None:
        """Of each hidden layer, 1 active, -1 inactive, 0 sliding. None for activations other than leaky ReLU."""
        if self.in_mode is not None:
            return self.in_mode().sides
        return _sides(self) if has_kinks(self.flow) else None

    @cached_property
    def slopes(self) -> tuple[Float[Tensor, "nodes pieces n _m"], ...] | None:
        """phi' at each hidden layer, between gamma and 1 while sliding; None where there are no sides."""
        return None if self.sides is None else effective_slopes(self.flow, self.weights, self.sides, self.feedback)

    @cached_property
    def _forward(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.flow.forward(self.weights)

    @property
    def outputs(self) -> Float[Tensor, "nodes pieces n k"]:
        """f(x_i)."""
        return self._forward[0]

    @property
    def pre_activations(self) -> tuple[Float[Tensor, "nodes pieces n _m"], ...]:
        """z_l of each hidden layer."""
        return self._forward[1]

    @cached_property
    def reach(self) -> list[Float[Tensor, "nodes pieces n _m"]]:
        """|a_{l-1}(x_i)| |w_j| at each hidden layer: |z_ij| is at most that, and its rounding is relative to it."""
        below = [self.flow.dataset.inputs, *(self.flow.activation(z)[0] for z in self.pre_activations[:-1])]
        pairs = zip(below, self.weights.layers[:-1], strict=True)
        return [a.norm(dim=-1).unsqueeze(-1) * layer.norm(dim=-1).unsqueeze(-2) for a, layer in pairs]

    @cached_property
    def risk(self) -> Float[Tensor, "nodes pieces"]:
        """L(t)."""
        return self.flow.risk_of(self.outputs)

    @cached_property
    def initial_risk(self) -> Float[Tensor, " pieces"]:
        """L(0)."""
        return self.flow.risk(self.start)

    @cached_property
    def velocity(self) -> NetworkWeights:
        """d theta / dt = -fa as the rule prescribes it in the mode of the piece, whatever else a control adds."""
        flow = self.flow
        if not flow.follows_rule:
            flow = Flow(flow.dataset, flow.rule, flow.loss, activation=flow.activation)
        return flow.velocity(self.weights, self.slopes, self.feedback)

    @cached_property
    def factors(self) -> DescentFactors:
        """The factors of Eq. (1), with the direction that the rule prescribes in the mode of the piece."""
        return factors_of(self.flow.gradient(self.weights, self.slopes), self.velocity)

    def dominance(self, alpha: float) -> Float[Tensor, "nodes pieces"]:
        """The dominance ratio <grad, fa> / L^alpha."""
        return self.factors.product / self.risk**alpha

    def of(self, constants: Float[Tensor, "ensemble *parts"]) -> Float[Tensor, "pieces *parts"]:
        """For each piece what belongs to its trajectory."""
        return constants[self.pieces.trajectory]


def require_plain_time(solution: Solution) -> None:
    """Check that the time of a solution is t.

    Raises:
        ValueError: for s = log(1 + t).
    """
    if solution.settings.logarithmic:
        raise ValueError("solution must be in the time t to be checked, got one in log(1 + t): solve with time='t'")


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

    Raises:
        ValueError: for a solution in logarithmic time, whose velocities and integrals are not those of the statements.
    """
    require_plain_time(solution)
    flow = solution.flow_of(pieces.trajectory)
    whole = pieces if whole is None else whole
    signs = None  # of the feedback, which are part of the mode where it jumps at 0
    if flow.rule.at_zero == "jumps":
        middle = (whole.start + whole.end) / 2
        known = None if like is None else like.feedback
        signs = known or flow.rule.feedback_matrices(solution.evaluate(middle, whole.trajectory))
    seen = _at_places(solution, pieces, places, flow, signs)
    if like is not None:
        seen.in_mode = lambda: like
    elif places is not PLACES or whole is not pieces:
        seen.in_mode = partial(_at_places, solution, whole, PLACES, flow, signs)
    return seen


def _at_places(
    solution: Solution, pieces: Pieces, places: Tensor, flow: Flow, feedback: tuple[Tensor, ...] | None
) -> Observation:
    """Pieces at places in [0, 1] of each; the feedback is that of the weights there if none is given."""
    trajectory, start, end = pieces
    times = (start + places.to(start).unsqueeze(-1) * (end - start)).clamp(max=solution.t_final)
    weights = solution.evaluate(times, trajectory.expand_as(times))
    return Observation(solution, pieces, flow, times, weights, feedback or flow.rule.feedback_matrices(weights))


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


def in_parts(
    solution: Solution, pieces: Pieces, whole: Pieces
) -> Iterator[tuple[slice, tuple[Observation, Observation]]]:
    """Parts of whole pieces in chunks, as `in_pairs` has all pieces."""
    for part in in_chunks(solution, pieces):  # a half and the other are in the same chunk
        here = observe(solution, chosen(pieces, part), whole=chosen(whole, part))
        yield part, (here, observe(solution.companion, here.pieces, like=here))


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


def _sides(seen: Observation) -> tuple[Int[Tensor, "pieces n _m"], ...]:
    """The sides of each hidden layer: the signs of the pre-activations where these are largest on the piece.

    A pre-activation that is 0 all over the piece, up to rounding, is that of a neuron that slides, if slopes between
    gamma and 1 hold it there. (Where nothing gets to a neuron from a sample, it is no kink.)
    """
    if seen.flow.slope == 1:  # no kinks
        return tuple(torch.ones_like(z[0], dtype=torch.int8) for z in seen.pre_activations)
    signs, rests = [], []
    for z, size in zip(seen.pre_activations, seen.reach, strict=True):
        low, high = z.aminmax(dim=0)
        signs.append(torch.where(high > -low, 1, -1).to(torch.int8))
        largest = size.amax(0)
        rests.append((torch.maximum(high, -low) <= ON_KINK * largest) & (largest > 0))
    return _held(seen.flow, seen.weights, signs, rests, seen.feedback)


def _held(
    flow: Flow,
    weights: NetworkWeights,
    signs: Sequence[Int[Tensor, "pieces n _m"]],
    rests: Sequence[Bool[Tensor, "pieces n _m"]],
    feedback: Sequence[Tensor],
) -> tuple[Int[Tensor, "pieces n _m"], ...]:
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


def _some(masks: Sequence[Bool[Tensor, "pieces n _m"]]) -> Bool[Tensor, " pieces"]:
    """The pieces with an entry set in some layer."""
    return torch.stack([mask.flatten(1).any(1) for mask in masks]).any(0)
