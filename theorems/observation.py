"""Pieces of a run as the claims see them: at Lobatto nodes, with the mode of the piece (theorems/README.md, section 9).

Between events a run is smooth, so what is observed there is a polynomial up to a rest that its coefficients show. Which
side of its kinks a neuron is on, which kinks it slides on, and the signs of the feedback under sign-FA do not change
within a piece: they are those of its middle. At the ends of a piece, where pre-activations vanish up to rounding, the
one-sided limits are observed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim import Flow, Solution
from flowsim.losses import named
from flowsim.observables import DescentFactors, descent_factors
from flowsim.solution import Pieces
from flowsim.weights import NetworkWeights

NODES = 16
"""Lobatto nodes of a piece. In a step of the integrator outputs change by 3 at most, and polynomials of degree 15
follow e^u there, and its integrals to each node, to rounding; with 10 nodes these are off by 3e-9."""

CHUNK = 2**23
"""Numbers observed at a time, to bound the memory."""

INDEPENDENT = 1e-10
"""Singular values of the normals of kinks, relative to the largest, below which they are linearly dependent."""


LOW = 5
"""Degree up to which Bernstein coefficients are taken: they amplify rounding 2^degree times, about."""


def _tables() -> tuple[np.ndarray, ...]:
    legendre = np.polynomial.legendre
    degree = NODES - 1
    inner = legendre.Legendre.basis(degree).deriv().roots().real
    nodes = np.concatenate([[-1.0], np.sort(inner), [1.0]])
    coefficients = np.linalg.inv(legendre.legvander(nodes, degree))
    integrals = legendre.legvander(nodes, degree + 1) @ legendre.legint(coefficients, lbnd=-1) / 2
    places, powers = np.linspace(0, 1, LOW + 1), np.arange(LOW + 1)
    binomials = np.array([math.comb(LOW, k) for k in powers])
    bernstein = binomials * places[:, None] ** powers * (1 - places[:, None]) ** (LOW - powers)
    from_legendre = np.linalg.solve(bernstein, legendre.legvander(2 * places - 1, LOW))
    return (1 + nodes) / 2, integrals, coefficients, from_legendre


PLACES, INTEGRALS, LEGENDRE, BERNSTEIN = (torch.from_numpy(table) for table in _tables())
"""Nodes in [0, 1]; matrices from values there to integrals from 0 to each node, and to Legendre coefficients; and from
the first Legendre coefficients to Bernstein coefficients."""

MIDDLE = torch.tensor([0.5], dtype=torch.float64)


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
        slopes: phi' at each hidden layer, `nodes x pieces x n x m`, between gamma and 1 while sliding. None for
            activations other than leaky ReLU.
        feedback: the matrices B_2 .. B_{H+1}.
        integral: from 0 to each node of the rate that `measure` was given.
    """

    solution: Solution
    pieces: Pieces
    flow: Flow
    times: Float[Tensor, "nodes pieces"]
    weights: NetworkWeights
    start: NetworkWeights
    slopes: tuple[Float[Tensor, "nodes pieces n m"], ...] | None
    feedback: tuple[Tensor, ...]
    integral: Float[Tensor, "nodes pieces"] = field(init=False)

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
        """<grad, fa> / L^alpha."""
        return self.factors.product / self.risk**alpha

    def of(self, constants: Float[Tensor, "ensemble *parts"]) -> Float[Tensor, "pieces *parts"]:
        """For each piece what belongs to its trajectory."""
        return constants[self.pieces.trajectory]


def observe(
    solution: Solution, pieces: Pieces, mode_of: Solution, places: Float[Tensor, " nodes"] = PLACES
) -> Observation:
    """Observe pieces of a solution, in the mode that `mode_of` has in their middles.

    That is the solution itself, or the one whose companion it is: the two differ by their errors then, and not by where
    exactly observables jump.
    """
    trajectory, start, end = pieces
    times = (start + places.to(start).unsqueeze(-1) * (end - start)).clamp(max=solution.t_final)
    nodes = trajectory.expand_as(times)
    flow = solution.flow_of(trajectory)
    weights = solution.evaluate(times, nodes)
    middle = (start + end) / 2
    feedback_at = mode_of.evaluate(middle, trajectory) if flow.rule.at_zero == "jumps" else weights
    feedback = flow.rule.feedback_matrices(feedback_at)
    slopes = None
    if flow.activation.leaky_slope is not None:
        slopes = _slopes(flow, weights, mode_of.pattern(middle, trajectory), feedback)
    initial = solution.start.with_layers(
        [layer.reshape(-1, *layer.shape[-2:])[trajectory] for layer in solution.start.layers]
    )  # fmt: skip
    return Observation(solution, pieces, flow, times, weights, initial, slopes, feedback)


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


def _slopes(
    flow: Flow, weights: NetworkWeights, pattern: Sequence[Int[Tensor, "pieces n m"]], feedback: Sequence[Tensor]
) -> tuple[Float[Tensor, "nodes pieces n m"], ...]:
    """phi' by the pattern: 1 where active, gamma where inactive, and where a neuron slides what keeps it there."""
    nodes, like = weights.layers[0].shape[0], weights.layers[0]
    slopes = [(side > 0).to(like).clamp(min=flow.slope).expand(nodes, *side.shape) for side in pattern]
    if len(slopes) == 1:
        slides = (pattern[0] == 0) & (flow.dataset.inputs != 0).any(-1, keepdim=True)
        if slides.any():
            slopes[0] = _while_sliding(flow, weights, slopes[0], slides, feedback[0])
    return tuple(slopes)


def _while_sliding(
    flow: Flow,
    weights: NetworkWeights,
    slopes: Float[Tensor, "nodes pieces n m"],
    slides: Tensor,
    feedback: Float[Tensor, "*pieces k m"],
) -> Float[Tensor, "nodes pieces n m"]:
    """The slopes sigma of sliding samples: K_SS p_S = -K_SR p_R for the drives p_ij = sigma_ij E_ij (section 10).

    Where inputs on the kinks depend on each other, p_S of least norm: dw_j / dt is unique even so.
    """
    piece, neuron = torch.nonzero(slides.any(-2), as_tuple=True)
    there = slides[piece, :, neuron]
    inputs = flow.dataset.inputs[piece]
    outputs = (slopes * (flow.dataset.inputs @ weights.layers[0].mT)) @ weights.layers[1].mT
    e = named(flow.loss).negative_gradient(outputs, flow.dataset.targets) / flow.dataset.samples
    error = (e @ feedback)[:, piece, :, neuron]  # rows x nodes x n: what is indexed comes first
    drive = slopes[:, piece, :, neuron] * error
    rest = (drive * ~there.unsqueeze(1)) @ inputs
    on_kinks = inputs * there.unsqueeze(-1)
    needed = -rest @ torch.linalg.pinv(on_kinks, rtol=INDEPENDENT)
    sigma = torch.where(there.unsqueeze(1) & (error != 0), needed / error, slopes[:, piece, :, neuron])
    slopes = slopes.clone()
    slopes[:, piece, :, neuron] = sigma
    return slopes
