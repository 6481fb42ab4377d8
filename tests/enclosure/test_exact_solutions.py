"""Enclosures of solutions known up to a quadrature, which Arb's rigorous integration encloses by itself."""

from collections.abc import Callable

import pytest
from flint import acb, arb, ctx
from sample_problems import sliding

from enclosure.runs import one_neuron, weights_of
from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, enclose

BITS = 256


def integral(function: Callable[[acb], acb], low: arb, high: arb) -> arb:
    return acb.integral(lambda s, _: function(s), acb(low), acb(high)).real


def exact(number: float) -> arb:
    return arb(number)


@pytest.mark.parametrize("loss", ["exponential", "logistic", "squared"])
def test_one_active_neuron_is_enclosed_where_the_quadrature_is(loss: str) -> None:
    """Solution 1; the margin u = v z rises, and dz/dt = R^2 g(u)."""
    flow, weights = one_neuron()
    flow = Flow(flow.dataset, flow.rule, loss)
    slowness = {
        "exponential": lambda u: u.exp(),
        "logistic": lambda u: 1 + u.exp(),
        "squared": lambda u: 1 / (1 - u),
    }[loss]
    t_final = 100.0 if loss != "squared" else 3.0
    enclosure = enclose(flow, weights, t_final, bits=BITS)
    with ctx.workprec(BITS + 64):
        w1, w2 = (exact(x) for x in weights.hidden[0].tolist())
        z0, v0 = w1 + 2 * w2, exact(weights.output[0].item())
        for time in [0.01, 0.3, 2.0, t_final / 3, t_final]:
            (w,), (v,) = (enclosure.at(time).hidden, enclosure.at(time).output)
            z = w[0] + 2 * w[1]
            reached = integral(lambda s: slowness((v0 + (s * s - z0 * z0) / 10) * s) / 5, z0, z)
            assert reached.contains(arb(time)) and reached.rad() < 1e-55
            assert v.overlaps(v0 + (z * z - z0 * z0) / 10)


def test_the_sliding_exit_is_known_to_fifty_digits() -> None:
    """Solution 2: it leaves when K_12 exp(-v z_2) = gamma K_11."""
    flow, weights = sliding()
    enclosure = enclose(flow, weights, 20.0, bits=BITS)
    (leaving,) = enclosure.events
    assert (leaving.kind, leaving.before, leaving.after) == ("sliding exit", 0, -1)
    with ctx.workprec(BITS + 64):
        x, y = exact(0.6), exact(1.2)
        k = y * y
        z0, v0 = y * exact(0.25), exact(0.1)
        goal = (x / exact(0.3)).log()  # of v z_2

        def margin(z: arb) -> arb:
            return (v0 + (z * z - z0 * z0) / (2 * k)) * z

        low, high = z0, arb(3)
        for _ in range(BITS):
            middle = ((low + high) / 2).mid()
            low, high = (middle, high) if margin(middle) < goal else (low, middle)
        assert margin(low) < goal < margin(high)
        at_exit = low.union(high)
        time = 2 / k * integral(lambda s: ((v0 + (s * s - z0 * z0) / (2 * k)) * s).exp(), z0, at_exit)
        assert time.overlaps(leaving.time) and leaving.time.rad() < 1e-50 and time.rad() < 1e-50
        held = enclosure.at(1.0)
        assert held.hidden[0][0].contains(0)  # on the kink of x_1 = (1, 0)


def test_a_symmetric_crossing_of_equal_neurons_is_one_event_at_the_time_of_the_quadrature() -> None:
    """Solution 5 with one input: the integrand jumps at the kink."""
    slope, m = 0.5, 3
    flow = Flow(Dataset([[2.0]], [1]), FeedbackAlignment([1.0] * m), slope=slope)
    enclosure = enclose(flow, weights_of([[-0.5]] * m, [0.25] * m), 4.0, bits=BITS)
    assert [event.neuron for event in enclosure.events] == [0, 1, 2]
    with ctx.workprec(BITS + 64):

        def slowness(factor: float) -> Callable[[acb], acb]:
            return lambda s: (m * (0.25 + (s * s - 1) / 8) * factor * s).exp() / (4 * factor)

        crossing = integral(slowness(slope), arb(-1), arb(0))
        assert all(crossing.overlaps(event.time) for event in enclosure.events)
        z = 2 * enclosure.at(4.0).hidden[1][0]
        assert (crossing + integral(slowness(1.0), arb(0), z)).contains(arb(4))


def test_a_neuron_that_arrives_on_the_kink_of_opposite_inputs_rests_there_for_ever() -> None:
    """Solution 6: both samples share the kink, exactly."""
    flow = Flow(Dataset([[1.0], [-1.0]], [-1, -1]), FeedbackAlignment([1.0]))
    enclosure = enclose(flow, weights_of([[0.75]], [0.5]), 30.0, bits=BITS)
    (arrival,) = enclosure.events
    assert (arrival.kind, arrival.before, arrival.after) == ("sliding entry", 1, 0)
    slope = exact(0.3)
    with ctx.workprec(BITS + 64):

        def slowness(w: acb) -> acb:
            u = (0.5 + (w * w - exact(0.5625)) / 2) * w
            return 2 / (u.exp() - slope * (-slope * u).exp())

        assert integral(slowness, arb(0), arb(0.75)).overlaps(arrival.time)
        assert enclosure.at(30.0).hidden[0][0].contains(0)


def test_gradient_descent_from_balanced_weights_is_tanh() -> None:
    """One sample x = y = 1, squared loss, v = w: dw/dt = (1 - w^2) w, so that w^2 = 1 / (1 + c e^{-2t})."""
    enclosure = enclose(Flow(Dataset([[1.0]], [1]), GradientDescent(), "squared"), weights_of([[0.5]], [0.5]), 5.0)
    with ctx.workprec(BITS):
        for time in (0.5, 2.0, 5.0):
            square = 1 / (1 + 3 * arb(-2 * time).exp())
            assert enclosure.at(time).hidden[0][0].overlaps(square.sqrt())
            assert enclosure.at(time).output[0].overlaps(square.sqrt())
