# SPDX-License-Identifier: Apache-2.0
"""What the SDK tests share: one gateway and one replay server for the whole run, and what the answers should say."""

import atexit
import functools
import unittest

import recordings
from gateway import Gateway
from replay import Replay

KEY = "sk-tests-of-penstock"
GREETING = "Grüße from the replay. 你好 🙂"
WEATHER = "It is 18 °C in Oslo and 31 °C in Cairo."
# A PNG of one red pixel.
RED_DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
IMAGE_URL = "https://images.example/red-dot.png"
CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
    "required": ["city"],
}
CALLS = {"Oslo": {"city": "Oslo"}, "Cairo": {"city": "Cairo", "unit": "C"}}
VENDORS = ("openai", "anthropic")


@functools.cache
def replay():
    """The upstream."""
    server = Replay(recordings.folder())
    atexit.register(server.close)
    return server


@functools.cache
def gateway():
    """The gateway in front of it."""
    running = Gateway(replay().url, KEY)
    atexit.register(running.close)
    return running


class GatewayTest(unittest.TestCase):
    """A test that needs both running."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.upstream = replay()
        cls.gateway = gateway()


def each_vendor(test):
    """Runs a test once for each dialect that the upstream speaks, as its argument `vendor`."""

    @functools.wraps(test)
    def run(self):
        for vendor in VENDORS:
            with self.subTest(upstream=vendor):
                test(self, vendor)

    return run
