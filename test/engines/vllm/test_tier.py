# SPDX-License-Identifier: Apache-2.0
"""WeftTier alone, as vLLM's tiering manager calls it."""
import pathlib
import tempfile
import time
import unittest
from unittest import mock

import vllm
from node import Node
from tiers import ROW, job, name, offloading_config, outcome, request, spec_of
from vllm.v1.core import kv_cache_utils
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
                        **{"socket": self.node.socket, "weights": self.id(), **(settings or {})})
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

    def test_a_part_of_a_job(self):
        """A chunk that is not there fails alone, and what was there is kept."""
        tier, keys = self.tier(), [name(i) for i in range(10, 14)]
        data = [self.fill(tier, i, i) for i in range(4)]
        self.assertTrue(self.store(tier, [keys[0], keys[2]], [0, 2], request()).success)
        before = self.row(tier, 5)
        result = self.load(tier, keys, [4, 5, 6, 7])
        self.assertFalse(result.success)
        self.assertEqual(set(result.successful_keys), {keys[0], keys[2]})
        self.assertEqual([self.row(tier, i) for i in (4, 5, 6)], [data[0], before, data[2]])
        # dynamo's bug: what failed must not be answered as there
        self.assertIs(tier.lookup(keys[1], request()), LookupResult.MISS)

    def test_more_than_a_batch(self):
        tier = self.tier(rows=1200)
        keys = [name(i) for i in range(1000, 1000 + 600)]
        data = [self.fill(tier, i, i) for i in range(600)]
        self.assertTrue(self.store(tier, keys, range(600)).success)
        self.assertTrue(self.load(tier, keys, range(600, 1200)).success)
        self.assertEqual([self.row(tier, 600 + i) for i in range(600)], data)

    def test_groups_do_not_mix(self):
        tier = self.tier(groups=2)
        self.fill(tier, 0, 1)
        self.assertTrue(self.store(tier, [name(5, 0)], [0]).success)
        self.assertIs(tier.lookup(name(5, 1), request()), LookupResult.MISS)

    def test_drain_and_shutdown_answer_every_job(self):
        tier = self.tier()
        jobs = [job([name(50 + i)], [i], False, request()) for i in range(16)]
        for each in jobs:
            tier.submit_store(each)
        self.assertTrue(tier.has_pending_work())
        tier.drain_jobs()
        self.assertEqual({r.job_id for r in tier.get_finished_jobs()}, {j.job_id for j in jobs})
        self.assertFalse(tier.has_pending_work())
        last = job([name(99)], [0], False, request())
        tier.shutdown()
        tier.submit_store(last)
        self.assertEqual([(r.job_id, r.success) for r in tier.get_finished_jobs()], [(last.job_id, False)])

    def test_backpressure_drops(self):
        tier = self.tier(settings={"queued_stores_max": 0})
        self.assertFalse(self.store(tier, [name(60)], [0]).success)
        self.assertIs(tier.lookup(name(60), request()), LookupResult.MISS)


class Misses(Case):
    """What peers served to the wrong reader must be a miss here."""

    def there(self, settings=None, **what):
        return self.tier(settings=settings, **what).lookup(name(7), request())

    def setUp(self):
        tier = self.tier(layout="LBHNC")
        self.fill(tier, 0, 1)
        self.assertTrue(self.store(tier, [name(7)], [0]).success)

    def test_the_same_is_a_hit(self):
        self.assertIs(self.there(layout="LBHNC"), LookupResult.HIT)

    def test_what_differs_is_a_miss(self):
        """LMCache#4463 #4247: a new layout is not read as the old; sglang#33268: nor another dtype."""
        for what in ({"layout": "LBNHC"}, {"layout": None}, {"dtype": "float16"}, {"dtype": "fp8_e4m3"}, {"model": "other"},
                     {"tokens": 32}, {"chunk": 2}, {"tp": 2}, {"pp": 2}, {"tp": 2, "pp": 2}, {"layers": ("l1", "l0")},
                     {"layers": ("l0",)}, {"groups": 2}):
            with self.subTest(**what):
                self.assertIs(self.there(**{"layout": "LBHNC", **what}), LookupResult.MISS)

    def test_other_weights_under_the_same_name(self):
        """sglang#24758: pages reused across weights."""
        self.assertIs(self.there(layout="LBHNC", settings={"weights": "trained further"}), LookupResult.MISS)
        self.assertIs(self.there(layout="LBHNC", settings={"salt": "mine"}), LookupResult.MISS)

    def test_an_adapter_replaced_in_place(self):
        """vllm#30931: an adapter is not its name."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "adapter_model.safetensors")
            path.write_bytes(b"one")
            tier = self.tier(settings={"adapters": [folder]})
            self.fill(tier, 0, 1)
            self.assertTrue(self.store(tier, [name(8)], [0]).success)
            self.assertIs(self.tier(settings={"adapters": [folder]}).lookup(name(8), request()), LookupResult.HIT)
            path.write_bytes(b"two")
            self.assertIs(self.tier(settings={"adapters": [folder]}).lookup(name(8), request()), LookupResult.MISS)

    def test_hashes_that_name_nothing(self):
        """A 16-byte hash (xxhash) is neither looked up nor stored."""
        tier, short = self.tier(), bytes(16) + bytes(4)
        self.assertIs(tier.lookup(short, request()), LookupResult.MISS)
        self.assertFalse(self.store(tier, [short], [0]).success)
        with mock.patch.object(kv_cache_utils, "NONE_HASH", bytes(16), create=True):
            with self.assertRaisesRegex(ValueError, "sha256_cbor"):
                self.tier()

    def test_settings_that_are_none(self):
        with self.assertRaisesRegex(ValueError, "no setting 'sockets'"):
            self.tier(settings={"sockets": "x"})


class NodeAway(unittest.TestCase):
    def test_a_node_that_dies_and_comes_back(self):
        node = Node()
        self.addCleanup(node.close)
        helper = Case(methodName="tier")
        helper.node, helper.id = node, self.id
        self.addCleanup(helper.doCleanups)
        tier = helper.tier()
        helper.fill(tier, 0, 1)
        self.assertTrue(helper.store(tier, [name(1)], [0]).success)
        node.kill()
        self.assertFalse(helper.load(tier, [name(1)], [1]).success)
        self.assertIs(tier.lookup(name(1), request()), LookupResult.MISS)
        node.start()
        until = time.monotonic() + 30
        while not helper.store(tier, [name(2)], [0]).success or tier.lookup(name(2), request()) is not LookupResult.HIT:
            self.assertLess(time.monotonic(), until, "the tier did not find the node again")
            time.sleep(0.1)


@unittest.skipIf(getattr(vllm, "WEFT_FAKE", False), "the fake has no tiering manager")
class RealManager(unittest.TestCase):
    """vLLM's own TieringOffloadingManager drives the tier that its own factory made."""

    def manager(self, node):
        from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec
        tiers = [{"type": "WeftTier", "module_path": "weft.connectors.vllm_tier", "socket": node.socket, "weights": "w"}]
        spec = TieringOffloadingSpec(offloading_config(row=ROW, extra={"secondary_tiers": tiers}))
        made = spec.get_manager()
        self.addCleanup(made.shutdown)
        return made

    def step(self, manager):
        from vllm.v1.kv_offload.base import ScheduleEndContext
        with manager.lock:
            manager.on_schedule_end(ScheduleEndContext((), ()))

    def test_stored_in_one_engine_found_by_another(self):
        node = Node()
        self.addCleanup(node.close)
        one, two = self.manager(node), self.manager(node)
        keys = [name(i) for i in range(1, 7)]
        context = request(keys)
        with one.lock:
            one.on_new_request(context)
            stored = one.prepare_store(keys, context)
            view, data = one.primary_tier.get_kv_memoryview().cast("B"), []
            for i, chunk in enumerate(stored.store_spec.chunk_ids):
                data.append(bytes([i + 1]) * ROW)
                view[chunk * ROW:(chunk + 1) * ROW] = data[-1]
            view.release()
            one.complete_store(keys, context)
        for _ in range(2000):
            self.step(one)
            if not one.has_pending_work():
                break
            time.sleep(0.005)
        other = request(keys)
        with two.lock:
            two.on_new_request(other)
            self.assertIs(two.lookup(keys[0], other), LookupResult.HIT_PENDING)
            for key in keys:
                two.lookup(key, other)
        for _ in range(2000):
            self.step(two)
            if not two.has_pending_work():
                break
            time.sleep(0.005)
        with two.lock:
            self.assertEqual([two.lookup(key, other) for key in keys], [LookupResult.HIT] * 6)
            loaded = two.prepare_load(keys, other)
            view = two.primary_tier.get_kv_memoryview().cast("B")
            self.assertEqual([bytes(view[c * ROW:(c + 1) * ROW]) for c in loaded.chunk_ids], data)
            view.release()
            two.complete_load(keys, other)
            self.assertIs(two.lookup(name(99), other), LookupResult.MISS)
            stats = two.get_stats()
        self.assertFalse(stats.is_empty())


if __name__ == "__main__":
    unittest.main()
