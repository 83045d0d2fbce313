# SPDX-License-Identifier: Apache-2.0
"""One gateway before one server of faults, and every SDK that judges what comes through."""

import unittest

from callers import CALLERS
from faulty import Faulty
from gateway import Gateway
from support import KEY


class JudgedTest(unittest.TestCase):
    """Whoever derives from this names the faults, and the policy as `Gateway` wants it."""

    maxDiff = None
    faults = None
    policy = None

    @classmethod
    def setUpClass(cls):
        cls.vendors = Faulty(cls.faults)
        cls.gateway = Gateway(cls.vendors.url, KEY, families=cls.policy)
        cls.callers = {caller.dialect: caller(cls.gateway) for caller in CALLERS}

    @classmethod
    def tearDownClass(cls):
        for caller in cls.callers.values():
            caller.close()
        cls.gateway.close()
        cls.vendors.close()
