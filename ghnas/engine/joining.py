"""A study in a database that several processes, on several machines, fill together: starting it,
and taking part in it. How they share the scoring out is said in `ghnas.engine.databases.claims`."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from pathlib import Path

from optuna.storages import RDBStorage

from ghnas.engine.databases.claims import add_pieces
from ghnas.engine.databases.connection import database_errors, open_database
from ghnas.engine.manifest import Joined, Manifest, parse_manifest, read_manifest
from ghnas.engine.run import CLAIMS, MANIFEST, Run
from ghnas.engine.samplers import Sampler
from ghnas.engine.storage import StudyExistsError, create_study, writing
from ghnas.utils.errors import UserError
from ghnas.utils.files import is_empty, write_atomically

PIECE, LEARNING_PIECE = 64, 16
"""Candidates that a process claims at a time: of a sampler that does not learn from values, and of
one that does, whose next batch waits for this one. Multiples of what is predicted together."""
AHEAD = 8
"""Batches that are scored before an earlier one is recorded: with two pieces each, work for nine
processes that score two at a time."""
STARTING = 10.0
"""Seconds that a process waits for another one that has begun to make the study."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_KEPT = "ghnas:manifest"
"""The attribute of a joined study's pieces that holds the manifest."""


def shares(sampler: Sampler) -> Joined:
    """How processes share the search of a sampler out.

    Raises:
        UserError: If it would ask for other candidates in each of them.
    """
    if not sampler.repeatable:
        raise UserError(
            "processes that join a study must all ask for the same candidates, which this sampler "
            "does not promise: use one that `ghnas search` knows by name"
        )
    return Joined(piece=LEARNING_PIECE if sampler.learns else PIECE, ahead=AHEAD)


def check_study_name(name: str) -> None:
    """Make sure that a study can have that name, and a folder too.

    Raises:
        UserError: If not.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"--join {name!r}: a study's name has up to 100 letters, digits, dots and dashes"
        )


def joined_manifest(url: str, study: str) -> Manifest | None:
    """What a joined study was started with; None if there is no such study.

    Args:
        url: Of the database.
        study: Its name.

    Raises:
        UserError: If the database cannot be opened, or the study was not started to be joined.
    """
    storage, until = open_database(url), time.monotonic() + STARTING
    with database_errors(url):
        while _has(storage, _pieces_of(study)):
            number = storage.get_study_id_from_name(_pieces_of(study))
            kept = storage.get_study_system_attrs(number).get(_KEPT)
            if kept is not None:
                return parse_manifest(json.loads(kept), f"study {study!r}")
            if time.monotonic() > until:  # whoever began was killed: the next one does it
                return None
            time.sleep(0.1)
        if _has(storage, study):
            raise UserError(
                f"study {study!r} was not started with --join: choose another name, or delete it "
                "with `optuna delete-study`"
            )
    return None


def join_run(path: Path, manifest: Manifest, url: str) -> Run:
    """A run of this process on a study that several fill, which the first of them makes.

    Args:
        path: Of the run's folder; if there is one of this study already, it is gone on with.
        manifest: What to search; its sources are those of this machine.
        url: Of the database.

    Raises:
        UserError: If the study was started with something else, the folder holds another run or
            cannot be written, or the database does not answer.
    """
    joined_manifest(url, manifest.study_name)  # waits for a process that has begun to make it
    shared = _make_study(url, manifest)
    if difference := shared.difference(manifest):
        raise UserError(
            f"study {manifest.study_name!r} was started with {difference}: give the same again to "
            "join it, or choose another name"
        )
    if (path / MANIFEST).is_file():
        found = read_manifest(path / MANIFEST)
        if found.study_name != manifest.study_name or found.difference(shared):
            raise UserError(f"{path} holds another search: choose another folder")
    elif path.is_dir() and not is_empty(path):
        raise UserError(f"{path} is not empty: choose another folder for the search")
    own = shared.model_copy(update={"sources": manifest.sources})
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        # several processes of a machine may share the folder: what they write there is the same
        write_atomically(path / MANIFEST, own.model_dump_json(indent=2) + "\n")
    return Run(path, own, url)


def joined_folder(results: Path, manifest: Manifest) -> Path:
    """Where the command line keeps the run of a joined study: among the others by its time."""
    created = datetime.fromisoformat(manifest.created).astimezone()
    return results / "runs" / f"{created:%Y%m%d-%H%M%S}-{manifest.study_name}"


def _make_study(url: str, manifest: Manifest) -> Manifest:
    """Make a study with its pieces, so far as others have not; returns what it was started with.

    The study of pieces comes first, with the manifest, and the search's own last. Each step leaves
    what is there, so that the next process goes on where one that makes them is killed.
    """
    assert manifest.joined is not None
    name, storage = manifest.study_name, open_database(url)
    with database_errors(url):
        if not _has(storage, _pieces_of(name)):
            try:
                create_study(storage, _pieces_of(name), {"candidates": "maximize"}, {})
            except StudyExistsError:  # another process was faster: what it was started with counts
                joined_manifest(url, name)
                if not _has(storage, _pieces_of(name)):  # a part of it is left
                    raise
        pieces = storage.get_study_id_from_name(_pieces_of(name))
        if _KEPT not in storage.get_study_system_attrs(pieces):
            storage.set_study_system_attr(pieces, _KEPT, manifest.model_dump_json())
        kept = storage.get_study_system_attrs(pieces)[_KEPT]
        shared = parse_manifest(json.loads(kept), f"study {name!r}")
        if shared.joined is None or shared.difference(manifest):
            return shared
        batches = -(-shared.budget // shared.batch_size)
        add_pieces(storage, pieces, batches * -(-shared.batch_size // shared.joined.piece))
        objectives = dict(zip(shared.objectives, shared.directions, strict=True))
        create_study(storage, name, objectives, shared.summary(), may_exist=True)
    return shared


def _pieces_of(study: str) -> str:
    return f"{study}-{CLAIMS}"


def _has(storage: RDBStorage, study: str) -> bool:
    try:
        storage.get_study_id_from_name(study)
    except KeyError:
        return False
    return True
