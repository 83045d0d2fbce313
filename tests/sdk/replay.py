# SPDX-License-Identifier: Apache-2.0
"""Vendors on loopback that answer from files: the upstream of the SDK tests.

The first segment of a path is the vendor (`/openai/v1/chat/completions`). The model that a request names, in its body or in
its path, chooses the answer:

- `chat` is `golden/<vendor>/chat.json`, or `chat.sse` when a stream is asked for; `error-429` answers with that status;
  `cut-<name>` and `closed-<name>` end the stream of `<name>` in the middle, with a broken and with an orderly connection.
- `recorded.<path, with ~ for />` answers with a recorded exchange of the folder that was given.
- A name that a test has put into `scripts` answers with what the script makes of the request.
"""

import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from wire import MEDIA_TYPES, is_array, sse_of_array

GOLDEN = Path(__file__).parent / "golden"
RECORDED = "recorded."
# Pieces that a stream goes out in; they respect neither events nor characters.
SIZES = (1, 600, 13, 1400, 3, 257, 4096)


@dataclass
class Asked:
    """A request that has reached a vendor."""

    method: str
    path: str
    headers: dict
    body: bytes
    vendor: str = ""
    model: str = ""
    streaming: bool = False
    json: dict = field(default_factory=dict)

    def __post_init__(self):
        self.vendor = self.path.split("/")[1]
        if self.headers.get("content-type", "").startswith("application/json") and self.body:
            self.json = json.loads(self.body)
        path = self.path.split("?")[0]
        in_path = re.search(r"/models?/(.+)[:/]([A-Za-z-]+)$", path)
        if in_path and self.vendor in ("gemini", "bedrock"):
            self.model = unquote(in_path[1])
            self.streaming = "stream" in in_path[2].lower()
        else:
            self.model = self.json.get("model", "")
            self.streaming = bool(self.json.get("stream"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A gateway that is killed breaks its connections; that is no fault of the server."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Replay:
    """The server. `requests` holds what it was asked, newest last."""

    def __init__(self, fixtures=None):
        self.fixtures = fixtures
        self.requests = []
        self.scripts = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self):
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def last(self):
        """The body of the newest request, read as JSON."""
        return self.requests[-1].json

    def close(self):
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def recorded_name(case):
    """The model that answers with this recorded exchange, given as a path below the folder of all of them."""
    return RECORDED + str(case).replace("/", "~")


def _handler(replay):
    class Handler(BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            """Tests fail by assertion; the server stays silent."""

        def do_POST(self):
            self._serve()

        def do_GET(self):
            self._serve()

        def _serve(self):
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            asked = Asked(self.command, self.path, headers, body)
            replay.requests.append(asked)
            model = asked.model
            if script := replay.scripts.get(model) or replay.scripts.get(f"{asked.method} {asked.path.split('?')[0]}"):
                return self._scripted(script(asked))
            if model.startswith(RECORDED):
                return self._recorded(asked, replay.fixtures / model.removeprefix(RECORDED).replace("~", "/"))
            return self._golden(asked)

        def _scripted(self, answer):
            """An answer is (media type, bytes), or (media type, bytes, status)."""
            media_type, body, *status = answer
            if media_type in ("text/event-stream", MEDIA_TYPES["aws-eventstream"]):
                return self._stream(media_type, body)
            return self._whole(status[0] if status else 200, body, media_type)

        def _golden(self, asked):
            folder, model = GOLDEN / asked.vendor, asked.model
            if asked.path.split("?")[0].endswith("/count_tokens"):
                return self._whole(200, (folder / "count.json").read_bytes())
            if match := re.fullmatch(r"error-(\d+)", model):
                return self._whole(int(match[1]), (folder / f"{model}.json").read_bytes())
            ending, _, name = model.partition("-") if model.startswith(("cut-", "closed-")) else ("", "", model)
            suffix = "sse" if asked.streaming else "json"
            file = folder / f"{name}.{suffix}"
            if not file.exists():
                return self._whole(404, (folder / "error-404.json").read_bytes())
            if suffix == "json":
                return self._whole(200, file.read_bytes())
            body = file.read_bytes()
            if ending:
                events = body.split(b"\n\n")
                body = b"\n\n".join(events[: max(2, len(events) // 2)]) + b"\n\n"
            return self._stream("text/event-stream", body, cut=ending == "cut")

        def _recorded(self, asked, case):
            meta = json.loads((case / "meta.json").read_text())
            body = (case / meta["response_file"]).read_bytes()
            if meta["status"] != 200:
                kept = {name: value for name, value in meta["response_headers"].items() if name.startswith("x-amzn-")}
                return self._whole(meta["status"], body, headers=kept)
            if meta["stream"] != asked.streaming:
                return self._whole(500, b'{"error": {"message": "recorded otherwise: whole or streamed"}}')
            if not meta["stream"]:
                return self._whole(200, body)
            if is_array(body) and "alt=sse" in asked.path:
                body = sse_of_array(body)
            framing = "json" if is_array(body) else meta["framing"].split()[0]
            return self._stream(MEDIA_TYPES[framing], body)

        def _whole(self, status, body, media_type="application/json", headers=None):
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status == 429:
                self.send_header("retry-after", "7")
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, media_type, body, cut=False):
            self.send_response(200)
            self.send_header("content-type", media_type)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            at = number = 0
            while at < len(body):
                piece = body[at : at + SIZES[number % len(SIZES)]]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                at, number = at + len(piece), number + 1
            if cut:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(b"0\r\n\r\n")

    return Handler
