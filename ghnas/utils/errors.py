"""Errors that a user can cause and mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's.

    The message is one clear sentence: what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with code 2.

    Example:
        >>> import ghnas
        >>> try:
        ...     ghnas.load_space("darts").parse("no genotype")
        ... except ghnas.UserError as error:
        ...     print(str(error).partition(":")[0])
        not a genotype in the DARTS notation
    """


class DataError(UserError):
    """A data set that cannot be found, read or used.

    Example:
        >>> import ghnas
        >>> try:
        ...     ghnas.load_data("./no-such-folder")
        ... except ghnas.DataError as error:
        ...     print(str(error).partition(":")[0])
        The data folder ./no-such-folder does not exist
    """


class UserNote(UserWarning):
    """A warning whose message is one clear sentence for the user.

    The command line prints it without file and line, as a note.
    """


def first_line(error: BaseException) -> str:
    """An error's first line without its full stop, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


MOST_CHARACTERS = 280
"""Of an error; with what the command line puts before it, less than 300."""


def one_sentence(text: str) -> str:
    """An error's text for a terminal: a line of at most `MOST_CHARACTERS`, without control
    characters, which a file's content could bring in. What is too long loses its middle, for it
    begins with what is wrong and ends with what to do."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    if len(line) <= MOST_CHARACTERS:
        return line
    end = MOST_CHARACTERS // 3
    return f"{line[: MOST_CHARACTERS - end - 5]} ... {line[-end:]}"
