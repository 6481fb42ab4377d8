"""Docstrings as Markdown: names and shapes as they stand in code, where Markdown would take them for its own signs."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

CODE = re.compile(r"(`[^`]*`|^(?: {4,}|>>>|\.\.\.).*$)", re.M)
MARKS = str.maketrans({"*": r"\*", "[": r"\[", "]": r"\]", "<": "&lt;"})


class Plain(Extension):
    """Escapes `*batch`, `<grad, fa>` and `W[:, i]` where they are no code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = escaped(obj.docstring.value)


def escaped(text: str) -> str:
    r"""A docstring with Markdown's signs escaped outside of code.

    >>> print(escaped("`*batch x n`, and *batch x d, <grad, fa>"))
    `*batch x n`, and \*batch x d, &lt;grad, fa>
    """
    parts = CODE.split(text)
    return "".join(part if number % 2 else part.translate(MARKS) for number, part in enumerate(parts))
