"""What is said in errors: the first line of one that others raised, and which name was meant."""

import difflib
from collections.abc import Iterable


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none.

    >>> first_line(RuntimeError("no memory" + chr(10) + "details"))
    'no memory'
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


def meant(value: str, names: Iterable[str]) -> str:
    """What is added to an error where a name is nearly one of those that there are.

    >>> meant("lema_5_4", ["equation_1", "lemma_5_4"]), meant("x", ["equation_1"])
    (': did you mean lemma_5_4?', '')
    """
    near = difflib.get_close_matches(value, names, 1)
    return f": did you mean {near[0]}?" if near else ""
