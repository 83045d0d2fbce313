# SPDX-License-Identifier: Apache-2.0
"""Answers that are cut or malformed, twelve kinds, each ended in order and by a reset, before every dialect, whole and streamed:
the official SDK raises, and the request is accounted."""

import asyncio
import json
import time

from callers import each
from faulty import FIRST_BYTE_MS, IDLE_MS
from gateway import FAMILIES, base, vendor
from judged import JudgedTest

PAIRS = [(dialect, dialect) for dialect in FAMILIES]
PAIRS += [("openai-chat", "anthropic-messages"), ("anthropic-messages", "openai-chat"), ("openai-responses", "openai-chat")]
# How long a vendor waits before it ends a connection, so that what it has sent arrives.
PAUSE_S = 0.02


def chunked(half, kind):
    return head(kind, "transfer-encoding: chunked") + b"%x\r\n%s\r\n" % (len(half), half)


def too_short(half, kind):
    return head(kind, f"content-length: {len(half) + 100}") + half


def to_the_end(half, kind):
    return head(kind, "connection: close") + half


def half_a_head(_, kind):
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind[:-3]}".encode()


def nothing(*_):
    return b""


def garbage(*_):
    return b"\x00\x01\x02garbage\r\n\r\n"


def announcements(*_):
    return b"HTTP/1.1 102 Processing\r\n\r\n" * 2000


def bad_chunk(half, kind):
    return head(kind, "transfer-encoding: chunked") + b"zz\r\n" + half + b"\r\n"


def two_framings(half, kind):
    return head(kind, "content-length: 5", "transfer-encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(half), half)


def long_head(_, kind):
    return head(kind, "x-a: " + "a" * 1_000_000, "content-length: 0")


def control_byte(_, kind):
    return head(kind, "x-a: a\0b", "content-length: 0")


def long_extension(half, kind):
    extension = b"x" * 200_000
    return head(kind, "transfer-encoding: chunked") + b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(half), extension, half)


KINDS = (
    chunked,
    too_short,
    to_the_end,
    half_a_head,
    nothing,
    garbage,
    announcements,
    bad_chunk,
    two_framings,
    long_head,
    control_byte,
    long_extension,
)


def head(kind, *lines):
    """The head of an answer of this media type."""
    lines = ["HTTP/1.1 200 OK", f"content-type: {kind}", *lines]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def fault(kind, is_reset):
    """What a vendor does with a request."""

    async def answer(talk):
        await talk.send(kind(talk.half(), talk.media_type))
        await asyncio.sleep(PAUSE_S)
        if is_reset:
            talk.reset()
        return False

    return answer


FAULTS = {
    f"{kind.__name__}-{ending}": fault(kind, ending == "rst") for kind in KINDS for ending in ("fin", "rst")
}
TIMEOUTS = f"""
[timeouts]
connect_ms = 1000
first_byte_ms = {FIRST_BYTE_MS}
idle_ms = {IDLE_MS}
retry_wait_ms = 0
"""


def policy(upstream, key, folder):
    """A vendor of each family."""
    return base(key, folder) + TIMEOUTS + "".join(vendor(name, name, upstream) for name in FAMILIES.values())


def model(dialect, family, name, stream):
    """The name by which a case is asked for and found in the access log."""
    return f"{name}~{PAIRS.index((dialect, family))}{'s' if stream else 'w'}"


class CutTest(JudgedTest):
    """Cut and malformed answers."""

    faults = FAULTS
    policy = staticmethod(policy)

    def test_every_sdk_raises_and_every_answer_is_accounted(self):
        self.assertEqual(len(FAULTS), 24)
        cases = [(*pair, name, stream) for name in FAULTS for stream in (False, True) for pair in PAIRS]
        each(self, cases, self.check_raises)
        self.check_entries(cases)

    def check_raises(self, dialect, family, name, stream):
        """That of Cohere tells an error in a stream in the place of a finish."""
        caller = self.callers[dialect]
        try:
            read = caller.ask(f"{FAMILIES[family]}/{model(dialect, family, name, stream)}", stream)
        except caller.error:
            return
        self.assertEqual((dialect, read.finish), ("cohere-v2", "ERROR"), read)

    def check_entries(self, cases):
        """One entry for each; what has been said of an answer is counted, and of what was never begun nothing."""
        time.sleep(0.5)
        lines = [json.loads(line) for line in self.gateway.log().splitlines() if '"target":"access"' in line]
        entries = {line["model"]: line for line in lines}
        self.assertEqual(len(lines), len(cases))
        for dialect, family, name, stream in cases:
            with self.subTest(caller=dialect, vendor=family, fault=name, stream=stream):
                entry = entries[model(dialect, family, name, stream)]
                tokens = (entry["input_tokens"] > 0, entry["output_tokens"] > 0)
                if stream and entry["status"] == 200:
                    self.assertEqual((entry["ending"], tokens), ("broken", (True, True)), entry)
                else:
                    self.assertEqual((entry["status"] >= 500, tokens), (True, (False, False)), entry)
