"""`ghnas dashboard`: a run in the browser."""

from __future__ import annotations

import errno
import threading
import webbrowser
from socketserver import ThreadingMixIn
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from ghnas.cli import options
from ghnas.cli.terminal import console, say
from ghnas.utils.errors import UserError

EXAMPLE = "Example: ghnas dashboard --port 8080"


def dashboard(
    run: options.RunName = None,
    port: Annotated[
        int, options.number_option("--port", "Port; 0 takes a free one.", least=0, most=65535)
    ] = 8080,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Show a run in the Optuna dashboard, live while the search goes on."""
    from ghnas.engine.runs import find_run

    found = find_run(results, run)
    out = console()
    server = make_dashboard(found.storage_url, host, port)
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


def make_dashboard(storage: str, host: str, port: int) -> WSGIServer:
    """A server for the Optuna dashboard that listens but does not serve yet.

    Raises:
        UserError: If the address cannot be listened on.
    """
    import optuna_dashboard

    application = optuna_dashboard.wsgi(storage)
    try:
        return make_server(host, port, application, _Server, _QuietHandler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use: choose another with --port") from error
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
    except OverflowError as error:
        raise UserError(f"cannot listen on {host}:{port}: no such port") from error
