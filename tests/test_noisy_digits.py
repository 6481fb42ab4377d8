"""The noisy digits experiment: images, protocol, training that resumes to the last bit, tables, claims, figures."""

import csv
import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from test_descent import FeedbackLinear
from test_figures import assert_readable, assert_ticks, data_of, line
from test_images import write_images
from torch import nn

from figures import command
from figures.experiments import table as tables
from figures.experiments import training
from figures.experiments.claims import claims_table
from figures.experiments.images import Images, load, pixels
from figures.experiments.table import array_of, levels
from figures.noisy_digits import alignment, conservation, experiment, flow_limit, losses, small_steps
from figures.noisy_digits.experiment import FIGURES
from figures.noisy_digits.protocol import RULES, Protocol, draw_ensemble, papers
from figures.noisy_digits.results import DERIVED, claims, conservation_table, tabulate
from figures.noisy_digits.training import QUANTITIES, state_path, train
from figures.style import RULES as RULE_COLOURS
from figures.style import STYLE
from figures.widths import APART
from flowsim import GradientDescent, IntegrationError, descent, progress, solve
from flowsim.rules import FeedbackAlignment, SignFeedbackAlignment, is_one_of
from flowsim.shell import Attempts

SMALL = Protocol(samples=12, tests=30, widths=(3, 6), repeats=2, epochs=40, every=5, decay=25)


@functools.cache
def digits() -> Images:
    return pixels(load("digits"))


@dataclass(frozen=True, eq=False)
class Results:
    """The records themselves, which the table is compared with."""

    protocol: Protocol
    records: torch.Tensor

    def __getitem__(self, quantity: str) -> torch.Tensor:
        """A quantity, `records x rules x repeats x widths`."""
        if quantity in DERIVED:
            return self["conserved_gain" if quantity == "deviation" else "correction"] / self["half_norm_gain"]
        return self.records[:, QUANTITIES.index(quantity)]

    def of(self, quantity: str, rule: str) -> torch.Tensor:
        """`records x repeats x widths`."""
        return self[quantity][:, RULES.index(rule)]

    @property
    def table(self) -> pd.DataFrame:
        return tabulate(self.protocol, self.records)


def statistic(values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of `... x repeats x widths`."""
    return values.mean(-2).numpy(), (values.std(-2) / values.shape[-2] ** 0.5).numpy()


@functools.cache
def trained(epochs: int) -> descent.State:
    """The ensemble after so many epochs, step by step."""
    runs = draw_ensemble(SMALL, digits())
    state = descent.start(runs.weights)
    for epoch in range(epochs):
        state = descent.step(runs.flow, state, SMALL.step_size(epoch), SMALL.momentum)
    return state


@functools.cache
def small_results(folder: Path) -> Results:
    return Results(SMALL, train(SMALL, draw_ensemble(SMALL, digits()), folder))


@pytest.fixture
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return small_results(tmp_path_factory.getbasetemp())


# --- protocol ---


def test_the_papers_protocol_is_that_of_its_appendix() -> None:
    protocol = papers("mnist")
    assert (protocol.samples, protocol.repeats, protocol.epochs, protocol.every) == (4000, 6, 6000, 5)
    assert protocol.widths == (15, 30, 45, 60, 75, 100, 125, 150, 175, 200)
    assert (protocol.noise, protocol.momentum) == (0.2, 0.05)
    assert [protocol.step_size(epoch) for epoch in (0, 999, 1000, 5999)] == pytest.approx([0.05, 0.05, 5e-3, 5e-7])


def test_a_fifth_of_the_labels_is_wrong_and_test_images_are_others() -> None:
    protocol = replace(SMALL, samples=200, tests=1597, repeats=3)
    runs = draw_ensemble(protocol, digits())
    inputs, labels = digits().train
    assert runs.flow.dataset.inputs.shape == (3, 1, 200, 64)
    for repeat in range(3):
        chosen = runs.flow.dataset.inputs[repeat, 0].numpy()
        tested = runs.test.dataset.inputs[repeat, 0].numpy()
        truth = np.array([labels[np.all(inputs == row, -1)][0] for row in chosen])
        assert (truth != runs.flow.dataset.labels[repeat, 0].numpy()).sum() == 40
        clean = np.array([labels[np.all(inputs == row, -1)][0] for row in tested])
        assert (clean == runs.test.dataset.labels[repeat, 0].numpy()).all()
        assert not {row.tobytes() for row in chosen} & {row.tobytes() for row in tested}
        assert len({row.tobytes() for row in np.concatenate([chosen, tested])}) == len(np.unique(inputs, axis=0))
    assert not torch.equal(runs.flow.dataset.inputs[0], runs.flow.dataset.inputs[1])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="samples must be fewer than the 1797 images of digits, got 1797"):
        draw_ensemble(replace(SMALL, samples=1797), digits())


def test_all_rules_start_from_the_same_weights_of_the_right_size() -> None:
    runs = draw_ensemble(replace(SMALL, widths=(100, 400)), digits())
    for layer in runs.weights.layers:
        assert torch.equal(layer, layer[:1].expand_as(layer))
    hidden, output = runs.weights.layers
    for place, width in enumerate((100, 400)):
        assert hidden[0, 0, place, :width].std() * width**0.5 == pytest.approx(1, rel=0.05)
        assert output[0, 0, place, :, :width].std() * width**0.5 == pytest.approx(1, rel=0.1)
    assert not torch.equal(hidden[0, 0], hidden[0, 1]), "of each repeat its own"
    feedback = runs.flow.rule.feedback_matrices(runs.weights)[0]
    assert not torch.equal(feedback[RULES.index("FA"), 0], feedback[RULES.index("FA"), 1])
    assert torch.equal(feedback[RULES.index("GD")], output[0])
    assert torch.equal(feedback[RULES.index("adaFA")], output[0])
    assert not torch.equal(feedback[RULES.index("FA")], output[0])
    scale = (2 / 110) ** 0.5
    assert torch.equal(feedback[RULES.index("sign-FA"), :, 0], scale * output[0, :, 0].sign())


def test_a_rule_of_each_run_is_refused_by_the_integrators() -> None:
    runs = draw_ensemble(SMALL, digits())
    for method in ("event", "dopri5"):
        with pytest.raises(ValueError, match="rule EachItsOwn must be taken apart to be solved"):
            solve(runs.flow, runs.weights, 1.0, method=method)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("place", [0, 1])
def test_each_run_of_the_ensemble_is_sgd_on_its_own_network(rule: str, place: int) -> None:
    """100 steps against torch.optim.SGD, autograd and another backward pass, on the run's own, narrower network."""
    runs, number, width = draw_ensemble(SMALL, digits()), RULES.index(rule), SMALL.widths[place]
    hidden, output = (layer[number, 1, place] for layer in trained(100).weights.layers)
    assert not hidden[width:].any() and not output[:, width:].any(), "neurons that are not there stay so"
    first, last = (layer[number, 1, place] for layer in runs.weights.layers)
    layers = [nn.Parameter(first[:width].clone()), nn.Parameter(last[:, :width].clone())]
    fixed = runs.flow.rule.feedback_matrices(runs.weights)[0][number, 1, place, :, :width]
    optimizer = torch.optim.SGD(layers, lr=SMALL.eta, momentum=SMALL.momentum)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=SMALL.decay, gamma=0.1)
    inputs, labels = runs.flow.dataset.inputs[1, 0], runs.flow.dataset.labels[1, 0].long()
    for _ in range(100):
        optimizer.zero_grad()
        activation = nn.functional.leaky_relu(inputs @ layers[0].T, SMALL.slope)
        now = layers[1].detach()
        feedback = {"GD": now, "sign-FA": (2 / (width + 10)) ** 0.5 * now.sign()}.get(rule, fixed)
        nn.functional.cross_entropy(FeedbackLinear.apply(activation, layers[1], feedback), labels).backward()  # type: ignore[arg-type]
        optimizer.step()
        schedule.step()
    assert (layers[0].detach() - first[:width]).abs().max() > 0.01
    torch.testing.assert_close(hidden[:width], layers[0].detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(output[:, :width], layers[1].detach(), rtol=0, atol=1e-12)


def test_the_last_epoch_is_recorded_whatever_the_interval() -> None:
    assert replace(SMALL, epochs=42, every=20).recorded == [0, 20, 40, 42]
    assert replace(SMALL, epochs=40, every=20).recorded == [0, 20, 40]


def test_paper_runs_the_papers_protocol(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_images(tmp_path)
    asked = []
    monkeypatch.setattr(experiment, "run", lambda protocol, *_: asked.append(protocol))
    for name in ("draw_ensemble", "require_readable"):  # there are too few images
        monkeypatch.setattr(experiment, name, lambda *_: None)
    arguments = ["noisy_digits", "--data-dir", str(tmp_path), "--output", str(tmp_path)]
    assert command.main([*arguments, "--paper", "--dataset", "mnist"]) == 0
    assert command.main([*arguments, "--dataset", "fashion-mnist"]) == 0
    assert asked == [papers("mnist"), Protocol("fashion-mnist")]


# --- training ---


@pytest.mark.parametrize("rule", RULES)
def test_what_is_recorded_is_what_the_weights_say(rule: str, results: Results) -> None:
    runs = draw_ensemble(SMALL, digits())
    state = trained(SMALL.epochs)
    number, repeat, place = RULES.index(rule), 1, 0
    hidden, output = (layer[number, repeat, place, ...].numpy() for layer in state.weights.layers)
    first, last = (layer[number, repeat, place].numpy() for layer in runs.weights.layers)
    hidden, output, last = hidden[:3], output[:, :3], last[:, :3]
    fixed = runs.flow.rule.feedback_matrices(runs.weights)[0][number, repeat, place, :, :3].numpy()
    scale = (2 / 13) ** 0.5
    feedback = {"GD": output, "sign-FA": scale * np.sign(output)}.get(rule, fixed)
    found = {name: results[name][-1, number, repeat, place].item() for name in (*QUANTITIES, *DERIVED)}
    for flow, name in [(runs.flow, "train"), (runs.test, "test")]:
        inputs = flow.dataset.inputs[repeat, 0].numpy()
        labels = flow.dataset.labels[repeat, 0].long().numpy()
        z = inputs @ hidden.T
        outputs = np.where(z > 0, z, SMALL.slope * z) @ output.T
        chosen = outputs[np.arange(len(labels)), labels]
        assert found[f"{name}_loss"] == pytest.approx((np.log(np.exp(outputs).sum(-1)) - chosen).mean())
        assert found[f"{name}_accuracy"] == pytest.approx((outputs.argmax(-1) == labels).mean())
    assert found["hidden_norm"] == pytest.approx(np.linalg.norm(hidden))
    assert found["output_norm"] == pytest.approx(np.linalg.norm(output))
    assert found["product"] == pytest.approx((output * feedback).sum())
    cosine = (output * feedback).sum() / np.linalg.norm(output) / np.linalg.norm(feedback)
    assert found["alignment"] == pytest.approx(cosine)
    gain = 0.5 * ((hidden**2).sum() - (first**2).sum())
    assert found["half_norm_gain"] == pytest.approx(gain)
    now, then = (
        {"GD": 0.5 * (v**2).sum(), "sign-FA": scale * abs(v).sum()}.get(rule, (v * fixed).sum()) for v in (output, last)
    )
    assert found["conserved_gain"] == pytest.approx(now - then - gain, abs=1e-12)
    assert found["correction"] == pytest.approx(found["conserved_gain"], abs=1e-12)
    assert abs(found["correction"]) > 1e-6
    assert found["deviation"] == pytest.approx((now - then) / gain - 1, abs=1e-9)
    assert found["deviation_by_correction"] == found["correction"] / found["half_norm_gain"]


class Interrupted(KeyboardInterrupt):
    """As from the keyboard."""


def interrupting(at: int) -> Callable[[int], None]:
    def advanced(epoch: int) -> None:
        if epoch == at:
            raise Interrupted

    return advanced


def test_interrupted_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    """Interrupted at an epoch that is recorded, at one that is not, and in the second step size."""
    runs = draw_ensemble(SMALL, digits())
    (tmp_path / "whole").mkdir()
    whole = train(SMALL, runs, tmp_path / "whole")
    for at in (10, 13, 31):
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, draw_ensemble(SMALL, digits()), tmp_path, interrupting(at))
        assert state_path(SMALL, runs, tmp_path).exists()
    seen: list[int] = []
    again = train(SMALL, draw_ensemble(SMALL, digits()), tmp_path, seen.append)
    assert seen[0] == 31 and seen[-1] == 40
    assert torch.equal(again, whole)
    assert not torch.equal(again[0], again[1])


def test_a_state_of_other_settings_is_not_taken_and_a_broken_one_is_said_to_be_so(tmp_path: Path) -> None:
    runs, other = draw_ensemble(SMALL, digits()), replace(SMALL, eta=0.04)
    names = {
        state_path(SMALL, runs, tmp_path),
        state_path(other, runs, tmp_path),
        state_path(replace(SMALL, epochs=41), runs, tmp_path),
        state_path(SMALL, draw_ensemble(SMALL, Images((digits().train[0] ** 2, digits().train[1]), None)), tmp_path),
    }
    assert len(names) == 4
    path = state_path(SMALL, runs, tmp_path)
    train(SMALL, runs, tmp_path)
    whole = torch.load(path, weights_only=True)
    broken = [b"not a state", b""]
    for key, value in [("weights", whole["weights"][:1]), ("records", [torch.zeros(2, 2)]), ("update", None)]:
        torch.save({**whole, key: value}, path)
        broken.append(path.read_bytes())
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is not the state of a run: .+; delete it to start anew"):
            train(SMALL, runs, tmp_path)


def test_a_state_of_other_labels_or_test_images_is_not_taken(tmp_path: Path) -> None:
    runs = draw_ensemble(SMALL, digits())
    images, labels = digits().train
    relabelled = draw_ensemble(SMALL, Images((images, (labels + 1) % 10), None))
    retested = draw_ensemble(SMALL, Images((images, labels), (images[:50], labels[:50])))
    assert torch.equal(runs.flow.dataset.inputs, relabelled.flow.dataset.inputs)
    assert len({state_path(SMALL, each, tmp_path) for each in (runs, relabelled, retested)}) == 3


def test_nothing_is_lost_if_something_fails_after_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(small_steps, "measure", functools.partial(small_steps.measure, t_final=1.0, etas=(0.5, 0.25)))
    monkeypatch.setattr(experiment, "FIGURES", {})
    out = Console(file=io.StringIO())
    with monkeypatch.context() as patch:
        patch.setattr(tables, "write", full)
        patch.setattr(experiment, "FIGURES", {"flow_limit": flow_limit})
        failed = Attempts()
        experiment.run(SMALL, digits(), draw_ensemble(SMALL, digits()), tmp_path, out, out, failed)
    assert failed.lost == [
        f"{tmp_path}/noisy_digits{part}.csv cannot be written: no space left on device" for part in ("", "_flow_limit")
    ]
    assert len(list(tmp_path.glob("noisy_digits_*.p*"))) == 2, "of the figure"
    seen: list[int] = []
    train(SMALL, draw_ensemble(SMALL, digits()), tmp_path, seen.append)
    assert seen == [40], "it goes on at the end"
    experiment.run(SMALL, digits(), draw_ensemble(SMALL, digits()), tmp_path, out, out, Attempts())
    assert not list(tmp_path.glob("*.partial"))


# --- results ---


def test_csv_has_a_row_for_every_run_and_record_with_all_digits(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    tables.write(results.table, path)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2 * len(SMALL.recorded)
    assert list(rows[0])[:4] == ["rule", "width", "repeat", "epoch"]
    row = next(
        row for row in rows if (row["rule"], row["width"], row["repeat"], row["epoch"]) == ("sign-FA", "6", "1", "35")
    )
    for name in (*QUANTITIES, *DERIVED):
        assert float(row[name]) == results.of(name, "sign-FA")[7, 1, 1].item()
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_table_of_appendix_b_1_is_mean_and_standard_error_of_absolute_deviations(results: Results) -> None:
    potential = results["conserved_gain"] + results["half_norm_gain"]
    quantity = (potential / results["half_norm_gain"]).numpy()[1:]
    each = np.abs(quantity - 1).mean(0)
    table = conservation_table(results.table)
    for column, rule in enumerate(RULES, start=1):
        cells = list(table.columns[column].cells)
        for place in range(2):
            own = each[RULES.index(rule), :, place]
            expected = f"{1e3 * own.mean():.2f} ± {1e3 * own.std(ddof=1) / 2**0.5:.2f}"
            assert cells[place] == expected


def test_deviations_are_the_discrete_correction_and_nothing_else(results: Results) -> None:
    rest = (results["conserved_gain"] - results["correction"]).abs().max()
    assert rest < 40 * 100 * 2.2e-16, "40 steps of a few roundings of numbers of size 10"
    assert results["conserved_gain"].abs().amax((0, 2, 3)).min() > 1e-4


Change = Callable[[torch.Tensor], torch.Tensor]


def doctored(results: Results, quantity: str, rule: str, change: Change) -> Results:
    records = results.records.clone()
    part = records[:, QUANTITIES.index(quantity), RULES.index(rule)]
    part.copy_(change(part.clone()))
    return Results(results.protocol, records)


def by(*factors: float) -> Change:
    """Times a factor for each width."""
    return lambda values: values * torch.tensor(factors, dtype=torch.float64)


def to(*numbers: float) -> Change:
    """A number for each width instead."""
    return lambda values: torch.zeros_like(values) + torch.tensor(numbers, dtype=torch.float64)


def ascending(values: torch.Tensor) -> torch.Tensor:
    return values.sort(0).values


def descending(values: torch.Tensor) -> torch.Tensor:
    return values.sort(0, descending=True).values


@pytest.mark.parametrize(
    ("claim", "quantity", "rule", "good", "bad"),
    [
        ("small widths", "conserved_gain", "*", by(9.0, 0.1), by(0.1, 9.0)),
        ("most for FA", "conserved_gain", "FA", by(100.0), by(0.01)),
        ("consistent with", "correction", "GD", by(1.0), lambda values: values + 1e-3),
        ("FA improves", "alignment", "FA", ascending, descending),
        ("higher alignment than FA", "alignment", "adaFA", to(0.99), to(-0.99)),
        ("non-monotone", "alignment", "sign-FA", descending, ascending),
        ("above 1/√N", "alignment", "sign-FA", to(0.5), to(0.1)),
        ("does not hurt", "test_loss", "*", to(1.0, 1.0), to(1.0, 2.0)),
    ],
)
def test_claims_agree_or_disagree_by_what_was_measured(
    results: Results, claim: str, quantity: str, rule: str, good: Change, bad: Change
) -> None:
    for change, expected in [(good, "agrees"), (bad, "disagrees")]:
        changed = results
        for name in RULES if rule == "*" else (rule,):
            changed = doctored(changed, quantity, name, change)
        (found,) = [each for each in claims(changed.table) if claim in each.claim]
        assert found.verdict == expected, found.measured


def test_differences_within_their_standard_error_decide_nothing(results: Results) -> None:
    """Two repeats, of which one has the larger deviation at the small width, the other at the large one."""
    changed, mixed = results, torch.tensor([[1.0, 1.5], [1.5, 1.0]], dtype=torch.float64)
    for rule in RULES:
        changed = doctored(changed, "half_norm_gain", rule, to(1.0))
        changed = doctored(
            changed, "conserved_gain", rule, lambda values, mixed=mixed: torch.zeros_like(values) + mixed
        )
        changed = doctored(changed, "test_loss", rule, lambda values, mixed=mixed: torch.zeros_like(values) + mixed)
    narrow, _, *_, over_parameterised = claims(changed.table)
    assert narrow.verdict == "undecided"
    assert over_parameterised.verdict == "agrees", "no larger beyond the error"


@pytest.mark.parametrize("rule", RULES)
def test_one_rule_suffices_to_break_a_claim_about_all(results: Results, rule: str) -> None:
    good = results
    for name in RULES:
        good = doctored(doctored(good, "half_norm_gain", name, to(1.0)), "conserved_gain", name, to(2.0, 1.0))
        good = doctored(doctored(good, "test_loss", name, to(2.0, 1.0)), "correction", name, to(2.0, 1.0))
    good = doctored(good, "conserved_gain", "FA", to(3.0, 2.0))
    good = doctored(good, "correction", "FA", to(3.0, 2.0))
    assert [claim.verdict for claim in claims(good.table)[:3]] == ["agrees"] * 3
    assert claims(good.table)[-1].verdict == "agrees"
    bad = doctored(doctored(good, "conserved_gain", rule, to(1.0, 2.0)), "correction", rule, to(1.0, 2.0))
    assert claims(bad.table)[0].verdict == "disagrees"
    assert claims(doctored(good, "test_loss", rule, to(1.0, 2.0)).table)[-1].verdict == "disagrees"
    if rule != "FA":
        assert claims(doctored(good, "conserved_gain", rule, to(9.0, 8.0)).table)[1].verdict == "disagrees"
    off = doctored(good, "correction", rule, lambda values: values + 1e-6)
    assert claims(off.table)[2].verdict == "disagrees"


def test_one_record_suffices_to_break_a_claim_about_all_times(results: Results) -> None:
    def dip(values: torch.Tensor) -> torch.Tensor:
        values[3, 0, 1] = 0.0
        return values

    good = doctored(doctored(results, "alignment", "adaFA", to(0.99)), "alignment", "FA", ascending)
    good = doctored(good, "alignment", "sign-FA", to(0.9))
    named = {claim.claim: claim for claim in claims(good.table)}
    assert named["adaFA keeps higher alignment than FA"].verdict == "agrees"
    assert named["sign-FA is above 1/√N"].verdict == "agrees"
    assert named["sign-FA is non-monotone"].verdict == "disagrees"
    assert "falls at some time in 0% of the runs, to 0.000 below" in named["sign-FA is non-monotone"].measured
    for rule, claim in [("adaFA", "adaFA keeps higher alignment than FA"), ("sign-FA", "sign-FA is above 1/√N")]:
        (found,) = [each for each in claims(doctored(good, "alignment", rule, dip).table) if each.claim == claim]
        assert found.verdict == "disagrees"
    (falls,) = [each for each in claims(doctored(good, "alignment", "sign-FA", dip).table) if "monotone" in each.claim]
    assert falls.verdict == "agrees"
    assert falls.measured == "falls at some time in 25% of the runs, to 0.900 below its peak"


def test_printed_numbers_of_claims(results: Results) -> None:
    changed = results
    for number, rule in enumerate(RULES, start=1):
        changed = doctored(changed, "half_norm_gain", rule, to(1.0))
        changed = doctored(changed, "conserved_gain", rule, to(number * 3e-3, number * 1e-3))
    narrow, fixed, *_ = claims(changed.table)
    assert narrow.measured.endswith("at m = 3 over that at m = 6: GD 3.0, FA 3.0, adaFA 3.0, sign-FA 3.0")
    assert fixed.measured.endswith("GD 2.00, FA 4.00, adaFA 6.00, sign-FA 8.00")
    table = claims_table("Claims", claims(changed.table))
    assert [list(column.cells)[1] for column in table.columns] == [fixed.claim, fixed.measured, "disagrees"]


# --- figures ---


@pytest.fixture(params=[conservation, alignment, losses], ids=lambda module: module.__name__.rsplit(".")[-1])
def drawn(request: pytest.FixtureRequest, results: Results) -> Figure:
    with matplotlib.rc_context(STYLE):
        return request.param.draw(results.table)


def test_figures_can_be_read(drawn: Figure) -> None:
    assert_readable(drawn)


def test_every_width_has_a_tick_and_every_error_bar_is_seen(results: Results) -> None:
    """Of more widths: bars of one width stand beside each other, in the order of the legend, and at its tick."""
    table, more = results.table, results.table.assign(width=results.table["width"] * 5)
    wide = pd.concat([table, more], ignore_index=True)
    with matplotlib.rc_context(STYLE):
        drawn = [module.draw(wide) for module in (conservation, alignment, losses)]
    for figure in drawn:
        assert_readable(figure)
        assert_ticks(figure)
    for axes in (drawn[0].axes[0], *drawn[2].axes):
        assert axes.get_xticks().tolist() == [3, 6, 15, 30]
        bars = [each for each in axes.containers if each.has_yerr]  # type: ignore[attr-defined]
        points = [each.lines[0] for each in bars]  # type: ignore[attr-defined]
        places = np.stack([each.get_transform().transform(each.get_xydata())[:, 0] for each in points])
        ticks = axes.transData.transform([(width, 1) for width in (3, 6, 15, 30)])[:, 0]
        np.testing.assert_allclose(np.diff(places, axis=0) * 72 / axes.figure.dpi, APART)
        np.testing.assert_allclose(places.mean(0), ticks)
        for each in bars:  # dot, caps and bar of one series together
            moved = {tuple(np.round(part.get_transform().transform((3, 1)), 6)) for part in each.get_children()}
            assert len(moved) == 1
        inside = axes.get_window_extent()
        assert (places > inside.x0).all() and (places < inside.x1).all()


def test_figures_plot_the_records(results: Results) -> None:
    with matplotlib.rc_context(STYLE):
        above, below = conservation.draw(results.table).axes
        cosines = alignment.draw(results.table).axes
        both = losses.draw(results.table).axes
    for number, rule in enumerate(RULES):
        own = results.of("deviation", rule)[1:].abs().median(0).values
        bars = [each for each in above.containers if each.has_yerr]  # type: ignore[attr-defined]
        plotted, caps, _ = bars[number].lines  # type: ignore[attr-defined]
        np.testing.assert_allclose(data_of(plotted)[1], own.mean(0))
        np.testing.assert_allclose((data_of(caps[1])[1] - data_of(caps[0])[1]) / 2, own.std(0) / 2**0.5)
        formula = results.of("correction", rule) / results.of("half_norm_gain", rule)
        crosses = [each for each in above.get_lines() if each.get_marker() == "x"][number]
        np.testing.assert_allclose(data_of(crosses)[1], formula[1:].abs().median(0).values.mean(0))
        rest = (results.of("deviation", rule) - formula)[1:].abs().median(0).values.mean(0)
        np.testing.assert_allclose(data_of(below.get_lines()[number])[1], rest.clamp(min=conservation.LEAST))
        for place, panel in enumerate(cosines):
            epochs, cosine = data_of([each for each in panel.get_lines() if len(data_of(each)[0]) > 2][number])
            assert epochs.tolist() == SMALL.recorded
            mean, error = statistic(results.of("alignment", rule))
            np.testing.assert_allclose(cosine, mean[:, place])
            band = np.asarray(panel.collections[number].get_paths()[0].vertices)
            assert band[:, 1].max() == pytest.approx((mean + error)[:, place].max())
        for panel, quantity in zip(both, ("train_loss", "test_loss"), strict=True):
            loss, _, _ = panel.containers[number].lines  # type: ignore[misc]
            np.testing.assert_allclose(data_of(loss)[1], results.of(quantity, rule)[-1].mean(0))
            assert loss.get_color() == RULE_COLOURS[rule]
    for panel, width in zip(cosines, SMALL.widths, strict=True):
        (bound,) = [each for each in panel.get_lines() if each.get_linestyle() == ":"]
        assert data_of(bound)[1][0] == pytest.approx((10 * width) ** -0.5)
    assert line(cosines[0], r"$1/\sqrt{N}$") and [panel.get_title() for panel in both] == ["training", "test"]


@pytest.mark.parametrize(("width", "samples"), [(5, 8), (4, 10)])
def test_small_steps_of_the_experiment_tend_to_its_flow_with_slope_one(width: int, samples: int) -> None:
    """A tenth of the step makes a tenth of the difference, up to 30 %: kinks fall into other parts of a step."""
    protocol = replace(SMALL, widths=(width,))
    measured = small_steps.measure(protocol, digits(), samples=samples, t_final=1.0, etas=(0.1, 0.01, 0.001))
    both = [array_of(measured, quantity, "eta", "rule") for quantity in ("difference", "deviation")]
    for values in both:
        assert (values[1] / values[2])[:3].tolist() == pytest.approx([10.0] * 3, rel=0.3)
        assert values[2, 3] < values[0, 3] / 10, "sign-FA scatters with where in a step a sign changes"
    etas = levels(measured, "eta")
    np.testing.assert_allclose(etas, (0.1, 0.01, 0.001), rtol=0.06)
    assert etas[-1] == pytest.approx(0.001, rel=1e-12), "950 steps with momentum 0.05 end at 1"
    steps = 0.95 / etas
    np.testing.assert_allclose(steps, np.round(steps))
    with matplotlib.rc_context(STYLE):
        figure = flow_limit.draw(measured)
    assert_readable(figure)
    for place, values in enumerate(both):
        for number, rule in enumerate(RULES):
            np.testing.assert_array_equal(data_of(line(figure.axes[place], rule))[1], values[:, number])
        etas, proportional = data_of(line(figure.axes[place], r"proportional to $\eta$"))
        assert proportional[1] / proportional[0] == pytest.approx(etas[1] / etas[0])


def test_runs_by_themselves_have_the_rules_of_the_ensemble() -> None:
    runs = draw_ensemble(replace(SMALL, widths=(5,), repeats=1), digits())
    moved = runs.flow.velocity(runs.weights)
    kinds = [GradientDescent, FeedbackAlignment, FeedbackAlignment, SignFeedbackAlignment]
    for number, kind in enumerate(kinds):
        flow, weights = small_steps.alone(runs, number)
        assert is_one_of(flow.rule, kind)
        for ours, theirs in zip(flow.velocity(weights).layers, moved.layers, strict=True):
            torch.testing.assert_close(ours, theirs[number, 0, 0], rtol=1e-12, atol=1e-14)


# --- from the shell ---


def test_from_the_shell_on_idx_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path)
    monkeypatch.setattr(experiment, "Protocol", lambda dataset: replace(SMALL, dataset=dataset))
    monkeypatch.setattr(small_steps, "measure", functools.partial(small_steps.measure, t_final=1.0))
    monkeypatch.setattr(progress, "FIRST", math.inf)
    arguments = ["noisy_digits", "--dataset", "mnist", "--data-dir", str(tmp_path), "--output", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    prefix = "noisy_digits_mnist_12"
    expected = {f"{prefix}_{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")}
    assert names == {f"{prefix}.csv", f"{prefix}_flow_limit.csv"} | expected, "and the state is gone"
    with Image.open(tmp_path / "out" / f"{prefix}_losses.png") as image:
        assert image.info["Source"] == "python -m figures noisy_digits (mnist, 12 images, 40 epochs); seeds 0, 1"
    out, err = capsys.readouterr()
    assert "Appendix B.1" in out and "adaFA keeps higher alignment" in out and err == ""


def test_lines_say_how_far_it_is_where_nobody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(small_steps, "measure", functools.partial(small_steps.measure, t_final=1.0, etas=(0.5,)))
    monkeypatch.setattr(experiment, "FIGURES", {})
    for name in ("FIRST", "LONGEST"):
        monkeypatch.setattr(progress, name, 0.0)
    out, err = Console(file=io.StringIO()), Console(file=io.StringIO())
    experiment.run(SMALL, digits(), draw_ensemble(SMALL, digits()), tmp_path, out, err, Attempts())
    lines = [line.split(" after ")[0] for line in err.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[:5] == [f"the limit of small steps: {share} %" for share in (20, 40, 60, 80, 100)]
    assert lines[5:] == [f"training 16 networks: {100 * (epoch / SMALL.epochs):.0f} %" for epoch in range(41)]


def test_a_disk_that_is_full_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "Protocol", lambda dataset: replace(SMALL, dataset=dataset))
    monkeypatch.setattr(small_steps, "measure", functools.partial(small_steps.measure, t_final=1.0))
    monkeypatch.setattr(progress, "FIRST", math.inf)
    path = state_path(SMALL, draw_ensemble(SMALL, digits()), tmp_path)
    path.symlink_to("/dev/full")
    monkeypatch.setattr(training, "reached", lambda path, start: start)
    assert command.main(["noisy_digits", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: noisy_digits cannot be written: {path}: No space left on device\n"


def test_a_saved_state_that_is_broken_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "Protocol", lambda dataset: replace(SMALL, dataset=dataset))
    state_path(SMALL, draw_ensemble(SMALL, digits()), tmp_path).write_bytes(b"not a state")
    assert command.main(["noisy_digits", "--output", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "is not the state of a run" in err and err.count("\n") == 1


def test_a_flow_that_cannot_be_solved_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise IntegrationError(0.5, "the weights overflow", 0, None)

    monkeypatch.setattr(small_steps, "measure", stopped)
    assert command.main(["noisy_digits", "--output", str(tmp_path)]) == 1
    expected = "error: noisy_digits: trajectory 0 stopped at t = 0.5: the weights overflow\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "mnist"], "--dataset goes with noisy_digits or deep_networks, got 'mnist' without it"),
        (["signs", "--paper"], "--paper goes with noisy_digits or deep_networks, got without it"),
        (["noisy_digits", "--paper"], "--paper needs more images than digits has"),
        (["noisy_digits", "--dataset", "mnist"], "--data-dir must say where the IDX files of mnist are"),
        (["noisy_digits", "--device", "nonsense"], "--device must be cpu or cuda, got 'nonsense'"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--output", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
