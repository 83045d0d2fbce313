# SPDX-License-Identifier: Apache-2.0
"""What callers see of vendors that fail, judged by the official SDKs: another target before the first byte, and after it an
error, never an end that looks like one."""

import re
import time
import unittest

from callers import CALLERS
from faulty import FAULTS, IDLE_MS, Faulty
from gateway import FAMILIES, Gateway, base, vendor
from support import KEY

TEXT = "Warm, mostly."
USAGE = {"input": 31, "output": 17}
# Who asks before whom: every dialect before its own family, and the two most used ones before each other.
PAIRS = [(dialect, dialect) for dialect in FAMILIES]
PAIRS += [("openai-chat", "anthropic-messages"), ("anthropic-messages", "openai-chat"), ("openai-responses", "openai-chat")]
# Faults before the first byte of an answer, whole or streamed, that another target makes good.
BEFORE = ("429-wait", "429-lasting", "500-once", "503", "401", "reset", "silent", "context", "malformed-first", "slow-token")
# Faults in the middle of a stream.
WITHIN = ("cut-fin", "cut-rst", "cut-closed", "stall", "malformed", "unterminated")


TIMEOUTS = f"""
[timeouts]
connect_ms = 500
first_byte_ms = {IDLE_MS}
idle_ms = {IDLE_MS}
"""


def policy(upstream, key, folder):
    """A vendor for each fault of each family, so that none suffers from another's faults; and a name for each with a healthy
    vendor behind it: `<family>.<fault>`."""
    text = base(key, folder) + TIMEOUTS
    for family, like in FAMILIES.items():
        text += "".join(vendor(f"{like}-{fault}", like, upstream) for fault in FAULTS)
        for fault in FAULTS:
            targets = [(f"{like}-{fault}", fault), (f"{like}-well", "well")]
            targets = ", ".join(f'{{ vendor = "{name}", model = "{model}" }}' for name, model in targets)
            text += f'[models."{family}.{fault}"]\ntargets = [{targets}]\n'
    return text


class FaultsTest(unittest.TestCase):
    """One gateway before one server of faults."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.vendors = Faulty(FAULTS)
        cls.gateway = Gateway(cls.vendors.url, KEY, families=policy)
        cls.callers = {caller.dialect: caller(cls.gateway) for caller in CALLERS}
        cls.number = 0

    @classmethod
    def tearDownClass(cls):
        for caller in cls.callers.values():
            caller.close()
        cls.gateway.close()
        cls.vendors.close()

    def alone(self, family, fault):
        """A name for the only target that fails so, new each time."""
        type(self).number += 1
        return f"{FAMILIES[family]}-{fault}/{fault}~{self.number}"

    def each(self, faults, streams, check):
        """Checks every pair, fault and way to ask."""
        for caller, family in PAIRS:
            for fault in faults:
                for stream in streams:
                    with self.subTest(caller=caller, vendor=family, fault=fault, stream=stream):
                        check(self.callers[caller], family, fault, stream)

    def entries(self, model):
        """The lines of the access log of requests that ended at this model of a vendor, as soon as there are some."""
        for _ in range(100):
            lines = [line for line in self.gateway.log().splitlines() if " access" in line and f"model={model} " in line]
            if lines:
                return [dict(re.findall(r"(\w+)=\"?([^\s\"]*)", line)) for line in lines]
            time.sleep(0.05)
        return []

    def test_before_the_first_byte_another_target_answers(self):
        def check(caller, family, fault, stream):
            began = time.monotonic()
            read = caller.ask(f"{family}.{fault}", stream)
            self.assertEqual((read.text, time.monotonic() - began < 5), (TEXT, True))

        self.each(BEFORE, (False, True), check)

    def test_half_of_a_whole_answer_is_answered_by_another_target(self):
        def check(caller, family, fault, stream):
            self.assertEqual(caller.ask(f"{family}.{fault}", stream).text, TEXT)

        self.each(WITHIN, [False], check)

    def test_a_stream_that_breaks_raises_and_is_accounted(self):
        def check(caller, family, fault, stream):
            model = self.alone(family, fault)
            with self.assertRaises(caller.error):
                caller.ask(model, stream)
            (entry,) = self.entries(model)
            self.assertEqual(entry["ending"], "broken")
            self.assertGreater(int(entry["input_tokens"]), 0, entry)
            self.assertGreater(int(entry["output_tokens"]), 0, entry)

        self.each(WITHIN, [True], check)

    def test_half_of_a_whole_answer_raises_and_is_not_charged(self):
        def check(caller, family, fault, stream):
            model = self.alone(family, fault)
            with self.assertRaises(caller.error):
                caller.ask(model, stream)
            (entry,) = self.entries(model)
            self.assertEqual((entry["input_tokens"], entry["output_tokens"]), ("0", "0"))

        self.each(WITHIN, [False], check)
