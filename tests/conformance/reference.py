"""A second, slow and simple integrator of deep leaky-ReLU flows, to compare with: DOP853 in each mode, brute force.

It shares no code with flowsim. With a_0 = x, z_l = W_l a_{l-1}, a_l = phi(z_l), f = z_{H+1}, delta_{H+1} = -dl/df / n:

    e_l = B_{l+1}^T delta_{l+1},   delta_l = phi'(z_l) e_l off the kinks, c on them,   dW_l/dt = sum delta_l a_{l-1}^T

The MODE of the flow says on which side of its kink each pre-activation is: +1, -1, or 0 where it slides (z stays 0).
A slid kink has a signal c between gamma e and e, and all c together make dz/dt = 0 on all slid kinks.
Velocities are linear in (delta_{H+1}, c) jointly, so the matrix of this linear system is found by probing: unit signals
on one slid kink at a time, carried down to the weights and from there forward to the pre-activations.
In a mode the flow is a smooth ODE. It is integrated to the first zero of a guard (see `guards`). There every assignment
of sides to the kinks at 0 is tried, all 3^q of them, and exactly one must be consistent.

Everything is flat: "kinks" are all z_lij, layer by layer, and "weights" all entries of W_1 .. W_{H+1}.
States may carry leading dimensions (several times at once). Slope in (0, 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array  # noqa: N812
from scipy.integrate import DOP853, solve_ivp
from scipy.optimize import brentq

AT_ZERO = 1e-11  # a guard below this is at 0: its kink is decided anew at an event, and it does not fire before it rose
WRONG = 1e-9  # a guard that never rose and is below -WRONG shows that the mode was wrong
MOMENT = 1e-6  # modes are judged this long after an event: then also what starts with speed 0 has a sign
POINTS = 16  # per step at which guards are looked at
STEPS = 100  # at least this many steps in a run

LOSSES: dict[str, Callable[[Array, Array], Array]] = {  # -dl/df
    "exponential": lambda f, y: y * np.exp(-y * f),
    "logistic": lambda f, y: y / (1 + np.exp(y * f)),
    "squared": lambda f, y: y - f,
}


@dataclass(frozen=True)
class Problem:
    """A network at its start: inputs n x d, targets n x k, layers; feedback B_2 .. B_{H+1} under the rule "fa"."""

    inputs: Array
    targets: Array
    layers: Sequence[Array]
    rule: str  # "gd", "fa" or "sign-fa"
    loss: str
    slope: float
    t_final: float
    feedback: Sequence[Array] = ()

    @property
    def weight_shapes(self) -> list[tuple[int, ...]]:
        return [layer.shape for layer in self.layers]

    @property
    def kink_shapes(self) -> list[tuple[int, ...]]:
        return [(len(self.inputs), len(layer)) for layer in self.layers[:-1]]


class Mode(NamedTuple):
    sides: Array  # of all kinks: +1, -1, 0
    signs: Array  # of all weights; sign-FA reads those of W_2 .. W_{H+1}


class Event(NamedTuple):
    """A kink, or with sample -1 an outgoing weight of the neuron, goes from one side or sign to another."""

    time: float
    layer: int  # from 1
    sample: int
    neuron: int
    before: int
    after: int


class Solution(NamedTuple):
    layers: list[Array]
    events: list[Event]


class NotOneModeError(RuntimeError):
    """Several modes go on from an event, or none: `modes` are the consistent ones.

    Met only where a sample's whole layer, or a neuron's whole weight vector, arrives at 0.
    """

    def __init__(self, time: float, modes: list[Mode]) -> None:
        super().__init__(f"{len(modes)} consistent modes at t = {time}, not one that attracts")
        self.modes = modes


class Motion(NamedTuple):
    """What a state does in a mode; arrays end in the number of kinks or of weights."""

    z: Array
    drive: Array  # e
    signal: Array  # delta
    speed: Array  # dz/dt
    velocity: Array  # dW/dt
    matrix: Array  # of dz/dt by c on the slid kinks


def split(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    parts = np.split(flat, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1], axis=-1)
    return [part.reshape(*flat.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def join(parts: Sequence[Array]) -> Array:
    lead = np.broadcast_shapes(*(part.shape[:-2] for part in parts))
    return np.concatenate([np.broadcast_to(p, (*lead, *p.shape[-2:])).reshape(*lead, -1) for p in parts], axis=-1)


def backward(error: Array, slopes: list[Array], feedback: Sequence[Array], c: list[Array]) -> tuple[list, list]:
    """delta_1 .. delta_{H+1} and e_1 .. e_H; slopes are 0 on the slid kinks, c is 0 off them."""
    deltas, drives = [error], []
    for slope, matrix, own in zip(reversed(slopes), reversed(feedback), reversed(c), strict=True):
        drives.insert(0, deltas[0] @ matrix)
        deltas.insert(0, slope * drives[0] + own)
    return deltas, drives


def forward(inputs: Array, layers: list[Array], slopes: list[Array]) -> tuple[list[Array], list[Array]]:
    """a_0 .. a_H and z_1 .. z_{H+1}."""
    a, z = [inputs], []
    for layer, slope in zip(layers, [*slopes, None], strict=True):
        z.append(a[-1] @ layer.swapaxes(-1, -2))
        if slope is not None:
            a.append(slope * z[-1])
    return a, z


def speeds(a: list[Array], layers: list[Array], slopes: list[Array], velocity: list[Array]) -> list[Array]:
    """dz_l/dt, l = 1 .. H, by the product rule with the sides held."""
    rates: list[Array] = []
    for level in range(len(slopes)):
        rates.append(a[level] @ velocity[level].swapaxes(-1, -2))
        if level:
            rates[level] = rates[level] + (slopes[level - 1] * rates[level - 1]) @ layers[level].swapaxes(-1, -2)
    return rates


def feedback_of(problem: Problem, layers: list[Array], mode: Mode) -> Sequence[Array]:
    if problem.rule == "sign-fa":
        return split(mode.signs, problem.weight_shapes)[1:]
    return {"gd": layers[1:], "fa": problem.feedback}[problem.rule]


def motion(problem: Problem, state: Array, mode: Mode) -> Motion:
    """All c from dz/dt = 0 on the slid kinks, then the velocity."""
    layers, kinks = split(state, problem.weight_shapes), problem.kink_shapes
    slopes = split(np.choose(mode.sides + 1, [problem.slope, 0.0, 1.0]), kinks)
    feedback = feedback_of(problem, layers, mode)
    a, z = forward(problem.inputs, layers, slopes)
    error = LOSSES[problem.loss](z[-1], problem.targets) / len(problem.inputs)

    def pushed(error: Array, c: Array) -> tuple[Array, Array, list[Array], Array]:
        deltas, drives = backward(error, slopes, feedback, split(c, kinks))
        velocity = [delta.swapaxes(-1, -2) @ before for delta, before in zip(deltas, a, strict=True)]
        return join(deltas[:-1]), join(drives), velocity, join(speeds(a, layers, slopes, velocity))

    slid = np.flatnonzero(mode.sides == 0)
    c = np.zeros((*state.shape[:-1], len(mode.sides)))
    matrix = np.zeros((*state.shape[:-1], len(slid), len(slid)))
    if len(slid):
        units = np.eye(len(mode.sides))[slid].reshape(len(slid), *[1] * (state.ndim - 1), -1)
        matrix = np.moveaxis(pushed(0 * error, units)[-1][..., slid], 0, -1)
        rest = pushed(error, c)[-1][..., slid]
        c[..., slid] = -np.linalg.solve(matrix, rest[..., None])[..., 0]
    signal, drive, velocity, speed = pushed(error, c)
    return Motion(join(z[:-1]), drive, signal, speed, join(velocity), matrix)


def inside(problem: Problem, now: Motion) -> Array:
    """Positive where delta is strictly between gamma e and e, negative outside."""
    with np.errstate(divide="ignore", invalid="ignore"):  # e = 0 where signs cancel: then no signal but 0 is inside
        share = now.signal / now.drive
        return (1 - share) * (share - problem.slope)


def guards(problem: Problem, state: Array, mode: Mode) -> Array:
    """Positive as long as the mode holds: for each kink (inside its box where it slides), then for each weight."""
    now = motion(problem, state, mode)
    kinks = np.where(mode.sides == 0, inside(problem, now), mode.sides * now.z)
    watched = np.full(state.shape[-1], problem.rule == "sign-fa")
    watched[: problem.layers[0].size] = False
    return np.concatenate([kinks, np.where(watched, mode.signs * state, 1.0)], axis=-1)


def is_consistent(problem: Problem, state: Array, mode: Mode, kinks: Array, flipped: Array) -> bool:
    """Whether slid kinks stay in their boxes in this mode, and other kinks and weights go to their sides."""
    try:
        now = motion(problem, state + MOMENT * motion(problem, state, mode).velocity, mode)
    except np.linalg.LinAlgError:
        return False
    kept = np.where(mode.sides == 0, inside(problem, now), mode.sides * now.speed)[kinks]
    return bool((kept > 0).all() and (mode.signs * now.velocity > 0)[flipped].all())


def attracts(problem: Problem, state: Array, mode: Mode) -> bool:
    """Whether each slide, the others held, comes back when it is pushed off: 1 / (M^-1)_ss e_s < 0."""
    now = motion(problem, state, mode)
    return bool((np.diag(np.linalg.inv(now.matrix)) * now.drive[mode.sides == 0] < 0).all())


def consistent_modes(problem: Problem, state: Array, mode: Mode, kinks: Array, flipped: Array) -> list[Mode]:
    """Of the 3^q assignments of sides to the kinks that are at 0."""
    found = []
    for assignment in itertools.product((1, -1, 0), repeat=len(kinks)):
        sides = mode.sides.copy()
        sides[kinks] = assignment
        tried = Mode(sides, mode.signs)
        if is_consistent(problem, state, tried, kinks, flipped):
            found.append(tried)
    return found


def decide(problem: Problem, time: float, state: Array, mode: Mode, kinks: Array, flipped: Array) -> Mode:
    """The only mode that goes on and whose slides attract."""
    found = consistent_modes(problem, state, mode, kinks, flipped)
    stable = [tried for tried in found if attracts(problem, state, tried)]
    if len(stable) != 1:
        raise NotOneModeError(time, found)
    return stable[0]


def integrate(problem: Problem, start: float, state: Array, end: float, mode: Mode, tolerances: dict) -> Array:
    if end <= start:
        return state
    rate = lambda _, u: motion(problem, u, mode).velocity  # noqa: E731
    return solve_ivp(rate, (start, end), state, method="DOP853", **tolerances).y[:, -1].copy()


def next_event(
    problem: Problem, time: float, state: Array, mode: Mode, tolerances: dict
) -> tuple[float, Array, int | None]:
    """From (time, state) to the first zero of a guard, or to t_final: time, state, the guard or None."""
    solver = DOP853(lambda _, u: motion(problem, u, mode).velocity, time, state, problem.t_final, **tolerances)
    armed = guards(problem, state, mode) > AT_ZERO
    while solver.status == "running":
        start, state = solver.t, solver.y.copy()
        solver.step()
        assert solver.status != "failed"
        dense = solver.dense_output()
        guard = lambda t, dense=dense: guards(problem, dense(t).T, mode)  # noqa: E731
        times = np.linspace(start, solver.t, POINTS + 1)
        for before, after, values in zip(times[:-1], times[1:], guard(times)[1:], strict=True):
            if (~armed & (values < -WRONG)).any():
                raise RuntimeError(f"wrong mode at t = {after}")
            fired = np.flatnonzero(armed & (values < 0))
            if len(fired):
                near, first = first_zero(guard, before, after, fired)
                # The dense output is less exact than the steps: one Newton step, with its slope.
                there = integrate(problem, start, state, near, mode, tolerances)
                slope = float(np.diff(guard(near + np.array([-1e-3, 1e-3]) * (solver.t - start))[:, first])[0])
                exact = near - guards(problem, there, mode)[first] * 2e-3 * (solver.t - start) / slope
                return exact, integrate(problem, start, state, exact, mode, tolerances), first
            armed |= values > AT_ZERO
    return problem.t_final, solver.y.copy(), None


def first_zero(guard: Callable[[float], Array], before: float, after: float, fired: Array) -> tuple[float, int]:
    """Of the guards that are positive before and negative after: when, and which."""
    zeros = [(brentq(lambda t, k=k: guard(t)[k], before, after, xtol=1e-15), int(k)) for k in fired]
    return min(zeros)  # type: ignore[return-value]


def events_between(problem: Problem, time: float, before: Mode, after: Mode) -> list[Event]:
    found = []
    for old, new, shapes in zip(before, after, (problem.kink_shapes, problem.weight_shapes), strict=True):
        for level, (one, other) in enumerate(zip(split(old, shapes), split(new, shapes), strict=True)):
            for i, j in np.argwhere(one != other).tolist():
                place = (level, -1, j) if old is before.signs else (level + 1, i, j)
                found.append(Event(float(time), *place, int(one[i, j]), int(other[i, j])))
    return found


def solve(problem: Problem, rtol: float = 1e-12) -> Solution:
    tolerances = {"rtol": rtol, "atol": 1e-14, "max_step": problem.t_final / STEPS}
    time, state = 0.0, join(problem.layers)
    sides = np.concatenate([np.sign(z).ravel() for z in starting_z(problem)]).astype(int)
    mode = Mode(sides, np.sign(state).astype(int))
    nothing, kinks = np.zeros(0, int), np.flatnonzero(sides == 0)
    mode = decide(problem, time, state, mode, kinks, nothing)
    events: list[Event] = []
    while True:
        time, state, fired = next_event(problem, time, state, mode, tolerances)
        if fired is None:
            return Solution(split(state, problem.weight_shapes), events)
        signs, flipped = mode.signs.copy(), nothing
        kinks = np.flatnonzero((mode.sides == 0) | (guards(problem, state, mode)[: len(sides)] < AT_ZERO))
        if fired >= len(sides):
            flipped = np.array([fired - len(sides)])
            signs[flipped] *= -1
        old = mode
        mode = decide(problem, time, state, Mode(old.sides, signs), kinks, flipped)
        events += events_between(problem, time, old, mode)


def starting_z(problem: Problem) -> list[Array]:
    a, found = problem.inputs, []
    for layer in problem.layers[:-1]:
        found.append(a @ layer.T)
        a = np.where(found[-1] > 0, found[-1], problem.slope * found[-1])
    return found


def smoothed(problem: Problem, beta: float) -> list[Array]:
    """Final layers with phi'(z) = gamma + (1 - gamma) sigmoid(beta z), phi(z) = phi'(z) z, sign w = tanh(beta w)."""
    shapes = problem.weight_shapes

    def rate(_: float, state: Array) -> Array:
        layers = split(state, shapes)
        a, slopes = [problem.inputs], []
        for layer in layers[:-1]:
            z = a[-1] @ layer.T
            slopes.append(problem.slope + (1 - problem.slope) * (1 + np.tanh(beta * z / 2)) / 2)
            a.append(slopes[-1] * z)
        feedback = {"gd": layers[1:], "fa": problem.feedback, "sign-fa": [np.tanh(beta * w) for w in layers[1:]]}
        error = LOSSES[problem.loss](a[-1] @ layers[-1].T, problem.targets) / len(problem.inputs)
        deltas, _drives = backward(error, slopes, feedback[problem.rule], [np.zeros(1)] * len(slopes))
        return join([delta.T @ before for delta, before in zip(deltas, a, strict=True)])

    run = solve_ivp(rate, (0, problem.t_final), join(problem.layers), method="LSODA", rtol=1e-10, atol=1e-12)
    assert run.success
    return split(run.y[:, -1], shapes)
