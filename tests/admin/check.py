# SPDX-License-Identifier: Apache-2.0
"""Holds the admin API to the OpenAPI document that it serves: starts a gateway with a state directory of its own, and lets
schemathesis send it what the document allows and what it forbids. No answer may be a 5xx, or differ from the document."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).parent
POLICY = """
[admin]
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
[vendors.echo]
adapter = "echo"
models = ["echo"]
[[routes]]
name = "ai"
path = "/v1"
"""


def main():
    examples = sys.argv[1] if len(sys.argv) > 1 else "10"
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        (root / "policy.toml").write_text(POLICY)
        gateway = subprocess.Popen(
            [os.environ["PENSTOCK_BIN"], "run", "--policies", root / "policy.toml", "--state", root / "state"]
            + ["--plugins", os.environ["PENSTOCK_PLUGINS"], "--log", "json"],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            base = address(gateway)
            threading.Thread(target=lambda: [None for _ in gateway.stderr], daemon=True).start()
            token = (root / "state/admin-token").read_text().strip()
            schemathesis = pathlib.Path(sys.executable).parent / "schemathesis"
            run = subprocess.run(
                [schemathesis, "--config-file", HERE / "schemathesis.toml", "run", f"{base}/api/v1/openapi.json"]
                + ["--url", base, "--header", f"Authorization: Bearer {token}", "--max-examples", examples]
                + ["--workers", "1", "--continue-on-failure", "--no-color"],
                cwd=root,
            )
            if gateway.poll() is not None:
                sys.exit("the gateway has ended")
            sys.exit(run.returncode)
        finally:
            gateway.kill()
            gateway.wait()


def address(gateway):
    for line in gateway.stderr:
        message = json.loads(line).get("message", "")
        if message.startswith("the admin API is at "):
            return message.removeprefix("the admin API is at ")
    sys.exit("the gateway does not start")


if __name__ == "__main__":
    main()
