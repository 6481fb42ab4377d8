"""What a kernel is: the loop of steps from event to event, for the flows that it knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators import LOOSER, Settings
from flowsim.integrators.event.records import Front, Record
from flowsim.integrators.event.tolerances import WHOLE
from flowsim.weights import NetworkWeights

Reasons = tuple[str | None, ...]
"""Why each trajectory cannot go on; None if it can."""


class Kernel(NamedTuple):
    """The three functions of a kernel, at the top of a module each, so that a path with them can be pickled.

    begin(flow, weights, settings) -> Front, reasons

        Where the trajectories of a flattened ensemble start. A ValueError for what is not for this kernel.

    proceed(flow, front, order, reasons, ends, settings, advanced) -> records, Front, reasons

        Goes on with every trajectory to an end of its own, but for those that have a reason other than INTERRUPTED:
        blocks of the starts of the steps taken, and the front at the end. Each may take `settings.max_steps` more
        steps. `advanced` is called now and then with the share of the work done, in sum over the trajectories. A
        KeyboardInterrupt gives those under way INTERRUPTED as their reason.

    evaluate(flow, starts, length, which, share, order, derivative, logarithmic) -> weights flattened, a row each

        The sums of the Taylor series of steps: of step `which` at a `share` of its `length`, or of their derivatives by
        time, which may be logarithmic. At share 0 the weights are those in `starts`, to the last bit.

    `flow` is that of the whole flattened ensemble, `order` that of the series.
    """

    begin: Callable[[Flow, NetworkWeights, Settings], tuple[Front, Reasons]]
    proceed: Callable[
        [Flow, Front, int, Reasons, Float[Tensor, " ensemble"], Settings, Callable[[float], None]],
        tuple[list[Record], Front, Reasons],
    ]
    evaluate: Callable[
        [Flow, Record, Float[Tensor, " steps"], Tensor, Float[Tensor, " times"], int, bool, bool],
        Float[Tensor, "times parameters"],
    ]


def order_for(rtol: float, companion: bool = False) -> int:
    """Order of the series: each term is about 30 times smaller than the one before at the end of a full step.

    The least work per unit time would be at e^2 (Jorba and Zou 2005) and with one term more; but most steps end at an
    event, well before. A companion has one term less than the solution that it estimates the error of: the two differ
    by a term then even where they take the same steps, from event to event.

    >>> order_for(1e-10), order_for(LOOSER * 1e-10, companion=True)
    (7, 6)
    """
    if companion:
        return order_for(rtol / LOOSER) - 1
    return max(4, math.ceil(-math.log(min(rtol, 1.0), LOOSER) - WHOLE))
