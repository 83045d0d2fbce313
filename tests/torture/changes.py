# SPDX-License-Identifier: Apache-2.0
"""Plugins, policies, processes and the program itself change under load: no request fails, no stream is cut.

Callers keep their connections alive and count everything against the gateway: a connection that is refused or reset, or closed under a
request, an answer that is not what was asked for. A connection is opened anew only when an answer has said `connection: close`.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import stand

BODY = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "still there?"}]}).encode()
ASKED = (
    b"POST /open/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
STREAMED = json.dumps({"model": "slow", "stream": True, "messages": [{"role": "user", "content": "tell me"}]}).encode()
PLUGINS = ("api-key.wasm", "echo.wasm", "openai-compatible.wasm")
CALLERS = 16
# Versions of a plugin that take turns: each is another component to the gateway.
VERSIONS = 20
EVENT_S = 1.0
# Requests that are still being answered when they are told to end have so long.
DRAIN_MS = 5000
POLICY = (
    stand.POLICY
    + """
[vendors.slow]
adapter = "openai-compatible"
base_url = "http://127.0.0.1:{origin}/v1"
models = ["slow"]
"""
)


class Load:
    """Callers who ask again and again. `failures` has what went wrong."""

    def __init__(self, port):
        self._port, self._stop = port, False
        self.asked, self.failures, self.slowest_s = 0, [], 0.0

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        return self

    async def __aexit__(self, *_exception):
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _call(self):
        connection = None
        while not self._stop:
            begun = time.monotonic()
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self._port)
                self.asked += 1
                closes = await asyncio.wait_for(ask(*connection), 30)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                closes = True
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            if closes and connection:
                connection[1].close()
                connection = None
        if connection:
            connection[1].close()


async def ask(reader, writer):
    """Asks once; whether the connection ends with the answer."""
    writer.write(ASKED)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"http/1.1 200") or b"still there?" not in body:
        raise ValueError(head[:80] + body[:200])
    return b"connection: close" in head


class Vendor:
    """Streams slowly until told to come to an end."""

    def __init__(self):
        self.ending = asyncio.Event()

    async def start(self):
        """Begins to listen."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server
        return self

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            number = 0
            while not self.ending.is_set():
                self._event(writer, {"delta": {"content": f"{number} "}})
                await writer.drain()
                number += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.ending.wait(), EVENT_S)
            self._event(writer, {"delta": {}, "finish_reason": "stop"})
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        writer.close()

    @staticmethod
    def _event(writer, choice):
        event = {"id": "1", "object": "chat.completion.chunk", "model": "slow", "choices": [{"index": 0, **choice}]}
        writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")


async def stream(port):
    """Reads a stream to its end; what is wrong with it, or none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /open/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    writer.write(head + b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(STREAMED), STREAMED))
    data = await reader.read()
    writer.close()
    words = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]
    text = "".join(word["choices"][0]["delta"].get("content", "") for word in words if word["choices"])
    expected = "".join(f"{number} " for number in range(len(text.split())))
    if b" 200 " not in data[:20] or b"[DONE]" not in data or text != expected or not text:
        return data[-200:]
    return None


class Admin:
    """The admin API of a gateway."""

    def __init__(self, gateway):
        self._base = f"http://127.0.0.1:{gateway.admin_port}/api/v1"
        self._token = (gateway.folder / "state" / "admin-token").read_text().strip()

    def _ask(self, method, path, body=None):
        request = urllib.request.Request(self._base + path, data=body, method=method)
        request.add_header("authorization", f"Bearer {self._token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    async def ask(self, method, path, body=None):
        """The answer, read on another thread."""
        return await asyncio.to_thread(self._ask, method, path, body)


def versions(count):
    """The same component so many times, told apart by a custom section."""
    component = (Path(os.environ["PENSTOCK_PLUGINS"]) / "echo.wasm").read_bytes()
    for number in range(count):
        text = b"\x07version" + f"{number:04}".encode()
        yield component + b"\x00" + bytes([len(text)]) + text


async def reloads(count, streams):
    """Reloads so many plugins and so many policies: what became of the requests and streams, and of the memory in MiB."""
    vendor = await Vendor().start()
    with stand.Gateway(plugins=PLUGINS, policy=POLICY, origin=vendor.port, limits="connections_max = 4096",
                       timeouts="total_ms = 3600000") as gateway:
        admin, policy = Admin(gateway), gateway.folder / "policies" / "gateway.toml"
        text = policy.read_text()
        held = [asyncio.create_task(stream(gateway.port)) for _ in range(streams)]
        resident = []
        async with Load(gateway.port) as load:
            parts = list(versions(min(count, VERSIONS)))
            for component in parts:  # each has been compiled before memory is judged
                await admin.ask("POST", "/plugins", component)
            for turn in range(count):
                generation = (await admin.ask("POST", "/plugins", parts[turn % len(parts)]))["generation"]
                policy.write_text(f"{text}# {turn}\n[models.alias{turn % 7}]\ntargets = [{{ vendor = 'echo', model = 'echo' }}]\n")
                installed = await admin.ask("POST", "/reload")
                assert installed["generation"] > generation, installed
                if turn % max(1, count // 20) == 0:
                    resident.append(await settled_mib(gateway))
        vendor.ending.set()
        cut = [found for found in await asyncio.gather(*held) if found is not None]
        # The first tenth is warming up.
        settled = resident[len(resident) // 10 + 1 :]
        return load, cut, settled


async def settled_mib(gateway):
    """What the gateway has for longer than a moment: what a request or a change has only just needed comes and goes."""
    seen = []
    for _ in range(5):
        seen.append(gateway.resident_mib())
        await asyncio.sleep(0.02)
    return min(seen)


async def upgrades(count):
    """Upgrades the program so many times under load; what became of the requests, and how many upgrades there were."""
    timeouts = f"drain_ms = {DRAIN_MS}"
    with stand.Gateway(command="supervise", plugins=PLUGINS[:2], timeouts=timeouts) as gateway:
        done = 0
        async with Load(gateway.port) as load:
            for _ in range(count):
                os.kill(gateway.pid, signal.SIGUSR2)
                deadline = time.monotonic() + 60
                while gateway.log().count(b'"upgraded"') <= done and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
                done = gateway.log().count(b'"upgraded"')
            await asyncio.sleep(0.5)
        return load, done


async def kills(count):
    """Kills the worker so many times: the longest time until the next request was answered, in seconds, and refused connections."""
    with stand.Gateway(command="supervise", plugins=PLUGINS[:2]) as gateway:
        slowest, refused = 0.0, 0
        for _ in range(count):
            await asyncio.sleep(0.3)
            os.kill(worker_of(gateway.pid), signal.SIGKILL)
            begun = time.monotonic()
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                    await ask(reader, writer)
                    writer.close()
                    break
                except ConnectionRefusedError:
                    refused += 1
                except (OSError, EOFError):
                    pass  # it had come to the worker that was killed
                await asyncio.sleep(0.01)
            slowest = max(slowest, time.monotonic() - begun)
        return slowest, refused


def worker_of(supervisor):
    """The process that serves."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return int(children[-1])
