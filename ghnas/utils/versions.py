"""Versions of packages, found without importing them."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata


def installed_version(package: str) -> str | None:
    """The version of a package; None where it is not installed, as a checkout is not, or what says
    so cannot be read."""
    with suppress(PackageNotFoundError):
        found = metadata(package)
        if "Version" in found:
            return found["Version"]
    return None
