"""The command line: commands, and nothing but commands."""

from ghnas.cli.app import app, main

__all__ = ["app", "main"]
