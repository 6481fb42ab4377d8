"""Conclusions that survive a broken hypothesis: hypotheses that are sufficient, not necessary (section 9).

Not verdicts: on how many trajectories the conclusion holds although a hypothesis does not, and by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
    data,
)
from flowsim.initialization import adafa, gaussian, random_signs, with_gaps
from flowsim.rules import Rule
from flowsim.weights import Weights, stack
from theorems import kernel_regime, lemma_5_4, never_obtuse, proposition_5_3, proposition_5_7
from theorems.any_start import barely_separable
from theorems.check import Statement, holds
from theorems.constants import each, gaps_not_negative, mu_separable, total_gap
from theorems.ensembles import GAP, KAPPA, SCALE, SLOPE, T_FINAL, kernel_run, solved
from theorems.guarded import reason
from theorems.hypothesis import Hypothesis, all_hold
from theorems.integrals import Rate
from theorems.measurement import Claim, measure
from theorems.theorem_5_1 import dominance_ratio_of

SAMPLES, DIMENSION, WIDTH = 6, 8, 10
NEAR_LIMIT = 0.9
"""rho: ten times gamma^2, which is what Proposition 5.7 allows, but the inputs are linearly independent."""

NEAR_GRADIENT = 0.9
"""A cosine of at least that is near. With w_ij of variance 1/d, and v_j and b_j of variance 1, that of wide networks
tends to a value between 0.125 and 0.19 at the start (section 14.10)."""


@dataclass(frozen=True)
class Finding:
    """What was found, as `python -m theorems --json` writes it; or, of 0 trajectories, the reason why nothing was."""

    statement: str
    broken: str
    conclusion: str
    survives: int
    trajectories: int
    margin: float | None
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """Claims of a statement on runs that break the hypothesis `broken`."""

    statement: str
    broken: str
    conclusion: str
    claims: Sequence[Claim]
    run: Callable[[int, str], Solution]
    hypotheses: Callable[[Solution], list[Hypothesis]]
    rate: Rate | None = None

    def answer(self, seeds: int, device: str) -> Finding:
        """On how many trajectories all claims hold.

        Raises:
            ValueError: if no hypothesis is broken.
        """
        solution = self.run(seeds, device)
        if all_hold(self.hypotheses(solution)):
            raise ValueError(f"the finding {self.statement}: {self.broken} breaks no hypothesis")
        margins = measure(self.claims, solution, self.rate)
        survives = torch.stack([holds(claim, margin) for claim, margin in zip(self.claims, margins, strict=True)])
        smallest = min(margin.margin.min().item() for margin in margins)
        return Finding(
            self.statement, self.broken, self.conclusion, int(survives.all(0).sum()), survives.shape[1], smallest
        )


SOME_MU = [Claim("<grad, fa> / L^2 > 0", "inequality", partial(dominance_ratio_of, alpha=2))]


def _mu_descent(solution: Solution) -> Tensor:
    """gamma^2 kappa (|v(0)|^2 - |W(0)|^2): under GD b = v, and |v|^2 - |W|^2 = 2 sum c_j is conserved."""
    return 2 * solution.flow.slope**2 * total_gap(solution) * each(solution, solution.flow.dataset.kappa)


def _run_with_gaps(
    dataset_of: Callable[[int], Dataset],
    gaps_of: Callable[[Tensor], Tensor | float],
    rule: str,
    seeds: int,
    device: str,
    *,
    loss: str = "exponential",
    slope: float = SLOPE,
) -> Solution:
    """As `ensembles.margin_run`, with gaps that depend on |w_j|^2 / 2."""
    dataset = data.stack([dataset_of(seed) for seed in range(seeds)])
    hidden = torch.stack([gaussian(WIDTH, DIMENSION, seed, scale=WIDTH**-0.5).hidden for seed in range(seeds)])
    signs = torch.stack([random_signs(WIDTH, seed) for seed in range(seeds)])
    gaps = gaps_of(0.5 * hidden.square().sum(-1))
    if rule == "fa":
        learning: Rule = FeedbackAlignment(signs)
        weights = with_gaps(hidden, learning, gaps)
    else:
        learning = SignFeedbackAlignment(SCALE) if rule == "sign-fa" else GradientDescent()
        weights = with_gaps(hidden, learning, gaps, signs)
    return solved(Flow(dataset, learning, loss, slope), weights, T_FINAL, device)


def _separable(seed: int) -> Dataset:
    return data.orthogonally_separable(SAMPLES, DIMENSION, KAPPA, seed)


def _boundary(seed: int) -> Dataset:
    return data.nearly_orthogonal(SAMPLES, DIMENSION, 0.0, seed)


def _not_orthogonally(seed: int) -> Dataset:
    return barely_separable(SAMPLES, DIMENSION, seed)


def _one_negative(norms: Tensor) -> Tensor:
    """c_j = GAP, but for the first neuron: b_1 v_1 = 0.9 |w_1|^2 / 2."""
    gaps = torch.full_like(norms, GAP)
    gaps[:, 0] = -0.1 * norms[:, 0]
    return gaps


def _adafa_run(seeds: int, device: str) -> Solution:
    dataset = data.stack([_not_orthogonally(seed) for seed in range(seeds)])
    weights: Weights = stack([gaussian(WIDTH, DIMENSION, seed) for seed in range(seeds)])
    return solved(Flow(dataset, adafa(weights)), weights, T_FINAL, device)


def _independent_run(width: int, seeds: int, device: str) -> Solution:
    return kernel_run(width, False, seeds, device, output=width**0.5)


def _of_paper(statement: Statement) -> list[Claim]:
    return list(statement.claims[:2])


QUESTIONS = [
    Question(
        "proposition_5_7",
        f"rho = {NEAR_LIMIT} > gamma^2 n / (n-1), inputs independent",
        "dominance with gamma^2 S(t) margin^2 (proved, section 7)",
        proposition_5_7.ANY_SEPARABLE.claims,
        partial(
            _run_with_gaps,
            lambda seed: data.nearly_orthogonal(SAMPLES, DIMENSION, NEAR_LIMIT, seed),
            lambda _: GAP,
            "fa",
        ),
        proposition_5_7.NEARLY_ORTHOGONAL.hypotheses,
        proposition_5_7.ANY_SEPARABLE.rate,
    ),
    Question(
        "proposition_5_7",
        "separable, but not orthogonally",
        "dominance with gamma^2 S(t) margin^2 (proved, section 7)",
        proposition_5_7.ANY_SEPARABLE.claims,
        partial(_run_with_gaps, _not_orthogonally, lambda _: GAP, "fa"),
        proposition_5_7.SEPARABLE.hypotheses,
        proposition_5_7.ANY_SEPARABLE.rate,
    ),
    Question(
        "proposition_5_7",
        "sign-FA, one c_j < 0 but S0 > 0",
        "the paper's mu (proved, section 7)",
        _of_paper(proposition_5_7.SEPARABLE),
        partial(_run_with_gaps, _separable, _one_negative, "sign-fa"),
        lambda solution: [gaps_not_negative(solution)],
    ),
    Question(
        "proposition_5_7",
        "FA, one c_j < 0 but S0 > 0",
        "the paper's mu",
        _of_paper(proposition_5_7.SEPARABLE),
        partial(_run_with_gaps, _separable, _one_negative, "fa"),
        proposition_5_7.SEPARABLE.hypotheses,
    ),
    Question(
        "proposition_5_7",
        "all c_j = 0, small weights",
        "dominance with some mu > 0",
        SOME_MU,
        partial(_run_with_gaps, _separable, lambda _: 0.0, "fa"),
        proposition_5_7.SEPARABLE.hypotheses,
    ),
    Question(
        "proposition_5_7",
        "gamma = 0",
        "dominance with some mu > 0",
        SOME_MU,
        partial(_run_with_gaps, _separable, lambda _: GAP, "fa", slope=0.0),
        proposition_5_7.SEPARABLE.hypotheses,
    ),
    Question(
        "proposition_5_7",
        "logistic loss",
        "the paper's mu",
        proposition_5_7.with_constant(mu_separable),
        partial(_run_with_gaps, _separable, lambda _: GAP, "fa", loss="logistic"),
        proposition_5_7.SEPARABLE.hypotheses,
    ),
    Question(
        "proposition_5_7",
        "GD",
        "dominance with gamma^2 kappa (|v(0)|^2 - |W(0)|^2)",
        proposition_5_7.with_constant(_mu_descent),
        partial(_run_with_gaps, _separable, lambda _: GAP, "gd"),
        proposition_5_7.SEPARABLE.hypotheses,
    ),
    Question(
        "lemma_5_4",
        "c_j < 0: b_j v_j(0) = 0.9 |w_j|^2 / 2",
        "signs stay, cos(v, b) >= 1 / sqrt(m)",
        lemma_5_4.STATEMENT.claims,
        partial(_run_with_gaps, _boundary, lambda norms: -0.1 * norms, "fa"),
        lemma_5_4.STATEMENT.hypotheses,
    ),
    Question(
        "never_obtuse",
        "3 outputs, c_j > 0 (no column turns obtuse to its feedback, section 14.8)",
        "no output weight changes its sign",
        [Claim("V(t) sign(V(0)) > 0", "inequality", lemma_5_4.same_sign)],
        partial(never_obtuse.aligned_run, outputs=3),
        never_obtuse.DEEP.hypotheses,
    ),
    Question(
        "proposition_5_3",
        "adaFA in the place of sign-FA",
        "cos(v, b) >= 1 / sqrt(m)",
        proposition_5_3.STATEMENT.claims,
        _adafa_run,
        proposition_5_3.STATEMENT.hypotheses,
    ),
    *(
        Question(
            "kernel_regime",
            f"B independent of v(0), entries of variance 1, m = {width}",
            f"cos(grad, fa) > {NEAR_GRADIENT}",
            [kernel_regime.angle_claim("cos", lambda run: torch.full_like(total_gap(run), NEAR_GRADIENT))],
            partial(_independent_run, width),
            kernel_regime.ANGLE.hypotheses,
        )
        for width in (16, 256)
    ),
]


@dataclass(frozen=True)
class Step:
    """A step of a proof in the paper that says excess >= 0, and numbers that meet its hypotheses."""

    statement: str
    broken: str
    conclusion: str
    excess: Callable[[], float]

    def answer(self, seeds: int, device: str) -> Finding:
        """Whether the step holds for the numbers, whatever the seeds and the device."""
        excess = self.excess()
        return Finding(self.statement, self.broken, self.conclusion, int(excess >= 0), 1, excess)


STEP_SLOPE, STEP_RHO, STEP_SHARES = 0.3, 0.08, (0.01, 0.99)
"""A neuron that is active for a sample of share 0.01 and inactive for the other; rho is below gamma^2 n / (n-1)."""


def excess_of_the_papers_step() -> float:
    """sum_ik p_i p_k sigma_i sigma_k M_ik - gamma^2 sum_ik p_i p_k M_ik for slopes sigma = (1, gamma) (section 7)."""
    off = -STEP_RHO / 2
    M = torch.tensor([[1.0, off], [off, 1.0]], dtype=torch.float64)
    p, sigma = torch.tensor([STEP_SHARES, (1.0, STEP_SLOPE)], dtype=torch.float64)
    return ((sigma * p) @ M @ (sigma * p) - STEP_SLOPE**2 * (p @ M @ p)).item()


STEPS = [
    Step(
        "proposition_5_7",
        f"none: the paper's proof for nearly orthogonal data, rho = {STEP_RHO} (the statement is true, section 7)",
        "gamma^2 may be taken out of a sum with negative terms",
        excess_of_the_papers_step,
    )
]


def questions(names: Collection[str]) -> list[Question | Step]:
    """Those about the named statements, and about the steps of their proofs."""
    return [question for question in (*QUESTIONS, *STEPS) if question.statement in names]


def answered(question: Question | Step, seeds: int, device: str) -> Finding:
    """The answer to a question, or the reason why it has none: it may not cost the verdicts, nor other answers."""
    try:
        return question.answer(seeds, device)
    except Exception as stop:
        return unanswered(question, reason(stop))


def unanswered(question: Question | Step, why: dict[str, str]) -> Finding:
    """A question without an answer."""
    return Finding(question.statement, question.broken, question.conclusion, 0, 0, None, why)
