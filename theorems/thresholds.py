"""What counts as zero, as equal, as decided: every threshold of the verdicts, in order (theorems/README.md, section 9).

    rounding  <  ON_KINK  <  FOLLOWS  <  EQUALITY_ERROR  <  RESOLVED  <  IN_BOX

A run that follows its rule to FOLLOWS cannot break an equality that is decided at EQUALITY_ERROR, and no inequality is
violated by less than RESOLVED.
"""

ROUNDING_PER_STEP = 16
"""Roundings of a weight per step: the terms of a series, or the stages of a step, are summed for the state and again in
dense output."""

FLOAT32_SAFETY = 32
"""Rounding in float64 is at most so many times 2^-29 of what the same sums leave in float32: both are largest values
over hundreds of channels, and differ by their luck only."""

ON_KINK = 1e-12
"""A pre-activation rests on its kink if it is at most so large all over a piece, relative to |a| |w|. The integrator
puts sliding neurons on their kinks up to a few roundings; a piece on which a moving one is so small is as short."""

FOLLOWS = 1e-10
"""A run follows its rule if what it moves differs from the integral of what the rule prescribes by no more, relative to
the largest weight of the layer, summed over all pieces."""

EQUALITY_ERROR = 1e-9
"""An equality holds only if its relative error bound is at most this, and is violated only by more. The distance to
FOLLOWS allows for a neuron whose weights are a tenth of the largest of its layer."""

RESOLVED = 1e-7
"""What a branch and bound leaves open of a margin, absolutely; it counts as error. Margins are relative to the size of
what is compared; so near to 0, some are rounding, and an inequality is not violated."""

RESOLVED_RELATIVE = 1e-6
"""The same relative to the margin."""

EARLY = 1e-7
"""Change of L, or of what else a mean is taken of, relative to its size at the start. Beyond, rounding of a mean is at
most eps / EARLY = 2e-9, relative."""

IN_BOX = 1e-6
"""A slope lies in [gamma, 1] if it is beyond an end by no more, relative to 1 or to itself. Near the end of a slide it
is off by the truncation of the series."""

LEVEL = 2.0
"""A piece that could hold the smallest margin is halved as long as what the claim is divided by varies on it by more: a
ratio can have a dip there as narrow as the divisor is small, beside which its values at the nodes say nothing."""

HALVINGS = 50
"""Rounds of halving at most: from a unit of time down to rounding."""

BESIDE = 1e-12
"""A margin sits at an event if it is so near, relative to the time."""
