"""Any small flow: it ends or says why, contradicts itself nowhere, and is the same at two tolerances."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance import random_flows
from conformance.kernels import solve
from conformance.random_flows import judge, random_flow
from flowsim import Flow
from flowsim.integrators.event.compiled.kernel import STOPS
from flowsim.weights import DeepWeights

REASONS = [*STOPS.values(), "the velocity overflows", "max_steps", "since t = "]


def test_random_flows(kernel: str) -> None:
    """More of them by the compiled kernel, which takes 10 times less."""
    supported: dict[str, Any] = {} if kernel == "compiled" else {"layers": [2], "decays": [0.0]}

    @settings(
        max_examples=100 if kernel == "compiled" else 15,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.integers(0, 2**31), st.data())
    def check(seed: int, data: st.DataObject) -> None:
        flow, weights = random_flow(seed, lambda options: data.draw(st.sampled_from(options)), **supported)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(random_flows, "solve", solve)
            verdict = judge(flow, weights)
        assert verdict.ending == "ended" or verdict.ending.startswith(tuple(REASONS))
        assert verdict.faults == []
        # errors per step of 1e-9 in some 100 steps, grown by 10 at most; a third run tells those that grow more
        assert verdict.converges, f"they differ by {verdict.difference}"

    check()


@pytest.mark.parametrize(
    "seed",
    [
        281, 2613, 2903, 2973,  # drives that are not unique: a neuron with one weight
        4927, 8479, 9397,  # all of a sample's layer arrives at 0 at once
        6284, 7334,  # the same with slope 0, seen in the layer above first
        4742,  # samples that share kinks come to life
        11625,  # opposite samples: what arrives below is the other one's kink
    ],
)  # fmt: skip
def test_flows_that_went_wrong_once_are_right_or_refused(seed: int) -> None:
    verdict = judge(*random_flow(seed))
    assert verdict.ending == "ended" or verdict.ending.startswith(tuple(REASONS))
    assert verdict.faults == []
    assert verdict.converges


def test_a_flow_with_another_slope_halfway_is_a_fault() -> None:
    """A control: the weights of one flow are no solution of another."""
    flow, weights = random_flow(3)
    assert isinstance(weights, DeepWeights)
    times = torch.linspace(0, random_flows.T_FINAL, 41, dtype=torch.float64)
    solution = random_flows.run(flow, weights, 1e-9)
    assert random_flows.find_faults(solution, times) == []
    object.__setattr__(solution, "flow", Flow(flow.dataset, flow.rule, flow.loss, 0.5 * (flow.slope + 0.9)))
    assert random_flows.find_faults(solution, times) != []
