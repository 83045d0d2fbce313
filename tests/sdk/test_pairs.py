# SPDX-License-Identifier: Apache-2.0
"""Every dialect of callers before every family of vendors: 36 pairs. The vendor answers as it was recorded; what the official
SDK of the caller's dialect makes of it is what was recorded."""

import unittest

import recordings
from callers import CALLERS, CallersTest
from gateway import FAMILIES
from reading import differences
from replay import recorded_name

HERE = recordings.folder() is not None
if not HERE:
    recordings.tell_skipped("the 36 pairs")


@unittest.skipUnless(HERE, "no recorded exchanges beside the repository")
class PairsTest(CallersTest):
    """One test for each pair; `_pairs` adds them."""

    def check(self, dialect, family):
        """Every chosen recording of a family, read by the SDK of a dialect."""
        caller = self.callers[dialect]
        cases = recordings.chosen(family)
        self.assertTrue(cases, f"nothing recorded of {family}")
        for case in cases:
            with self.subTest(case=case.name, stream=case.stream):
                model = f"{FAMILIES[family]}/{recorded_name(case.name)}"
                if case.expected["error"]:
                    self.check_error(caller, model, case)
                    continue
                read = caller.ask(model, case.stream)
                self.assertEqual(differences(dialect, read, case.expected, dialect == family), [])

    def check_error(self, caller, model, case):
        """An error in the place of an answer is one in every dialect. That of Cohere tells it in the place of a finish."""
        if caller.dialect == "cohere-v2" and case.stream:
            self.assertEqual(caller.ask(model, case.stream).finish, "ERROR")
            return
        with self.assertRaises(caller.error):
            caller.ask(model, case.stream)

    def test_every_recorded_error_raises_in_every_sdk(self):
        for family, vendor in FAMILIES.items():
            for case in recordings.errors_of(family):
                for caller in self.callers.values():
                    with self.subTest(sdk=caller.dialect, case=case.name):
                        with self.assertRaises(caller.error) as raised:
                            caller.ask(f"{vendor}/{recorded_name(case.name)}", case.stream)
                        if caller.dialect != family:
                            self.check_words(raised.exception, case)

    def check_words(self, error, case):
        """What the vendor says is wrong; not what it says of the key, since that is ours and none of the caller's."""
        stated = case.expected["error"]
        message = stated.get("message") if isinstance(stated, dict) else stated
        if isinstance(message, str) and case.status not in (401, 403):
            self.assertIn(message.strip()[:60], str(error))


def _pairs():
    for caller in CALLERS:
        for family in FAMILIES:
            name = f"test_{caller.dialect}_before_{family}".replace("-", "_")

            def test(self, dialect=caller.dialect, family=family):
                self.check(dialect, family)

            test.__name__ = name
            setattr(PairsTest, name, test)


_pairs()
