"""What a trajectory's core is given, and the arrays that it works with: all layers lie one behind another in one array.

Layers l = 1 .. H + 1 have the widths m_0 = r, m_1 .. m_H, m_{H+1} = k. Signals z_l, a_l, delta_l are n x m_l.

From Python come named tuples. The core's functions hand them to each other by reference, opened by `open_problem`,
`open_state`, `open_workspace`: by value, some hundred numbers for each call, they would take minutes to compile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.experimental import structref
from numpy.typing import NDArray

from flowsim.integrators.event.compiled.compiling import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Sides = NDArray[np.int8]

STEPPING, DECIDING, SIGNING = range(3)
"""What comes next: a step; decisions about the sides of kinks; or, at t = 0, about the signs of weights that are 0."""

TIME, END, UNIT, ALLOWED = range(4)
STEPS, ROUNDS, IDLES = range(3)
PHASE, TRIES, QUEUED = range(3)
"""Places in the clock, among the counts and in the plan of a state."""

GOES_ON, ENDED, VANISHES, OVERFLOWS, SERIES_OVERFLOWS, UNSETTLED, AT_APEX, AMBIGUOUS, TOO_STEEP = range(9)
"""How a call ends: it is to be called again; the end is reached; or why it cannot go on."""

FIXED, FORWARD, SIGNED = range(3)
"""Feedback: fixed matrices, the forward weights (GD), or their signs."""

EXPONENTIAL, LOGISTIC, POLYNOMIAL, SQUARED, CROSS_ENTROPY = range(5)
"""Losses whose series are compiled."""


class Problem(NamedTuple):
    """The flow of one trajectory.

    Args:
        inputs, targets: n x r and n x k.
        gram: inputs inputs^T.
        widths: m_0 .. m_{H+1}.
        at_weights: where the layers lie in the array of all weights, W_1 .. W_{H+1}, and its length.
        at_signals: where the layers lie in the array of all signals, the hidden ones and the outputs, and its length.
        feedback, at_feedback: all matrices B one behind another, and where those of hidden layer 1 .. H lie.
        rule, direct, scale: which feedback, whether it carries the error of the outputs, and s of s sign(W).
        loss, power: which loss, and p of the polynomial one.
        slope, decay: of the leaky ReLU, and of the weights.
        logarithmic: whether time is s = log(1 + t).
        first, ratio, exists: which samples share a kink, in the first layer (row 0) and in those above (row 1): input i
            is ratio_i times input first_i, the kink bears the number of its first sample, and `exists` marks these.
        distinct: of both rows, whether no two samples share a kink.
    """

    inputs: Floats
    targets: Floats
    gram: Floats
    widths: Integers
    at_weights: Integers
    at_signals: Integers
    feedback: Floats
    at_feedback: Integers
    rule: int
    direct: bool
    scale: float
    loss: int
    power: float
    slope: float
    decay: float
    logarithmic: bool
    first: Integers
    ratio: Floats
    exists: NDArray[np.bool_]
    distinct: NDArray[np.bool_]


class State(NamedTuple):
    """Where a trajectory is.

    Args:
        weights: all of them.
        side: of each hidden signal, 1 active, -1 inactive, 0 sliding.
        sign: of the weights of the layers above the first, where the rule asks for it.
        contact: of each hidden signal: 0 if z != 0; 1 if z = 0 and leaves at some speed; 2 if the speed is 0 too, or
            not known.
        sign_contact: of the weights above the first layer: 0, or the power of t with which one leaves 0.
        clock: time, end, unit of time, and the error of the weights that is allowed in a step.
        counts: steps, rounds, rounds without a step in a row.
        plan: what comes next (STEPPING, DECIDING or SIGNING), how often it was tried, how many kinks are in the queue.
        queue: the kinks whose sides are being decided.
    """

    weights: Floats
    side: Sides
    sign: Sides
    contact: Sides
    sign_contact: Sides
    clock: Floats
    counts: Integers
    plan: Integers
    queue: Integers


class Workspace(NamedTuple):
    """Arrays that are used again in every round; those of terms have one row for each order.

    Args:
        W, z, a, E, delta: Taylor coefficients in t / unit of weights and signals. E is B^T delta, in front of phi'.
        u, g, h, plain: of the loss's recursion.
        slopes: phi' of each hidden signal, 0 where it slides.
        B: the feedback at the start of the step.
        spare: for products.
        reach: how far each hidden signal moves within the step, less how far it is from 0.
        sizes: of what adds up to E.
        heading: in which direction, and how fast, signals arrived at 0.
        still: which signals stay at 0 without sliding.
        dead: of the layers and samples, where no neuron below is active and the slope is 0.
        poly: of the polynomials at work.
        kind, which, power: what may happen within a step.
        root: when.
    """

    W: Floats
    z: Floats
    a: Floats
    E: Floats
    delta: Floats
    u: Floats
    g: Floats
    h: Floats
    plain: Floats
    slopes: Floats
    B: Floats
    spare: Floats
    reach: Floats
    sizes: Floats
    heading: Floats
    still: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    poly: Floats
    kind: Integers
    which: Integers
    power: Integers
    root: Floats


def workspace(problem: Problem, order: int) -> Workspace:
    """Make the arrays for series of some order."""
    n, k = problem.targets.shape
    hidden, signals = problem.at_signals[-2:]
    weights = problem.at_weights[-1]
    largest = int(max((problem.widths[1:] * problem.widths[:-1]).max(), n * problem.widths.max()))
    events = 3 * hidden + weights - problem.at_weights[1]
    return Workspace(
        W=np.zeros((order + 1, weights)), z=np.zeros((order + 1, signals)), a=np.zeros((order + 1, hidden)),
        E=np.zeros((order, hidden)), delta=np.zeros((order, signals)),
        u=np.zeros((order + 1, n * k)), g=np.zeros((order + 1, n * k)), h=np.zeros((order + 1, n * k)),
        plain=np.zeros((order + 1, n * k)),
        slopes=np.zeros(hidden), B=np.zeros(problem.at_feedback[-1]), spare=np.zeros(largest),
        reach=np.zeros(hidden), sizes=np.zeros(hidden), heading=np.zeros(hidden), still=np.zeros(hidden, np.bool_),
        dead=np.zeros((len(problem.widths), n), np.bool_), poly=np.zeros((6, order + 1)),
        kind=np.zeros(events, np.int64), which=np.zeros(events, np.int64), power=np.zeros(events, np.int64),
        root=np.zeros(events),
    )  # fmt: skip


class Structure(types.StructRef):
    """The type of what is handed on by reference."""

    def preprocess_fields(self, fields):
        """A field holds any number of its type, not only the literal that it was made with."""
        return tuple((name, types.unliteral(kind)) for name, kind in fields)


class Opened:
    """What stands for such a structure in Python; only compiled code makes one."""

    def __init__(self, *fields: Any) -> None: ...


@structref.register
class ProblemType(Structure):
    """Of an opened `Problem`."""


@structref.register
class StateType(Structure):
    """Of an opened `State`."""


@structref.register
class WorkspaceType(Structure):
    """Of an opened `Workspace`."""


class _Problem(Opened):
    """An opened `Problem`."""


class _State(Opened):
    """An opened `State`."""


class _Workspace(Opened):
    """An opened `Workspace`."""


for _opened, _type, _given in (
    (_Problem, ProblemType, Problem), (_State, StateType, State), (_Workspace, WorkspaceType, Workspace),
):  # fmt: skip
    structref.define_constructor(_opened, _type, _given._fields)


@compiled
def open_problem(p):
    """The problem, to be handed on by reference."""
    return _Problem(
        p.inputs, p.targets, p.gram, p.widths, p.at_weights, p.at_signals, p.feedback, p.at_feedback, p.rule, p.direct,
        p.scale, p.loss, p.power, p.slope, p.decay, p.logarithmic, p.first, p.ratio, p.exists, p.distinct,
    )  # fmt: skip


@compiled
def open_state(s):
    """The state, to be handed on by reference."""
    return _State(
        s.weights, s.side, s.sign, s.contact, s.sign_contact, s.clock, s.counts, s.plan, s.queue
    )  # fmt: skip


@compiled
def open_workspace(w):
    """The workspace, to be handed on by reference."""
    return _Workspace(
        w.W, w.z, w.a, w.E, w.delta, w.u, w.g, w.h, w.plain, w.slopes, w.B, w.spare, w.reach, w.sizes, w.heading,
        w.still, w.dead, w.poly, w.kind, w.which, w.power, w.root,
    )  # fmt: skip


@compiled
def layer(problem, weights, l):
    """W_l as a matrix m_l x m_{l-1}."""
    start, stop = problem.at_weights[l - 1], problem.at_weights[l]
    return weights[start:stop].reshape((problem.widths[l], problem.widths[l - 1]))


@compiled
def signal(problem, signals, l):
    """z_l, a_l or delta_l as a matrix n x m_l."""
    start, stop = problem.at_signals[l - 1], problem.at_signals[l]
    return signals[start:stop].reshape((problem.inputs.shape[0], problem.widths[l]))


@compiled
def signal_below(problem, work, l, i):
    """a_{l-1} of a sample, at the start of the step."""
    return problem.inputs[i] if l == 1 else signal(problem, work.a[0], l - 1)[i]


@compiled
def feedback(problem, matrices, l):
    """The matrix that carries an error down to hidden layer l, with m_l columns."""
    start, stop = problem.at_feedback[l - 1], problem.at_feedback[l]
    return matrices[start:stop].reshape(((stop - start) // problem.widths[l], problem.widths[l]))


@compiled
def locate(problem, q):
    """Layer, sample and neuron of a hidden signal."""
    l = 1
    while q >= problem.at_signals[l]:
        l += 1
    rest = q - problem.at_signals[l - 1]
    return l, rest // problem.widths[l], rest % problem.widths[l]


@compiled
def locate_weight(problem, at):
    """Layer, row and column of a weight above the first layer."""
    l = 2
    while at >= problem.at_weights[l]:
        l += 1
    row, column = divmod(at - problem.at_weights[l - 1], problem.widths[l - 1])
    return l, row, column


@compiled
def place(problem, l, i, j):
    """Where the signal of a layer, a sample and a neuron lies."""
    return problem.at_signals[l - 1] + i * problem.widths[l] + j


@compiled
def is_deep(problem):
    """Whether there is more than one hidden layer."""
    return problem.widths.shape[0] > 3


@compiled
def has_scalar_top(problem):
    """Whether this is a two-layer network with one output: under GD all drives of a neuron vanish with its weight."""
    return not is_deep(problem) and problem.widths[2] == 1


@compiled
def is_kink(problem, l, i):
    """Whether a sample is the first of those that share its kinks in a layer."""
    return problem.exists[min(l - 1, 1), i]


@compiled
def set_side(problem, side, q, value):
    """Set the side of a kink, for all samples that share it."""
    l, i, j = locate(problem, q)
    row = min(l - 1, 1)
    side[q] = value
    if not problem.distinct[row]:
        for other in range(i + 1, problem.inputs.shape[0]):
            if problem.first[row, other] == i:
                side[place(problem, l, other, j)] = value if problem.ratio[row, other] > 0 else -value


@compiled
def is_dead(problem, side, l, i):
    """Whether nothing of a sample gets to layer l, because the slope is 0 and no neuron of the layer below active."""
    if problem.slope != 0.0 or l < 2:
        return False
    start = place(problem, l - 1, i, 0)
    for j in range(problem.widths[l - 1]):
        if side[start + j] > 0:
            return False
    return True
