"""Plots of a run: `from flowsim import plot`, then `plot.overview(solution)`.

    loss          L(t)
    alignment     cos(W_l, B_l), with the bounds that are proved
    conserved     how much c_j(t) has changed, beside the estimated error
    signs         output weights, and whether they keep their signs
    phase         |w_j| and v_j, on the curves of equal c
    activations   which samples are active, inactive or sliding at which neurons, and the events
    overview      all of them on a page
    animate       the neurons moving along their curves

Each takes a solution, or the path of a saved one, and axes, new ones if there are none. Times are logarithmic from
where things begin to change, and linear from 0 to there; s = log(1 + t) where it was solved in logarithmic time.
Colours can be told apart by the colour-blind. `with plot.style(serif=True):` draws as LaTeX sets text.
"""

from flowsim.extras import needed

with needed("flowsim.plot", "plot"):
    import matplotlib  # noqa: F401

from flowsim.plot.curves import alignment, conserved, loss, signs
from flowsim.plot.page import overview
from flowsim.plot.pattern import activations
from flowsim.plot.plane import animate, phase
from flowsim.plot.theme import style

__all__ = ["activations", "alignment", "animate", "conserved", "loss", "overview", "phase", "signs", "style"]
