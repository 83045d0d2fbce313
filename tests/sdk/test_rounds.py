# SPDX-License-Identifier: Apache-2.0
"""Three turns with thinking and tools, for every dialect before every family of vendors: what the vendor has sealed comes back
to it unchanged and in its place, though the caller only sends back what its SDK gave it."""

import json

from callers import CallersTest
from scripted import SCRIPTS, TURNS
from talks import TALKS


class RoundsTest(CallersTest):
    """One test for each pair; `_pairs` adds them."""

    def check(self, dialect, family):
        """The whole conversation, whole and streamed."""
        for stream in (False, True):
            with self.subTest(stream=stream):
                # Short, since codecs tell by the words in a name what a model can do.
                script = SCRIPTS[family](f"{list(TALKS).index(dialect)}{'s' if stream else 'w'}")
                # The SDK joins what is repeated in pieces, and what is relayed comes in the vendor's pieces.
                script.repeats = not family.startswith(dialect)
                self.upstream.scripts[script.name] = script
                talk = TALKS[dialect](self.callers[dialect].client, script.asked_as, stream)
                calls = talk.ask()
                self.check_asked(script, dialect, family)
                for turn in range(2):
                    self.assertEqual([input for _, input in calls], TURNS[turn]["calls"])
                    calls = talk.answer([(id, json.dumps(input)) for id, input in calls])
                    said = script.said(self.upstream.last)
                    self.assertEqual(said, [script.words(past) for past in range(turn + 1)])
                self.assertEqual((calls, talk.text), ([], TURNS[2]["text"]))

    def check_asked(self, script, dialect, family):
        """The vendor is asked for what it would not seal otherwise."""
        self.assertEqual(script.name, self.upstream.requests[-1].model)
        if family == "openai-responses":
            self.assertIn("reasoning.encrypted_content", self.upstream.last["include"])


def _pairs():
    for dialect in TALKS:
        for family in SCRIPTS:
            name = f"test_{dialect}_before_{family}".replace("-", "_").replace(" ", "_")

            def test(self, dialect=dialect, family=family):
                self.check(dialect, family)

            test.__name__ = name
            setattr(RoundsTest, name, test)


_pairs()
