# SPDX-License-Identifier: Apache-2.0
"""Clients that stall: each is closed at the limit of the state that it stalls in, and others do not notice."""

import asyncio
import ssl
import time

import floods
import origin

# The limits that the gateway is given, in seconds: each another one, so that none is taken for another.
HEAD_S, BODY_S, KEEP_ALIVE_S, WRITE_S = 3, 5, 7, 9
TIMEOUTS = (
    f"head_ms = {HEAD_S}000\nbody_idle_ms = {BODY_S}000\nkeep_alive_ms = {KEEP_ALIVE_S}000\nidle_ms = {WRITE_S}000"
)
LATE_S = 1.0


def http1(head, body=b""):
    """Bytes of an HTTP/1.1 request."""
    return b"\r\n".join([head + b" HTTP/1.1", b"Host: localhost", b""]) + body


HTTP2 = floods.PREFACE + floods.frame(floods.SETTINGS, 0, 0)
# What is sent, over TLS or not, and within how many seconds the connection is closed.
STALLS = {
    "nothing sent": (b"", False, HEAD_S),
    "half a request line": (b"GET /a HT", False, HEAD_S),
    "half a head": (http1(b"GET /a", b"X-a: "), False, HEAD_S),
    "half a preface": (floods.PREFACE[:12], False, HEAD_S),
    "half a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", False, HEAD_S),
    "nothing sent over TLS": (b"", True, HEAD_S),
    "half a head over TLS": (http1(b"GET /a", b"X-a: "), True, HEAD_S),
    "half a body": (http1(b"POST /a", b"Content-Length: 100\r\n\r\nabc"), False, BODY_S),
    "half a chunk": (http1(b"POST /a", b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc"), False, BODY_S),
    "half a body of an AI call": (
        http1(b"POST /open/v1/chat/completions", b"Content-Length: 100\r\n\r\n{"),
        False,
        BODY_S,
    ),
    "half a body over TLS": (http1(b"POST /a", b"Content-Length: 100\r\n\r\nabc"), True, BODY_S),
    "a request, then nothing": (http1(b"GET /a", b"\r\n"), False, KEEP_ALIVE_S),
    "a request, then half a head": ((http1(b"GET /a", b"\r\n"), b"GET /b HTT"), False, HEAD_S),
    "HTTP/2, then nothing": (HTTP2, False, KEEP_ALIVE_S),
    "HTTP/2 over TLS, then nothing": (HTTP2, True, KEEP_ALIVE_S),
    "HTTP/2, half a head": (HTTP2 + floods.frame(floods.HEADERS, 0, 1, floods.GET), False, KEEP_ALIVE_S),
}


async def stall(port, tls_port, name):
    """Stalls in one way; after how many seconds the connection was closed, and the limit."""
    data, over_tls, limit = STALLS[name]
    port = tls_port if over_tls or "TLS" in name else port
    context = None
    if over_tls:
        context = floods.tls()
        context.set_alpn_protocols(["h2" if data.startswith(floods.PREFACE) else "http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        if isinstance(data, tuple):
            first, data = data
            writer.write(first)
            await reader.readuntil(origin.NOTHING)
        writer.write(data)
        return await _closed(reader, limit), limit
    finally:
        writer.transport.abort()


async def _closed(reader, limit):
    """From now, or from the end of an answer that has come meanwhile, to the close."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(limit + 10):
            while await reader.read(1 << 16):
                # An answer that comes at once begins the wait for the next request.
                if time.monotonic() - begun < 1:
                    begun = time.monotonic()
    except TimeoutError:
        return float("inf")
    except (OSError, ssl.SSLError):
        pass
    return time.monotonic() - begun


async def unread(port):
    """Asks for a large answer and reads none of it; after how many seconds the connection was reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writer.transport.pause_reading()
    writer.write(http1(b"GET " + origin.LARGE, b"\r\n"))
    begun = time.monotonic()
    del reader
    sock = writer.get_extra_info("socket")
    while time.monotonic() - begun < WRITE_S + 20:
        await asyncio.sleep(0.1)
        # A state other than ESTABLISHED: the gateway has ended it.
        if sock.getsockopt(6, 11, 1)[0] != 1:
            break
    took = time.monotonic() - begun
    writer.transport.abort()
    return took


async def hold(port, tls_port, count):
    """Opens `count` connections in clear text that stall, of every kind in turn; their tasks end when they are closed."""
    kinds = [name for name, (_data, over_tls, _limit) in STALLS.items() if not over_tls]
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(stall(port, tls_port, kinds[number % len(kinds)])))
        await asyncio.sleep(0.001)
    return tasks
