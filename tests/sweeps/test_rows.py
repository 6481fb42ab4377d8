"""Rows: what they say of a trajectory is what its solution says, and one that fails has its rows, too."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flowsim import FeedbackAlignment, GradientDescent, observables, solve
from flowsim.sweeps import problem_of
from flowsim.sweeps.columns import OBSERVABLES
from flowsim.sweeps.grid import Grid
from flowsim.sweeps.keys import grid_of
from flowsim.sweeps.rows import failed_part, solved_part

KEYS = {
    "samples": 5, "dimension": 4, "kappa": 0.1, "width": [4, [3, 2]], "rule": ["fa", "sign-fa"], "seeds": 3,
    "t_final": 5.0, "times": 4, "observables": list(OBSERVABLES), "alpha": 1.5, "scale": [0.7, 1.2],
}  # fmt: skip


def table(grid: Grid, number: int) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(solved_part(grid, number).content))


def test_rows_hold_what_is_observed_along_each_trajectory_solved_by_itself() -> None:
    """The norms and the margin are written out here."""
    grid = grid_of(KEYS)
    for number in range(grid.chunks):
        rows = table(grid, number)
        for trajectory in rows.trajectory.unique()[[0, -1]]:
            own = rows[rows.trajectory == trajectory].reset_index(drop=True)
            flow, weights = problem_of(KEYS, trajectory)
            solution = solve(flow, weights, 5.0)
            at = solution.evaluate(own.time.tolist())
            outputs = flow.outputs(at).squeeze(-1)
            size = torch.stack([layer.square().sum((-2, -1)) for layer in at.layers]).sum(0).sqrt()
            factors = observables.descent_factors(flow, at)
            expected: dict[str, Any] = {
                "loss": (-outputs * flow.dataset.labels).exp().mean(-1),
                "margin": (outputs * flow.dataset.labels).amin(-1) / size ** len(at.layers),
                "accuracy": (outputs * flow.dataset.labels > 0).double().mean(-1),
                "gradient_norm": factors.gradient_norm,
                "update_norm": factors.update_norm,
                "descent_cosine": factors.cosine,
                "dominance_ratio": factors.product / flow.risk(at) ** 1.5,
                "network_alignment": observables.network_alignment(flow, at),
            }
            expected["log_loss"] = expected["loss"].log()
            for layer, cosine in enumerate(observables.alignment(flow, at), start=2):
                expected[f"alignment_{layer}"] = cosine
            for layer, values in enumerate(observables.conserved(flow, at), start=1):
                expected[f"conserved_deviation_{layer}"] = (values - values[0]).abs().amax(-1)
            for name, values in expected.items():
                found = torch.tensor(own[name].tolist(), dtype=torch.float64)
                torch.testing.assert_close(found, values, rtol=1e-9, atol=1e-12, msg=name)
            if len(at.layers) == 2:
                assert own.alignment_3.isna().all() and own.conserved_deviation_2.isna().all()


def test_feedback_is_its_own_under_fa_and_the_weights_under_adafa() -> None:
    keys = {**KEYS, "rule": ["fa", "adafa", "gd"], "width": [4], "seeds": 1, "scale": 1.0, "times": [0.0]}
    grid = grid_of({**keys, "observables": "alignment"})
    cosines = [table(grid, number).alignment_2.item() for number in range(3)]
    assert abs(cosines[0]) < 0.95
    assert cosines[1:] == pytest.approx([1.0, 1.0])
    flows = [problem_of(keys, number) for number in range(3)]
    assert isinstance(flows[0].flow.rule, FeedbackAlignment) and isinstance(flows[2].flow.rule, GradientDescent)
    assert all(torch.equal(flows[0].weights.layers[0], each.weights.layers[0]) for each in flows)


def test_gaps_are_those_of_the_grid() -> None:
    keys = {**KEYS, "width": [4], "rule": ["fa", "sign-fa", "gd"], "gap": [0.05, 0.3]}
    grid = grid_of(keys)
    for number in range(grid.trajectories):
        flow, weights = problem_of(keys, number)
        gap = grid.trajectory(number)[1].gap
        (values,) = observables.conserved(flow, weights)
        assert gap is not None
        torch.testing.assert_close(values, torch.full_like(values, gap))


def test_a_trajectory_that_stops_has_values_up_to_there_and_says_why() -> None:
    """Logarithmic spacing puts times on both sides of the overflow."""
    keys = {**KEYS, "data": "gaussian", "dimension": 1, "samples": 4, "rule": "fa", "width": [3], "scale": 1.0}
    del keys["kappa"]
    grid = grid_of({**keys, "t_final": 1e9, "times": 12, "seeds": 20, "observables": ["loss"]})
    part = solved_part(grid, 0)
    rows = pd.read_parquet(io.BytesIO(part.content))
    stopped = rows[rows.status == "stopped"]
    assert part.status["stopped"] * 12 == len(stopped) > 0
    assert stopped.reason.notna().all() and part.reasons["stopped"] == stopped.reason.iloc[0]
    assert (stopped.loss.notna() == (stopped.time <= stopped.reached)).all()
    assert (stopped.groupby("trajectory").time.max() == 1e9).all()
    ended = rows[rows.status == "ended"]
    assert len(ended) and ended.loss.notna().all() and ended.reason.isna().all()
    at_end = table(grid_of({**keys, "t_final": 1e9, "times": None, "seeds": 20}), 0)
    assert (at_end.time == at_end.reached).all() and at_end.loss.notna().all()
    assert at_end.reached.tolist() == rows.groupby("trajectory").reached.first().tolist()


def test_a_trajectory_that_there_is_no_start_for_is_refused_and_the_others_are_not() -> None:
    """sign-FA has no gap below -|w_j|^2 / 2, which is a matter of the seed."""
    keys = {**KEYS, "width": [2], "rule": ["sign-fa"], "gap": -0.2, "scale": 1.0, "seeds": 20}
    part = solved_part(grid_of(keys), 0)
    rows = pd.read_parquet(io.BytesIO(part.content)).drop_duplicates("trajectory")
    assert set(part.status) == {"refused", "ended"}
    refused = rows[rows.status == "refused"]
    assert refused.reason.str.match("gaps must be at least").all() and refused.reached.isna().all()
    assert rows[rows.status == "ended"].loss.notna().all()
    every = solved_part(grid_of({**keys, "gap": -100.0}), 0)
    assert every.status == {"refused": 20}


def test_chunks_that_fail_have_the_same_columns() -> None:
    grid = grid_of(KEYS)
    failed = pd.read_parquet(io.BytesIO(failed_part(grid, 0, "its process died").content))
    rows = table(grid, 0)
    assert failed.dtypes.to_dict() == rows.dtypes.to_dict()
    for name in ["trajectory", "data", "width", "rule", "loss_function", "scale", "seed", "time"]:
        assert failed[name].tolist() == rows[name].tolist()
    assert (failed.status == "failed").all() and (failed.reason == "its process died").all()
    assert failed.loss.isna().all() and failed.reached.isna().all()


def test_classes_have_a_margin_of_the_right_output_over_the_others(tmp_path: Any) -> None:
    inputs = np.random.default_rng(0).standard_normal((6, 3))
    np.savez(tmp_path / "own.npz", inputs=inputs, labels=np.arange(6.0) % 3, classes=3)
    keys = {"data": str(tmp_path / "own.npz"), "loss": "cross-entropy", "width": 4, "t_final": 3.0, "rule": "gd"}
    rows = table(grid_of({**keys, "observables": ["margin", "accuracy"], "seeds": 2}), 0)
    flow, weights = problem_of(keys, 0)
    at = solve(flow, weights, 3.0).evaluate(3.0)
    outputs = flow.outputs(at)
    others = [max(row[k] for k in range(3) if k != i % 3) for i, row in enumerate(outputs.tolist())]
    own = [row[i % 3] for i, row in enumerate(outputs.tolist())]
    size = sum(layer.square().sum().item() for layer in at.layers) ** 0.5
    assert rows.margin[0] == pytest.approx(min(a - b for a, b in zip(own, others, strict=True)) / size**2)
