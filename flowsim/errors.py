"""What goes wrong while solving: errors that hand over what was reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it loads torch
    from flowsim.solution import Solution


class IntegrationError(RuntimeError):
    """A solve in which a trajectory could not go on. `time` and `reason` say where and why.

    They belong to trajectory `index` of the flattened ensemble, the first of those that stopped. `solution` is what all
    of them reached, each up to a time of its own (`Solution.status`), the others to the end; None if not a single step
    was taken.
    """

    def __init__(self, time: float, reason: str, index: int, solution: Solution | None) -> None:
        symbol = "t" if solution is None else solution.settings.symbol
        super().__init__(f"trajectory {index} stopped at {symbol} = {time:.6g}: {reason}")
        self.time, self.reason, self.index, self.solution = time, reason, index, solution

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.time, self.reason, self.index, self.solution), self.__dict__


class UndefinedError(ValueError):
    """A quantity that the rule does not have on such a network, as alignment under direct feedback past layers."""


class IntegrationInterrupt(KeyboardInterrupt):
    """A solve that was interrupted from the keyboard. `solution` is what was reached; `extend` goes on from there."""

    def __init__(self, solution: Solution) -> None:
        status = solution.status
        super().__init__(f"interrupted; trajectories reached {status.symbol} = {status.time.min().item():.6g} at least")
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.solution,), self.__dict__


class Undecided(RuntimeError):  # noqa: N818, the verdict has that name, too
    """An enclosure that cannot go on without a guess. `reason` says what is not decided, `time` near which time.

    A start may have several solutions, or two events may come too close to each other for the bits allowed. `final` if
    it is proved that more bits do not help.
    """

    def __init__(self, reason: str, time: float | None = None, final: bool = False) -> None:
        super().__init__(reason if time is None else f"undecided at t = {time:.6g}: {reason}")
        self.reason, self.time, self.final = reason, time, final

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.time, self.final), self.__dict__
