# SPDX-License-Identifier: Apache-2.0
"""Recorded answers of real vendors, read where they lie, through both SDKs and both directions of translation."""

import json
import unittest

from anthropic import Anthropic
from openai import OpenAI

from support import KEY, GatewayTest, fixtures

PROTOCOLS = {"openai-chat": "openai", "anthropic-messages": "anthropic"}
OPERATIONS = ("chat", "messages")
CASES_PER_VENDOR = 12
HELLO = [{"role": "user", "content": "Hello"}]


def cases():
    """A selection: of each vendor, the first of each mix of features."""
    chosen = {}
    for path in sorted(fixtures().rglob("meta.json")):
        meta = json.loads(path.read_text())
        expected = path.parent / "expected.json"
        if meta.get("protocol") in PROTOCOLS and meta["operation"] in OPERATIONS and meta["status"] == 200 and expected.exists():
            mix = (meta["stream"], *sorted(meta.get("features") or []))
            chosen.setdefault(meta["vendor"], {}).setdefault(mix, (path.parent, meta, json.loads(expected.read_text())))
    return [case for mixes in chosen.values() for case in list(mixes.values())[:CASES_PER_VENDOR]]


@unittest.skipIf(fixtures() is None, "no recorded exchanges beside the repository")
class RecordedTest(GatewayTest):
    """What the SDK reads is what the oracle read."""

    def test_both_sdks_read_what_was_recorded(self):
        for folder, meta, expected in cases():
            if expected["error"] or not expected["finish_native"]:
                continue  # errors and cuts have tests of their own
            name = str(folder.relative_to(fixtures()))
            model = f"{PROTOCOLS[meta['protocol']]}/fixture:{name}"
            wanted = (expected["text"], [(call["name"], call["arguments"]) for call in expected["tool_calls"]])
            for read in (self.with_openai, self.with_anthropic):
                with self.subTest(case=name, sdk=read.__name__):
                    self.assertEqual(read(model, meta["stream"]), wanted)

    def with_openai(self, model, stream):
        """Text and calls, as the `openai` SDK reads them."""
        with OpenAI(base_url=f"{self.gateway.url}/v1", api_key=KEY, max_retries=0, timeout=30) as client:
            answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=100, stream=stream)
            if stream:
                return joined([choice.delta for chunk in answer for choice in chunk.choices[:1] if choice.index == 0])
            return joined([answer.choices[0].message])

    def with_anthropic(self, model, stream):
        """Text and calls, as the `anthropic` SDK reads them."""
        with Anthropic(base_url=self.gateway.url, api_key=KEY, max_retries=0, timeout=30) as client:
            options = {"model": model, "messages": HELLO, "max_tokens": 100}
            if stream:
                with client.messages.stream(**options) as events:
                    answer = events.get_final_message()
            else:
                answer = client.messages.create(**options)
        text = "".join(block.text for block in answer.content if block.type == "text")
        return text, [(block.name, block.input) for block in answer.content if block.type == "tool_use"]


def joined(pieces):
    """Text and calls of the pieces of a message."""
    text, calls = "", {}
    for piece in pieces:
        content = piece.content or ""
        if isinstance(content, list):  # a vendor's own shape, relayed as it came
            content = "".join(part["text"] for part in content if part["type"] == "text")
        text += content
        for position, call in enumerate(piece.tool_calls or []):
            names, arguments = calls.setdefault(getattr(call, "index", None) or position, ([], []))
            names.append(call.function.name or "")
            arguments.append(call.function.arguments or "")
    return text, [("".join(names), json.loads("".join(arguments) or "{}")) for names, arguments in calls.values()]
