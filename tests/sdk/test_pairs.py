# SPDX-License-Identifier: Apache-2.0
"""Every dialect of callers before every family of vendors: 36 pairs. The vendor answers as it was recorded; what the official
SDK of the caller's dialect makes of it is what was recorded."""

import unittest

import recordings
from callers import CALLERS
from gateway import FAMILIES
from reading import differences
from replay import recorded_name
from support import GatewayTest

HERE = recordings.folder() is not None
if not HERE:
    recordings.tell_skipped("the 36 pairs")


@unittest.skipUnless(HERE, "no recorded exchanges beside the repository")
class PairsTest(GatewayTest):
    """One test for each pair; `_pairs` adds them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.callers = {caller.dialect: caller(cls.gateway) for caller in CALLERS}

    @classmethod
    def tearDownClass(cls):
        for caller in cls.callers.values():
            caller.close()

    def check(self, dialect, family):
        """Every chosen recording of a family, read by the SDK of a dialect."""
        caller = self.callers[dialect]
        cases = recordings.chosen(family)
        self.assertTrue(cases, f"nothing recorded of {family}")
        for case in cases:
            with self.subTest(case=case.name, stream=case.stream):
                model = f"{FAMILIES[family]}/{recorded_name(case.name)}"
                if case.expected["error"] and dialect != family:
                    self.check_error(caller, model, case)
                    continue
                read = caller.ask(model, case.stream)
                self.assertEqual(differences(dialect, read, case.expected, dialect == family), [])

    def check_error(self, caller, model, case):
        """An error in the place of an answer is one in every dialect."""
        with self.assertRaises(caller.error):
            caller.ask(model, case.stream)


def _pairs():
    for caller in CALLERS:
        for family in FAMILIES:
            name = f"test_{caller.dialect}_before_{family}".replace("-", "_")

            def test(self, dialect=caller.dialect, family=family):
                self.check(dialect, family)

            test.__name__ = name
            setattr(PairsTest, name, test)


_pairs()
