"""How far a command is: a bar for those who watch, lines at growing intervals in a log, and never an error."""

import contextlib
import io
import itertools
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
from flowsim.progress import Course, reporting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def seconds(step: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is looked at."""
    return itertools.count(100.0, step).__next__


def times_of(text: str) -> list[int]:
    return [int(line.split(" after ")[1].split(" s")[0]) for line in text.splitlines()]


def test_lines_come_after_twice_the_time_of_the_one_before_and_every_five_minutes_later_on() -> None:
    stream = io.StringIO()
    with reporting(stream, seconds(1.0)) as tell:
        for done in range(1, 2001):
            tell(done / 2000, f"case {done}")
    assert times_of(stream.getvalue()) == [10, 20, 40, 80, 160, 320, 620, 920, 1220, 1520, 1820]
    assert stream.getvalue().splitlines()[2] == "case 40: 2 % after 40 s, about 1960 s left"


def test_what_is_over_soon_says_nothing() -> None:
    stream = io.StringIO()
    with reporting(stream, seconds(1.0)) as tell:
        for done in range(1, 10):
            tell(done / 9, "quick")
    assert stream.getvalue() == ""


def test_what_tells_seldom_is_shown_when_it_does() -> None:
    stream = io.StringIO()
    with reporting(stream, seconds(1000.0)) as tell:
        tell(0.25, "slow [1/4]")
        tell(0.5, "slow")
    assert stream.getvalue() == "slow [1/4]: 25 % after 1000 s\nslow: 50 % after 2000 s, about 2000 s left\n"


def test_a_terminal_has_a_bar_that_goes_away() -> None:
    stream = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        with reporting(stream) as tell:
            tell(0.5, "case [bold]")
    text = stream.getvalue()
    assert "case [bold]" in text and "50%" in text
    assert text.endswith("\x1b[2K"), "the line is erased"


def test_a_terminal_that_cannot_move_its_cursor_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with reporting(stream, seconds(20.0)) as tell:
        tell(0.5, "case")
    assert stream.getvalue() == "case: 50 % after 20 s\n"


def test_a_terminal_has_lines_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich", None)
    stream = Terminal()
    with reporting(stream, seconds(20.0)) as tell:
        tell(0.5, "case")
    assert stream.getvalue() == "case: 50 % after 20 s\n"


def test_a_line_that_cannot_be_written_ends_nothing() -> None:
    with reporting(Full(), seconds(20.0)) as tell:
        tell(0.5, "case")


@pytest.mark.parametrize(("count", "t_final", "terminal"), [(1, 1e307, True), (4, 1e308, False)])
def test_progress_changes_no_run_however_long(
    count: int, t_final: float, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    weights = Weights(torch.full((count, 1, 1), 0.5), torch.full((count, 1), 0.3))
    quiet = solve(flow, weights, t_final).evaluate(t_final)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    told = solve(flow, weights, t_final, progress=True).evaluate(t_final)
    assert torch.equal(told.hidden, quiet.hidden)


@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_a_solve_tells_the_share_of_the_way_of_all_trajectories(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []

    @contextlib.contextmanager
    def listening() -> Iterator[Callable[[float, str], None]]:
        yield lambda share, doing: shares.append(share)

    monkeypatch.setattr(sys.modules["flowsim.solving"], "reporting", listening)
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    solve(flow, Weights(torch.full((4, 1, 1), 0.5), torch.full((4, 1), 0.3)), 2.0, method=method, progress=True)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, rel=1e-12)


def told(steps: list[float], window: int) -> list[tuple[float, float]]:
    """The share of the steps that were taken, and the share told, after each window of them."""
    course, shares = Course(), [0.0]
    for start in range(0, len(steps), window):
        end = min(start + window, len(steps))
        shares.append(shares[-1] + course.gained(steps[start:end], [*steps, 1.0][end]))
    return [(min(number * window, len(steps)) / len(steps), share) for number, share in enumerate(shares)]


@pytest.mark.parametrize("window", [1, 64])
def test_steps_of_one_length_are_shares_of_time(window: int) -> None:
    for taken, share in told([number / 1000 for number in range(1000)], window):
        assert share == pytest.approx(taken, abs=0.01)


@pytest.mark.parametrize("window", [1, 64])
@pytest.mark.parametrize("decades", [3, 9])
def test_steps_that_grow_with_time_are_told_by_their_number_from_early_on(window: int, decades: int) -> None:
    """Where half of the steps are taken only 10^(-decades/2) of the time is over."""
    start = 10.0**-decades
    steps = [start * ((1 + 1 / start) ** (number / 1000) - 1) for number in range(1000)]
    found = told(steps, window)
    assert found[-1][1] == pytest.approx(1.0)
    assert all(abs(share - taken) < 0.1 for taken, share in found if taken > 0.1)


def test_what_was_told_is_never_taken_back() -> None:
    """Steps that first grow, and then do not."""
    shares = [share for _, share in told([1e-9, 1e-6, 1e-3, *(number / 100 for number in range(1, 100))], 1)]
    assert shares == sorted(shares)


def test_a_long_run_is_told_by_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where half of the steps are taken a hundredth of the time is over."""
    shares: list[float] = []

    @contextlib.contextmanager
    def listening() -> Iterator[Callable[[float, str], None]]:
        yield lambda share, doing: shares.append(share)

    monkeypatch.setattr(sys.modules["flowsim.solving"], "reporting", listening)
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    solve(flow, Weights(torch.ones(1, 1), torch.ones(1)), 1e4, method="dopri5", progress=True)
    assert len(shares) > 50
    assert abs(shares[len(shares) // 2] - 0.5) < 0.15
