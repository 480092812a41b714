"""Errors that a user can cause and mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's.

    The message is one clear sentence: what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with code 2.
    """


class DataError(UserError):
    """A data set that cannot be found, read or used."""


class UserNote(UserWarning):
    """A warning whose message is one clear sentence for the user.

    The command line prints it without file and line, as a note.
    """
