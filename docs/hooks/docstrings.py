"""Docstrings as Markdown: names and shapes as they stand in code, where Markdown would take them for its own signs."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = r"^>>> .*(?:\n(?!\s*$).*)*"
CODE = re.compile(rf"({EXAMPLE}|`[^`]*`|^ {{4,}}.*$)", re.MULTILINE)
MARKS = str.maketrans({"*": r"\*", "[": r"\[", "]": r"\]", "<": "&lt;"})


class Plain(Extension):
    """Escapes `*batch`, `<grad, fa>` and `W[:, i]` where they are no code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = escaped(obj.docstring.value)


def escaped(text: str) -> str:
    r"""A docstring with Markdown's signs escaped outside of code, and its example as a block of code.

    >>> print(escaped("`*batch x n`, and *batch x d, <grad, fa>"))
    `*batch x n`, and \*batch x d, &lt;grad, fa>
    """
    parts = CODE.split(text)
    return "".join(_code(part) if number % 2 else part.translate(MARKS) for number, part in enumerate(parts))


def _code(part: str) -> str:
    return f"```pycon\n{part}\n```" if part.startswith(">>>") else part
