"""Bad arguments of every public function and constructor: one line that names the argument, and mostly the cure."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import flowsim
from flowsim import (
    Dataset,
    DeepWeights,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Weights,
    activation,
    data,
    descent,
    enclose,
    initialization,
    losses,
    observables,
    solve,
    weights,
)
from flowsim.activation import LeakyReLU, Tanh
from flowsim.losses import Loss

INPUTS = torch.tensor([[1.0, 0.0], [0.6, 1.2]], dtype=torch.float64)
LABELS = torch.tensor([1, -1])
DATASET = Dataset(INPUTS, LABELS)
RULE = FeedbackAlignment([1.0, -1.0, 0.5])
FLOW = Flow(DATASET, RULE)
HIDDEN, OUTPUT = torch.ones(3, 2), torch.tensor([0.3, 0.2, -0.1])
WEIGHTS = Weights(HIDDEN, OUTPUT)
DEEP = DeepWeights((HIDDEN, torch.ones(1, 3)))
SOLUTION = solve(FLOW, WEIGHTS, 1.0, rtol=1e-6)
STATE = descent.start(WEIGHTS)


class Hostile:
    """Refuses to be looked at, in several lines."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise KeyError("no array\nnot at all")

    def __repr__(self) -> str:
        return "Hostile\nin two lines"


NO_ARRAYS = [
    None, "abc", b"abc", {}, {1.0}, object(), Hostile(), Hostile, abs, torch.nn.Linear(2, 2), WEIGHTS, FLOW, 1j,
    torch.ones(2, 2).to_sparse(), torch.ones(2, 2).bool(), torch.ones(2, 2) * 1j, torch.ones(2, 2, device="meta"),
    torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
    np.array([[True, False]]), np.array([[1j]]), np.array([["a"]]), np.array([[1.0, None]]), np.array("2020", "M8"),
    [[1.0, 2.0], [3.0]], [torch.ones(2), torch.ones(3)], [[10**400]], [[None]], [None, torch.ones(2)],
]  # fmt: skip
NOT_FINITE = [[[math.nan, 1.0]], torch.tensor([[math.inf]]), np.array([[-np.inf]])]
NO_FEEDBACK = [value for value in NO_ARRAYS if not (isinstance(value, list) and isinstance(value[0], torch.Tensor))]
"""A list of arrays of different shapes is the feedback of a deep network."""
NO_COUNTS = [
    None, 0, -1, 2.5, 3.0, "3", True, np.True_, [3], (), math.nan, int, 10**30, 10**400, torch.tensor(2.5),
    torch.tensor(True), torch.tensor([3, 4]), np.array(3.0), Fraction(3), Hostile(), 1j,
]  # fmt: skip
NO_SEEDS = [None, -1, 0.5, "0", False, 2**32, 10**400, [0], Hostile(), torch.tensor(0.0)]
NO_NUMBERS = [
    None, "1", True, np.False_, math.nan, math.inf, -1.0, -math.inf, 10**400, -(10**400), 1j, [1.0], (1.0,), {},
    float, Decimal(1), Hostile(), torch.ones(1), torch.tensor(True), torch.tensor(1j), torch.tensor(math.nan),
    torch.tensor(1.0, device="meta"), np.ones(2), np.array("1"), WEIGHTS,
]  # fmt: skip
NOT_POSITIVE = [*NO_NUMBERS, 0, 0.0, -0.0, torch.tensor(0)]
NO_WEIGHTS = [
    None, (HIDDEN, OUTPUT), [HIDDEN, OUTPUT], {"hidden": HIDDEN}, HIDDEN, "weights", 1.0, Weights, DeepWeights, FLOW,
    torch.nn.Linear(2, 1), torch.nn.Sequential(torch.nn.Linear(2, 1)), DATASET, Hostile(), SOLUTION,
]  # fmt: skip
NO_FITTING_WEIGHTS = [
    *NO_WEIGHTS,
    Weights(torch.ones(3, 4), OUTPUT),
    Weights(HIDDEN, torch.ones(2, 3)),
    DeepWeights((torch.ones(3, 4), torch.ones(1, 3))),
]
NO_FLOWS = [None, Flow, WEIGHTS, DATASET, (DATASET, RULE), "flow", 1.0, Hostile(), torch.nn.Linear(2, 1)]
NO_FUNCTIONS = ["abs", 1.0, (), Hostile()]
NO_LOSSES = [
    None, "hinge", "Exponential", Loss, abs, ["squared"], 1.0, torch.nn.MSELoss(), torch.nn.MSELoss, Hostile(),
]  # fmt: skip
NO_RULES = [
    None,
    GradientDescent,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    SignFeedbackAlignment,
    "fa",
    DATASET,
    OUTPUT,
    1.0,
    Hostile(),
]


Case = tuple[Callable, dict[str, Any], dict[str, list]]
ALIGNED = {"flow": FLOW, "weights": WEIGHTS}
WRONG_TYPES = {"flow": NO_FLOWS, "weights": NO_WEIGHTS}
WRONG_FLOW_OR_WEIGHTS = {"flow": NO_FLOWS, "weights": NO_FITTING_WEIGHTS}

CASES: dict[str, Case] = {
    "Dataset": (
        Dataset,
        {"inputs": INPUTS, "labels": LABELS, "classes": None},
        {
            "inputs": [*NO_ARRAYS, *NOT_FINITE, 1.0, [], [[]], [1.0, 2.0], torch.ones(3, 2), torch.ones(0, 2)],
            "labels": [*NO_ARRAYS, *NOT_FINITE, 1.0, [], [1], [[1], [-1]], [0, 1], [1, 2], [0.5, 1], [True, False],
                       torch.tensor([True, False]), [np.True_, np.False_]],
            "classes": [count for count in NO_COUNTS if count is not None],
        },
    ),
    "data.stack": (
        data.stack,
        {"ensemble": [DATASET]},
        {"ensemble": [None, [], (), "ab", 1.0, DATASET, [None], [DATASET, None], [DATASET, WEIGHTS], [Dataset],
                      [DATASET, Dataset([[1.0, 0.0]], [1])], [DATASET, Dataset(INPUTS, [0, 1], 2)], Hostile(), {}]},
    ),
    "data.orthogonally_separable": (
        data.orthogonally_separable,
        {"samples": 3, "dimension": 4, "kappa": 0.2, "seed": 0},
        {"samples": [*NO_COUNTS, 2**20], "dimension": [*NO_COUNTS, 2**31], "kappa": [*NOT_POSITIVE, 1e308],
         "seed": NO_SEEDS},
    ),
    "data.nearly_orthogonal": (
        data.nearly_orthogonal,
        {"samples": 3, "dimension": 4, "rho": 0.2, "seed": 0},
        {"samples": [*NO_COUNTS, 2**20], "dimension": [*NO_COUNTS, 2**31], "rho": NO_NUMBERS, "seed": NO_SEEDS},
    ),
    "data.gaussian": (
        data.gaussian,
        {"samples": 3, "dimension": 4, "seed": 0},
        {"samples": [*NO_COUNTS, 2**20], "dimension": [*NO_COUNTS, 2**31], "seed": NO_SEEDS},
    ),
    "FeedbackAlignment": (
        FeedbackAlignment,
        {"feedback": OUTPUT},
        {"feedback": [*NO_FEEDBACK, *NOT_FINITE, [], (), torch.ones(0), (OUTPUT, None), [np.array([math.nan])],
                      (torch.ones(1, 3), torch.ones(2, 1) * math.nan), (torch.ones(1, 3).to_sparse(),)]},
    ),
    "DirectFeedbackAlignment": (
        DirectFeedbackAlignment,
        {"feedback": OUTPUT},
        {"feedback": [*NO_FEEDBACK, *NOT_FINITE, [], (), torch.ones(0), (OUTPUT, None)]},
    ),
    "SignFeedbackAlignment": (SignFeedbackAlignment, {"scale": 1.0}, {"scale": NOT_POSITIVE}),
    "Flow": (
        Flow,
        {"dataset": DATASET, "rule": RULE, "loss": "exponential", "slope": 0.3},
        {
            "dataset": [None, Dataset, RULE, INPUTS, (INPUTS, LABELS), "data", Hostile()],
            "rule": NO_RULES,
            "loss": [*NO_LOSSES, losses.cross_entropy],
            "slope": [*(value for value in NO_NUMBERS if value is not None), 1.0001, -1e-300, 2],
            "decay": NO_NUMBERS,
            "activation": [LeakyReLU, Tanh, abs, 0.3, "tanh", torch.nn.Tanh(), Hostile()],
        },
    ),
    "LeakyReLU": (LeakyReLU, {"slope": 0.3}, {"slope": [*NO_NUMBERS, 1.0001, -1e-300, 2]}),
    **{
        f"Flow.{method}": (
            lambda weights, method=method: getattr(FLOW, method)(weights),
            {"weights": WEIGHTS},
            {"weights": NO_FITTING_WEIGHTS},
        )
        for method in ("require_fit", "layers_of", "pre_activations", "outputs", "risk", "gradient", "velocity")
    },
    "Weights": (
        Weights,
        {"hidden": HIDDEN, "output": OUTPUT},
        {"hidden": [*NO_ARRAYS, 1.0, [], [1.0, 2.0], torch.ones(0, 2)],
         "output": [*NO_ARRAYS, 1.0, [], [1.0], torch.ones(2, 2), torch.ones(3, 3, 3)]},
    ),
    "Weights.map": (WEIGHTS.map, {"function": abs}, {"function": [*NO_FUNCTIONS, None]}),
    "Weights.with_layers": (WEIGHTS.with_layers, {"layers": WEIGHTS.layers}, {"layers": [(), DEEP.layers[:1]]}),
    "DeepWeights": (
        DeepWeights,
        {"layers": DEEP.layers},
        {"layers": [None, 1.0, "ab", (), DEEP.layers[:1], HIDDEN, (HIDDEN, None), (HIDDEN, HIDDEN), (HIDDEN, OUTPUT),
                    WEIGHTS, {}, Hostile(), torch.nn.Linear(2, 1), (HIDDEN, torch.ones(1, 3).to_sparse())]},
    ),
    "DeepWeights.map": (DEEP.map, {"function": abs}, {"function": [*NO_FUNCTIONS, None]}),
    "weights.stack": (
        weights.stack,
        {"ensemble": [WEIGHTS]},
        {"ensemble": [None, [], (), "ab", 1.0, WEIGHTS, [None], [WEIGHTS, DEEP], [WEIGHTS, DATASET], [(HIDDEN, OUTPUT)],
                      [WEIGHTS, Weights(torch.ones(4, 2), torch.ones(4))], [Weights], Hostile(),
                      [WEIGHTS, Weights(HIDDEN, torch.ones(1, 3))]]},
    ),
    "weights.require_finite": (weights.require_finite, {"weights": WEIGHTS}, {"weights": NO_WEIGHTS}),
    "solve": (
        solve,
        {"flow": FLOW, "weights": WEIGHTS, "t_final": 1.0, "method": "event", "rtol": 1e-6, "atol": 1e-8,
         "max_steps": 1000, "progress": False},
        {
            "flow": NO_FLOWS,
            "weights": [*NO_FITTING_WEIGHTS, Weights(torch.ones(0, 3, 2), torch.ones(0, 3))],
            "t_final": NOT_POSITIVE,
            "method": [None, "rk4", ["event"], {"event"}, 1, abs, Hostile()],
            "rtol": NOT_POSITIVE,
            "atol": NOT_POSITIVE,
            "max_steps": NO_COUNTS,
            "progress": [None, "yes", 1, 0.0, Hostile()],
        },
    ),
    "enclose": (
        enclose,
        {"flow": FLOW, "weights": WEIGHTS, "t_final": 0.125, "bits": 64},
        {"flow": NO_FLOWS, "weights": NO_FITTING_WEIGHTS, "t_final": NOT_POSITIVE, "bits": [*NO_COUNTS, 20]},
    ),
    **{
        f"Solution.{method}": (
            getattr(SOLUTION, method),
            {"times": [0.1, 0.2], "trajectory": None},
            {
                "times": [*NO_ARRAYS, *NOT_FINITE, -0.1, 1.1, [0.0, 2.0], 10**400],
                "trajectory": [torch.zeros(2), [0.0, 0.0], [0, 1], [-1, 0], [0], 0, "ab", [None, 0], [True, False], {},
                               [0, 2**70], torch.zeros(2).to_sparse(), Hostile(), abs, [[0], [0, 0]], np.zeros(2),
                               torch.zeros(2, device="meta").long(), WEIGHTS],
            },
        )
        for method in ("evaluate", "velocity", "pattern")
    },
    "Solution.error": (
        SOLUTION.error, {"times": 0.5}, {"times": [*NO_ARRAYS, *NOT_FINITE, -0.1, 1.1, [0.0, 2.0], 10**400]},
    ),
    "Solution.flow_of": (
        SOLUTION.flow_of, {"trajectory": torch.tensor([0])}, {"trajectory": [None, 0.5, torch.zeros(1), [1], [-1], "a"]}
    ),
    "Loss": (
        Loss,
        {"name": "mine", "value": losses.squared.value, "negative_gradient": None, "targets": "any", "series": None,
         "stride": None},
        {
            "name": [None, 1.0, abs, b"a", "in two\nlines", Hostile()],
            "value": [*NO_FUNCTIONS, None],
            "negative_gradient": NO_FUNCTIONS,
            "targets": [None, "labels", 1, ["any"], True, Hostile()],
            "series": NO_FUNCTIONS,
            "stride": NO_FUNCTIONS,
        },
    ),
    "losses.named": (losses.named, {"loss": "squared"}, {"loss": NO_LOSSES}),
    "losses.polynomial": (losses.polynomial, {"power": 2}, {"power": NOT_POSITIVE}),
    "initialization.gaussian": (
        initialization.gaussian,
        {"width": 3, "dimension": 2, "seed": 0, "outputs": None, "scale": 1.0},
        {"width": [*NO_COUNTS, 2**31], "dimension": [*NO_COUNTS, 2**31], "seed": NO_SEEDS,
         "outputs": [count for count in NO_COUNTS if count is not None], "scale": NOT_POSITIVE},
    ),
    "initialization.deep_gaussian": (
        initialization.deep_gaussian,
        {"widths": (2, 3, 1), "seed": 0, "scale": 1.0},
        {"widths": [None, 3, "231", (), (2,), (2, 1), (2, 0, 1), (2, 3.0, 1), (2, True, 1), (2, 2**31, 2), abs,
                    Hostile(), (2, None, 1), {}, (10**400, 1, 1)],
         "seed": NO_SEEDS, "scale": NOT_POSITIVE},
    ),
    "initialization.random_signs": (
        initialization.random_signs, {"width": 3, "seed": 0}, {"width": NO_COUNTS, "seed": NO_SEEDS}
    ),
    "initialization.with_gaps": (
        initialization.with_gaps,
        {"hidden": HIDDEN, "rule": SignFeedbackAlignment(), "gaps": 0.1, "signs": None},
        {
            "hidden": [*NO_ARRAYS, *NOT_FINITE, 1.0, [], [1.0], torch.ones(0, 2)],
            "rule": NO_RULES,
            "gaps": [*NO_ARRAYS, *NOT_FINITE, [1.0, 2.0], torch.ones(3, 2), -10.0],
            "signs": [*(value for value in NO_ARRAYS if value is not None), *NOT_FINITE, [1.0, 2.0], 0.0, [1, 0, 1]],
        },
    ),
    "initialization.adafa": (
        initialization.adafa, {"weights": WEIGHTS}, {"weights": NO_WEIGHTS},
    ),
    **{
        f"observables.{name}": (getattr(observables, name), ALIGNED, wrong)
        for names, wrong in (
            (("accuracy", "descent_factors", "normalized_margin"), WRONG_FLOW_OR_WEIGHTS),
            (("alignment", "network_alignment", "alignment_bound", "conserved", "conserved_per_layer"), WRONG_TYPES),
        )
        for name in names
    },
    **{
        f"observables.{name} of layers": (
            getattr(observables, name), {**ALIGNED, "layers": [1]},
            {"layers": [1, "1", [0], [2], [-1], [1.0], [True], [None], 1.0, Hostile(), abs, {1}]},
        )
        for name in ("conserved", "conserved_per_layer")
    },
    "observables.dominance_ratio": (
        observables.dominance_ratio, {**ALIGNED, "alpha": 2}, {**WRONG_FLOW_OR_WEIGHTS, "alpha": NOT_POSITIVE},
    ),
    "descent.start": (descent.start, {"weights": WEIGHTS}, {"weights": NO_WEIGHTS}),
    "descent.step": (
        descent.step,
        {"flow": FLOW, "state": STATE, "eta": 0.1, "momentum": 0.5},
        {"flow": NO_FLOWS, "state": [None, WEIGHTS, descent.State, FLOW, Hostile()], "eta": NOT_POSITIVE,
         "momentum": [*NO_NUMBERS, 1.5]},
    ),
}  # fmt: skip
BAD = [(name, argument) for name, (_, _, bad) in CASES.items() for argument in bad]


@pytest.mark.parametrize("name", CASES)
def test_good_arguments_are_accepted(name: str) -> None:
    function, good, _ = CASES[name]
    function(**good)


@pytest.mark.parametrize(("name", "argument"), BAD)
def test_a_bad_argument_is_refused_in_one_line_that_names_it(name: str, argument: str) -> None:
    function, good, bad = CASES[name]
    for value in bad[argument]:
        with pytest.raises((ValueError, TypeError)) as error:
            function(**{**good, argument: value})
            pytest.fail(f"accepted {value!r}")
        message = str(error.value)
        assert "\n" not in message, f"{value!r}: {message}"
        assert re.search(rf"\b{argument}\b", message), f"{value!r}: {message}"
        assert re.search(r"\bgot\b", message), f"{value!r}: {message}"
        assert len(message) < 300, message


def test_the_table_has_every_public_function_and_class_with_arguments() -> None:
    modules = activation, data, initialization, losses, observables, descent, weights
    public = {getattr(flowsim, name) for name in flowsim.__all__}
    for module in modules:
        own = (value for name, value in vars(module).items() if not name.startswith("_"))
        public |= {value for value in own if callable(value) and value.__module__ == module.__name__}
    handed_out = {
        "GradientDescent", "Rule", "Activation", "Tanh", "Softplus",
        "Solution", "IntegrationError", "NetworkWeights", "State", "DescentFactors", "Derived",
        "require_weights", "IntegrationInterrupt", "CrawlingWarning", "Undecided",
        "load",  # files: tests/test_saving.py
        "factors_of",  # takes what a flow has found
        "smallest_share", "rounding_of_gaps",  # of tensors that their callers have checked
    }  # fmt: skip
    names = {value.__name__ for value in public if callable(value)}
    assert names - handed_out <= {name.split(".")[-1] for name in CASES}


loose: Any = flowsim
loose_flow: Any = FLOW
"""For what a type checker would notice."""

CURES: dict[str, tuple[Callable[[], Any], str]] = {
    "labels 0 and 1": (lambda: Dataset(INPUTS, [0, 1]), "labels must be -1 or +1, got 0 .* pass 2 * labels - 1"),
    "labels of bool": (lambda: Dataset(INPUTS, np.array([True, False])), "labels must .* of bool: pass 2 * labels - 1"),
    "classes of bool": (lambda: Dataset(INPUTS, [True, False], 2), "labels must .* of bool: pass 1 * labels"),
    "sparse inputs": (lambda: Dataset(INPUTS.to_sparse(), LABELS), "inputs.to_dense()"),
    "flow and weights swapped": (lambda: loose.solve(WEIGHTS, FLOW, 1.0), "got Weights: the order is flow, weights"),
    "data and rule swapped": (lambda: loose.Flow(RULE, DATASET), "got FeedbackAlignment: the order is dataset, rule"),
    "a rule's class": (lambda: loose.Flow(DATASET, GradientDescent), "GradientDescent(), .* got the class Gr"),
    "a loss's class": (lambda: loose.Flow(DATASET, RULE, Loss), "an instance of flowsim.losses.Loss, got the class"),
    "a tuple of weights": (lambda: loose.solve(FLOW, (HIDDEN, OUTPUT), 1.0), "flowsim.Weights(hidden, .* got a tuple"),
    "a torch module": (lambda: loose_flow.risk(torch.nn.Linear(2, 1)), "flowsim.Weights(hidden, .* got a Linear"),
    "observables swapped": (lambda: loose.observables.conserved(WEIGHTS, FLOW), "the order is flow, weights"),
    "trajectory of floats": (lambda: SOLUTION.evaluate([0.1], torch.zeros(1)), "use trajectory.long()"),
    "a huge integer": (lambda: loose.solve(FLOW, WEIGHTS, 10**5000), "t_final must be .* got an integer of 16610 bits"),
    "weights where a state is due": (lambda: loose.descent.step(FLOW, WEIGHTS, 0.1), "begin with start(weights)"),
    "tanh for method event": (
        lambda: loose.solve(Flow(DATASET, GradientDescent(), activation=activation.Tanh()), WEIGHTS, 1.0),
        "use method='dopri5'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CURES)
def test_the_error_says_what_to_do(case: str) -> None:
    call, message = CURES[case]
    with pytest.raises(ValueError, match=".*".join(re.escape(part) for part in message.split(" .* "))):
        call()


@pytest.mark.parametrize(
    "slope", [np.float32(0.5), np.float16(0.5), np.float64(0.5), Fraction(1, 2), torch.tensor(0.5)]
)
def test_every_real_number_is_a_slope(slope: Any) -> None:
    flow = Flow(DATASET, RULE, slope=slope)
    assert type(flow.slope) is float
    assert flow.slope == 0.5
    assert loose.Flow(DATASET, RULE, slope=np.int64(1)).slope == 1


@pytest.mark.parametrize(
    "number", [np.float32(2), np.int8(2), np.array(2.0), torch.tensor(2), Fraction(2), np.uint64(2)]
)
def test_every_real_number_is_a_time_a_tolerance_a_scale_or_a_power(number: Any) -> None:
    solution = solve(FLOW, WEIGHTS, number, rtol=number / 2**20, atol=number / 2**30)
    assert type(solution.t_final) is float
    assert solution.t_final == 2.0
    assert type(SignFeedbackAlignment(number).scale) is float
    assert losses.polynomial(number).name == "polynomial(2)"


@pytest.mark.parametrize("count", [np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_every_integer_is_a_count_and_a_seed(count: Any) -> None:
    assert torch.equal(data.orthogonally_separable(count, count, 0.1, count).inputs,
                       data.orthogonally_separable(3, 3, 0.1, 3).inputs)  # fmt: skip
    assert torch.equal(initialization.gaussian(count, count, count).hidden, initialization.gaussian(3, 3, 3).hidden)
    assert torch.equal(initialization.random_signs(count, count), initialization.random_signs(3, 3))
    assert Dataset(INPUTS, [0, 2], classes=count).classes == 3
    assert not torch.equal(initialization.random_signs(99, 2**32 - 1), initialization.random_signs(99, 2**31 - 1))


@pytest.mark.parametrize("trajectory", [[0, 0], (0, 0), np.zeros(2, dtype=np.uint8), torch.zeros(2, dtype=torch.int8)])
def test_trajectories_are_integers_in_any_container(trajectory: Any) -> None:
    for quantity in (SOLUTION.evaluate, SOLUTION.velocity):
        assert torch.equal(quantity([0.1, 0.2], trajectory).hidden, quantity([0.1, 0.2]).hidden)
    assert SOLUTION.evaluate(0.1, 0).hidden.shape == (3, 2)


@pytest.mark.parametrize("make", [tuple, list])
@pytest.mark.parametrize("convert", [torch.as_tensor, np.asarray])
def test_feedback_of_a_deep_network_is_any_sequence_of_arrays(make: Callable, convert: Callable) -> None:
    matrices = [[[1.0, 2.0, 3.0]], [[4.0]]]
    rule = FeedbackAlignment(make(convert(matrix) for matrix in matrices))
    assert [matrix.tolist() for matrix in rule.feedback] == matrices
    deep = DeepWeights((HIDDEN, torch.ones(1, 3), torch.ones(1, 1)))
    assert [matrix.tolist() for matrix in rule.feedback_matrices(deep)] == matrices


def test_feedback_of_numbers_in_a_list_is_a_vector() -> None:
    for numbers in ([1.0, 2.0], (1, 2), [np.float32(1), np.float64(2)], [torch.tensor(1.0), torch.tensor(2)]):
        feedback = FeedbackAlignment(numbers).feedback
        assert isinstance(feedback, torch.Tensor)
        assert feedback.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32, torch.uint8])
def test_numbers_of_every_type_are_taken_exactly(dtype: torch.dtype) -> None:
    values = torch.tensor([[1.0, 2.0]]).to(dtype)
    assert Dataset(values, [1]).inputs.tolist() == Weights(values, torch.ones(1)).hidden.tolist() == [[1.0, 2.0]]
    assert Dataset([values[0], values[0]], [1, 1]).inputs.tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_rows_that_require_a_gradient_are_taken() -> None:
    row = torch.ones(2, requires_grad=True)
    assert Dataset([row, 2 * row], [1, 1]).inputs.tolist() == [[1.0, 1.0], [2.0, 2.0]]


def test_weights_of_deep_networks_and_of_vector_outputs_stack() -> None:
    stacked = weights.stack([DEEP, DEEP.map(lambda layer: 2 * layer)])
    assert isinstance(stacked, DeepWeights)
    assert [tuple(layer.shape) for layer in stacked.layers] == [(2, 3, 2), (2, 1, 3)]
    assert torch.equal(stacked.layers[1][1], 2 * DEEP.layers[1])
    vector = Weights(HIDDEN, torch.ones(4, 3))
    assert loose.weights.stack(iter([vector, vector])).output.shape == (2, 4, 3)


def test_batches_that_do_not_broadcast_are_refused_by_every_question_to_a_flow() -> None:
    flow = Flow(data.stack([DATASET] * 2), RULE)
    three = weights.stack([WEIGHTS] * 3)
    for ask in (flow.risk, flow.velocity, flow.require_fit):
        with pytest.raises(ValueError, match="batch shapes of data, weights and feedback must broadcast"):
            ask(three)
