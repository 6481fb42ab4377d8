"""A page of a run: all plots, with what is said where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from sample_problems import gaussian_data, separable

from flowsim import DirectFeedbackAlignment, Flow, Rule, plot, solve
from flowsim.initialization import deep_gaussian
from flowsim.plot.page import PLOTS
from flowsim.weights import NetworkWeights


def curves(axes: Axes) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in axes.get_lines()]


def test_panels_are_the_plots_of_the_run_or_of_its_file(tmp_path: Path) -> None:
    solution = solve(*separable(2), 20.0)
    solution.save(tmp_path / "run.npz")
    figure = plot.overview(tmp_path / "run.npz")
    assert [axes.get_title() for axes in figure.axes] == list(PLOTS)
    for axes, draw in zip(figure.axes, PLOTS.values(), strict=True):
        for panel, alone in zip(curves(axes), curves(draw(solution)), strict=True):
            np.testing.assert_array_equal(panel, alone)
    title = figure.get_suptitle()
    assert title == "FA, exponential loss, slope 0.3; n = 4, d = 6, m = 3; 2 trajectories"


@pytest.mark.parametrize("rule", ["gd", "sign-fa", "adafa"])
def test_every_rule_has_all_panels(rule: str) -> None:
    figure = plot.overview(solve(*gaussian_data(rule, 1, 6, 4, 3), 5.0))
    assert all(axes.axison for axes in figure.axes)


class Blind(Rule):
    """The opposite feedback, which conserves nothing that it knows of."""

    def feedback_matrices(self, weights: NetworkWeights) -> tuple[torch.Tensor, ...]:
        return tuple(-layer for layer in weights.layers[1:])


def texts(axes: Axes) -> str:
    return " ".join(" ".join(text.get_text() for text in axes.texts).split())


def test_a_mistake_of_a_panel_is_no_text_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> Axes:
        raise ValueError("a mistake")

    monkeypatch.setitem(PLOTS, "Signs", wrong)
    with pytest.raises(ValueError, match="a mistake"):
        plot.overview(solve(*separable(1), 1.0))


def test_what_a_rule_does_not_have_is_said_in_its_place() -> None:
    flow, weights = separable(1)
    figure = plot.overview(solve(Flow(flow.dataset, Blind()), weights, 0.1, method="dopri5"))
    said = {axes.get_title(): texts(axes) for axes in figure.axes if not axes.axison}
    assert said == dict.fromkeys(
        ["Conserved (Theorem 5.2)", "Neurons"], "rule Blind conserves nothing: it has no potentials"
    )


def test_direct_feedback_has_no_alignment_past_layers() -> None:
    start = deep_gaussian((6, 4, 3, 1), 0)
    rule = DirectFeedbackAlignment((torch.ones(1, 4), torch.ones(1, 3)))
    figure = plot.overview(solve(Flow(separable(1)[0].dataset, rule, "logistic"), start, 1.0))
    (missing,) = [axes for axes in figure.axes if not axes.axison]
    assert missing.get_title() == "Alignment" and "passes over layers" in texts(missing)
