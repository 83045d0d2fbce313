# SPDX-License-Identifier: Apache-2.0
"""What an SDK has read of an answer, in the words of the recordings, and how the two are compared."""

import json
from dataclasses import dataclass, field


@dataclass
class Reading:
    """What an SDK has parsed. A count that the dialect has no place for is not in `usage`."""

    text: str = ""
    reasoning: str = ""
    # What Cohere's models say before they call, which no other dialect has a place for.
    plan: str = ""
    calls: list = field(default_factory=list)
    finish: str | None = None
    usage: dict = field(default_factory=dict)


def arguments(text):
    """Arguments of a call as a value; a vendor may leave them away."""
    return json.loads(text) if text and text.strip() else {}


# The finish reason that each dialect has for what the recordings call it. Gemini has one word for both ends, and Cohere
# tells an error in the place of a finish.
FINISH = {
    "openai-chat": {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"},
    "openai-responses": {
        "stop": "completed",
        "length": "incomplete/max_output_tokens",
        "tool_calls": "completed",
        "content_filter": "incomplete/content_filter",
    },
    "anthropic-messages": {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
        "pause": "pause_turn",
    },
    "gemini": {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"},
    "cohere-v2": {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL", "error": "ERROR"},
    "bedrock-converse": {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "content_filtered",
    },
}
# Dialects that must say "calls" of an answer with calls, whatever the vendor said: their SDKs go by that word.
SAYS_CALLS = ("anthropic-messages", "bedrock-converse", "cohere-v2")


def differences(dialect, read, expected, relayed):
    """What an SDK has read otherwise than was recorded, as text; empty if nothing."""
    found = []

    def differ(what, got, wanted):
        if got != wanted:
            found.append(f"{what}: read {got!r}, recorded {wanted!r}")

    calls, read_calls = [(call["name"], call["arguments"]) for call in expected["tool_calls"]], read.calls
    if not relayed and any(name is None for name, _ in calls):
        # Gemini's `partialArgs`, which nobody has put together in the recording: the names are all that it tells.
        calls, read_calls = [name for name, _ in calls if name], [name for name, _ in read.calls]
    differ("text", read.text, expected["text"] or "")
    differ("reasoning", read.reasoning, expected["reasoning"] or "")
    if relayed:
        differ("plan", read.plan, expected.get("tool_plan") or "")
    differ("calls", read_calls, calls)
    differ("finish", read.finish, wanted_finish(dialect, expected, relayed))
    for name, wanted in wanted_usage(expected, relayed).items():
        if name in read.usage:
            differ(f"usage.{name}", read.usage[name] or 0, wanted)
    return found


def wanted_finish(dialect, expected, relayed):
    """The finish reason that was recorded, in the words of the caller's dialect."""
    finish = expected["finish"]
    if relayed and dialect == "openai-chat":
        return expected["finish_native"]  # also words that are the vendor's own (`eos`)
    if expected["tool_calls"] and finish == "stop" and dialect in SAYS_CALLS and not relayed:
        finish = "tool_calls"
    return FINISH[dialect].get(finish, f"no word for {finish}")


def wanted_usage(expected, relayed):
    """The counts that were recorded, under our names. Two vendors count a part of the input beside the sum that was
    recorded; callers of other dialects, which have one sum, are told the whole."""
    stated = expected["usage"] or {}
    total, cached = stated.get("input_total"), stated.get("input_cached") or 0
    if total is not None:
        if cached > total and not relayed:
            total += cached  # Grok at Azure: its cache
        tokens = expected["usage_native"].get("tokens") or {}
        total += tokens.get("image_tokens") or 0  # Cohere: pictures, which its SDK is asked for, too
    output, reasoning = stated.get("output_total"), stated.get("reasoning")
    if relayed and "EXCLUDES reasoning" in stated.get("rule", ""):
        output -= reasoning  # xAI, in its own words
    if reasoning and not relayed:
        reasoning = min(reasoning, output)  # gateways that state more reasoning than output
    counts = {"input": total, "output": output, "cached": stated.get("input_cached"), "reasoning": reasoning}
    return {name: count for name, count in counts.items() if count is not None}
