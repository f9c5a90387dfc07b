"""The server of browser runs, asked over raw sockets for what it must not give."""

import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from labbench.web.server import HEADERS, Server, page_files


@contextmanager
def serving(tmp_path: Path, **options):
    (tmp_path / "inside.bin").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "secret.txt").write_text("secret")
    files = {"a.html": b"<p>hello", "m/x.mjs": b"1", "x.wasm": b"\0asm", "big.bin": tmp_path / "inside.bin"}
    with Server(files, **options) as server:
        yield server


def ask(server: Server, path: str, *, method="GET", host=None, headers=(), body=b"") -> tuple[int, dict, bytes]:
    """Status, headers and body of one request, sent as it is."""
    host = host if host is not None else f"127.0.0.1:{server.port}"
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers, "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return int(status.split()[1]), dict(field.split(": ", 1) for field in fields), rest


def test_a_file_of_the_table_is_served_whole_with_its_type_and_the_headers_of_isolation(tmp_path):
    with serving(tmp_path) as server:
        root = f"/{server.token}"
        status, headers, body = ask(server, f"{root}/a.html")
        assert (status, body) == (200, b"<p>hello")
        assert headers.items() >= HEADERS.items()
        assert headers["Content-Type"].startswith("text/html")
        assert ask(server, f"{root}/m/x.mjs")[1]["Content-Type"].startswith("text/javascript")
        assert ask(server, f"{root}/x.wasm")[1]["Content-Type"] == "application/wasm"
        assert ask(server, f"{root}/big.bin")[2] == (tmp_path / "inside.bin").read_bytes()
        assert ask(server, f"{root}/a.html", method="HEAD")[2] == b""
        assert server.url("a.html") == f"http://127.0.0.1:{server.port}{root}/a.html"


def test_it_listens_on_the_loopback_only_on_another_port_with_another_token_each_time(tmp_path):
    with serving(tmp_path) as one, serving(tmp_path) as two:
        assert one._http.server_address[0] == "127.0.0.1"
        assert one.port != two.port
        assert one.token != two.token
        assert len(one.token) >= 32


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "0.0.0.0:{port}", ""]
)
def test_another_host_is_refused(tmp_path, host):
    with serving(tmp_path) as server:
        status, _, body = ask(server, f"/{server.token}/a.html", host=host.format(port=server.port))
        assert status == 421
        assert b"hello" not in body


def test_two_hosts_in_one_request_are_refused(tmp_path):
    with serving(tmp_path) as server:
        assert ask(server, f"/{server.token}/a.html", headers=["Host: evil.example"])[0] == 421


def test_localhost_is_this_host(tmp_path):
    with serving(tmp_path) as server:
        assert ask(server, f"/{server.token}/a.html", host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/a.html", "/", "/wrong/a.html", "/{token}x/a.html", "/{short}/a.html", "/a.html?{token}"]
)
def test_without_the_token_nothing_is_served(tmp_path, path):
    with serving(tmp_path) as server:
        status, _, body = ask(server, path.format(token=server.token, short=server.token[:-1]))
        assert status == 403
        assert b"hello" not in body
        assert server.token.encode() not in body


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "m/../../secret.txt", "..\\secret.txt", "%00", "a.html%00",
        "{folder}/secret.txt", "/{folder}/secret.txt", "%2F{folder}/secret.txt", "", "m", "m/", ".", "./a.html", "/a.html",
    ],
)  # fmt: skip
def test_nothing_outside_the_table_is_served_and_no_folder_is_listed(tmp_path, path):
    with serving(tmp_path) as server:
        status, _, body = ask(server, f"/{server.token}/{path.format(folder=tmp_path)}")
        assert status == 404
        assert b"secret" not in body
        assert b"x.mjs" not in body


def test_a_name_that_leaves_the_table_cannot_be_added(tmp_path):
    with serving(tmp_path) as server:
        for name in ("", "/etc/x", "../x", "a/../../x", "result"):
            with pytest.raises(ValueError, match="relative"):
                server.add(name, b"")


def test_other_origins_and_other_methods_are_refused(tmp_path):
    with serving(tmp_path) as server:
        path = f"/{server.token}/a.html"
        assert ask(server, path, headers=["Origin: http://evil.example"])[0] == 403
        assert ask(server, path, headers=[f"Origin: http://127.0.0.1:{server.port}"])[0] == 200
        assert ask(server, path, method="PUT")[0] == 501
        assert ask(server, path, method="POST", headers=["Content-Length: 0"])[0] == 405
        assert ask(server, f"/{server.token}/result", method="POST", headers=["Content-Length: 0"])[0] == 405


def test_a_result_is_handed_on_if_it_is_small_enough_and_wanted(tmp_path):
    got = []

    def take(body: bytes) -> None:
        if not body.startswith(b"{"):
            raise ValueError("not a result")
        got.append(json.loads(body))

    with serving(tmp_path, on_result=take, result_limit=100) as server:
        path = f"/{server.token}/result"

        def post(body: bytes, *headers: str) -> int:
            length = headers or (f"Content-Length: {len(body)}",)
            return ask(server, path, method="POST", headers=length, body=body)[0]

        assert post(b'{"a": 1}') == 204
        assert post(b"rubbish") == 422
        assert post(b"{}", "Content-Length: 101") == 413
        assert post(b"{}", "Content-Length: -1") == 411
        assert post(b"{}", "Transfer-Encoding: chunked") == 411
        assert ask(server, "/x/result", method="POST", headers=["Content-Length: 2"], body=b"{}")[0] == 403
        assert (
            ask(server, path, method="POST", host="evil.example", headers=["Content-Length: 2"], body=b"{}")[0] == 421
        )
        assert got == [{"a": 1}]


def test_rubbish_and_silence_do_not_stop_it(tmp_path):
    with serving(tmp_path) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as rubbish:
            rubbish.sendall(b"\x16\x03\x01\x00\r\n\r\n")
            assert b"hello" not in rubbish.recv(65536)
        with socket.create_connection(("127.0.0.1", server.port)):  # says nothing
            assert ask(server, f"/{server.token}/a.html")[0] == 200


def test_at_the_end_the_port_is_closed_even_to_connections_that_are_open(tmp_path):
    with serving(tmp_path) as server:
        port = server.port
        kept = socket.create_connection(("127.0.0.1", port), timeout=10)
        kept.sendall(f"GET /{server.token}/a.html HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert kept.recv(65536)
    assert kept.recv(65536)[-8:] in (b"", b"<p>hello")
    kept.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_the_pages_are_there_and_all_that_they_name():
    import re

    files = page_files()
    assert {"bench.html", "bench.js", "worker.js"} <= set(files)
    for name, path in files.items():
        if not name.endswith(".js"):
            continue
        for target in re.findall(r"from '\./([\w./-]+)'", path.read_text()):
            assert (Path(name).parent / target).as_posix() in files, f"{name} imports {target}"


def test_the_server_loads_neither_torch_nor_selenium():
    heavy = ("torch", "selenium", "numpy", "onnxruntime")
    loaded = f"import labbench.web.server, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
