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

import certificate

READY_WITHIN_S = 60

BASE = """
[[listeners]]
address = "127.0.0.1:0"

[[listeners]]
address = "127.0.0.1:0"
tls = {{ certificate = "{folder}/tls.crt", key = "{folder}/tls.key" }}

[admin]
address = "127.0.0.1:0"

[plugins.callers]
plugin = "api-key"
config = {{ keys = [{{ subject = "tests", sha256 = "{key_sha256}" }}] }}
"""

VENDOR = """
[vendors.{name}]
adapter = "{adapter}"
base_url = "{upstream}/{name}{below}"
key = "env:REPLAY_KEY"
{more}
"""

ROUTE = """
[[routes]]
name = "ai{number}"
path = "{path}"
auth = "callers"
{dialects}
"""

RESPONSES_ONLY = 'translate_by = "responses", paths = { responses = "/responses", chat = "", embeddings = "" }'
EVERYTHING = 'surface = "openai", paths = { rerank = "/rerank" }'
# Where each vendor is below its name, by which adapter it is asked, and what else stands in its file. Each of the first
# six speaks one dialect and no other, so that callers of all others are translated.
VENDORS = {
    "openai": ("/v1", "openai-compatible", 'models = ["listed-one", "listed-two"]'),
    "responses": ("/v1", "openai-compatible", f"config = {{ {RESPONSES_ONLY} }}"),
    "anthropic": ("/v1", "anthropic", 'models = ["listed-three"]'),
    "gemini": ("/v1beta", "gemini", ""),
    "cohere": ("", "cohere", ""),
    "bedrock": ("", "bedrock", ""),
    # One that has every operation of OpenAI's.
    "full": ("/v1", "openai-compatible", f'models = ["listed-four"]\nconfig = {{ {EVERYTHING} }}'),
    "dashscope": ("/api/v1", "dashscope", ""),
    # A vendor of Chat Completions that seals thoughts, as OpenRouter does.
    "router": ("/v1", "openai-compatible", 'config.reasoning = { ask = "reasoning", back = "reasoning_details" }'),
}
# Which of them have a dialect of their own, and which one.
FAMILIES = {
    "openai-chat": "openai",
    "openai-responses": "responses",
    "anthropic-messages": "anthropic",
    "gemini": "gemini",
    "cohere-v2": "cohere",
    "bedrock-converse": "bedrock",
}
ROUTES = {"/v1": (), "/v1beta": ("gemini",), "/v2": ("cohere-v2",), "/model": ("bedrock-converse",)}


class Gateway:
    """A running gateway: `url` in clear text, `tls_url` with a certificate that `authority` vouches for."""

    def __init__(self, upstream, key, more="", families=None):
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-sdk-")
        folder = Path(self._folder.name)
        self.policies = folder / "policies"
        self.policies.mkdir()
        self.url = self.tls_url = self.admin_url = None
        self.authority = certificate.write(self.policies)
        (self.policies / "gateway.toml").write_text((families or policy)(upstream, key, self.policies) + more)
        self._log = open(folder / "log", "w+b")
        self._start()

    def _start(self):
        folder = Path(self._folder.name)
        command = [os.environ["PENSTOCK_BIN"], "run", "--policies", self.policies, "--state", folder / "state"]
        command += ["--plugins", os.environ["PENSTOCK_PLUGINS"]]
        environment = {**os.environ, "REPLAY_KEY": "replay-secret", "RUST_LOG": "info"}
        self._process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
        self._wait()

    def kill_and_start(self):
        """Ends the gateway as a crash would, and starts it again, at other ports."""
        self._process.kill()
        self._process.wait()
        self._log.seek(0)
        self._log.truncate()
        self._start()

    @property
    def process(self):
        """Number of the process."""
        return self._process.pid

    def _wait(self):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            # The gateway takes free ports and says in its log which.
            log = self.log()
            serving = re.search(r"serving (http://[0-9.:]+)", log)
            secured = re.search(r"serving (https://[0-9.:]+)", log)
            admin = re.search(r"the admin API is at (http://[0-9.:]+)", log)
            if not (serving and secured and admin):
                time.sleep(0.05)
                continue
            self.url, self.tls_url, self.admin_url = serving[1], secured[1], admin[1]
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


def policy(upstream, key, folder):
    """The gateway's policies: every family of vendors behind every dialect."""
    return base(key, folder) + "".join(vendor(name, name, upstream) for name in VENDORS)


def vendor(name, like, upstream):
    """A vendor of this name that speaks as another one does."""
    below, adapter, more = VENDORS[like]
    return VENDOR.format(name=name, adapter=adapter, upstream=upstream, below=below, more=more)


def base(key, folder):
    """Everything but the vendors."""
    text = BASE.format(key_sha256=hashlib.sha256(key.encode()).hexdigest(), folder=folder)
    for number, (path, dialects) in enumerate(ROUTES.items()):
        line = f"dialects = {list(dialects)}" if dialects else ""
        text += ROUTE.format(number=number, path=path, dialects=line)
    return text
