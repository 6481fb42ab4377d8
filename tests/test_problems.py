"""Starts of flows: what a file has, what is made up and by which formula, and what does not go together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flowsim import DeepWeights, FeedbackAlignment, Weights
from flowsim.observables import conserved
from flowsim.problems import Init, made_up, problem, read_source

ROWS = "a,b,label\n1,0.1,1\n0.3,1,1\n-1,-0.3,-1\n"


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text(ROWS)
    Path("three.csv").write_text("a,b,label\n1,0.1,x\n0.3,1,y\n-1,-0.3,z\n")


@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
@pytest.mark.parametrize("gap", [0.05, 0.7])
def test_gaps_are_the_conserved_quantities_of_each_rule(rule: str, gap: float) -> None:
    flow, weights = problem(read_source("data.csv"), rule, "logistic", 0.4, Init("gaps", (6,), 3, 0.5, gap))
    hidden, output = (tensor.numpy() for tensor in weights.tensors.values())
    assert set(np.sign(output)) == {-1.0, 1.0}
    feedback = {"gd": output / 2, "fa": np.sign(output), "sign-fa": np.sign(output)}[rule]
    np.testing.assert_allclose(feedback * output - 0.5 * (hidden**2).sum(1), gap, rtol=1e-14)
    np.testing.assert_allclose(conserved(flow, weights)[0].numpy(), gap, rtol=1e-14)
    assert (flow.loss, flow.slope) == ("logistic", 0.4)


def test_gaussian_weights_have_the_variance_of_their_fan_in_and_feedback_of_its_own() -> None:
    inputs = np.ones((2, 400))
    np.savez("wide.npz", inputs=inputs, labels=[1, -1])
    flow, weights = problem(read_source("wide.npz"), "fa", "exponential", 0.3, Init("gaussian", (300,), 0, 2.0))
    assert isinstance(weights, Weights) and isinstance(flow.rule, FeedbackAlignment)
    assert isinstance(flow.rule.feedback, torch.Tensor)
    # 300 and 120000 numbers: standard deviations within 5 standard errors
    for tensor, fan_in in [(weights.hidden, 400), (weights.output, 300), (flow.rule.feedback, 300)]:
        expected, error = 2 / fan_in**0.5, (2 * tensor.numel()) ** -0.5
        assert tensor.std().item() == pytest.approx(expected, rel=5 * error)
    correlation = torch.corrcoef(torch.stack([weights.output, flow.rule.feedback]))[0, 1]
    assert abs(correlation) < 5 / 300**0.5


def test_several_widths_and_classes_have_the_shapes_asked_for() -> None:
    source = read_source("three.csv")
    _, two = problem(source, "fa", "cross-entropy", 0.3, Init("gaussian", (5,)))
    assert [tuple(layer.shape) for layer in two.layers] == [(5, 2), (3, 5)]
    flow, deep = problem(source, "fa", "cross-entropy", 0.3, Init("gaussian", (5, 4)))
    assert isinstance(deep, DeepWeights)
    assert [tuple(layer.shape) for layer in deep.layers] == [(5, 2), (4, 5), (3, 4)]
    assert [tuple(matrix.shape) for matrix in flow.rule.feedback_matrices(deep)] == [(4, 5), (3, 4)]


def test_standardized_columns_have_mean_0_and_variance_1_and_unlike_ones_are_said() -> None:
    Path("sizes.csv").write_text("a,b,c,label\n1,2000,7,x\n3,1000,7,y\n8,6000,7,x\n")
    source = read_source("sizes.csv")
    assert source.said.startswith("label: x is -1, y is +1; the largest column of the inputs is ")
    assert source.said.endswith(": --standardize makes them alike")
    alike = read_source("sizes.csv", standardize=True)
    table = np.array([[1.0, 2000.0], [3.0, 1000.0], [8.0, 6000.0]])
    expected = (table - table.mean(0)) / table.std(0)
    np.testing.assert_allclose(alike.dataset.inputs[:, :2], expected, rtol=1e-14)
    assert (alike.dataset.inputs[:, 2] == 0).all()
    assert alike.said == "label: x is -1, y is +1"
    assert "largest" not in read_source("data.csv").said


def test_adafa_starts_with_its_weights_as_feedback_and_seeds_decide_all() -> None:
    source = read_source("data.csv")
    flow, weights = problem(source, "adafa", "exponential", 0.3, Init("gaussian", (5,), 1))
    assert torch.equal(flow.rule.feedback_matrices(weights)[0], weights.layers[1])
    again = problem(source, "adafa", "exponential", 0.3, Init("gaussian", (5,), 1))[1]
    other = problem(source, "adafa", "exponential", 0.3, Init("gaussian", (5,), 2))[1]
    assert torch.equal(again.layers[0], weights.layers[0])
    assert not torch.equal(other.layers[0], weights.layers[0])


@pytest.mark.parametrize(
    ("file", "rule", "init", "message"),
    [
        ("data.csv", "fa", None, "data.csv has no weights to start from, the keys hidden and output"),
        ("data.csv", "fa", Init("gaps", (3, 3)), "--init gaps is for one hidden layer, got 2 widths"),
        ("three.csv", "fa", Init("gaps", (3,)), "--init gaps is for labels of two values, got 3 classes"),
        ("data.csv", "adafa", Init("gaps", (3,)), "--init gaps is not for --rule adafa"),
        ("data.csv", "gd", Init("gaps", (3,), gap=-9.0), "gaps must be at least"),
        ("own.npz", "fa", Init("gaps", (3,)), "--init makes up weights, but own.npz has the keys hidden and output"),
        ("own.npz", "fa", None, "own.npz lacks the key 'feedback' (m), which --rule fa needs: add it"),
        ("half.npz", "gd", None, "half.npz lacks the key 'output'"),
    ],
)
def test_what_does_not_go_together_is_refused(file: str, rule: str, init: Init | None, message: str) -> None:
    data = {"inputs": np.eye(2), "labels": [1, -1], "hidden": np.ones((3, 2))}
    np.savez("own.npz", **data, output=np.ones(3))  # type: ignore[arg-type]
    np.savez("half.npz", **data)  # type: ignore[arg-type]
    with pytest.raises(ValueError) as caught:
        problem(read_source(file), rule, "exponential", 0.3, init)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_label_for_a_file_that_is_no_table_is_named_as_the_option_that_it_is() -> None:
    np.savez("own.npz", inputs=np.eye(2), labels=[1, -1])
    with pytest.raises(ValueError, match=r"^--label is for \.csv and \.parquet, got 'kind' for own\.npz"):
        read_source("own.npz", "kind")


def test_what_is_made_up_is_said() -> None:
    said = made_up(Init("gaussian", (8, 4), 1), "gd")
    assert said == "start: gaussian, widths 8, 4, seed 1, scale 1"
    assert made_up(Init("gaussian", (8,)), "fa").endswith("scale 1, feedback Gaussian")
