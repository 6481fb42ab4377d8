"""The slow second integrator against closed forms, the laws of conservation and smoothed networks."""

import dataclasses

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from conformance import reference
from conformance.reference import Mode, NotOneModeError, Problem, motion, smoothed, solve
from conformance.reference_runs import SEEDS, features, flow_and_weights, load_runs, random_problem
from flowsim import Weights
from flowsim import solve as solve_by_flowsim

RUNS = load_runs()


@pytest.fixture(autouse=True)
def kernel() -> None:
    """The reference has none: its tests run once, and not by each kernel of flowsim."""


def distance(found: list[np.ndarray], true: list[np.ndarray]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(found, true, strict=True))


def two_layers(inputs: list, labels: list, hidden: list, output: float, t_final: float) -> Problem:
    """One neuron with feedback 1, exponential loss, slope .3."""
    layers = [np.array([hidden]), np.array([[output]])]
    targets = np.array(labels, float)[:, None]
    return Problem(np.array(inputs), targets, layers, "fa", "exponential", 0.3, t_final, [np.ones((1, 1))])


def sliding(t_final: float, labels: tuple = (-1, 1)) -> Problem:
    """Solution 2 of theorems/README.md, section 8: starts on the kink of the first sample."""
    return two_layers([[1.0, 0.0], [0.6, 1.2]], list(labels), [0.0, 0.25], 0.1, t_final)


@pytest.mark.parametrize("loss", ["exponential", "logistic", "squared"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5])
def test_velocities_off_the_kinks_are_those_of_the_flow(seed: int, loss: str) -> None:
    problem = dataclasses.replace(random_problem(seed), loss=loss)
    state = reference.join(problem.layers)
    sides = np.concatenate([np.sign(z).ravel() for z in reference.starting_z(problem)]).astype(int)
    found = motion(problem, state, Mode(sides, np.sign(state).astype(int))).velocity
    flow, weights = flow_and_weights(problem)
    true = reference.join([layer.numpy() for layer in flow.velocity(weights).layers])
    np.testing.assert_allclose(found, true, rtol=0, atol=1e-14 * np.abs(true).max())


def test_one_active_neuron() -> None:
    """v = v0 + (z^2 - z0^2) / 2|x|^2 and t(z) = |x|^-2 int exp(v z) dz."""
    v = lambda z: 0.1 + (z**2 - 0.5**2) / 8  # noqa: E731
    time = quad(lambda z: np.exp(v(z) * z) / 4, 0.5, 3.0, epsabs=1e-14, epsrel=1e-14)[0]
    hidden, output = solve(two_layers([[2.0]], [1], [0.25], 0.1, time)).layers
    assert abs(2 * hidden.item() - 3.0) < 1e-12 and abs(output.item() - v(3.0)) < 1e-12


def test_one_sliding_neuron_and_its_exit() -> None:
    """With k = |x_2|^2 - K_12^2 / |x_1|^2: v = v0 + (z^2 - z0^2) / 2k, t(z) = (2/k) int exp(v z) dz, z that of x_2."""
    k = 1.8 - 0.36
    v = lambda z: 0.1 + (z**2 - 0.3**2) / (2 * k)  # noqa: E731
    time = lambda z: 2 / k * quad(lambda s: np.exp(v(s) * s), 0.3, z, epsabs=0, epsrel=1e-13)[0]  # noqa: E731
    hidden, output = solve(sliding(time(0.6))).layers
    assert abs(hidden[0, 0]) < 1e-15 and abs(1.2 * hidden[0, 1] - 0.6) < 1e-12 and abs(output.item() - v(0.6)) < 1e-12

    at_exit = time(brentq(lambda z: 0.6 * np.exp(-v(z) * z) - 0.3, 0.3, 3.0, xtol=1e-15))
    (event,) = solve(sliding(1.1 * at_exit)).events
    assert event[1:] == (1, 0, 0, 0, -1) and abs(event.time - at_exit) < 1e-11


def test_a_start_on_a_repelling_kink_goes_on_in_three_ways() -> None:
    with pytest.raises(NotOneModeError) as error:
        solve(sliding(1.0, labels=(1, -1)))
    assert [mode.sides[0] for mode in error.value.modes] == [1, -1, 0]


@pytest.mark.parametrize(("rule", "seed"), [("gd", 5), ("fa", 6), ("sign-fa", 1)])
def test_two_layers_end_where_the_event_driven_integrator_ends(rule: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hidden, output, feedback = (rng.standard_normal(shape) for shape in [(3, 5), (1, 3), (1, 3)])
    inputs, labels = rng.standard_normal((8, 5)), np.sign(rng.standard_normal((8, 1)))
    problem = Problem(inputs, labels, [hidden, output], rule, "exponential", 0.3, 5.0, [feedback])
    flow, weights = flow_and_weights(problem)
    true = solve_by_flowsim(flow, Weights.sharing(*weights.layers), t_final=5.0, method="event")
    solution = solve(problem)
    assert features(solution.events).exits > 0
    assert [tuple(event)[2:7] for event in true.events] == [event[1:] for event in solution.events]
    assert distance(solution.layers, [layer.numpy() for layer in true.evaluate(5.0).layers]) < 1e-10


def gains(problem: Problem, layers: list[np.ndarray], level: int) -> tuple[np.ndarray, np.ndarray]:
    """What the outgoing and the incoming weights of each neuron of a hidden layer count, in Theorem 5.2."""
    incoming, outgoing = layers[level], layers[level + 1]
    counted = {
        "gd": lambda: (outgoing**2).sum(0) / 2,
        "fa": lambda: (problem.feedback[level] * outgoing).sum(0),
        "sign-fa": lambda: np.abs(outgoing).sum(0),
    }
    return counted[problem.rule](), (incoming**2).sum(1) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_alignment_is_conserved_at_every_neuron_of_the_kept_runs(seed: int) -> None:
    """Theorem 5.2 through crossings, slides and flips; that the incoming weights alone are not is the control."""
    problem, solution = RUNS[seed]
    moved = 0.0
    for level in range(len(problem.layers) - 1):
        (out0, in0), (out1, in1) = (gains(problem, list(layers), level) for layers in (problem.layers, solution.layers))
        np.testing.assert_allclose(out1 - out0, in1 - in0, rtol=0, atol=1e-11)
        moved = max(moved, np.abs(in1 - in0).max())
    assert moved > 0.01


def test_the_kept_runs_have_all_that_is_hard() -> None:
    found = {seed: features(solution.events) for seed, (_, solution) in RUNS.items()}
    assert list(found) == list(SEEDS)
    assert all(each.deep_entries and each.exits for each in found.values())
    assert sum(each.in_two_layers > 0 for each in found.values()) >= 8
    assert sum(each.of_one_sample > 0 for each in found.values()) >= 6
    assert sum(each.flips_while_sliding > 0 for each in found.values()) >= 4
    assert sum(each.at_once > 0 for each in found.values()) >= 8
    kinds = {(problem.rule, len(problem.layers)) for problem, _ in RUNS.values()}
    assert kinds == {(rule, depth) for rule in ("gd", "fa", "sign-fa") for depth in (3, 4)}


def test_a_kept_run_comes_out_again_with_one_consistent_mode_at_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    modes, found = reference.consistent_modes, []
    monkeypatch.setattr(reference, "consistent_modes", lambda *at: found.append(modes(*at)) or found[-1])
    problem, kept = RUNS[95]
    solution = solve(problem)
    assert distance(solution.layers, kept.layers) < 1e-11
    assert [event[1:] for event in solution.events] == [event[1:] for event in kept.events]
    assert {len(each) for each in found} == {1}


@pytest.mark.parametrize(("seed", "beta"), [(6, 1e3), (95, 1e3), (32, 1e3)])
def test_smoothed_networks_tend_to_the_run_as_their_smoothing(seed: int, beta: float) -> None:
    problem, solution = RUNS[seed]
    coarse, fine = (distance(smoothed(problem, b), solution.layers) for b in (beta, 10 * beta))
    assert fine < 2e-3 and 6 < coarse / fine < 14


def test_with_boxes_that_ignore_the_slides_above_no_mode_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: e without the c of the layers above, in a run in which one sample slides in two layers."""
    backward = reference.backward
    ignoring = lambda error, slopes, feedback, c: (  # noqa: E731
        backward(error, slopes, feedback, c)[0],
        backward(error, slopes, feedback, [0 * part for part in c])[1],
    )
    monkeypatch.setattr(reference, "backward", ignoring)
    with pytest.raises(NotOneModeError):
        solve(RUNS[32][0])


def test_without_slides_no_mode_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: kinks that are crossed always."""
    consistent = reference.is_consistent
    crossed = lambda problem, state, mode, *at: (mode.sides != 0).all() and consistent(problem, state, mode, *at)  # noqa: E731
    monkeypatch.setattr(reference, "is_consistent", crossed)
    with pytest.raises(NotOneModeError) as error:
        solve(RUNS[6][0])
    assert error.value.modes == []


def test_a_sample_whose_whole_layer_arrives_at_0_is_not_gone_on_with_silently() -> None:
    with pytest.raises(NotOneModeError, match="2 consistent modes"):
        solve(random_problem(122))
