"""Where a neuron goes that sits on kinks, against scipy's bounded least squares."""

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from flowsim.integrators.event.batched.filippov import choose_sides


def attracting(k: int, r: int, seed: int) -> tuple[torch.Tensor, ...]:
    """200 neurons on k kinks that all attract: normals, rest, active < inactive."""
    generator = torch.Generator().manual_seed(seed)
    normals = torch.randn(200, k, r, generator=generator, dtype=torch.float64)
    rest = torch.randn(200, r, generator=generator, dtype=torch.float64)
    active, inactive = torch.rand(2, 200, k, generator=generator, dtype=torch.float64) * torch.tensor(
        [[[-3.0]], [[1.0]]]
    )
    return normals, rest, active, inactive


def sides(normals: torch.Tensor, rest: torch.Tensor, active: torch.Tensor, inactive: torch.Tensor, start: int) -> tuple:
    size = normals.norm(dim=-1).sum(-1) + rest.norm(dim=-1)
    return choose_sides(normals, rest, active, inactive, torch.full_like(active, start).to(torch.int8), size)


@pytest.mark.parametrize(("k", "r"), [(1, 1), (1, 3), (2, 3), (3, 3), (3, 5), (4, 4)])
def test_attracting_kinks_have_the_sides_of_the_least_velocity_wherever_the_search_starts(k: int, r: int) -> None:
    """min |rest + sum_k p_k u_k|^2 over active <= p <= inactive: at an end off the kink, in between on it."""
    normals, rest, active, inactive = attracting(k, r, 10 * k + r)
    found, speed, decided = sides(normals, rest, active, inactive, start=1)
    assert decided.all()
    for start in (0, -1):
        again, same, decided = sides(normals, rest, active, inactive, start)
        assert decided.all()
        assert torch.equal(again, found)
        torch.testing.assert_close(same, speed, rtol=0, atol=1e-12)
    for row in range(200):
        bounds = active[row].numpy(), inactive[row].numpy()
        best = lsq_linear(normals[row].numpy().T, -rest[row].numpy(), bounds, method="bvls", tol=1e-14)
        assert found[row].tolist() == [{-1: 1, 1: -1, 0: 0}[int(at)] for at in best.active_mask]
        velocity = rest[row].numpy() + normals[row].numpy().T @ best.x
        np.testing.assert_allclose(speed[row].numpy(), normals[row].numpy() @ velocity, rtol=0, atol=1e-12)
    kinds = set(found.flatten().tolist())
    assert kinds == {-1, 0, 1}


def test_speeds_lead_off_the_kinks_to_the_sides() -> None:
    normals, rest, active, inactive = attracting(3, 4, 0)
    found, speed, _ = sides(normals, rest, active, inactive, 1)
    assert (found * speed >= 0).all()
    assert (speed[found == 0] == 0).all()


def test_a_repelling_kink_is_left_to_the_given_side_where_that_leads_off_it_and_to_the_other_one_else() -> None:
    normals = torch.ones(3, 1, 1, dtype=torch.float64)
    rest = torch.tensor([[0.0], [2.0], [-2.0]], dtype=torch.float64)
    active, inactive = torch.full((2, 3, 1), 1.0, dtype=torch.float64) * torch.tensor([[[1.0]], [[-1.0]]])
    assert sides(normals, rest, active, inactive, 1)[0].tolist() == [[1], [1], [-1]]
    assert sides(normals, rest, active, inactive, -1)[0].tolist() == [[-1], [1], [-1]]


def test_kinks_that_are_not_there_do_not_count() -> None:
    normals, rest, active, inactive = attracting(2, 3, 1)
    alone = sides(normals[:, :1], rest, active[:, :1], inactive[:, :1], 1)
    normals[:, 1] = 0
    together = sides(normals, rest, active, inactive, 1)
    assert torch.equal(together[0][:, 0], alone[0][:, 0])
    torch.testing.assert_close(together[1][:, :1], alone[1], rtol=1e-14, atol=0)
