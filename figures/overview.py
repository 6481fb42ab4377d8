"""One run at a glance: the README’s example, as `flowsim.plot.overview` draws it.

FA on orthogonally separable data (n = 5, d = 6, m = 6, b_j = ±1, all c_j = 0.05). Loss; cos(v, b), which stays above
1/√m (Lemma 5.4, dotted); the largest change of what Theorem 5.2 says is constant, below the estimated error of the
solution (dashed); the products b_j v_j, which keep their signs; |w_j| and v_j of each neuron on its curve of equal c;
and which sample is active at which neuron, with the events.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowsim import FeedbackAlignment, Flow, Solution, Weights, data, plot, solve
from flowsim.initialization import gaussian, random_signs, with_gaps

SEEDS = (0,)
T_FINAL = 100.0


def measure(t_final: float = T_FINAL) -> Solution[Weights]:
    """The README's example."""
    dataset = data.orthogonally_separable(samples=5, dimension=6, kappa=0.2, seed=SEEDS[0])
    rule = FeedbackAlignment(random_signs(6, seed=SEEDS[0]))
    weights = with_gaps(gaussian(6, 6, seed=SEEDS[0]).hidden, rule, gaps=0.05)
    return solve(Flow(dataset, rule, loss="exponential", slope=0.3), weights, t_final)


def draw(measured: Solution[Weights]) -> Figure:
    """As the example draws it."""
    return plot.overview(measured)
