"""The batched kernel: all trajectories of an ensemble at once, as tensors on any device, for two-layer networks.

driver      begin and proceed: rounds, and what stops a trajectory
rounds      a step of every trajectory under way, its length
dense       evaluate: the series of steps again
scope       what it can be used for
batch       the trajectories that are moved on together: weights, and the mode (sides of the kinks, signs of the
output weights)
series      the Taylor series in a mode
watch       what may change the mode within a step, as polynomials
roots       their first roots
switch      the mode after an event
filippov    where a neuron goes that sits on several kinks
scratch     memory used again
"""

from flowsim.integrators.event.batched.dense import evaluate
from flowsim.integrators.event.batched.driver import begin, proceed
from flowsim.integrators.event.batched.scope import require_supported
from flowsim.integrators.event.kernel import Kernel

KERNEL = Kernel(begin, proceed, evaluate)

__all__ = ["KERNEL", "require_supported"]
