# SPDX-License-Identifier: Apache-2.0
"""The official Node SDKs before every family of vendors: what they read is what was recorded."""

import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

import recordings
from gateway import FAMILIES
from reading import Reading, differences
from replay import recorded_name
from support import KEY, GatewayTest

DIALECTS = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")
# Recordings of one family, for each dialect.
CASES = 12
ASK = Path(__file__).parent / "node" / "ask.mjs"
WITHIN_S = 120


def missing():
    """What this run lacks; none if nothing."""
    if recordings.folder() is None:
        return "no recorded exchanges beside the repository"
    if not (os.environ.get("PENSTOCK_NODE_MODULES") and shutil.which("node")):
        return "Node 20 or newer and npm are not installed"
    return None


if missing():
    print(f"SKIPPED the Node SDKs: {missing()}", file=sys.stderr)


@unittest.skipIf(missing(), missing())
class NodeTest(GatewayTest):
    """One process asks everything."""

    def test_what_was_recorded(self):
        cases = [(dialect, case) for family in FAMILIES for case in self.spread(family) for dialect in DIALECTS]
        questions = []
        for number, (dialect, case) in enumerate(cases):
            model = f"{FAMILIES[case.family]}/{recorded_name(case.name)}"
            questions.append({"id": number, "dialect": dialect, "model": model, "stream": case.stream})
        answers = self.ask(questions)
        self.assertEqual(sorted(answers), list(range(len(cases))))
        for number, (dialect, case) in enumerate(cases):
            with self.subTest(dialect=dialect, case=case.name, stream=case.stream):
                self.check(dialect, case, answers[number])

    def check(self, dialect, case, answer):
        """One answer."""
        if case.expected["error"]:
            self.assertIn("error", answer)
            return
        self.assertNotIn("error", answer)
        read = answer["read"]
        read["calls"] = [tuple(call) for call in read["calls"]]
        self.assertEqual(differences(dialect, Reading(**read), case.expected, dialect == case.family), [])

    def test_errors_raise(self):
        questions = [
            {"id": f"{dialect} {status} {stream}", "dialect": dialect, "model": f"{vendor}/error-{status}", "stream": stream}
            for dialect in DIALECTS
            for vendor in ("openai", "anthropic")
            for status in (400, 401, 429, 503)
            for stream in (False, True)
        ]
        for id, answer in self.ask(questions).items():
            with self.subTest(id=id):
                self.assertIn("error", answer)
                self.assertEqual(answer["status"], int(id.split()[1]))

    @staticmethod
    def spread(family):
        """Some of the recordings of a family, whole and streamed ones, from the whole list."""
        chosen = recordings.chosen(family)
        if os.environ.get("PENSTOCK_PAIRS") == "all":
            return chosen
        step = max(1, len(chosen) // CASES)
        return chosen[::step][:CASES]

    def ask(self, questions):
        """Has the questions asked; answers by their ids."""
        environment = {**os.environ, "PENSTOCK_URL": self.gateway.url, "PENSTOCK_KEY": KEY}
        lines = "".join(json.dumps(question) + "\n" for question in questions)
        done = subprocess.run(
            ["node", ASK], input=lines, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return {answer["id"]: answer for answer in answers}
