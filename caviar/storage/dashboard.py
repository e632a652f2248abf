"""optuna-dashboard over the trial database, for browsers on this machine alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from caviar.errors import SettingsError
from caviar.storage.optuna_api import OptunaStorage

_LOOPBACK = "127.0.0.1"
#: Reading what a quick sweep writes keeps a core busy: the page may wait, training should not.
_NICENESS = 10
_NAMES = (_LOOPBACK, "localhost")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


def serve(url: str, port: int, on_start: Callable[[str], None]) -> None:
    """Serve until interrupted by Ctrl-C.

    Args:
        url: of the trial database.
        port: on loopback; 0 takes one that is free.
        on_start: told the address, once it answers.

    Raises:
        SettingsError: optuna-dashboard is not installed, or the port cannot be had.
        StorageError: the database cannot be used.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise SettingsError("the dashboard needs optuna-dashboard: pip install 'caviar[dashboard]'") from error
    if not 0 <= port < 65536:
        raise SettingsError(f"port must be 0 to 65535, found {port}")
    storage = OptunaStorage(url, create=False)
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    try:
        app = _for_this_machine(optuna_dashboard.wsgi(storage))
        try:
            server = make_server(_LOOPBACK, port, app, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            raise SettingsError(f"cannot listen on port {port}: {error.strerror}; give another with --port") from error
        with server:
            on_start(f"http://{_LOOPBACK}:{server.server_port}/dashboard/")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return
    finally:
        storage.close()


def _for_this_machine(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Refuse what other sites' pages ask for through this machine's browser: by name (DNS rebinding) or by origin."""

    def checked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        hosts = [urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname]
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None:
            hosts.append(urlsplit(origin).hostname)
        if any(host not in _NAMES for host in hosts):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"only pages of this machine may ask\n"]
        return app(environ, start_response)

    return checked
