# SPDX-License-Identifier: Apache-2.0
"""The official `anthropic` SDK, unchanged, against upstreams of its own and of the other dialect."""

import anthropic
from anthropic import Anthropic

from support import CALLS, CITY_SCHEMA, GREETING, IMAGE_URL, KEY, RED_DOT, WEATHER, GatewayTest, each_vendor

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [{"name": "weather", "description": "Weather", "input_schema": CITY_SCHEMA}]
ERRORS = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    503: anthropic.InternalServerError,
}


class AnthropicTest(GatewayTest):
    """Every promise, for both kinds of upstream."""

    def setUp(self):
        self.client = Anthropic(base_url=self.gateway.url, api_key=KEY, max_retries=0, timeout=30)
        self.addCleanup(self.client.close)

    def ask(self, model, messages=None, **options):
        """A message."""
        return self.client.messages.create(model=model, messages=messages or HELLO, max_tokens=100, **options)

    @each_vendor
    def test_chat(self, vendor):
        answer = self.ask(f"{vendor}/chat", system="Be brief.")
        self.assertEqual([(block.type, block.text) for block in answer.content], [("text", GREETING)])
        self.assertEqual((answer.stop_reason, answer.role, answer.type), ("end_turn", "assistant", "message"))
        usage = answer.usage
        self.assertEqual((usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens), (17, 4, 9))
        self.assertEqual(self.upstream.last["model"], "chat")
        if vendor == "openai":
            self.assertEqual(self.upstream.last["messages"][0], {"role": "system", "content": "Be brief."})

    @each_vendor
    def test_streaming(self, vendor):
        kinds, text = [], ""
        for event in self.ask(f"{vendor}/chat", stream=True):
            kinds.append(event.type)
            if event.type == "content_block_delta":
                text += event.delta.text
        self.assertEqual(text, GREETING)
        self.assertEqual((kinds[0], kinds[-1]), ("message_start", "message_stop"))

    @each_vendor
    def test_the_sdks_own_stream_helper(self, vendor):
        with self.client.messages.stream(model=f"{vendor}/chat", messages=HELLO, max_tokens=100) as stream:
            self.assertEqual("".join(stream.text_stream), GREETING)
            message = stream.get_final_message()
        self.assertEqual((message.stop_reason, message.usage.output_tokens), ("end_turn", 9))

    @each_vendor
    def test_tools(self, vendor):
        answer = self.ask(f"{vendor}/tools", tools=TOOLS)
        self.check_calls(answer)
        self.check_second_turn(vendor, answer)

    @each_vendor
    def test_streamed_tools(self, vendor):
        with self.client.messages.stream(
            model=f"{vendor}/tools", messages=HELLO, tools=TOOLS, max_tokens=100
        ) as stream:
            self.check_calls(stream.get_final_message())

    def check_calls(self, message):
        """Both calls are there, with ids, and their input is whole."""
        self.assertEqual(message.stop_reason, "tool_use")
        calls = [block for block in message.content if block.type == "tool_use"]
        self.assertEqual([(call.name, call.input) for call in calls], [("weather", input) for input in CALLS.values()])
        self.assertEqual(len({call.id for call in calls if call.id}), 2)

    def check_second_turn(self, vendor, message):
        """The results go back, and reach the vendor in its own dialect."""
        calls = [block for block in message.content if block.type == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": call.input["city"]} for call in calls]
        turns = HELLO + [
            {"role": "assistant", "content": [block.to_dict() for block in message.content]},
            {"role": "user", "content": results},
        ]
        answer = self.ask(f"{vendor}/after-tools", turns, tools=TOOLS)
        self.assertEqual(answer.content[0].text, WEATHER)
        sent = self.upstream.last["messages"]
        if vendor == "openai":
            self.assertEqual([(turn["role"], turn["content"]) for turn in sent[-2:]], [("tool", "Oslo"), ("tool", "Cairo")])
            wanted = [call["id"] for call in sent[-3]["tool_calls"]]
            self.assertEqual([turn["tool_call_id"] for turn in sent[-2:]], wanted)
        else:
            self.assertEqual(sent[-1]["content"], results)

    @each_vendor
    def test_images(self, vendor):
        base64 = {"type": "base64", "media_type": "image/png", "data": RED_DOT}
        for source in (base64, {"type": "url", "url": IMAGE_URL}):
            content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
            answer = self.ask(f"{vendor}/image", [{"role": "user", "content": content}])
            self.assertEqual(answer.content[0].text, "A red dot.")
            sent = self.upstream.last["messages"][0]["content"][0]
            if vendor == "anthropic":
                self.assertEqual(sent["source"], source)
            else:
                url = source.get("url") or f"data:image/png;base64,{RED_DOT}"
                self.assertEqual(sent["image_url"]["url"], url)

    @each_vendor
    def test_thinking(self, vendor):
        kinds = [block.type for block in self.ask(f"{vendor}/thinking").content]
        self.assertEqual(kinds, ["thinking", "text"])
        with self.client.messages.stream(model=f"{vendor}/thinking", messages=HELLO, max_tokens=100) as stream:
            thought, text = stream.get_final_message().content
        self.assertEqual((thought.thinking, text.text), ("Two plus two.", "Four."))
        if vendor == "anthropic":
            self.assertEqual(thought.signature, "c2VhbA==")

    @each_vendor
    def test_errors_raise_their_class(self, vendor):
        for status, expected in ERRORS.items():
            for stream in (False, True):
                with self.subTest(status=status, stream=stream), self.assertRaises(expected) as raised:
                    self.ask(f"{vendor}/error-{status}", stream=stream)
                self.assertEqual(raised.exception.body["type"], "error")

    @each_vendor
    def test_an_error_in_the_middle_of_a_stream_raises(self, vendor):
        with self.assertRaises(anthropic.APIError):
            list(self.ask(f"{vendor}/error-midstream", stream=True))

    @each_vendor
    def test_a_stream_that_is_cut_raises(self, vendor):
        for ending in ("cut", "closed"):
            with self.subTest(ending=ending), self.assertRaises(anthropic.APIError):
                list(self.ask(f"{vendor}/{ending}-chat", stream=True))

    def test_models(self):
        self.assertLessEqual({"listed-one", "listed-two", "listed-three"}, {model.id for model in self.client.models.list()})

    def test_count_tokens(self):
        answer = self.client.messages.count_tokens(model="anthropic/chat", messages=HELLO)
        self.assertEqual(answer.input_tokens, 21)

    def test_count_tokens_where_the_vendor_does_not_count(self):
        asked = len(self.upstream.requests)
        short = self.client.messages.count_tokens(model="openai/chat", messages=HELLO).input_tokens
        long = [{"role": "user", "content": "Hello there, how are you? " * 100}]
        long = self.client.messages.count_tokens(model="openai/chat", messages=long).input_tokens
        self.assertTrue(0 < short < 50 < long, f"{short} and {long} are no estimates")
        self.assertEqual(len(self.upstream.requests), asked)

    def test_a_wrong_key_is_refused(self):
        with Anthropic(base_url=self.gateway.url, api_key="wrong", max_retries=0) as client:
            with self.assertRaises(anthropic.AuthenticationError):
                client.models.list()

    def test_a_model_that_nobody_serves(self):
        with self.assertRaises(anthropic.NotFoundError) as raised:
            self.ask("no-such-model")
        self.assertIn("no-such-model", str(raised.exception))
