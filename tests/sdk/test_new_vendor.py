# SPDX-License-Identifier: Apache-2.0
"""A vendor that nobody has heard of, added to a running gateway by one small file."""

import json
import time
from pathlib import Path

import anthropic
import openai

from support import CITY_SCHEMA, KEY, GatewayTest
from wire import MEDIA_TYPES, sse

# In force after a file was written, in seconds.
WITHIN_S = 2
LINES_MAX = 30

# An invented vendor of Chat Completions: it has another word for a parameter, for a role and for an end, refuses another
# parameter, and tells errors under HTTP 200.
FILE = """\
[vendors.brook]
adapter = "openai-compatible"
base_url = "{upstream}/brook/api"
key = "env:REPLAY_KEY"
models = ["brook-1"]

[vendors.brook.config]
paths = {{ chat = "/talk" }}
auth = {{ header = "x-brook-key", prefix = "" }}
rename = {{ max_tokens = "words_max", max_completion_tokens = "words_max" }}
drop = ["seed"]
clamp = {{ temperature = [0.0, 1.0] }}
roles = {{ system = "setting", developer = "setting" }}
finish = {{ ran_dry = "length" }}

[vendors.brook.config.faults]
success = {{ "/verdict/number" = 0 }}
code = "/verdict/number"
message = "/verdict/words"
classes = {{ 77 = "billing" }}
"""
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def brook(asked):
    """What the vendor answers."""
    if "penniless" in json.dumps(asked.json):
        return MEDIA_TYPES["json"], json.dumps({"verdict": {"number": 77, "words": "the well is empty"}}).encode()
    answer = {"id": "b1", "model": "brook-1", "created": 1, "usage": USAGE, "verdict": {"number": 0, "words": "fine"}}
    if asked.streaming:
        deltas = [({"role": "assistant", "content": "Mur"}, None), ({"content": "mur."}, None), ({}, "ran_dry")]
        choices = [{"index": 0, "delta": delta, "finish_reason": finish} for delta, finish in deltas]
        chunks = [answer | {"object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
        return MEDIA_TYPES["sse"], sse(chunks, named=False, done=True)
    message = {"role": "assistant", "content": "Murmur."}
    choice = {"index": 0, "message": message, "finish_reason": "ran_dry"}
    return MEDIA_TYPES["json"], json.dumps(answer | {"object": "chat.completion", "choices": [choice]}).encode()


class NewVendorTest(GatewayTest):
    """No build, no restart."""

    def setUp(self):
        self.client = openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=KEY, max_retries=0, timeout=30)
        self.addCleanup(self.client.close)
        self.upstream.scripts["brook-1"] = brook
        self.file = self.gateway.policies / "brook.toml"

    def ask(self, text="Say something.", **options):
        """An answer to a caller of the vendor's dialect, in words that the vendor does not know."""
        messages = [{"role": "system", "content": "You are a brook."}, {"role": "user", "content": text}]
        options = {"max_completion_tokens": 9, "temperature": 1.7, "seed": 4} | options
        return self.client.chat.completions.create(model="brook-1", messages=messages, **options)

    def until(self, holds):
        """Asks until an answer is as it should be; seconds that it took."""
        begin = time.monotonic()
        while not holds():
            self.assertLess(time.monotonic() - begin, WITHIN_S, self.gateway.log()[-2000:])
            time.sleep(0.02)
        return time.monotonic() - begin

    def is_there(self):
        """Whether the vendor answers."""
        try:
            self.ask()
            return True
        except openai.NotFoundError:
            return False

    def test_a_file_adds_it_and_taking_the_file_away_removes_it(self):
        text = FILE.format(upstream=self.upstream.url)
        self.assertLess(len(text.splitlines()), LINES_MAX)
        process = self.gateway.process
        self.assertFalse(self.is_there())
        self.add(text)
        self.addCleanup(lambda: self.file.unlink(missing_ok=True))
        self.until(self.is_there)
        self.check_quirks()
        self.check_another_dialect()
        self.check_errors()
        self.file.unlink()
        self.until(lambda: not self.is_there())
        self.assertEqual(self.gateway.process, process)

    def add(self, text):
        """Puts the file there in one step, as an editor does."""
        draft = Path(self.file.parent.parent) / "draft"
        draft.write_text(text)
        draft.rename(self.file)

    def check_quirks(self):
        """The vendor reads its own words, and the caller OpenAI's."""
        for stream in (False, True):
            with self.subTest(stream=stream):
                answer = self.ask(stream=stream)
                if stream:
                    choices = [chunk.choices[0] for chunk in answer if chunk.choices]
                    text = "".join(choice.delta.content or "" for choice in choices)
                    finish = choices[-1].finish_reason
                else:
                    text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
                self.assertEqual((text, finish), ("Murmur.", "length"))
                asked = self.upstream.requests[-1]
                self.assertEqual(asked.path, "/brook/api/talk")
                self.assertEqual(asked.headers["x-brook-key"], "replay-secret")
                self.assertNotIn("authorization", asked.headers)
                self.assertEqual((asked.json["words_max"], asked.json["temperature"]), (9, 1.0))
                self.assertEqual(asked.json.keys() & {"max_completion_tokens", "max_tokens", "seed"}, set())
                self.assertEqual([message["role"] for message in asked.json["messages"]], ["setting", "user"])

    def check_another_dialect(self):
        """Callers of other dialects reach it, too."""
        tools = [{"name": "weather", "input_schema": CITY_SCHEMA}]
        with anthropic.Anthropic(base_url=self.gateway.url, api_key=KEY, max_retries=0, timeout=30) as client:
            with client.messages.stream(
                model="brook-1",
                system="You are a brook.",
                messages=[{"role": "user", "content": "Say something."}],
                tools=tools,
                max_tokens=9,
            ) as stream:
                answer = stream.get_final_message()
        self.assertEqual((answer.content[0].text, answer.stop_reason), ("Murmur.", "max_tokens"))
        self.assertEqual((answer.usage.input_tokens, answer.usage.output_tokens), (5, 2))
        self.assertEqual((self.upstream.last["words_max"], self.upstream.last["messages"][0]["role"]), (9, "setting"))

    def check_errors(self):
        """An error under HTTP 200 is an error, with the class that the file gives its number."""
        for stream in (False, True):
            with self.subTest(stream=stream), self.assertRaises(openai.APIStatusError) as raised:
                self.ask("I am penniless.", stream=stream)
            self.assertEqual(raised.exception.status_code, 402)
            self.assertIn("the well is empty", raised.exception.message)
