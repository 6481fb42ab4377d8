"""The event-driven integrator: a flow as Taylor series between events (flowsim/README.md, section 10).

Between events the activation pattern is fixed and the flow analytic. A step takes the Taylor series of the flow, finds
the first event within it, goes exactly there, and chooses the next mode. What does so is a kernel; which one, for a
flow, is said here.

    compiled    the kernel for networks of any depth on the CPU, with the rules and losses of flowsim
    batched     the kernel for other rules and losses, and other devices: two-layer networks, all trajectories of
                an ensemble at once
    kernel      what a kernel is
    records     what kernels write and others read: starts of steps, where the trajectories are
    kinks       kinks, which parallel inputs share
    reasons     why a trajectory cannot go on, in words
    crawl       tells runs that hardly move
    tolerances  all thresholds, in order
    path        the solution, whatever the kernel: dense output, events, statistics
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators import Integrator, Settings, unnoticed
from flowsim.integrators.event import batched, compiled
from flowsim.integrators.event.kernel import Kernel, order_for
from flowsim.integrators.event.path import EventPath
from flowsim.losses import named
from flowsim.weights import NetworkWeights

KERNELS = {"batched": batched.KERNEL, "compiled": compiled.KERNEL}
"""The kernels by the names that files have for them."""


def require_event_driven(flow: Flow) -> None:
    """Check that a flow goes from event to event.

    Raises:
        ValueError: for a flow that adds to its rule; an activation other than leaky ReLU; a loss without a series.
    """
    if not flow.moves_as_given:
        raise ValueError(
            f"method 'event' is for flows that move as Flow says, got {type(flow).__name__}; use method='dopri5'"
        )
    if flow.activation.leaky_slope is None:
        raise ValueError(
            f"method 'event' needs a piecewise linear activation, got {flow.activation!r}; use method='dopri5'"
        )
    if named(flow.loss).series is None:
        raise ValueError(
            f"method 'event' needs a loss with a Taylor series, got {named(flow.loss).name!r}; use method='dopri5'"
        )


def kernel_for(flow: Flow, weights: NetworkWeights) -> Kernel:
    """The kernel for a flattened ensemble.

    Raises:
        ValueError: if there is none for such a flow.
    """
    require_event_driven(flow)
    if compiled.has_compiled_series(flow):
        return compiled.KERNEL
    batched.require_supported(flow, weights)
    return batched.KERNEL


def begin(flow: Flow, weights: NetworkWeights, settings: Settings) -> EventPath:
    """The path of no steps of a flattened ensemble; the tolerance gives the order of the series.

    Raises:
        ValueError: if there is no kernel for such a flow.
    """
    kernel = kernel_for(flow, weights)
    front, reasons = kernel.begin(flow, weights, settings)
    order = order_for(settings.rtol, settings.companion)
    return EventPath(flow, weights, order, (), front, reasons, kernel, settings.logarithmic)


def proceed(
    path: EventPath,
    ends: Float[Tensor, " ensemble"],
    settings: Settings,
    advanced: Callable[[float], None] = unnoticed,
) -> EventPath:
    """Go on with every trajectory to an end of its own, by the kernel that the path has."""
    records, front, reasons = path.kernel.proceed(
        path.flow, path.front, path.order, path.reasons, ends, settings, advanced
    )
    return replace(path, records=(*path.records, *records), front=front, reasons=reasons)


INTEGRATOR = Integrator(begin, proceed)

__all__ = ["INTEGRATOR", "KERNELS"]
