# SPDX-License-Identifier: Apache-2.0
"""Recorded exchanges of real vendors, read where they lie, and which of them a run takes."""

import functools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

OPERATIONS = (
    "chat",
    "responses",
    "messages",
    "rawPredict",
    "rawPredict-stream",
    "generateContent",
    "generateContent-stream",
    "cohere-chat",
    "converse",
    "converse-stream",
)
# Recordings of one family that a run takes; `PENSTOCK_PAIRS=all` takes all.
CASES_PER_FAMILY = 120
# Recordings that are no answer to a request, and why.
NOT_TAKEN = {
    "vllm-gpustack/chat-stream-thinking-340f43": "it ends before `[DONE]`, so that it counts as cut",
    "anthropic/responseonly-anthropic-tool-search-regex-1-chunks-txt-7781": "two answers, one behind the other",
}


@dataclass(frozen=True)
class Recording:
    """A recorded answer."""

    name: str
    vendor: str
    family: str
    status: int
    stream: bool
    mix: tuple
    expected: dict


def folder():
    """The folder of recorded exchanges, or None."""
    named = os.environ.get("PENSTOCK_FIXTURES")
    root = Path(named) if named else Path(__file__).parents[2] / ".." / "shared" / "fixtures"
    if (root / "open").is_dir():
        return root / "open"
    return None


@functools.cache
def every():
    """Every recorded answer to a conversation in a dialect that has a name, errors included."""
    root, found = folder(), []
    for path in sorted(root.rglob("meta.json")):
        meta = json.loads(path.read_text())
        expected = path.parent / "expected.json"
        if meta["operation"] not in OPERATIONS or not meta.get("protocol") or not expected.exists():
            continue
        name = path.parent.relative_to(root).as_posix()
        mix = (meta["stream"], *sorted(meta.get("features") or []))
        read = json.loads(expected.read_text())
        found.append(Recording(name, meta["vendor"], meta["protocol"], meta["status"], meta["stream"], mix, read))
    return found


def all_of(family):
    """Every recorded answer in a dialect."""
    of_family = [recording for recording in every() if recording.family == family and recording.status == 200]
    return [recording for recording in of_family if recording.name not in NOT_TAKEN]


def errors_of(family):
    """Every recorded error in a dialect that came before an answer."""
    return [recording for recording in every() if recording.family == family and recording.status != 200]


def chosen(family):
    """What a run takes of them: first each mix of features once, then each mix of each vendor, up to the ceiling."""
    recorded = all_of(family)
    if os.environ.get("PENSTOCK_PAIRS") == "all":
        return recorded
    taken = {}
    for key in (lambda it: it.mix, lambda it: (it.vendor, it.mix)):
        seen = set()
        for recording in recorded:
            if key(recording) not in seen:
                seen.add(key(recording))
                taken.setdefault(recording.name, recording)
    return list(taken.values())[:CASES_PER_FAMILY]


def tell_skipped(what):
    """Says on the terminal that tests are left out, which a row of dots would not."""
    print(f"SKIPPED {what}: no recorded exchanges here (PENSTOCK_FIXTURES names their folder)", file=sys.stderr)
