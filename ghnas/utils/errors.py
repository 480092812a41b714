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
        not a genotype in the DARTS notation (invalid syntax (<unknown>, line 1))
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
