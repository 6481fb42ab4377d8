"""The compiled kernel: the loop of one trajectory in plain loops, compiled by numba, for networks of any depth.

kernel      begin, proceed, evaluate: trajectories on threads, what stops them
scope       which flows it is for, and how it is told about one
loop        the loop: series, length, first event, next mode
series      the Taylor series in a mode
sliding     the drives that keep pre-activations at 0, and their matrix
watch       what may change the mode within a step, as polynomials
roots       their first roots
start       the mode at t = 0
switch      what happens to the mode at an event
decide      to which sides neurons go that sit on kinks
projection  weights on kinks, and put exactly there
losses      the series of -dl/df
products    products of matrices
problem     the arrays it works with
compiling   how it is compiled, and where that is stored
"""

from flowsim.integrators.event.compiled.kernel import KERNEL
from flowsim.integrators.event.compiled.scope import has_compiled_series

__all__ = ["KERNEL", "has_compiled_series"]
