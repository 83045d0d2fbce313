# SPDX-License-Identifier: Apache-2.0
"""Reads HTTP/1 requests as strictly as RFC 9112 lets one: what two parsers could read in two ways is a violation."""

import re

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"[\x20-\x7e\x80-\xff\t]*")
TARGET = re.compile(rb"[\x21-\x7e]+")
LENGTH = re.compile(rb"[0-9]{1,18}")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})([ \t]*;[\x20-\x7e\t\x80-\xff]*)?")
HEAD_BYTES_MAX = 200_000


class Violation(Exception):
    """Why a message is none that every parser reads alike."""


def request(data):
    """The first request in these bytes as (method, target, body, length of all), or None if it is not complete.

    Raises a Violation if it is no strictly valid request.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    rest = head.replace(b"\r\n", b"")
    if b"\n" in rest:
        raise Violation("a line feed alone")
    if b"\r" in (rest[:-1] if end < 0 else rest):
        raise Violation("a carriage return alone")
    if end < 0:
        if len(data) > HEAD_BYTES_MAX:
            raise Violation("a huge head")
        return None
    lines = head.split(b"\r\n")
    method, target, version = _request_line(lines[0])
    length, chunked = _framing(lines[1:], version)
    begin = end + 4
    if chunked:
        return _chunked(data, begin, method, target)
    if len(data) < begin + length:
        return None
    return method, target, data[begin : begin + length], begin + length


def _request_line(line):
    words = line.split(b" ")
    if len(words) != 3:
        raise Violation(f"request line {line[:60]!r}")
    method, target, version = words
    if not TOKEN.fullmatch(method):
        raise Violation(f"method {method[:40]!r}")
    if not TARGET.fullmatch(target):
        raise Violation(f"target {target[:60]!r}")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Violation(f"version {version!r}")
    return words


def _framing(lines, version):
    lengths, codings, hosts = [], [], 0
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not TOKEN.fullmatch(name):
            raise Violation(f"header name {line[:40]!r}")
        value = value.strip(b" \t")
        if not VALUE.fullmatch(value):
            raise Violation(f"header value {line[:60]!r}")
        name = name.lower()
        lengths += [value] if name == b"content-length" else []
        codings += [value.lower()] if name == b"transfer-encoding" else []
        hosts += name == b"host"
    if lengths and codings:
        raise Violation("both content-length and transfer-encoding")
    if len(lengths) > 1 or not all(LENGTH.fullmatch(length) for length in lengths):
        raise Violation(f"content-length {lengths!r}")
    if codings and (codings != [b"chunked"] or version == b"HTTP/1.0"):
        raise Violation(f"transfer-encoding {codings!r}")
    if hosts > 1 or (hosts == 0 and version == b"HTTP/1.1"):
        raise Violation(f"{hosts} hosts")
    return int(lengths[0]) if lengths else 0, bool(codings)


def _chunked(data, at, method, target):
    body = bytearray()
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            if b"\n" in data[at:] or len(data) - at > 4096:
                raise Violation(f"chunk line {data[at : at + 40]!r}")
            return None
        match = CHUNK.fullmatch(data[at:end])
        if not match:
            raise Violation(f"chunk line {data[at:end][:40]!r}")
        size, at = int(match[1], 16), end + 2
        if size == 0:
            end = _trailers(data, at)
            return None if end is None else (method, target, bytes(body), end)
        if len(data) < at + size + 2:
            return None
        if data[at + size : at + size + 2] != b"\r\n":
            raise Violation("a chunk that does not end where it says")
        body += data[at : at + size]
        at += size + 2


def _trailers(data, at):
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        if end == at:
            return end + 2
        name, colon, value = data[at:end].partition(b":")
        if not colon or not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            raise Violation(f"trailer {data[at:end][:40]!r}")
        at = end + 2
