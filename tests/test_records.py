"""What kernels write: flattened layers and modes, for networks of any depth, and a path that reads them."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from sample_problems import gaussian_data
from torch import Tensor

from flowsim import Dataset, DeepWeights, Flow, SignFeedbackAlignment, Weights, solve
from flowsim.flat import join
from flowsim.integrators import Settings, unnoticed
from flowsim.integrators.event import KERNELS, kernel_for
from flowsim.integrators.event import begin as begin_path
from flowsim.integrators.event.kernel import Kernel
from flowsim.integrators.event.path import EventPath, Steps
from flowsim.integrators.event.records import COLUMNS, Front, Layout, Record

DEEP = Layout(2, ((3, 2), (2, 3), (1, 2)))


def test_what_is_joined_is_split_again_row_by_row() -> None:
    layers = [torch.arange(12.0).reshape(2, 3, 2), torch.arange(12.0).reshape(2, 2, 3), torch.ones(2, 1, 2)]
    flat = join(layers)
    assert flat.shape == (2, DEEP.parameters)
    assert flat[1, :6].tolist() == [6, 7, 8, 9, 10, 11]
    for split, layer in zip(DEEP.split_weights(flat), layers, strict=True):
        assert torch.equal(split, layer)
    sides = [torch.randint(-1, 2, (4, 2, width), dtype=torch.int8) for width in (3, 2)]
    assert all(map(torch.equal, DEEP.split_sides(join(sides)), sides))
    signs = [torch.randint(-1, 2, shape, dtype=torch.int8) for shape in ((2, 3), (1, 2))]
    assert all(map(torch.equal, DEEP.split_signs(join(signs)), signs))


def test_places_say_what_each_entry_of_a_mode_is() -> None:
    layer, sample, neuron = DEEP.places
    named = list(zip(layer.tolist(), sample.tolist(), neuron.tolist(), strict=True))
    assert named[: DEEP.kinks] == [(1, i, j) for i in range(2) for j in range(3)] + [
        (2, i, j) for i in range(2) for j in range(2)
    ]
    assert named[DEEP.kinks :] == [(1, -1, j) for _ in range(2) for j in range(3)] + [(2, -1, 0), (2, -1, 1)]
    assert len(named) == DEEP.kinks + DEEP.entries


# A path of a deep network, whose kernel draws straight lines: all that is asked of a kernel is asked here


def begin_lines(flow: Flow, weights: DeepWeights, settings: Settings) -> tuple[Front, tuple[None, ...]]:
    raise NotImplementedError


def proceed_lines(*arguments: object) -> tuple[list[Record], Front, tuple[None, ...]]:
    raise NotImplementedError


def evaluate_lines(
    flow: Flow,
    starts: Record,
    length: Tensor,
    which: Tensor,
    share: Tensor,
    order: int,
    derivative: bool,
    logarithmic: bool,
) -> Tensor:
    """Every weight grows at the speed of the trajectory's number and 1."""
    speed = (starts.index[which] + 1).double().unsqueeze(-1)
    return speed.expand(-1, starts.weights.shape[-1]) if derivative else (
        starts.weights[which] + speed * (share * length[which]).unsqueeze(-1)
    )  # fmt: skip


LINES = Kernel(begin_lines, proceed_lines, evaluate_lines)  # type: ignore[arg-type]
TIMES = torch.tensor([[0.0, 0.5, 1.25], [0.0, 1.0, 1.5]], dtype=torch.float64)
"""Starts of three steps of each of two trajectories, which end at 2 and 3; a third one took none."""


def lines(blocks: list[list[tuple[int, int]]]) -> EventPath:
    """Steps (trajectory, number) in blocks."""
    generator = torch.Generator().manual_seed(1)
    layers = tuple(torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in DEEP.shapes)
    weights, start = DeepWeights(layers), join(layers)
    side = -torch.ones(3, 4, DEEP.kinks, dtype=torch.int8)
    sign = torch.ones(3, 4, DEEP.entries, dtype=torch.int8)
    side[0, 1:, 2] = 1  # layer 1, sample 0, neuron 2
    side[0, 2:, 6 + 3] = 0  # layer 2, sample 1, neuron 1
    side[1, 2:, 6 + 0], side[1, 2:, 0] = 1, 1  # layers 1 and 2, sample 0, neuron 0
    sign[1, 1:, 5], sign[1, 2:, 7] = -1, -1  # W_2[1, 2] and W_3[0, 1]
    records = []
    for block in blocks:
        index, step = torch.tensor(block).T
        time = TIMES[index, step]
        grown = start[index] + ((index + 1) * time).unsqueeze(-1)
        records.append(Record(DEEP, index, time, time, grown, side[index, step], sign[index, step]))
    end, none = torch.tensor([2.0, 3.0, 0.0], dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    speed = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    front = Front(
        DEEP, end, start + (speed * end).unsqueeze(-1), side[:, 3], sign[:, 3], 0 * side[:, 3], 0 * sign[:, 3],
        end, torch.tensor([3, 3, 0]), none, none,
    )  # fmt: skip
    inputs = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    flow = Flow(Dataset(inputs, torch.ones(3, 2)), SignFeedbackAlignment())
    return EventPath(flow, weights, 4, tuple(records), front, (None,) * 3, LINES)


ONE_EACH = [[(0, 0), (1, 0)], [(0, 1), (1, 1)], [(1, 2), (0, 2)]]
MANY_OF_ONE = [[(0, 0), (0, 1), (0, 2)], [(1, 0), (1, 1), (1, 2)]]
MIXED = [[(1, 0)], [(1, 1), (0, 0), (0, 1)], [(0, 2), (1, 2)]]
BLOCKS = pytest.mark.parametrize("blocks", [ONE_EACH, MANY_OF_ONE, MIXED], ids=["one each", "many of one", "mixed"])


@BLOCKS
@pytest.mark.parametrize("chosen", [lambda path: path, lambda path: path.of_trajectories(torch.tensor([0, 1, 2]))])
def test_whatever_the_blocks_a_path_says_the_same(
    blocks: list[list[tuple[int, int]]], chosen: Callable[[EventPath], EventPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in (2**22, 1):  # all at once, or one step and one record after another
        monkeypatch.setattr("flowsim.integrators.event.path.CHUNK", chunk)
        path = chosen(lines(blocks))
        events = path.events()
        rows = zip(*(getattr(events, name).tolist() for name in
                     ("time", "trajectory", "layer", "sample", "neuron", "before", "after")), strict=True)  # fmt: skip
        assert list(rows) == [
            (0.5, 0, 1, 0, 2, -1, 1), (1.25, 0, 2, 1, 1, -1, 0),
            (1.0, 1, 1, -1, 2, 1, -1),
            (1.5, 1, 1, 0, 0, -1, 1), (1.5, 1, 2, 0, 0, -1, 1), (1.5, 1, 2, -1, 1, 1, -1),
        ]  # fmt: skip
        assert path.statistics["crossings"].tolist() == [1, 2, 0]
        assert path.statistics["slides"].tolist() == [1, 0, 0]
        trajectory, start = path.starts()
        assert trajectory.tolist() == [0, 0, 0, 1, 1, 1]
        assert start.tolist() == TIMES.flatten().tolist()
        asked = torch.tensor([1, 0, 2, 1, 0, 0]), torch.tensor([3.0, 0.7, 0.0, 1.5, 0.5, 0.0], dtype=torch.float64)
        speed = (asked[0] + 1).double().reshape(-1, 1, 1)
        pairs = zip(path.evaluate(*asked).layers, path.velocity(*asked).layers, path.weights.layers, strict=True)
        for found, velocity, first in pairs:
            torch.testing.assert_close(found, first[asked[0]] + speed * asked[1].reshape(-1, 1, 1))
            assert torch.equal(velocity, speed.expand_as(velocity))
        first, second = path.pattern(*asked)
        assert (first.shape, second.shape) == ((6, 2, 3), (6, 2, 2))
        assert first[:, 0, 2].tolist() == [-1, 1, -1, -1, 1, -1]
        assert second[:, 1, 1].tolist() == [-1] * 6
        assert second[:, 0, 0].tolist() == [1, -1, -1, 1, -1, -1]


@BLOCKS
def test_parts_of_a_path_are_those_of_its_trajectories(blocks: list[list[tuple[int, int]]]) -> None:
    path = lines(blocks).of_trajectories(torch.tensor([2, 1, 1]))
    (record,) = path.records
    assert record.index.tolist() == [1, 1, 1, 2, 2, 2]
    assert record.time.tolist() == TIMES[[1, 1]].flatten().tolist()
    assert path.front.steps.tolist() == [0, 3, 3]
    assert path.events().trajectory.tolist() == [1] * 4 + [2] * 4
    unmoved = path.of_trajectories(torch.tensor([0]))
    assert len(unmoved.events()) == len(unmoved.starts()[0]) == 0
    assert unmoved.pattern(torch.tensor([0]), torch.zeros(1).double())[1].shape == (1, 2, 2)


def test_a_path_travels_with_its_kernel_and_goes_on_with_it() -> None:
    flow, weights = gaussian_data("fa", 2, samples=4, dimension=3, width=2)
    path = solve(flow, weights, 1.0).path
    assert isinstance(path, EventPath)
    assert path.kernel == kernel_for(flow, weights) == KERNELS["compiled"]
    for same in (pickle.loads(pickle.dumps(path)), copy.deepcopy(path)):
        assert same.kernel == path.kernel
        assert all(torch.equal(getattr(a, name), getattr(b, name))
                   for a, b in zip(same.records, path.records, strict=True) for name in COLUMNS)  # fmt: skip


def test_samples_have_the_side_of_their_kink_and_those_without_one_are_inactive() -> None:
    """x_1 = -2 x_0 shares a kink, x_2 = 0 has none; also where there are no kinks, with slope 1."""
    inputs = torch.tensor([[[1.0, 0.5], [-2.0, -1.0], [0.0, 0.0], [0.3, -1.0]]], dtype=torch.float64)
    weights = Weights(torch.tensor([[[0.4, 0.1], [-0.3, 0.2]]]), torch.tensor([[-0.5, 0.2]]))
    for slope in (0.3, 1.0):
        flow = Flow(Dataset(inputs, torch.tensor([[1.0, -1.0, 1.0, -1.0]])), SignFeedbackAlignment(), slope=slope)
        settings = Settings("event", 1e-8, 1e-10, 1000)
        path = begin_path(flow, weights, settings)
        records, front, _ = path.kernel.proceed(
            flow, path.front, path.order, path.reasons, torch.full((1,), 2.0).double(), settings, unnoticed
        )
        modes = torch.cat([record.side for record in records]).unique(dim=0)
        assert len(modes) > 1 or slope == 1, "kinks are crossed"
        for side in (path.front.side, front.side, *(record.side for record in records)):
            (of_samples,) = front.layout.split_sides(side)
            assert (of_samples[:, 2] == -1).all()
            assert torch.equal(of_samples[:, 1], -of_samples[:, 0])


def test_at_its_start_a_step_has_the_weights_that_it_starts_from_even_where_its_series_overflows() -> None:
    flow = Flow(Dataset([[1.0]], [1]), SignFeedbackAlignment())
    solution = solve(flow, Weights(torch.ones(1, 1), torch.tensor([-800.0])), 1.0, throw=False)
    assert solution.status.time == 0
    assert solution.evaluate(0.0).output.tolist() == [-800.0]
    assert not torch.isfinite(solution.velocity(0.0).output).all()


def test_a_time_is_answered_by_the_last_step_of_its_trajectory_that_has_opened_or_by_its_first() -> None:
    """Against a look at every step, with many that open at the same time, in their trajectory and in others."""
    generator = torch.Generator().manual_seed(0)

    def drawn(low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, high, (count,), generator=generator)

    for number in range(200):
        count = drawn(1, 9, 1 + number % 5)
        trajectory = torch.repeat_interleave(torch.arange(len(count)), count)
        opens = torch.cat(
            [own.sort().values for own in (drawn(-2, 12, len(trajectory)) / 4.0).double().split(count.tolist())]
        )
        steps = Steps(trajectory, trajectory, opens, opens, trajectory, trajectory, count, count.cumsum(0) - count)
        whose, times = drawn(0, len(count), 40), drawn(-3, 14, 40).double() / 4
        for one, time, found in zip(whose.tolist(), times.tolist(), steps.find(whose, times).tolist(), strict=True):
            own = [step for step in range(len(opens)) if trajectory[step] == one]
            assert found == max([step for step in own if opens[step] <= time], default=own[0])
