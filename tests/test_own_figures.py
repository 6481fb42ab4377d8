"""Figures of data of one's own, and their letters, from the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from figures import own_data
from figures.command import MODULES, main
from figures.own_data import OF_THEIR_OWN, PLOTS
from flowsim import plot
from flowsim.problems import Init, read_source


@pytest.fixture
def file(tmp_path: Path) -> str:
    generator = np.random.default_rng(0)
    path = tmp_path / "mine.npz"
    np.savez(path, inputs=generator.normal(size=(5, 3)), labels=[1, -1, 1, 1, -1])
    return str(path)


def test_every_figure_is_drawn_of_other_data_or_says_why_not() -> None:
    assert {*PLOTS, *OF_THEIR_OWN} == set(MODULES) and not set(PLOTS) & set(OF_THEIR_OWN)


def test_panels_are_the_runs_of_each_rule_on_the_data(file: str) -> None:
    source = read_source(file)
    runs = own_data.measure(source, Init("gaps", (4,), seed=3))
    assert [type(run.flow.rule).__name__ for run in runs.values()] == [
        "FeedbackAlignment", "SignFeedbackAlignment", "GradientDescent",
    ]  # fmt: skip
    figure = own_data.draw("signs", runs)
    assert [axes.get_title() for axes in figure.axes] == ["FA", "sign-FA", "GD"]
    for axes, run in zip(figure.axes, runs.values(), strict=True):
        np.testing.assert_array_equal(run.flow.dataset.inputs.squeeze(), source.dataset.inputs)
        for here, there in zip(axes.get_lines(), plot.signs(run).get_lines(), strict=True):
            np.testing.assert_array_equal(here.get_xydata(), there.get_xydata())


def test_from_the_shell_with_serif_letters(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "drawn"
    names = ["activations", "alignment"]
    options = ["--data", file, "--init", "gaps", "--width", "3", "--output", str(folder)]
    assert main([*names, *options, "--serif"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [f"{n}.{kind}" for n in names for kind in ("pdf", "png")]
    assert all(b"Cmr10" in (folder / f"{name}.pdf").read_bytes() for name in names)
    with Image.open(folder / "alignment.png") as image:
        assert image.info["Source"] == f"python -m figures alignment --data {file}; seeds 0"
    assert capsys.readouterr().err == ""
    assert main(["alignment", *options]) == 0
    assert b"DejaVuSans" in (folder / "alignment.pdf").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibration", "--data", "FILE"], "calibration does not go with --data: it is about many random problems"),
        (["signs", "--data", "no.npz"], "no.npz cannot be read: No such file or directory"),
        (["signs", "--data", "FILE"], "FILE has no weights to start from"),
        (["signs", "--init", "gaps", "--width", "3"], "--init goes with --data, got 'gaps' without it"),
        (["signs", "--label", "y"], "--label goes with --data, got 'y' without it"),
        (["noisy_digits", "--data", "FILE"], "--data does not go with noisy_digits, got 'FILE'"),
    ],
)
def test_what_does_not_go_with_data_is_said_in_one_line_before_anything_is_drawn(
    arguments: list[str], message: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("FILE", file) for argument in arguments]
    assert main([*given, "--output", str(tmp_path / "drawn")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: " + message.replace("FILE", file))
    assert not (tmp_path / "drawn").exists() or not list((tmp_path / "drawn").iterdir())
