"""The same numbers on a CUDA device, where there is one."""

import pytest
import torch

from flowsim import data, solve
from flowsim.flow import Flow
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.rules import FeedbackAlignment
from theorems.command import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_cuda_and_cpu_agree_within_the_tolerance() -> None:
    rule = FeedbackAlignment(random_signs(3, 0))
    flow = Flow(data.orthogonally_separable(4, 6, 0.3, seed=0), rule)
    weights = with_gaps(gaussian(3, 6, 0).hidden, rule, 0.05)
    on_cuda = flow.map_matrices(weights, lambda matrix: matrix.cuda())
    here, there = solve(flow, weights, 2.0), solve(*on_cuda, 2.0)
    assert there.evaluate(2.0).hidden.device.type == "cuda"
    torch.testing.assert_close(there.evaluate(2.0).hidden.cpu(), here.evaluate(2.0).hidden, rtol=0, atol=1e-7)
    torch.testing.assert_close(there.events.time.cpu(), here.events.time, rtol=0, atol=1e-7)


def test_a_statement_checks_on_cuda() -> None:
    assert main(["proposition_5_3", "--seeds", "1", "--device", "cuda"]) == 0
