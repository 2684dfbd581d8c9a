#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""WeftHiCache against SGLang's own interface, factory and host pools (without a device behind them)."""
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import unittest

from node import Node

try:
    import torch
    import sglang  # noqa: F401, before the stand-in
    import images
    images.stand_in()
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig, HiCacheStorageExtraInfo
    from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
    from sglang.srt.mem_cache.pool_host.mla import MLATokenToKVPoolHost
    from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory
    from sglang.srt.mem_cache.utils import get_hash_str
except ImportError as error:
    raise unittest.SkipTest(f"SGLang is not installed: {error}")

from weft.connectors import sglang as connector  # noqa: E402
from weft.connectors.sglang import WeftHiCache  # noqa: E402

PAGE, LAYERS, HEADS, DIM, PAGES = 16, 3, 2, 8, 12
LAYOUTS = ("layer_first", "page_first", "page_first_direct", "page_head")


def mha(layout="layer_first", dtype=torch.bfloat16, kind=None, page=PAGE, **other):
    """A host pool, of SGLang's class where it imports, with memory and without a device."""
    pool = object.__new__(kind or MHATokenToKVPoolHost)
    size = page * PAGES
    vars(pool).update({"layout": layout, "dtype": dtype, "page_size": page, "size": size, "page_num": PAGES,
                       "layer_num": LAYERS, "head_num": HEADS, "head_dim": DIM, "v_head_dim": DIM, "start_layer": 0,
                       "end_layer": LAYERS, "dcp_size": 1, "device": "cpu", "pin_memory": False, **other})
    shape = connector._MHA.get(layout, connector._MHA["layer_first"])(
        size, PAGES, page, pool.layer_num, pool.head_num, pool.head_dim)
    pool.kv_buffer = torch.zeros(shape, dtype=dtype)
    return pool


def mla(layout="layer_first", dtype=torch.bfloat16):
    pool = object.__new__(MLATokenToKVPoolHost)
    vars(pool).update({"layout": layout, "dtype": dtype, "page_size": PAGE, "size": PAGE * PAGES, "page_num": PAGES,
                       "layer_num": LAYERS, "kv_cache_dim": DIM, "start_layer": 0, "end_layer": LAYERS,
                       "dcp_size": 1, "device": "cpu", "pin_memory": False})
    pool.kv_buffer = torch.zeros(connector._MLA[layout](pool.size, PAGES, PAGE, LAYERS, 1, DIM), dtype=dtype)
    return pool


def element(pool, which, token, layer, head):
    """The vector of one token in one layer and head, by what the layout is said to be: written anew here."""
    b, page, within = pool.kv_buffer, token // pool.page_size, token % pool.page_size
    if isinstance(pool, MLATokenToKVPoolHost):
        return {"layer_first": lambda: b[layer, token, 0], "page_first": lambda: b[token, layer, 0],
                "page_first_direct": lambda: b[page, layer, within, 0]}[pool.layout]()
    return {"layer_first": lambda: b[which, layer, token, head], "page_first": lambda: b[which, token, layer, head],
            "page_first_direct": lambda: b[which, page, layer, within, head],
            "page_head": lambda: b[which, page, head, within, layer]}[pool.layout]()


def places(pool):
    is_mla = isinstance(pool, MLATokenToKVPoolHost)
    for which in range(1 if is_mla else 2):
        for layer in range(LAYERS):
            for head in range(1 if is_mla else HEADS):
                yield which, layer, head


def fill(pool, start, seed):
    """A page whose every element says what it is of."""
    for within in range(PAGE):
        for which, layer, head in places(pool):
            at = (((seed * 2 + which) * LAYERS + layer) * PAGE + within) * HEADS + head
            element(pool, which, start + within, layer, head).copy_((torch.arange(DIM) + at * 8) % 251)


def page_of(pool, start):
    return torch.stack([element(pool, w, start + t, layer, h).float() for t in range(PAGE)
                        for w, layer, h in places(pool)])


def keys_of(seed, count):
    keys, last = [], None
    for i in range(count):
        last = get_hash_str(list(range(seed * 1000 + i * PAGE, seed * 1000 + (i + 1) * PAGE)), last)
        keys.append(last)
    return keys


def indices(*pages):
    return torch.cat([torch.arange(p * PAGE, (p + 1) * PAGE) for p in pages])


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(pool="128MB")
        cls.addClassCleanup(cls.node.close)

    def config(self, v1=1, extra=None, **other):
        return HiCacheStorageConfig(**{
            "tp_rank": 0, "tp_size": 1, "pp_rank": 0, "pp_size": 1, "attn_cp_rank": 0, "attn_cp_size": 1,
            "is_mla_model": False, "enable_storage_metrics": False, "is_page_first_layout": False,
            "model_name": "model/" + self.id(),
            "extra_config": {"backend_name": "weft", "module_path": "weft.connectors.sglang",
                             "class_name": "WeftHiCache", "interface_v1": v1, "weights": "one",
                             "socket": self.node.socket, **(extra or {})}, **other})

    def storage(self, pool, *args, **other):
        """Made as SGLang makes it."""
        storage = StorageBackendFactory.create_backend("dynamic", self.config(*args, **other), pool)
        self.addCleanup(storage.close)
        storage.register_mem_pool_host(pool)
        return storage

    def stored(self, pool, seed=1, pages=3, **other):
        storage, keys = self.storage(pool, **other), keys_of(seed, pages)
        for i in range(pages):
            fill(pool, i * PAGE, seed * 10 + i)
        self.assertEqual(storage.batch_set_v1(keys, indices(*range(pages))), [True] * pages)
        return storage, keys

    def check_miss(self, storage, keys, into=5):
        self.assertEqual(storage.batch_exists(keys), 0)
        storage.mem_pool_host.kv_buffer.zero_()
        self.assertEqual(storage.batch_get_v1(keys, indices(*range(into, into + len(keys)))), [False] * len(keys))
        self.assertEqual(torch.count_nonzero(storage.mem_pool_host.kv_buffer.view(torch.uint8)), 0)


class ZeroCopy(Case):
    def test_every_layout_reads_every_other(self):
        for n, source in enumerate(LAYOUTS):
            pool = mha(source)
            _, keys = self.stored(pool, seed=n + 1)
            for into in LAYOUTS:
                with self.subTest(f"{source} to {into}"):
                    other = mha(into)
                    reader = self.storage(other)
                    self.assertEqual(reader.batch_exists(keys + keys_of(99, 1)), 3)
                    self.assertEqual(reader.batch_get_v1(keys, indices(7, 0, 4)), [True] * 3)
                    for i, page in enumerate((7, 0, 4)):
                        self.assertTrue(torch.equal(page_of(other, page * PAGE), page_of(pool, i * PAGE)))
                    self.assertEqual(torch.count_nonzero(page_of(other, PAGE)), 0)

    def test_every_layout_of_mla_and_one_writer_for_all_ranks(self):
        for n, source in enumerate(connector._MLA):
            pool = mla(source)
            _, keys = self.stored(pool, seed=n + 1, is_mla_model=True, tp_rank=0, tp_size=4)
            for into in connector._MLA:
                other = mla(into)
                reader = self.storage(other, is_mla_model=True, tp_rank=3, tp_size=4)
                self.assertEqual(reader.batch_get_v1(keys, indices(2, 3, 9)), [True] * 3)
                self.assertTrue(torch.equal(page_of(other, 9 * PAGE), page_of(pool, 2 * PAGE)))

    def test_what_is_read_is_in_weft_s_own_order(self):
        pool = mha("page_head")
        storage, keys = self.stored(pool)
        fmt = storage._format("weft")
        with fmt.get(fmt.keys_from_bytes([key.encode() for key in keys])) as pins:
            v = torch.frombuffer(bytearray(pins.v(1, 2)), dtype=torch.bfloat16).view(PAGE, HEADS, DIM)
        self.assertTrue(torch.equal(v[5, 1], element(pool, 1, PAGE + 5, 2, 1)))

    def test_a_gap_ends_a_prefix(self):
        storage, keys = self.stored(mha(), pages=2)
        far = keys_of(5, 4)
        self.assertEqual(storage.batch_set_v1(far[2:], indices(0, 1), HiCacheStorageExtraInfo(prefix_keys=far[:2])),
                         [True, True])  # what is before them was never stored here
        self.assertEqual(storage.batch_exists(far), 0)
        self.assertEqual(storage.batch_get_v1(far, indices(4, 5, 6, 7)), [False] * 4)
        self.assertEqual(storage.batch_exists(far[2:]), 2)
        self.assertEqual(storage.batch_exists(keys[:1] + far[2:3] + keys[1:]), 3)

    def test_all_is_one_list_of_bools_and_never_none(self):
        storage = self.storage(mha())
        self.assertEqual(storage.batch_get_v1([], torch.empty(0, dtype=torch.int64)), [])
        with self.assertRaisesRegex(ValueError, "16 host indices for 2 pages of 16"):
            storage.batch_get_v1(keys_of(1, 2), indices(0))
        with self.assertRaisesRegex(ValueError, "is no page"):
            storage.batch_set_v1(keys_of(1, 1), torch.arange(3, 3 + PAGE))
        with self.assertRaisesRegex(ValueError, "is no page"):
            storage.batch_get_v1(self.stored(mha())[1][:1], torch.arange(PAGES * PAGE, (PAGES + 1) * PAGE))
        bare = WeftHiCache(self.config(), {})
        self.addCleanup(bare.close)
        for call in (bare.batch_get_v1, bare.batch_set_v1):
            with self.assertRaisesRegex(RuntimeError, "register_mem_pool_host"):
                call(keys_of(1, 1), indices(0))

    def test_200_batches_at_once(self):
        pool = mha("page_first")
        storage, good = self.storage(pool), []

        def work(n):
            keys = keys_of(100 + n % 20, 4)
            written = storage.batch_set_v1(keys, indices(0, 1, 2, 3))
            good.append(all(written) and storage.batch_exists(keys) == 4 and
                        all(storage.batch_get_v1(keys, indices(4, 5, 6, 7))))
        for i in range(4):
            fill(pool, i * PAGE, i)
        threads = [threading.Thread(target=lambda k=k: [work(n) for n in range(k, 200, 10)]) for k in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(good, [True] * 200)
        self.assertTrue(torch.equal(page_of(pool, 6 * PAGE), page_of(pool, 2 * PAGE)))

    def test_two_processes(self):
        pool = mha()
        _, keys = self.stored(pool)
        settings = dataclasses.asdict(self.config())
        code = f"""if True:
            import json, sys
            sys.path.insert(0, {os.path.dirname(__file__)!r})
            import test_hicache as t
            settings, keys = json.loads(sys.argv[1])
            pool = t.mha("page_first")
            storage = t.WeftHiCache(t.HiCacheStorageConfig(**settings), {{}})
            storage.register_mem_pool_host(pool)
            assert storage.batch_get_v1(keys, t.indices(1, 2, 3)) == [True] * 3
            print(json.dumps(t.page_of(pool, 3 * t.PAGE).tolist()))"""
        done = subprocess.run([sys.executable, "-c", code, json.dumps([settings, keys])], capture_output=True, text=True,
                              timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout.splitlines()[-1]), page_of(pool, 2 * PAGE).tolist())


class Plain(Case):
    def test_set_get_exists(self):
        for n, layout in enumerate(LAYOUTS):
            pool = mha(layout)
            storage, keys = self.storage(pool, 0), keys_of(n + 1, 2)
            for i in range(2):
                fill(pool, i * PAGE, i)
            pages = [pool.get_data_page(i * PAGE) for i in range(2)]
            self.assertIs(storage.batch_set(keys, pages), True)
            self.assertTrue(storage.exists(keys[1]))
            room = [torch.zeros_like(page) for page in pages] + [torch.zeros_like(pages[0])]
            found = storage.batch_get(keys + keys_of(77, 1), room)
            self.assertTrue(found[0] is room[0] and torch.equal(found[1], pages[1]))
            self.assertIsNone(found[2])
            self.assertTrue(torch.equal(storage.get(keys[0], torch.zeros_like(pages[0])), pages[0]))
            self.assertIsNone(storage.get(keys[0], torch.zeros(3, dtype=torch.bfloat16)))
            for other in LAYOUTS:  # whose bytes mean something else
                if other != layout:
                    self.assertEqual(self.storage(mha(other), 0).batch_exists(keys), 0)
            with self.assertRaisesRegex(ValueError, "others came"):
                storage.batch_set(keys, pages[:1])
            with self.assertRaisesRegex(ValueError, "others came"):
                storage.set(keys[0], pages[0][:-1])


class WrongReuse(Case):
    def test_24758_other_weights(self):
        _, keys = self.stored(mha())
        self.check_miss(self.storage(mha(), extra={"weights": "two"}), keys)
        self.check_miss(self.storage(mha(), model_name="model/another"), keys)

    def test_24758_weights_that_nothing_says(self):
        with self.assertRaisesRegex(ValueError, "which weights they are"):
            WeftHiCache(self.config(extra={"weights": "auto"}), {})
        with self.assertRaisesRegex(ValueError, "no model name"):
            WeftHiCache(self.config(model_name=None), {})

    def test_33268_other_kv_dtype(self):
        _, keys = self.stored(mha())
        self.check_miss(self.storage(mha(dtype=torch.float16)), keys)
        self.check_miss(self.storage(mha(dtype=torch.float32)), keys)
        narrow = mha(dtype=torch.uint8)
        with self.assertRaisesRegex(ValueError, "kv_dtype"):
            self.storage(narrow)
        _, keys = self.stored(narrow, extra={"kv_dtype": "fp8_e5m2"}, seed=2)
        self.check_miss(self.storage(mha(dtype=torch.uint8), extra={"kv_dtype": "fp8_e4m3"}), keys)
        with self.assertRaisesRegex(ValueError, "holds bf16"):
            self.storage(mha(), extra={"kv_dtype": "fp16"})

    def test_33268_other_shapes_and_ranks(self):
        _, keys = self.stored(mha())
        for change in ({"tp_rank": 1, "tp_size": 2}, {"tp_size": 2}, {"pp_size": 2}, {"pp_rank": 1, "pp_size": 2},
                       {"attn_cp_size": 2}, {"extra": {"salt": "x"}}):
            self.check_miss(self.storage(mha(), **change), keys)
        for change in ({"head_num": 4}, {"head_dim": 16, "v_head_dim": 16}, {"layer_num": 6}):
            self.check_miss(self.storage(mha(**change)), keys)
        self.check_miss(self.storage(mha(start_layer=3, end_layer=6)), keys)

    def test_33268_each_rank_and_each_size_by_itself(self):
        """Of two that differ in one number alone: what one stored the other does not find."""
        for n, kind in enumerate(("tp", "pp", "attn_cp")):
            stored = {f"{kind}_rank": 1, f"{kind}_size": 4}
            _, keys = self.stored(mha(), seed=20 + n, **stored)
            for change in ({f"{kind}_rank": 2}, {f"{kind}_size": 8}):
                with self.subTest(kind, **change):
                    self.check_miss(self.storage(mha(), **{**stored, **change}), keys)
        _, keys = self.stored(mha(page=PAGE), seed=30)
        self.assertEqual(self.storage(mha(page=2 * PAGE)).batch_exists(keys), 0)

    def test_12092_what_is_written_is_read_by_the_next_server(self):
        storage, keys = self.stored(mha())
        storage.close()
        later = self.storage(mha())
        self.assertEqual((later.batch_exists(keys), later.batch_get_v1(keys, indices(0, 1, 2))), (3, [True] * 3))
        self.assertEqual(later.counts(), {"hits": 3, "misses": 0, "stored": 0, "not_stored": 0})

    def test_26326_same_host_is_not_same_memory(self):
        """Two servers of a host: what the other stored was read at the other's address, in one's own memory."""
        pool = mha()
        storage, mine = self.stored(pool, seed=1)
        theirs, settings = keys_of(2, 3), dataclasses.asdict(self.config())
        code = f"""if True:
            import json, sys
            sys.path.insert(0, {os.path.dirname(__file__)!r})
            import test_hicache as t
            settings, mine, theirs = json.loads(sys.argv[1])
            pool = t.mha()
            storage = t.WeftHiCache(t.HiCacheStorageConfig(**settings), {{}})
            storage.register_mem_pool_host(pool)
            for i in range(3):
                t.fill(pool, i * t.PAGE, 20 + i)
            assert storage.batch_set_v1(theirs, t.indices(0, 1, 2)) == [True] * 3
            assert storage.batch_get_v1(mine, t.indices(3, 4, 5)) == [True] * 3
            print(json.dumps([t.page_of(pool, page * t.PAGE).tolist() for page in range(6)]))"""
        before = [page_of(pool, page * PAGE) for page in range(3)]
        pool.kv_buffer.zero_()  # what was stored is in no server's memory any more
        done = subprocess.run([sys.executable, "-c", code, json.dumps([settings, mine, theirs])], capture_output=True,
                              text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        there = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(there[3:], [page.tolist() for page in before])
        for i in range(3):
            fill(pool, i * PAGE, 70 + i)
        self.assertEqual(storage.batch_get_v1(theirs, indices(6, 7, 8)), [True] * 3)
        self.assertEqual([page_of(pool, page * PAGE).tolist() for page in (6, 7, 8)], there[:3])
        self.assertNotEqual(there[:3], there[3:])

    def test_26326_who_shares_is_said_by_the_node_and_not_by_an_address(self):
        _, keys = self.stored(mha())
        other = Node(pool="64MB")
        self.addCleanup(other.close)
        self.check_miss(self.storage(mha(), extra={"socket": other.socket}), keys)

    def test_layouts_that_are_not_known(self):
        class Other(MHATokenToKVPoolHost):
            """With scales or an index beside K and V."""
        for pool, words in ((mha("page_unified"), "host layout 'page_unified' is not known"),
                            (mha(kind=Other), "class Other"), (mha(dcp_size=2), "context parallelism"),
                            (mha(v_head_dim=4), "V 4")):
            with self.assertRaisesRegex(ValueError, words):
                self.storage(pool)
        moved = mha()
        moved.kv_buffer = moved.kv_buffer.permute(0, 2, 1, 3, 4).contiguous()
        with self.assertRaisesRegex(ValueError, "not known here"):
            self.storage(moved)

    def test_settings_that_are_not_known(self):
        with self.assertRaisesRegex(ValueError, "no setting 'wieghts'"):
            WeftHiCache(self.config(extra={"wieghts": "x"}), {})


class Away(Case):
    def test_the_node_is_killed_and_comes_back(self):
        pool = mha()
        storage, keys = self.stored(pool)
        self.node.kill()
        with self.assertLogs("sglang.weft", "WARNING") as told:
            self.assertEqual(storage.batch_exists(keys), 0)
            self.assertEqual(storage.batch_get_v1(keys, indices(0, 1, 2)), [False] * 3)
            self.assertEqual(storage.batch_set_v1(keys, indices(0, 1, 2)), [False] * 3)
        self.assertTrue(told.output)
        self.node.start()
        self.assertEqual(storage.batch_exists(keys), 0)  # a new node has nothing
        end = time.monotonic() + 60
        while storage.batch_set_v1(keys, indices(0, 1, 2)) != [True] * 3:  # it is not asked for at every call
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.assertEqual(storage.batch_get_v1(keys, indices(4, 5, 6)), [True] * 3)
        self.assertTrue(torch.equal(page_of(pool, 5 * PAGE), page_of(pool, PAGE)))

    def test_a_set_that_is_interrupted_leaves_nothing(self):
        pool = mha()
        storage, keys = self.storage(pool), keys_of(9, 2)
        fmt = storage._format("weft")
        with self.assertRaises(ZeroDivisionError), fmt.reserve(storage._keys(fmt, keys)) as slots:
            slots.write(0, bytes(fmt.block_bytes))
            raise ZeroDivisionError
        self.assertEqual(storage.batch_exists(keys), 0)


if __name__ == "__main__":
    unittest.main()
