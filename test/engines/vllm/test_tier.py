# SPDX-License-Identifier: Apache-2.0
"""WeftTier alone, as vLLM's tiering manager calls it."""
import unittest

import weft
from node import Node
from tiers import ROW, job, name, offloading_config, outcome, request, spec_of
from vllm.v1.kv_offload.base import LookupResult

from weft.connectors.vllm_tier import WeftTier


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.addClassCleanup(cls.node.close)

    def tier(self, rows=16, settings=None, **what):
        memory = bytearray(rows * ROW)
        view = memoryview(memory).cast("B", (rows, ROW))
        made = WeftTier(spec_of(offloading_config(**what)), view, "WeftTier",
                        socket=self.node.socket, weights=self.id(), **(settings or {}))
        self.addCleanup(view.release)
        self.addCleanup(made.shutdown)
        made.memory = memory
        return made

    def fill(self, tier, row, seed):
        data = bytes((seed * 31 + i * 7) % 251 for i in range(ROW))
        tier.memory[row * ROW:(row + 1) * ROW] = data
        return data

    def store(self, tier, keys, rows, context=None):
        made = job(keys, rows, False, context or request(keys))
        tier.submit_store(made)
        return outcome(tier, made.job_id)

    def load(self, tier, keys, rows, context=None):
        made = job(keys, rows, True, context or request(keys))
        tier.submit_load(made)
        return outcome(tier, made.job_id)

    def row(self, tier, row):
        return bytes(tier.memory[row * ROW:(row + 1) * ROW])


class Bytes(Case):
    def test_rows_come_back(self):
        tier, keys = self.tier(), [name(i) for i in range(1, 5)]
        context = request(keys)
        self.assertIs(tier.lookup(keys[0], context), LookupResult.MISS)
        data = [self.fill(tier, i, i) for i in range(4)]
        result = self.store(tier, keys, range(4), context)
        self.assertTrue(result.success)
        self.assertEqual(result.transfer_bytes, 4 * ROW)
        self.assertEqual([tier.lookup(key, context) for key in keys], [LookupResult.HIT] * 4)
        self.assertTrue(self.load(tier, keys[::-1], [9, 8, 7, 6]).success)
        self.assertEqual([self.row(tier, i) for i in (6, 7, 8, 9)], data)


if __name__ == "__main__":
    unittest.main()
