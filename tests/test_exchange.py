"""Datasets of solutions: what they hold, bit for bit what evaluates to it, on disk and back."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from sample_problems import gaussian_data, separable

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
    solve,
)
from flowsim.activation import Tanh
from flowsim.initialization import deep_gaussian

TIMES = [0.0, 0.3, 1.0, 2.0]


def deep(rule: str) -> Solution:
    """Three layers of widths 4, 3, and one output."""
    shape = (2, 4, 3, 1)
    flows = {
        "fa": FeedbackAlignment(deep_gaussian(shape, 1).layers[1:]),
        "direct": DirectFeedbackAlignment((torch.ones(1, 4), torch.ones(1, 3))),
    }
    dataset = Dataset([[1.0, 0.2], [-0.3, 1.0], [0.4, 0.4]], [1, -1, 1])
    return solve(Flow(dataset, flows[rule]), deep_gaussian(shape, 0), 2.0)


def stopping() -> Solution:
    """Shape (2, 2): trajectory (0, 1) falls without end from y f = -300 and stops on its way; the others go on."""
    inputs = torch.ones(2, 2, 1, 1, dtype=torch.float64)
    output = torch.tensor([[[1.0], [-75.0]], [[0.5], [0.7]]])
    flow = Flow(Dataset(inputs, torch.ones(2, 2, 1)), FeedbackAlignment([1.0]))
    return solve(flow, Weights(torch.ones(2, 2, 1, 1), output), 2.0, throw=False)


@pytest.fixture(scope="module")
def ensemble() -> Solution:
    return solve(*separable(3), 2.0)


def test_every_number_is_that_of_a_trajectory_alone_by_the_formulas(ensemble: Solution) -> None:
    dataset = ensemble.to_xarray(TIMES)
    assert dataset.time.values.tolist() == TIMES
    inputs, labels = ensemble.flow.dataset.inputs.numpy(), ensemble.flow.dataset.labels.numpy()
    for seed in range(3):
        for time in TIMES:
            at = dataset.sel(time=time, batch_0=seed)
            weights = ensemble[seed].evaluate(time)
            hidden, output = weights.hidden.numpy(), weights.output.numpy()
            b = ensemble.flow.rule.feedback_matrices(ensemble.weights)[0][seed, 0].numpy()
            assert np.array_equal(at.hidden, hidden) and np.array_equal(at.output, output)
            z = np.einsum("nd,md->nm", inputs[seed], hidden)
            f = np.where(z > 0, z, 0.3 * z) @ output
            assert at.loss.item() == pytest.approx(np.exp(-labels[seed] * f).mean(), rel=1e-13)
            assert np.allclose(at.conserved, b * output - (hidden**2).sum(1) / 2, rtol=0, atol=1e-14)
            assert at.alignment.item() == pytest.approx(output @ b / np.sqrt((output @ output) * (b @ b)), rel=1e-13)
            off_kinks = np.abs(z) > 1e-9
            assert off_kinks.sum() > 0.8 * z.size
            assert np.array_equal(at.pattern.values[off_kinks], np.sign(z)[off_kinks])


def test_dimensions_have_names_and_numbers(ensemble: Solution) -> None:
    dataset = ensemble.to_xarray(TIMES, batch=["seed"])
    assert dict(dataset.sizes) == {"time": 4, "seed": 3, "neuron": 3, "input": 6, "sample": 4}
    assert dataset.hidden.dims == ("time", "seed", "neuron", "input")
    assert dataset.pattern.dims == ("time", "seed", "sample", "neuron") and dataset.pattern.dtype == np.int8
    assert all(
        dataset[name].values.tolist() == list(range(dataset.sizes[name])) for name in dataset.sizes if name != "time"
    )
    assert all(dataset[name].attrs["long_name"] for name in dataset.data_vars)
    assert {dataset[name].attrs["units"] for name in ["time", *dataset.data_vars]} == {"1"}
    assert solve(*separable(1), 0.1)[0].to_xarray([0.1]).loss.dims == ("time",)


def test_attributes_say_what_was_solved_and_how() -> None:
    flow, weights = gaussian_data("sign-fa", 2, samples=4, dimension=3, width=3, loss="logistic")
    solution = solve(
        Flow(flow.dataset, SignFeedbackAlignment(0.5), "logistic", 0.2, decay=0.1), weights, 1.0, rtol=1e-9
    )
    assert solution.to_xarray([1.0]).attrs == {
        "title": "Flow of a learning rule", "flowsim_version": flowsim.__version__,
        "rule": "SignFeedbackAlignment", "scale": 0.5, "loss": "logistic", "slope": 0.2, "decay": 0.1,
        "method": "event", "rtol": 1e-9, "atol": 1e-12, "max_steps": 100_000, "t_final": 1.0,
    }  # fmt: skip
    smooth = Flow(flow.dataset, GradientDescent(), activation=Tanh())
    attributes = solve(smooth, weights, 0.1, method="dopri5").to_xarray([0.1]).attrs
    assert attributes["activation"] == "Tanh()" and "slope" not in attributes and attributes["method"] == "dopri5"


def test_deep_networks_have_a_variable_for_each_layer() -> None:
    solution = deep("fa")
    dataset = solution.to_xarray(TIMES)
    assert dataset.layer_1.dims == ("time", "neuron_1", "input")
    assert dataset.layer_2.dims == ("time", "neuron_2", "neuron_1")
    assert dataset.layer_3.dims == ("time", "output_neuron", "neuron_2")
    assert dataset.pattern_2.dims == ("time", "sample", "neuron_2")
    first, second, third = (dataset[f"layer_{number}"].values for number in (1, 2, 3))
    assert all(
        np.array_equal(found, layer)
        for found, layer in zip((first, second, third), solution.evaluate(TIMES).layers, strict=True)
    )
    below, above = (matrix.numpy() for matrix in solution.flow.rule.feedback_matrices(solution.weights))
    assert np.allclose(dataset.conserved_1, (second * below).sum(1) - (first**2).sum(2) / 2, rtol=0, atol=1e-13)
    assert np.allclose(dataset.conserved_2, (third * above).sum(1) - (second**2).sum(2) / 2, rtol=0, atol=1e-13)
    forward = np.concatenate([second.reshape(4, -1), third.reshape(4, -1)], 1)
    feedback = np.concatenate([below.ravel(), above.ravel()])
    cosine = forward @ feedback / np.linalg.norm(forward, axis=1) / np.linalg.norm(feedback)
    assert np.allclose(dataset.alignment, cosine, rtol=1e-13)


def test_what_a_rule_does_not_have_is_left_out() -> None:
    dataset = deep("direct").to_xarray(TIMES)
    assert {"conserved_2", "layer_1", "loss"} <= set(dataset)
    assert not {"conserved_1", "alignment"} & set(dataset)


def test_several_outputs_have_a_dimension() -> None:
    data = Dataset([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], [0, 1, 2], classes=3)
    flow = Flow(data, GradientDescent(), "cross-entropy")
    weights = Weights(torch.tensor([[1.0, 0.1], [0.2, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.2]]))
    assert solve(flow, weights, 1.0).to_xarray([1.0]).output.dims == ("time", "output_neuron", "neuron")


def test_beyond_where_a_trajectory_stopped_there_is_nan_and_nowhere_else() -> None:
    solution = stopping()
    (stopped,) = solution.status.time[~solution.status.ended].tolist()
    assert 0 < stopped < 1.0
    times = [0.0, stopped / 2, stopped, 1.0, 2.0]
    dataset = solution.to_xarray(times, batch=["row", "column"])
    assert np.array_equal(dataset.reached, solution.status.time)
    for name in ("loss", "alignment", "hidden", "output", "conserved", "pattern"):
        values = dataset[name].transpose("row", "column", "time", ...).values.reshape(4, 5, -1)
        missing = np.isnan(values).any(-1)
        assert np.array_equal(missing, np.isnan(values).all(-1))
        assert missing.tolist() == [[False] * 5, [False] * 3 + [True] * 2, [False] * 5, [False] * 5], name
    alone = solution[0, 1].evaluate(times[:3])
    assert np.array_equal(dataset.hidden.sel(row=0, column=1)[:3], alone.hidden)
    with pytest.raises(ValueError, match=r"^times must lie in \[0, t_final\] = \[0, 2.0\], got 2.5$"):
        solution.to_xarray([2.5])


def test_logarithmic_time_is_called_so_and_has_the_logarithm_of_a_loss_below_all_numbers() -> None:
    """One sample, W = v = 1, gamma = 1 under FA: L is near 1/t, so that log L is near -s."""
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    solution = solve(flow, Weights(torch.ones(1, 1), torch.tensor([0.5])), 2000.0, time="log")
    dataset = solution.to_xarray([0.0, 1000.0, 2000.0])
    assert dataset.log_loss.dims == ("log_time",) and "time" not in dataset.coords and "loss" not in dataset
    assert dataset.log_time.attrs["long_name"] == "s = log(1 + t)"
    assert dataset.attrs["s_final"] == 2000.0
    log_loss = dataset.log_loss.values
    assert log_loss[0] == pytest.approx(-0.5, rel=1e-15)
    assert math.exp(log_loss[2]) == 0 and np.allclose(log_loss[1:], [-1000, -2000], rtol=0.02)


@pytest.mark.parametrize("kind", ["nc", "zarr"])
@pytest.mark.parametrize("case", ["ensemble", "deep", "stopping", "log"])
def test_what_is_written_is_read_bit_for_bit(case: str, kind: str, ensemble: Solution, tmp_path: Path) -> None:
    solutions = {
        "ensemble": lambda: ensemble,
        "deep": lambda: deep("direct"),
        "stopping": stopping,
        "log": lambda: solve(*separable(2), 2.0, time="log"),
    }
    dataset, path = solutions[case]().to_xarray(TIMES), tmp_path / f"run.{kind}"
    if kind == "nc":
        dataset.to_netcdf(path)
        read = xr.load_dataset(path)
    else:
        dataset.to_zarr(path, consolidated=False)
        read = xr.load_dataset(path, engine="zarr", consolidated=False)
    xr.testing.assert_identical(read, dataset)
    assert list(read.attrs) == list(dataset.attrs)
    for name in dataset.variables:
        assert read[name].dtype == dataset[name].dtype
        assert read[name].values.tobytes() == dataset[name].values.tobytes()
        assert read[name].attrs == dataset[name].attrs


def test_float32_times_go_up_to_the_end() -> None:
    solution = solve(*separable(1), 0.1)
    dataset = solution.to_xarray(torch.linspace(0, 0.1, 5))
    assert dataset.time.values[-1] == 0.1 and not np.isnan(dataset.loss).any()


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ("seed", r"batch must be a list of names, as \['seed'\], got 'seed'"),
        ([1], r"batch must be a list of names, as \['seed'\], got \[1\]"),
        (["a", "b"], r"batch must name each of the 1 dimensions of the ensemble \(3,\), got \['a', 'b'\]"),
        (["loss"], r"batch must have names that nothing else has, got 'loss': choose another"),
        (["neuron"], r"batch must have names that nothing else has, got 'neuron': choose another"),
        (["time"], r"batch must have names that nothing else has, got 'time': choose another"),
    ],
)
def test_names_that_do_not_fit(batch: list[str], said: str, ensemble: Solution) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        ensemble.to_xarray(TIMES, batch=batch)


def test_one_name_for_two_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^batch must have names that nothing else has, got 'a': choose another$"):
        stopping().to_xarray([0.0], batch=["a", "a"])


def test_times_are_a_list(ensemble: Solution) -> None:
    with pytest.raises(ValueError, match=r"^times must be a list of times, got shape \(\): put it in brackets$"):
        ensemble.to_xarray(1.0)
