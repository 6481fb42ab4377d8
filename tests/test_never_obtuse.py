"""Columns and their feedback, and deep networks: starts with given gaps, the edge of the bound, planted mistakes."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from flowsim import DeepWeights, FeedbackAlignment, Solution
from flowsim.initialization import deep_gaussian
from flowsim.observables import conserved
from theorems import ensembles, lemma_5_4, never_obtuse
from theorems.check import Statement, check, hypotheses_of
from theorems.measurement import Claim
from theorems.never_obtuse import COLUMNS, DEEP, aligned_run, with_column_gaps


def broken(statement: Statement, solution: Solution) -> set[str]:
    return {item.name for item in hypotheses_of(statement, solution) if not item.holds}


@pytest.mark.parametrize(("first", "layers"), [(0, [0, 1, 2]), (1, [1, 2]), (2, [2])])
def test_columns_are_given_their_gaps_from_a_layer_on_and_keep_what_is_across_the_feedback(
    first: int, layers: list[int]
) -> None:
    before, feedback = deep_gaussian((5, 4, 6, 3, 2), 0).layers, deep_gaussian((5, 4, 6, 3, 2), 1).layers[1:]
    after = with_column_gaps(before, feedback, 0.7, first)
    flow = ensembles.any_problem("fa", 1, ensembles.DEEP, "logistic", None, 1)[0]
    flow = replace(flow, rule=FeedbackAlignment(feedback))
    for layer, gaps in enumerate(conserved(flow, DeepWeights(after))):
        assert torch.allclose(gaps, torch.full_like(gaps, 0.7), atol=1e-13) == (layer in layers)
    for old, new, matrix in zip(before[1:], after[1:], feedback, strict=True):
        moved = new - old
        along = matrix * ((moved * matrix).sum(-2) / matrix.square().sum(-2))
        torch.testing.assert_close(moved, along, rtol=0, atol=1e-13)


def test_columns_gain_half_of_what_the_squared_norms_of_rows_gain() -> None:
    """<W_{l+1}[:, j], B[:, j]> = c_j + |w_j|^2 / 2 at the end of a run, by hand."""
    solution = aligned_run(1, "cpu", outputs=3, hidden_layers=2)
    end, feedback = solution.evaluate(solution.t_final).layers, solution.flow.rule.feedback_matrices(solution.start)
    for below, above, matrix in zip(end[:-1], end[1:], feedback, strict=True):
        products = (above * matrix).sum(-2)
        torch.testing.assert_close(products, 0.05 + 0.5 * below.square().sum(-1), rtol=1e-9, atol=0)
        assert (products > 0).all()


def verdict(share: float) -> str:
    claim = Claim("x", "inequality", partial(never_obtuse.columns, share=share))
    tight = aligned_run(1, "cpu", outputs=3, scale=0.01, t_final=0.01)
    return check(replace(COLUMNS, claims=[claim]), "x", "theorem", [tight]).verdict


def test_a_gap_that_is_a_percent_too_large_is_noticed() -> None:
    assert [verdict(share) for share in (-1.0, 0.0, 1.0, 1.01)] == ["holds", "holds", "holds", "violated"]


def test_the_bound_of_the_cosine_is_that_of_the_last_feedback() -> None:
    solution = aligned_run(1, "cpu", hidden_layers=2, first=1)
    b = solution.flow.rule.feedback_matrices(solution.start)[-1].flatten()
    torch.testing.assert_close(lemma_5_4.bound(solution)[0], b.abs().min() / b.norm())
    assert check(DEEP, "x", "theorem", [solution]).verdict == "holds"


def test_hypotheses_notice_their_breach() -> None:
    last = aligned_run(1, "cpu", hidden_layers=2, first=1)
    assert broken(DEEP, last) == set()
    assert broken(COLUMNS, last) == {"c_j >= 0"}
    assert broken(lemma_5_4.STATEMENT, last) == {"two layers, scalar output"}
    assert broken(DEEP, aligned_run(1, "cpu", outputs=3)) == {"scalar output"}
    assert broken(COLUMNS, aligned_run(1, "cpu", outputs=3)) == set()
    assert broken(COLUMNS, ensembles.any_run("gd", 1, "cpu", loss="exponential")) == {"rule is FeedbackAlignment"}


def test_with_three_outputs_entries_change_their_sign_and_no_column_turns_obtuse() -> None:
    solution = aligned_run(1, "cpu", outputs=3)
    times = torch.linspace(0, solution.t_final, 200, dtype=torch.float64)
    output = solution.evaluate(times).layers[-1][:, 0]
    matrix = solution.flow.rule.feedback_matrices(solution.start)[-1][0]
    assert (output * output[0].sign()).min() < -0.01
    assert (output * matrix).sum(-2).min() > 0
