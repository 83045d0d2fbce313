# SPDX-License-Identifier: Apache-2.0
"""Starts the gateway under attack: listeners in clear text and with TLS, open and guarded routes, an echoing vendor."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

READY_WITHIN_S = 60
KEY = "torture-key"
# What is compiled once serves every gateway of a run.
COMPILED = tempfile.TemporaryDirectory(prefix="penstock-compiled-")
# Those that the policy names: the others would be compiled for nothing.
PLUGINS = ("api-key.wasm", "echo.wasm")
# How every policy begins: clear text, TLS, the admin API.
PLACES = """
[[listeners]]
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
tls = {{ certificate = "{folder}/tls.crt", key = "{folder}/tls.key" }}
[admin]
address = "127.0.0.1:0"
"""
POLICY = (
    PLACES
    + """
[timeouts]
{timeouts}
[limits]
{limits}
[plugins.callers]
plugin = "api-key"
config = {{ keys = [{{ subject = "torture", sha256 = "{key}" }}] }}
[vendors.echo]
adapter = "echo"
models = ["echo"]
[services.origin]
endpoints = ["http://127.0.0.1:{origin}"]
[services.grpc]
endpoints = ["http://127.0.0.1:{grpc}"]
http2 = true
[services.socket]
endpoints = ["http://127.0.0.1:{socket}"]
[[routes]]
name = "plain"
path = "/"
service = "origin"
[[routes]]
name = "guarded"
path = "/guarded"
service = "origin"
auth = "callers"
[[routes]]
name = "grpc"
path = "/torture.Echo"
service = "grpc"
[[routes]]
name = "socket"
path = "/socket"
service = "socket"
strip_prefix = true
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
[[routes]]
name = "open"
path = "/open/v1"
"""
)


class Gateway:
    """A running gateway. `port` speaks clear text, `tls_port` TLS, `admin_port` is the admin API."""

    def __init__(self, origin=1, grpc=1, socket=1, timeouts="", limits="", policy=POLICY, plugins=PLUGINS, **more):
        """`policy` has the places of the others in braces; `more` is `command`, `environment`, `flags`, `key` (of the one
        caller), `drop`: files for a second folder of plugins, by their names; and `disk`: a folder for its state and its log."""
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-torture-")
        self.folder = Path(self._folder.name)
        policies = self.folder / "policies"
        policies.mkdir()
        certificate(policies)
        key = hashlib.sha256(more.get("key", KEY).encode()).hexdigest()
        told = {"origin": origin, "grpc": grpc, "socket": socket, "timeouts": timeouts, "limits": limits, "key": key}
        (policies / "gateway.toml").write_text(policy.format(folder=policies, **told))
        disk = more.get("disk", self.folder)
        self._log_path, self.state = disk / "log", disk / "state"
        command = [os.environ["PENSTOCK_BIN"], more.get("command", "run"), "--policies", policies]
        shelf = self.folder / "plugins"
        shelf.mkdir()
        for name in plugins:
            (shelf / name).symlink_to(Path(os.environ["PENSTOCK_PLUGINS"]).resolve() / name)
        self.state.mkdir(mode=0o700, exist_ok=True)
        shutil.copytree(COMPILED.name, self.state / "compiled", dirs_exist_ok=True)
        command += ["--state", self.state, "--plugins", shelf, *more.get("flags", ())]
        if "drop" in more:
            drop = self.folder / "drop"
            drop.mkdir()
            for name, content in more["drop"].items():
                (drop / name).write_bytes(content)
            command += ["--plugins", drop]
        environment = {**os.environ, "RUST_LOG": "info", **more.get("environment", {})}
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._wait()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    @property
    def pid(self):
        """Number of the process."""
        return self._process.pid

    def runs(self):
        """Whether it has not crashed."""
        return self._process.poll() is None

    def resident_mib(self):
        """Resident memory."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def log(self):
        """Everything that it has logged, as bytes."""
        return self._log_path.read_bytes()

    def close(self):
        """Stops it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _wait(self):
        deadline = time.monotonic() + READY_WITHIN_S
        words = (
            r"serving http://127.0.0.1:(\d+)",
            r"serving https://127.0.0.1:(\d+)",
            r"admin API is at http://127.0.0.1:(\d+)",
        )
        while time.monotonic() < deadline and self.runs():
            found = [re.search(word, self.log().decode(errors="replace")) for word in words]
            if all(found):
                self.port, self.tls_port, self.admin_port = (int(match[1]) for match in found)
                for file in (self.state / "compiled").iterdir():
                    shutil.copy(file, COMPILED.name)
                return
            time.sleep(0.05)
        log = self.log().decode(errors="replace")
        self.close()
        raise RuntimeError(f"the gateway did not get ready:\n{log[-4000:]}")


def certificate(folder):
    """Writes `tls.crt` and `tls.key`."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
