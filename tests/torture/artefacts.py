# SPDX-License-Identifier: Apache-2.0
"""Bad plugin files, into the watched folder and through the admin API: the version before serves on, and each file is refused
with its reason.

A caller asks on and on meanwhile, on connections that it keeps, what the plugin under attack answers.
"""

import base64
import gzip
import hashlib
import http.client
import io
import json
import multiprocessing
import os
import random
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import stand
import wasm

NAME = "echo"
# Time of a processor, and memory, for one compilation; what stops at them takes longer to be judged than the rest.
COMPILE_S, COMPILE_BYTES_MAX = 2, 384 << 20
COMPONENT_BYTES_MAX = 16 << 20
VERDICT_S_MAX = 2.0
# The fast half is run beside other work.
BUSY_VERDICT_S_MAX = 6.0
# Twice the time of the processor by the clock, since this machine has other work to do, and what starting the child costs.
BOMB_S_MAX = 2 * COMPILE_S + VERDICT_S_MAX
BUSY_BOMB_S_MAX = 16.0
NONE_S = 0.4
CALLERS = 4
POLICY = (
    stand.PLACES
    + """
[sandbox]
compile_s = %d
compile_bytes_max = %d
configure_ms = 500
[trust]
{trust}
[vendors.echo]
adapter = "echo"
models = ["echo"]
[[routes]]
name = "open"
path = "/v1"
"""
) % (COMPILE_S, COMPILE_BYTES_MAX)


def manifest(**changes):
    """The section that says what a plugin is."""
    said = {"kind": "adapter", "api": "0.1.0", "name": NAME, "version": "9.9.9"}
    said |= {"dialects": ["openai-chat"], "operations": ["chat"]} | changes
    return wasm.custom("penstock:plugin", json.dumps(said).encode())


def tar(name, content, size=None):
    """An archive with one member, which may state another size than it has."""
    member = tarfile.TarInfo(name)
    member.size = len(content) if size is None else size
    return member.tobuf() + content + b"\0" * 1024


def bombs():
    """Functions that are small as a file and long to compile, or large in the compiler's memory."""
    add = b"\x41\x07\x6a"
    yield "bomb: one long function", [wasm.body(b"\x41\0" + add * 600_000 + b"\x1a")]
    yield "bomb: many functions", [wasm.body(b"\x41\0" + add * 40 + b"\x1a")] * 60_000
    # Each local lives across each block.
    blocks = b"".join(b"\x02\x40\x20\0\x0d\0\x20%c\x21%c\x0b" % (n % 100, (n * 7) % 100) for n in range(60_000))
    yield "bomb: many blocks", [wasm.body(blocks, b"\x01\x64\x7f")]


def contents(good, small, rng):
    """What is bad in a file: name, bytes, codes with which it may be refused."""
    plain = [kind for kind in ("truncated", "not-a-component")]
    yield "empty", b"", ["truncated"]
    yield "one byte", b"\0", ["truncated"]
    yield "half a head", good[:6], ["truncated"]
    yield "half", good[: len(good) // 2 + rng.randrange(1000)], plain
    yield "without its last byte", good[:-1], plain
    # Within what says which types there are.
    at = rng.randrange(16, 200)
    yield "with a hole", good[:at] + b"\xff" * 64 + good[at + 64 :], plain
    yield "random bytes", rng.randbytes(50_000), ["not-a-component"]
    yield "a script", b"#!/bin/sh\nrm -rf /\n", ["not-a-component"]
    yield "text of WebAssembly", b"(component)", ["not-a-component"]
    yield "a program", Path("/bin/true").read_bytes()[:40_000], ["not-a-component"]
    yield "compressed", gzip.compress(good[:100_000], 1), ["not-a-component"]
    yield "a gzip bomb", gzip_bomb(), ["not-a-component"]
    yield "a zip", zipped(good[:100_000]), ["not-a-component"]
    yield "a tar", tar("echo.wasm", good[:100_000]), ["not-a-component", "truncated"]
    yield "a tar that lies about its size", tar("echo.wasm", b"x", 1 << 40), ["not-a-component", "truncated"]
    yield "a tar that leads out", tar("../../../etc/cron.d/x", good[:1000]), ["not-a-component", "truncated"]
    yield "a core module", wasm.module([wasm.body(b"")]), ["core-module"]
    yield "no manifest", wasm.COMPONENT, ["no-manifest"]
    yield "a manifest that is no JSON", wasm.COMPONENT + wasm.custom("penstock:plugin", b"{"), ["no-manifest"]
    yield "a large manifest", wasm.COMPONENT + manifest(description="x" * 300_000), ["no-manifest"]
    yield "a name that leads out", good + manifest(name="../../echo"), ["no-manifest", "bad-name"]
    yield "a name with a line end", good + manifest(name="echo\nx"), ["no-manifest", "bad-name"]
    yield "another kind", good + manifest(kind="guard"), ["unknown-kind"]
    yield "a later major", good + manifest(api="2.0.0"), ["api-mismatch"]
    yield "a later minor", good + manifest(api="0.9.0"), ["api-mismatch"]
    yield "imports files", wasm.component([], imports=["wasi:filesystem/types@0.2.6"]) + manifest(), ["import-refused"]
    yield "imports sockets", wasm.component([], imports=["wasi:sockets/tcp@0.2.6"]) + manifest(), ["import-refused"]
    yield "imports what nobody has", wasm.component([], imports=["evil:host/x@1.0.0"]) + manifest(), ["import-refused"]
    yield "exports nothing", wasm.component([], interfaces=()) + manifest(), ["export-missing"]
    yield "exports names only", wasm.component([]) + manifest(), ["export-missing", "export-type"]
    yield "another contract", good + manifest(kind="auth"), ["export-missing", "import-refused"]
    yield "code of the wrong type", wasm.with_start(small, [wasm.body(b"\x41\0")]), ["not-a-component"]
    yield "traps at the start", wasm.with_start(small, [wasm.body(b"\0")]), ["start-trapped"]
    yield "loops at the start", wasm.with_start(small, [wasm.body(b"\x03\x40\x0c\0\x0b")]), ["start-trapped"]
    yield "recurses at the start", recursing(small), ["start-trapped"]
    grows = wasm.body(b"\x03\x40\x41\x80\x08\x40\0\x1a\x0c\0\x0b")
    yield "takes memory at the start", wasm.with_start(small, [grows]), ["start-trapped"]
    memory = wasm.nested(wasm.module(more={wasm.MEMORIES: b"\x01\0" + wasm.leb(60_000)}.items()))
    yield "much memory", wasm.component([memory]) + manifest(), ["too-demanding", "export-missing"]
    table = wasm.nested(wasm.module(more={wasm.TABLES: b"\x01\x70\0" + wasm.leb(10_000_000)}.items()))
    yield "a large table", wasm.component([table]) + manifest(), ["too-demanding", "export-missing"]
    many = wasm.nested(wasm.module()) + wasm.section(wasm.CORE_INSTANCE, wasm.leb(200) + b"\0\0\0" * 200)
    yield "many instances", wasm.component([many]) + manifest(), ["too-demanding", "export-missing"]
    many = wasm.nested(wasm.module(more={wasm.MEMORIES: b"\x40" + b"\0\x01" * 64}.items()))
    yield "many memories", wasm.component([many]) + manifest(), ["not-a-component", "too-demanding"]
    yield "another kind of plugin", small, ["bad-plugin"]
    yield "vectors that fail", small + wasm.custom("penstock:vectors", b'[{"nonsense":1}]'), ["self-test-failed"]
    yield "too large", good + wasm.custom("padding", b"\0" * COMPONENT_BYTES_MAX), ["too-large"]


def recursing(small):
    """Calls itself at the start: the function that is put in first, whose number the module's start section states."""
    begun = wasm.with_start(small, [wasm.body(b"\0")])
    largest = max((part for part in wasm.sections(begun) if part[0] == wasm.CORE_MODULE), key=lambda part: len(part[1]))
    start = next(content for kind, content in wasm.sections(largest[1]) if kind == wasm.START)
    return wasm.with_start(small, [wasm.body(b"\x10" + start)])


def gzip_bomb():
    """A megabyte that is a gigabyte."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as out:
        for _ in range(64):
            out.write(bytes(1 << 20))
    return packed.getvalue() * 16


def zipped(content):
    """A zip with one member."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../echo.wasm", content)
    return packed.getvalue()


class Caller:
    """Asks on and on in a process of its own, each thread on one connection that is kept."""

    def __init__(self, port):
        self._results = multiprocessing.Queue()
        self._stop = multiprocessing.Event()
        self._process = multiprocessing.Process(target=_call, args=(port, self._stop, self._results), daemon=True)
        self._process.start()

    def end(self):
        """How many requests there were, what went wrong, how long they took at the 99th percentile, in milliseconds."""
        self._stop.set()
        took, wrong, connections = self._results.get(timeout=60)
        self._process.join()
        took.sort()
        return len(took), wrong, connections, round(took[int(len(took) * 0.99)] * 1000) if took else 0


def _call(port, stop, results):
    call = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "hi"}]})
    took, wrong, connections = [], [], 0
    kept = []
    while not stop.is_set():
        while len(kept) < CALLERS:
            connections += 1
            kept.append(http.client.HTTPConnection("127.0.0.1", port, timeout=10))
        connection = kept.pop(0)
        begun = time.monotonic()
        try:
            connection.request("POST", "/v1/chat/completions", call, {"content-type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200 or b"hi" not in said:
                wrong.append((answer.status, said[:200]))
            kept.append(connection)
        except (OSError, http.client.HTTPException) as error:
            wrong.append((0, repr(error)))
            connection.close()
        took.append(time.monotonic() - begun)
        time.sleep(0.004)
    results.put((took, wrong, connections))


class Operator:
    """The admin API."""

    def __init__(self, gateway):
        self._port = gateway.admin_port
        self._token = (gateway.state / "admin-token").read_text().strip()

    def ask(self, method, path, body=None):
        """Status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {"authorization": f"Bearer {self._token}"}
        try:
            try:
                connection.request(method, f"/api/v1{path}", body, headers)
            except BrokenPipeError:
                pass  # a body that is too large is refused before it has been read
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def refused(self):
        """Files that are refused: code by path and digest."""
        _, answer = self.ask("GET", "/plugins")
        return {(row["path"], row["digest"]): row["refusal"] for row in answer["refused"]}

    def active(self):
        """Digest of the version in force."""
        _, answer = self.ask("GET", "/plugins")
        return next(row["digest"] for row in answer["plugins"] if row["name"] == NAME)


class Campaign:
    """Puts files where they are looked for, and waits for what is said of them."""

    def __init__(self, gateway, good, is_busy=False):
        self.gateway, self.good = gateway, good
        self.limit = BUSY_VERDICT_S_MAX if is_busy else VERDICT_S_MAX
        self.operator = Operator(gateway)
        self.drop = gateway.folder / "drop"
        self.file = self.drop / f"{NAME}.wasm"
        self.digest = hashlib.sha256(good).hexdigest()
        self.count, self.wrong, self.slowest, self.slowest_bomb = 0, [], 0.0, 0.0

    def judge(self, name, took, code, codes, limit=None):
        """Writes down what came of one; a bomb has a limit of its own."""
        self.count += 1
        if limit:
            self.slowest_bomb = max(self.slowest_bomb, took)
        else:
            self.slowest = max(self.slowest, took)
        if code not in codes or took > (limit or self.limit):
            self.wrong.append((name, code, round(took, 2), self.gateway.runs()))
        active = self.operator.active()
        if active != self.digest:
            self.wrong.append((name, "another version is in force", active))

    def upload(self, name, content, codes, limit=None):
        """By the admin API."""
        begun = time.monotonic()
        status, answer = self.operator.ask("POST", "/plugins", content)
        code = answer.get("error", {}).get("code") if status >= 400 else f"taken: {answer}"
        # A body that is empty or over the limit is refused before it is looked at as a plugin.
        self.judge(f"upload: {name}", time.monotonic() - begun, code, [*codes, "too-large", "bad-request"], limit)

    def put(self, name, content, codes, limit=None):
        """Into the folder, in place of the file that serves."""
        beside = self.drop / "echo.part"
        beside.write_bytes(content)
        begun = time.monotonic()
        beside.rename(self.file)
        digest = hashlib.sha256(content).hexdigest() if len(content) <= COMPONENT_BYTES_MAX else ""
        self.await_verdict(name, self.file, digest, codes, begun, limit)

    def await_verdict(self, name, path, digest, codes, begun, limit=None):
        """Looks until a file is refused."""
        while time.monotonic() - begun < (limit or self.limit) + 5:
            refusal = self.operator.refused().get((str(path), digest))
            if refusal:
                return self.judge(f"file: {name}", time.monotonic() - begun, refusal["code"], codes, limit)
            time.sleep(0.02)
        return self.judge(f"file: {name}", time.monotonic() - begun, "no verdict", codes, limit)

    def nothing(self, name):
        """What is not a file is not looked at: nothing is said of it, and nothing changes."""
        time.sleep(NONE_S)
        self.judge(f"file: {name}", 0, "quiet", ["quiet"])

    def restore(self):
        """Puts the good file back."""
        if self.file.is_symlink() or not self.file.is_dir():
            self.file.unlink(missing_ok=True)
        else:
            self.file.rmdir()
        beside = self.drop / "echo.part"
        beside.write_bytes(self.good)
        beside.rename(self.file)
        for _ in range(100):
            if not self.operator.refused() and self.operator.active() == self.digest:
                return
            time.sleep(0.05)
        self.wrong.append(("the good file is not taken again", self.operator.refused(), ""))

    def in_the_folder(self):
        """What only a folder can hold."""
        self.links()
        self.written_slowly()
        beside, other = self.drop / "another.wasm", self.good + wasm.custom("x", b"1")
        begun = time.monotonic()
        beside.write_bytes(other)
        self.await_verdict(
            "a second file of the same name", beside, hashlib.sha256(other).hexdigest(), ["ambiguous-name"], begun
        )
        beside.unlink()
        (self.drop / "folder.wasm").mkdir()
        self.nothing("a folder")
        (self.drop / "folder.wasm").rmdir()
        os.mkfifo(self.drop / "pipe.wasm")
        self.nothing("a pipe")
        (self.drop / "pipe.wasm").unlink()
        sparse = self.drop / "huge.wasm"
        begun = time.monotonic()
        with open(sparse, "wb") as file:
            file.write(wasm.COMPONENT)
            file.truncate(1 << 30)
        self.await_verdict("a gigabyte", sparse, "", ["too-large"], begun)
        sparse.unlink()
        odd = self.drop / "e\ncho\x1b[2J.wasm"
        begun = time.monotonic()
        odd.write_bytes(b"x")
        self.await_verdict(
            "a name that steers terminals", odd, hashlib.sha256(b"x").hexdigest(), ["not-a-component"], begun
        )
        odd.unlink()
        bare = os.path.join(os.fsencode(self.drop), b"\xff\xfe.wasm")
        Path(os.fsdecode(bare)).write_bytes(b"x")
        self.nothing("a name that is no text")
        os.unlink(bare)
        later = self.drop / "later.wasm"
        begun = time.monotonic()
        later.write_bytes(b"y")
        os.utime(later, (time.time() + 1e6, time.time() + 1e6))
        self.await_verdict("a file of the future", later, hashlib.sha256(b"y").hexdigest(), ["not-a-component"], begun)
        later.unlink()

    def links(self):
        """Symbolic links."""
        self.file.unlink()
        self.nothing("deleted while it serves")
        for name, target in (("nothing", "/nonexistent"), ("itself", str(self.file)), ("a device", "/dev/zero")):
            self.file.symlink_to(target)
            self.nothing(f"a link to {name}")
            self.file.unlink()
        begun = time.monotonic()
        self.file.symlink_to("/etc/passwd")
        digest = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
        self.await_verdict("a link to a file of others", self.file, digest, ["not-a-component"], begun)
        said = json.dumps(list(self.operator.refused().values()))
        if "root:" in said:
            self.wrong.append(("a link to a file of others", "its content is told", said))
        self.restore()

    def written_slowly(self):
        """In place, piece by piece, and never to its end."""
        half = self.good[: len(self.good) // 2]
        with open(self.file, "wb") as file:
            for at in range(0, len(half), len(half) // 8):
                file.write(half[at : at + len(half) // 8])
                file.flush()
                time.sleep(0.05)
        begun = time.monotonic()
        self.await_verdict(
            "half written", self.file, hashlib.sha256(half).hexdigest(), ["truncated", "not-a-component"], begun
        )
        self.restore()

    def flood(self, count):
        """Many files that come before the good one in the order of names."""
        for number in range(count):
            (self.drop / f"a{number:05}.wasm").write_bytes(b"%d" % number)
        time.sleep(1.5)
        self.judge(f"file: {count} files", 0, "quiet", ["quiet"])
        for number in range(count):
            (self.drop / f"a{number:05}.wasm").unlink()
        self.restore()


def signatures(campaign, signed, unsigned):
    """Under a rule that asks for a signature."""
    other = bytearray(signed)
    other[-10] ^= 1
    cut = signed[: -(64 + 21)]
    for name, content in (("a spoilt signature", bytes(other)), ("not signed", unsigned), ("its signature taken off", cut),
                          ("signed, and then changed", signed[:5000] + b"\x01" + signed[5001:]),
                          ("a signature of another file", unsigned + wasm.custom("x", b"2") + signed[-85:])):  # fmt: skip
        campaign.upload(name, content, ["untrusted"])
        campaign.put(name, content, ["untrusted"])
    campaign.restore()


def good_component(plugins):
    """The version that serves: as it ships, with another digest."""
    return (Path(plugins) / f"{NAME}.wasm").read_bytes() + wasm.custom("torture", b"good")


def small_component(plugins):
    """One that takes little time to compile, and states the name of the one that serves."""
    return (Path(plugins) / "least-busy.wasm").read_bytes() + manifest(kind="routing")


def policy(signed_by=None):
    """The policy, with a rule of trust if there is a key."""
    trust = f'keys = ["{signed_by}"]' if signed_by else ""
    return POLICY.replace("{trust}", trust)


def run(gateway, good, extent, times):
    """All kinds, `times` times each; the campaign with what it has found, and what the caller has seen."""
    whole = extent == "all"
    campaign, rng = Campaign(gateway, good, is_busy=not whole), random.Random(7)
    small = small_component(os.environ["PENSTOCK_PLUGINS"])
    caller = Caller(gateway.port)
    kinds = 0
    for turn in range(times):
        before = campaign.count
        for index, (name, content, codes) in enumerate(contents(good, small, rng)):
            # The fast half takes one way in for two of three. What only the policy can refuse is told beside the plugin,
            # and not beside its file.
            if whole and (turn == 0 or name != "too large") or index % 3 == 0 or codes == ["bad-plugin"]:
                campaign.upload(name, content, codes)
            if (whole or index % 3 == 1) and codes != ["bad-plugin"]:
                campaign.put(name, content, codes)
        campaign.restore()
        for name, bodies in list(bombs())[: None if whole else 1]:
            bring = campaign.upload if turn % 2 else campaign.put
            limit = BOMB_S_MAX if whole else BUSY_BOMB_S_MAX
            bring(name, wasm.with_start(small, bodies), ["compile-limit"], limit)
        campaign.restore()
        campaign.in_the_folder()
        if whole:
            campaign.flood(1_000 if turn % 10 else 10_000)
        kinds = kinds or campaign.count - before
    return campaign, caller.end(), kinds


def key_pair(folder):
    """A key for signatures, and its public half in base64."""
    private = folder / "plugins.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", private, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    return private, base64.b64encode(public).decode()
