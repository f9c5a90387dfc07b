"""A web server for one run: loopback only, behind a random token, and nothing but an explicit table of files.

Every URL is ``http://127.0.0.1:PORT/TOKEN/NAME``, so relative URLs of a page carry the token without knowing it. A request is
answered only if its ``Host`` is this server (another name that resolves to the loopback is refused: DNS rebinding) and its
path starts with the token; names are looked up in a dictionary and never become paths of the file system. All answers carry the
headers that make a page cross-origin isolated, which threads and fine clocks need.
"""

from __future__ import annotations

import hmac
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"
MIME = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
    ".wasm": "application/wasm",
}
BINARY = "application/octet-stream"  # models, arrays
RESULT = "result"  # the one name that takes a POST
RESULT_LIMIT = 4 * 2**20  # bytes
IDLE_S = 10.0  # a connection that says nothing for so long is closed
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # a download is measured as one
    "Content-Security-Policy": "default-src 'self' blob: data:; script-src 'self' blob: 'wasm-unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
}

Content: TypeAlias = Path | bytes


def page_files() -> dict[str, Content]:
    """The pages that labbench brings, by name: ``bench.html`` and what it loads, and the others beside it."""
    root = Path(__file__).parent / "page"
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


class Server:
    """Serves its table of files until its context ends.

    Parameters
    ----------
    files : mapping of str to Path or bytes
        What there is, by name (``models/x.onnx``); :meth:`add` adds more while it runs.
    port : int
        0: any free one.
    on_result : callable, optional
        Gets the body of each ``POST`` to ``result``, as bytes, in the server's thread; it may raise ``ValueError`` to refuse it.
        Without it nothing can be posted.
    result_limit : int
        Largest body, bytes.

    Examples
    --------
    >>> with Server({"a.txt": b"hello"}) as server:
    ...     server.url("a.txt").startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        files: Mapping[str, Content],
        *,
        port: int = 0,
        on_result: Callable[[bytes], None] | None = None,
        result_limit: int = RESULT_LIMIT,
    ) -> None:
        self.token = secrets.token_urlsafe(24)
        self.on_result, self.result_limit = on_result, result_limit
        self._files: dict[str, Content] = {}
        for name, content in files.items():
            self.add(name, content)
        self._http = _Http((LOOPBACK, port), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._http.server_address[1])

    @property
    def hosts(self) -> tuple[str, ...]:
        """The ``Host`` headers that it answers to."""
        return (f"{LOOPBACK}:{self.port}", f"localhost:{self.port}")

    def url(self, name: str) -> str:
        """Where a file of the table is, the token included; raises KeyError for one that is not there."""
        if name not in self._files:
            raise KeyError(f"the server has no {name!r}")
        return f"http://{LOOPBACK}:{self.port}/{self.token}/{name}"

    def add(self, name: str, content: Content) -> str:
        """Serve a file, or bytes, under a name; returns the name."""
        parts = PurePosixPath(name).parts
        if not name or name.startswith("/") or ".." in parts or name == RESULT:
            raise ValueError(f"{name!r} cannot be the name of a served file: give a plain relative one")
        self._files[name] = content
        return name

    def remove(self, name: str) -> None:
        """Serve a file no longer; one that is not there is no mistake."""
        self._files.pop(name, None)

    def look_up(self, name: str) -> Content | None:
        """What stands under a name."""
        return self._files.get(name)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, close the port and every connection, and wait until that is done."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.close_connections()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # a page asks for all its parts at once
    owner: Server

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Ends what is kept alive: its threads would wait for a next request."""
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "labbench", ""
    timeout = IDLE_S
    disable_nagle_algorithm = True  # a small file would wait 40 ms for the acknowledgement of its headers
    server: _Http

    def do_GET(self) -> None:
        """A file of the table, whole."""
        self._file(with_body=True)

    def do_HEAD(self) -> None:
        """Its headers."""
        self._file(with_body=False)

    def do_POST(self) -> None:
        """A result, handed on as it is."""
        self.close_connection = True  # the body of a refused one is not read
        name, owner = self._name(), self.server.owner
        if name is None:
            return
        if name != RESULT or owner.on_result is None:
            self._refuse(405, "nothing can be posted here")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._refuse(411, "a result must come with its length")
        elif int(length) > owner.result_limit:
            self._refuse(413, f"a result may have at most {owner.result_limit} bytes")
        else:
            try:
                owner.on_result(self.rfile.read(int(length)))
            except ValueError as error:
                self._refuse(422, str(error))
            else:
                self._head(204, 0, None)

    def _name(self) -> str | None:
        """The name asked for; None, after an answer that says so, if the request may not be served."""
        owner = self.server.owner
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in owner.hosts:
            self._refuse(421, "this server answers to its own loopback address only")
            return None
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in owner.hosts]:
            self._refuse(403, "not for pages of other origins")
            return None
        token, _, name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if not hmac.compare_digest(token.encode(), owner.token.encode()):
            self._refuse(403, "the token is missing or wrong")
            return None
        return name

    def _file(self, *, with_body: bool) -> None:
        name = self._name()
        if name is None:
            return
        content = self.server.owner.look_up(name)
        if content is None:
            self._refuse(404, "no such file")
            return
        kind = MIME.get(PurePosixPath(name).suffix, BINARY)
        if isinstance(content, bytes):
            self._head(200, len(content), kind)
            if with_body:
                self.wfile.write(content)
            return
        try:
            stream: BinaryIO = content.open("rb")
        except OSError as error:
            self._refuse(404, f"cannot be read: {error.strerror}")
            return
        with stream:
            self._head(200, content.stat().st_size, kind)
            if with_body:
                shutil.copyfileobj(stream, self.wfile, 2**20)

    def _head(self, status: int, length: int, kind: str | None) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if kind:
            self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _refuse(self, status: int, reason: str) -> None:
        body = f"{reason}\n".encode()
        self._head(status, len(body), "text/plain; charset=utf-8")
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""
