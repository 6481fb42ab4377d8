"""Bounds of what is left of the power series: written out for one neuron, and against long series."""

import pytest
from flint import arb, ctx

from enclosure.runs import gaussian
from flowsim.enclosure.exact import exact_problem, problem_of
from flowsim.enclosure.series import Expansion
from flowsim.enclosure.start import start
from flowsim.enclosure.tails import Majorants, _Norms


def test_the_majorant_of_one_neuron_is_what_it_is_by_hand() -> None:
    """Two coefficients known: |u - u_0| <= |u_1| rho + v_0 Z + z_0 V + (|z_1| rho + Z) (|v_1| rho + V)."""
    problem = exact_problem([[2]], [1], [[0.5]], [0.25], feedback=[3], slope=0.5, loss="exponential")
    with ctx.workprec(64):
        expansion = Expansion(problem, start(problem))
        expansion.extend(2)
        expansion.complete()
        rho, w_tail, v_tail = arb(0.125), arb(0.0625), arb(0.03125)
        image = _Norms(Majorants(expansion), rho).image([w_tail], [v_tail])
        g = arb(-0.25).exp()
        z, v = abs(12 * g) * rho, abs(g) * rho  # dz/dt = 2 b 2 g, dv/dt = z g
        z_tail = 2 * w_tail
        distance = (12 * g / 4 + g) * rho + z_tail / 4 + v_tail + (z + z_tail) * (v + v_tail)
        q = (distance - 0.25).exp()
        assert image is not None
        for found, wanted in [
            (image.drives[0], q),
            (image.hidden[0], rho / 2 * 3 * 2 * q),
            (image.output[0], rho / 2 * q * (1 + z + z_tail)),
        ]:
            assert found >= wanted.lower() and found < wanted * (1 + arb(2) ** -40)


@pytest.mark.parametrize("rule", ["fa", "sign-fa", "gd"])
@pytest.mark.parametrize("loss", ["exponential", "logistic", "squared"])
def test_the_tails_bound_the_coefficients_of_a_longer_series(rule: str, loss: str) -> None:
    problem = problem_of(*gaussian(1, rule, loss))
    known = 6
    with ctx.workprec(128):
        short, long = (Expansion(problem, start(problem)) for _ in range(2))
        short.extend(known)
        short.complete()
        long.extend(40)
        majorants = Majorants(short)
        rho = arb(1)
        while (tails := majorants.tails(rho)) is None:
            rho *= 0.75
        for rows, bounds, first in [
            (long.hidden, tails.hidden, known),
            (long.output, tails.output, known),
            (long.zeta, tails.zeta, known),
            (long.drives, tails.drives, 0),
        ]:
            for place, bound in enumerate(bounds):
                norm = sum((abs(row[place]) * rho**k for k, row in enumerate(rows) if k >= first), arb(0))
                assert norm.lower() <= bound
