# SPDX-License-Identifier: Apache-2.0
"""The official `openai` SDK, unchanged, against upstreams of its own and of the other dialect."""

import json

import openai
from openai import OpenAI

from support import CALLS, CITY_SCHEMA, GREETING, IMAGE_URL, KEY, RED_DOT, WEATHER, GatewayTest, each_vendor

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": CITY_SCHEMA}}]
ERRORS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


class OpenAiTest(GatewayTest):
    """Every promise, for both kinds of upstream."""

    def setUp(self):
        self.client = OpenAI(base_url=f"{self.gateway.url}/v1", api_key=KEY, max_retries=0, timeout=30)
        self.addCleanup(self.client.close)

    def ask(self, model, messages=None, **options):
        """A chat completion."""
        return self.client.chat.completions.create(model=model, messages=messages or HELLO, **options)

    @each_vendor
    def test_chat(self, vendor):
        answer = self.ask(f"{vendor}/chat", max_tokens=100, temperature=0.5)
        self.assertEqual(answer.choices[0].message.content, GREETING)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertEqual((answer.usage.prompt_tokens, answer.usage.completion_tokens), (21, 9))
        self.assertEqual(answer.usage.prompt_tokens_details.cached_tokens, 4)
        self.assertEqual(self.upstream.last["model"], "chat")
        self.assertEqual(self.upstream.last["max_tokens"], 100)

    def test_the_vendor_gets_its_own_key_and_not_the_callers(self):
        for vendor, header, value in [("openai", "authorization", "Bearer replay-secret"), ("anthropic", "x-api-key", "replay-secret")]:
            with self.subTest(upstream=vendor):
                self.ask(f"{vendor}/chat", max_tokens=10)
                self.assertEqual(self.upstream.requests[-1].headers[header], value)
                self.assertNotIn(KEY, repr(self.upstream.requests[-1]))

    @each_vendor
    def test_streaming(self, vendor):
        options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 100}
        chunks = list(self.ask(f"{vendor}/chat", **options))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, GREETING)
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        self.assertEqual([reason for reason in reasons if reason], ["stop"])
        self.assertEqual(chunks[-1].usage.prompt_tokens, 21)
        self.assertEqual(chunks[-1].usage.completion_tokens, 9)
        self.assertGreater(len(chunks), 5)

    def test_a_stream_tells_no_usage_unless_asked(self):
        chunks = list(self.ask("anthropic/chat", stream=True, max_tokens=100))
        self.assertEqual([chunk.usage for chunk in chunks if chunk.usage], [])

    @each_vendor
    def test_tools(self, vendor):
        answer = self.ask(f"{vendor}/tools", tools=TOOLS, max_tokens=100)
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        self.check_calls([(call.id, call.function.name, call.function.arguments) for call in answer.choices[0].message.tool_calls])
        self.check_second_turn(vendor, answer.choices[0].message.to_dict())

    @each_vendor
    def test_streamed_tools(self, vendor):
        calls = {}
        for chunk in self.ask(f"{vendor}/tools", tools=TOOLS, stream=True, max_tokens=100):
            for piece in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.id or ""
                call["name"] += piece.function.name or ""
                call["arguments"] += piece.function.arguments or ""
        self.assertEqual(sorted(calls), [0, 1])
        self.check_calls([(call["id"], call["name"], call["arguments"]) for call in calls.values()])

    @each_vendor
    def test_the_sdks_own_stream_helper(self, vendor):
        with self.client.chat.completions.stream(
            model=f"{vendor}/tools", messages=HELLO, tools=TOOLS, max_tokens=100
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        self.check_calls([(call.id, call.function.name, call.function.arguments) for call in message.tool_calls])

    def check_calls(self, calls):
        """Both calls are there, with ids, and their arguments are whole."""
        self.assertEqual([name for _, name, _ in calls], ["weather", "weather"])
        self.assertEqual(len({id for id, _, _ in calls if id}), 2)
        self.assertEqual([json.loads(arguments) for _, _, arguments in calls], list(CALLS.values()))

    def check_second_turn(self, vendor, message):
        """The results go back, and reach the vendor in its own dialect."""
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": f"{index}"} for index, call in enumerate(message["tool_calls"])
        ]
        answer = self.ask(f"{vendor}/after-tools", HELLO + [message] + results, tools=TOOLS, max_tokens=100)
        self.assertEqual(answer.choices[0].message.content, WEATHER)
        sent = self.upstream.last["messages"]
        if vendor == "anthropic":
            self.assertEqual([block["type"] for block in sent[-1]["content"]], ["tool_result", "tool_result"])
            self.assertEqual([block["input"] for block in sent[-2]["content"]], list(CALLS.values()))
            wanted = [block["id"] for block in sent[-2]["content"]]
            self.assertEqual([block["tool_use_id"] for block in sent[-1]["content"]], wanted)
        else:
            self.assertEqual(sent[-2:], results)

    @each_vendor
    def test_images(self, vendor):
        url = f"data:image/png;base64,{RED_DOT}"
        for source in (url, IMAGE_URL):
            content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": source}}]
            answer = self.ask(f"{vendor}/image", [{"role": "user", "content": content}], max_tokens=100)
            self.assertEqual(answer.choices[0].message.content, "A red dot.")
            sent = self.upstream.last["messages"][0]["content"][1]
            if vendor == "openai":
                self.assertEqual(sent["image_url"]["url"], source)
            elif source == IMAGE_URL:
                self.assertEqual(sent["source"], {"type": "url", "url": IMAGE_URL})
            else:
                self.assertEqual(sent["source"], {"type": "base64", "media_type": "image/png", "data": RED_DOT})

    @each_vendor
    def test_reasoning(self, vendor):
        message = self.ask(f"{vendor}/thinking", max_tokens=100).choices[0].message
        self.assertEqual((message.reasoning_content, message.content), ("Two plus two.", "Four."))
        chunks = [chunk for chunk in self.ask(f"{vendor}/thinking", stream=True, max_tokens=100) if chunk.choices]
        thoughts = "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks)
        self.assertEqual(thoughts, "Two plus two.")

    @each_vendor
    def test_errors_raise_their_class(self, vendor):
        for status, expected in ERRORS.items():
            for stream in (False, True):
                with self.subTest(status=status, stream=stream), self.assertRaises(expected) as raised:
                    self.ask(f"{vendor}/error-{status}", stream=stream, max_tokens=10)
                self.assertTrue(raised.exception.message)

    @each_vendor
    def test_a_rate_limit_says_when_to_come_back(self, vendor):
        with self.assertRaises(openai.RateLimitError) as raised:
            self.ask(f"{vendor}/error-429", max_tokens=10)
        self.assertEqual(raised.exception.response.headers["retry-after"], "7")

    @each_vendor
    def test_an_error_in_the_middle_of_a_stream_raises(self, vendor):
        with self.assertRaises(openai.APIError):
            list(self.ask(f"{vendor}/error-midstream", stream=True, max_tokens=10))

    @each_vendor
    def test_a_stream_that_is_cut_raises(self, vendor):
        for ending in ("cut", "closed"):
            with self.subTest(ending=ending), self.assertRaises(openai.APIError):
                list(self.ask(f"{vendor}/{ending}-chat", stream=True, max_tokens=10))

    def test_models(self):
        models = {model.id: model.owned_by for model in self.client.models.list()}
        for name, owner in {"listed-one": "openai", "listed-two": "openai", "listed-three": "anthropic"}.items():
            self.assertEqual(models.get(name), owner, models)

    def test_embeddings(self):
        answer = self.client.embeddings.create(model="openai/embeddings", input=["a", "b"], encoding_format="float")
        self.assertEqual([item.embedding for item in answer.data], [[0.25, -0.5, 0.125], [0.0, 1.0, -1.0]])
        self.assertEqual(answer.usage.prompt_tokens, 6)

    def test_embeddings_where_the_vendor_has_none(self):
        with self.assertRaises(openai.BadRequestError) as raised:
            self.client.embeddings.create(model="anthropic/embeddings", input="a")
        self.assertIn("embeddings", raised.exception.message)

    def test_a_wrong_key_is_refused(self):
        with OpenAI(base_url=f"{self.gateway.url}/v1", api_key="wrong", max_retries=0) as client:
            with self.assertRaises(openai.AuthenticationError):
                client.models.list()

    def test_a_model_that_nobody_serves(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.ask("no-such-model")
        self.assertIn("no-such-model", raised.exception.message)

    def test_a_request_that_is_wrong(self):
        with self.assertRaises(openai.BadRequestError):
            self.client.post("/chat/completions", body={"model": "anthropic/chat", "messages": 3}, cast_to=object)
