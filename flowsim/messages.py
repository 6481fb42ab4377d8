"""What is said of errors that others raise."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none.

    >>> first_line(RuntimeError("no memory" + chr(10) + "details"))
    'no memory'
    """
    return (str(error).splitlines() or [type(error).__name__])[0]
