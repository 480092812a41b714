"""Opening a database, without its password in anything that is printed or kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from ghnas.utils.errors import UserError, first_line

_TRIES, _PAUSE = 10, 0.2
"""How often the tables are made, where others make them at the same time, and seconds between."""
_SECRET_SETTINGS = ("password", "passwd", "sslpassword")
"""Of a URL's query, where drivers take a password too."""

# of a connection that ends badly SQLAlchemy logs the traceback besides raising its error; a program
# that wants its log gets it still
logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())


def without_password(url: str) -> str:
    """The URL as it may be printed and kept; its driver then looks elsewhere for the password, that
    of PostgreSQL in `PGPASSWORD` and `~/.pgpass`."""
    parsed = _parsed(url)
    if parsed is None:  # what cannot be read may hold a password anywhere
        scheme, _, rest = url.rpartition("://")
        return f"{scheme}://..." if scheme else "..." if "@" in rest or "?" in rest else rest
    if not _passwords(parsed):
        return url
    bare = URL.create(
        parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database,
        {key: value for key, value in parsed.query.items() if key not in _SECRET_SETTINGS},
    )  # fmt: skip
    return bare.render_as_string()


def open_database(url: str) -> RDBStorage:
    """Optuna's storage in a database; its tables are made if need be.

    Raises:
        UserError: If the URL is none, its driver is not installed, or the database cannot be
            reached or does not let the user in.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for _ in range(_TRIES - 1):
            try:
                return _open(url)
            except DBAPIError as error:  # another process makes the tables at the same time
                if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                    raise
                time.sleep(_PAUSE)
        return _open(url)
    except ImportError as error:
        raise UserError(
            f"storage {without_password(url)!r}: cannot be opened, its driver is not installed; "
            "for PostgreSQL: pip install 'ghnas[postgresql]' and a URL that begins with "
            "postgresql+psycopg://"
        ) from error
    except Exception as error:  # SQLAlchemy and the drivers raise classes of their own
        raise UserError(
            f"storage {without_password(url)!r}: cannot be opened "
            f"({_problem(error, url)}){_advice(url)}"
        ) from None  # the URL with its password is in what those say


def _open(url: str) -> RDBStorage:
    # a connection that the server has closed meanwhile is opened again
    return _Database(url, engine_kwargs={"pool_pre_ping": True})


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn errors of a database into a sentence that names it."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        cause = error.__cause__ or error  # Optuna's own text names no cause
        raise UserError(
            f"storage {without_password(url)!r}: cannot be read or written "
            f"({_problem(cause, url)}); what was recorded is kept, run the same command to go on"
        ) from None
    except (ValueError, TypeError) as error:  # of what it holds, which is JSON
        raise UserError(
            f"storage {without_password(url)!r}: damaged ({_problem(error, url)}); put back a copy "
            "of it, or start a new search"
        ) from None


class _Database(RDBStorage):
    """Optuna's storage in a database, whose errors are sentences, whoever calls it."""

    def _get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        found = super()._get_trials(*arguments, **options)
        if any(trial.number is None for trial in found):  # Optuna would compare it with others
            raise ValueError("a trial has no number")
        return found


_READ_TRIALS = ("_get_trials", "get_all_trials", "get_trial")
"""Methods whose KeyError is of a trial's row; that of others is of a study that is not there."""


def _in_a_sentence(method: Callable[..., Any]) -> Callable[..., Any]:
    missing = () if method.__name__ in _READ_TRIALS else (KeyError,)

    @wraps(method)
    def call(self: _Database, *arguments: Any, **options: Any) -> Any:
        with database_errors(self.url):
            try:
                return method(self, *arguments, **options)
            except (OptunaError, SQLAlchemyError, OSError, MemoryError, UserError, *missing):
                raise
            except Exception as error:  # a damaged row makes Optuna raise nearly every kind
                raise ValueError(first_line(error)) from error

    return call


for _name in (*BaseStorage.__abstractmethods__, "_get_trials"):
    setattr(_Database, _name, _in_a_sentence(getattr(_Database, _name)))


def _parsed(url: str) -> URL | None:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        return None


def _problem(error: BaseException, url: str) -> str:
    """What an error says, without a password, and without what the driver says around it."""
    parsed = _parsed(url)
    if parsed is None:
        return "it is no URL of a database"
    text = first_line(error).rpartition("FATAL:")[2].strip()
    for secret in _passwords(parsed):
        text = text.replace(secret, "***")
    return text


def _passwords(parsed: URL) -> list[str]:
    given = [parsed.password, *(parsed.query.get(key) for key in _SECRET_SETTINGS)]
    return [str(secret) for secret in given if secret]


def _advice(url: str) -> str:
    parsed = _parsed(url)
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "mysql", "mariadb"):
        return (
            "; expected an Optuna database URL such as sqlite:///search.db or "
            "postgresql+psycopg://user@host/database"
        )
    if parsed.get_backend_name() == "postgresql" and not _passwords(parsed):
        return "; a run keeps no password: set PGPASSWORD or write ~/.pgpass"
    return ""
