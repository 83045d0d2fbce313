# SPDX-License-Identifier: Apache-2.0
"""Conversations with tools over several turns, as the users of each SDK hold them: what came is sent back as it came.

A talk says something (`ask`) and hands over results of tools (`answer`); both return the calls that the model makes then, as
(id, arguments). Nothing here knows what a vendor needs to have back.
"""

import cohere
import google.genai

from callers import ABOUT, FUNCTION, MAX_TOKENS, QUESTION, THINKING_TOKENS
from reading import arguments
from support import CITY_SCHEMA


class Talk:
    """What the SDKs have in common."""

    def __init__(self, client, model, stream):
        self.client, self.model, self.stream = client, model, stream
        self.history = []
        self.text = ""


class Chat(Talk):
    """`openai`, Chat Completions: the message goes back as it is."""

    def ask(self):
        """Says the question."""
        self.history.append({"role": "user", "content": QUESTION})
        return self.send()

    def answer(self, results):
        """Hands over results."""
        self.history += [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results]
        return self.send()

    def send(self):
        """Sends the history and takes the answer into it."""
        options = {
            "model": self.model,
            "messages": self.history,
            "tools": [{"type": "function", "function": FUNCTION}],
            "reasoning_effort": "low",
            "max_completion_tokens": MAX_TOKENS,
        }
        if self.stream:
            with self.client.chat.completions.stream(**options) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = self.client.chat.completions.create(**options).choices[0].message
        self.history.append(message.to_dict())
        self.text = message.content
        return [(call.id, arguments(call.function.arguments)) for call in message.tool_calls or []]


class Responses(Talk):
    """`openai`, Responses: the items of the output go back. Nothing is stored at the vendor's."""

    def ask(self):
        """Says the question."""
        self.history.append({"role": "user", "content": QUESTION})
        return self.send()

    def answer(self, results):
        """Hands over results."""
        self.history += [{"type": "function_call_output", "call_id": id, "output": text} for id, text in results]
        return self.send()

    def send(self):
        """Sends the history and takes the answer into it."""
        options = {
            "model": self.model,
            "input": self.history,
            "tools": [{"type": "function", "strict": False} | FUNCTION],
            "reasoning": {"effort": "low", "summary": "auto"},
            "max_output_tokens": MAX_TOKENS,
            "store": False,
            "include": ["reasoning.encrypted_content"],
        }
        if self.stream:
            with self.client.responses.stream(**options) as stream:
                answer = stream.get_final_response()
        else:
            answer = self.client.responses.create(**options)
        # The helper adds what it has parsed, which the API does not take back.
        self.history += [item.to_dict(exclude_unset=True) for item in answer.output]
        for item in self.history:
            item.pop("parsed_arguments", None)
            for part in item.get("content") or []:
                if isinstance(part, dict):
                    part.pop("parsed", None)
        self.text = answer.output_text
        return [(item.call_id, arguments(item.arguments)) for item in answer.output if item.type == "function_call"]


class Messages(Talk):
    """`anthropic`: the blocks go back."""

    def ask(self):
        """Says the question."""
        self.history.append({"role": "user", "content": QUESTION})
        return self.send()

    def answer(self, results):
        """Hands over results."""
        content = [{"type": "tool_result", "tool_use_id": id, "content": text} for id, text in results]
        self.history.append({"role": "user", "content": content})
        return self.send()

    def send(self):
        """Sends the history and takes the answer into it."""
        options = {
            "model": self.model,
            "messages": self.history,
            "tools": [{"name": "weather", "description": ABOUT, "input_schema": CITY_SCHEMA}],
            "thinking": {"type": "enabled", "budget_tokens": THINKING_TOKENS},
            "max_tokens": MAX_TOKENS,
        }
        if self.stream:
            with self.client.messages.stream(**options) as stream:
                message = stream.get_final_message()
        else:
            message = self.client.messages.create(**options)
        self.history.append({"role": "assistant", "content": message.content})
        self.text = "".join(block.text for block in message.content if block.type == "text")
        return [(block.id, block.input) for block in message.content if block.type == "tool_use"]


class Gemini(Talk):
    """`google-genai`: the content of the candidate goes back; of a stream, all its parts in one content."""

    types = google.genai.types

    def ask(self):
        """Says the question."""
        self.history.append(self.types.Content(role="user", parts=[self.types.Part(text=QUESTION)]))
        return self.send()

    def answer(self, results):
        """Hands over results. Ids are optional in this dialect; where there is one, it belongs to the result."""
        function = self.types.FunctionResponse
        answers = [function(id=id, name="weather", response={"result": text}) for id, text in results]
        parts = [self.types.Part(function_response=answer) for answer in answers]
        self.history.append(self.types.Content(role="user", parts=parts))
        return self.send()

    def send(self):
        """Sends the history and takes the answer into it."""
        function = self.types.FunctionDeclaration(name="weather", description=ABOUT, parameters_json_schema=CITY_SCHEMA)
        config = self.types.GenerateContentConfig(
            tools=[self.types.Tool(function_declarations=[function])],
            thinking_config=self.types.ThinkingConfig(include_thoughts=True),
            max_output_tokens=MAX_TOKENS,
        )
        options = {"model": self.model, "contents": self.history, "config": config}
        if self.stream:
            chunks = list(self.client.models.generate_content_stream(**options))
            contents = [chunk.candidates[0].content for chunk in chunks if chunk.candidates]
            parts = [part for content in contents if content for part in content.parts or []]
            content = self.types.Content(role="model", parts=parts)
        else:
            content = self.client.models.generate_content(**options).candidates[0].content
        self.history.append(content)
        self.text = "".join(part.text for part in content.parts if part.text and not part.thought)
        calls = [part.function_call for part in content.parts if part.function_call]
        return [(call.id, call.args) for call in calls]


class Cohere(Talk):
    """`cohere`: the message goes back; of a stream, what its events add up to."""

    def ask(self):
        """Says the question."""
        self.history.append({"role": "user", "content": QUESTION})
        return self.send()

    def answer(self, results):
        """Hands over results."""
        for id, text in results:
            content = [{"type": "document", "document": {"data": {"result": text}}}]
            self.history.append({"role": "tool", "tool_call_id": id, "content": content})
        return self.send()

    def send(self):
        """Sends the history and takes the answer into it."""
        options = {
            "model": self.model,
            "messages": self.history,
            "tools": [{"type": "function", "function": FUNCTION}],
            "thinking": {"type": "enabled", "token_budget": THINKING_TOKENS},
            "max_tokens": MAX_TOKENS,
        }
        if self.stream:
            message = self.added_up(self.client.chat_stream(**options))
        else:
            message = self.client.chat(**options).message
        self.history.append(message)
        self.text = "".join(getattr(part, "text", None) or "" for part in message.content or [])
        return [(call.id, arguments(call.function.arguments)) for call in message.tool_calls or []]

    @staticmethod
    def added_up(events):
        """The message of a stream: members of contents and calls are joined by their index."""
        message, contents, calls = {"role": "assistant"}, {}, {}
        for event in events:
            delta = event.model_dump(exclude_none=True).get("delta") or {}
            piece = delta.get("message") or {}
            if "tool_plan" in event.type.replace("-", "_"):
                message["tool_plan"] = message.get("tool_plan", "") + piece["tool_plan"]
            elif event.type in ("content-start", "content-delta"):
                joined(contents.setdefault(event.index, {}), piece["content"])
            elif event.type in ("tool-call-start", "tool-call-delta"):
                joined(calls.setdefault(event.index, {}), piece["tool_calls"])
        if contents:
            message["content"] = list(contents.values())
        if calls:
            message["tool_calls"] = list(calls.values())
        return cohere.AssistantMessageResponse.model_validate(message)


def joined(known, more):
    """Adds texts to texts; the type of a thing stays."""
    for name, value in more.items():
        if isinstance(value, dict):
            joined(known.setdefault(name, {}), value)
        elif isinstance(value, str) and name != "type":
            known[name] = known.get(name, "") + value
        else:
            known[name] = value


class Bedrock(Talk):
    """`boto3`: the message goes back; of a stream, what its events add up to."""

    def ask(self):
        """Says the question."""
        self.history.append({"role": "user", "content": [{"text": QUESTION}]})
        return self.send()

    def answer(self, results):
        """Hands over results."""
        tool_results = [{"toolUseId": id, "content": [{"text": text}]} for id, text in results]
        self.history.append({"role": "user", "content": [{"toolResult": result} for result in tool_results]})
        return self.send()

    def send(self):
        """Sends the history and takes the answer into it."""
        tool = {"name": "weather", "description": ABOUT, "inputSchema": {"json": CITY_SCHEMA}}
        options = {
            "modelId": self.model,
            "messages": self.history,
            "toolConfig": {"tools": [{"toolSpec": tool}]},
            "inferenceConfig": {"maxTokens": MAX_TOKENS},
            "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": THINKING_TOKENS}},
        }
        if self.stream:
            message = self.added_up(self.client.converse_stream(**options)["stream"])
        else:
            message = self.client.converse(**options)["output"]["message"]
        self.history.append(message)
        self.text = "".join(block.get("text", "") for block in message["content"])
        calls = [block["toolUse"] for block in message["content"] if "toolUse" in block]
        return [(call["toolUseId"], call["input"]) for call in calls]

    @staticmethod
    def added_up(events):
        """The message of a stream."""
        blocks = {}
        for event in events:
            if start := event.get("contentBlockStart"):
                call = start["start"].get("toolUse")
                blocks[start["contentBlockIndex"]] = {"toolUse": call | {"input": ""}} if call else {}
            elif piece := event.get("contentBlockDelta"):
                block, delta = blocks.setdefault(piece["contentBlockIndex"], {}), piece["delta"]
                if "text" in delta:
                    block["text"] = block.get("text", "") + delta["text"]
                elif "toolUse" in delta:
                    block["toolUse"]["input"] += delta["toolUse"]["input"]
                elif thought := delta.get("reasoningContent"):
                    known = block.setdefault("reasoningContent", {})
                    if "redactedContent" in thought:
                        known["redactedContent"] = known.get("redactedContent", b"") + thought["redactedContent"]
                        continue
                    known = known.setdefault("reasoningText", {"text": ""})
                    for name, text in thought.items():
                        known[name] = known.get(name, "") + text
        for block in blocks.values():
            if call := block.get("toolUse"):
                call["input"] = arguments(call["input"])
        return {"role": "assistant", "content": [block for _, block in sorted(blocks.items()) if block]}


TALKS = {
    "openai-chat": Chat,
    "openai-responses": Responses,
    "anthropic-messages": Messages,
    "gemini": Gemini,
    "cohere-v2": Cohere,
    "bedrock-converse": Bedrock,
}
