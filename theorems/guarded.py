"""What stands in the place of a check that cannot be made: undecided, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowsim import IntegrationError, Undecided
from flowsim.shell import is_out_of_memory, mistake
from theorems.check import Check, DoesNotApplyError, Role, Statement
from theorems.measurement import NoMarginError

if TYPE_CHECKING:
    from theorems.rigorous import statement as rigorous

    AnyStatement = Statement | rigorous.Statement


def guarded(statement: AnyStatement, label: str, role: Role, decide: Callable[[], Check]) -> Check:
    """The check that `decide` makes; where that fails it is undecided, with the reason."""
    try:
        return decide()
    except Exception as stop:
        return undecided(statement, label, role, reason(stop))


def undecided(statement: AnyStatement, label: str, role: Role, why: dict[str, str]) -> Check:
    """The check of a case that could not be solved or measured."""
    return Check(statement.name, label, role, "undecided", None, None, 0, dict(why), statement.beyond)


def reason(stop: Exception) -> dict[str, str]:
    """Why there is no verdict, for its details; with `error` and `traceback` for a mistake of this program's own.

    >>> reason(NoMarginError("the loss overflows"))
    {'reason': 'the loss overflows'}
    """
    if isinstance(stop, (IntegrationError, NoMarginError, DoesNotApplyError, Undecided)):
        return {"reason": str(stop)}
    if is_out_of_memory(stop):
        return {"reason": "there is not enough memory"}
    _, error, traceback = mistake("", stop)
    return {"reason": f"internal error: {error}", "error": error, "traceback": traceback}
