# SPDX-License-Identifier: Apache-2.0
"""Ten times as many requests as the gateway can do: it goes on at its pace, those that it takes stay fast, the rest is refused at once.

The gateway has one processor of its own. A request is small, and its answer a stream of events that is translated: what a call costs
that an AI gateway is there for. Callers come whether or not those before have been answered (an open loop), as many callers do.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import time

import stand

# Pings cost the gateway as much as other events, and the callers nothing: they, too, are on this machine.
EVENTS, PINGS = 20, 10_000
PATIENCE_S = 10.0
CLOSED = 32
# In which the gateway finds out how much is too much.
SETTLING_S = 2
CONNECTIONS_MAX = 1500
PLUGINS = ("api-key.wasm", "echo.wasm", "anthropic.wasm")
BODY = json.dumps({"model": "many", "stream": True, "messages": [{"role": "user", "content": "tell me"}]}).encode()
ASKED = (
    b"POST /open/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
POLICY = (
    stand.POLICY
    + """
[vendors.many]
adapter = "anthropic"
base_url = "http://127.0.0.1:{origin}"
models = ["many"]
"""
)


def _answer():
    def event(kind, **more):
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"

    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "many", "content": [], "usage": usage}
    events = [event("message_start", message={**message, "stop_reason": None, "stop_sequence": None})]
    events.append(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    for number in range(EVENTS):
        events.append(event("content_block_delta", index=0, delta={"type": "text_delta", "text": f"{number} "}))
        events.extend([event("ping")] * (PINGS // EVENTS))
    events.append(event("content_block_stop", index=0))
    events.append(event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage))
    events.append(event("message_stop"))
    body = "".join(events).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body) + body


class Vendor:
    """Streams the same answer to everybody, from a process of its own."""

    def __init__(self):
        ports = multiprocessing.Queue()
        self._process = multiprocessing.Process(target=_vendor, args=(ports,), daemon=True)
        self._process.start()
        self.port = ports.get(timeout=30)

    def close(self):
        """Ends it."""
        self._process.kill()
        self._process.join()


def _vendor(ports):
    answer = _answer()

    class Serving(asyncio.Protocol):
        def connection_made(self, transport):
            self._transport, self._data = transport, b""

        def data_received(self, data):
            self._data += data
            head, found, body = self._data.partition(b"\r\n\r\n")
            if found and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
                self._data = b""
                self._transport.write(answer)

    async def forever():
        server = await asyncio.get_running_loop().create_server(Serving, "127.0.0.1", 0, backlog=4096)
        ports.put(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(forever())


class Call(asyncio.Protocol):
    """A connection that asks when it is told to, and tells how it went: status, seconds, whether `retry-after` was there."""

    def __init__(self, done):
        self._done, self._status, self._tail, self._hinted = done, 0, b"", False

    def connection_made(self, transport):
        self._transport = transport
        self.ask()

    def ask(self):
        """Asks once more."""
        self._begun, self._status, self._tail, self._hinted = time.monotonic(), 0, b"", False
        self._transport.write(ASKED)

    def data_received(self, data):
        data = self._tail + data
        if not self._status:
            head, found, _body = data.partition(b"\r\n\r\n")
            if not found:
                self._tail = data
                return
            self._status, self._hinted = int(head[9:12]), b"\nretry-after:" in head.lower()
            self._ends = b"0\r\n\r\n" if b"chunked" in head.lower() else b"}"
        if data.endswith(self._ends):
            self._tell()
        else:
            self._tail = data[-8:]

    def connection_lost(self, _error):
        if self._status != -1:
            self._status = 0
            self._tell()
        self.closed = True

    def _tell(self):
        status, self._tail = self._status, b""
        self._status = -1
        self._done(self, status, time.monotonic() - self._begun, self._hinted)

    closed = False

    def close(self):
        """Ends it."""
        self._status = -1
        self._transport.abort()


class Tally:
    """What has become of the requests."""

    def __init__(self):
        self.rows, self.unsent = [], 0

    def count(self, begun, ended, status=200):
        """Answers of a time that came while somebody waited for them."""
        return sum(begun <= at < ended and of == status and took <= PATIENCE_S for at, of, took, _ in self.rows)

    def percentile(self, share, status, begun=0.0):
        """How long such requests took, in seconds."""
        took = sorted(took for at, of, took, _ in self.rows if of == status and at >= begun)
        return took[min(int(len(took) * share), len(took) - 1)] if took else 0.0


async def _closed_loop(port, seconds, connections):
    """So many callers, each of whom asks when it was answered."""
    tally, loop, stop = Tally(), asyncio.get_running_loop(), time.monotonic() + seconds

    def done(call, status, took, hinted):
        tally.rows.append((time.monotonic(), status, took, hinted))
        if time.monotonic() < stop and status:
            call.ask()

    calls = [(await loop.create_connection(lambda: Call(done), "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.sleep(seconds)
    for call in calls:
        call.close()
    return tally


async def _open_loop(port, seconds, per_s):
    """So many requests in a second, whatever becomes of those before."""
    tally, loop, idle, count = Tally(), asyncio.get_running_loop(), [], 0

    def done(call, status, took, hinted):
        nonlocal count
        tally.rows.append((time.monotonic(), status, took, hinted))
        if status:
            idle.append(call)
        else:
            count -= 1

    async def connect():
        nonlocal count
        try:
            await loop.create_connection(lambda: Call(done), "127.0.0.1", port)
        except OSError:
            count -= 1
            tally.unsent += 1

    begun, sent, pending = time.monotonic(), 0, set()
    while (now := time.monotonic()) < begun + seconds:
        due = int((now - begun) * per_s)
        while sent < due:
            sent += 1
            while idle and idle[-1].closed:
                idle.pop()
                count -= 1
            if idle:
                idle.pop().ask()
            elif count < CONNECTIONS_MAX:
                count += 1
                task = asyncio.create_task(connect())
                pending.add(task)
                task.add_done_callback(pending.discard)
            else:
                tally.unsent += 1
        await asyncio.sleep(0.002)
    return tally


def _run(results, loop, arguments, processor):
    os.sched_setaffinity(0, processor)
    results.put(asyncio.run(loop(*arguments)))


def _load(loop, *arguments, processor, watch):
    """Runs a load in a process of its own; the tally, and the most that `watch` has said meanwhile."""
    results = multiprocessing.Queue()
    process = multiprocessing.Process(target=_run, args=(results, loop, arguments, processor), daemon=True)
    process.start()
    most = 0.0
    while results.empty() and process.is_alive():
        most = max(most, watch())
        time.sleep(0.05)
    tally = results.get(timeout=60)
    process.join()
    return tally, most


@contextlib.contextmanager
def _gateway(vendor, limits, its_own):
    with stand.Gateway(policy=POLICY, plugins=PLUGINS, origin=vendor.port, limits=limits) as gateway:
        for task in os.listdir(f"/proc/{gateway.pid}/task"):
            os.sched_setaffinity(int(task), its_own)
        yield gateway


def run(seconds, times=10, limits=""):
    """What the gateway does at its peak, and what under so many times as many requests: goodputs and percentiles."""
    processors = sorted(os.sched_getaffinity(0))
    its_own, others = {processors[0]}, set(processors[1:]) or {processors[0]}
    vendor, told = Vendor(), {}
    try:
        with _gateway(vendor, "shed_delay_ms = 0", its_own) as gateway:
            with_it = {"processor": others, "watch": gateway.resident_mib}
            _load(_closed_loop, gateway.port, 1, CLOSED, **with_it)
            peak, _ = _load(_closed_loop, gateway.port, seconds, CLOSED, **with_it)
            begun = min(at for at, *_ in peak.rows)
            told["peak"] = peak.count(begun, begun + seconds) / seconds
            told["peak_p99_s"] = peak.percentile(0.99, 200)
        with _gateway(vendor, limits, its_own) as gateway:
            with_it = {"processor": others, "watch": gateway.resident_mib}
            _load(_closed_loop, gateway.port, 1, CLOSED // 8, **with_it)
            over, told["mib"] = _load(_open_loop, gateway.port, seconds + SETTLING_S, times * told["peak"], **with_it)
            after, _ = _load(_closed_loop, gateway.port, 3, CLOSED // 8, **with_it)
            told["runs"] = gateway.runs()
    finally:
        vendor.close()
    begun = min(at for at, *_ in over.rows) + SETTLING_S
    last = max(at for at, *_ in over.rows)
    told["offered"] = sum(at >= begun for at, *_ in over.rows) / (last - begun)
    told["goodput"] = over.count(begun, last) / (last - begun)
    told["p99_s"] = over.percentile(0.99, 200, begun)
    told["refused_p50_s"], told["refused_p99_s"] = (over.percentile(share, 503, begun) for share in (0.5, 0.99))
    told["hinted"] = all(hinted for _, status, _, hinted in over.rows if status == 503)
    told["others"], told["unsent"] = sorted({status for _, status, *_ in over.rows} - {200, 503}), over.unsent
    end = max(at for at, *_ in after.rows)
    told["refused_after"], told["served_after"] = after.count(end - 1, end, 503), after.count(end - 1, end)
    return told


if __name__ == "__main__":
    import sys

    print(run(float(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
