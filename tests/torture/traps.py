# SPDX-License-Identifier: Apache-2.0
"""Plugins that break on some requests: those fail as they should, at once and alone, and nobody gets past auth or a limit.

Auth, limits and an adapter break on one request of twenty each. The vendor behind them writes down whose requests it has seen.
"""

import asyncio
import json
import multiprocessing
import random
import time

import stand
import wasm

GATE, COUNTS, FLAKY = "gate", "counts", "flaky"
POLICY = (
    stand.PLACES
    + """
[plugins.gate]
plugin = "gate"
[plugins.counts]
plugin = "counts"
[plugins.bucket]
plugin = "token-bucket"
config = {{ rules = [{{ name = "greedy", per = ["subject"], subjects = ["greedy"], requests_per_minute = 60, burst = 50 }}] }}
[vendors.v]
adapter = "flaky"
base_url = "http://127.0.0.1:{origin}"
models = ["many-*"]
[[routes]]
name = "guarded"
path = "/v1"
auth = "gate"
limits = ["counts", "bucket"]
"""
)
AT_A_TIME = 8
# The good request after breaks in a row.
AFTER_THE_ROW = "row/good"
SHARE = 0.05
BURST, PER_S = 50, 1.0
ANSWER_S_MAX = 0.05
BREAKS = ("trap", "trap", "trap", "overflow", "exit")
# Header, model, statuses. The model says what limits and the adapter do, the header what auth does.
KINDS = {
    "fine": ("fine", "many-fine", (200,)),
    "refused": ("refuse", "many-fine", (401,)),
    "greedy": ("greedy", "many-fine", (200, 429)),
    "auth": ("{how}", "many-fine", (503,)),
    "limits": ("fine", "many-limits-{how}", (503,)),
    "adapter": ("fine", "many-adapter-{how}", (502,)),
    "hung up": ("fine", "many-adapter-sleep", ()),
    "hung up in auth": ("sleep", "many-fine", ()),
}


def components(folder):
    """The plugin that misbehaves on request, as three kinds."""
    built = (folder / "hostile.wasm").read_bytes()
    made = {}
    for kind, name in (("auth", GATE), ("limits", COUNTS), ("adapter", FLAKY)):
        said = {"kind": kind, "api": "0.1.0", "name": name, "version": "1.0.0"}
        said |= {"dialects": ["openai-chat"], "operations": ["chat"]} if kind == "adapter" else {}
        made[f"{name}.wasm"] = built + wasm.custom("penstock:plugin", json.dumps(said).encode())
    return made


class Vendor:
    """Answers chats in a process of its own, and remembers the `user` of each."""

    def __init__(self):
        self._ports, self._seen, self._stop = multiprocessing.Queue(), multiprocessing.Queue(), multiprocessing.Event()
        self._process = multiprocessing.Process(target=_vendor, args=(self._ports, self._seen, self._stop), daemon=True)
        self._process.start()
        self.port = self._ports.get(timeout=30)

    def end(self):
        """Whose requests it has seen."""
        self._stop.set()
        seen = self._seen.get(timeout=60)
        self._process.join()
        return seen


def _vendor(ports, seen, stop):
    users = []

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                users.append(json.loads(await reader.readexactly(length))["user"])
                said = json.dumps(
                    {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", "message":
                     {"role": "assistant", "content": "hi"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
                ).encode()  # fmt: skip
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
                writer.write(head.encode() + said)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def until_stopped():
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        ports.put(server.sockets[0].getsockname()[1])
        while not stop.is_set():
            await asyncio.sleep(0.05)

    asyncio.run(until_stopped())
    seen.put(users)


class Tally:
    """What came of the requests."""

    def __init__(self):
        self.statuses, self.wrong, self.took, self.kinds = {}, [], {}, {}
        self.begun, self.seconds = time.monotonic(), 0.0

    def add(self, user, kind, status, took, body):
        """One request."""
        self.kinds[user] = kind
        self.statuses[(kind, status)] = self.statuses.get((kind, status), 0) + 1
        self.took.setdefault(kind, []).append(took)
        if status not in KINDS[kind][2] and not kind.startswith("hung up"):
            self.wrong.append((kind, status, body[:200]))

    def count(self, kind, status=None):
        """Requests of a kind, with a status."""
        return sum(n for (k, s), n in self.statuses.items() if k == kind and status in (None, s))

    def percentile(self, kinds, share):
        """How long such requests took."""
        took = sorted(t for kind in kinds for t in self.took.get(kind, ()))
        return took[min(int(len(took) * share), len(took) - 1)] if took else 0.0


async def run(port, count, rng=None):
    """So many requests of all kinds."""
    rng, tally, numbers = rng or random.Random(11), Tally(), iter(range(count))

    async def ask():
        link = None
        for number in numbers:
            kind = _draw(rng)
            link = await _one(port, link, f"{kind}/{number}", kind, rng.choice(BREAKS), tally, rng)
        if link:
            link[1].close()

    await asyncio.gather(*[ask() for _ in range(AT_A_TIME)])
    tally.seconds = time.monotonic() - tally.begun
    return tally


def _draw(rng):
    drawn = rng.random()
    for kind, share in (
        ("auth", SHARE),
        ("limits", SHARE),
        ("adapter", SHARE),
        ("refused", 0.02),
        ("greedy", 0.02),
        ("hung up", 0.005),
        ("hung up in auth", 0.005),
    ):
        drawn -= share
        if drawn < 0:
            return kind
    return "fine"


async def _one(port, link, user, kind, how, tally, rng):
    asked, model, _ = KINDS[kind]
    call = {"model": model.format(how=how), "user": user, "messages": [{"role": "user", "content": "hi"}]}
    body = json.dumps(call).encode()
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", f"X-Wanted: {asked.format(how=how)}"]
    head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    reader, writer = link or await asyncio.open_connection("127.0.0.1", port)
    begun = time.monotonic()
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    if kind.startswith("hung up"):
        await asyncio.sleep(rng.random() * 0.02)
        writer.close()
        tally.add(user, kind, 0, 0, b"")
        return None
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await asyncio.wait_for(reader.readexactly(length), 10)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, StopIteration) as error:
        tally.add(user, kind, -1, time.monotonic() - begun, repr(error).encode())
        writer.close()
        return None
    tally.add(user, kind, int(head[9:12]), time.monotonic() - begun, body)
    if b"connection: close" in head.lower():
        writer.close()
        return None
    return reader, writer


def bypasses(tally, seen):
    """Requests that the vendor has seen and should not have: breaks and refusals, and more of the greedy than there may be."""
    past = [user for user in seen if tally.kinds.get(user) not in ("fine", "greedy") and user != AFTER_THE_ROW]
    greedy = sum(tally.kinds.get(user) == "greedy" for user in seen)
    over = max(0, greedy - int(BURST + PER_S * tally.seconds + 1))
    return past, over


async def in_a_row(port, count=60):
    """Nothing but breaks in auth: how many were let in, how long the slower half of the last ones took, and whether the next
    good request is served after the rest."""
    tally = Tally()
    for number in range(count):
        await _one(port, None, f"row/{number}", "auth", "trap", tally, random)
    last = tally.took["auth"][-20:]
    await asyncio.sleep(0.7)
    await _one(port, None, AFTER_THE_ROW, "fine", "", tally, random)
    return tally.count("auth") - tally.count("auth", 503), max(last), tally.count("fine", 200) == 1
