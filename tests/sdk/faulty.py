# SPDX-License-Identifier: Apache-2.0
"""Vendors on loopback that fail: raw sockets, so that what no HTTP library would send can be sent.

The first segment of a path is the vendor, as in `replay`. The model that a request names chooses what happens: its name up to
a `~` is a fault of `FAULTS`, what follows makes it unique (the fault is told how often this very name was asked before). A
healthy vendor answers in the words of `scripted`, whole or as a stream.
"""

import asyncio
import json
import socket
import struct
import threading
from dataclasses import dataclass, field

from gateway import FAMILIES
from replay import Asked
from scripted import SCRIPTS, TURNS

# How long a vendor that says nothing keeps the connection. The gateways that are tested are less patient.
SILENT_S = 20
# What a gateway waits for the head and for a piece of an answer in these tests, and what a vendor that is only slow needs.
FIRST_BYTE_MS, IDLE_MS, SLOW_S = 600, 400, 0.15
# What the last event of a dialect has in it.
LAST = {
    "openai-chat": b"[DONE]",
    "openai-responses": b"event: response.completed",
    "anthropic-messages": b"event: message_stop",
    "gemini": b"finishReason",
    "cohere-v2": b"message-end",
    "bedrock-converse": b"messageStop",
}
VENDORS = {vendor: family for family, vendor in FAMILIES.items()}
ERRORS = {
    "429": ("429 Too Many Requests", "rate_limit_error", "rate limit reached"),
    "500": ("500 Internal Server Error", "server_error", "an internal error"),
    "503": ("503 Service Unavailable", "overloaded_error", "overloaded"),
    "400": ("400 Bad Request", "invalid_request_error", "temperature must be at most 2"),
    "401": ("401 Unauthorized", "authentication_error", "no such key"),
    "long": ("400 Bad Request", "invalid_request_error", "prompt is too long: this model's maximum context length is 9 tokens"),
    "filter": ("400 Bad Request", "invalid_request_error", "Output blocked by content filtering policy"),
    "prefill": (
        "400 Bad Request",
        "invalid_request_error",
        "This model does not support assistant message prefill. The conversation must end with a user message.",
    ),
}


@dataclass
class Talk:
    """One exchange with a vendor."""

    asked: Asked
    family: str
    times: int
    writer: asyncio.StreamWriter
    details: list = field(default_factory=list)

    @property
    def script(self):
        """The healthy vendor of this family."""
        return SCRIPTS[self.family](self.asked.model)

    @property
    def body(self):
        """What a healthy vendor answers, in bytes."""
        script, turn = self.script, TURNS[2]
        return script.stream(2, turn) if self.asked.streaming else json.dumps(script.whole(2, turn)).encode()

    @property
    def media_type(self):
        """Of that."""
        return self.script.stream_type if self.asked.streaming else "application/json"

    async def send(self, data):
        """Writes bytes and lets them go."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status="200 OK", length=None, more=()):
        """The head of an answer in chunks, or of one with a length."""
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = [f"HTTP/1.1 {status}", f"content-type: {self.media_type}", framing, *more]
        await self.send("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")

    async def chunk(self, data):
        """A piece of an answer in chunks."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def well(self):
        """A healthy answer."""
        body = self.body
        await self.head(length=None if self.asked.streaming else len(body))
        if not self.asked.streaming:
            return await self.send(body)
        await self.chunk(body)
        return await self.send(b"0\r\n\r\n")

    async def refuse(self, name, more=()):
        """An error answer in the vendor's words."""
        status, kind, message = ERRORS[name]
        body = json.dumps(self.error(status, kind, message)).encode()
        lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *more]
        if self.family == "bedrock-converse":
            kinds = {"429": "ThrottlingException", "500": "InternalServerException", "503": "ServiceUnavailableException"}
            kinds |= {"401": "UnrecognizedClientException"}
            lines.append(f"x-amzn-errortype: {kinds.get(status[:3], 'ValidationException')}")
        await self.send("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body)

    def error(self, status, kind, message):
        """The body of an error."""
        if self.family == "anthropic-messages":
            return {"type": "error", "error": {"type": kind, "message": message}}
        if self.family in ("cohere-v2", "bedrock-converse"):
            return {"message": message}
        if self.family == "gemini":
            words = {"429": "RESOURCE_EXHAUSTED", "500": "INTERNAL", "503": "UNAVAILABLE", "401": "UNAUTHENTICATED"}
            code = status[:3]
            return {"error": {"code": int(code), "message": message, "status": words.get(code, "INVALID_ARGUMENT")}}
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def half(self):
        """The beginning of a healthy answer: whole events of a stream with some of its words, or half of a value."""
        body = self.body
        if not self.asked.streaming:
            return body[: len(body) // 2]
        return b"".join(events(body)[: self.said()])

    def said(self):
        """How many events hold something of the answer, but not its end."""
        marks = (b"Warm", b"V2Fyb")
        found = [index for index, event in enumerate(events(self.body)) if any(mark in event for mark in marks)]
        return found[0] + 1

    def reset(self):
        """Breaks the connection with RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


def events(stream):
    """A stream cut into its events, with whatever frames them."""
    if stream[:1] == b"\0":  # frames of `application/vnd.amazon.eventstream` begin with their length
        cut, at = [], 0
        while at < len(stream):
            (length,) = struct.unpack(">I", stream[at : at + 4])
            cut.append(stream[at : at + length])
            at += length
        return cut
    return [event + b"\n\n" for event in stream.split(b"\n\n") if event.strip()]


class Faulty:
    """The server. `asked` holds every request, newest last; `open` how many connections there are now."""

    def __init__(self, faults):
        self.faults = faults
        self.asked = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24))
        self._ready.set()
        self._loop.run_forever()

    @property
    def url(self):
        """Where it listens, without a path."""
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    def models(self):
        """The names that were asked for, in their order."""
        return [asked.model for asked in self.asked]

    def close(self):
        """Stops the server, and whatever it still does."""

        async def stop():
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            while asked := await read(reader):
                times = self.models().count(asked.model)
                self.asked.append(asked)
                name = asked.model.split("~")[0]
                goes_on = await self.faults[name](Talk(asked, VENDORS[asked.vendor.split("-")[0]], times, writer))
                if goes_on is False:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def read(reader):
    """The next request of a connection, or None."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    # The number behind the vendor's name makes it another vendor of the same family.
    asked = Asked(method, path.replace("-second/", "/").replace("-third/", "/"), headers, body)
    asked.vendor = path.split("/")[1]
    return asked


# -- the faults


async def well(talk):
    """A healthy vendor."""
    await talk.well()


def refuses(name, *more, times=None):
    """Answers with an error, the first `times` times or always."""

    async def fault(talk):
        if times is not None and talk.times >= times:
            return await talk.well()
        return await talk.refuse(name, more)

    return fault


async def resets(talk):
    """The connection is reset when the request is there."""
    talk.reset()
    return False


async def says_nothing(talk):
    """No reply."""
    await asyncio.sleep(SILENT_S)
    return False


async def first_token_never(talk):
    """The head comes, and of a stream what stands before its first word; then nothing."""
    await talk.head()
    if talk.asked.streaming:
        before = b"".join(events(talk.body)[: talk.said() - 1])
        await talk.chunk(before) if before else None
    await asyncio.sleep(SILENT_S)
    return False


async def slow(talk):
    """The head comes late, and every event, too; but they come."""
    await asyncio.sleep(SLOW_S)
    await talk.head()
    for event in events(talk.body) if talk.asked.streaming else [talk.body]:
        await asyncio.sleep(SLOW_S)
        await talk.chunk(event)
    await talk.send(b"0\r\n\r\n")


def cut(how):
    """Half of an answer, and then `how`: the connection ends (fin), is reset (rst), is silent (stall), or the answer ends in
    good order (closed)."""

    async def fault(talk):
        await talk.head()
        await talk.chunk(talk.half())
        await asyncio.sleep(0.05)
        if how == "stall":
            await asyncio.sleep(SILENT_S)
        if how == "closed":
            await talk.send(b"0\r\n\r\n")
            return None
        if how == "rst":
            talk.reset()
        return False

    return fault


def malformed(at_once):
    """A stream in which one event is half of one (at once, or after some words); or an answer that is half a value."""

    async def fault(talk):
        if not talk.asked.streaming:
            body = talk.half()
            await talk.head(length=len(body))
            return await talk.send(body)
        cut = events(talk.body)
        said = 0 if at_once else talk.said()
        broken = cut[said][: len(cut[said]) * 2 // 3].rstrip()
        broken += b"" if talk.family == "bedrock-converse" else b"\n\n"
        await talk.head()
        if said:
            await talk.chunk(b"".join(cut[:said]))
            await asyncio.sleep(0.05)
        await talk.chunk(b"".join([broken, *cut[said + 1 :]]))
        return await talk.send(b"0\r\n\r\n")

    return fault


async def unterminated(talk):
    """Everything up to the last event of the dialect, which says that this was all; then an orderly end."""
    await talk.head()
    if talk.asked.streaming:
        whole = events(talk.body)
        last = next(index for index, event in enumerate(whole) if LAST[talk.family] in event)
        await talk.chunk(b"".join(whole[:last]))
    else:
        await talk.chunk(talk.half())
    await talk.send(b"0\r\n\r\n")


async def flaps(talk):
    """Every other answer is a 503."""
    await (talk.well() if talk.times % 2 else talk.refuse("503"))


FAULTS = {
    "well": well,
    "429-wait": refuses("429", "retry-after: 1", times=1),
    "429-lasting": refuses("429", "retry-after: 30"),
    "500-once": refuses("500", times=1),
    "503": refuses("503"),
    "reset": resets,
    "silent": says_nothing,
    "slow-token": first_token_never,
    "slow": slow,
    "cut-fin": cut("fin"),
    "cut-rst": cut("rst"),
    "cut-closed": cut("closed"),
    "stall": cut("stall"),
    "malformed": malformed(at_once=False),
    "malformed-first": malformed(at_once=True),
    "unterminated": unterminated,
    "400": refuses("400"),
    "401": refuses("401"),
    "context": refuses("long"),
    "filter": refuses("filter"),
    "prefill": refuses("prefill"),
    "flapping": flaps,
}
