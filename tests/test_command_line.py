"""`flowsim simulate`: what it writes, and what it says and leaves behind when the input is bad."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowsim
from flowsim import runs
from flowsim.commands import simulate as command
from flowsim.commands.simulate import main
from flowsim.files import whole
from flowsim.shell import leave

PROBLEM: dict[str, Any] = {
    "inputs": np.array([[1.0, 0.1], [0.3, 1.0], [-1.0, -0.3]]),  # all y_i y_k x_i . x_k > 0
    "labels": np.array([1, 1, -1]),
    "hidden": np.array([[0.5, 0.2], [0.1, -0.4], [-0.3, 0.3], [0.2, 0.1]]),
    "output": np.array([1.0, -1.0, 1.0, -1.0]),
    "feedback": np.array([1.0, -1.0, 1.0, -1.0]),
}
SAMPLES, DIMENSION, WIDTH = 3, 2, 4


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_problem(**changed: Any) -> None:
    """problem.npz with some arrays replaced, or left out if None."""
    arrays = {key: value for key, value in {**PROBLEM, **changed}.items() if value is not None}
    np.savez("problem.npz", **arrays)


def simulate(*options: str, file: str = "problem.npz", rule: str = "fa", output: str = "run.npz") -> int:
    return main([file, "--rule", rule, "--t-final", "2", "--output", output, *options])


def read_run(path: str = "run.npz") -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as run:
        return dict(run)


def assert_refused(
    capsys: pytest.CaptureFixture[str], *options: str, names: list[str], status: int = 2, **settings: str
) -> None:
    """Refused with the status and one line on stderr, the directory left as it was."""
    before = {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}
    assert simulate(*options, **settings) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    *bar, message = captured.err.splitlines()
    assert message.startswith("error: ")
    assert all("solving" in line or not line.strip() for line in bar)  # nothing but the progress bar above it
    assert all(name in message for name in names), message
    assert {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")} == before


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["fa", "sign-fa", "gd"])
def test_a_run_holds_the_documented_keys_with_their_shapes_and_settings(
    rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_problem()
    options = ["--slope", "0.4", "--loss", "logistic", "--method", "bosh3", "--rtol", "1e-6"]
    assert simulate("--times", "7", *options, rule=rule) == 0
    run = read_run()
    shapes = {
        "times": (7,),
        "loss": (7,),
        "hidden": (7, WIDTH, DIMENSION),
        "output": (7, WIDTH),
        "conserved": (7, WIDTH),
        "alignment": (7,),
    }
    settings = {"rule": rule, "slope": 0.4, "loss_function": "logistic", "t_final": 2.0, "method": "bosh3"}
    events = {f"event_{name}" for name in ("times", "kinds", "layers", "samples", "neurons")}
    measured = {key for key in run if not key.startswith("solution/")}
    assert measured == {*shapes, *events, *settings, "version", "start"}
    for key, shape in shapes.items():
        assert run[key].shape == shape, key
        assert run[key].dtype == np.float64, key
        assert np.isfinite(run[key]).all(), key
    assert run["event_times"].ndim == 1
    assert ((run["event_times"] > 0) & (run["event_times"] < 2)).all()
    assert {key: run[key].item() for key in settings} == settings
    assert run["version"].item()
    assert capsys.readouterr().out.startswith("run.npz: t = 2, loss ")
    assert sorted(os.listdir()) == ["problem.npz", "run.npz"]


def test_the_slope_is_that_of_the_file_unless_the_command_says_another() -> None:
    write_problem()
    np.savez("steep.npz", **PROBLEM, slope=0.9)
    ends = []
    for file, options in [("problem.npz", ["--slope", "0.9"]), ("steep.npz", []), ("steep.npz", ["--slope", "0.3"])]:
        assert simulate(*options, file=file) == 0
        run = read_run()
        ends.append((run["slope"].item(), run["loss"][-1].item()))
    assert ends[0] == ends[1] and ends[1][0] == 0.9
    assert ends[2][0] == 0.3 and ends[2][1] != ends[1][1]


def test_a_run_starts_at_the_given_weights_and_measures_them() -> None:
    write_problem()
    assert simulate("--times", "5", "--slope", "0.3") == 0
    run = read_run()
    hidden, output, feedback = (PROBLEM[key] for key in ("hidden", "output", "feedback"))
    # reducing and lifting: orthogonal coordinates of numbers below 1
    np.testing.assert_allclose(run["hidden"][0], hidden, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(run["output"][0], output)
    pre_activations = PROBLEM["inputs"] @ hidden.T
    outputs = np.where(pre_activations > 0, pre_activations, 0.3 * pre_activations) @ output
    assert run["loss"][0] == pytest.approx(np.exp(-PROBLEM["labels"] * outputs).mean(), rel=1e-14)
    np.testing.assert_allclose(run["conserved"][0], feedback * output - 0.5 * (hidden**2).sum(1), rtol=0, atol=1e-14)
    assert run["alignment"][0] == pytest.approx(1.0, rel=1e-14)
    # the risk falls; the law of Theorem 5.2 holds to the solver's tolerance 1e-10 per step times some 100 steps
    assert (np.diff(run["loss"]) < 0).all()
    assert np.abs(run["conserved"] - run["conserved"][0]).max() < 1e-8


@pytest.mark.parametrize(("times", "t_final"), [(2, "2"), (3, "3.3"), (10, "3.3"), (200, "0.1")])
def test_times_are_zero_then_logarithmically_spaced_up_to_t_final(times: int, t_final: str) -> None:
    write_problem()
    assert simulate("--times", str(times), "--t-final", t_final) == 0
    at = read_run()["times"]
    assert at.shape == (times,)
    assert at[0] == 0
    assert at[-1] == pytest.approx(float(t_final), rel=4 * np.finfo(float).eps, abs=0)
    assert at[-1] <= float(t_final)
    assert (np.diff(at) > 0).all()
    if times > 3:
        steps = np.diff(np.log(at[1:]))
        np.testing.assert_allclose(steps, steps[0], rtol=1e-10)  # differences of logarithms, each exact to 1e-15


def test_200_times_are_reported_unless_told_otherwise() -> None:
    write_problem()
    assert simulate() == 0
    assert read_run()["times"].shape == (200,)


def test_an_output_name_is_taken_as_it_is_and_an_old_run_is_replaced() -> None:
    write_problem()
    Path("old").write_text("old")
    assert simulate("--times", "3", output="old") == 0
    assert read_run("old")["times"].shape == (3,)
    assert sorted(os.listdir()) == ["old", "problem.npz"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_run_is_as_readable_as_any_other_new_file() -> None:
    write_problem()
    assert simulate("--times", "3") == 0
    assert Path("run.npz").stat().st_mode == Path("problem.npz").stat().st_mode


def test_feedback_is_not_needed_where_it_is_not_used() -> None:
    write_problem(feedback=None)
    for rule in ("sign-fa", "gd"):
        assert simulate("--times", "3", rule=rule) == 0


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8"])
def test_arrays_of_other_float_types_are_read(dtype: str) -> None:
    write_problem(inputs=PROBLEM["inputs"].astype(dtype), hidden=PROBLEM["hidden"].astype(dtype))
    assert simulate("--times", "3") == 0


@pytest.mark.parametrize("order", [1, -1], ids=["rows", "reversed columns"])
def test_the_memory_layout_of_arrays_does_not_matter(order: int) -> None:
    write_problem(inputs=np.asfortranarray(PROBLEM["inputs"][:, ::order]))
    assert simulate("--times", "3") == 0


# --- bad input -------------------------------------------------------------------------------------------------------

BAD_ARRAYS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("label 0", {"labels": np.array([1, 0, -1])}, ["labels", "got 0 ", "(1,)"]),
    ("label 0.5", {"labels": np.array([1, 0.5, -1])}, ["labels", "0.5", "(1,)"]),
    ("labels of strings", {"labels": np.array(["a", "b", "c"])}, ["labels", "numbers"]),
    ("too few labels", {"labels": np.array([1, 1])}, ["labels", "(3,)", "(2,)"]),
    ("labels as a column", {"labels": np.ones((3, 1))}, ["labels", "(3, 1)"]),
    ("a NaN", {"inputs": np.where(np.eye(3, 2) > 0, np.nan, 1.0)}, ["inputs", "nan", "(0, 0)"]),
    ("an infinity", {"hidden": np.full((4, 2), np.inf)}, ["hidden", "inf", "(0, 0)"]),
    ("a NaN in the output", {"output": np.array([1, 1, 1, np.nan])}, ["output", "nan", "(3,)"]),
    ("an infinity in the feedback", {"feedback": np.array([1, np.inf, 1, 1])}, ["feedback", "inf", "(1,)"]),
    ("complex inputs", {"inputs": PROBLEM["inputs"] * 1j}, ["inputs", "real"]),
    ("1-d inputs", {"inputs": np.ones(3)}, ["inputs", "(3,)"]),
    ("3-d inputs", {"inputs": np.ones((1, 3, 2))}, ["inputs", "(1, 3, 2)"]),
    ("no inputs", {"inputs": np.ones((0, 2)), "labels": np.ones(0)}, ["inputs", "(0, 2)"]),
    ("hidden of another dimension", {"hidden": np.ones((4, 3))}, ["hidden", "(4, 3)"]),
    ("1-d hidden", {"hidden": np.ones(2)}, ["hidden", "(2,)"]),
    ("output of another width", {"output": np.ones(3)}, ["output", "(3,)"]),
    ("2-d output", {"output": np.ones((1, 4))}, ["output", "(1, 4)"]),
    ("feedback of another width", {"feedback": np.ones(3)}, ["feedback", "3"]),
    ("2-d feedback", {"feedback": np.ones((2, 4))}, ["feedback", "(2, 4)"]),
    ("feedback as a row", {"feedback": np.ones((1, 4))}, ["feedback", "(1, 4)"]),
    ("0-d feedback", {"feedback": np.ones(())}, ["feedback", "()"]),
    ("no neurons", {"hidden": np.ones((0, 2)), "output": np.ones(0), "feedback": np.ones(0)}, ["hidden", "(0, 2)"]),
    *(
        (f"no {key}", {key: None}, ["problem.npz", f"lacks the key '{key}'"])
        for key in ("inputs", "labels", "hidden", "output", "feedback")
    ),
]


@pytest.mark.parametrize(("changed", "names"), [case[1:] for case in BAD_ARRAYS], ids=[case[0] for case in BAD_ARRAYS])
def test_bad_arrays_are_refused_in_one_line_that_names_them_and_nothing_is_written(
    changed: Mapping[str, Any], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_problem(**changed)
    assert_refused(capsys, names=names)


def test_object_arrays_are_refused_without_being_unpickled(capsys: pytest.CaptureFixture[str]) -> None:
    write_problem(inputs=np.array([[None, None]] * 3, dtype=object))
    assert_refused(capsys, names=["problem.npz", "not an .npz file of numbers"])


@pytest.mark.parametrize(
    ("option", "value", "names"),
    [
        ("--slope", "-1", ["slope", "-1"]),
        ("--slope", "2", ["slope", "2"]),
        ("--slope", "nan", ["slope", "nan"]),
        ("--t-final", "0", ["--t-final", "0"]),
        ("--t-final", "-1", ["--t-final", "-1"]),
        ("--t-final", "nan", ["--t-final", "nan"]),
        ("--t-final", "inf", ["--t-final", "inf"]),
        ("--times", "1", ["--times", "at least 2", "1"]),
        ("--times", "0", ["--times", "at least 2", "0"]),
        ("--times", "-3", ["--times", "at least 2", "-3"]),
        ("--device", "abacus", ["--device", "abacus"]),
        ("--device", "meta", ["--device", "meta"]),
    ],
)
def test_bad_options_are_refused_by_name_and_nothing_is_written(
    option: str, value: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_problem()
    assert_refused(capsys, option, value, names=names)


@pytest.mark.parametrize(
    "options",
    [
        ["--rule", "backpropagation"],
        ["--method", "euler"],
        ["--t-final", "soon"],
        ["--times", "2.5"],
    ],
    ids=lambda options: options[0],
)
def test_choices_that_do_not_exist_are_refused_with_status_2(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_problem()
    with pytest.raises(SystemExit) as leaving:
        simulate(*options)
    assert leaving.value.code == 2
    message = capsys.readouterr().err
    assert options[0] in message
    assert options[1] in message
    assert os.listdir() == ["problem.npz"]


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(capsys, file="nowhere.npz", names=["nowhere.npz", "No such file"])


def test_a_directory_in_the_place_of_the_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder.npz").mkdir()
    assert_refused(capsys, file="folder.npz", names=["folder.npz", "directory"])


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 but no more"], ids=["empty", "text", "cut zip"])
def test_a_file_that_is_not_an_npz_is_named(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.npz").write_bytes(content)
    assert_refused(capsys, file="broken.npz", names=["broken.npz", "not an .npz file"])


def test_a_single_array_renamed_to_npz_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("array.npy", np.ones((3, 2)))
    Path("array.npy").rename("array.npz")
    assert_refused(capsys, file="array.npz", names=["array.npz", "not an .npz file", "single array"])


def test_a_damaged_compressed_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez_compressed("whole.npz", **PROBLEM)
    content = Path("whole.npz").read_bytes()
    found = 0
    for position in range(70, len(content) // 2, 25):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        Path("damaged.npz").write_bytes(damaged)
        status = simulate("--times", "3", file="damaged.npz")  # 0 where the byte has no meaning
        message = capsys.readouterr().err
        assert status in (0, 2)
        if status == 2:
            found += 1
            assert message.count("\n") == 1
            assert "damaged.npz" in message
    assert found > 3


def test_a_missing_output_directory_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_problem()
    assert_refused(capsys, output="nowhere/run.npz", names=["nowhere/run.npz cannot be written"])


def test_an_output_that_cannot_be_written_is_found_before_the_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    write_problem()
    assert simulate(output="nowhere/run.npz") == 2
    assert "solving" not in capsys.readouterr().err


def test_a_directory_in_the_place_of_the_output_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_problem()
    Path("folder").mkdir()
    assert_refused(capsys, output="folder", names=["folder cannot be written"])


def test_an_old_run_survives_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    write_problem(labels=np.zeros(3))
    Path("run.npz").write_text("old")
    assert_refused(capsys, names=["labels"])
    assert Path("run.npz").read_text() == "old"


SIDES = np.array([[1.0], [-1.0], [1.0], [-1.0]])
OVERFLOWING: dict[str, dict[str, Any]] = {
    "squares overflow": {"hidden": np.full((4, 2), 1e200)},
    "the loss overflows": {"hidden": 1e3 * SIDES * np.ones((4, 2)), "output": -1e3 * SIDES[:, 0]},
    "the loss is large": {"hidden": -1e3 * SIDES * np.ones((4, 2)), "output": np.full(4, 1e3)},
}


@pytest.mark.parametrize("start", OVERFLOWING)
def test_a_start_that_overflows_ends_with_status_1_and_nothing_is_written(
    start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_problem(**OVERFLOWING[start])
    assert_refused(capsys, status=1, names=["t = 0", "nothing was written"])


def test_help_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    shown, errors = capsys.readouterr()
    assert shown.startswith("usage: flowsim simulate")
    for option in ("--rule", "--slope", "--loss", "--t-final", "--times", "--method", "--device", "--output"):
        assert option in shown
    assert errors == ""


def test_the_three_rules_are_three_flows_that_all_lower_the_loss() -> None:
    # b_j v_j > 0 at the start, so that all of them descend; |b_j| != 1 tells FA from sign-FA
    write_problem(feedback=np.array([2.0, -0.5, 1.0, -1.0]))
    lowered = []
    for rule in ("fa", "sign-fa", "gd"):
        assert simulate("--times", "3", rule=rule) == 0
        run = read_run()
        lowered.append(float(run["loss"][-1] / run["loss"][0]))
    assert all(ratio < 1 for ratio in lowered)
    assert len(set(lowered)) == 3


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole(path) as partial:
        partial.write_text("first")
    with pytest.raises(OSError, match="disk full"), whole(path) as partial:
        partial.write_text("sec")
        raise OSError("disk full")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


# --- what is no plain file, what is told, and whose mistake it is ----------------------------------------------------


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr() == (f"flowsim {importlib.metadata.version('flowsim')}\n", "")


@pytest.mark.parametrize("name", ["problem.npz", "link", "other name"])
def test_the_input_is_never_replaced_by_the_output(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_problem()
    os.symlink("problem.npz", "link")
    os.link("problem.npz", "other name")
    assert_refused(capsys, output=name, names=[f"--output {name} must be another file than FILE problem.npz"])


def test_a_link_in_the_place_of_the_output_is_written_through() -> None:
    write_problem()
    os.symlink("target.npz", "link")
    assert simulate("--times", "3", output="link") == 0
    assert Path("link").is_symlink()
    assert read_run("target.npz")["times"].shape == (3,)


def test_an_output_that_cannot_be_written_after_all_has_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    write_problem()
    assert_refused(capsys, output="/dev/full", names=["/dev/full cannot be written: No space left on device"])


def test_a_name_of_250_bytes_is_written() -> None:
    write_problem()
    assert simulate("--times", "3", output="r" * 250) == 0
    assert read_run("r" * 250)["times"].shape == (3,)


def test_a_fifo_in_the_place_of_the_input_is_refused_without_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("fifo")
    assert_refused(capsys, file="fifo", names=["fifo cannot be read: it is a FIFO"])


def quiet(solve: Callable[..., Any], *problem: Any, progress: bool, **more: Any) -> Any:
    return solve(*problem, **more)


@pytest.mark.parametrize("t_final", ["1e307", "1.7976931348623157e308", "1e-300"])
def test_times_near_the_ends_of_the_range_of_numbers_are_reported(
    t_final: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar of `solve` aside."""
    write_problem(inputs=np.array([[1.0]]), labels=np.array([1]), hidden=np.array([[0.5]]), output=np.array([0.3]),
                  feedback=np.array([1.0]))  # fmt: skip
    monkeypatch.setattr(command, "solve", partial(quiet, flowsim.solve))
    assert simulate("--t-final", t_final, "--times", "5") == 0
    run = read_run()
    assert run["times"][-1] == float(t_final)
    assert (np.diff(run["times"]) > 0).all()
    assert np.isfinite(run["hidden"]).all() and (np.diff(run["loss"]) <= 0).all()


@pytest.mark.parametrize("error", [ValueError("own"), TypeError("own"), KeyError("own"), AttributeError("own")])
@pytest.mark.parametrize("place", ["solve", "conserved"])
def test_an_own_mistake_is_no_bad_input(
    place: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise error

    write_problem()
    monkeypatch.setattr(command if place == "solve" else runs, place, wrong)
    with pytest.raises(SystemExit) as leaving:
        leave("simulate", simulate, "interrupted")
    assert leaving.value.code == 1
    err = capsys.readouterr().err
    assert "error: own" not in err
    assert "Traceback" in err and "in wrong" in err
    assert err.splitlines()[-1].startswith(f"internal error in simulate: {type(error).__name__}: ")
    assert err.endswith("(please report)\n")
    assert os.listdir() == ["problem.npz"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")]
)
def test_memory_that_is_short_is_nobodys_mistake(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> int:
        raise error

    with pytest.raises(SystemExit) as leaving:
        leave("simulate", full, "interrupted")
    assert leaving.value.code == 1
    assert capsys.readouterr().err == "error: simulate: there is not enough memory\n"


def test_an_interrupt_has_the_status_of_shells(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as leaving:
        leave("simulate", interrupted, "interrupted; nothing was written")
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    def terminated() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as leaving:
            leave("simulate", terminated, "interrupted; nothing was written")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_standard_output_that_is_full_is_said_in_one_line_and_the_run_is_written() -> None:
    write_problem()
    command_line = [sys.executable, "-m", "flowsim", "simulate", "problem.npz", "--rule", "fa", "--t-final", "1",
                    "--times", "3", "--output", "run.npz"]  # fmt: skip
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            command_line, env=buffered, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "error: standard output cannot be written: No space left on device"
    assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
    assert read_run()["times"].shape == (3,)


def test_an_output_is_not_where_standard_output_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """The line about the run would be lost, or end up in the middle of the arrays."""
    write_problem()
    before = os.dup(1)
    try:
        with open("log", "w") as log:
            os.dup2(log.fileno(), 1)
        assert simulate(output="log") == 2
    finally:
        os.dup2(before, 1)
        os.close(before)
    assert capsys.readouterr() == ("", "error: --output log must be another file than standard output\n")
    assert Path("log").read_text() == ""


# --- tables, weights that are made up, the solution in the run, its plot ----------------------------------------

TABLE = "a,b,kind\n1,0.1,yes\n0.3,1,yes\n-1,-0.3,no\n"


def test_a_table_becomes_a_run_which_says_what_was_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data.csv").write_text(TABLE)
    options = ["--label", "kind", "--init", "gaps", "--width", "5", "--seed", "3", "--scale", "0.5", "--gap", "0.1"]
    assert simulate(*options, "--times", "4", file="data.csv") == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "kind: no is -1, yes is +1"
    assert second == "start: gaps, width 5, seed 3, scale 0.5, gap 0.1, feedback random signs"
    assert third.startswith("run.npz: t = 2, loss ")
    run = read_run()
    np.testing.assert_allclose(run["conserved"], 0.1, atol=1e-8)
    assert run["start"] == second
    np.testing.assert_array_equal(run["solution/labels"], [1, 1, -1])


def test_a_run_is_a_solution_too_to_the_last_bit() -> None:
    write_problem()
    assert simulate("--times", "6", "--rtol", "1e-8", "--max-steps", "5000") == 0
    run, solution = read_run(), flowsim.load("run.npz")
    weights = solution.evaluate(run["times"])
    np.testing.assert_array_equal(weights.tensors["hidden"].numpy(), run["hidden"])
    np.testing.assert_array_equal(solution.flow.risk(weights).numpy(), run["loss"])
    assert (solution.settings.rtol, solution.settings.max_steps) == (1e-8, 5000)
    np.testing.assert_array_equal(solution.flow.dataset.inputs.numpy(), PROBLEM["inputs"])
    columns = solution.events.columns()
    for key, name in [("times", "time"), ("kinds", "kind"), ("layers", "layer"), ("samples", "sample"),
                      ("neurons", "neuron")]:  # fmt: skip
        assert run[f"event_{key}"].tolist() == columns[name]
    assert len(run["event_times"]) > 0


def test_a_run_whose_solution_was_changed_is_refused() -> None:
    write_problem()
    assert simulate("--times", "3") == 0
    run = read_run()
    for key, value in [("solution/version", np.array(3)), ("solution/other", np.zeros(1)), ("solution/rtol", None)]:
        np.savez("broken.npz", **{name: array for name, array in {**run, key: value}.items() if array is not None})
        with pytest.raises(ValueError, match=r"^broken\.npz is not a solution that can be read: "):
            flowsim.load("broken.npz")


def test_deep_networks_and_classes_are_run() -> None:
    Path("data.csv").write_text("a,b,label\n1,0.1,x\n0.3,1,y\n-1,-0.3,z\n")
    assert simulate("--init", "gaussian", "--widths", "4,3", "--method", "dopri5", "--times", "3", file="data.csv") == 0
    run = read_run()
    assert [run[f"layers[{level}]"].shape for level in range(3)] == [(3, 4, 2), (3, 3, 4), (3, 3, 3)]
    assert [run[f"conserved[{level}]"].shape for level in range(2)] == [(3, 4), (3, 3)]
    assert run["loss_function"] == "cross-entropy"
    assert isinstance(flowsim.load("run.npz").weights, flowsim.DeepWeights)


def test_losses_have_names_and_a_power() -> None:
    write_problem()
    assert simulate("--loss", "polynomial:2", "--times", "3") == 0
    assert flowsim.load("run.npz").flow.risk(flowsim.load("run.npz").start).item() == read_run()["loss"][0]
    assert read_run()["loss_function"] == "polynomial:2"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--init", "gaps"], ["--init needs --width M"]),
        (["--width", "4"], ["--width goes with --init gaussian or --init gaps, got 4"]),
        (["--gap", "0.1"], ["--gap goes with --init"]),
        (["--init", "gaussian", "--width", "4", "--gap", "0.1"], ["--gap goes with --init gaps, got 0.1"]),
        (["--init", "gaps", "--width", "4", "--gap", "nan"], ["--gap must be a finite number, got nan"]),
        (["--init", "gaps", "--width", "0"], ["--width must be an integer of at least 1, got 0"]),
        (["--init", "gaussian", "--widths", "4,x"], ["--widths must be integers", "'4,x'"]),
        (["--init", "gaussian", "--widths", "4,-1"], ["--widths must be an integer of at least 1, got -1"]),
        (["--init", "gaps", "--width", "4", "--scale", "0"], ["--scale must be a finite number above 0, got 0.0"]),
        (["--init", "gaps", "--width", "4", "--seed", "-1"], ["seed must be an integer of at least 0, got -1"]),
        (["--init", "gaps", "--width", "4", "--rule", "adafa"], ["--init gaps is not for --rule adafa"]),
        ([], ["data.csv has no weights to start from", "--init gaussian or --init gaps"]),
        (["--loss", "hinge"], ["--loss must be one of exponential", "'hinge'"]),
        (["--loss", "polynomial"], ["--loss polynomial:P must have a number P above 0, got 'polynomial'"]),
        (["--loss", "polynomial:-1"], ["--loss polynomial:P", "'polynomial:-1'"]),
        (
            ["--init", "gaussian", "--width", "4", "--loss", "cross-entropy"],
            ["loss 'cross-entropy' is for classes, got labels -1 and +1: use exponential, logistic or squared"],
        ),
        (["--rtol", "0"], ["--rtol must be a finite number above 0"]),
        (["--max-steps", "0"], ["--max-steps must be an integer of at least 1, got 0"]),
        (["--slope", "2"], ["--slope must lie in [0, 1], got 2"]),
        (["--init", "gaussian", "--width", "4", "--seed", "-1"], ["--seed must be an integer of at least 0, got -1"]),
        (["--device", "tpu"], ["--device must be cpu or cuda, got 'tpu'"]),
        (["--output", "run.txt"], ["--output must end in .npz, got 'run.txt'"]),
        (["--plot", "run.txt"], ["--plot must end in .png, .pdf, .svg, got 'run.txt'"]),
        (
            ["--label", "color"],
            ["data.csv has no column 'color'", "by --label", "one of a, b, kind"],
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(
    options: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data.csv").write_text(TABLE)
    label = [] if "--label" in options else ["--label", "kind"]
    assert_refused(capsys, *label, *options, file="data.csv", names=names)


class Page:
    """In the place of a figure."""

    def savefig(self, path: Path, format: str) -> None:
        path.write_text(f"drawn as {format}")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The solutions that `flowsim.plot.overview` was called with."""
    solutions: list[Any] = []
    stub = types.ModuleType("flowsim.plot")
    stub.overview = lambda solution: solutions.append(solution) or Page()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flowsim.plot", stub)
    monkeypatch.setattr(flowsim, "plot", stub, raising=False)
    return solutions


def test_a_run_is_drawn_beside(drawn: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    write_problem()
    assert simulate("--times", "3", "--plot", "run.PDF") == 0
    assert Path("run.PDF").read_text() == "drawn as pdf"
    assert drawn[0].t_final == 2
    assert capsys.readouterr().out.splitlines()[-1] == "run.PDF: its plot"


def test_a_plot_that_cannot_be_written_costs_no_run(drawn: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    write_problem()
    os.symlink("/dev/full", "full.png")
    assert simulate("--times", "3", "--plot", "full.png") == 2
    out, err = capsys.readouterr()
    assert out.startswith("run.npz: t = 2")
    assert err.splitlines()[-1] == "error: --plot full.png cannot be written: No space left on device"
    assert read_run()["times"].shape == (3,)


@pytest.mark.parametrize("name", ["written.png", "data.png"])
def test_a_plot_is_no_other_file(name: str, drawn: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("problem.npz", **PROBLEM)
    np.savez("run.npz", **PROBLEM)
    os.link("problem.npz", "data.png")
    os.link("run.npz", "written.png")
    assert_refused(capsys, "--plot", name, output="run.npz", names=[f"--plot {name} must be another file than"])


def test_an_interrupted_run_writes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_problem()
    monkeypatch.setattr(command, "solve", interrupted)
    assert simulate() == 130
    assert capsys.readouterr() == ("", "interrupted; nothing was written\n")
    assert os.listdir() == ["problem.npz"]
