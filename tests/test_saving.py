"""Solutions in files: they come back to the last bit, and whatever else a file holds ends in one line."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_problems import RULES, gaussian_data, sliding

import flowsim
from flowsim import (
    Dataset,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
    Weights,
    losses,
    solve,
)
from flowsim.activation import Tanh
from flowsim.initialization import deep_gaussian
from flowsim.rules import Rule

TIMES = torch.tensor([0.0, 0.1, 0.77, 1.0], dtype=torch.float64)
LOSSES = ["exponential", "logistic", "squared", losses.polynomial(1.3), losses.logistic]


def require_same(one: Solution, other: Solution) -> None:
    times = TIMES.clamp(max=one.status.time.min().item())
    for quantity in ("evaluate", "velocity", "error"):
        pairs = zip(getattr(one, quantity)(times).layers, getattr(other, quantity)(times).layers, strict=True)
        for here, there in pairs:
            torch.testing.assert_close(here, there, rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(*pair) for pair in zip(one.pattern(times), other.pattern(times), strict=True))
    assert all(torch.equal(*pair) for pair in zip(one.pieces, other.pieces, strict=True))
    for name, column in vars(one.events).items():
        assert torch.equal(column, getattr(other.events, name))
    assert one.statistics.keys() == other.statistics.keys()
    for name, count in one.statistics.items():
        assert torch.equal(count, other.statistics[name])
    assert torch.equal(one.status.time, other.status.time)
    assert (one.status.reason == other.status.reason).all()
    assert type(one.start) is type(other.start)
    assert (one.t_final, one.batch_shape, one.settings) == (other.t_final, other.batch_shape, other.settings)
    assert torch.equal(one.flow.risk(one.start), other.flow.risk(other.start))


def again(solution: Solution, folder: Path) -> Solution:
    solution.save(folder / "solution.npz")
    return flowsim.load(folder / "solution.npz")


@pytest.mark.parametrize("loss", range(len(LOSSES)))
@pytest.mark.parametrize("rule", RULES)
def test_event_solutions_come_back_to_the_last_bit(rule: str, loss: int, tmp_path: Path) -> None:
    """Of data that span their space, and that do not: each loss and each rule with both."""
    dimension = (3, 7)[(loss + RULES.index(rule)) % 2]
    flow, weights = gaussian_data(rule, 2, samples=5, dimension=dimension, width=4)
    solution = solve(replace(flow, loss=LOSSES[loss]), weights, 1.0, rtol=1e-7)
    same = again(solution, tmp_path)
    require_same(same, solution)
    require_same(again(same.companion, tmp_path), solution.companion)  # in turned coordinates
    require_same(same.extend(1.5), solution.extend(1.5))


def test_solutions_of_every_shape_come_back_to_the_last_bit(tmp_path: Path) -> None:
    flow, weights = gaussian_data("fa", 6, samples=4, dimension=3, width=2)
    grid = flow.map_matrices(weights, lambda matrix: matrix.reshape(2, 3, *matrix.shape[-2:]))
    one = flow.map_matrices(weights, lambda matrix: matrix[0])
    broadcast = one[0], weights
    classes = Flow(Dataset(torch.eye(3), [0, 1, 2], classes=3), SignFeedbackAlignment(0.5), "cross-entropy", 0)
    for problem in (grid, one, broadcast, (classes, Weights(torch.eye(3), torch.eye(3))), sliding()):
        solution = solve(*problem, 1.0, rtol=1e-7)
        require_same(again(solution, tmp_path), solution)
        require_same(again(solution.extend(1.5), tmp_path), solution.extend(1.5))


def test_runge_kutta_and_deep_solutions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    flow, weights = gaussian_data("sign-fa", 2, samples=4, dimension=6, width=2)
    shallow = solve(flow, weights, 0.1, method="dopri5", rtol=1e-6)
    deep = deep_gaussian((3, 4, 2, 3), 0)
    dataset = Dataset(torch.eye(3), [0, 1, 2], classes=3)
    backward = FeedbackAlignment(tuple(layer + 1 for layer in deep.layers[1:]))
    direct = DirectFeedbackAlignment((torch.ones(3, 4), torch.eye(3, 2)))
    runs = [
        solve(Flow(dataset, rule, "cross-entropy"), deep, 0.1, method="dopri5", rtol=1e-6)
        for rule in (backward, direct)
    ]
    for solution in (shallow, *runs):
        require_same(again(solution, tmp_path), solution)
        require_same(again(solution, tmp_path).extend(0.2), solution.extend(0.2))


def test_starts_on_a_kink_come_back_where_rounding_puts_them_exactly_there(tmp_path: Path) -> None:
    flow, weights = gaussian_data("fa", 1, samples=5, dimension=3, width=4)
    flow, weights = flow.map_matrices(weights, lambda matrix: matrix[0])
    normal = flow.dataset.inputs[:1] / flow.dataset.inputs[:1].norm()
    solution = solve(flow, Weights(weights.layers[0] - weights.layers[0] @ normal.T @ normal, weights.layers[1]), 1.0)
    assert not torch.equal(solution.start.hidden, solution.weights.hidden), "rounding moves them"
    require_same(again(solution, tmp_path), solution)


@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_partial_solutions_come_back_with_their_status(method: str, tmp_path: Path) -> None:
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    weights = Weights(torch.ones(3, 1, 1), torch.tensor([[0.5], [-300.0], [-800.0]]))
    solution = solve(flow, weights, 1.0, throw=False, method=method, rtol=1e-6)
    assert solution.status.ended.tolist() == [True, False, False]
    same = again(solution, tmp_path)
    require_same(same, solution)
    assert torch.equal(same[0].evaluate(1.0).hidden, solution[0].evaluate(1.0).hidden)


class MyFeedback(FeedbackAlignment):
    """A rule of the user's."""


class MyFlow(Flow):
    """A flow of the user's."""


def test_what_is_not_flowsims_cannot_be_saved_and_is_named(tmp_path: Path) -> None:
    dataset, weights = Dataset([[1.0]], [1]), Weights(torch.ones(1, 1), torch.ones(1))
    path = tmp_path / "solution.npz"
    loss = replace(losses.polynomial(2), name="my own")
    mine: Rule = MyFeedback([1.0])
    for flow, message in [
        (Flow(dataset, mine), "rule must be one of flowsim's to be saved, got MyFeedback"),
        (Flow(dataset, GradientDescent(), loss), "loss must be one of flowsim's to be saved, got the Loss 'my own'"),
        (MyFlow(dataset, GradientDescent()), "flow must be a flowsim.Flow to be saved, got MyFlow"),
        (
            Flow(dataset, GradientDescent(), activation=Tanh()),
            r"activation must be a leaky ReLU to be saved, got Tanh\(\)",
        ),
    ]:
        solution = solve(flow, weights, 0.1, method="dopri5", rtol=1e-4)
        with pytest.raises(ValueError, match=message):
            solution.save(path)
    assert not path.exists()
    with pytest.raises(ValueError, match=r"no/such/solution.npz cannot be written"):
        solve(Flow(dataset, GradientDescent()), weights, 0.1).save("no/such/solution.npz")


@pytest.fixture(scope="module", params=["event", "dopri5"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    path = tmp_path_factory.mktemp("stored") / "solution.npz"
    flow, weights = gaussian_data("fa", 2, samples=3, dimension=4, width=2)
    solve(flow, weights, 0.1, method=request.param, rtol=1e-6).save(path)
    with np.load(path) as archive:
        return dict(archive)


def refusal(arrays: dict[str, np.ndarray], folder: Path) -> str:
    """What is said of a file with these arrays; no warning, and nothing but a ValueError."""
    np.savez(folder / "broken.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"broken\.npz") as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        flowsim.load(folder / "broken.npz")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_array_is_needed_and_of_its_type_and_shape(stored: dict[str, np.ndarray], tmp_path: Path) -> None:
    for key, array in stored.items():
        others = {name: other for name, other in stored.items() if name != key}
        if key != "basis":  # without it, its companions do not belong
            assert key in refusal(others, tmp_path)
        wrong = np.array("no") if array.dtype.kind != "U" else np.array(1.5)
        assert key in refusal({**others, key: wrong}, tmp_path)
        refusal({**others, key: np.stack([array, array])}, tmp_path)
        refusal({**others, key: array[..., None]}, tmp_path)
    assert "other" in refusal({**stored, "other": np.zeros(1)}, tmp_path)


def test_numbers_that_are_not_finite_or_do_not_fit_are_refused(stored: dict[str, np.ndarray], tmp_path: Path) -> None:
    for key, array in stored.items():
        if array.dtype.kind != "f" or key == "end_unit":
            continue
        for wrong in (np.nan, np.inf):
            broken = array.copy()
            broken.reshape(-1)[-1] = wrong
            assert key in refusal({**stored, key: broken}, tmp_path)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("kind", lambda a: np.array("something else"), "kind must be 'flowsim solution', got 'something else'"),
        ("version", lambda a: a + 1, "version must be 2, got 3"),
        ("method", lambda a: np.array("rk4"), "method must be one of event, dopri5.* got 'rk4'"),
        ("rule", lambda a: np.array("adam"), "rule must be one of gd, fa, direct-fa, sign-fa, got 'adam'"),
        ("loss", lambda a: np.array("hinge"), "loss must be one of .*, got 'hinge'"),
        ("slope", lambda a: a + 1, "slope must lie in"),
        ("decay", lambda a: a - 1, "decay must be a finite number of at least 0, got -1.0"),
        ("rtol", lambda a: -a, "rtol must be a finite number above 0"),
        ("labels", lambda a: 2 * a, "labels must be -1 or"),
        ("inputs", lambda a: 2 * a, "reduced_inputs must fit"),
        ("hidden", lambda a: 2 * a, "reduced_hidden must fit"),
        ("basis", lambda a: 2 * a, "basis must fit"),
        ("offset", lambda a: a + 1, "offset must fit"),
        ("batch_shape", lambda a: a[::-1] + 1, "batch_shape must be that of flow and weights"),
        ("reasons", lambda a: a[:1], "reasons must hold one entry for each of 2 trajectories"),
        ("step_time", lambda a: a[::-1], "step_time must go from 0 to end_time, in order"),
        ("step_time", lambda a: -a, "step_time must not be negative"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_the_others_are_refused(
    key: str, change: Callable, message: str, stored: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = refusal({**stored, key: change(stored[key])}, tmp_path)
    assert re.search(message, found), found


def test_paths_that_do_not_fit_are_refused(stored: dict[str, np.ndarray], tmp_path: Path) -> None:
    def changed(key: str, change: Callable) -> str:
        return refusal({**stored, key: change(stored[key].copy())}, tmp_path)

    if stored["method"] == "event":
        assert "step_index must name" in changed("step_index", lambda a: a[::-1])
        assert "step_index must name" in changed("end_steps", lambda a: a + 1)
        assert "step_side must hold numbers from -1 to 1" in changed("step_side", lambda a: a + 2)
        assert "end_contact must hold numbers from 0 to 2" in changed("end_contact", lambda a: a + 5)
        assert "step_opens must be the times" in changed("step_opens", lambda a: a + 1)
        assert "step_weights must start from" in changed("step_weights", lambda a: a + 1)
        assert "step_time must go" in changed("end_time", lambda a: a / 2)
        assert "kernel must be one of batched" in changed("kernel", lambda a: np.array("mine"))
        assert "version must be 2, got 1: read it with" in changed("version", lambda a: a - 1)
    else:
        assert "step_count must be 1 at least" in changed("step_count", lambda a: np.array([a.sum(), 0]))
        assert "step_time must have shape" in changed("step_count", lambda a: a * 2**40)
        assert "step_state must start from" in changed("step_state", lambda a: a + 1)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(b"PK\x03\x04 and so on")
    for message in (
        "file.npz",
        "file.npz is not a solution that can be read: it lacks the key 'kind'; it has inputs",
        "file.npz",
    ):
        with pytest.raises(ValueError, match=message) as caught:
            flowsim.load(path)
        assert "\n" not in str(caught.value)
        arrays: dict = {"inputs": np.eye(2)} if message == "file.npz" else {"kind": np.array([{}], dtype=object)}
        np.savez(path, **arrays)
