"""`ghnas show`, `ghnas runs` and `ghnas dashboard`: what searches have found."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import threading
import warnings
import webbrowser
from collections.abc import Iterable, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.options import number, text
from ghnas.cli.spaces import print_drawings
from ghnas.cli.terminal import console, print_json, say
from ghnas.utils.errors import UserError, UserNote

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ghnas.engine.run import Run
    from ghnas.engine.trials import Trial
    from ghnas.training.hypernetwork.distance import Distance

SHOW_EXAMPLE = "Example: ghnas show top-5"
RUNS_EXAMPLE = "Example: ghnas runs"
DASHBOARD_EXAMPLE = "Example: ghnas dashboard --port 8080"


def show(
    which: Annotated[
        str, typer.Argument(metavar="WHICH", help="top-N, trial-N or a genotype in quotes.")
    ] = "top-1",
    run: options.RunName = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="Every node with its shape.")] = False,
    output: Annotated[
        Path | None,
        text("--output", "DIR", "Where to write the drawings (SVG).", "the run's folder drawings"),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    json: options.Json = False,
) -> None:
    """Show architectures of a run: genotype, shapes, a drawing of the cell."""
    from dataclasses import asdict

    from ghnas.engine.runs import find_run, select
    from ghnas.reports.drawing import as_svg, draw
    from ghnas.utils.files import write_atomically

    found = find_run(results, run)
    out = console(json)
    shown, selected = [], select(found, which)
    for item, distance in zip(selected, _distances(found, selected), strict=True):
        architecture = item.architecture
        path = (output or found.path / "drawings") / f"{item.name}.svg"
        about = {"drawing": str(path), "distance": distance and asdict(distance)}
        shown.append(item.as_dict(found.manifest.objectives) | about)
        if not json:
            _show_one(out, item, found.manifest.objectives, nodes, distance)
        try:
            write_atomically(path, as_svg(draw(architecture)))
        except OSError as error:  # what is shown needs no space
            shown[-1]["drawing"] = None
            warnings.warn(
                f"the drawing {path} cannot be written ({error.strerror})", UserNote, stacklevel=2
            )
        else:
            if not json:
                say(out, f"drawing: {path}\n")
    if json:
        print_json(shown)


def _distances(run: Run, trials: Sequence[Trial]) -> Sequence[Distance | None]:
    """To the training architectures of the run's hypernetwork, where it is still there."""
    from ghnas.engine.stages.inputs import load_run_ghn
    from ghnas.training.hypernetwork.distance import training_distances

    with contextlib.suppress(UserError):
        if ghn := load_run_ghn(run, run.manifest.objective.get("data", "")):
            return training_distances(ghn, [item.architecture for item in trials], run.space)
    return [None] * len(trials)


def _show_one(
    out: Console, item: Trial, objectives: Sequence[str], nodes: bool, distance: Distance | None
) -> None:
    from ghnas.reports.numbers import format_count
    from ghnas.reports.tables import cells_table, describe_distance, describe_values, nodes_table

    graph = item.architecture.graph
    say(
        out,
        f"{item.name}: {describe_values(item, objectives)}, "
        f"{format_count(item.parameters)} parameters, {format_count(item.flops)} FLOPs",
    )
    if distance:
        say(out, describe_distance(distance))
    say(out, f"{item.architecture}\n")
    print_drawings(out, item.architecture)
    out.print(nodes_table(graph) if nodes else cells_table(graph))


def runs(results: options.Results = options.DEFAULT_RESULTS, json: options.Json = False) -> None:
    """List the runs, the latest last."""
    from dataclasses import asdict

    from ghnas.engine.runs import list_runs

    found = list_runs(results)
    if json:
        print_json([asdict(item) for item in found])
        return
    if not found:
        say(console(), f"no runs in {results}: start one with ghnas search")
        return
    from ghnas.reports.tables import runs_table

    console().print(runs_table(found))


def dashboard(
    run: options.RunName = None,
    port: Annotated[int, number("--port", "Port; 0 takes a free one.", least=0, most=65535)] = 8080,
    host: Annotated[str, text("--host", "ADDRESS", "Address to listen on.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Show a run in the Optuna dashboard, live while the search goes on."""
    from ghnas.engine.runs import find_run

    found = find_run(results, run)
    out = console()
    server = make_dashboard(found, host, port)
    address = f"http://{host}:{server.server_port}/dashboard"
    say(out, f"{found.name} at {address} (Ctrl-C to stop)")
    if browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say(out, "stopped")
    finally:
        server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing for a request."""


def _own_pages_alone(application: WSGIApplication, host: str) -> WSGIApplication:
    """Refuse what a page of another site asks for: by its own name, which it had lead here, or as
    another origin. An address cannot be made to lead elsewhere, so that any is answered."""
    names = {"localhost", socket.gethostname(), host}

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        asked = environ.get("HTTP_HOST", "")
        name = urlsplit(f"//{asked}").hostname or ""
        origin = environ.get("HTTP_ORIGIN", f"http://{asked}")
        if (name in names or _is_address(name)) and urlsplit(origin).netloc == asked:
            return application(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"This dashboard answers its own pages alone.\n"]

    return answer


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def make_dashboard(run: Run, host: str, port: int) -> WSGIServer:
    """A server for the Optuna dashboard that listens but does not serve yet.

    Raises:
        UserError: If the address cannot be listened on.
    """
    import optuna_dashboard

    from ghnas.reports.dashboard import artifact_store

    pages = optuna_dashboard.wsgi(run.storage_url, artifact_store=artifact_store(run))
    application = _own_pages_alone(pages, host)
    try:
        return make_server(host, port, application, _Server, _QuietHandler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use: choose another with --port") from error
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
    except OverflowError as error:
        raise UserError(f"cannot listen on {host}:{port}: no such port") from error
