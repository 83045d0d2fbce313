# SPDX-License-Identifier: Apache-2.0
"""Request smuggling: a corpus of other people's payloads, mutants of them, and victims that share the connections.

Every byte that the gateway sends on must be a strictly valid request. No answer of the origin may be left over: each one that
it has sent must have come to the caller whose bytes asked for it, and victims must get the answers to their own requests.
"""

import asyncio
import json
import random
import re
import time

WAIT_S = 1.2
QUIET_S = 0.35
VICTIMS = 4
SERIAL = re.compile(rb"x-serial: (\d+)")
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n", b"\xff", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"Upgrade: h2c\r\n", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"9" * 30, b"A" * 9000, b"Transfer-Encoding: gzip\r\n", b"Host: b\r\n", b"HTTP/1.0",
]  # fmt: skip


class Tally:
    """What a run has come to."""

    def __init__(self):
        self.sent = self.victims = self.victims_wrong = 0
        self.seen = set()
        self.outcomes = {}

    def count(self, outcome):
        """One more payload, and how it ended."""
        self.sent += 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


def payloads(folder, port):
    """The corpus, addressed to a gateway."""
    corpus = json.loads((folder / "corpus.json").read_text())
    return [text.encode("latin1").replace(b"HOSTHDR", b"127.0.0.1:%d" % port) for _source, _index, text in corpus]


def mutants(corpus, count, seed):
    """Payloads with some bytes changed, put in, taken out, or the end of another one."""
    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(dice.choice(corpus))
        for _ in range(dice.randint(1, 5)):
            kind, at = dice.random(), dice.randrange(len(data) + 1)
            if kind < 0.35 and data:
                data[min(at, len(data) - 1)] = dice.randrange(256)
            elif kind < 0.7:
                data[at:at] = dice.choice(TOKENS)
            elif kind < 0.85:
                del data[at : at + dice.randint(1, 8)]
            else:
                other = dice.choice(corpus)
                data[at:] = other[dice.randrange(len(other) + 1) :]
        yield bytes(data)


async def run(port, origin, messages, at_a_time, wait_s=WAIT_S):
    """Sends each message on a connection of its own; a tally, and what the origin holds against the gateway."""
    tally, messages = Tally(), iter(messages)
    origin.take()

    async def attack():
        for message in messages:
            tally.count(await _send(port, message, wait_s, tally.seen))

    done = asyncio.Event()
    victims = [asyncio.create_task(_victim(port, number, done, tally)) for number in range(VICTIMS)]
    await asyncio.gather(*[attack() for _ in range(at_a_time)])
    done.set()
    await asyncio.gather(*victims)
    await asyncio.sleep(0.5)
    _requests, violations, answered = origin.take()
    return tally, violations, {serial: target for serial, target in answered.items() if serial not in tally.seen}


async def _send(port, message, wait_s, seen):
    out, outcome = b"", "open"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return "refused"
    try:
        writer.write(message)
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            try:
                read = await asyncio.wait_for(reader.read(1 << 16), min(left, QUIET_S if out else left))
            except TimeoutError:
                break
            if not read:
                outcome = "closed"
                break
            out += read
    except OSError:
        outcome = "reset"
    finally:
        writer.close()
    seen.update(int(serial) for serial in SERIAL.findall(out))
    status = STATUS.search(out)
    return status[1].decode() if status else outcome


async def _victim(port, number, done, tally):
    """Asks in good faith, on a connection that is kept; every answer must be to its own request."""
    reader = writer = None
    count = 0
    while not done.is_set():
        count += 1
        target = b"/victim/%d/%d" % (number, count)
        tally.victims += 1
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST %b HTTP/1.1\r\nHost: v\r\nContent-Length: %d\r\n\r\n%b" % (target, len(target), target))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
            body = await asyncio.wait_for(reader.readexactly(len(target)), 15)
            tally.seen.update(int(serial) for serial in SERIAL.findall(head))
            tally.victims_wrong += b"x-target: " + target not in head or body != target
        except (OSError, EOFError, TimeoutError):
            tally.victims_wrong += 1
            writer = None
        await asyncio.sleep(0.02)
    if writer is not None:
        writer.close()
