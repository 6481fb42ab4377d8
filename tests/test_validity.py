"""A run that is no solution of its flow is noticed by every statement, whatever the integrator believes."""

import copy
import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

import flowsim.integrators.event.batched.rounds as event_rounds
from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    SignFeedbackAlignment,
    Solution,
    Weights,
    sliding,
    solve,
)
from flowsim.activation import Activation, LeakyReLU
from flowsim.data import orthogonally_separable
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.integrators.event.batched.watch import KINK, SIGN, TO_INACTIVE
from flowsim.integrators.event.path import EventPath
from flowsim.integrators.event.records import COLUMNS, Record
from flowsim.rules import Rule
from flowsim.solution import Pieces
from theorems import (
    ensembles,
    lemma_5_4,
    own_data,
    proposition_5_7,
    theorem_5_2,
    thresholds,
    validity,
)
from theorems.check import DoesNotApplyError, Statement, check
from theorems.observation import Observation, observe
from theorems.pieces import halves, twice

SIDES, FOLLOWS = "side_ij z_ij >= 0 between events", "d theta/dt = -fa"
STATEMENTS = own_data.STATEMENTS[:6]
"""One of each; the sixth is Proposition 5.7 on orthogonally separable data, as here."""
DATA = orthogonally_separable(4, 6, 0.2, 0)
SIGNS = random_signs(5, 0)
FA, SIGN_FA = FeedbackAlignment(SIGNS), SignFeedbackAlignment(0.5)


def problem(rule: Rule, flow_type: type[Flow] = Flow, **options: Any) -> tuple[Flow, Weights]:
    hidden = gaussian(5, 6, 0, scale=5**-0.5).hidden
    signs = None if rule is FA else SIGNS
    return flow_type(DATA, rule, "exponential", 0.3, **options), with_gaps(hidden, rule, 0.05, signs)


def run(rule: Rule, t_final: float = 30.0) -> Solution:
    flow, weights = problem(rule)
    return solve(flow, weights, t_final, rtol=1e-13, atol=1e-15)


def broken(solution: Solution) -> set[str]:
    return {item.name for item in validity.along_the_run(solution) if not item.holds}


batched = pytest.mark.usefixtures("batched_kernel")
"""The kernel whose events can be taken away in tests."""


def missing(kind: int, neuron: int) -> Any:
    """What may change the mode, without the events of a kind at a neuron."""
    original = event_rounds.set_watch

    def without(*arguments: Any) -> Any:
        found, still = original(*arguments)
        return found.where(~((found.kind == kind) & (found.neuron == neuron))), still

    return without


@batched
@pytest.mark.parametrize("rule", [FA, SIGN_FA], ids=["FA", "sign-FA"])
def test_an_event_that_both_solves_miss_is_noticed_by_every_statement(
    monkeypatch: pytest.MonkeyPatch, rule: Rule
) -> None:
    right = run(rule)
    assert broken(right) == set()
    monkeypatch.setattr(event_rounds, "set_watch", missing(KINK, 0))
    wrong = run(rule)
    assert wrong.error(30.0).hidden.max() < 1e-11, "the error estimate does not see it"
    off = (wrong.evaluate(30.0).hidden - right.evaluate(30.0).hidden).abs().max()
    assert off > 0.2
    assert broken(wrong) == {SIDES, FOLLOWS}
    for statement in STATEMENTS:
        with pytest.raises(DoesNotApplyError, match=SIDES):
            check(statement, "missed", "theorem", [wrong])


@batched
@pytest.mark.parametrize("output", [[-0.1], [-0.1, 1.0]])
def test_a_missed_sign_flip_of_sign_fa_is_noticed(monkeypatch: pytest.MonkeyPatch, output: list[float]) -> None:
    """No pre-activation changes its sign. Alone, |v| shows the flip by not being smooth; beside a larger weight not."""
    flow = Flow(Dataset([[1.0]], [1]), SignFeedbackAlignment(), slope=0.5)
    start = Weights(torch.full((len(output), 1), 2.0), torch.tensor(output))
    assert broken(solve(flow, start, 1.0, rtol=1e-13)) == set()
    monkeypatch.setattr(event_rounds, "set_watch", missing(SIGN, 0))
    wrong = solve(flow, start, 1.0, rtol=1e-13)
    fine = wrong.evaluate(torch.linspace(0, 1, 101))
    assert flow.pre_activations(fine)[0].min() > 0
    assert fine.output[0, 0] < 0 < fine.output[-1, 0]
    assert SIDES in broken(wrong)


TURNING = Flow(Dataset([[1.0]], [1]), SignFeedbackAlignment(), slope=0.5), Weights([[2.0]], [-0.1])  # type: ignore[arg-type]


@batched
@pytest.mark.parametrize(("flow_and_start", "kind"), [(problem(FA), KINK), (TURNING, SIGN)], ids=["a side", "a sign"])
def test_parts_of_a_piece_are_observed_in_the_mode_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, flow_and_start: tuple[Flow, Weights], kind: int
) -> None:
    """Where an event was missed the pieces have parts that are on another side, or have another sign, by themselves."""

    def modes(seen: Observation) -> Tensor:
        assert seen.sides is not None
        (values,) = seen.sides if kind == KINK else seen.feedback
        return values.sign()

    monkeypatch.setattr(event_rounds, "set_watch", missing(kind, 0))
    solution = solve(*flow_and_start, 1.0)
    parts = whole = solution.pieces
    modes_of_whole = modes(observe(solution, whole)).repeat_interleave(2**5, 0)
    for _ in range(5):
        parts, whole = halves(parts), Pieces(*map(twice, whole))
    assert torch.equal(modes(observe(solution, parts, whole=whole)), modes_of_whole)
    assert not torch.equal(modes(observe(solution, parts)), modes_of_whole)


@batched
@pytest.mark.parametrize("least", [1e-6, 1e-9])
def test_a_shallow_dip_below_a_kink_within_one_piece_is_noticed(monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    """A neuron that touches the kink of sample 1 and turns back: z_1 < 0 for 1e-3 of the time or less, between nodes.

    m = 1, b = 1: sample 2 pulls z_1 down at first, until it is fitted, and sample 1 pulls it up again.
    """
    flow = Flow(Dataset([[1.0, 0.0], [-3.0, 6.0]], [1, 1]), FeedbackAlignment([1.0]), slope=0.3)

    def touching(first: float, slope: float = 0.3) -> Solution:
        start = Weights([[first, 0.08]], [1.0])  # type: ignore[arg-type]
        return solve(replace(flow, activation=LeakyReLU(slope)), start, 1.0, rtol=1e-13, atol=1e-15)

    def depth(solution: Solution) -> float:
        low, high, lowest = 0.0, 1.0, math.inf
        for _ in range(3):  # to 1e-7 of the time, where z_1 is within 1e-11 of its minimum
            times = torch.linspace(low, high, 301, dtype=torch.float64)
            z = flow.pre_activations(solution.evaluate(times))[0][:, 0, 0]
            index, lowest = int(z.argmin()), z.min().item()
            low, high = times[max(index - 1, 0)].item(), times[min(index + 1, 300)].item()
        return lowest

    original = event_rounds.set_watch
    monkeypatch.setattr(event_rounds, "set_watch", missing(KINK, 0))
    # both samples are active as long as nobody meets the kink, and so the slope behind it does not matter
    first: Any = brentq(lambda first: depth(touching(first, 1.0)) + 1.05 * least, 0.0, 0.2, xtol=0.01 * least)
    wrong = touching(first)
    assert -1.1 * least < depth(wrong) < -least
    assert SIDES in broken(wrong)
    if least < 1e-6:
        seen = observe(wrong, wrong.pieces)
        assert flow.pre_activations(seen.weights)[0][..., 0, 0].min() > 0, "no node is in the dip"
    assert SIDES not in broken(touching(0.1)), "well above the kink nothing is missed"
    monkeypatch.setattr(event_rounds, "set_watch", original)
    assert broken(touching(first)) == set()


@batched
def test_a_kink_ignored_while_sliding_and_one_slid_on_too_long_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact solution 2 of theorems/README.md, section 8: it slides from the start, and leaves to the inactive side."""
    flow = Flow(Dataset([[1.0, 0.0], [0.6, 1.2]], [-1, 1]), FeedbackAlignment([1.0]), slope=0.3)
    start = Weights(torch.tensor([[0.0, 0.3]]).double(), torch.tensor([0.2]))
    right = solve(flow, start, 20.0, rtol=1e-13, atol=1e-15)
    assert "sliding exit" in right.events.kind
    assert broken(right) == set()
    monkeypatch.setattr(event_rounds, "set_watch", missing(TO_INACTIVE, 0))
    assert FOLLOWS in broken(solve(flow, start, 20.0, rtol=1e-13, atol=1e-15))


@pytest.mark.parametrize("rule", ["fa", "sign-fa", "gd"])
def test_runs_with_crossings_and_slides_are_solutions_by_their_weights_alone(rule: Any) -> None:
    solution = ensembles.any_run(rule, 2, "cpu", loss="exponential")
    assert (solution.events.after == 0).any(), "neurons slide in this run"
    assert broken(solution) == set()
    # 150 steps of a method with a tolerance of 1e-13, whose true error is 30 times smaller (section 10)
    drift = -validity.follows_its_rule(solution).slack.max().item()
    assert drift < 1e-12
    seen = observe(solution, solution.pieces)
    assert seen.sides is not None
    (sides,) = seen.sides
    (mode,) = solution.pattern((seen.pieces.start + seen.pieces.end) / 2, seen.pieces.trajectory)
    long = seen.pieces.end - seen.pieces.start > 1e-9
    assert torch.equal(sides[long], mode[long].to(sides.dtype)), "what the weights show is the mode of the integrator"


class Reversed(Flow):
    """It moves against its rule."""

    def velocity(self, weights: Any, slopes: Any = None, feedback: Sequence[Tensor] | None = None) -> Any:
        return weights.with_layers([-layer for layer in super().velocity(weights, slopes, feedback).layers])


class Faster(Flow):
    """It moves as its rule says, but 1 + 1e-8 times as fast."""

    def velocity(self, weights: Any, slopes: Any = None, feedback: Sequence[Tensor] | None = None) -> Any:
        return weights.with_layers([(1 + 1e-8) * x for x in super().velocity(weights, slopes, feedback).layers])


class TrueGradient(Flow):
    """The hidden layer moves by the gradient in the place of the feedback."""

    def velocity(self, weights: Any, slopes: Any = None, feedback: Sequence[Tensor] | None = None) -> Any:
        return weights.with_layers([-layer for layer in self.gradient(weights, slopes).layers])


@pytest.mark.parametrize(
    ("flow_type", "options"),
    [(Reversed, {}), (Faster, {}), (TrueGradient, {}), (Flow, {"decay": 0.1}), (Flow, {"decay": 1e-8})],
    ids=["reversed", "faster by 1e-8", "true gradient", "decay 0.1", "decay 1e-8"],
)
def test_a_flow_that_is_not_its_rule_does_not_apply_for_any_statement(
    flow_type: type[Flow], options: dict[str, float]
) -> None:
    flow, weights = problem(FA, flow_type, **options)
    method = "event" if flow_type is Flow else "dopri8"
    solution = solve(flow, weights, 0.1, method=method, rtol=1e-13, atol=1e-15)
    for statement in STATEMENTS:
        with pytest.raises(DoesNotApplyError, match=FOLLOWS):
            check(statement, "custom", "theorem", [solution])


@pytest.mark.parametrize("decay", [1e-4, 1e-6, 1e-8, 1e-9, 1e-10, 1e-11, 1e-13])
def test_no_decay_however_small_violates_an_equality_whose_hypotheses_hold(decay: float) -> None:
    flow, weights = problem(FA, decay=decay)
    solution = solve(flow, weights, 1.0, rtol=1e-13, atol=1e-15)
    try:
        verdict = check(theorem_5_2.STATEMENT, "decay", "theorem", [solution]).verdict
    except DoesNotApplyError:
        assert decay > thresholds.FOLLOWS / 10
    else:
        assert verdict != "violated"
        assert decay < 10 * thresholds.FOLLOWS


DEEP: list[tuple[Any, dict[str, Any]]] = [
    ("gd", {"hidden_layers": 2}),
    ("sign-fa", {"hidden_layers": 2}),
    ("fa", {"hidden_layers": 3}),
    ("fa", {"hidden_layers": 2, "loss": "cross-entropy", "outputs": 3}),
]


@pytest.mark.parametrize(("rule", "options"), DEEP)
def test_deep_runs_that_slide_are_solutions_by_their_weights_alone(rule: Any, options: dict[str, Any]) -> None:
    """Their drift is that of their tolerance, 1e-13, and smaller than that of their companions."""
    solution = ensembles.any_run(rule, 1, "cpu", **options)
    assert isinstance(solution.start, DeepWeights)
    assert broken(solution) == set()
    own, looser = (-validity.follows_its_rule(curve).slack.max().item() for curve in (solution, solution.companion))
    assert own < 1e-12 < 0.1 * thresholds.FOLLOWS
    assert own < looser
    seen = observe(solution, solution.pieces)
    assert seen.sides is not None
    assert seen.slopes is not None
    modes = solution.pattern((seen.pieces.start + seen.pieces.end) / 2, seen.pieces.trajectory)
    long = seen.pieces.end - seen.pieces.start > 1e-9
    assert any((side == 0).any() for side in seen.sides[1:])
    for sides, mode, slopes in zip(seen.sides, modes, seen.slopes, strict=True):
        assert torch.equal(sides[long], mode[long].to(sides.dtype)), "what the weights show is the integrator's mode"
        assert ((slopes >= 0.3 - 1e-6) & (slopes <= 1 + 1e-6)).all()


def without_step(solution: Solution, time: float) -> Solution:
    """The solution of an integrator that misses the events at a time: the step before it goes on until the next one."""
    companion = solution.companion
    there = companion.events.time[(companion.events.time - time).abs().argmin()].item()
    wrong = replace(companion, path=of_time(companion.path, there))
    return replace(solution, path=of_time(solution.path, time), solve_looser=lambda: wrong)


def of_time(path: Any, time: float) -> EventPath:
    """The path without the steps that start at a time."""
    assert isinstance(path, EventPath)
    parts = [(record, record.time != time) for record in path.records]
    rows = [Record(part.layout, *(getattr(part, name)[kept] for name in COLUMNS)) for part, kept in parts]
    return replace(path, records=tuple(rows))


@cache
def one_deep_run(rule: Any, hidden_layers: int) -> Solution:
    return ensembles.any_run(rule, 1, "cpu", hidden_layers=hidden_layers)


@pytest.mark.parametrize("kind", ["crossing", "sliding entry", "sliding exit"])
@pytest.mark.parametrize(("rule", "hidden_layers"), [("gd", 2), ("sign-fa", 2), ("fa", 3)])
def test_a_deep_event_that_is_missed_is_noticed(rule: Any, hidden_layers: int, kind: str) -> None:
    """Of a layer above the first: the one before the longest step. Both solves miss it."""
    solution = one_deep_run(rule, hidden_layers)
    events, (_, start, end) = solution.events, solution.pieces
    times = events.time[(events.layer >= 2) & torch.tensor([found == kind for found in events.kind])]
    length = {step.item(): (stop - step).item() for step, stop in zip(start, end, strict=True)}
    time = max(times.tolist(), key=lambda candidate: length[candidate])
    wrong = without_step(solution, time)
    assert len(wrong.pieces.start) == len(start) - 1
    assert broken(solution) == set()
    noticed = broken(wrong)
    assert noticed
    assert FOLLOWS in noticed or kind == "crossing"
    with pytest.raises(DoesNotApplyError):
        check(theorem_5_2.STATEMENT, "missed", "theorem", [wrong])


class Clipped(Activation):
    """Leaky ReLU up to z = 1/2, beyond it 1/2 + tanh(z - 1/2): homogeneous at the start only."""

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = LeakyReLU(0.3)(z)
        beyond, rest = z > 0.5, torch.tanh(z - 0.5)
        return torch.where(beyond, 0.5 + rest, value), torch.where(beyond, 1 - rest.square(), slope)


def test_an_activation_that_is_homogeneous_at_the_start_only_does_not_apply() -> None:
    rule = FeedbackAlignment([1.0])
    flow = Flow(Dataset([[1.0]], [1]), rule, activation=Clipped())
    early = solve(flow, with_gaps(torch.tensor([[0.1]]), rule, 0.05), 0.3, method="dopri8", rtol=1e-13, atol=1e-15)
    solution = early.extend(4.0)
    most = flow.pre_activations(solution.evaluate([0.0, 0.3, 4.0]))[0].amax((-2, -1))
    assert most[:2].max() < 0.5 < most[2]
    assert check(theorem_5_2.STATEMENT, "not yet clipped", "theorem", [early]).verdict == "holds"
    for statement in (theorem_5_2.STATEMENT, lemma_5_4.STATEMENT):
        with pytest.raises(DoesNotApplyError, match="phi'\\(z\\) z = phi\\(z\\)"):
            check(statement, "clipped", "theorem", [solution])
    with pytest.raises(DoesNotApplyError, match="leaky ReLU"):
        check(proposition_5_7.SEPARABLE, "clipped", "theorem", [solution])


def test_the_thresholds_have_one_order() -> None:
    """Rounding, what rests on a kink, what follows its rule, what is equal, what is resolved."""
    rounding = thresholds.ROUNDING_PER_STEP * torch.finfo(torch.float64).eps
    order = [
        100 * rounding,
        thresholds.ON_KINK,
        thresholds.FOLLOWS,
        thresholds.EQUALITY_ERROR,
        thresholds.RESOLVED,
        thresholds.RESOLVED_RELATIVE,
    ]
    assert order == sorted(order)
    assert ensembles.RTOL < thresholds.ON_KINK
    assert sliding.DEPENDENT < thresholds.ON_KINK < thresholds.IN_BOX
    assert 10 * thresholds.FOLLOWS <= thresholds.EQUALITY_ERROR, "a drift that passes cannot break an equality"
    assert thresholds.LEVEL > 1
    assert math.log2(1 / torch.finfo(torch.float64).eps) < thresholds.HALVINGS + 3


def test_what_does_not_apply_travels_between_processes() -> None:
    flow, weights = problem(FA, Reversed)
    solution = solve(flow, weights, 0.1, method="dopri5")
    with pytest.raises(DoesNotApplyError) as caught:
        check(STATEMENTS[0], "x", "theorem", [solution])
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value), copy.deepcopy(caught.value)):
        assert str(again) == str(caught.value)
        assert again.name == "equation_1"
        assert [item.name for item in again.hypotheses] == [SIDES, FOLLOWS]
        assert not again.hypotheses[1].holds


def test_every_statement_has_the_hypotheses_along_the_run() -> None:
    def recorded(statement: Statement) -> list[str]:
        solution = run(SIGN_FA if statement.name == "proposition_5_3" else FA, 0.1)
        return list(check(statement, "x", "theorem", [solution]).details["hypotheses"])

    for statement in STATEMENTS:
        assert recorded(statement)[-2:] == [SIDES, FOLLOWS]
