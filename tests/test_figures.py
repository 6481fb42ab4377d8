"""Figures, drawn small: what is plotted is what the library says, it can be read, and the gallery is complete."""

import functools
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text
from PIL import Image
from sample_problems import gaussian_data, sliding
from scipy.integrate import solve_ivp

from figures import (
    alignment,
    calibration,
    command,
    conservation,
    conserved_manifold,
    convergence,
    dominance,
    implicit_bias,
    no_plateau,
    peers,
    signs,
)
from figures.command import GALLERY, MODULES, main
from figures.deep_networks import experiment as deep_networks
from figures.noisy_digits import experiment
from figures.noisy_digits.protocol import Protocol
from figures.peers import PEERS, velocity
from figures.style import COLUMN, PAGE, RULES, STYLE, title_and_caption
from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    IntegrationError,
    Solution,
    Weights,
    plot,
    progress,
    solve,
)
from flowsim.initialization import deep_gaussian, gaussian
from flowsim.observables import conserved, dominance_ratio
from flowsim.weights import NetworkWeights, stack
from theorems.constants import mu_nearly_orthogonal, mu_separable, mu_svm, total_gap
from theorems.ensembles import Shape, margin_run
from theorems.no_plateau import scaled_run
from theorems.theorem_5_1 import mu_kernel

ROOT = Path(__file__).parent.parent

SMALL: dict[str, dict[str, Any]] = {
    "conserved_manifold": {"times": 60},
    "conservation": {
        "samples": 3, "width": 3, "t_final": 10.0, "event_rtols": (1e-6, 1e-12), "dopri5_rtols": (1e-5,),
        "step_sizes": (0.1, 0.01),
    },
    "alignment": {"width": 4, "widths": (3, 5, 8), "seeds": (0, 1, 2), "t_final": 2.0},
    "signs": {"width": 6},
    "dominance": {"shape": Shape(3, 4, 0.3), "t_final": 100.0},
    "convergence": {"samples": 3, "width": 4, "seeds": (0, 1), "t_final": 1e3},
    "no_plateau": {"scales": (1e-1, 1e-3), "seeds": (0, 1)},
    "activations": {"samples": 6, "width": 3, "t_final": 100.0},
    "work_precision": {"samples": 3, "width": 3, "t_final": 5.0, "rtols": (1e-4, 1e-8)},
    "calibration": {},
    "implicit_bias": {"slopes": (0.3, 0.6), "seeds": (0, 1), "decades": 100.0, "samples": 3},
    "overview": {"t_final": 10.0},
}  # fmt: skip


GALLERY_FIGURES = {
    **{name: (module, name, module.SEEDS) for name, module in MODULES.items()},
    **{
        f"noisy_digits_{name}": (
            module, "noisy_digits (digits, 200 images, 2500 epochs)",
            (0,) if name == "flow_limit" else range(Protocol().repeats),
        )
        for name, module in experiment.FIGURES.items()
    },
    **{
        f"deep_networks_{name}": (module, "deep_networks (mnist-5000, lenet, 20 epochs)", range(3))
        for name, module in deep_networks.FIGURES.items()
    },
}  # fmt: skip
"""Module, command and seeds of every figure in the gallery."""


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@functools.cache
def small(name: str) -> tuple[Any, Figure]:
    """What a module measures and draws on a small problem."""
    found = MODULES[name].measure(**SMALL[name])
    with matplotlib.rc_context(STYLE):
        return found, MODULES[name].draw(found)


def line(axes: Axes, label: str) -> Line2D:
    """The only line of that name."""
    (found,) = [each for each in axes.get_lines() if each.get_label() == label]
    return found


def data_of(plotted: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(plotted.get_xdata()), np.asarray(plotted.get_ydata())


@functools.cache
def drawn_texts(figure: Figure) -> list[Text]:
    """The texts that are drawn: there are others, such as the labels of ticks beyond the limits of an axis."""
    drawn: list[Text] = []
    original = Text.draw

    def recording(text: Text, renderer: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        original(text, renderer)

    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context(STYLE):
        patch.setattr(Text, "draw", recording)
        figure.draw_without_rendering()
    return list(dict.fromkeys(drawn))


# --- all of them ---


def test_every_figure_can_be_read(name: str) -> None:
    assert_readable(small(name)[1])
    assert_ticks(small(name)[1])


def test_letters_outside_of_formulas_are_such_as_computer_modern_has(name: str) -> None:
    """With --serif: its font has other letters at the places of these."""
    for text in drawn_texts(small(name)[1]):
        assert not set("".join(text.get_text().split("$")[::2])) & set('<>|_{}\\"^~²½µ'), text.get_text()


def assert_readable(figure: Figure) -> None:
    """At the width of a column, or a page, no text is cut off, small, or over another, and names in legends differ."""
    texts = drawn_texts(figure)
    assert len(texts) > 5
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    width, height = figure.get_size_inches() * figure.dpi
    for words, box in boxes:
        assert box.x0 >= -1 and box.x1 <= width + 1, f"{words!r} is cut off"
        assert box.y0 >= -1 and box.y1 <= height + 1, f"{words!r} is cut off"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not _overlap(first, second), f"{one!r} lies over {other!r}"
    assert min(float(text.get_fontsize()) for text in texts) >= 6
    assert figure.get_size_inches()[0] in (COLUMN, PAGE)
    for legend in figure.legends:
        names = [text.get_text() for text in legend.get_texts()]
        assert len(names) == len(set(names)) > 0


def assert_ticks(figure: Figure) -> None:
    """Every axis has three ticks at least: between two, nobody can say where a number is."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in (*axis.get_majorticklocs(), *axis.get_minorticklocs()) if low <= tick <= high]
            assert len(ticks) >= 3, f"{ticks} at {axis.get_label_text()!r}"


def _overlap(first: Any, second: Any, slack: float = 1.0) -> bool:
    return (
        min(first.x1, second.x1) - max(first.x0, second.x0) > slack
        and min(first.y1, second.y1) - max(first.y0, second.y0) > slack
    )


def test_overlapping_and_cut_off_texts_are_seen_by_that_test() -> None:
    """The control: a caption over another, and one beyond the edge."""
    figure = Figure((3.4, 2))
    for x, words in [(0.5, "one"), (0.5, "other"), (0.98, "far out")]:
        figure.text(x, 0.5, words)
    one, other, beyond = (text.get_window_extent() for text in drawn_texts(figure))
    assert _overlap(one, other)
    assert beyond.x1 > 3.4 * figure.dpi + 1


@pytest.mark.parametrize("name", GALLERY_FIGURES)
def test_every_caption_says_which_statement_it_supports(name: str) -> None:
    title, caption = title_and_caption(GALLERY_FIGURES[name][0])
    assert title and len(title) < 80
    assert len(caption) > 200
    assert name in {"work_precision", "calibration"} or any(
        word in caption for word in ("Theorem", "Lemma", "Proposition", "theorem")
    )


@pytest.mark.parametrize("name", GALLERY_FIGURES)
def test_the_gallery_has_every_figure(name: str) -> None:
    module, command, seeds = GALLERY_FIGURES[name]
    png, pdf = (ROOT / GALLERY / f"{name}.{kind}" for kind in ("png", "pdf"))
    title, caption = title_and_caption(module)
    with Image.open(png) as image:
        about = image.info
        assert image.width == 300 * (PAGE if name == "overview" else COLUMN)
    assert (about["Title"], about["Description"]) == (title, caption), "draw it again: its caption has changed"
    assert about["Source"] == f"python -m figures {command}; seeds {', '.join(map(str, seeds))}"
    assert pdf.read_bytes().startswith(b"%PDF")


def test_from_the_shell_one_figure_with_metadata_and_the_same_bytes_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("first", "second"):
        assert main(["signs", "--output", str(tmp_path / folder)]) == 0
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["signs.pdf", "signs.png"]
    for kind in ("png", "pdf"):
        first, second = ((tmp_path / folder / f"signs.{kind}").read_bytes() for folder in ("first", "second"))
        assert first == second
    assert b"seeds 0" in (tmp_path / "first" / "signs.pdf").read_bytes()
    out, err = capsys.readouterr()
    assert "signs.png and .pdf" in out and err == ""
    assert imread(tmp_path / "first" / "signs.png").std() > 0.05


def test_a_wrong_name_or_folder_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["sings"]) == 2
    assert main(["signs", "--output", str(tmp_path / "file" / "x")]) == 2
    first, second = capsys.readouterr().err.strip().split("\n")
    assert first.startswith("error: NAME must be one of conserved_manifold") and first.endswith(
        "got 'sings': did you mean signs?"
    )
    assert second.startswith("error: --output") and second.endswith("cannot be written: Not a directory")


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three figures that are drawn at once, of which the one in the middle fails as `measure` is made to."""

    def module(measure: Callable[[], None]) -> Any:
        return SimpleNamespace(
            __doc__="A figure.\n\nIts caption.", SEEDS=(0,), measure=measure, draw=lambda _: Figure()
        )

    names = ["first", "second", "third"]
    monkeypatch.setattr(command, "MODULES", {name: module(lambda: None) for name in names})
    monkeypatch.setattr(progress, "FIRST", math.inf)
    return names


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def measure() -> None:
        raise error

    monkeypatch.setattr(command.MODULES["second"], "measure", measure)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (IntegrationError(0.5, "because", 3, None), "error: {folder}/second: trajectory 3 stopped at t = 0.5: because"),
        (ValueError("own"), "internal error in {folder}/second: ValueError: own (please report)"),
        (TypeError("own"), "internal error in {folder}/second: TypeError: own (please report)"),
    ],
)
def test_a_figure_that_fails_costs_no_other(
    error: Exception, message: str, three: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    failing(monkeypatch, error)
    assert main([*three, "--output", str(tmp_path)]) == 1
    assert {path.stem for path in tmp_path.iterdir()} == {"first", "third"}
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.splitlines()[-1] == message.format(folder=tmp_path)
    assert ("Traceback" in err) == message.startswith("internal")


def test_a_file_that_cannot_be_written_costs_no_other(
    three: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "second.png").symlink_to("/dev/full")
    assert main([*three, "--output", str(tmp_path)]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for name in three for kind in ("png", "pdf")}
    assert (tmp_path / "second.pdf").read_bytes().startswith(b"%PDF")
    expected = f"error: {tmp_path}/second cannot be written: .png: No space left on device\n"
    assert capsys.readouterr().err == expected


def test_a_file_that_will_not_be_written_is_refused_before_anything_is_drawn(
    three: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "third.pdf").mkdir()
    assert main([*three, "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: --output {tmp_path}/third.pdf cannot be written: it is a folder\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "third.pdf"]


def test_lines_say_how_far_the_figures_are_where_nobody_watches(
    three: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "LONGEST", 0.0)
    assert main([*three, "--output", str(tmp_path)]) == 0
    lines = [line.split(" after ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["drawing first: 0 %", "drawing second: 33 %", "drawing third: 67 %"]


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert re.fullmatch(r"flowsim \d+\.\d+\.\d+\n", capsys.readouterr().out)


# --- one by one ---


def test_conserved_manifold_plots_runs_on_the_curves_of_equal_c() -> None:
    found, figure = small("conserved_manifold")
    for axes, (rule, runs) in zip(figure.axes, found.items(), strict=True):
        paths = [data_of(each) for each in axes.get_lines() if len(data_of(each)[0]) == 60]
        assert len(paths) == len(runs.gap) == 5
        for (norm, output), gap in zip(paths, runs.gap.tolist(), strict=True):
            psi = {"GD": output**2 / 2, "FA": output, "sign-FA": abs(output)}[rule]
            np.testing.assert_allclose(psi - norm**2 / 2, gap, rtol=0, atol=1e-8)
            assert np.ptp(norm) > 0.5
        on = []
        for arrow in (each for each in axes.texts if isinstance(each, Annotation)):
            tails = [np.hypot(norm - arrow.xyann[0], output - arrow.xyann[1]) for norm, output in paths]
            path = int(np.argmin([distance.min() for distance in tails]))
            norm, output = paths[path]  # from an earlier point to the next
            assert np.hypot(norm - arrow.xy[0], output - arrow.xy[1]).argmin() == tails[path].argmin() + 1
            on.append(path)
        ways = [1 + (norm.argmin() > 0) for norm, _ in paths]  # in and out, or out alone
        assert [on.count(path) for path in range(5)] == ways
        curves = [data_of(each) for each in axes.get_lines() if len(data_of(each)[0]) == 400]
        assert len(curves) == (5 if rule == "FA" else 10)
        for place, (norm, output) in enumerate(curves):
            psi = {"GD": output**2 / 2, "FA": output, "sign-FA": abs(output)}[rule]
            gap = runs.gap[place if rule == "FA" else place // 2].item()
            np.testing.assert_allclose((psi - norm**2 / 2)[np.isfinite(psi)], gap, rtol=0, atol=1e-12)
            assert np.isfinite(psi).any()


def test_arrows_of_the_manifold_lie_over_no_other_and_over_no_start() -> None:
    """In points: a head is 2.4 long, a dot 3 wide."""
    with matplotlib.rc_context(STYLE):
        figure = conserved_manifold.draw(conserved_manifold.measure())  # as in the gallery
        figure.draw_without_rendering()
    for axes in figure.axes:
        tips = [each.xy for each in axes.texts if isinstance(each, Annotation)]
        dots = [np.ravel(data_of(each)) for each in axes.get_lines() if each.get_marker() == "o"]
        places = axes.transData.transform(np.array([*tips, *dots])) * 72 / figure.dpi
        apart = [math.dist(*pair) for pair in itertools.combinations(places, 2)]
        assert len(tips) >= 7 and min(apart) > 5


def test_conservation_plots_deviations_of_each_method_and_rounding_where_they_are_corrected() -> None:
    found, figure = small("conservation")
    flow, weights = conservation.problem(3, 3)
    (axes,) = figure.axes
    times, deviation = data_of(line(axes, "event-driven"))
    at = solve(flow, weights, 10.0, rtol=1e-6, atol=1e-8).evaluate(torch.from_numpy(times))
    gaps = at.output * flow.rule.feedback_matrices(weights)[0][0] - at.hidden.square().sum(-1) / 2
    expected = (gaps - 0.05).abs().amax(-1).clamp(min=conservation.LEAST)
    np.testing.assert_allclose(deviation, expected, rtol=0, atol=1e-15)
    assert 1e-12 < deviation.max() < 1e-5
    assert found["event", 1e-12].deviation.max() < 1e-11
    steps, rest = data_of(line(axes, "gradient steps")), data_of(line(axes, "steps less their correction"))
    assert steps[1].max() > 1e-4 and rest[1].max() < 1e-13
    np.testing.assert_allclose(np.round(steps[0] / 0.1), steps[0] / 0.1, atol=1e-9)
    ends = {(round(each.xy[1], 30), each.get_text()) for each in axes.texts if isinstance(each, Annotation)}
    for (method, value), text in {
        ("event", 1e-12): r"$\mathrm{rtol} = 10^{-12}$", ("dopri5", 1e-5): r"$\mathrm{rtol} = 10^{-5}$",
        ("steps", 0.01): r"$\eta = 10^{-2}$",
    }.items():  # fmt: skip
        assert (round(found[method, value].deviation[-1].item(), 30), text) in ends
    assert data_of(line(axes, "machine epsilon"))[1].tolist() == [np.finfo(float).eps] * 2
    for eta in (0.1, 0.01):  # the number, the steps and what is left of them are of one colour, and of no other eta
        colours = set()
        for values in (found["steps", eta].deviation, found["steps", eta].rest):
            plotted = values.clamp(min=conservation.LEAST)
            colours |= {each.get_color() for each in axes.get_lines() if np.array_equal(data_of(each)[1], plotted)}
        (number,) = [each for each in axes.texts if f"$\\eta = {conservation._power(eta)}$" == each.get_text()]
        assert {number.get_color()} == colours
    assert len({each.get_color() for each in axes.texts}) == 4
    large, small_steps = (found["steps", eta].deviation[-1].item() for eta in (0.1, 0.01))
    assert large / small_steps == pytest.approx(10, rel=0.2)


def test_alignment_plots_cosines_their_minima_and_both_bounds() -> None:
    found, figure = small("alignment")
    above, below = figure.axes
    for place, (kind, cosine) in enumerate(found.cosine.items()):
        run = alignment.run(kind, 4, (0,), 2.0)
        times, plotted = data_of(above.get_lines()[place])
        look = alignment.LOOKS[kind[1]]
        assert above.get_lines()[place].get_color() == RULES[kind[0]]
        assert above.get_lines()[place].get_linestyle() == look[0]
        output = run.evaluate(torch.from_numpy(times)).output[:, 0]
        feedback = run.flow.rule.feedback_matrices(run.evaluate(torch.from_numpy(times)))[0].reshape(-1, 4)
        expected = (output * feedback).sum(-1) / (output.norm(dim=-1) * feedback.norm(dim=-1))
        np.testing.assert_allclose(plotted, expected, rtol=1e-12)
        assert torch.equal(cosine, torch.from_numpy(plotted))
        # minima over all times are below those over some; where one is promised, not below the bound
        smallest = found.smallest[kind]
        some = alignment.run(kind, 3, (0, 1, 2), 2.0)
        grid = torch.linspace(0, 2, 200, dtype=torch.float64)
        at = some.evaluate(grid)
        b = some.flow.rule.feedback_matrices(at)[0].squeeze(-2)
        on_grid = ((at.output * b).sum(-1) / (at.output.norm(dim=-1) * b.norm(dim=-1))).amin(0)
        assert (smallest[0] <= on_grid + 1e-12).all() and (smallest[0] > on_grid - 0.01).all()
        if kind[0] == "sign-FA" or kind == ("FA", alignment.POSITIVE):
            assert (smallest > torch.tensor([[3.0], [5.0], [8.0]]).rsqrt()).all()
        middle, caps, _ = below.containers[place].lines  # type: ignore[misc]
        assert (middle.get_linestyle(), middle.get_marker(), middle.get_fillstyle()) == look
        np.testing.assert_allclose(data_of(middle)[1], smallest.mean(-1))
        errors = (data_of(caps[1])[1] - data_of(caps[0])[1]) / 2
        np.testing.assert_allclose(errors, smallest.std(-1) / math.sqrt(3))
    bounds = [each for each in above.get_lines() if each.get_linestyle() == ":"]
    assert [data_of(each)[1].tolist() for each in bounds] == [[0.5, 0.5], [found.adafa_bound] * 2]
    key = {each.get_label(): each for each in figure.legends[0].get_lines()}
    looks = {each.get_label(): (each.get_linestyle(), each.get_marker(), each.get_fillstyle()) for each in key.values()}
    assert looks.items() >= alignment.LOOKS.items()
    assert [key[name].get_color() for name in ("FA", "adaFA", "sign-FA")] == [
        RULES[name] for name in ("FA", "adaFA", "sign-FA")
    ]
    assert len(key) == 8 and {"$1/\\sqrt{m}$", "min$|b_j|/|b|$"} < set(key)
    (bound,) = [each for each in below.get_lines() if each.get_linestyle() == ":"]
    np.testing.assert_allclose(data_of(bound), [[3, 5, 8], [3**-0.5, 5**-0.5, 8**-0.5]])
    ada = alignment.run(("adaFA", alignment.POSITIVE), 4, (0,), 2.0)
    feedback = ada.start.output
    assert (conserved(ada.flow, ada.start)[0] > 0).all(), "the hypothesis of the bound"
    assert found.adafa_bound == pytest.approx((feedback.abs().min() / feedback.norm()).item())


def products(run: Solution[Weights], times: torch.Tensor) -> torch.Tensor:
    """b_j v_j."""
    return run.evaluate(times).output * run.flow.rule.feedback_matrices(run.start)[0].squeeze(-2)


def test_signs_plots_all_output_weights_and_marks_those_that_change_their_sign() -> None:
    found, figure = small("signs")
    legend = {each.get_label(): each.get_color() for each in figure.legends[0].get_lines()}
    for axes, (start, run) in zip(figure.axes, found.items(), strict=True):
        curves = [each for each in axes.get_lines() if len(data_of(each)[0]) > 2]
        times = torch.from_numpy(data_of(curves[0])[0])
        expected, gaps = products(run, times).T, conserved(run.flow, run.start)[0]
        ends = expected[:, -1].tolist()
        assert len(curves) == 6
        for curve in curves:
            number = ends.index(data_of(curve)[1][-1])
            np.testing.assert_array_equal(data_of(curve)[1], expected[number])
            changes = bool((expected[number] < 0).any())
            assert (curve.get_linestyle() == "--") == changes
            assert curve.get_color() == legend["at times the other sign" if changes else "keeps its sign"]
            assert start != signs.MET or (data_of(curve)[1] >= gaps[number].item() - 1e-12).all()
            assert not changes or gaps[number] < 0
        assert bool((expected < 0).any()) == (start != signs.MET)
    first, second = found.values()
    assert torch.equal(first.start.hidden, second.start.hidden), "the same hidden weights"


def test_signs_caption_counts_right() -> None:
    """Of the figure in the gallery."""
    run = signs.measure()[signs.BROKEN]
    product, gaps = products(run, torch.linspace(0, signs.T_FINAL, 500)), conserved(run.flow, run.start)[0]
    assert ((gaps < 0).sum(), (product < 0).any(0).sum()) == (6, 5)
    assert "Five of these six change their sign" in title_and_caption(signs)[1]
    assert (product[-1] > 0).all(), "they change it back"
    assert (product[0] > 0).all(), "all agree with b at the start"


def test_no_plateau_plots_times_on_the_proved_side_of_their_bounds() -> None:
    found, figure = small("no_plateau")
    (axes,) = figure.axes
    for name, times in found.times.items():
        above = times > found.proved[name]
        assert above.all() if name == "GD" else not above.any()
        plotted = line(axes, name)
        np.testing.assert_array_equal(data_of(plotted)[0], [1e-1, 1e-3])
        np.testing.assert_array_equal(data_of(plotted)[1], times[:, 0])
        for scale, time in zip(found.scales, times[:, 1].tolist(), strict=True):
            rule = no_plateau.NAMES[name]
            run = scaled_run(rule, scale, 2, "cpu", no_plateau._long_enough(rule, scale))
            assert run.flow.risk(run.evaluate(time))[1].item() == pytest.approx(0.5, rel=1e-9)
    dashed = [each for each in axes.get_lines() if each.get_linestyle() == "--" and len(data_of(each)[0])]
    assert len(dashed) == 3


def test_dominance_plots_the_ratio_of_eq_1_above_what_is_promised() -> None:
    found, figure = small("dominance")
    for axes, kind in zip(figure.axes, found, strict=True):
        solution = margin_run(kind, "fa", Shape(3, 4, 0.3), 1, "cpu", t_final=100.0)
        curves = found[kind]
        times, ratio = curves[dominance.RATIO]
        plotted = data_of(next(each for each in axes.get_lines() if each.get_linestyle() == "-"))
        np.testing.assert_array_equal(plotted[1], ratio)
        inside = torch.ones_like(times, dtype=torch.bool)
        for event in solution.events.time:
            inside &= (times - event).abs() > 1e-9
        at = solution.evaluate(times[inside])
        expected = dominance_ratio(solution.flow, at, 2)[:, 0]
        np.testing.assert_allclose(ratio[inside], expected, rtol=1e-9)
        # S(t) = v.b, from the weights
        mu_t, sharp_t = (curves[key][1] for key in list(dominance.LOOKS)[2::2])
        s = (solution.evaluate(times).output[:, 0] * solution.flow.rule.feedback_matrices(solution.start)[0][0, 0]).sum(
            -1
        )
        mu = {"separable": mu_separable, "nearly orthogonal": mu_nearly_orthogonal}[kind](solution)
        _, constant, _, sharp, _ = (values for _, values in curves.values())
        assert (constant == mu).all() and (sharp == mu_svm(solution)).all()
        for name, (_, values) in curves.items():
            drawn = [each for each in axes.get_lines() if np.array_equal(data_of(each)[1], values)]
            assert [(each.get_color(), each.get_linestyle()) for each in drawn] == [dominance.LOOKS[name]]
        np.testing.assert_allclose(mu_t, mu * s / total_gap(solution), rtol=1e-12)
        np.testing.assert_allclose(sharp_t, mu_svm(solution) * s / total_gap(solution), rtol=1e-12)
        assert (ratio > torch.maximum(mu_t, sharp_t)).all()


def test_convergence_plots_losses_within_their_bounds() -> None:
    found, figure = small("convergence")
    above, below, *_ = figure.axes
    (right,) = below.child_axes
    figure.draw_without_rendering()
    np.testing.assert_allclose(sorted(right.get_ylim()), sorted(1 / np.array(below.get_ylim())))
    assert r"\mathrm{margin}^2" in convergence.LOOKS["svm"][2]
    wide = convergence.wide_run((0, 1))
    for number, (scaled, loss) in enumerate(found.exponential):
        assert scaled[-1] == pytest.approx((mu_kernel(wide)[number] * convergence.T_EXPONENTIAL).item())
        assert (loss <= torch.exp(-scaled) * (1 + 1e-12)).all()
        end = wide.flow.risk(wide.evaluate([0.0, convergence.T_EXPONENTIAL]))[:, number]
        assert loss[-1] == pytest.approx((end[1] / end[0]).item(), rel=1e-6)
    mu_t, bound = data_of(line(above, r"$\exp(-\mu t)$"))
    np.testing.assert_allclose(bound, np.exp(-mu_t))
    long = convergence.separable_run(3, 4, (0, 1), 1e3)
    mu = mu_separable(long)
    for number, curves in enumerate(found.harmonic):
        times, inverse = curves["$1/L(t)$"]
        np.testing.assert_allclose(inverse, 1 / long.flow.risk(long.evaluate(times))[:, number], rtol=1e-9)
        paper, integral, svm = (curves[key][1] for key in ("paper", "integral", "svm"))
        np.testing.assert_allclose(paper, inverse[0] + mu[number] * times, rtol=1e-9)
        fine = torch.cat([torch.zeros(1), torch.logspace(-6, 3, 20_000, dtype=torch.float64)])
        output = long.evaluate(fine.clamp(max=1e3)).output[:, number]
        s = (output * long.flow.rule.feedback_matrices(long.start)[0][number, 0]).sum(-1)
        expected = inverse[0] + mu[number] / total_gap(long)[number] * torch.trapezoid(s, fine)
        assert integral[-1].item() == pytest.approx(expected.item(), rel=1e-5)
        assert (inverse >= svm * (1 - 1e-12)).all()
        assert (svm >= integral * (1 - 1e-12)).all() and (integral >= paper * (1 - 1e-12)).all()
    plotted = [each for each in below.get_lines() if each.get_label() == "$1/L(t)$"]
    np.testing.assert_array_equal(data_of(plotted[0])[1], found.harmonic[0]["$1/L(t)$"][1])


def test_activations_plots_the_sides_of_all_kinks_and_every_event() -> None:
    found, figure = small("activations")
    assert "sliding entry" in found.events.kind
    alone = plot.activations(found)  # what it draws is checked in tests/plot
    for axes in (figure.axes[0], alone):
        assert len([each for each in axes.collections if hasattr(each, "get_coordinates")]) == 3
    for here, there in zip(figure.axes[0].get_lines(), alone.get_lines(), strict=True):
        np.testing.assert_array_equal(data_of(here), data_of(there))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["active", "inactive", "sliding", "event"]


def test_calibration_shows_that_no_estimate_is_below_a_true_error() -> None:
    found, figure = small("calibration")
    assert {int(solution.problem.split(":")[0]) for solution in found} <= set(calibration.SEEDS)
    assert len({solution.problem for solution in found}) == 200
    assert all(solution.covered and solution.ratio > 1 for solution in found)
    shown = sum(patch.get_height() for patch in figure.axes[0].patches if isinstance(patch, Rectangle))
    assert shown == len(found) == 1000, "none is outside of the bins"


def test_work_precision_plots_errors_times_and_evaluations_of_all_methods() -> None:
    found, figure = small("work_precision")
    above, below = figure.axes
    assert set(found) == {"event-driven", *PEERS}
    flow, weights = conservation.problem(3, 3)
    exact = solve(flow, weights, 5.0, rtol=1e-13, atol=1e-15).evaluate(5.0)
    for name, points in found.items():
        loose, tight = points
        assert loose.error > 5 * tight.error > 0
        assert loose.evaluations < tight.evaluations
        assert np.array_equal(data_of(line(above, name)), [[p.error for p in points], [p.seconds for p in points]])
        assert np.array_equal(data_of(line(below, name))[1], [p.evaluations for p in points])
    key = {each.get_label(): each for each in figure.legends[0].get_lines()}
    assert set(key) == set(found)
    for name in found:
        lines = [key[name], line(above, name), line(below, name)]
        looks = [(each.get_color(), each.get_linestyle(), each.get_marker()) for each in lines]
        assert looks[0] == looks[1] == looks[2]
    assert len({each.get_color() for each in key.values()}) == 1 + len({name.split(" ")[0] for name in found})
    arrays = peers.problem(flow, weights, 5.0)
    inputs, labels, feedback, start = arrays.arrays
    own = solve_ivp(
        lambda _, state: velocity(np, inputs, labels, feedback, arrays.slope, state, arrays.widths),
        (0.0, 5.0), start, "RK45", rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    assert found["scipy RK45"][1].evaluations == own.nfev
    # methods of the same order need about as many as that
    for name in {"torchdiffeq dopri5", "diffrax Tsit5"} & set(found):
        assert 0.5 < found[name][1].evaluations / own.nfev < 3
    ours = solve(flow, weights, 5.0, rtol=1e-8, atol=1e-10)
    assert found["event-driven"][1].evaluations == ours.statistics["terms"]
    error = max((a - b).abs().max().item() for a, b in zip(ours.evaluate(5.0).layers, exact.layers, strict=True))
    # turned coordinates change a maximum by at most sqrt(3)
    assert error / 2 < found["event-driven"][1].error < 2 * error


def deep_problem() -> tuple[Flow, DeepWeights]:
    """Three hidden layers, more inputs' dimensions than samples, under FA."""
    generator = torch.Generator().manual_seed(0)
    dataset = Dataset(torch.randn(4, 6, generator=generator, dtype=torch.float64), [1, -1, -1, 1])
    return Flow(dataset, FeedbackAlignment(deep_gaussian((6, 5, 4, 3, 1), 1).layers[1:])), deep_gaussian(
        (6, 5, 4, 3, 1), 0
    )


@pytest.mark.parametrize("problem", [lambda: conservation.problem(4, 5), deep_problem], ids=["two-layer", "deep"])
@pytest.mark.parametrize("arrays", ["numpy", "torch", "jax.numpy"])
def test_peers_are_given_the_flow_itself(arrays: str, problem: Callable[[], tuple[Flow, NetworkWeights]]) -> None:
    """The velocity of packed weights, in each library's own arrays, against `Flow.velocity`."""
    xp: Any = pytest.importorskip(arrays)
    flow, weights = problem()
    given = peers.problem(flow, weights, 1.0)
    expected = peers.packed(peers.reduce(flow, flow.velocity(weights)).weights)
    convert = torch.from_numpy if xp is torch else xp.asarray
    inputs, labels, feedback, start = (convert(array) for array in given.arrays)
    found = np.asarray(velocity(xp, inputs, labels, feedback, given.slope, start, given.widths))
    single = found.dtype == np.float32  # jax, unless it is told otherwise
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if single else 1e-14)


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_stopped_where_they_do_not_end(name: str) -> None:
    """Where a neuron slides adaptive solvers chatter: at 1e-9, to t = 10^6, they are not through in minutes."""
    flow, weights = sliding()
    with pytest.raises(TimeoutError, match="no end after"):
        PEERS[name](peers.problem(flow, weights, 1e6), 1e-9, 0.1)


def test_peers_other_problems_are_refused() -> None:
    """They integrate FA with exponential loss, and nothing else silently."""
    for flow, weights in [gaussian_data("sign-fa", 1), gaussian_data("fa", 1, loss="logistic")]:
        alone: Flow = flow.map_matrices(weights, lambda matrix: matrix[0])[0]
        start = Weights(weights.hidden[0], weights.output[0])
        with pytest.raises(ValueError, match="must be FA with exponential loss"):
            peers.problem(alone, start, 1.0)


# --- implicit bias ---


def test_ratios_of_one_sample_are_those_of_the_exact_solution() -> None:
    """Under FA w_+ = w_+(0) + tau and w_- = w_-(0) - gamma tau, where u and log t tell tau; under GD hyperbolic."""
    found, figure = small("implicit_bias")
    gap, decades = implicit_bias.OUTPUT_GAP, found.decades[-1].item()
    for (rule, slope), ratio in found.ratio.items():
        solution = implicit_bias.one_sample_run(rule, slope, decades)
        for place, (plus, minus) in enumerate(implicit_bias.STARTS):
            hidden = solution.evaluate(solution.t_final).hidden[place, :, 0]
            if rule == "FA":
                tau = hidden[0].item() - plus
                expected = ((minus - slope * tau) ** 2 / 2 + gap) / ((plus + tau) ** 2 / 2 + gap)
                limit = slope**2 * (1 + 2 * (abs(minus) / slope - plus) / tau)
                assert ratio[-1, place].item() == pytest.approx(limit, rel=20 / tau**2)
            else:
                v, w = (plus**2 / 2 + gap, abs(minus) ** 2 / 2 + gap)
                tau = math.log((hidden[0].item() + (hidden[0].item() ** 2 + v**2 - plus**2) ** 0.5) / (plus + v))
                expected = math.cosh(slope * tau) * w + math.sinh(slope * tau) * abs(minus)
                expected /= math.cosh(tau) * v + math.sinh(tau) * plus
                assert ratio[-1, place].item() > 2e-3
            assert ratio[-1, place].item() == pytest.approx(expected, rel=1e-8)
    drawn = [data_of(each)[1] for each in figure.axes[0].get_lines() + figure.axes[1].get_lines()]
    for ratio in found.ratio.values():
        for curve in ratio.T:
            assert any(np.array_equal(each, curve) for each in drawn)


def test_gradient_descent_forgets_at_the_rate_that_the_caption_says() -> None:
    decades = 1000.0
    for slope in (0.3, 0.7):
        times = torch.tensor([decades / 2, decades], dtype=torch.float64) * math.log(10)
        ratio = implicit_bias.ratios(implicit_bias.one_sample_run("GD", slope, decades), times)
        power = (ratio[0] / ratio[1]).log2()
        torch.testing.assert_close(power, torch.full_like(power, (1 - slope) / 2), rtol=0.15, atol=0)


@pytest.mark.parametrize("sizes", [[1.0, -1.0, 1.0], [2.0, -0.5, 0.7]])
def test_directions_tend_to_the_limit_from_every_start_and_to_no_other_point(sizes: list[float]) -> None:
    """Whatever |b_j|, like (log t)^(-1/3); the limit of another slope, or with a wrong weight of |b_j|, is farther."""
    flow = implicit_bias.separable_run(3, (0,), 1.0).flow
    feedback = torch.tensor(sizes, dtype=torch.float64)
    own, decades = Flow(flow.dataset, FeedbackAlignment(feedback), slope=flow.slope), torch.tensor([125.0, 1000.0])
    weights = stack([gaussian(3, 5, seed) for seed in range(3)])
    hidden = solve(own, weights, 1000 * math.log(10), time="log").evaluate(decades.double() * math.log(10)).hidden

    def distance(to: torch.Tensor) -> torch.Tensor:
        directions = hidden / hidden.square().sum((-2, -1), keepdim=True).sqrt()
        return (directions - to / to.norm()).square().sum((-2, -1)).sqrt()

    here = distance(implicit_bias.direction(own))
    assert (here[1] < 0.12).all()
    torch.testing.assert_close(here[0] / here[1], torch.full((3,), 2.0).double(), rtol=0.1, atol=0)
    for slope, other in [(0.6, feedback), *([(flow.slope, feedback.sign())] if sizes[0] != 1 else [])]:
        wrong = implicit_bias.direction(Flow(flow.dataset, FeedbackAlignment(other), slope=slope))
        assert (distance(wrong)[1] > 1.3 * here[1]).all()


def test_distances_and_deficits_are_drawn() -> None:
    found, figure = small("implicit_bias")
    drawn = [data_of(each)[1] for each in figure.axes[2].get_lines()]
    for curve in (*found.distance.T, *found.deficit.T):
        assert any(np.array_equal(each, curve) for each in drawn)
    assert (found.deficit > 0).all()
    assert (found.distance[-1] < 0.6 * found.distance[len(found.decades) // 2]).all()
