"""Whether a run is a solution of its flow, from its weights and the data alone (theorems/README.md, section 9).

A solver may miss an event, and its companion with it; a flow may do other things than its rule says. Neither is seen
in the error estimate. So every statement assumes of a run, on the whole of it:

    side_ij z_ij >= 0     between events a neuron stays on the side of each kink that it is on
    d theta/dt = -fa      it moves as the rule prescribes on those sides, and by nothing else

Statements about flows with weight decay assume -fa - lambda theta, with the decay of the flow, in the place of -fa.

Nothing here asks the integrator for more than weights at times.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Flow, Solution
from flowsim.solution import Pieces
from theorems.hypothesis import Hypothesis, fact
from theorems.observation import Observation, has_kinks, in_pairs, in_parts, in_turn
from theorems.pieces import chosen, extreme, halves, twice
from theorems.polynomial import DERIVATIVES, INTEGRALS, lower_bound
from theorems.thresholds import FOLLOWS, HALVINGS, ROUNDING_PER_STEP


@lru_cache(maxsize=32)
def along_the_run(solution: Solution, decay: bool = False) -> tuple[Hypothesis, Hypothesis]:
    """What every statement assumes of a run, with the flow's decay or without. Kept, since all on it ask the same."""
    return keeps_its_sides(solution, decay), follows_its_rule(solution, decay)


def follows_its_rule(solution: Solution, decay: bool = False) -> Hypothesis:
    """The hypothesis that weights move as the rule says and by nothing else (decay, other feedback), all along.

    With `decay` they move by that of the flow besides.

    On each piece theta(t) - theta(start) is compared with the integral of the prescribed velocity. The differences are
    added up over the pieces, and the slack is minus their sum, relative to the largest weight of the layer in the run.
    """
    trajectory, count = solution.pieces.trajectory, solution.batch_shape.numel()
    drifts, sizes = _read(solution, decay)[:2]
    drift = drifts.new_zeros(count, drifts.shape[1]).index_add(0, trajectory, drifts)
    size = torch.stack([extreme(column, trajectory, count, "amax") for column in sizes.T], -1)
    relative = drift / torch.where(size > 0, size, 1.0)
    name = "d theta/dt = -fa - lambda theta" if decay else "d theta/dt = -fa"
    return Hypothesis(name, -relative.amax(-1), rounding=FOLLOWS)


def keeps_its_sides(solution: Solution, decay: bool = False) -> Hypothesis:
    """The hypothesis that no pre-activation changes its sign between events, nor, under sign-FA, an outgoing weight.

    The slack is the smallest side_ij z_ij of the run, relative to |a| |w|, by lower bounds on its pieces, which are
    halved until these say enough. Below 0 it may be by rounding, and by the error of the run.
    """
    name = "side_ij z_ij >= 0 between events"
    pieces, count = solution.pieces, solution.batch_shape.numel()
    if not _has_sides(solution.flow):
        return fact(name, True)
    lowest, seen, error = _read(solution, decay)[2:]  # the same with decay and without, but then read already
    eps = torch.finfo(error.dtype).eps
    rounding = ROUNDING_PER_STEP * eps * solution.statistics["steps"].reshape(-1)
    allowed = rounding + extreme(error, pieces.trajectory, count, "amax")
    smallest, whole = torch.full_like(allowed, torch.inf), pieces
    for halving in range(HALVINGS + 1):
        divisible = (pieces.end - pieces.start) > 4 * eps * pieces.end
        limit = -allowed[pieces.trajectory]
        open_ = (lowest < limit) & (seen >= limit) & divisible & (halving < HALVINGS)
        smallest = torch.minimum(smallest, extreme(lowest[~open_], pieces.trajectory[~open_], count, "amin"))
        if not open_.any():
            break
        pieces, whole = halves(chosen(pieces, open_)), Pieces(*(twice(column[open_]) for column in whole))
        found = [_lowest(*pair) for _, pair in in_parts(solution, pieces, whole)]
        lowest, seen, _ = (torch.cat(column) for column in zip(*found, strict=True))
    return Hypothesis(name, smallest, rounding=allowed)


def _has_sides(flow: Flow) -> bool:
    """Whether there are kinks, or weights whose signs matter."""
    return has_kinks(flow) and (flow.slope < 1 or flow.rule.at_zero == "jumps")


@lru_cache(maxsize=8)
def _read(solution: Solution, decay: bool) -> tuple[Tensor, ...]:
    """What both hypotheses ask of all pieces, which are observed once for the two: `_drift`, and `_lowest` if any."""
    if _has_sides(solution.flow):
        found = [(*_drift(here, decay), *_lowest(here, there)) for _, (here, there) in in_pairs(solution)]
    else:
        found = [_drift(here, decay) for _, here in in_turn(solution)]
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def _drift(seen: Observation, decay: bool) -> tuple[Float[Tensor, "pieces layers"], Float[Tensor, "pieces layers"]]:
    """How far weights move otherwise than the rule says on a piece, with the flow's decay or without; the largest."""
    length = (seen.pieces.end - seen.pieces.start).reshape(-1, 1, 1)
    drifts, sizes = [], []
    for layer, says in zip(seen.weights.layers, seen.velocity.layers, strict=True):
        prescribed = says - seen.flow.decay * layer if decay else says
        moves = length * torch.tensordot(INTEGRALS.to(says), prescribed, 1)
        drifts.append((layer - layer[0] - moves).abs().amax((0, 2, 3)))
        sizes.append(layer.abs().amax((0, 2, 3)))
    return torch.stack(drifts, -1), torch.stack(sizes, -1)


def _lowest(
    here: Observation, there: Observation
) -> tuple[Float[Tensor, " pieces"], Float[Tensor, " pieces"], Float[Tensor, " pieces"]]:
    """Of all side_ij z_ij on each piece: a lower bound, the smallest at a node, the largest error."""
    compared = zip(_on_sides(here), _on_sides(there), _sizes(here), strict=True)
    found = [(mine / size, ((mine - other).abs() / size).amax((0, 2, 3))) for mine, other, size in compared]
    columns = torch.cat([values.flatten(2) for values, _ in found], -1)
    lowest = _bound(columns.flatten(1)).reshape(columns.shape[1:]).amin(-1)
    return lowest, columns.amin((0, 2)), torch.stack([differences for _, differences in found]).amax(0)


def _on_sides(seen: Observation) -> list[Float[Tensor, "nodes pieces _rows _m"]]:
    """side_ij z_ij of each hidden layer, z_ij and -z_ij while sliding; under sign-FA also the outgoing weights |w|."""
    assert seen.sides is not None
    found = []
    layers = zip(seen.pre_activations, seen.sides, strict=True) if seen.flow.slope < 1 else ()
    for z, side in layers:
        found += [torch.where(side == 0, sign, side) * z for sign in ((1, -1) if (side == 0).any() else (1,))]
    if seen.flow.rule.at_zero == "jumps":
        found += [matrix.sign() * layer for matrix, layer in zip(seen.feedback, seen.weights.layers[1:], strict=True)]
    return found


def _sizes(seen: Observation) -> list[Float[Tensor, "pieces _rows _m"]]:
    """What `_on_sides` is relative to: |a| |w|, and the largest weight of the layer."""
    assert seen.sides is not None
    found = []
    sizes = seen.reach if seen.flow.slope < 1 else []
    for size, side in zip(sizes, seen.sides if sizes else (), strict=True):
        found += [size.amax(0)] * (2 if (side == 0).any() else 1)
    if seen.flow.rule.at_zero == "jumps":
        found += [layer.abs().amax((0, 2, 3)).reshape(-1, 1, 1) for layer in seen.weights.layers[1:]]
    return [torch.where(size > 0, size, 1.0) for size in found]


def _bound(values: Float[Tensor, "nodes columns"]) -> Float[Tensor, " columns"]:
    """A lower bound of the polynomials through the nodes; where one is monotone, the smaller of its ends.

    At an event a pre-activation goes to 0, which a lower bound that leaves anything open does not tell from below 0.
    """
    lowest = lower_bound(values)
    near = torch.nonzero(lowest < 0).squeeze(-1)
    values = values[:, near]
    table = DERIVATIVES.to(values)
    slope = table @ values
    rounding = torch.finfo(values.dtype).eps * table.abs().sum(1).amax() * values.abs().amax(0)
    monotone = torch.maximum(lower_bound(slope), lower_bound(-slope)) > rounding
    ends = torch.minimum(values[0], values[-1])
    return lowest.index_put((near,), torch.where(monotone, ends, lowest[near]))


def homogeneous(solution: Solution) -> Hypothesis:
    """The hypothesis phi'(z) z = phi(z) at all pre-activations of the run, relative to the largest of them."""
    pieces, count = solution.pieces, solution.batch_shape.numel()
    off, size = torch.zeros(2, count, dtype=pieces.start.dtype, device=pieces.start.device)
    for _, seen in in_turn(solution) if not has_kinks(solution.flow) else ():
        for z in seen.pre_activations:
            value, slope = seen.flow.activation(z)
            off.scatter_reduce_(0, seen.pieces.trajectory, (slope * z - value).abs().amax((0, 2, 3)), "amax")
            size.scatter_reduce_(0, seen.pieces.trajectory, z.abs().amax((0, 2, 3)), "amax")
    return Hypothesis("phi'(z) z = phi(z)", -off / torch.where(size > 0, size, 1.0))
