# SPDX-License-Identifier: Apache-2.0
"""Holds what is in deploy/ to a real Prometheus: promtool checks the configuration, the alerts and their tests; then a gateway
is scraped under traffic that exercises everything, and every panel of every dashboard must show data. Standard library only."""

import http.client
import http.server
import json
import math
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PLUGINS = ["api-key", "budget", "hostile", "openai-compatible", "token-bucket"]
# A machine under load may take its time; nothing here needs a quarter of it.
PATIENCE_S = 90
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "20s", "$__range": "2m"}

POLICY = """
[admin]
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
[traces]
endpoint = "http://UPSTREAM"
interval_ms = 100
[plugins.callers]
plugin = "api-key"
[plugins.fair]
plugin = "token-bucket"
[[plugins.fair.config.rules]]
models = ["scarce"]
requests_per_minute = 1
[plugins.budgets]
plugin = "budget"
[vendors.good]
adapter = "openai-compatible"
base_url = "http://UPSTREAM/good"
models = ["m", "free", "scarce"]
[vendors.bad]
adapter = "openai-compatible"
base_url = "http://UPSTREAM/bad"
models = ["never"]
[vendors.keyed]
adapter = "openai-compatible"
base_url = "http://UPSTREAM/keyed"
optional = true
key = "env:PENSTOCK_TEST_NO_SUCH_KEY"
models = ["k"]
[vendors.absent]
adapter = "none-such"
optional = true
[vendors.hostile]
adapter = "hostile"
models = ["trap"]
[models.both]
targets = [{ vendor = "bad", model = "never" }, { vendor = "good", model = "m" }]
[prices."good/m"]
input = 1.0
output = 2.0
[services.plain]
endpoints = ["http://UPSTREAM"]
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
limits = ["fair", "budgets"]
[[routes]]
name = "files"
path = "/files"
service = "plain"
"""


class Upstream(http.server.BaseHTTPRequestHandler):
    """Vendors, a plain service, and a collector of traces."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.say(200, "text/plain", b"a file")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/v1/traces":
            self.say(200, "application/x-protobuf", b"")
        elif self.path.startswith("/bad"):
            self.say(503, "application/json", b'{"error":{"message":"later"}}')
        elif self.headers.get("authorization") == "Bearer refused":
            self.say(401, "application/json", b'{"error":{"message":"no such key"}}')
        elif json.loads(body).get("stream"):
            self.stream()
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
            answer = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage()}
            self.say(200, "application/json", json.dumps(answer).encode())

    def stream(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events = [{"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}] * 4
        events += [{"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
        events += [{"id": "c", "choices": [], "usage": usage()}]
        for text in [json.dumps(event) for event in events] + ["[DONE]"]:
            self.chunk(f"data: {text}\n\n".encode())
            time.sleep(0.01)
        self.chunk(b"")

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def say(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def usage():
    return {"prompt_tokens": 20, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 5}}


class Processes:
    """What was started, to be ended in the end."""

    def __init__(self):
        self.all = []

    def start(self, *command, **options):
        process = subprocess.Popen([str(part) for part in command], **options)
        self.all.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.all):
            process.kill()
            process.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def promtool(*arguments, text=None):
    run = subprocess.run(["promtool", *map(str, arguments)], input=text, text=True, capture_output=True)
    if run.returncode != 0:
        sys.exit(f"promtool {' '.join(map(str, arguments[:2]))}:\n{run.stdout}{run.stderr}")


class Gateway:
    """A gateway of its own, with callers, keys and a team."""

    def __init__(self, processes, root, upstream):
        self.root = root
        (root / "policies").mkdir()
        self.policy = POLICY.replace("UPSTREAM", upstream)
        self.redis = shutil.which("redis-server") is not None
        if self.redis:
            port = free_port()
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.start("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", root, **quiet)
            self.policy += f'[state]\nredis = "redis://127.0.0.1:{port}"\n'
        else:
            print("SKIPPED: there is no redis-server here, so the panels of the shared state's times are NOT checked")
        (root / "policies/main.toml").write_text(self.policy)
        command = [os.environ["PENSTOCK_BIN"], "run", "--policies", root / "policies", "--state", root / "state"]
        # No more than are needed: each is compiled at the start.
        (root / "plugins").mkdir()
        for name in PLUGINS:
            shutil.copy(pathlib.Path(os.environ["PENSTOCK_PLUGINS"]) / f"{name}.wasm", root / "plugins")
        command += ["--plugins", root / "plugins", "--log", "json"]
        log = processes.start(*command, stderr=subprocess.PIPE, text=True).stderr
        self.callers = announced(log, "serving http://")
        self.admin = announced(log, "the admin API is at http://")
        threading.Thread(target=lambda: [None for _ in log], daemon=True).start()
        self.token = (root / "state/admin-token").read_text().strip()
        self.api("POST", "teams", {"id": "red", "name": "red"})
        self.key = self.api("POST", "virtual-keys", {"name": "ann", "team": "red"})["key"]
        for name, key in (("one", "refused"), ("two", "accepted")):
            body = {"vendor": "keyed", "service": "chat", "key_name": name, "api_key": key, "tier": "primary"}
            self.api("POST", "keys", body)

    def api(self, method, path, body=None):
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        status, text = ask(self.admin, method, f"/api/v1/{path}", headers, json.dumps(body) if body else None)
        if status >= 300:
            sys.exit(f"{method} {path}: {status} {text}")
        return json.loads(text)

    def chat(self, model, **more):
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        headers |= more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
        return ask(self.callers, "POST", "/v1/chat/completions", headers, json.dumps(body))[0]

    def traffic(self):
        """Everything once; each is expected to go as it goes."""
        expected = {
            "whole": (self.chat("m"), 200),
            "stream": (self.chat("m", stream=True), 200),
            "without a price": (self.chat("free"), 200),
            "fallback": (self.chat("both"), 200),
            "vendor away": (self.chat("never") >= 500, True),
            "plugin breaks": (self.chat("trap"), 502),
            "keys": (self.chat("k"), 200),
            "job": (self.chat("m", headers={"prefer": "respond-async"}), 202),
            "service": (ask(self.callers, "GET", "/files/a", {}, None)[0], 200),
            "nobody": (ask(self.callers, "POST", "/v1/chat/completions", {}, "{}")[0], 401),
        }
        self.chat("scarce")
        expected["limit"] = (self.chat("scarce"), 429)
        wrong = {name: got for name, (got, wanted) in expected.items() if got != wanted}
        if wrong:
            sys.exit(f"not as expected: {wrong}")

    def change(self, number):
        """A change that is taken, and one that is not."""
        path = self.root / "policies/more.toml"
        path.write_text(f'[models.alias-{number}]\ntargets = [{{ vendor = "good" }}]\n' if number % 2 else "[nonsense]\n")


def announced(log, beginning):
    for line in log:
        message = json.loads(line).get("message", "")
        if message.startswith(beginning):
            return message.removeprefix(beginning)
    sys.exit("the gateway does not start")


def ask(address, method, path, headers, body):
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Prometheus:
    """A real one, with the configuration of deploy/ pointed at the gateway."""

    def __init__(self, processes, root, gateway):
        folder = root / "prometheus"
        folder.mkdir()
        config = (DEPLOY / "prometheus/prometheus.yml").read_text()
        for written, here in (("127.0.0.1:9080", gateway.admin), ("15s", "1s")):
            if written not in config:
                sys.exit(f"deploy/prometheus/prometheus.yml has no {written}")
            config = config.replace(written, here)
        (folder / "prometheus.yml").write_text(config)
        shutil.copy(DEPLOY / "prometheus/alerts.yml", folder)
        (folder / "admin-token").write_text(gateway.token)
        self.address = f"127.0.0.1:{free_port()}"
        log = (root / "prometheus.log").open("w")
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        processes.start(*command, f"--web.listen-address={self.address}", stdout=log, stderr=log)

    def get(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def is_ready(self):
        try:
            targets = self.get("targets", state="active")["activeTargets"]
        except OSError:
            return False
        return bool(targets) and all(target["health"] == "up" for target in targets)

    def has_data(self, query):
        result = self.get("query", query=query)["result"]
        return any(math.isfinite(float(sample["value"][1])) for sample in result)


def questions(gateway):
    """Every query of every panel, and every variable, with a name."""
    panels, variables = {}, {}
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        names = [variable["name"] for variable in dashboard["templating"]["list"]]
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"]
                for name, value in VARIABLES.items():
                    query = query.replace(name, value)
                for name in names:
                    query = query.replace(f"${name}", ".*")
                if "$" in query:
                    sys.exit(f"{path.name}: {panel['title']}: a variable that there is not: {query}")
                if "state_round_trip" in query and not gateway.redis:
                    continue
                panels[f"{path.name}: {panel['title']} {target['refId']}"] = query
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                variables[f"{path.name}: {variable['name']}"] = variable["definition"]
    return panels, variables


def is_answered(prometheus, definition):
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", definition).groups()
    selector = re.sub(r"\$\w+", ".*", selector)
    return bool(prometheus.get(f"label/{label}/values", **{"match[]": selector}))


def check_names(prometheus):
    """No dashboard and no alert asks for a metric that there is not."""
    table = (ROOT / "docs/observability.md").read_text()
    known = set(re.findall(r"^\| `(penstock_\w+)` \|", table, re.MULTILINE))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in prometheus.get("label/__name__/values")}
    strange = {name for name in shown if name.startswith("penstock_")} - known
    strange = {name for name in strange if not name.startswith("penstock_plugin_")}
    if strange:
        sys.exit(f"docs/observability.md does not have {sorted(strange)}")
    for path in sorted(DEPLOY.rglob("*")):
        if path.suffix in (".json", ".yml"):
            asked = set(re.findall(r"\b(penstock_\w+?)(?:_bucket|_sum|_count)?(?=[{\[, )])", path.read_text()))
            if asked - known:
                sys.exit(f"{path.relative_to(ROOT)} asks for {sorted(asked - known)}, which there is not")


def main():
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as root, Processes() as processes:
        root = pathlib.Path(root)
        checked = root / "checked"
        shutil.copytree(DEPLOY / "prometheus", checked)
        (checked / "admin-token").touch()
        promtool("check", "config", checked / "prometheus.yml")
        promtool("check", "rules", checked / "alerts.yml")
        promtool("test", "rules", checked / "alerts.test.yml")
        tested = (DEPLOY / "prometheus/alerts.test.yml").read_text()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        gateway = Gateway(processes, root, f"127.0.0.1:{server.server_port}")
        prometheus = Prometheus(processes, root, gateway)
        panels, variables = questions(gateway)
        silent, number, ready = dict(panels), 0, time.monotonic()
        while silent and time.monotonic() - ready < PATIENCE_S:
            gateway.traffic()
            gateway.change(number)
            number += 1
            time.sleep(0.5)
            if number > 2 and prometheus.is_ready():
                silent = {name: query for name, query in silent.items() if not prometheus.has_data(query)}
        if silent:
            shown = "\n".join(f"  {name}\n    {query}" for name, query in silent.items())
            sys.exit(f"{len(silent)} of {len(panels)} queries show nothing:\n{shown}")
        unanswered = [name for name, definition in variables.items() if not is_answered(prometheus, definition)]
        if unanswered:
            sys.exit(f"variables without a value: {unanswered}")
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        for rule in rules:
            if rule["health"] == "err" or f"- name: {rule['name']}\n" not in tested:
                sys.exit(f"the alert {rule['name']} cannot be asked, or has no test: {rule.get('lastError', '')}")
        check_names(prometheus)
        headers = {"authorization": f"Bearer {gateway.token}"}
        promtool("check", "metrics", text=ask(gateway.admin, "GET", "/metrics", headers, None)[1])
    print(f"{len(panels)} queries of panels show data, {len(rules)} alerts hold, in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
