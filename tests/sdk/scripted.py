# SPDX-License-Identifier: Apache-2.0
"""A vendor of each family that thinks, seals its thoughts and calls tools over three turns, in its own wire language.

What it says is the same everywhere (`TURNS`). How it says it, and how its own words look when they come back in the history of
the next request, is in one class for each family: `said` reads that history into the words of `TURNS`, from the very places
where this vendor demands them.
"""

import base64
import json

from wire import MEDIA_TYPES, event_stream, sse

# Seals that a careless hand would change: both base64 alphabets, padding, a text that looks like JSON.
SEALS = ("EqQBCkYIBRgC+/++/v/6++++c2VhbCBvbmU=", "CiQB++///nNlYWwy")
HIDDEN = "RVhQQU5ERUQrL1JFREFDVEVE"
TURNS = (
    {"thought": "Oslo comes first.", "seal": SEALS[0], "text": "", "calls": [{"city": "Oslo"}]},
    {
        "thought": "Now the others.\n\nBoth at once: 你好.",
        "seal": SEALS[1],
        "hidden": HIDDEN,
        "text": "Oslo is done. ",
        "calls": [{"city": "Cairo"}, {"city": "Lima", "unit": "C"}],
    },
    {"thought": "", "seal": "", "text": "Warm, mostly.", "calls": []},
)
USAGE = (31, 17)


class Script:
    """What the families have in common."""

    # The vendor in the policies, and a model whose name makes a codec ask for thinking as this family wants it.
    vendor = model = ""
    # Whether the family has thoughts that only the vendor can read, beside those that it seals.
    hides = False
    stream_type = MEDIA_TYPES["sse"]

    def __init__(self, name):
        self.name = f"{self.model}-{name}"

    @property
    def asked_as(self):
        """The name that a caller asks for."""
        return f"{self.vendor}/{self.name}"

    def __call__(self, asked):
        turn = len(self.history(asked.json))
        body = self.stream(turn, TURNS[turn]) if asked.streaming else self.whole(turn, TURNS[turn])
        if asked.streaming:
            return self.stream_type, body
        return MEDIA_TYPES["json"], json.dumps(body).encode()

    def words(self, turn):
        """What must come back of a turn; `said` answers with the same members."""
        said = {name: TURNS[turn][name] for name in ("thought", "seal", "text", "calls")}
        return said | {"hidden": TURNS[turn].get("hidden", "")} if self.hides else said

    def said(self, request):
        """The turns in the history of a request."""
        return [self.read(turn) for turn in self.history(request)]

    def ids(self, turn):
        """Ids of the calls of a turn, as this family forms them."""
        return [f"call_{turn}_{number}" for number in range(len(TURNS[turn]["calls"]))]


class Anthropic(Script):
    """`thinking` with a `signature`, `redacted_thinking` with `data`."""

    vendor, model, hides = "anthropic", "claude-sonnet-4-5", True

    def content(self, turn, words):
        """The blocks of an answer."""
        blocks = []
        if words["seal"]:
            blocks.append({"type": "thinking", "thinking": words["thought"], "signature": words["seal"]})
        if words.get("hidden"):
            blocks.append({"type": "redacted_thinking", "data": words["hidden"]})
        if words["text"]:
            blocks.append({"type": "text", "text": words["text"]})
        calls = zip(self.ids(turn), words["calls"])
        return blocks + [{"type": "tool_use", "id": id, "name": "weather", "input": input} for id, input in calls]

    def whole(self, turn, words):
        """An answer."""
        reason = "tool_use" if words["calls"] else "end_turn"
        usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}
        answer = {"id": f"msg_{turn}", "type": "message", "role": "assistant", "model": self.model, "stop_sequence": None}
        return answer | {"content": self.content(turn, words), "stop_reason": reason, "usage": usage}

    def stream(self, turn, words):
        """A stream."""
        answer = self.whole(turn, words)
        events = [{"type": "message_start", "message": answer | {"content": [], "stop_reason": None}}]
        for index, block in enumerate(answer["content"]):
            start, deltas = self.pieces(block)
            events.append({"type": "content_block_start", "index": index, "content_block": start})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        end = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
        return sse(events + [{"type": "message_delta", "delta": end, "usage": answer["usage"]}, {"type": "message_stop"}])

    @staticmethod
    def pieces(block):
        """How a block begins, and what follows."""
        match block["type"]:
            case "thinking":
                start = {"type": "thinking", "thinking": "", "signature": ""}
                thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in halves(block["thinking"])]
                return start, [*thoughts, {"type": "signature_delta", "signature": block["signature"]}]
            case "text":
                return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in halves(block["text"])]
            case "tool_use":
                inputs = halves(json.dumps(block["input"]))
                return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in inputs]
        return block, []

    def history(self, request):
        """The contents of the turns of the model."""
        return [message["content"] for message in request["messages"] if message["role"] == "assistant"]

    def read(self, content):
        """The words of a turn."""
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        thoughts = [block for block in blocks if block["type"] == "thinking"]
        order = [block["type"] for block in blocks]
        assert order == sorted(order, key=["thinking", "redacted_thinking", "text", "tool_use"].index), order
        return {
            "thought": "".join(block["thinking"] for block in thoughts),
            "seal": "".join(block["signature"] for block in thoughts),
            "text": "".join(block["text"] for block in blocks if block["type"] == "text"),
            "calls": [block["input"] for block in blocks if block["type"] == "tool_use"],
            "hidden": "".join(block["data"] for block in blocks if block["type"] == "redacted_thinking"),
        }


class Bedrock(Script):
    """`reasoningContent` with `reasoningText` and its `signature`, or with `redactedContent`. Claude may be asked in its own
    words, too, by `invoke`; streams of these hold its events in frames."""

    vendor, model, hides = "bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", True
    stream_type = MEDIA_TYPES["aws-eventstream"]

    def __call__(self, asked):
        if "/invoke" not in asked.path:
            return super().__call__(asked)
        media_type, body = Anthropic("")(asked)
        if not asked.streaming:
            return media_type, body
        events = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
        return self.stream_type, event_stream([("chunk", {"bytes": base64.b64encode(it).decode()}) for it in events])

    def said(self, request):
        """The turns in the history of a request."""
        return Anthropic("").said(request) if "anthropic_version" in request else super().said(request)

    def content(self, turn, words):
        """The blocks of an answer."""
        blocks = []
        if words["seal"]:
            thought = {"text": words["thought"], "signature": words["seal"]}
            blocks.append({"reasoningContent": {"reasoningText": thought}})
        if words.get("hidden"):
            blocks.append({"reasoningContent": {"redactedContent": words["hidden"]}})
        if words["text"]:
            blocks.append({"text": words["text"]})
        calls = zip(self.ids(turn), words["calls"])
        return blocks + [{"toolUse": {"toolUseId": id, "name": "weather", "input": input}} for id, input in calls]

    def whole(self, turn, words):
        """An answer."""
        usage = {"inputTokens": USAGE[0], "outputTokens": USAGE[1], "totalTokens": sum(USAGE)}
        message = {"role": "assistant", "content": self.content(turn, words)}
        reason = "tool_use" if words["calls"] else "end_turn"
        return {"output": {"message": message}, "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 7}}

    def stream(self, turn, words):
        """A stream."""
        answer = self.whole(turn, words)
        events = [("messageStart", {"role": "assistant"})]
        for index, block in enumerate(answer["output"]["message"]["content"]):
            start, deltas = self.pieces(block)
            if start:
                events.append(("contentBlockStart", {"contentBlockIndex": index, "start": start}))
            events += [("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}) for delta in deltas]
            events.append(("contentBlockStop", {"contentBlockIndex": index}))
        events.append(("messageStop", {"stopReason": answer["stopReason"]}))
        return event_stream(events + [("metadata", {"usage": answer["usage"], "metrics": answer["metrics"]})])

    @staticmethod
    def pieces(block):
        """How a block begins, if it is said, and what follows."""
        if call := block.get("toolUse"):
            inputs = halves(json.dumps(call["input"]))
            start = {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}
            return start, [{"toolUse": {"input": piece}} for piece in inputs]
        if "text" in block:
            return None, [{"text": piece} for piece in halves(block["text"])]
        thought = block["reasoningContent"].get("reasoningText")
        if thought is None:
            return None, [block]
        deltas = [{"text": piece} for piece in halves(thought["text"])] + [{"signature": thought["signature"]}]
        return None, [{"reasoningContent": delta} for delta in deltas]

    def history(self, request):
        """The contents of the turns of the model."""
        return [message["content"] for message in request["messages"] if message["role"] == "assistant"]

    def read(self, content):
        """The words of a turn."""
        reasoning = [block["reasoningContent"] for block in content if "reasoningContent" in block]
        thoughts = [thought["reasoningText"] for thought in reasoning if "reasoningText" in thought]
        return {
            "thought": "".join(thought["text"] for thought in thoughts),
            "seal": "".join(thought["signature"] for thought in thoughts),
            "text": "".join(block.get("text", "") for block in content),
            "calls": [block["toolUse"]["input"] for block in content if "toolUse" in block],
            "hidden": "".join(thought.get("redactedContent", "") for thought in reasoning),
        }


class Gemini(Script):
    """`thoughtSignature` on the first function call of a turn. Thoughts themselves need not come back."""

    vendor, model = "gemini", "gemini-3-pro-preview"

    def whole(self, turn, words):
        """An answer."""
        return self.chunk(turn, self.parts(words), "STOP")

    def parts(self, words):
        """The parts of an answer."""
        parts = [{"text": words["thought"], "thought": True}] if words["thought"] else []
        parts += [{"text": words["text"]}] if words["text"] else []
        calls = [{"functionCall": {"name": "weather", "args": input}} for input in words["calls"]]
        if calls:
            calls[0]["thoughtSignature"] = words["seal"]
        return parts + calls

    def chunk(self, turn, parts, finish=None):
        """An answer with these parts."""
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        usage = {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1], "totalTokenCount": sum(USAGE)}
        answer = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": self.model}
        return answer | {"responseId": f"answer-{turn}"}

    def stream(self, turn, words):
        """A stream: a part in each chunk, and the end in one of its own."""
        chunks = [self.chunk(turn, [part]) for part in self.parts(words)]
        return sse([*chunks, self.chunk(turn, [{"text": ""}], "STOP")], named=False)

    def words(self, turn):
        """What must come back of a turn."""
        return {name: TURNS[turn][name] for name in ("seal", "text", "calls")}

    def history(self, request):
        """The contents of the turns of the model."""
        return [content["parts"] for content in request["contents"] if content.get("role") == "model"]

    def read(self, parts):
        """The words of a turn. The seal must be on the first call; SDKs of this dialect write another base64 alphabet."""
        calls = [part for part in parts if "functionCall" in part]
        seal = calls[0].get("thoughtSignature", "") if calls else ""
        assert not any("thoughtSignature" in part for part in parts if part not in calls[:1]), parts
        visible = [part for part in parts if not part.get("thought")]
        return {
            "seal": base64.b64encode(base64.urlsafe_b64decode(seal.replace("+", "-").replace("/", "_"))).decode(),
            "text": "".join(part.get("text", "") for part in visible),
            "calls": [call["functionCall"]["args"] for call in calls],
        }


class Responses(Script):
    """Items of type `reasoning` with `encrypted_content`, before the calls that they led to."""

    vendor, model = "responses", "gpt-5"

    def items(self, turn, words):
        """The items of an answer."""
        items = []
        if words["seal"]:
            summary = [{"type": "summary_text", "text": text} for text in words["thought"].split("\n\n")]
            items.append({"type": "reasoning", "id": f"rs_{turn}", "summary": summary, "encrypted_content": words["seal"]})
        if words["text"]:
            part = {"type": "output_text", "text": words["text"], "annotations": []}
            message = {"type": "message", "id": f"msg_{turn}", "role": "assistant", "status": "completed"}
            items.append(message | {"content": [part]})
        for id, input in zip(self.ids(turn), words["calls"]):
            call = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": "weather", "status": "completed"}
            items.append(call | {"arguments": json.dumps(input)})
        return items

    def whole(self, turn, words, status="completed"):
        """An answer."""
        usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1], "total_tokens": sum(USAGE)}
        usage["input_tokens_details"], usage["output_tokens_details"] = {"cached_tokens": 0}, {"reasoning_tokens": 5}
        answer = {"id": f"resp_{turn}", "object": "response", "created_at": 1, "status": status, "model": self.model}
        answer |= {"error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "tools": []}
        answer |= {"parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto"}
        return answer | {"output": self.items(turn, words), "usage": usage}

    def stream(self, turn, words):
        """A stream."""
        answer = self.whole(turn, words)
        begun = answer | {"status": "in_progress", "output": [], "usage": None}
        events = [{"type": "response.created", "response": begun}]
        for index, item in enumerate(answer["output"]):
            events += [event | {"output_index": index} for event in self.pieces(item)]
        events.append({"type": "response.completed", "response": answer})
        return sse([event | {"sequence_number": number} for number, event in enumerate(events)])

    @staticmethod
    def pieces(item):
        """The events of an item."""
        start, id = dict(item), item["id"]
        match item["type"]:
            case "reasoning":
                start |= {"summary": [], "encrypted_content": ""}
                between = []
                for index, part in enumerate(item["summary"]):
                    place = {"item_id": id, "summary_index": index}
                    empty = {"type": "summary_text", "text": ""}
                    name = "response.reasoning_summary"
                    between.append({"type": f"{name}_part.added", "part": empty} | place)
                    between += [{"type": f"{name}_text.delta", "delta": piece} | place for piece in halves(part["text"])]
                    between.append({"type": f"{name}_text.done", "text": part["text"]} | place)
                    between.append({"type": f"{name}_part.done", "part": part} | place)
            case "message":
                start |= {"content": [], "status": "in_progress"}
                place, part = {"item_id": id, "content_index": 0}, item["content"][0]
                between = [{"type": "response.content_part.added", "part": part | {"text": ""}} | place]
                deltas = halves(part["text"])
                between += [{"type": "response.output_text.delta", "delta": it, "logprobs": []} | place for it in deltas]
                between.append({"type": "response.output_text.done", "text": part["text"], "logprobs": []} | place)
                between.append({"type": "response.content_part.done", "part": part} | place)
            case _:
                start |= {"arguments": "", "status": "in_progress"}
                name, place = "response.function_call_arguments", {"item_id": id}
                between = [{"type": f"{name}.delta", "delta": piece} | place for piece in halves(item["arguments"])]
                done = {"type": f"{name}.done", "arguments": item["arguments"], "name": item["name"]}
                between.append(done | place)
        added, done = "response.output_item.added", "response.output_item.done"
        return [{"type": added, "item": start}, *between, {"type": done, "item": item}]

    def history(self, request):
        """The items of the turns of the model: what stands between the results of tools."""
        turns = [[]]
        for item in request["input"]:
            own = item.get("type") in ("reasoning", "function_call") or item.get("role") == "assistant"
            if own:
                turns[-1].append(item)
            elif turns[-1]:
                turns.append([])
        return [turn for turn in turns if turn]

    def read(self, items):
        """The words of a turn."""
        thoughts = [item for item in items if item.get("type") == "reasoning"]
        kinds = [item.get("type") for item in items]
        assert not thoughts or kinds[0] == "reasoning", kinds
        text = ""
        for item in items:
            content = item.get("content") if item.get("role") == "assistant" else None
            text += content if isinstance(content, str) else "".join(part["text"] for part in content or [])
        return {
            "thought": "\n\n".join(part["text"] for item in thoughts for part in item["summary"]),
            "seal": "".join(item["encrypted_content"] for item in thoughts),
            "text": text,
            "calls": [json.loads(item["arguments"]) for item in items if item.get("type") == "function_call"],
        }


class Chat(Script):
    """Chat Completions, with what has a place there by itself: `reasoning_content`, which DeepSeek demands back."""

    vendor, model = "openai", "deepseek-reasoner"

    def thoughts(self, words):
        """The members of a message that hold thoughts, and the deltas that hold them in a stream."""
        deltas = [{"reasoning_content": piece} for piece in halves(words["thought"])]
        return ({"reasoning_content": words["thought"]} if words["thought"] else {}), deltas

    def calls(self, turn, words):
        """The calls of a message."""
        function = [{"name": "weather", "arguments": json.dumps(input)} for input in words["calls"]]
        pairs = enumerate(zip(self.ids(turn), function))
        return [{"index": at, "id": id, "type": "function", "function": function} for at, (id, function) in pairs]

    def answer(self, turn, kind, choice):
        """An answer or a chunk with this choice."""
        usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
        answer = {"id": f"gen-{turn}", "object": kind, "created": 1, "model": self.model, "choices": [choice]}
        return answer | ({"usage": usage} if choice["finish_reason"] else {})

    def whole(self, turn, words):
        """An answer."""
        message = {"role": "assistant", "content": words["text"] or None} | self.thoughts(words)[0]
        if calls := self.calls(turn, words):
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        return self.answer(turn, "chat.completion", choice)

    def stream(self, turn, words):
        """A stream."""
        deltas = [{"role": "assistant"}, *self.thoughts(words)[1]]
        deltas += [{"content": piece} for piece in halves(words["text"])]
        for call in self.calls(turn, words):
            pieces = halves(call["function"]["arguments"])
            deltas.append({"tool_calls": [call | {"function": call["function"] | {"arguments": ""}}]})
            deltas += [{"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]} for piece in pieces]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls" if words["calls"] else "stop"})
        return sse([self.answer(turn, "chat.completion.chunk", it) for it in choices], named=False, done=True)

    def words(self, turn):
        """What must come back of a turn."""
        return {name: TURNS[turn][name] for name in ("thought", "text", "calls")}

    def history(self, request):
        """The messages of the model."""
        return [message for message in request["messages"] if message["role"] == "assistant"]

    def read(self, message):
        """The words of a turn."""
        content = message.get("content") or ""
        return {
            "thought": message.get("reasoning_content") or "",
            "text": content if isinstance(content, str) else "".join(part["text"] for part in content),
            "calls": [json.loads(call["function"]["arguments"]) for call in message.get("tool_calls") or []],
        }


class ExtraContent(Chat):
    """Chat Completions at Google: the seal is in `extra_content` of the first call of a turn."""

    model = "gemini-3-pro-preview"

    def thoughts(self, words):
        """Thoughts are not told."""
        return {}, []

    def calls(self, turn, words):
        """The calls of a message, the first one with the seal."""
        calls = super().calls(turn, words)
        for call in calls[:1]:
            call["extra_content"] = {"google": {"thought_signature": words["seal"]}}
        return calls

    def words(self, turn):
        """What must come back of a turn."""
        return {name: TURNS[turn][name] for name in ("seal", "text", "calls")}

    def read(self, message):
        """The words of a turn; the seal must be on the first call and on no other."""
        calls = message.get("tool_calls") or []
        assert not any("extra_content" in call for call in calls[1:]), calls
        seal = calls[0].get("extra_content", {}).get("google", {}).get("thought_signature", "") if calls else ""
        said = super().read(message)
        return {"seal": seal, "text": said["text"], "calls": said["calls"]}


class ReasoningDetails(Chat):
    """Chat Completions with `reasoning_details`, as OpenRouter and others have them: a list that comes back as it is."""

    vendor, model, hides = "router", "anthropic/claude-sonnet-4.5", True
    # Whether each piece of a detail repeats its format, as OpenRouter does.
    repeats = True

    def thoughts(self, words):
        """Text in pieces and its seal behind them; what is hidden at once."""
        if not words["seal"]:
            return {}, []
        head = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
        later = head if self.repeats else {"type": "reasoning.text", "index": 0}
        pieces = halves(words["thought"])
        details = [(head if at == 0 else later) | {"text": piece} for at, piece in enumerate(pieces)]
        deltas = [{"reasoning": it["text"], "reasoning_details": [it]} for it in details]
        deltas.append({"reasoning_details": [later | {"signature": words["seal"]}]})
        items = [head | {"text": words["thought"], "signature": words["seal"]}]
        if words.get("hidden"):
            hidden = {"type": "reasoning.encrypted", "data": words["hidden"], "id": "rs_1", "index": 1}
            items.append(hidden | {"format": "openai-responses-v1"})
            deltas.append({"reasoning_details": items[1:]})
        return {"reasoning": words["thought"], "reasoning_details": items}, deltas

    def words(self, turn):
        """What must come back of a turn."""
        return Script.words(self, turn)

    def read(self, message):
        """The words of a turn; the items must be whole."""
        items = message.get("reasoning_details") or []
        thoughts = [item for item in items if item["type"] == "reasoning.text"]
        hidden = [item for item in items if item["type"] == "reasoning.encrypted"]
        assert all(item["format"] == "anthropic-claude-v1" for item in thoughts), items
        assert all((item["format"], item["id"]) == ("openai-responses-v1", "rs_1") for item in hidden), items
        return super().read(message) | {
            "thought": "".join(item["text"] for item in thoughts),
            "seal": "".join(item["signature"] for item in thoughts),
            "hidden": "".join(item["data"] for item in hidden),
        }


class Cohere(Script):
    """`tool_plan`; this family seals nothing."""

    vendor, model = "cohere", "command-a-reasoning"

    def whole(self, turn, words):
        """An answer."""
        message = {"role": "assistant"}
        if words["calls"]:
            function = lambda input: {"name": "weather", "arguments": json.dumps(input)}  # noqa: E731
            calls = zip(self.ids(turn), words["calls"])
            message["tool_calls"] = [{"id": id, "type": "function", "function": function(input)} for id, input in calls]
            message["tool_plan"] = words["thought"]
        else:
            message["content"] = [{"type": "text", "text": words["text"]}]
        tokens = {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}
        reason = "TOOL_CALL" if words["calls"] else "COMPLETE"
        usage = {"billed_units": tokens, "tokens": tokens}
        return {"id": f"answer-{turn}", "message": message, "finish_reason": reason, "usage": usage}

    def stream(self, turn, words):
        """A stream."""
        answer = self.whole(turn, words)
        message = answer["message"]
        start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        events = [{"type": "message-start", "id": answer["id"], "delta": {"message": start}}]
        for piece in halves(message.get("tool_plan", "")):
            events.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}})
        for index, part in enumerate(message.get("content", [])):
            content = lambda text: {"delta": {"message": {"content": text}}, "index": index}  # noqa: E731, B023
            events.append({"type": "content-start"} | content({"type": "text", "text": ""}))
            events += [{"type": "content-delta"} | content({"text": piece}) for piece in halves(part["text"])]
            events.append({"type": "content-end", "index": index})
        for index, call in enumerate(message.get("tool_calls", [])):
            calls = lambda call: {"delta": {"message": {"tool_calls": call}}, "index": index}  # noqa: E731, B023
            text = call["function"]["arguments"]
            events.append({"type": "tool-call-start"} | calls(call | {"function": call["function"] | {"arguments": ""}}))
            events += [{"type": "tool-call-delta"} | calls({"function": {"arguments": it}}) for it in halves(text)]
            events.append({"type": "tool-call-end", "index": index})
        end = {"finish_reason": answer["finish_reason"], "usage": answer["usage"]}
        return sse([*events, {"type": "message-end", "delta": end}], done=True)

    def words(self, turn):
        """What must come back of a turn."""
        return {name: TURNS[turn][name] for name in ("thought", "calls")}

    def history(self, request):
        """The messages of the model."""
        return [message for message in request["messages"] if message["role"] == "assistant"]

    def read(self, message):
        """The words of a turn."""
        calls = [json.loads(call["function"]["arguments"]) for call in message.get("tool_calls") or []]
        return {"thought": message.get("tool_plan") or "", "calls": calls}


def halves(text):
    """Two pieces of a text; none of an empty one."""
    middle = len(text) // 2
    return [piece for piece in (text[:middle], text[middle:]) if piece]


# By family; what vendors of Chat Completions have added to it are families of their own here.
SCRIPTS = {
    "openai-chat": Chat,
    "openai-chat with reasoning_details": ReasoningDetails,
    "openai-chat with extra_content": ExtraContent,
    "openai-responses": Responses,
    "anthropic-messages": Anthropic,
    "gemini": Gemini,
    "cohere-v2": Cohere,
    "bedrock-converse": Bedrock,
}
