# SPDX-License-Identifier: Apache-2.0
"""How vendors cut their streams: what the replay needs in order to write them itself."""

import json
import struct
import zlib

MEDIA_TYPES = {
    "sse": "text/event-stream",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "aws-eventstream": "application/vnd.amazon.eventstream",
}


def is_array(body):
    """Whether a stream is the elements of one JSON array, as Gemini writes it without `alt=sse`."""
    return body.lstrip()[:1] == b"["


def sse_of_array(body):
    """The same stream as events."""
    return b"".join(b"data: %s\r\n\r\n" % json.dumps(element).encode() for element in json.loads(body))


def sse(events, named=True, done=False):
    """Server-sent events of these objects; each is named by its `type`, if they are named."""
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return ("".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()


def event_stream(events):
    """Frames of `application/vnd.amazon.eventstream` for these (name, object)."""
    return b"".join(_frame(name, json.dumps(payload).encode()) for name, payload in events)


def _frame(name, payload):
    pairs = ((":event-type", name), (":content-type", "application/json"), (":message-type", "event"))
    headers = b"".join(_header(*pair) for pair in pairs)
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name, value):
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
