# SPDX-License-Identifier: Apache-2.0
"""Addresses where the gateway has nothing to look for, in many spellings, wherever a caller or a vendor can put one: nobody there
hears anything, and no key goes anywhere but to its vendor.

The canary listens on every address of this machine. What it cannot be (metadata services, private networks) is watched in the
table of the gateway's connections.
"""

import asyncio
import itertools
import json
import multiprocessing
import os
import re
import socket
import time

import stand

KEY = "canary-vendor-key-5f0a1c"
CONTROL = b"can you hear me"
POLICY = (
    stand.PLACES
    + """
[timeouts]
connect_ms = 1000
first_byte_ms = 3000
total_ms = 5000
retry_wait_ms = 0
[jobs]
webhooks = ["http://127.0.0.1:{origin}/hooks"]
webhook_secret = "env:TORTURE_VENDOR_KEY"
[vendors.same]
adapter = "openai-compatible"
base_url = "http://127.0.0.1:{origin}/v1"
key = "env:TORTURE_VENDOR_KEY"
models = ["same*"]
[vendors.other]
adapter = "anthropic"
base_url = "http://127.0.0.1:{origin}/v1"
key = "env:TORTURE_VENDOR_KEY"
models = ["other*"]
[services.plain]
endpoints = ["http://127.0.0.1:{origin}/plain"]
[[routes]]
name = "ai"
path = "/v1"
[[routes]]
name = "plain"
path = "/"
service = "plain"
"""
)
# Where upstreams may be is narrowed to the public internet: vendors whose base URL says otherwise are not asked.
NARROW = """
[[listeners]]
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
tls = {{ certificate = "{folder}/tls.crt", key = "{folder}/tls.key" }}
[admin]
address = "127.0.0.1:0"
[timeouts]
connect_ms = 1000
retry_wait_ms = 0
[limits]
upstream_addresses = ["public"]
[[routes]]
name = "ai"
path = "/v1"
%s
"""
BASES = (
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0",
    "127.255.255.254", "localhost", "localhost.", "LOCALHOST", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "[fec0::1]", "[fe80::1]",
    "169.254.169.254", "10.0.0.1", "100.64.0.1", "[fd00::1]", "[::ffff:169.254.169.254]", "{host}", "{own}",
)  # fmt: skip
HOSTS = (
    "127.0.0.1", "127.1", "127.0.1", "127.127.127.127", "127.0.0.1.", "2130706433", "4294967295", "6425673729", "0x7f000001",
    "0x7f.0x0.0x0.0x1", "0x7f.1", "0X7F000001", "0177.0.0.1", "0177.01", "017700000001", "00000177.0.0.1", "127.000.000.001", "0",
    "0.0.0.0", "0x0", "00", "127.0.0.1%00", "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "１２７.0.0.1", "①②⑦.0.0.1", "127。0。0。1",
    "localhost", "localhost.", "LOCALHOST", "lOcAlHoSt", "localhost.localdomain", "ｌｏｃａｌｈｏｓｔ", "localtest.me",
    "127.0.0.1.nip.io", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[0000::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::FFFF:127.0.0.1]", "[::127.0.0.1]", "[::1%25lo]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
    "[2001::80ff:fffe]", "[fec0::1]", "[fe80::1]", "[fd00::1]", "169.254.169.254", "2852039166", "0xa9fea9fe", "169.254.43518",
    "[::ffff:a9fe:a9fe]", "metadata.google.internal", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "{host}", "{own}",
)  # fmt: skip
WRAPS = (
    "http://{h}:{p}/{c}", "https://{h}:{p}/{c}", "//{h}:{p}/{c}", "HTTP://{h}:{p}/{c}", "http://api.example.com@{h}:{p}/{c}",
    "http:\\\\{h}:{p}\\{c}", "http://{h}:{p}#@api.example.com/{c}", "{h}:{p}/{c}",
)  # fmt: skip
OTHERS = (
    "http:{h}:{p}/{c}", "http:/{h}:{p}/{c}", "http:///{h}:{p}/{c}", "ws://{h}:{p}/{c}", "gopher://{h}:{p}/_GET%20/{c}",
    "ftp://{h}:{p}/{c}", "dict://{h}:{p}/{c}", "ldap://{h}:{p}/{c}", "jar:http://{h}:{p}!/{c}", "file:///etc/passwd",
    "file://localhost/etc/passwd", "file:/etc/passwd", "netdoc:///etc/passwd", "http://{h}:{p}\t/{c}", "\thttp://{h}:{p}/{c}",
    "http://{h}\n:{p}/{c}", "http://api.example.com:80\\@{h}:{p}/{c}", "http://{h}:{p}?http://api.example.com/{c}",
    "http://api.example.com%40{h}:{p}/{c}", "http://{h}:0{p}/{c}", "http://api.example.com/../../{h}:{p}/{c}", "data:text/plain,{c}",
)  # fmt: skip
HEADERS = (
    "X-Forwarded-Host", "Forwarded", "X-Host", "X-Forwarded-Server", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Host-Override",
    "X-Base-Url", "X-Portkey-Custom-Host", "X-Upstream", "X-Target-URL", "Helicone-Target-URL", "Helicone-OpenAI-Api-Base",
    "Destination", "Referer", "Origin", "X-Callback-Url", "X-Stainless-Base-Url", "Openai-Organization", "Anthropic-Beta",
)  # fmt: skip


def addresses(port, mark="canary"):
    """At least 300 spellings of where nobody should go."""
    own = _own_address()
    names = [host.format(host=socket.gethostname(), own=own) if "{" in host else host for host in HOSTS]
    made = [wrap.format(h=host, p=port, c=mark) for host, wrap in itertools.product(names, WRAPS)]
    made += [other.format(h="127.0.0.1", p=port, c=mark) for other in OTHERS]
    return list(dict.fromkeys(made))


def _own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


class Places:
    """The vendor and the canary, in a process of their own."""

    def __init__(self):
        self._ports, self._seen, self._stop = multiprocessing.Queue(), multiprocessing.Queue(), multiprocessing.Event()
        self._process = multiprocessing.Process(target=_places, args=(self._ports, self._seen, self._stop), daemon=True)
        self._process.start()
        self.vendor, self.canary = self._ports.get(timeout=30)

    def end(self):
        """What the vendor was asked (authority and key), what the canary has heard, and whether it can hear at all."""
        for address in ("127.0.0.1", "127.9.9.9", "::1"):
            with socket.create_connection((address, self.canary)) as control:
                control.sendall(CONTROL)
                control.recv(1)
        self._stop.set()
        asked, heard = self._seen.get(timeout=60)
        self._process.join()
        return asked, [said for said in heard if said != repr(CONTROL)], heard.count(repr(CONTROL)) == 3


def _places(ports, seen, stop):
    asked, heard = [], []

    async def vendor(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                host = re.search(rb"(?i)\r\nhost: ([^\r]*)", head)
                asked.append((host[1].decode() if host else "", KEY.encode() in head))
                writer.write(_answer(head, body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def canary(reader, writer):
        heard.append(repr((await reader.read(2000))[:400]))
        writer.close()

    async def until_stopped():
        of_vendor = await asyncio.start_server(vendor, "127.0.0.1", 0, backlog=1024)
        both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        await asyncio.start_server(canary, sock=both)
        ports.put((of_vendor.sockets[0].getsockname()[1], both.getsockname()[1]))
        while not stop.is_set():
            await asyncio.sleep(0.05)

    asyncio.run(until_stopped())
    seen.put((asked, heard))


def _answer(head, body):
    """Leads elsewhere when the request says so: by a redirect, or in the words of the answer."""
    try:
        said = json.loads(body)
    except ValueError:
        said = {}
    lead = said.get("user") or (said.get("metadata") or {}).get("user_id") or ""
    if isinstance(lead, str) and lead.startswith("redirect "):
        status, where = lead[9:12], lead[13:]
        where = "".join(letter for letter in where if " " <= letter <= "~")
        return f"HTTP/1.1 {status} Moved\r\nlocation: {where}\r\ncontent-length: 0\r\n\r\n".encode()
    where = lead if isinstance(lead, str) else ""
    if b"/images" in head.split(b"\r\n")[0]:
        answer = {"created": 1, "data": [{"url": where}]}
    elif b"/messages" in head.split(b"\r\n")[0]:
        answer = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
                  "content": [{"type": "text", "text": where}], "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip
    else:
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "url": where, "status_url": where,
                  "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": where}}],
                  "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}  # fmt: skip
    text = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text


def _chat(model, content, **more):
    return "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": content}], **more}


def requests(where):
    """The points where an address can be put in: name of the point, method, target, headers, body."""
    image = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": where}}]
    file = [{"type": "file", "file": {"file_data": where, "file_id": where, "file_url": where}}]
    source = [{"type": "image", "source": {"type": "url", "url": where}}]
    for model in ("same", "other"):
        yield "body", *_post(*_chat(model, image))
    yield "body", *_post(*_chat("other", file, base_url=where, api_base=where, endpoint=where))
    yield (
        "body",
        *_post("/v1/messages", {"model": "same", "max_tokens": 9, "messages": [{"role": "user", "content": source}]}),
    )
    yield (
        "body",
        *_post(
            "/v1/images/generations", {"model": "same", "prompt": "x", "image": where, "response_format": "b64_json"}
        ),
    )
    plain = "".join(letter for letter in where if " " <= letter <= "~")
    for some in (HEADERS[:10], HEADERS[10:]):
        yield "header", *_post(*_chat("same", "hi"), [(name, plain) for name in some])
    bare = re.sub(r"^[a-zA-Z]+:[/\\]*|^//", "", plain)
    yield "host", "GET", "/x", [("Host", bare)], b""
    yield "host", "GET", plain.replace(" ", ""), [("Host", bare.split("/")[0])], b""
    yield "host", *_post(*_chat("same", "hi"), [("Host", bare.split("/")[0])])
    waits = [("Prefer", "respond-async"), ("Penstock-Webhook", plain)]
    yield "callback", *_post(*_chat("same", "hi"), waits)
    yield (
        "callback",
        *_post(
            "/v1/images/generations",
            {"model": "same", "prompt": "x", "user": where, "webhook": where, "callback_url": where},
            waits[:1],
        ),
    )
    for status in ("301", "302", "303", "307", "308"):
        yield "answer", *_post(*_chat("same", "hi", user=f"redirect {status} {where}"))
    yield "answer", *_post(*_chat("other", "hi", user=f"redirect 302 {where}"))
    yield "answer", *_post("/v1/images/generations", {"model": "same", "prompt": "x", "user": where})
    yield "answer", *_post(*_chat("same", "hi", user=where))
    for model in (f"same/{where}", f"same/../{where}", where, f"vendor@{where}"):
        yield "name", *_post(*_chat(model, "hi"))
    quoted = re.sub(r"[^!-~]|[#]", lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), where)
    for target in (
        f"/{quoted}",
        f"/v1/models/{quoted}",
        f"/v1/jobs/{quoted}",
        f"/v1/videos/{quoted}/content",
        f"/x?url={quoted}",
        f"/@{quoted}",
    ):
        yield "name", "GET", target, [], b""


def _post(target, body, headers=()):
    return "POST", target, [("Content-Type", "application/json"), *headers], json.dumps(body).encode()


async def run(gateway, canary, few=False):
    """Sends all; how many there were by the point, and connections of the gateway to where it has nothing to look for."""
    # Some for the fast half, others at each point.
    waiting = iter(
        [
            ask
            for index, where in enumerate(addresses(canary))
            for at, ask in enumerate(requests(where))
            if not few or (index + at) % 29 == 0
        ]
    )
    counts, done = {}, asyncio.Event()
    watch = asyncio.create_task(_watch(gateway.pid, done))

    async def ask():
        for point, method, target, headers, body in waiting:
            counts[point] = counts.get(point, 0) + 1
            await _send(gateway.port, method, target, headers, body)

    await asyncio.gather(*[ask() for _ in range(16)])
    await asyncio.sleep(1.5)
    done.set()
    return counts, await watch


async def _send(port, method, target, headers, body):
    named = any(name == "Host" for name, _ in headers)
    lines = [
        f"{method} {target} HTTP/1.1",
        *([] if named else ["Host: localhost"]),
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + body)
        return await asyncio.wait_for(reader.read(-1), 10)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.close()


async def _watch(pid, done):
    """Remote addresses of the gateway that are not on loopback; asked for often enough to see one that does not answer."""
    strange = set()
    while not done.is_set():
        inodes = set()
        for link in os.scandir(f"/proc/{pid}/fd"):
            try:
                inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(link.path)))
            except OSError:
                continue
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as rows:
                for row in list(rows)[1:]:
                    fields = row.split()
                    remote, state = fields[2].split(":")[0], fields[3]
                    is_home = remote in ("0100007F", "00000000") or remote.endswith("00000000000000000000000001000000")
                    if fields[9] in inodes and state in ("01", "02") and not is_home and int(remote, 16):
                        strange.add(remote)
        await asyncio.sleep(0.2)
    return strange


def narrow_policy(canary):
    """A vendor for each spelling of a base URL."""
    own, made = _own_address(), []
    for number, base in enumerate(BASES):
        host = base.format(host=socket.gethostname(), own=own)
        made.append(
            f'[vendors.v{number}]\nadapter = "openai-compatible"\nbase_url = "http://{host}:{canary}/v1"\nkey = "env:TORTURE_VENDOR_KEY"\nmodels = ["v{number}"]\n'
        )
    return NARROW % "".join(made)


async def narrow(gateway):
    """Asks each of them; how many there were, those that were not refused as out of reach, and the slowest answer."""
    wrong, slowest = [], 0.0
    for number, base in enumerate(BASES):
        _, target, headers, body = _post(*_chat(f"v{number}", "hi"))
        begun = time.monotonic()
        answer = await _send(gateway.port, "POST", target, headers, body)
        slowest = max(slowest, time.monotonic() - begun)
        if not answer.startswith(b"HTTP/1.1 502") or b"penstock-failure: upstream-unreachable" not in answer.lower():
            wrong.append((base, answer[:200]))
    return len(BASES), wrong, slowest
