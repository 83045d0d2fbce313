# SPDX-License-Identifier: Apache-2.0
"""A vendor on loopback that answers from files: the upstream of the SDK tests.

Paths below `/openai/v1` and `/anthropic/v1` answer in that dialect. The model that a request names chooses the answer:
`chat` is `golden/<dialect>/chat.json`, or `chat.sse` when a stream is asked for; `error-429` answers with that status;
`cut-<name>` and `closed-<name>` end the stream of `<name>` in the middle, with a broken and with an orderly connection.
`fixture:<path>` answers with a recorded exchange of the folder that was given.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


class Replay:
    """The server. `requests` holds what it was asked, newest last, as (path, headers, body)."""

    def __init__(self, fixtures=None):
        self.fixtures = fixtures
        self.requests = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self):
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def last(self):
        """The body of the newest request, read as JSON."""
        return json.loads(self.requests[-1][2])

    def close(self):
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(replay):
    class Handler(BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Tests fail by assertion; the server stays silent."""

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            replay.requests.append((self.path, dict(self.headers), body))
            dialect, _, rest = self.path.lstrip("/").partition("/v1")
            self._answer(dialect, rest.split("?")[0], json.loads(body))

        def _answer(self, dialect, path, request):
            model = request.get("model", "")
            folder = GOLDEN / dialect
            if path.endswith("/count_tokens"):
                return self._whole(200, (folder / "count.json").read_bytes())
            if model.startswith("fixture:"):
                return self._fixture(replay.fixtures / model.removeprefix("fixture:"))
            if match := re.fullmatch(r"error-(\d+)", model):
                return self._whole(int(match[1]), (folder / f"{model}.json").read_bytes())
            ending, _, name = model.partition("-") if model.startswith(("cut-", "closed-")) else ("", "", model)
            suffix = "sse" if request.get("stream") else "json"
            file = folder / f"{name}.{suffix}"
            if not file.exists():
                return self._whole(404, (folder / "error-404.json").read_bytes())
            if suffix == "json":
                return self._whole(200, file.read_bytes())
            return self._stream(file.read_bytes(), ending)

        def _fixture(self, case):
            meta = json.loads((case / "meta.json").read_text())
            body = (case / meta["response_file"]).read_bytes()
            if meta["stream"] and meta["status"] == 200:
                return self._stream(body, "")
            return self._whole(meta["status"], body)

        def _whole(self, status, body):
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            if status == 429:
                self.send_header("retry-after", "7")
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, body, ending):
            """Sends event by event, each event in two pieces, so that chunks and events do not coincide."""
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            events = body.split(b"\n\n")
            if ending:
                events = events[: max(2, len(events) // 2)]
            for event in events:
                if event:
                    piece = event + b"\n\n"
                    middle = len(piece) // 2
                    self._chunk(piece[:middle])
                    self._chunk(piece[middle:])
            if ending == "cut":
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(b"0\r\n\r\n")

        def _chunk(self, data):
            if data:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

    return Handler
