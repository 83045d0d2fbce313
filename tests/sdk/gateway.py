# SPDX-License-Identifier: Apache-2.0
"""Starts the gateway under test, in front of a replay server, with policies of its own."""

import hashlib
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_WITHIN_S = 60

POLICY = """
[[listeners]]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"

[plugins.callers]
plugin = "api-key"
config = {{ keys = [{{ subject = "tests", sha256 = "{key_sha256}" }}] }}

[vendors.openai]
adapter = "openai-compatible"
base_url = "{upstream}/openai/v1"
key = "env:REPLAY_KEY"
models = ["listed-one", "listed-two"]

[vendors.anthropic]
adapter = "anthropic"
base_url = "{upstream}/anthropic/v1"
key = "env:REPLAY_KEY"
models = ["listed-three"]

[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
"""


class Gateway:
    """A running gateway."""

    def __init__(self, upstream, key):
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-sdk-")
        folder = Path(self._folder.name)
        (folder / "policies").mkdir()
        self._log = open(folder / "log", "w+b")
        self.url = self.admin_url = None
        (folder / "policies" / "gateway.toml").write_text(
            POLICY.format(upstream=upstream, key_sha256=hashlib.sha256(key.encode()).hexdigest())
        )
        command = [os.environ["PENSTOCK_BIN"], "run", "--policies", folder / "policies", "--state", folder / "state"]
        command += ["--plugins", os.environ["PENSTOCK_PLUGINS"]]
        environment = {**os.environ, "REPLAY_KEY": "replay-secret", "RUST_LOG": "info"}
        self._process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
        self._wait()

    def _wait(self):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            # The gateway takes free ports and says in its log which.
            log = self.log()
            serving = re.search(r"serving (http://[0-9.:]+)", log)
            admin = re.search(r"the admin API is at (http://[0-9.:]+)", log)
            if not (serving and admin):
                time.sleep(0.05)
                continue
            self.url, self.admin_url = serving[1], admin[1]
            try:
                with urllib.request.urlopen(f"{self.admin_url}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        log = self.log()
        self.close()
        raise RuntimeError(f"the gateway did not get ready:\n{log}")

    def log(self):
        """Everything that the gateway has logged."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self):
        """Stops the gateway as an operator would."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()
