"""Packages that come with an extra: where one is missing, an error of one line says what to install."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """Import within what only an extra brings.

    Args:
        what: the function or command that cannot do without.
        extra: the name of the extra, as in pyproject.toml.

    Raises:
        ImportError: if a package is missing.

    >>> with needed("to_dataframe", "tables"):
    ...     import no_such_package
    Traceback (most recent call last):
    ImportError: to_dataframe needs no_such_package: pip install '.[tables]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ImportError(f"{what} needs {package}: pip install '.[{extra}]'", name=package) from None
