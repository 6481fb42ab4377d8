"""What types are checked with at run time, by tests/test_types.py: arguments, returned values and fields."""

import io
from typing import IO, Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

check = beartype(
    # a whole number is a float, as for pyright; what a method of a class returns of its own kind is left to pyright
    conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: Any, IO[str]: io.IOBase}))
)
