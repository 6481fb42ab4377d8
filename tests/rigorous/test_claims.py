"""How claims are decided: by the whole of [0, T], by ends of intervals, and at margins that floats do not see."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from flint import arb, ctx

from flowsim.enclosure.points import Point, descent_product, risk
from theorems.check import DoesNotApplyError
from theorems.rigorous import lemma_5_4, proposition_5_7
from theorems.rigorous.alignment import cosine_at_least
from theorems.rigorous.claims import EnclosedRun, Hypothesis, Nonnegative, dominance_ratio, excess_over, mean_rate
from theorems.rigorous.ensembles import margin_instance, tight_instance, with_gaps, wrong_signs
from theorems.rigorous.equality import Equal
from theorems.rigorous.statement import Case, check

RUN = EnclosedRun(margin_instance("separable", "FA", 0, samples=2, width=2, t_final=2), 128)


def time_less(constant: Fraction) -> Any:
    """T - t, less a constant: its infimum sits at the end."""
    return lambda point: 2 - point.time - arb(constant.numerator) / constant.denominator


@pytest.mark.parametrize(
    ("constant", "verdict"),
    [(Fraction(-1, 10**20), "proved"), (Fraction(1, 10**20), "refuted"), (Fraction(1), "refuted")],
)
def test_the_sign_of_the_smallest_value_over_the_whole_run_decides(constant: Fraction, verdict: str) -> None:
    """At the start the observable is about 2, or 1."""
    found = Nonnegative("claim", [time_less(constant)]).decide(RUN)
    assert found.verdict == verdict
    assert Fraction(found.value[0]) <= -constant <= Fraction(found.value[1])
    assert Fraction(found.time[0]) <= 2 <= Fraction(found.time[1])


def test_an_interval_with_0_in_it_is_undecided() -> None:
    found = Nonnegative("claim", [lambda point: 2 - point.time + arb(0, 1e-30)]).decide(RUN)
    assert found.verdict == "undecided"
    assert Fraction(found.value[0]) < 0 < Fraction(found.value[1])


def test_the_worst_part_decides() -> None:
    parts = [time_less(Fraction(constant)) for constant in (-3, 1, -2, 0)]
    found = Nonnegative("claim", parts).decide(RUN)
    assert (found.verdict, found.part) == ("refuted", 1)


def test_parts_that_share_the_smallest_value_are_all_looked_at() -> None:
    """Neither may be dropped by the bound of the other."""
    parts = [risk, lambda point: risk(point) * 1]
    alone = Nonnegative("claim", parts[:1]).decide(RUN)
    assert Nonnegative("claim", parts).decide(RUN).value == alone.value


def test_the_part_with_the_least_bound_need_not_be_the_least() -> None:
    """Over whole steps balls say less of the first than of the second."""

    def wide(point: Point[Any]) -> Any:
        return 20 * (risk(point) - risk(point)) + 1

    found = Nonnegative("claim", [wide, lambda point: 0 * point.time + arb(0.75)]).decide(RUN)
    assert RUN.lower_bounds([wide])[0] < 0.5
    assert (found.part, found.value) == (1, ("7.5e-1", "7.5e-1"))


@pytest.mark.parametrize("alpha", [1, 2])
def test_the_mean_of_the_dominance_ratio_starts_as_the_ratio_and_is_its_integral(alpha: int) -> None:
    with ctx.workprec(128):
        step = RUN.enclosure.steps[0]
        at_start = RUN.at_start(mean_rate(RUN, alpha))
        assert at_start.overlaps(RUN.at_start(dominance_ratio(alpha)))
        mean, ratio = mean_rate(RUN, alpha), dominance_ratio(alpha)
        end = step.length.mid() / 2
        integral, pieces = arb(0), 64
        for k in range(pieces):  # the midpoint rule
            integral += ratio(RUN.enclosure.at(end * (2 * k + 1) / (2 * pieces))) / pieces
        assert abs(mean(RUN.enclosure.at(end)) - integral) < 1e-4 * integral


def test_the_mean_is_at_most_the_infimum_of_the_ratio_away() -> None:
    """A mean is not below the smallest value: also in the step at whose start it is 0 / 0."""
    ratio, mean = RUN.infimum(dominance_ratio(2)), RUN.infimum(mean_rate(RUN, 2))
    assert not mean.upper < ratio.lower


def test_a_margin_of_1e_23_is_proved_and_floats_see_none() -> None:
    """Prop. 5.7 on an instance that attains its constant: the margin is 1.4e-23 at most, of what is compared."""
    run = EnclosedRun(tight_instance("simplex", near=Fraction(1, 10**12), slope=Fraction(1)), 192)
    statement = proposition_5_7.STATEMENTS["nearly orthogonal"]
    found = check(statement, "tight", "theorem", [run])
    assert found.verdict == "proved"
    for claim in found.details["claims"].values():
        assert 0 < Fraction(claim["interval"][0]) < Fraction(claim["interval"][1]) < Fraction(2, 10**23)
    assert 1 + float(found.details["claims"]["<grad, fa> >= mu L^2"]["interval"][1]) == 1


@pytest.mark.parametrize(("share", "verdict"), [(-1, "proved"), (1, "refuted")])
def test_a_constant_that_is_off_by_1e_25_is_told_from_the_largest_one(share: int, verdict: str) -> None:
    """The largest mu is the infimum of the ratio."""
    run = EnclosedRun(RUN.instance, 192)
    best = run.enclosure.infimum(dominance_ratio(2), digits=40).lower
    with ctx.workprec(192):
        mantissa, exponent = best.mid().man_exp()
    mu = Fraction(int(mantissa)) * Fraction(2) ** int(exponent) * (1 + share * Fraction(1, 10**25))
    claim = Nonnegative("claim", [excess_over(dominance_ratio(2), mu)])
    assert claim.decide(run).verdict == verdict


def test_an_equality_is_proved_within_1e_30_over_all_times_and_refuted_by_any_deviation() -> None:
    initial = RUN.at_start(risk)

    def difference(point: Point[Any]) -> list[Any]:
        return [risk(point) - initial]

    run = EnclosedRun(RUN.instance, 192)
    found = Equal("claim", difference, initial, descent_product).decide(run)
    assert found.verdict == "proved"
    low, high = map(Fraction, found.value)
    assert -Fraction(1, 10**30) <= low <= 0 <= high <= Fraction(1, 10**30)
    wrong = Equal("claim", difference, initial, lambda point: descent_product(point) * (1 + arb(10) ** -28))
    assert wrong.decide(run).verdict == "refuted"
    bump = Equal("claim", lambda point: [0 * point.time, _late_bump(point)], arb(1))
    assert bump.decide(run).verdict == "refuted"


def _late_bump(point: Point[Any]) -> Any:
    """0 but in the last step, where t is above 1.5."""
    return 0 * point.time if not point.time[0] > 1.5 else point.time - 1.5


def test_an_equality_is_about_all_times_of_a_step() -> None:
    """t - T/2 is 0 at the middle of the only step."""
    run = EnclosedRun(replace(RUN.instance, t_final=Fraction(1, 1024)), 128)
    assert len(run.enclosure.steps) == 1
    found = Equal("claim", lambda point: [point.time - arb(1) / 2048], arb(1)).decide(run)
    assert found.verdict == "undecided"
    assert Fraction(found.value[0]) <= -Fraction(1, 2048)
    assert Fraction(found.value[1]) >= Fraction(1, 2048)


def test_what_a_polynomial_leaves_out_is_in_the_interval() -> None:
    """e^(32 t / T) is e^32 at the end, which its Taylor polynomial about the middle does not reach."""
    run = EnclosedRun(replace(RUN.instance, t_final=Fraction(1, 1024)), 128)
    found = Equal("claim", lambda point: [(32768 * point.time).exp()], arb(1)).decide(run)
    with ctx.workprec(128):
        assert found.holds is False
        (step,) = Equal("claim", lambda point: [(32768 * point.time).exp()], arb(1))._deviations(run)
        assert step[0].anywhere.contains(arb(32).exp())


def test_an_equality_that_is_not_sharp_enough_is_undecided() -> None:
    assert Equal("claim", lambda point: [0 * point.time + arb(0, 1e-20)], arb(1)).decide(RUN).verdict == "undecided"


def test_a_theorem_is_refuted_by_one_run_and_a_control_only_by_all() -> None:
    def claims(run: EnclosedRun) -> list[Nonnegative]:
        return [
            Nonnegative("claim", [time_less(run.instance.t_final - 1)])
        ]  # false at the end for T = 2, not for T = 1

    stated = replace(proposition_5_7.STATEMENTS["orthogonally separable"], claims=claims, hypotheses=lambda run: [])
    broken = replace(stated, hypotheses=lambda run: [Hypothesis("broken", False)])
    good, bad = (replace(RUN.instance, t_final=Fraction(t)) for t in (1, 2))
    runs = [EnclosedRun(good, 128), EnclosedRun(bad, 128)]
    assert check(stated, "both", "theorem", runs).verdict == "refuted"
    assert check(stated, "good", "theorem", runs[:1]).verdict == "proved"
    assert check(broken, "both", "control", runs).verdict == "undecided"
    assert check(broken, "bad", "control", runs[1:]).verdict == "refuted"


def test_a_theorem_does_not_apply_where_a_hypothesis_fails_by_1e_40_or_is_undecided() -> None:
    """Although its claims are true there."""
    below = with_gaps(RUN.instance, [Fraction(1), -Fraction(1, 10**40)])
    with pytest.raises(DoesNotApplyError, match=r"lemma_5_4 does not apply: c_j >= 0 \(slack -1e-40\)"):
        check(lemma_5_4.STATEMENT, "below", "theorem", [EnclosedRun(below, 128)])
    doubtful = replace(lemma_5_4.STATEMENT, hypotheses=lambda run: [Hypothesis("doubtful", None)])
    with pytest.raises(DoesNotApplyError):
        check(doubtful, "doubtful", "theorem", [RUN])


def test_a_cosine_near_minus_1_is_refuted_though_its_square_is_large() -> None:
    run = EnclosedRun(replace(wrong_signs(0), t_final=Fraction(1, 1024)), 128)
    found = [claim.decide(run).verdict for claim in cosine_at_least("1 / sqrt(m)", lambda bb: bb / run.instance.width)]
    assert found == ["refuted", "proved"]


def test_a_control_must_be_proved_to_break_a_hypothesis() -> None:
    make = lambda: RUN.instance  # noqa: E731
    statement = proposition_5_7.STATEMENTS["orthogonally separable"]
    with pytest.raises(ValueError, match="is not proved to break a hypothesis"):
        Case(statement, "nothing broken", "control", [make]).examined(0)
