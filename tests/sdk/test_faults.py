# SPDX-License-Identifier: Apache-2.0
"""What callers see of vendors that fail, judged by the official SDKs: another target before the first byte, and after it an
error, never an end that looks like one."""

import itertools
import json
import time

import anthropic
import openai

from callers import each
from faulty import FAULTS, FIRST_BYTE_MS, IDLE_MS
from gateway import FAMILIES, base, vendor
from judged import JudgedTest
from scripted import USAGE

TEXT = "Warm, mostly."
# Who asks before whom: every dialect before its own family, and the two most used ones before others.
PAIRS = [(dialect, dialect) for dialect in FAMILIES]
PAIRS += [("openai-chat", "anthropic-messages"), ("anthropic-messages", "openai-chat"), ("openai-responses", "openai-chat")]
# Faults before the first byte of an answer, whole or streamed, that another target makes good.
BEFORE = ("429-wait", "429-lasting", "500-once", "503", "401", "reset", "silent", "context", "malformed-first", "slow-token")
# Faults in the middle of an answer.
WITHIN = ("cut-fin", "cut-rst", "cut-closed", "stall", "malformed", "unterminated")
TIMEOUTS = f"""
[timeouts]
connect_ms = 1000
first_byte_ms = {FIRST_BYTE_MS}
first_word_ms = {FIRST_BYTE_MS}
idle_ms = {IDLE_MS}
"""
PRICE = """
[prices."{vendor}/*"]
input = 2
output = 10
"""


def policy(upstream, key, folder):
    """Three vendors of each family. `<family>.<fault>` is a name for one that fails so, with a healthy one behind it;
    `chain.<family>` for one that is down, one that wants no prefill, and a healthy one; `poor.<family>` for the first two."""
    text = base(key, folder) + TIMEOUTS
    for family, like in FAMILIES.items():
        text += "".join(vendor(name, like, upstream) for name in (like, f"{like}-second", f"{like}-third"))
        for fault in FAULTS:
            text += alias(f"{family}.{fault}", (like, fault), (f"{like}-second", "well"))
        chain = [(like, "503~chain"), (f"{like}-second", "prefill"), (f"{like}-third", "well")]
        text += alias(f"chain.{family}", *chain) + alias(f"poor.{family}", *chain[:2])
        text += alias(f"limited.{family}", (like, "429-lasting~a"), (f"{like}-second", "503~b"))
    return text + PRICE.format(vendor="openai") + PRICE.format(vendor="openai-second")


def alias(name, *targets):
    """A name for these models of vendors."""
    targets = ", ".join(f'{{ vendor = "{vendor}", model = "{model}" }}' for vendor, model in targets)
    return f'[models."{name}"]\ntargets = [{targets}]\n'


class FaultsTest(JudgedTest):
    """Faults, with and without another target."""

    faults = FAULTS
    policy = staticmethod(policy)
    numbers = itertools.count()

    def alone(self, family, fault):
        """A name for the only target that fails so, new each time."""
        return f"{FAMILIES[family]}/{fault}~{next(self.numbers)}"

    def each(self, faults, streams, check, pairs=PAIRS):
        """Checks every pair, fault and way to ask; the pairs at the same time, since most of them wait."""
        each(self, [(*pair, fault, stream) for fault in faults for stream in streams for pair in pairs], check)

    def raises(self, caller, model, stream):
        """The error that an SDK raises. That of Cohere tells one in a stream in the place of a finish."""
        if caller.dialect == "cohere-v2" and stream:
            try:
                self.assertEqual(caller.ask(model, stream).finish, "ERROR")
            except caller.error as error:
                return error
            return None
        with self.assertRaises(caller.error) as raised:
            caller.ask(model, stream)
        return raised.exception

    def asked(self, model):
        """How often a model was asked for; the vendor's part of a name is left away."""
        return self.vendors.models().count(model.split("/")[-1])

    def entry(self, model):
        """The line of the access log of the one request that ended at this model, as soon as it is there."""
        model = model.split("/")[-1]
        for _ in range(100):
            lines = [line for line in self.gateway.log().splitlines() if '"target":"access"' in line and f'"{model}"' in line]
            if lines:
                (line,) = lines
                return json.loads(line)
            time.sleep(0.05)
        return self.fail(f"no entry of {model}")

    # -- before the first byte

    def test_before_the_first_byte_another_target_answers(self):
        def check(dialect, family, fault, stream):
            began = time.monotonic()
            read = self.callers[dialect].ask(f"{family}.{fault}", stream)
            self.assertEqual((read.text, time.monotonic() - began < 5), (TEXT, True))

        self.each(BEFORE, (False, True), check)

    def test_half_of_a_whole_answer_is_answered_by_another_target(self):
        def check(dialect, family, fault, stream):
            self.assertEqual(self.callers[dialect].ask(f"{family}.{fault}", stream).text, TEXT)

        self.each(WITHIN, [False], check)

    def test_a_vendor_that_is_only_slow_is_waited_for(self):
        def check(dialect, family, fault, stream):
            self.assertEqual(self.callers[dialect].ask(self.alone(family, fault), stream).text, TEXT)

        self.each(["slow"], (False, True), check, PAIRS[:1])

    def test_who_asks_for_a_little_patience_is_asked_again_when_nobody_else_is_left(self):
        def check(dialect, family, fault, stream):
            model = self.alone(family, fault)
            self.assertEqual(self.callers[dialect].ask(model, stream).text, TEXT)
            self.assertEqual(self.asked(model), 2)

        self.each(["429-wait", "500-once"], (False, True), check, PAIRS[:3])

    def test_who_asks_for_much_patience_is_left_alone_and_the_caller_told(self):
        for dialect in ("openai-chat", "anthropic-messages"):
            model = self.alone(dialect, "429-lasting")
            error = self.raises(self.callers[dialect], model, False)
            self.assertIsInstance(error, (openai.RateLimitError, anthropic.RateLimitError))
            headers = error.response.headers
            self.assertEqual((headers["retry-after"], headers.get("x-should-retry")), ("30", None))
            self.assertEqual(self.asked(model), 1)
            error = self.raises(self.callers[dialect], f"limited.{dialect}", False)
            headers = error.response.headers
            self.assertEqual((error.status_code, headers["retry-after"], headers["x-should-retry"]), (503, "30", "false"))

    def test_who_is_down_is_asked_twice_and_the_caller_told_not_to_do_so(self):
        for dialect in ("openai-chat", "anthropic-messages"):
            for fault, status in (("503", 503), ("reset", 502)):
                model = self.alone(dialect, fault)
                error = self.raises(self.callers[dialect], model, True)
                self.assertEqual((error.status_code, error.response.headers["x-should-retry"]), (status, "false"))
                self.assertEqual(self.asked(model), 2)

    # -- what is nobody's fault but the caller's

    def test_what_the_caller_has_done_wrong_is_told_as_it_is_and_opens_nothing(self):
        for fault, words in (("400", "temperature"), ("filter", "content filtering policy")):
            for dialect in ("openai-chat", "anthropic-messages"):
                for _ in range(8):
                    error = self.raises(self.callers[dialect], f"{dialect}.{fault}", False)
                    self.assertIsInstance(error, (openai.BadRequestError, anthropic.BadRequestError))
                    self.assertIn(words, str(error))
                    self.assertEqual(error.response.headers["penstock-target"], f"{FAMILIES[dialect]}/{fault}")

    def test_a_context_that_is_too_long_for_all_is_told_in_the_words_that_callers_know(self):
        error = self.raises(self.callers["openai-chat"], self.alone("anthropic-messages", "context"), False)
        self.assertEqual(error.code, "context_length_exceeded")
        error = self.raises(self.callers["anthropic-messages"], self.alone("openai-chat", "context"), False)
        self.assertIn("prompt is too long", str(error))

    def test_a_stand_in_that_refuses_a_prefill_is_passed_over(self):
        for dialect in ("openai-chat", "anthropic-messages", "bedrock-converse", "gemini", "cohere-v2"):
            with self.subTest(caller=dialect):
                self.assertEqual(self.callers[dialect].ask(f"chain.{dialect}", False).text, TEXT)
        for dialect in ("openai-chat", "anthropic-messages"):
            error = self.raises(self.callers[dialect], f"poor.{dialect}", False)
            self.assertEqual(error.response.headers["x-should-retry"], "false")
            self.assertGreaterEqual(error.status_code, 400)

    def test_a_target_that_comes_and_goes_costs_no_caller_an_answer_and_is_left_alone(self):
        caller = self.callers["openai-chat"]
        read = [caller.ask("openai-chat.flapping", False).text for _ in range(60)]
        self.assertEqual(read, [TEXT] * 60)
        self.assertLess(self.asked("flapping"), 45)

    # -- after the first byte

    def test_a_stream_that_breaks_raises_and_is_accounted(self):
        def check(dialect, family, fault, stream):
            model = self.alone(family, fault)
            self.raises(self.callers[dialect], model, stream)
            entry = self.entry(model)
            self.assertEqual((entry["ending"], entry["attempts"]), ("broken", 1))
            self.assertTrue(entry["input_tokens"] > 0 and entry["output_tokens"] > 0, entry)

        self.each(WITHIN, [True], check)

    def test_half_of_a_whole_answer_raises_and_is_not_charged(self):
        def check(dialect, family, fault, stream):
            model = self.alone(family, fault)
            self.raises(self.callers[dialect], model, stream)
            entry = self.entry(model)
            self.assertEqual((entry["status"] >= 500, entry["input_tokens"], entry["output_tokens"]), (True, 0, 0))

        self.each(WITHIN, [False], check)

    # -- accounting

    def test_who_has_answered_is_accounted_once_and_who_has_failed_is_not(self):
        caller, before = self.callers["openai-chat"], len(self.entries("well"))
        for fault in ("503", "reset", "cut-fin"):
            caller.ask(f"openai-chat.{fault}", False)
        entries = self.entries("well")[before:]
        self.assertEqual([entry["attempts"] for entry in entries], [2, 2, 2])
        for entry in entries:
            self.assertEqual((entry["vendor"], entry["input_tokens"], entry["output_tokens"]), ("openai-second", *USAGE))
            self.assertAlmostEqual(entry["cost_usd"], (USAGE[0] * 2 + USAGE[1] * 10) / 1e6)
        self.assertEqual(self.entries("503"), [])

    def entries(self, model):
        """All entries of a model."""
        time.sleep(0.3)
        lines = [json.loads(line) for line in self.gateway.log().splitlines() if '"target":"access"' in line]
        return [line for line in lines if line["model"] == model]
