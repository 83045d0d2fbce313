# SPDX-License-Identifier: Apache-2.0
"""Secrets that are planted in every place where the gateway takes one, and looked for in everything that it says: logs at the
level of traces, metrics, traces, answers of the admin API, errors, the state directory, Redis, its children, and a crash.
"""

import base64
import gzip
import hashlib
import hmac
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote

import stand
import wasm

POLICY = (
    stand.PLACES
    + """
master_key = "env:CANARY_MASTER"
[timeouts]
first_byte_ms = 300
idle_ms = 1000
retry_wait_ms = 0
[jobs]
webhooks = ["http://127.0.0.1:{origin}/hook"]
webhook_secret = "env:CANARY_WEBHOOK"
%s
[traces]
endpoint = "http://127.0.0.1:{grpc}"
headers = {{ x-collector = "env:CANARY_OTLP" }}
interval_ms = 100
[secrets]
jwt = "env:CANARY_JWT"
extra = "env:CANARY_EXTRA"
[plugins.keys]
plugin = "api-key"
config = {{ keys = [{{ subject = "s", sha256 = "{key}" }}] }}
[plugins.tokens]
plugin = "jwt"
secrets = ["jwt"]
[[plugins.tokens.config.issuers]]
issuer = "i"
audiences = ["a"]
algorithms = ["HS256"]
secrets = [{{ secret = "jwt" }}]
[plugins.fair]
plugin = "token-bucket"
config = {{ rules = [{{ per = ["subject"], requests_per_minute = 600000 }}] }}
[vendors.same]
adapter = "openai-compatible"
base_url = "http://127.0.0.1:{origin}/v1"
key = "env:CANARY_VENDOR"
secrets = {{ extra = "extra" }}
models = ["same*"]
[vendors.other]
adapter = "anthropic"
base_url = "http://127.0.0.1:{origin}/v1"
key = "env:CANARY_VENDOR"
models = ["other*"]
[vendors.pooled]
adapter = "openai-compatible"
base_url = "http://127.0.0.1:{origin}/v1"
optional = true
key = "env:NOT_SET"
models = ["pooled*"]
[services.plain]
endpoints = ["http://127.0.0.1:{origin}"]
[[routes]]
name = "keys"
path = "/v1"
auth = "keys"
limits = ["fair"]
[[routes]]
name = "tokens"
path = "/tokens/v1"
auth = "tokens"
[[routes]]
name = "plain"
path = "/plain"
service = "plain"
auth = "keys"
"""
)
REDIS = """[state]
redis = "redis://127.0.0.1:{socket}"
password = "env:CANARY_REDIS"
"""
PLUGINS = ("api-key.wasm", "jwt.wasm", "openai-compatible.wasm", "anthropic.wasm", "token-bucket.wasm")
# What a vendor answers, by the last word of the model.
FAULTS = (
    "ok",
    "400",
    "401",
    "403",
    "404",
    "429",
    "500",
    "503",
    "echo",
    "echo401",
    "html",
    "cut",
    "slow",
    "reset",
    "garbage",
    "redirect",
)
KEPT_BY_DESIGN = ("admin-token", "master-key")


def planted():
    """A secret for each place; each with a beginning of its own, and letters that URLs and base64 spell otherwise."""
    names = ("VENDOR", "MASTER", "WEBHOOK", "OTLP", "JWT", "EXTRA", "REDIS", "POOLED", "CALLER")
    return {
        name: f"{hashlib.sha256(name.encode()).hexdigest()[:9]}/{name.lower()}+{os.urandom(12).hex()}="
        for name in names
    }


def forms(secret):
    """Ways to write a secret."""
    raw = secret.encode()
    yield raw
    yield raw[:8]
    yield quote(secret, safe="").encode()
    yield raw.hex().encode()
    for shift in range(3):
        # Wherever it begins within a longer text; what its neighbours have a part in is left out.
        encoded = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] :].rstrip(b"=")[:-2]
        yield encoded
        yield encoded.replace(b"+", b"-").replace(b"/", b"_")
    yield json.dumps(secret)[1:-1].replace("/", "\\/").encode()


class Leaks:
    """Where something was found that should not be there."""

    def __init__(self, secrets):
        self._forms = [(name, form) for name, secret in secrets.items() for form in dict.fromkeys(forms(secret))]
        self.found, self.looked_at, self.bytes = set(), 0, 0

    def look(self, where, data, but=()):
        """Looks through bytes; `but` names secrets that belong there."""
        self.looked_at += 1
        self.bytes += len(data)
        for name, form in self._forms:
            if name not in but and form in data:
                self.found.add((where, name, form[:12]))


class Vendor:
    """A vendor that fails in every way, and in some of them says the key that it was sent."""

    def __init__(self):
        self.got_key = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                """Answers as the model says."""
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                sent = self.headers.get("authorization") or self.headers.get("x-api-key") or ""
                outer.got_key |= bool(sent)
                try:
                    fault = json.loads(body)["model"].split("-")[-1]
                except (ValueError, KeyError):
                    fault = "ok"
                self._answer(fault, sent)

            do_GET = do_POST  # noqa: N815

            def _answer(self, fault, sent):
                if fault.isdigit():
                    return self._say(int(fault), json.dumps({"error": {"message": "no", "type": "x"}}))
                if fault == "echo":
                    return self._say(400, json.dumps({"error": {"message": f"bad request with {sent}", "code": sent}}))
                if fault == "echo401":
                    return self._say(401, json.dumps({"error": {"message": f"Incorrect API key provided: {sent}"}}))
                if fault == "html":
                    return self._say(502, f"<html>{sent}</html>", "text/html")
                if fault == "garbage":
                    return self._say(200, f"{{{sent}")
                if fault == "redirect":
                    self.send_response(302)
                    self.send_header("location", f"http://127.0.0.1:1/?{sent}")
                    self.send_header("content-length", "0")
                    return self.end_headers()
                if fault == "slow":
                    time.sleep(0.7)
                if fault in ("reset", "slow"):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    self.close_connection = True
                    return None
                if fault == "cut":
                    self.wfile.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"
                    )
                    self.close_connection = True
                    return None
                return self._say(200, json.dumps({"id": "1", "object": "chat.completion", "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}]}))  # fmt: skip

            def _say(self, status, text, kind="application/json"):
                data = text.encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class Collector:
    """Takes traces, and keeps what they say; the header that it wants is not one of that."""

    def __init__(self):
        self.said, self.asked = [], 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                """Takes a batch."""
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.asked += 1
                outer.said.append(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class Redis:
    """A store of counters with a password; none where there is no redis-server."""

    def __init__(self, folder, password):
        self.port, self._folder, self._process = 1, folder, None
        if not shutil.which("redis-server"):
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir()
        (folder / "conf").write_text(
            f'port {self.port}\nbind 127.0.0.1\ndir {folder}\nrequirepass "{password}"\nsave ""\n'
        )
        self._process = subprocess.Popen(["redis-server", folder / "conf"], stdout=subprocess.DEVNULL)
        self._password = password
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.05)

    @property
    def is_there(self):
        """Whether it runs."""
        return self._process is not None

    def dump(self):
        """All that is in it."""
        with socket.create_connection(("127.0.0.1", self.port)) as link:
            for words in (["AUTH", self._password], ["SAVE"]):
                link.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
                link.recv(1000)
        return b"".join(file.read_bytes() for file in self._folder.glob("*.rdb"))

    def close(self):
        """Ends it."""
        if self._process:
            self._process.kill()
            self._process.wait()


def calls(secrets, few=False):
    """Requests of callers: target, headers, body, and the secrets of theirs that they send."""
    right, token = ("authorization", f"Bearer {secrets['CALLER']}"), _token(secrets["JWT"])
    for vendor in ("same", "other", "pooled"):
        for fault in FAULTS:
            for more in ({}, {"stream": True}) if vendor == "same" or not few else ({},):
                body = json.dumps(
                    {"model": f"{vendor}-{fault}", "messages": [{"role": "user", "content": "hi"}], **more}
                )
                yield "/v1/chat/completions", [right], body
        yield (
            "/v1/messages",
            [right],
            json.dumps({"model": f"{vendor}-echo", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
        )
    good = json.dumps({"model": "same-ok", "messages": [{"role": "user", "content": "hi"}]})
    for headers in ([], [("authorization", f"Bearer x{secrets['CALLER']}")], [("authorization", f"Basic {secrets['CALLER']}")],
                    [("x-api-key", secrets["CALLER"])], [right, right], [("authorization", secrets["CALLER"])],
                    [("authorization", f"Bearer {secrets['CALLER']}\x01")]):  # fmt: skip
        yield "/v1/chat/completions", headers, good
    for spoilt in (token, token[:-2] + "AA", token + ".x", token.split(".", maxsplit=1)[0]):
        yield "/tokens/v1/chat/completions", [("authorization", f"Bearer {spoilt}")], good
    for body in ("", "{", "[]", '{"model":1}', '{"model":"none"}', good + good, '{"model":"same-ok"}'):
        yield "/v1/chat/completions", [right], body
    yield "/v1/chat/completions", [right, ("prefer", "respond-async")], good
    yield (
        "/v1/chat/completions",
        [right, ("prefer", "respond-async"), ("penstock-webhook", "http://127.0.0.1:1/")],
        good,
    )
    yield "/plain/x", [right], ""
    yield "/none", [right], ""
    yield "/v1/../v1/x", [right], ""


def _token(secret):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(b'{"iss":"i","aud":"a","sub":"s","exp":4102444800}')
    return (head + b"." + part(hmac.new(secret.encode(), head, hashlib.sha256).digest())).decode()


def send(port, target, headers, body, method="POST"):
    """All bytes of the answer; none if there were none."""
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}"]
    head += ["Content-Type: application/json", *[f"{name}: {value}" for name, value in headers]]
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
            link.sendall("\r\n".join(head).encode("latin1") + b"\r\n\r\n" + body.encode())
            while read := link.recv(1 << 16):
                answer += read
    except OSError:
        pass
    return answer


class Campaign:
    """One gateway with everything planted."""

    def __init__(self, gateway, secrets, collector, redis):
        self.gateway, self.secrets, self.collector, self.redis = gateway, secrets, collector, redis
        state = gateway.folder / "state"
        self.token = (state / "admin-token").read_text().strip()
        self.leaks = Leaks({**secrets, "ADMIN": self.token, "TLS": _key_of(gateway.folder / "policies/tls.key")})
        self.virtual, self.children = "", []
        self.counts = {"requests": 0, "admin answers": 0, "children": 0}

    def admin(self, method, path, body=None):
        """An answer of the admin API, whole."""
        self.counts["admin answers"] += 1
        text = json.dumps(body) if isinstance(body, dict) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.admin_port, timeout=60)
        try:
            connection.request(method, path, text, {"authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            return answer.status, str(answer.getheaders()).encode() + answer.read()
        finally:
            connection.close()

    def plant(self):
        """Those that are planted by the admin API."""
        key = {
            "vendor": "pooled",
            "service": "chat",
            "key_name": "main",
            "api_key": self.secrets["POOLED"],
            "tier": "primary",
        }
        self.leaks.look("admin: a key of a vendor is made", self.admin("POST", "/api/v1/keys", key)[1])
        _, made = self.admin("POST", "/api/v1/virtual-keys", {"name": "ann", "team": None})
        said = json.loads(made[made.index(b"{") :])
        self.virtual = next((value for value in said.values() if isinstance(value, str) and len(value) > 30), "")
        if self.virtual:
            whole = Leaks({"VIRTUAL": self.virtual})
            # Its first letters are those of all, and its id is known.
            whole._forms = [(name, form) for name, form in whole._forms if len(form) > 20]  # noqa: SLF001
            self.leaks._forms += whole._forms  # noqa: SLF001

    def ask(self, few=False):
        """Every kind of call; answers must not have what the caller does not know."""
        for target, headers, body in calls(self.secrets, few):
            self.counts["requests"] += 1
            answer = send(self.gateway.port, target, headers, body)
            self.leaks.look(f"answer to {target} {body[:60]}", answer)
        if self.virtual:
            good = json.dumps({"model": "same-echo", "messages": [{"role": "user", "content": "hi"}]})
            self.leaks.look(
                "answer to a virtual key",
                send(self.gateway.port, "/v1/chat/completions", [("x-api-key", self.virtual)], good),
            )

    def compile(self, content):
        """A plugin is compiled; its compiler is looked at meanwhile."""
        # With a section of its own, since what was compiled for another gateway of this run is not compiled again.
        content += wasm.custom("mark", os.urandom(16))
        done = threading.Event()
        watching = threading.Thread(target=self._watch_children, args=(done,))
        watching.start()
        self.leaks.look("admin: upload", self.admin("POST", "/api/v1/plugins?activate=false", content)[1])
        done.set()
        watching.join()

    def _watch_children(self, done):
        seen = set()
        while not done.is_set():
            for children in Path(f"/proc/{self.gateway.pid}/task").glob("*/children"):
                try:
                    pids = children.read_text().split()
                except OSError:
                    continue
                for pid in pids:
                    for name in ("cmdline", "environ"):
                        try:
                            data = Path(f"/proc/{pid}/{name}").read_bytes()
                        except OSError:
                            continue
                        self.leaks.look(f"{name} of a child", data)
                    seen.add(pid)
            time.sleep(0.005)
        self.counts["children"] += len(seen)

    def look_around(self):
        """Everything that the gateway says and writes."""
        _, document = self.admin("GET", "/api/v1/openapi.json")
        document = json.loads(document[document.index(b'{"') :])
        for path, methods in document["paths"].items():
            if "get" in methods and "events" not in path:
                shown = path.replace("{name}", "api-key").replace("{id}", "x").replace("{number}", "1")
                self.leaks.look(f"admin: {path}", self.admin("GET", shown)[1])
        for path in ("/metrics", "/readyz", "/healthz"):
            self.leaks.look(path, self.admin("GET", path)[1])
            self.leaks.look(path, send(self.gateway.port, path, [], "", "GET"))
        time.sleep(0.6)
        self.leaks.look("traces", b"".join(self.collector.said))
        own = {"master-key": "MASTER", "admin-token": "ADMIN"}
        for file in (self.gateway.folder / "state").rglob("*"):
            if file.is_file():
                self.leaks.look(f"state: {file.name}", file.read_bytes(), [own.get(file.name)])
        self.leaks.look("command line", Path(f"/proc/{self.gateway.pid}/cmdline").read_bytes())
        if self.redis.is_there:
            self.leaks.look("Redis", self.redis.dump())
        self.leaks.look("log", self.gateway.log())

    def crash(self):
        """Aborts it where core files are allowed: whether there is none, and what its last words were."""
        limits = Path(f"/proc/{self.gateway.pid}/limits").read_text()
        zero = next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4] == "0"
        os.kill(self.gateway.pid, signal.SIGABRT)
        time.sleep(0.5)
        self.leaks.look("log after the crash", self.gateway.log())
        here = [str(file) for folder in (Path.cwd(), self.gateway.folder) for file in folder.glob("core*")]
        return zero and not here, here


def _key_of(path):
    """A line of a private key that no other file has."""
    return path.read_text().splitlines()[1][4:44]


def environment(secrets):
    """Variables that the policy names."""
    return {f"CANARY_{name}": secret for name, secret in secrets.items() if name not in ("POOLED", "CALLER")}
