# SPDX-License-Identifier: Apache-2.0
"""Overload, and a host in trouble: ten times the load, no descriptors left, a full disk, a clock that jumps, a shared store that is stopped, killed or slow.

Callers ask all the time, on connections of their own; what becomes of them, and how soon the next one is served when the trouble is
over, is measured from outside.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import overload
import stand
from artefacts import Operator
from changes import worker_of

BODY = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "still there?"}]}).encode()
CALLERS = 4
PAUSE_S = 0.01
# Descriptors that the gateway may have beyond those that it has.
DESCRIPTORS = 64
# When a key ends that the clock may jump over.
EXPIRES_S = 3600
DISK_MIB = 96
LIBFAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)
PLUGINS = ("api-key.wasm", "echo.wasm", "budget.wasm", "token-bucket.wasm")
POLICY = (
    stand.PLACES
    + """
[timeouts]
{timeouts}
[limits]
{limits}
%s
[plugins.callers]
plugin = "api-key"
config = {{ keys = [{{ subject = "torture", sha256 = "{key}" }}] }}
[plugins.budget]
plugin = "budget"
config.rules = [{{ name = "day", requests = 100000000, window = "day" }}]
[plugins.bucket]
plugin = "token-bucket"
config.rules = [{{ name = "minute", requests_per_minute = 60000, burst = 1000 }}]
[vendors.echo]
adapter = "echo"
models = ["echo"]
[services.origin]
endpoints = ["http://127.0.0.1:{origin}"]
[[routes]]
name = "plain"
path = "/"
service = "origin"
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
limits = ["bucket", "budget"]
"""
)
AWAY = """[state]
redis = "redis://127.0.0.1:{socket}"
away = "%s"
"""
# What each mode says that becomes of calls while the store is away.
DECLARED = {"closed": {200, 503}, "open": {200}, "local": {200}}


class Calls:
    """Callers who ask again and again: when each request began, how long it took, and its status (0 for none)."""

    def __init__(self, port, key=stand.KEY, count=CALLERS):
        self._port, self._key, self._count = port, key, count
        self._stop, self.rows = False, []

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *_exception):
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _call(self):
        link = None
        while not self._stop:
            begun = time.monotonic()
            status = 0
            try:
                link = link or await asyncio.open_connection("127.0.0.1", self._port)
                status, closes = await asyncio.wait_for(ask(*link, self._key), 10)
            except (OSError, EOFError, ValueError, TimeoutError):
                closes = True
            self.rows.append((begun, time.monotonic() - begun, status))
            if closes and link:
                link[1].close()
                link = None
            await asyncio.sleep(PAUSE_S)
        if link:
            link[1].close()

    def statuses(self, begun=0.0, ended=float("inf")):
        """How often there was which status among requests of a time."""
        counts = {}
        for at, took, status in self.rows:
            if begun <= at and at + took <= ended:
                counts[status] = counts.get(status, 0) + 1
        return counts

    def percentile(self, share, begun=0.0, ended=float("inf")):
        """How long requests of a time took."""
        took = sorted(took for at, took, _ in self.rows if begun <= at < ended)
        return took[min(int(len(took) * share), len(took) - 1)] if took else float("inf")

    def back_after(self, since):
        """How long after a moment the first request that began then was answered 200."""
        return min((at + took - since for at, took, status in self.rows if at >= since and status == 200), default=float("inf"))

    def locked_out(self, begun):
        """The longest time from that moment on in which nobody was answered 200."""
        ends = [begun] + sorted(at + took for at, took, status in self.rows if at >= begun and status == 200)
        return max((later - sooner for sooner, later in zip(ends, ends[1:])), default=float("inf"))


async def ask(reader, writer, key=stand.KEY, path=b"/v1/chat/completions", body=BODY):
    """Asks once; the status, and whether the connection ends with the answer."""
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
    writer.write(head % (path, key.encode()) + b"content-length: %d\r\n\r\n%s" % (len(body), body))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    return int(head[9:12]), b"connection: close" in head


async def once(port, key=stand.KEY, path=b"/v1/chat/completions"):
    """Asks on a connection of its own; the status, 0 for none."""
    with contextlib.suppress(OSError, EOFError, TimeoutError):
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 5)
        try:
            return (await asyncio.wait_for(ask(reader, writer, key, path), 5))[0]
        finally:
            writer.transport.abort()
    return 0


async def served_after(port, within_s=30, **asked):
    """Asks, each time on a new connection, until it is served: how long that took."""
    begun = time.monotonic()
    while await once(port, **asked) != 200:
        if time.monotonic() - begun > within_s:
            return float("inf")
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


async def descriptors(origin_port):
    """Twice as many connections as there are descriptors, then none: how long until callers of an adapter and of a service are
    served, and how many of those who were connected before were failed meanwhile."""
    with stand.Gateway(policy=POLICY % "", plugins=PLUGINS, origin=origin_port) as gateway:
        async with Calls(gateway.port) as calls:
            await served_after(gateway.port)
            held = len(os.listdir(f"/proc/{gateway.pid}/fd"))
            before = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (held + DESCRIPTORS, before[1]))
            begun = time.monotonic()
            crowd = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(2 * DESCRIPTORS)]
            await asyncio.sleep(1)
            full = len(os.listdir(f"/proc/{gateway.pid}/fd")) >= held + DESCRIPTORS
            # One who is connected asks a service: there is no descriptor for it.
            reader, writer = crowd[0]
            refused, _ = await ask(reader, writer, path=b"/a")
            ended = time.monotonic()
            for _, writer in crowd:
                writer.transport.abort()
            back = await served_after(gateway.port), await served_after(gateway.port, path=b"/a")
        return back, full, refused, calls.statuses(begun, ended)


class Disk:
    """A small file system in memory, which can be filled."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-disk-"))
        self._filler = self.folder / "filler"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", self.folder], capture_output=True)
        self.is_there = mounted.returncode == 0

    def fill(self):
        """Nothing more can be written."""
        with open(self._filler, "ab", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (1 << 16, 1):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(size))

    def free(self):
        """There is room again."""
        self._filler.unlink()

    def close(self):
        """Takes it away."""
        if self.is_there:
            subprocess.run(["umount", "-l", self.folder], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


async def full_disk(disk, seconds):
    """The disk with the state and the log is full for a while; what became of requests, of changes, and of the log."""
    told = {}
    with stand.Gateway(policy=POLICY % "", plugins=PLUGINS, disk=disk.folder) as gateway:
        operator = Operator(gateway)

        async def change(name):
            body = json.dumps({"name": name})
            return await asyncio.to_thread(operator.ask, "POST", "/virtual-keys", body)

        key = (await change("before"))[1]["key"]
        async with Calls(gateway.port, key=key) as calls:
            await asyncio.sleep(0.5)
            disk.fill()
            begun = time.monotonic()
            told["refused"] = [await change(f"meanwhile{number}") for number in range(5)]
            told["read"] = (await asyncio.to_thread(operator.ask, "GET", "/virtual-keys"))[0]
            await asyncio.sleep(seconds)
            disk.fill()
            await asyncio.sleep(0.2)
            freed = time.monotonic()
            told["statuses"] = calls.statuses(begun, freed)
            told["p99_s"] = calls.percentile(0.99, begun, freed)
            disk.free()
            status, answer = 0, {}
            while status not in (200, 201) and time.monotonic() < freed + 10:
                status, answer = await change("after")
            told["changed_after_s"] = time.monotonic() - freed
            await asyncio.sleep(0.5)  # for the first call that began when there was room
            told["served_after_s"] = calls.back_after(freed)
            lines = len(gateway.log().split(b"\n"))
            await asyncio.sleep(0.5)
            told["lines"] = len(gateway.log().split(b"\n")) - lines
            told["new"] = await once(gateway.port, key=answer.get("key", ""))
        told["runs"] = gateway.runs()
        told["torn"] = sum(not _is_json(line) for line in gateway.log().split(b"\n") if line.startswith(b"{"))
        told["panics"] = gateway.log().count(b"panick")
    with stand.Gateway(policy=POLICY % "", plugins=PLUGINS, disk=disk.folder) as gateway:
        told["again"] = await once(gateway.port, key=answer.get("key", ""))
        told["torn_lines"] = gateway.log().count(b"torn")
    return told


def _is_json(line):
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


async def clock_jumps(jumps):
    """The clock jumps while callers ask: for each jump how long nobody was served, and how long until a key that has expired by then
    is refused, or one that has not is served."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-clock-"))
    clock = folder / "clock"
    clock.write_text("+0\n")
    library = next(path for path in LIBFAKETIME if os.path.exists(path))
    environment = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    rows = []
    with stand.Gateway(policy=POLICY % "", plugins=PLUGINS, environment=environment) as gateway:
        operator = Operator(gateway)
        new = json.dumps({"name": "short", "expires_unix_s": int(time.time()) + EXPIRES_S})
        short = (await asyncio.to_thread(operator.ask, "POST", "/virtual-keys", new))[1]["key"]
        async with Calls(gateway.port) as calls:
            await served_after(gateway.port, key=short)
            for jump in jumps:
                expected = 401 if jump > EXPIRES_S else 200
                begun = time.monotonic()
                aside = folder / "aside"
                aside.write_text(f"{jump:+d}\n")
                aside.rename(clock)
                while await once(gateway.port, key=short) != expected and time.monotonic() < begun + 10:
                    pass
                told = time.monotonic() - begun
                await asyncio.sleep(1.5)
                rows.append((jump, told, calls.locked_out(begun), calls.statuses(begun)))
        runs, panics = gateway.runs(), gateway.log().count(b"panick")
    shutil.rmtree(folder)
    return rows, runs and not panics


class Store:
    """A Redis behind a relay that can be slow."""

    def __init__(self):
        self._folder, self._process, self.delay_s = tempfile.mkdtemp(prefix="penstock-redis-"), None, 0.0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._behind = free.getsockname()[1]
        self.start()

    def start(self):
        """Starts Redis, with what it had."""
        command = ["redis-server", "--port", str(self._behind), "--bind", "127.0.0.1", "--dir", self._folder, "--save", ""]
        # It must not outlive the test.
        die = ctypes.CDLL(None).prctl
        self._process = subprocess.Popen(
            [*command, "--appendonly", "yes"], stdout=subprocess.DEVNULL, preexec_fn=lambda: die(1, signal.SIGKILL)
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._behind)) == 0:
                    return
            time.sleep(0.01)

    async def relay(self):
        """Begins to relay."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        try:
            there = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._pipe(reader, there[1]), self._pipe(there[0], writer))

    async def _pipe(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(1 << 16):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()

    def trouble(self, kind):
        """Begins a trouble."""
        if kind == "slow":
            self.delay_s = 1.0
        else:
            self._process.send_signal(signal.SIGSTOP if kind == "stopped" else signal.SIGKILL)
            if kind == "killed":
                self._process.wait()

    def relieve(self, kind):
        """Ends it."""
        if kind == "slow":
            self.delay_s = 0.0
        elif kind == "stopped":
            self._process.send_signal(signal.SIGCONT)
        else:
            self.start()

    def close(self):
        """Ends it all."""
        self._server.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


async def store_away(mode, command, kinds, seconds):
    """The store is away for a while: for each kind of trouble the statuses meanwhile, how much longer the slowest hundredth took, and
    how long until the store was used again."""
    store = await Store().relay()
    rows = []
    try:
        with stand.Gateway(policy=POLICY % (AWAY % mode), plugins=PLUGINS, socket=store.port, command=command) as gateway:
            async with Calls(gateway.port) as calls:
                for kind in kinds:
                    await _store_is(gateway, away=False)
                    calm = time.monotonic()
                    await asyncio.sleep(seconds)
                    begun = time.monotonic()
                    await asyncio.to_thread(store.trouble, kind)
                    await asyncio.sleep(seconds)
                    ended = time.monotonic()
                    await asyncio.to_thread(store.relieve, kind)
                    relieved = time.monotonic()
                    await _store_is(gateway, away=False)
                    back = time.monotonic() - relieved
                    await asyncio.sleep(0.1)
                    before, during = calls.percentile(0.99, calm, begun), calls.percentile(0.99, begun, ended)
                    last = calls.statuses(begun + 0.2, ended)
                    rows.append((kind, calls.statuses(begun, ended), last, during - before, back, calls.back_after(relieved)))
            pid = worker_of(gateway.pid) if command == "supervise" else gateway.pid
            return rows, gateway.runs() and Path(f"/proc/{pid}").exists()
    finally:
        store.close()


async def _store_is(gateway, away):
    """Waits until the gateway says that its store is away, or is not."""
    deadline = time.monotonic() + 20
    token = (gateway.state / "admin-token").read_text().strip()
    while time.monotonic() < deadline:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.admin_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer %s\r\n\r\n" % token.encode())
        text = await reader.read()
        writer.close()
        if f"\npenstock_state_away {int(away)}".encode() in text:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("the store is not what it should be")


# ---- rows -----------------------------------------------------------------------------------------------------------------------

# A call that finds the store away waits for state.timeout_ms, and the timers of a busy machine are late.
RECOVERS_S, LATER_S_MAX, STORE_BACK_S_MAX = 0.2, 0.06, 1.0
GOODPUT_MIN, SLOWER_MAX, OVERLOAD_MIB_MAX = 0.9, 2, 256
YEAR = 365 * 86400


def run(report, extent, origin_port):
    """All of them."""
    fast = extent == "fast"
    _descriptors(report, origin_port)
    _disk(report, 1 if fast else 10)
    _clock(report, (YEAR, -YEAR) if fast else (YEAR, -YEAR, 60, -60, 10 * YEAR, 0))
    if not fast:
        # Both are about time, which a machine that does other things has not.
        _overload(report)
        _store(report)


def _overload(report):
    if len(os.sched_getaffinity(0)) < 2:
        report.left_out("overload", "the gateway and its callers need a processor each")
        return
    told = overload.run(15)
    figure = "{goodput:.0f} of {peak:.0f} requests a second while {offered:.0f} were asked, {unsent} never sent, others {others}"
    met = told["goodput"] >= GOODPUT_MIN * told["peak"] and not told["others"] and told["runs"]
    report.row("overload: goodput", figure.format(**told), f">= {GOODPUT_MIN:.0%} of the peak", met)
    figure = "p99 {p99_s:.3f} s, at the peak {peak_p99_s:.3f} s".format(**told)
    met = told["p99_s"] <= SLOWER_MAX * told["peak_p99_s"]
    report.row("overload: those who are admitted", figure, f"<= {SLOWER_MAX} times that at the peak", met)
    figure = "p50 {refused_p50_s:.3f} s, p99 {refused_p99_s:.3f} s".format(**told)
    report.row("overload: those who are refused", figure, "503 with retry-after", told["hinted"])
    report.row("overload: memory", "{mib:.0f} MiB at most".format(**told), f"<= {OVERLOAD_MIB_MAX} MiB", told["mib"] <= OVERLOAD_MIB_MAX)
    figure = "{served_after} served, {refused_after} refused".format(**told)
    report.row("after the overload", figure, "0 refused", told["served_after"] and not told["refused_after"])


def _descriptors(report, origin_port):
    back, full, refused, statuses = asyncio.run(descriptors(origin_port))
    figure = f"served after {back[0]:.3f} s, a service after {back[1]:.3f} s; meanwhile {statuses}, a service {refused}"
    met = full and max(back) <= RECOVERS_S and set(statuses) == {200} and refused == 503
    report.row("no descriptors left", figure, f"<= {RECOVERS_S} s, 0 failed", met)


def _disk(report, seconds):
    disk = Disk()
    try:
        if not disk.is_there:
            report.left_out("a full disk", "no file system can be mounted here")
            return
        told = asyncio.run(full_disk(disk, seconds))
    finally:
        disk.close()
    figure = "{statuses}, p99 {p99_s:.3f} s, {panics} panics".format(**told)
    met = set(told["statuses"]) == {200} and told["runs"] and not told["panics"]
    report.row("a full disk: requests", figure, "0 failed", met)
    refusals = {(status, answer.get("error", {}).get("code")) for status, answer in told["refused"]}
    met = all(status >= 500 for status, _ in refusals) and told["read"] == 200
    report.row("a full disk: changes over the admin API", f"{refusals}, reading {told['read']}", "refused with a reason", met)
    for status, answer in told["refused"][:1]:
        print("   ", status, json.dumps(answer)[:300])
    figure = "served after {served_after_s:.3f} s, changed after {changed_after_s:.3f} s, {lines} lines, {torn} torn".format(**told)
    met = max(told["served_after_s"], told["changed_after_s"]) <= RECOVERS_S and told["lines"] and told["torn"] <= 1
    report.row("a disk that was full", figure, f"<= {RECOVERS_S} s", met and told["new"] == 200)
    report.row("the next start after a full disk", f"{told['again']}, {told['torn_lines']} torn lines", "200", told["again"] == 200)


def _clock(report, jumps):
    if not any(os.path.exists(path) for path in LIBFAKETIME):
        report.left_out("a clock that jumps", "no libfaketime")
        return
    rows, runs = asyncio.run(clock_jumps(jumps))
    for jump, told, locked_out, statuses in rows:
        figure = f"expiry known after {told:.3f} s; {statuses}, nobody served for {locked_out:.3f} s"
        met = told <= RECOVERS_S and locked_out <= RECOVERS_S and set(statuses) == {200}
        report.row(f"the clock jumps to {jump / 86400:+.3f} days", figure, f"<= {RECOVERS_S} s, 0 failed", met and runs)


def _store(report):
    if not shutil.which("redis-server"):
        report.left_out("a shared store in trouble", "no redis-server")
        return
    runs = [(mode, command) for command in ("run", "supervise") for mode in DECLARED]
    for mode, command in runs:
        kinds = ("stopped", "killed", "slow")
        rows, lives = asyncio.run(store_away(mode, command, kinds, 3))
        for kind, statuses, last, later, back, served in rows:
            figure = f"{statuses}, p99 {later * 1000:+.0f} ms, back after {back:.2f} s, served after {served:.2f} s"
            declared = set(statuses) <= DECLARED[mode] and set(last) == ({503} if mode == "closed" else {200})
            met = declared and later <= LATER_S_MAX and back <= STORE_BACK_S_MAX and lives
            report.row(f"Redis {kind}, away = {mode}, {command}", figure, f"as declared, <= {LATER_S_MAX * 1000:.0f} ms", met)
