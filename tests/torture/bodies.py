# SPDX-License-Identifier: Apache-2.0
"""Hostile bodies: JSON that parsers disagree on, deep and large JSON, compressed bombs, members that are named twice."""

import asyncio
import gzip
import json
import time

CALL = b'{"model":"echo","messages":[{"role":"user","content":"hi"}]'
AT_A_TIME = 8
# The caller's dialect is the echoing vendor's own, or another one.
PATHS = ("/open/v1/chat/completions", "/open/v1/messages")


async def ask(port, path, body, headers=()):
    """Status and body of the answer; status 0 if there was none."""
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}"]
    head += ["Content-Type: application/json", *headers]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        answer = await asyncio.wait_for(reader.read(-1), 30)
    except (OSError, TimeoutError):
        return 0, b""
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head[9:12] or 0), body


async def suite(port, folder):
    """JSONTestSuite, each file as a member of a call: `y` must be taken, `n` refused with 400, `i` either. Wrong verdicts."""
    files, wrong = sorted(folder.glob("*.json")), []
    waiting = iter([(file, path) for file in files for path in PATHS])

    async def judge():
        for file, path in waiting:
            body = CALL + b',"max_tokens":9,"torture":' + file.read_bytes() + b"}"
            status, _ = await ask(port, path, body)
            allowed = {"y": (200,), "n": (400,), "i": (200, 400)}[file.name[0]]
            if status not in allowed:
                wrong.append((file.name, path, status))

    await asyncio.gather(*[judge() for _ in range(AT_A_TIME)])
    return len(files), wrong


def hostile():
    """Bodies with the statuses that are allowed: name, body, headers, statuses."""
    deep = 100_000
    double = [
        b'"model":"other"',
        b'"mod\\u0065l":"other"',
        b'"Model":"other"',
        b'"MODEL":"other"',
        b'"stream":true,"Stream":false',
    ]
    for member in double:
        yield f"two of {member.decode()}", CALL + b"," + member + b"}", (), (400,)
    yield "deep array", CALL + b',"x":' + b"[" * deep + b"]" * deep + b"}", (), (200, 400)
    yield "deep object", CALL + b',"x":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}", (), (200, 400)
    yield "deep messages", b'{"model":"echo","messages":' + b"[" * deep + b"]" * deep + b"}", (), (200, 400)
    yield "deep and open", CALL + b',"x":' + b"[" * deep, (), (400,)
    yield "long number", CALL + b',"x":' + b"9" * (8 << 20) + b"}", (), (200, 400)
    yield "huge exponent", CALL + b',"max_tokens":1e999999999}', (), (200, 400)
    # An adapter that cannot do it within its deadline and its memory is cut, which is 502 for this caller alone.
    yield "many members", CALL + b"".join(b',"m%d":1' % number for number in range(300_000)) + b"}", (), (200, 400, 502)
    yield "many messages", b'{"model":"echo","messages":[' + b",".join(
        [b'{"role":"user","content":"x"}'] * 100_000
    ) + b"]}", (), (200, 400, 502)
    bomb = gzip.compress(CALL + b',"x":"' + b"a" * (32 << 20) + b'"}')
    yield "gzip bomb", bomb, ("Content-Encoding: gzip",), (413, 415)
    yield "two codings", bomb, ("Content-Encoding: gzip, gzip",), (413, 415)
    yield "unknown coding", CALL + b"}", ("Content-Encoding: x-unknown",), (415,)
    yield "too large", CALL + b',"x":"' + b"a" * (40 << 20) + b'"}', (), (413,)
    yield "lone surrogate", b'{"model":"\\ud800","messages":[]}', (), (400,)
    yield "not UTF-8", b'{"model":"echo","messages":"\xff"}', (), (400,)
    yield "byte order mark", b"\xef\xbb\xbf" + CALL + b"}", (), (400,)


async def run(gateway):
    """Sends each hostile body in both dialects; wrong verdicts, the slowest verdict and the growth of memory in MiB."""
    wrong, slowest, count, before = [], 0.0, 0, gateway.resident_mib()
    peak = before
    for name, body, headers, allowed in hostile():
        for path in PATHS:
            begun = time.monotonic()
            status, answer = await ask(gateway.port, path, body, headers)
            slowest, count = max(slowest, time.monotonic() - begun), count + 1
            peak = max(peak, gateway.resident_mib())
            if status not in allowed:
                wrong.append((name, path, status, answer[:200]))
    return count, wrong, slowest, peak - before


def lines_of(log):
    """The lines of the log that are about requests; raises a ValueError if one is not JSON or has a raw control byte."""
    found = []
    for line in log.split(b"\n"):
        if not line:
            continue
        if any(byte < 0x20 or byte == 0x7F for byte in line):
            raise ValueError(f"a control byte in {line[:200]!r}")
        said = json.loads(line)
        if said.get("target") == "access":
            found.append(said)
    return found


def naughty(strings):
    """Each string in every field that a caller chooses: bytes of a request. Fields that cannot carry it are percent-encoded or left out."""
    for text in strings:
        raw = text.encode("utf-8", "surrogatepass")
        quoted = "".join(f"%{byte:02X}" for byte in raw) or "%20"
        line = raw.replace(b"\r", b"").replace(b"\n", b"")
        body = json.dumps(
            {"model": text or "x", "messages": [{"role": "user", "content": text}], "user": text}
        ).encode()
        for target in (f"/naughty/{quoted}?q={quoted}", f"/v1/{quoted}"):
            yield request(b"GET", target.encode(), b"", {b"x-naughty": line})
        yield request(b"GET", b"/raw/" + line, b"", {})
        for name in (
            b"user-agent",
            b"authorization",
            b"x-api-key",
            b"traceparent",
            b"x-request-id",
            b"x-forwarded-for",
        ):
            yield request(b"POST", b"/open/v1/chat/completions", body, {name: line})
        yield request(b"POST", b"/open/v1/messages", body, {})
        yield request(b"GET", b"/host", b"", {b"host": line})
        yield request(b"PUT", b"/open/v1/chat/completions", raw, {b"content-type": line})


def request(method, target, body, headers):
    """Bytes of a request on a connection of its own."""
    headers = {b"host": b"localhost", b"content-length": b"%d" % len(body), b"connection": b"close", **headers}
    lines = [name + b": " + value for name, value in headers.items()]
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *lines, b"", b""]) + body


async def log_lines(gateway, strings):
    """Sends all naughty requests; how many were answered, how many log lines came, and what is wrong with the log."""
    before = len(lines_of(gateway.log()))
    waiting, answered = naughty(strings), 0

    async def send():
        nonlocal answered
        for message in waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            try:
                writer.write(message)
                answer = await asyncio.wait_for(reader.read(-1), 15)
                answered += answer.startswith(b"HTTP/1.1 ")
            except (OSError, TimeoutError):
                pass
            finally:
                writer.close()

    await asyncio.gather(*[send() for _ in range(AT_A_TIME)])
    await asyncio.sleep(0.5)
    try:
        return answered, len(lines_of(gateway.log())) - before, None
    except ValueError as error:
        return answered, 0, str(error)
