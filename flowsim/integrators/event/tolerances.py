"""All thresholds of the event-driven integrator, in ascending order; their order is tested."""

from __future__ import annotations

import torch

EPS = torch.finfo(torch.float64).eps

# --- sizes, each relative to what its meaning says ---

TINY = 1e-300
"""In the place of a size 0 that is divided by."""

LENGTHS = 1e-150, 1e150
"""Lengths of inputs whose squares neither over- nor underflow, nor the sums of a few of them."""

CONVERGED = 2 * EPS
"""Newton's method for a root has converged if its last step was at most so long, relative to the root."""

FINEST = 2.0**-50
"""Width of the parts of [0, 1] below which two roots are not told apart. Above CONVERGED: roots are finer than that."""

SHORTEST = 4 * EPS
"""A step that is not the last is below rounding if it is at most so long, relative to the time."""

BLOCKED = 1e-15
"""A drive is taken for an end of its interval if it is so near, relative to the interval. Well below ZERO."""

TIE = 8 * EPS
"""Events are simultaneous if they are at most so far apart, relative to the step. Above CONVERGED: equal roots tie."""

ON_KINK = 64 * EPS
"""A neuron is on a kink if |z| is at most so large, relative to |x| |w|."""

ZERO = 1e-13
"""A speed dz/dt is taken for 0 if it is at most so large, relative to the sum of the sizes of what adds up to it.
Well above ON_KINK."""

AT_END = 1e-13
"""The drive of a sliding sample is at an end of its interval if it is so near, relative to the interval."""

PARALLEL = 1e-13
"""Inputs are parallel if x_i - c x_k is at most so long, relative to x_i."""

NOTHING = 1e-12
"""Nothing of a sample gets through a layer if its activations are at most so large, relative to the input and the
weights of all layers up to there. Well above ON_KINK: times that should be equal differ by some roundings."""

RESTING = 1e-12
"""A neuron travels along a kink if its direction of travel is at most so far from it, relative to its length."""

AT_REST = 1e-12
"""A neuron at a contact does not leave the kink if |z| grows to no more, relative to what adds up to it. Well above
AT_END: what leaves sliding by rounding must not be sent back."""

FARTHEST = 1e-11
"""Above the first layer a row of weights is put onto a kink if that moves it by at most so much, relative to it, or by
the error allowed in the step. Well above ON_KINK: where hardly anything of a sample gets through, its kink says little.
"""

INDEPENDENT = 1e-10
"""Normals of kinks depend on each other if what is left of one, or a singular value of them, is at most so large,
relative to its length, or to the largest. Well above PARALLEL: parallel inputs share a kink, and never come here."""

NEARLY_PARALLEL = 1e-9
"""Inputs may be parallel if the square of their cosine falls short of 1 by at most so much. Well above PARALLEL, of
which it is the square up to rounding: no parallel inputs are lost."""

NOISE = 1e-9
"""What moves by less than this part of the largest weight in a window is noise, whose growth says nothing."""

WHOLE = 1e-9
"""An order that is a whole number up to so much by rounding is that number."""

TOGETHER = 1e-6
"""A drive that reaches both ends of its interval so near to each other, or one so near v = 0 under GD, relative to the
step, does so because the interval vanishes. Well above TIE."""

SHRINKING = 1e-3
"""The unit of time becomes so many times as long where the series overflows in it."""

THROUGH = 1e-2
"""A neuron gets through a kink beyond doubt if its speed behind it is at least this part of what adds up to it. Well
above what the truncation of the series may change; nearer to 0 the mode is decided by all that is there."""

MOVED = 0.03
"""Weights hardly move if they do by less than this part of the largest of them in a window. Steps that are limited by
how the weights change move them by 0.17 and more, where there are no events (measured). Well above NOISE."""

FASTER = 1.01
"""Weights that move by more than this times as much as in the window before are on their way from a saddle."""

STEADY = 1.25
"""Steps stay as they are if a window takes no longer or shorter than this times the one before."""

LONGEST = 1e3
"""Largest growth of the step from one to the next. As much as SHRINKING takes back."""

# --- numbers of times ---

WINDOWS = 3
"""A trajectory crawls if it did so for so many windows in a row."""

UNDECIDED = 10
"""Corrections after which a mode is left as it is over a step so short that the difference is below the tolerance.
Well below IDLE: it is tried before a trajectory is given up."""

EXCHANGES = 20, 50
"""Exchanges of sides after which the mode could not be decided: so many, and so many more for each kink. After the
first of them they go round in a circle."""

IDLE = 50
"""Rounds in a row in which a mode may be corrected without a step; many more than kinks meet in one point."""

WINDOW = 100
"""Rounds, a step in each but at an event, that are looked at together. Above IDLE: one cannot be without a step."""

NEWTON = 120
"""Iterations: every one halves the bracket or the step, and 53 halvings exhaust the digits of a number in [0, 1]."""

# --- sides of matrices ---

NARROW = 2
"""Matrices so narrow are multiplied in loops, whatever their other sides."""

SMALL = 2000
"""Multiplications up to which loops are faster than a call of BLAS. Well above NARROW."""
