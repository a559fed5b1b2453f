# SPDX-License-Identifier: Apache-2.0
"""One measuring job in a page of headless Chromium, which fetches all it needs from here.

The page is served on loopback under a path that nobody can guess, with the headers that make it
cross-origin isolated: only then are the browser's timers fine enough and threads allowed.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edgeprune.device.process import ask, last_line
from edgeprune.errors import DeviceError

__all__ = ["find_chromium", "run_in_page"]

_HERE = Path(__file__).parent
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-default-browser-check",
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}
_ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PLACES = ("TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Where it writes beside its profile."""
_PATIENCE = 5.0
"""Seconds that the browser has for ending by itself."""

Files = Mapping[str, Path | bytes]


def run_in_page(
    job: Mapping[str, Any], model: Path, runtime: Mapping[str, Path], *, timeout: float
) -> dict[str, Any]:
    """Open the measuring page in a new browser with an empty profile and give its answer.

    Args:
        job: As ``measure.mjs`` describes it, without the URLs.
        model: Served as it is.
        runtime: Files of the runtime by their names for the page, its module first.
        timeout: Seconds for all of it, the start of the browser included.

    Raises:
        DeviceError: There is no Chromium.
    """
    program, version = find_chromium()
    places = {"runtime": f"./runtime/{next(iter(runtime))}", "wasm": "./runtime/wasm/"}
    files: dict[str, Path | bytes] = {
        "page.html": _HERE / "page.html",
        "measure.mjs": _HERE / "measure.mjs",
        "job.json": json.dumps({**job, **places, "model": "model"}).encode(),
        "model": model,
        **{f"runtime/{name}": path for name, path in runtime.items()},
    }
    with _served(files) as server:
        answer = _browse(program, server, timeout)
    if "error" not in answer:
        answer["engine"] = version
    return answer


def find_chromium() -> tuple[str, str]:
    """Path, and name and version: ``("/usr/bin/chromium", "Chromium 156.0.8078.73")``.

    Raises:
        DeviceError: There is none.
    """
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        raise DeviceError("web:chromium: Chromium isn't installed; device web runs in Node")
    done = ask([program, "--version"], timeout=60)
    words = done.stdout.split()
    number = next((word for word in words if word[0].isdigit()), None)
    if number is None:
        raise DeviceError(f"web:chromium: {program} --version fails: {last_line(done.stderr)}")
    return program, " ".join(words[: words.index(number) + 1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: Files) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.secret = secrets.token_urlsafe(16)
        self.answer: dict[str, Any] | None = None
        self.answered = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{self.secret}/page.html"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve one of the files."""
        name = self._name()
        content = self.server.files.get(name)
        if content is None:
            self._reply(404, "text/plain", b"")
            return
        body = content if isinstance(content, bytes) else content.read_bytes()
        kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
        self._reply(200, kind, body)

    def do_POST(self) -> None:
        """Take the answer."""
        if self._name() != "answer":
            self._reply(404, "text/plain", b"")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._reply(204, "text/plain", b"")
        with contextlib.suppress(ValueError):
            self.server.answer = json.loads(body)
        self.server.answered.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _name(self) -> str:
        _, secret, name = (self.path + "//").split("/", 2)
        if not secrets.compare_digest(secret.encode(), self.server.secret.encode()):
            return ""
        return name.rstrip("/")

    def _reply(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        for key, value in {**_ISOLATED, "Content-Type": kind}.items():
            self.send_header(key, value)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def _served(files: Files) -> Iterator[_Server]:
    with _Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _browse(program: str, server: _Server, timeout: float) -> dict[str, Any]:
    # As root Chromium starts only without its sandbox; the page is our own code.
    flags = [*_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(_FLAGS)
    end = time.monotonic() + timeout
    with tempfile.TemporaryDirectory(prefix="edgeprune-", ignore_cleanup_errors=True) as place:
        said = Path(place) / "stderr"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [program, *flags, f"--user-data-dir={place}/profile", server.url],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **dict.fromkeys(_PLACES, place)},
                start_new_session=True,
            )
        try:
            while not server.answered.wait(0.1):
                if process.poll() is not None:
                    text = said.read_text(encoding="utf-8", errors="replace")
                    return {"error": f"the browser ended by itself: {_cause(text)}"}
                if time.monotonic() > end:
                    return {"error": f"took more than {timeout:.0f} s and was stopped"}
        finally:
            _stop(process)
    return server.answer if isinstance(server.answer, dict) else {"error": "no JSON answer"}


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the browser and all processes of it, which are a group of their own."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _cause(text: str) -> str:
    """The fatal line among what the browser printed, without its time and place; or the last."""
    fatal = [line for line in text.splitlines() if ":FATAL:" in line]
    return last_line(fatal[0].partition("] ")[2] if fatal else text)
