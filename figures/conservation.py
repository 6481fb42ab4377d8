"""How exactly each method keeps what the flow conserves.

FA on orthogonally separable data (n = 8, m = 10): the largest change of any c_j = b_j v_j − |w_j|²/2 since t = 0.
Theorem 5.2 says 0. The event-driven integrator keeps it to the tolerance asked for, and at 1e-13 to rounding.
torchdiffeq’s dopri5 is off wherever a kink falls into one of its steps: jumps, and spikes in dense output. Gradient
steps of size η (the paler, the smaller) change it in proportion to η. That is no error of the theorem: what each step
adds is −η² |Δ_j|²/2, with the velocity Δ_j of w_j (theorems/README.md, section 4), and what is left is rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLUE, ORANGE, SHADE, grid, log_time_axis, panels
from flowsim import FeedbackAlignment, Flow, Solution, Weights, data, descent, solve
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.observables import conserved
from flowsim.times import log_times

SEEDS = (0,)
FIRST, T_FINAL = 0.1, 100.0
EVENT_RTOLS, DOPRI5_RTOLS, STEP_SIZES = (1e-10, 1e-13), (1e-6, 1e-9), (0.4, 0.04, 0.004)
GREENS = ("#00332a", "#00855f", "#3fb58f")
"""Of gradient steps, from the largest."""
LEAST = 1e-17
"""Where a deviation of exactly 0 is drawn."""


class Curve(NamedTuple):
    """max_j |c_j(t) - c_j(0)|, and what is left of it when the discrete correction is taken off."""

    times: Float[Tensor, " times"]
    deviation: Float[Tensor, " times"]
    rest: Float[Tensor, " times"] | None = None


Measured = dict[tuple[str, float], Curve]
"""By method and tolerance or step size."""


def measure(
    samples: int = 8,
    width: int = 10,
    t_final: float = T_FINAL,
    event_rtols: tuple[float, ...] = EVENT_RTOLS,
    dopri5_rtols: tuple[float, ...] = DOPRI5_RTOLS,
    step_sizes: tuple[float, ...] = STEP_SIZES,
) -> Measured:
    """Run one problem with every method."""
    flow, weights = problem(samples, width)
    times = log_times(FIRST, t_final)[1:]

    def of(solution: Solution[Weights]) -> Curve:
        return Curve(times, deviation(flow, weights, solution.evaluate(times)))

    found: Measured = {}
    for method, rtols in [("event", event_rtols), ("dopri5", dopri5_rtols)]:
        for rtol in rtols:
            found[method, rtol] = of(solve(flow, weights, t_final, method=method, rtol=rtol, atol=1e-2 * rtol))
    for eta in step_sizes:
        found["steps", eta] = by_steps(flow, weights, eta, times)
    return found


def problem(samples: int, width: int) -> tuple[Flow, Weights]:
    """Orthogonally separable data and gaps c_j = 0.05."""
    dimension = samples + 2
    rule = FeedbackAlignment(random_signs(width, SEEDS[0]))
    weights = with_gaps(gaussian(width, dimension, SEEDS[0]).hidden, rule, 0.05)
    return Flow(data.orthogonally_separable(samples, dimension, 0.2, SEEDS[0]), rule), weights


def deviation(flow: Flow, start: Weights, weights: Weights) -> Tensor:
    """max_j |c_j - c_j(0)|."""
    return (conserved(flow, weights)[0] - conserved(flow, start)[0]).abs().amax(-1)


@torch.inference_mode()  # a step takes a fifth less time
def by_steps(flow: Flow, weights: Weights, eta: float, times: Tensor) -> Curve:
    """Gradient steps of size eta, seen after the step nearest to each of the times."""
    numbers = torch.unique((times / eta).round().long()).clamp(min=1)
    wanted, state = set(numbers.tolist()), descent.start(weights)
    deviations, rests = [], []
    for number in range(1, int(numbers[-1]) + 1):
        state = descent.step(flow, state, eta)
        if number in wanted:
            change = conserved(flow, state.weights)[0] - conserved(flow, weights)[0]
            deviations.append(change.abs().amax(-1))
            rests.append((change - state.correction[0]).abs().amax(-1))
    return Curve(torch.unique(numbers) * eta, torch.stack(deviations), torch.stack(rests))


def draw(measured: Measured) -> Figure:
    """All methods in one panel, with their tolerance or step size at the end of the curve."""
    figure, (panel,) = panels(1, 1, 3.3)
    greens = iter(GREENS)
    names = {"event": "event-driven", "dopri5": "torchdiffeq dopri5", "steps": "gradient steps"}
    corrected = {"steps": "steps less their correction"}
    for (method, value), curve in measured.items():  # the first curve of a method bears its name
        colour = next(greens) if method == "steps" else {"event": BLUE, "dopri5": ORANGE}[method]
        panel.plot(curve.times, curve.deviation.clamp(min=LEAST), color=colour, label=names.pop(method, None))
        if curve.rest is not None:
            rest = curve.rest.clamp(min=LEAST)
            panel.plot(curve.times, rest, ":", color=colour, label=corrected.pop(method, None))
        letter = r"\eta" if method == "steps" else r"\mathrm{rtol}"
        label = f"${letter} = {_power(value)}$"
        panel.annotate(
            label, (curve.times[-1].item(), curve.deviation[-1].item()), (3, 0), textcoords="offset points",
            va="center", fontsize=6.5, color=colour, annotation_clip=False,
        )  # fmt: skip
    panel.set_yscale("log")
    log_time_axis(panel, FIRST, max(curve.times[-1].item() for curve in measured.values()))
    panel.set_ylabel(r"largest change, $\max_j \ |c_j(t) - c_j(0)|$")
    epsilon = torch.finfo(torch.float64).eps
    panel.axhline(epsilon, color=SHADE, linewidth=0.8, linestyle="--", label="machine epsilon")
    grid(panel)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _power(value: float) -> str:
    """The number as a power of 10, for mathtext.

    >>> _power(1e-7), _power(0.3)
    ('10^{-7}', '0.3')
    """
    exponent = round(torch.log10(torch.tensor(value, dtype=torch.float64)).item(), 12)
    return f"10^{{{int(exponent)}}}" if exponent == int(exponent) else f"{value:g}"
