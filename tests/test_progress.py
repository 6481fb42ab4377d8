"""How far a run is, where nobody looks at a terminal."""

import io
import itertools
import sys

import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
from flowsim.progress import Lines, shown

UNIT = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))


def test_lines_come_at_intervals_that_grow() -> None:
    """200 shares of a second each, on a clock that is told what time it is: after 1, 3, 7, .. seconds."""
    now, stream = 0.0, io.StringIO()
    lines = Lines("solving", 200.0, stream, lambda: now)
    for _ in range(200):
        now += 1.0
        lines.gained(1.0)
    lines.end()
    said = stream.getvalue().splitlines()
    assert said == [
        "solving",
        *[f"solving: {second / 2:.1f}% after {second} s" for second in (1, 3, 7, 15, 31, 63, 127)],
        "solving: 100.0% after 200 s, done",
    ]


def test_at_last_they_come_every_ten_minutes() -> None:
    now, stream = 0.0, io.StringIO()
    lines = Lines("solving", 1e5, stream, lambda: now)
    for _ in range(10_000):
        now += 10.0
        lines.gained(10.0)
    seconds = [int(line.split(" after ")[1].removesuffix(" s")) for line in stream.getvalue().splitlines()[1:]]
    assert {later - earlier for earlier, later in itertools.pairwise(seconds[10:])} == {600}


@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_a_redirected_solve_says_that_it_started_and_ended(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    solve(UNIT, Weights(torch.full((4, 1, 1), 0.5), torch.full((4, 1), 0.3)), 2.0, method=method, progress=True)
    first, *_, last = stream.getvalue().splitlines()
    assert first == "solving 4 x [0, 2]"
    assert last.startswith("solving 4 x [0, 2]: 100.0% after ")
    assert last.endswith(" s, done")


@pytest.mark.parametrize(("count", "t_final"), [(1, 1e307), (4, 1e308)])
@pytest.mark.parametrize("terminal", [False, True])
def test_progress_changes_no_run_however_long(
    count: int, t_final: float, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(torch.full((count, 1, 1), 0.5), torch.full((count, 1), 0.3))
    quiet = solve(UNIT, weights, t_final).evaluate(t_final)
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    told = solve(UNIT, weights, t_final, progress=True).evaluate(t_final)
    assert torch.equal(told.hidden, quiet.hidden)
    assert "100" in stream.getvalue()


def test_a_task_that_fails_is_not_said_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with pytest.raises(RuntimeError), shown("it", 1.0):
        raise RuntimeError
    assert stream.getvalue() == "it\n"
