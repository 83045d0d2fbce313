# SPDX-License-Identifier: Apache-2.0
"""One official SDK for each dialect, asked for the same thing and read into the same words."""

import os
from concurrent.futures import ThreadPoolExecutor

import anthropic
import boto3
import botocore.config
import botocore.exceptions
import cohere
import cohere.core.api_error
import google.genai
import google.genai.errors
import httpx
import openai

from reading import Reading, arguments
from support import CITY_SCHEMA, KEY, GatewayTest

QUESTION = "How is the weather in Oslo?"
MAX_TOKENS = 4096
THINKING_TOKENS = 2048
# Requests at a time where many are made.
AT_A_TIME = 6
ABOUT = "Weather of a city"
FUNCTION = {"name": "weather", "description": ABOUT, "parameters": CITY_SCHEMA}


class Chat:
    """Chat Completions, by `openai`."""

    dialect = "openai-chat"
    error = openai.APIError

    def __init__(self, gateway):
        self.client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=60)
        self.close = self.client.close

    def ask(self, model, stream):
        """The answer to the question, read."""
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        answer = self.client.chat.completions.create(
            model=model,
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
            tools=[{"type": "function", "function": FUNCTION}],
            reasoning_effort="low",
            max_completion_tokens=MAX_TOKENS,
            **options,
        )
        return self.streamed(answer) if stream else self.whole(answer)

    def whole(self, answer):
        """Reads an answer."""
        choice, calls = answer.choices[0], {}
        read = Reading(finish=choice.finish_reason, usage=self.usage(answer.usage))
        self.message(choice.message, read, calls)
        read.calls = [(name, arguments(text)) for name, text in calls.values()]
        return read

    def streamed(self, chunks):
        """Reads a stream."""
        read, calls = Reading(), {}
        for chunk in chunks:
            if chunk.usage:
                read.usage = self.usage(chunk.usage)
            for choice in chunk.choices or []:
                if choice.index == 0:
                    self.message(choice.delta, read, calls)
                    read.finish = choice.finish_reason or read.finish
        read.calls = [(name, arguments(text)) for name, text in calls.values()]
        return read

    @staticmethod
    def message(message, read, calls):
        """Adds a message or a piece of one. Vendors have two names for reasoning, and content may be a list of parts."""
        content = message.content or ""
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for part in parts:
            if part["type"] == "text":
                read.text += part["text"] or ""
            for thought in part.get("thinking") or []:
                read.reasoning += thought.get("text") or ""
        read.reasoning += getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
        for place, call in enumerate(message.tool_calls or []):
            index = getattr(call, "index", None)
            known = calls.setdefault(place if index is None else index, ["", ""])
            known[0] += call.function.name or ""
            known[1] += call.function.arguments or ""

    @staticmethod
    def usage(usage):
        """Reads the counts."""
        if usage is None:
            return {}
        read = {"input": usage.prompt_tokens, "output": usage.completion_tokens}
        if usage.prompt_tokens_details:
            read["cached"] = usage.prompt_tokens_details.cached_tokens
        if usage.completion_tokens_details:
            read["reasoning"] = usage.completion_tokens_details.reasoning_tokens
        return read


class Responses:
    """Responses, by `openai`."""

    dialect = "openai-responses"
    error = openai.APIError

    def __init__(self, gateway):
        self.client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=60)
        self.close = self.client.close

    def ask(self, model, stream):
        """The answer to the question, read."""
        answer = self.client.responses.create(
            model=model,
            instructions="Be brief.",
            input=QUESTION,
            tools=[{"type": "function", "strict": False} | FUNCTION],
            reasoning={"effort": "low", "summary": "auto"},
            max_output_tokens=MAX_TOKENS,
            stream=stream,
        )
        return self.streamed(answer) if stream else self.whole(answer)

    def whole(self, answer):
        """Reads an answer."""
        return self.items(answer.output, answer)

    def streamed(self, events):
        """Reads a stream: items as they were done, and the end. The pieces must add up to the whole."""
        items, text, pieces, end = [], "", {}, None
        for event in events:
            if event.type == "response.output_item.done":
                items.append(event.item)
            elif event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.function_call_arguments.delta":
                pieces[event.output_index] = pieces.get(event.output_index, "") + event.delta
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                end = event.response
            elif event.type == "error":
                raise openai.APIError(event.message, request=None, body=None)
        if end.error:
            raise openai.APIError(end.error.message, request=None, body=None)
        read = self.items(items, end)
        # A vendor may send a text whole, without pieces.
        assert text in ("", read.text), f"pieces say {text!r}, items {read.text!r}"
        assert not pieces or [arguments(piece) for piece in pieces.values()] == [call for _, call in read.calls]
        return read

    @staticmethod
    def items(items, answer):
        """Reads items, and of the answer how it ended."""
        read = Reading(finish=answer.status)
        if answer.incomplete_details:
            read.finish += f"/{answer.incomplete_details.reason}"
        for item in items:
            if item.type == "message":
                read.text += "".join(part.text for part in item.content if part.type == "output_text")
            elif item.type == "function_call":
                read.calls.append((item.name, arguments(item.arguments)))
            elif item.type == "reasoning":
                read.reasoning += "".join(part.text for part in [*(item.summary or []), *(item.content or [])])
        if usage := answer.usage:
            read.usage = {"input": usage.input_tokens, "output": usage.output_tokens}
            if usage.input_tokens_details:
                read.usage["cached"] = usage.input_tokens_details.cached_tokens
            if usage.output_tokens_details:
                read.usage["reasoning"] = usage.output_tokens_details.reasoning_tokens
        return read


class Messages:
    """Messages, by `anthropic`."""

    dialect = "anthropic-messages"
    error = anthropic.APIError

    def __init__(self, gateway):
        self.client = anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=60)
        self.close = self.client.close

    def ask(self, model, stream):
        """The answer to the question, read."""
        options = {
            "model": model,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": QUESTION}],
            "tools": [{"name": "weather", "description": ABOUT, "input_schema": CITY_SCHEMA}],
            "thinking": {"type": "enabled", "budget_tokens": THINKING_TOKENS},
            "max_tokens": MAX_TOKENS,
        }
        if not stream:
            return self.whole(self.client.messages.create(**options))
        with self.client.messages.stream(**options) as events:
            return self.whole(events.get_final_message())

    @staticmethod
    def whole(answer):
        """Reads a message."""
        usage = answer.usage
        cached = usage.cache_read_input_tokens or 0
        read = Reading(finish=answer.stop_reason)
        read.usage = {
            "input": usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0),
            "output": usage.output_tokens,
            "cached": cached,
        }
        if usage.output_tokens_details:
            read.usage["reasoning"] = usage.output_tokens_details.thinking_tokens
        for block in answer.content:
            if block.type == "text":
                read.text += block.text
            elif block.type == "thinking":
                read.reasoning += block.thinking
            elif block.type == "tool_use":
                read.calls.append((block.name, block.input))
        return read


class Gemini:
    """generateContent, by `google-genai`."""

    dialect = "gemini"
    error = google.genai.errors.APIError

    def __init__(self, gateway):
        options = google.genai.types.HttpOptions(base_url=gateway.url, api_version="v1beta", timeout=60_000)
        self.client = google.genai.Client(api_key=KEY, http_options=options)
        self.close = self.client.close

    def ask(self, model, stream):
        """The answer to the question, read."""
        types = google.genai.types
        function = types.FunctionDeclaration(name="weather", description=ABOUT, parameters_json_schema=CITY_SCHEMA)
        config = types.GenerateContentConfig(
            system_instruction="Be brief.",
            tools=[types.Tool(function_declarations=[function])],
            thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=THINKING_TOKENS),
            max_output_tokens=MAX_TOKENS,
        )
        models = self.client.models
        if stream:
            return self.read(models.generate_content_stream(model=model, contents=QUESTION, config=config))
        return self.read([models.generate_content(model=model, contents=QUESTION, config=config)])

    @staticmethod
    def read(chunks):
        """Reads a stream, or an answer as a stream of one chunk."""
        read = Reading()
        for chunk in chunks:
            if usage := chunk.usage_metadata:
                count = lambda name: getattr(usage, name) or 0  # noqa: E731
                read.usage = {
                    "input": count("prompt_token_count") + count("tool_use_prompt_token_count"),
                    "output": count("candidates_token_count") + count("thoughts_token_count"),
                    "cached": count("cached_content_token_count"),
                    "reasoning": count("thoughts_token_count"),
                }
            for candidate in (chunk.candidates or [])[:1]:
                for part in (candidate.content and candidate.content.parts) or []:
                    if part.function_call:
                        read.calls.append((part.function_call.name, part.function_call.args or {}))
                    elif part.thought:
                        read.reasoning += part.text or ""
                    else:
                        read.text += part.text or ""
                if candidate.finish_reason:
                    read.finish = candidate.finish_reason.value
        return read


class Cohere:
    """Chat of the second API, by `cohere`."""

    dialect = "cohere-v2"
    error = cohere.core.api_error.ApiError

    def __init__(self, gateway):
        http = httpx.Client(timeout=60)
        self.client = cohere.ClientV2(api_key=KEY, base_url=gateway.url, httpx_client=http)
        self.close = http.close

    def ask(self, model, stream):
        """The answer to the question, read."""
        options = {
            "model": model,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
            "tools": [{"type": "function", "function": FUNCTION}],
            "thinking": {"type": "enabled", "token_budget": THINKING_TOKENS},
            "max_tokens": MAX_TOKENS,
            "request_options": {"max_retries": 0},
        }
        return self.streamed(self.client.chat_stream(**options)) if stream else self.whole(self.client.chat(**options))

    def whole(self, answer):
        """Reads an answer."""
        message = answer.message
        read = Reading(plan=message.tool_plan or "", finish=answer.finish_reason, usage=self.usage(answer.usage))
        for part in message.content or []:
            read.text += getattr(part, "text", None) or ""
            read.reasoning += getattr(part, "thinking", None) or ""
        read.calls = [(call.function.name, arguments(call.function.arguments)) for call in message.tool_calls or []]
        return read

    def streamed(self, events):
        """Reads a stream."""
        read, calls = Reading(), {}
        for event in events:
            message = getattr(getattr(event, "delta", None), "message", None)
            if event.type in ("content-start", "content-delta"):
                read.text += getattr(message.content, "text", None) or ""
                read.reasoning += getattr(message.content, "thinking", None) or ""
            elif event.type == "tool-plan-delta":
                read.plan += message.tool_plan or ""
            elif event.type == "tool-call-start":
                function = message.tool_calls.function
                calls[event.index] = [function.name, function.arguments or ""]
            elif event.type == "tool-call-delta":
                calls[event.index][1] += message.tool_calls.function.arguments or ""
            elif event.type == "message-end":
                read.finish, read.usage = event.delta.finish_reason, self.usage(event.delta.usage)
        read.calls = [(name, arguments(text)) for name, text in calls.values()]
        return read

    @staticmethod
    def usage(usage):
        """Reads the counts: what the model saw, not what is charged."""
        if usage is None or usage.tokens is None:
            return {}
        tokens = usage.tokens
        # Pictures are counted beside the other input here.
        total = tokens.input_tokens + (getattr(tokens, "image_tokens", None) or 0)
        read = {"input": total, "output": tokens.output_tokens, "cached": usage.cached_tokens}
        if (reasoning := getattr(tokens, "reasoning_tokens", None)) is not None:
            read["reasoning"] = reasoning
        return read


class Bedrock:
    """Converse, by `boto3`, with an API key."""

    dialect = "bedrock-converse"
    # An error before and one within a stream.
    error = (botocore.exceptions.ClientError, botocore.exceptions.EventStreamError)

    def __init__(self, gateway):
        # The one way to give it an API key, which it sends over TLS only.
        os.environ["AWS_BEARER_TOKEN_BEDROCK"] = KEY
        config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=60)
        where = {"endpoint_url": gateway.tls_url, "verify": str(gateway.authority), "region_name": "us-east-1"}
        self.client = boto3.client("bedrock-runtime", config=config, **where)
        self.close = self.client.close

    def ask(self, model, stream):
        """The answer to the question, read."""
        tool = {"name": "weather", "description": ABOUT, "inputSchema": {"json": CITY_SCHEMA}}
        options = {
            "modelId": model,
            "system": [{"text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"text": QUESTION}]}],
            "toolConfig": {"tools": [{"toolSpec": tool}]},
            "inferenceConfig": {"maxTokens": MAX_TOKENS},
            "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": THINKING_TOKENS}},
        }
        if stream:
            return self.streamed(self.client.converse_stream(**options)["stream"])
        return self.whole(self.client.converse(**options))

    def whole(self, answer):
        """Reads an answer."""
        read = Reading(finish=answer["stopReason"], usage=self.usage(answer["usage"]))
        for block in answer["output"]["message"]["content"]:
            read.text += block.get("text", "")
            for part in block.get("citationsContent", {}).get("content", []):
                read.text += part["text"]
            read.reasoning += block.get("reasoningContent", {}).get("reasoningText", {}).get("text", "")
            if call := block.get("toolUse"):
                read.calls.append((call["name"], call["input"]))
        return read

    def streamed(self, events):
        """Reads a stream."""
        read, calls = Reading(), {}
        for event in events:
            if start := event.get("contentBlockStart"):
                if call := start["start"].get("toolUse"):
                    calls[start["contentBlockIndex"]] = [call["name"], ""]
            elif piece := event.get("contentBlockDelta"):
                delta = piece["delta"]
                read.text += delta.get("text", "")
                read.reasoning += delta.get("reasoningContent", {}).get("text", "")
                if "toolUse" in delta:
                    calls[piece["contentBlockIndex"]][1] += delta["toolUse"]["input"]
            elif stop := event.get("messageStop"):
                read.finish = stop["stopReason"]
            elif metadata := event.get("metadata"):
                read.usage = self.usage(metadata["usage"])
        read.calls = [(name, arguments(text)) for name, text in calls.values()]
        return read

    @staticmethod
    def usage(usage):
        """Reads the counts; this dialect does not tell thinking apart."""
        cached = usage.get("cacheReadInputTokens", 0)
        total = usage["inputTokens"] + cached + usage.get("cacheWriteInputTokens", 0)
        return {"input": total, "output": usage["outputTokens"], "cached": cached}


CALLERS = (Chat, Responses, Messages, Gemini, Cohere, Bedrock)


class CallersTest(GatewayTest):
    """A test that has one caller for each dialect, as `callers`."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.callers = {caller.dialect: caller(cls.gateway) for caller in CALLERS}

    @classmethod
    def tearDownClass(cls):
        for caller in cls.callers.values():
            caller.close()
        super().tearDownClass()


def each(test, cases, check):
    """Checks every case, a few at a time, and reports each that fails. A case begins with
    the dialects of a caller and of a vendor."""

    def run(case):
        try:
            check(*case)
        except Exception as error:  # whatever it is, it belongs to this case
            return error
        return None

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for case, error in zip(cases, pool.map(run, cases)):
            with test.subTest(case=case):
                if error:
                    raise error
