"""The compiled kernel as Python sees it: one trajectory after another, or several at once on threads of their own.

What a trajectory does is the same to the last bit whatever its company.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from threadpoolctl import ThreadpoolController
from torch import Tensor

from flowsim.data import Dataset
from flowsim.flat import join
from flowsim.flow import Flow
from flowsim.integrators import INTERRUPTED, Settings, smallest_margin, too_steep, unnoticed
from flowsim.integrators.event import reasons as words
from flowsim.integrators.event.compiled import problem as core
from flowsim.integrators.event.compiled.compiling import compile_once
from flowsim.integrators.event.compiled.loop import advance, evaluate_steps
from flowsim.integrators.event.compiled.problem import (
    END,
    IDLES,
    ROUNDS,
    STEPS,
    TIME,
    UNIT,
    Problem,
    State,
    Workspace,
    workspace,
)
from flowsim.integrators.event.compiled.scope import find_problems, require_decaying
from flowsim.integrators.event.crawl import Crawl, Crawling, split_hopeless, warn_of
from flowsim.integrators.event.kernel import Kernel, Reasons
from flowsim.integrators.event.records import Front, Layout, Record, open_steps
from flowsim.integrators.event.tolerances import WINDOW
from flowsim.progress import Course
from flowsim.rules import FeedbackAlignment
from flowsim.weights import DeepWeights, NetworkWeights

STOPS = {
    core.VANISHES: words.VANISHES,
    core.OVERFLOWS: words.OVERFLOWS,
    core.SERIES_OVERFLOWS: words.SERIES_OVERFLOWS,
    core.UNSETTLED: words.UNSETTLED,
    core.AT_APEX: words.AT_APEX,
    core.AMBIGUOUS: words.AMBIGUOUS,
}
"""Why a trajectory cannot go on, by how the core returned."""

LOST = 1.0
"""Seconds without news after which those who are not done are counted again."""


def begin(flow: Flow, weights: NetworkWeights, settings: Settings) -> tuple[Front, Reasons]:
    """Where the trajectories of a flattened ensemble start, and why some cannot.

    Raises:
        ValueError: for inputs whose squares over- or underflow; in logarithmic time, for a loss that does not fit it.
    """
    if settings.logarithmic:
        require_decaying(flow)
    layout = Layout.of(flow, weights)
    problems = find_problems(flow, layout, settings.logarithmic)
    states = [_make_state(layout, start) for start in join(weights.layers).numpy()]
    finite = torch.isfinite(join(flow.velocity(weights).layers)).all(-1).tolist()
    reasons: list[str | None] = []
    compile_core()
    with _one_thread_for_products():
        for index, (problem, state) in enumerate(zip(problems, states, strict=True)):
            rows, event = _make_rows(layout, 0), np.zeros(1, np.bool_)
            end, _ = advance(problem, state, workspace(problem, 1), 1, 0.0, 0.0, True, 0, *rows, event)
            if not finite[index] or end == core.TOO_STEEP:
                reasons.append(too_steep(smallest_margin(flow, weights)[index]))
            else:
                reasons.append(None if end == core.GOES_ON else STOPS[end])
    return _as_front(layout, states), tuple(reasons)


def proceed(
    flow: Flow,
    front: Front,
    order: int,
    reasons: Reasons,
    ends: Float[Tensor, " ensemble"],
    settings: Settings,
    advanced: Callable[[float], None] = unnoticed,
) -> tuple[list[Record], Front, Reasons]:
    """Go on with every trajectory to its end, on as many threads as torch has.

    Args:
        flow: of the flattened ensemble.
        front: where they are.
        order: of the series.
        reasons: why some of them stopped before.
        ends: of the time intervals.
        settings: tolerances per step, in the maximum norm over a trajectory's weights; steps allowed.
        advanced: called now and then with the share of the work done.
    """
    found = list(reasons)
    free = [index for index, reason in enumerate(reasons) if reason in (None, INTERRUPTED)]
    under_way = [index for index in free if front.time[index] < ends[index]]
    tracks = [_Track(flow, front, order, settings, index, ends[index].item()) for index in under_way]
    compile_core()
    with _one_thread_for_products(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        stop = threading.Event()
        futures = _start(pool, tracks, news, stop)
        _report(futures, news, stop, advanced)
        for future in futures:
            future.result()
    states = {track.index: track.state for track in tracks}
    for track in tracks:
        found[track.index] = track.explain()
    after = [states.get(index) or _state_of(front, index) for index in range(len(found))]
    records = [record for track in tracks for record in track.records]
    return records, _as_front(front.layout, after), tuple(found)


def evaluate(
    flow: Flow,
    starts: Record,
    length: Float[Tensor, " steps"],
    which: Int[Tensor, " times"],
    share: Float[Tensor, " times"],
    order: int,
    derivative: bool,
    logarithmic: bool,
) -> Float[Tensor, "times parameters"]:
    """Weights, or their derivatives, at shares of steps; the times of one step lie together."""
    problems = find_problems(flow, starts.layout, logarithmic)
    sums, trajectory = np.empty((len(share), starts.layout.parameters)), starts.index.numpy()
    steps = starts.time.contiguous().numpy(), starts.weights.numpy(), starts.side.numpy(), starts.sign.numpy()
    lengths, shares = length.contiguous().numpy(), share.contiguous().numpy()
    first = np.searchsorted(which.numpy(), np.arange(len(length) + 1))  # of the times of each step
    bounds = [0, *(np.flatnonzero(np.diff(trajectory)) + 1).tolist(), len(length)]

    def sum_up(start: int, stop: int) -> None:
        problem = problems[trajectory[start]]
        state, times = _make_state(starts.layout, steps[1][start]), slice(first[start], first[stop])
        evaluate_steps(
            problem, state, workspace(problem, order), order, *(column[start:stop] for column in steps),
            lengths[start:stop], first[start : stop + 1] - first[start], shares[times], derivative,
            sums[times],
        )  # fmt: skip

    compile_core()
    with _one_thread_for_products():
        threads = min(torch.get_num_threads(), len(bounds) - 1)
        if threads < 2:
            for start, stop in itertools.pairwise(bounds):
                sum_up(start, stop)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(sum_up, bounds[:-1], bounds[1:]))
    return torch.from_numpy(sums)


def compile_core() -> None:
    """Compile and store the core, unless that was done before on this machine."""
    compile_once(_try_core)


def _try_core() -> None:
    """Call what is compiled with arrays of the types that it is called with."""
    one = torch.ones(1, 1, 1)
    flow, weights = Flow(Dataset(one, [[1]]), FeedbackAlignment((one,))), DeepWeights((one, one))
    layout = Layout.of(flow, weights)
    (problem,), state = find_problems(flow, layout, False), _make_state(layout, np.ones(2))
    work, rows = workspace(problem, 3), _make_rows(layout, 1)
    advance(problem, state, work, 3, 1e-3, 1e-3, True, 0, *rows, np.zeros(1, np.bool_))
    first, shares, sums = np.zeros(2, np.int64), np.zeros(0), np.zeros((0, 2))
    evaluate_steps(problem, state, work, 3, *rows, np.ones(1), first, shares, False, sums)


KERNEL = Kernel(begin, proceed, evaluate)


class _News(NamedTuple):
    """What a thread tells the one that waits: the share of the work done, that it is done, or what crawls."""

    trajectory: int
    gained: float
    done: bool
    crawls: Crawling | None = None


def _start(
    pool: ThreadPoolExecutor, tracks: list[_Track], news: queue.SimpleQueue[_News], stop: threading.Event
) -> list[Future[None]]:
    """Have all trajectories followed; after an interruption no more of them."""
    futures = []
    try:
        for track in tracks:
            futures.append(pool.submit(track.follow, news, stop))
    except KeyboardInterrupt:
        stop.set()
    return futures


def _report(
    futures: list[Future[None]],
    news: queue.SimpleQueue[_News],
    stop: threading.Event,
    advanced: Callable[[float], None],
) -> None:
    """Wait until all are done, and hand on what they tell. After an interruption they stop where they can go on."""
    warned, left = False, len(futures)
    while left > 0:
        try:
            told = news.get(timeout=LOST)
            left -= told.done
            advanced(told.gained)
            if told.crawls is not None and not warned:
                warned = True
                warn_of(told.trajectory, told.crawls)
        except queue.Empty:
            left = sum(not future.done() for future in futures)
        except KeyboardInterrupt:  # it may come at any place, even where what was told is lost
            stop.set()
        except BaseException:
            stop.set()
            raise


class _Track:
    """One trajectory under way, and what it leaves behind."""

    def __init__(self, flow: Flow, front: Front, order: int, settings: Settings, index: int, end: float) -> None:
        self.flow, self.layout, self.index, self.order, self.settings = flow, front.layout, index, order, settings
        self.problem = find_problems(flow, front.layout, settings.logarithmic)[index]
        self.state = _state_of(front, index)
        clock = self.state.clock
        clock[END], clock[UNIT], self.way = end, min(clock[UNIT], end), end - clock[TIME]
        self.resumed = clock[TIME] if self.state.counts[STEPS] > 0 else -1.0
        self.most = self.state.counts[STEPS] + settings.max_steps
        self.records: list[Record] = []
        self.first, self.course = clock[TIME], Course()
        self.end: int | str | None = INTERRUPTED

    def follow(self, news: queue.SimpleQueue[_News], stop: threading.Event) -> None:
        """Go on until the end, until it cannot, or until it is told to stop."""
        try:
            with torch.inference_mode():
                self._follow(news, stop)
        finally:
            news.put(_News(self.index, 0.0, True))

    def _follow(self, news: queue.SimpleQueue[_News], stop: threading.Event) -> None:
        work, crawl = _borrow_workspace(self.problem, self.order), Crawl(*self._now(), self.settings.symbol)
        while not stop.is_set():
            known = len(self.records)
            end, event = self._go_on(work)
            begun = [self._share(time) for record in self.records[known:] for time in record.time.tolist()]
            news.put(_News(self.index, self.course.gained(begun, self._share(self.state.clock[TIME])), False))
            if end != core.GOES_ON:
                self.end = None if end == core.ENDED else end
                return
            left = int(self.most - self.state.counts[STEPS])
            if left <= 0:
                self.end = words.describe_exhaustion(self.settings)
                return
            goal = torch.from_numpy(self.state.clock[END : END + 1])
            crawls = crawl.look(torch.zeros(1, dtype=torch.long), *self._now(), torch.tensor([event]), goal)
            hopeless, slow = split_hopeless(crawls, [left])
            if hopeless:
                self.end = str(hopeless[0])
                return
            if slow:
                news.put(_News(self.index, 0.0, False, slow[0]))

    def _share(self, time: float) -> float:
        """Of the way in time."""
        return float((time - self.first) / self.way)

    def _now(self) -> tuple[Tensor, Tensor, Tensor]:
        state = self.state
        return (
            torch.from_numpy(state.clock[TIME : TIME + 1].copy()), torch.from_numpy(state.weights[None].copy()),
            torch.from_numpy(state.counts[STEPS : STEPS + 1].copy()),
        )  # fmt: skip

    def _go_on(self, work: Workspace) -> tuple[int, bool]:
        """A window of rounds. Return how it ended, and whether there was an event."""
        rows = _make_rows(self.layout, int(min(WINDOW, self.most - self.state.counts[STEPS])))
        event, rtol, atol = np.zeros(1, np.bool_), self.settings.rtol, self.settings.atol
        end, steps = advance(self.problem, self.state, work, self.order, rtol, atol, False, WINDOW, *rows, event)
        if steps:
            taken = (row[:steps].copy() if steps < len(row) else row for row in rows)
            time, weights, side, sign = (torch.from_numpy(row) for row in taken)
            opens = open_steps(time, torch.full_like(time, self.resumed))
            index = torch.full((steps,), self.index)
            self.records.append(Record(self.layout, index, time, opens, weights, side, sign))
        return end, bool(event[0])

    def explain(self) -> str | None:
        """Why it stopped, in the problem's words."""
        if not isinstance(self.end, int):
            return self.end
        if self.end == core.OVERFLOWS:
            return STOPS[self.end]
        layers = self.layout.split_weights(torch.from_numpy(self.state.weights)[None])
        everyone = DeepWeights.sharing([layer.expand(len(self.flow.dataset.inputs), -1, -1) for layer in layers])
        own, weights = self.flow.map_matrices(everyone, lambda matrix: matrix[self.index : self.index + 1])
        return f"{STOPS[self.end]}: {words.describe_state(own, weights, 0)}"


_BORROWED = threading.local()


def _borrow_workspace(problem: Problem, order: int) -> Workspace:
    """The workspace of this thread: that of the trajectory before, if it has the right shapes."""
    wanted = order, *problem.widths.tolist(), *problem.at_feedback.tolist(), *problem.targets.shape
    if getattr(_BORROWED, "shapes", None) != wanted:
        _BORROWED.shapes, _BORROWED.workspace = wanted, workspace(problem, order)
    return _BORROWED.workspace


def _make_rows(layout: Layout, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where the core writes times, weights, sides and signs of the starts of steps."""
    return (
        np.empty(count), np.empty((count, layout.parameters)), np.empty((count, layout.kinks), np.int8),
        np.empty((count, layout.entries), np.int8),
    )  # fmt: skip


def _make_state(layout: Layout, weights: np.ndarray) -> State:
    kinks, entries = layout.kinks, layout.entries
    return State(
        weights.copy(), np.zeros(kinks, np.int8), np.zeros(entries, np.int8), np.zeros(kinks, np.int8),
        np.zeros(entries, np.int8), np.zeros(4), np.zeros(3, np.int64), np.zeros(3, np.int64),
        np.zeros(kinks, np.int64),
    )  # fmt: skip


def _state_of(front: Front, index: int) -> State:
    """The state of one trajectory, of its own."""
    state = _make_state(front.layout, front.weights[index].numpy())
    for name in ("side", "sign", "contact", "sign_contact"):
        getattr(state, name)[:] = getattr(front, name)[index].numpy()
    state.clock[:3] = front.time[index], front.time[index], front.unit[index]
    state.counts[:] = front.steps[index], front.rounds[index], front.idle[index]
    return state


def _as_front(layout: Layout, states: list[State]) -> Front:
    columns = {
        name: torch.from_numpy(np.stack([getattr(state, name) for state in states]))
        for name in ("weights", "side", "sign", "contact", "sign_contact", "clock", "counts")
    }
    clock, counts = columns.pop("clock"), columns.pop("counts")
    return Front(
        layout, time=clock[:, TIME].clone(), unit=clock[:, UNIT].clone(), steps=counts[:, STEPS].clone(),
        rounds=counts[:, ROUNDS].clone(), idle=counts[:, IDLES].clone(), **columns,
    )  # fmt: skip


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _one_thread_for_products() -> Iterator[None]:
    """The core has threads of its own, and a product is rounded differently when BLAS splits it among others."""
    with _controller().limit(limits=1, user_api="blas"):
        yield
