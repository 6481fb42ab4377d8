"""Steps of the batched kernel."""

import pytest
import torch

from flowsim.integrators.event.batched.rounds import _trust


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_step_is_as_long_wherever_the_trajectory_is_in_the_ensemble(count: int) -> None:
    """To the last bit, which torch's own powers do not promise: they are rounded by their place in memory."""
    generator = torch.Generator().manual_seed(0)
    sizes, changes = (
        torch.rand(terms, 64, generator=generator, dtype=torch.float64) * 10.0 ** -torch.arange(terms).unsqueeze(-1)
        for terms in (9, 7)
    )
    allowed, rounding = torch.full((64,), 1e-10, dtype=torch.float64), torch.full((64,), 1e-16, dtype=torch.float64)
    share, _ = _trust(sizes, changes, allowed, rounding, 1e-5)
    for first in range(64 - count):
        part = slice(first, first + count)
        some = sizes[:, part].contiguous(), changes[:, part].contiguous(), allowed[part], rounding[part]
        assert torch.equal(_trust(*some, 1e-5)[0], share[part])
