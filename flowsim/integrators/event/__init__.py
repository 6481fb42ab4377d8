"""The event-driven integrator: a two-layer flow as Taylor series between events (theorems/README.md, section 10).

Between events the activation pattern is fixed and the flow analytic. A step takes the Taylor series of the flow, finds
the first event within it, goes exactly there, and chooses the next mode.

    driver      begin and proceed: steps, their length, and what stops them
    crawl       tells runs that hardly move
    front       where the trajectories are: weights, and the mode (sides of the kinks, signs of the output weights)
    kinks       kinks, which parallel inputs share
    series      the Taylor series in a mode
    watch       what may change the mode within a step, as polynomials
    roots       their first roots
    switch      the mode after an event
    filippov    where a neuron goes that sits on several kinks
    path        the solution: dense output, events, statistics
"""

from flowsim.integrators import Integrator
from flowsim.integrators.event.driver import begin, proceed

INTEGRATOR = Integrator(begin, proceed)

__all__ = ["INTEGRATOR"]
