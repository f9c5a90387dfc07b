"""Real browsers for tests, and a page to call into."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labbench.web.browsers import missing

PAGE = """<!doctype html><title>test</title>
<button onclick="window.pressed = navigator.userActivation ? navigator.userActivation.isActive : true">press</button>
<script>
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
window.page = {
  echo: async (value) => value,
  fail: async () => { throw new RangeError('no room left'); },
  wait: async (seconds) => { await pause(seconds); return seconds; },
  hold: async (megabytes) => {
    window.held = Array.from({length: megabytes}, (_, i) => new Uint8Array(1e6).fill(i + 1));
    return megabytes;
  },
  hang: async () => { for (;;); },
  shut: async () => { setTimeout(() => window.close(), 100); await pause(60); },
  pressed: async () => window.pressed ?? null,
};
</script>"""


def need(name: str) -> str:
    """The browser's name; without the browser a test is skipped, but in CI that is an error."""
    if reason := missing(name):
        if os.environ.get("CI") == "true":
            raise RuntimeError(reason)
        pytest.skip(reason)
    return name


@contextmanager
def page() -> Iterator[str]:
    """Address of a page with functions under ``window.page``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")  # isolated, as the pages of labbench are
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
