# SPDX-License-Identifier: Apache-2.0
"""The service behind the gateway: echoes bodies, numbers its answers, and judges every byte that reaches it."""

import asyncio
import itertools
import multiprocessing

import strict

# What a request without a body is answered with.
NOTHING = b"nothing was sent\n"
# Below this path the answer is one that does not fit into what kernels hold for one who does not read.
LARGE = b"/large"
LARGE_BYTES = 24 << 20


class Origin:
    """Listens at a free port. `violations` and `targets` grow with what comes; `take` empties them."""

    def __init__(self):
        self.port = None
        self._serials = itertools.count(1)
        self._server = None
        self.requests = self.violations = self.answered = None
        self.take()

    async def start(self):
        """Begins to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def take(self):
        """What has come since the last call: the targets of requests, the violations, the numbers of answers."""
        taken = (self.requests, self.violations, self.answered)
        self.requests, self.violations, self.answered = [], [], {}
        return taken

    async def _serve(self, reader, writer):
        data = b""
        try:
            while read := await reader.read(1 << 16):
                data += read
                while data:
                    request = strict.request(data)
                    if request is None:
                        break
                    _method, target, body, length = request
                    data = data[length:]
                    self.requests.append(target)
                    writer.write(self._answer(target, body))
                    await writer.drain()
        except strict.Violation as violation:
            self.violations.append((str(violation), bytes(data[:400])))
            writer.write(b"HTTP/1.1 299 Violation\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        except (OSError, asyncio.CancelledError):
            # The gateway has gone, or the test has ended.
            pass
        finally:
            writer.close()

    def _answer(self, target, body):
        serial, body = next(self._serials), body or NOTHING
        if target.startswith(LARGE):
            body = b"x" * LARGE_BYTES
        self.answered[serial] = target
        fields = [f"x-serial: {serial}", f"x-target: {target.decode()}", f"content-length: {len(body)}"]
        return "\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode() + body


def _run(ports):
    async def forever():
        ports.put((await Origin().start()).port)
        await asyncio.Event().wait()

    asyncio.run(forever())


class Apart:
    """An origin in a process of its own, for tests that do not ask what has come."""

    def __init__(self):
        ports = multiprocessing.Queue()
        self._process = multiprocessing.Process(target=_run, args=(ports,), daemon=True)
        self._process.start()
        self.port = ports.get(timeout=30)

    def close(self):
        """Ends it."""
        self._process.kill()
        self._process.join()
