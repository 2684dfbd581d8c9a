#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Both of Weft's ways into LMCache, through LMCache's own loaders, adapters and backends."""
import asyncio
import threading
import time
import unittest

from node import Node

try:
    import torch
    from lmcache.utils import CacheEngineKey, LayerCacheEngineKey
    from lmcache.v1.config import LMCacheEngineConfig
    from lmcache.v1.distributed.api import ObjectKey
    from lmcache.v1.distributed.l2_adapters.native_plugin_l2_adapter import (NativePluginL2AdapterConfig,
                                                                             _create_native_plugin_l2_adapter)
    from lmcache.v1.memory_allocators.ad_hoc_memory_allocator import AdHocMemoryAllocator
    from lmcache.v1.memory_management import MemoryFormat
    from lmcache.v1.metadata import LMCacheMetadata
    from lmcache.v1.storage_backend.connector import CreateConnector
    from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
    from lmcache.v1.storage_backend.remote_backend import RemoteBackend
except ImportError as error:
    raise unittest.SkipTest(f"LMCache is not installed: {error}")

from weft.connectors.lmcache import meta_of, name_of, read_meta  # noqa: E402

LAYERS, HEADS, DIM, CHUNK = 4, 2, 16, 256


def tensor_of(memory):
    return memory.tensor.clone()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(pool="256MB")
        cls.addClassCleanup(cls.node.close)
        cls.allocator = AdHocMemoryAllocator()

    def memory(self, seed, tokens=CHUNK, dtype=torch.bfloat16, fmt=MemoryFormat.KV_2LTD, shape=None):
        memory = self.allocator.allocate([torch.Size(shape or (2, LAYERS, tokens, HEADS * DIM))], [dtype], fmt)
        generator = torch.Generator().manual_seed(seed)
        raw = torch.randint(0, 251, memory.tensor.view(torch.uint8).shape, generator=generator, dtype=torch.uint8)
        memory.tensor.view(torch.uint8).copy_(raw)
        return memory

    def until(self, call):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            result = call()
            if result is not None and result is not False:
                return result
            time.sleep(0.005)
        self.fail("it did not come to pass")


class Multiprocess(Case):
    """The server's L2 adapter."""

    def adapter(self, **params):
        params = {"weights": self.id(), "dtype": "bf16", "socket": self.node.socket, **params}
        adapter = _create_native_plugin_l2_adapter(NativePluginL2AdapterConfig.from_dict({
            "type": "native_plugin", "module_path": "weft.connectors.lmcache", "class_name": "WeftNative",
            "adapter_params": params}))
        self.addCleanup(adapter.close)
        return adapter

    def store(self, adapter, keys, objects):
        task, done = adapter.submit_store_task(keys, objects), {}

        def look():
            done.update(adapter.pop_completed_store_tasks())
            return done.get(task)
        return self.until(look)

    def lookup(self, adapter, keys):
        task = adapter.submit_lookup_and_lock_task(keys, {})
        bits = self.until(lambda: adapter.query_lookup_and_lock_result(task))
        adapter.submit_unlock(keys)
        return [bits.test(i) for i in range(len(keys))]

    def load(self, adapter, keys, objects):
        task = adapter.submit_load_task(keys, objects)
        bits = self.until(lambda: adapter.query_load_result(task))
        return [bits.test(i) for i in range(len(keys))]

    def keys(self, count, **other):
        return [ObjectKey(**{"chunk_hash": bytes([i]) * 32, "model_name": "org/model", "kv_rank": 3, **other})
                for i in range(count)]

    def test_store_lookup_load_delete(self):
        adapter, keys = self.adapter(), self.keys(5)
        objects = [self.memory(i) for i in range(5)]
        self.assertEqual(self.lookup(adapter, keys), [False] * 5)
        self.assertTrue(self.store(adapter, keys, objects).is_successful())
        self.assertEqual(self.lookup(adapter, keys), [True] * 5)
        rooms = [self.memory(100 + i) for i in range(5)]
        self.assertEqual(self.load(adapter, keys, rooms), [True] * 5)
        for room, memory in zip(rooms, objects):
            self.assertTrue(torch.equal(tensor_of(room).view(torch.uint8), tensor_of(memory).view(torch.uint8)))
        adapter.delete(keys[:2])
        self.assertEqual(self.lookup(adapter, keys), [False, False, True, True, True])
        self.assertTrue(adapter.report_status()["is_healthy"])

    def test_every_field_of_a_key_counts(self):
        """LMCache#4825, SGLang#37160: a salt that is dropped; #4385: others' KV."""
        adapter = self.adapter()
        self.store(adapter, self.keys(1), [self.memory(1)])
        for change in ({"chunk_hash": b"x" * 32}, {"model_name": "org/mode1"}, {"kv_rank": 4},
                       {"object_group_id": 1}, {"cache_salt": "tenant"}):
            self.assertEqual(self.lookup(adapter, self.keys(1, **change)), [False], change)
            self.assertEqual(self.load(adapter, self.keys(1, **change), [self.memory(2)]), [False], change)

    def test_a_chunk_of_another_length_is_a_miss(self):
        """LMCache#4463, #4247: what one layout wrote, read as another."""
        adapter = self.adapter()
        self.store(adapter, self.keys(1), [self.memory(1)])
        for room in (self.memory(2, tokens=255), self.memory(2, shape=(2, LAYERS + 1, CHUNK, HEADS * DIM))):
            before = tensor_of(room)
            self.assertEqual(self.load(adapter, self.keys(1), [room]), [False])
            self.assertTrue(torch.equal(before.view(torch.uint8), tensor_of(room).view(torch.uint8)))
        self.assertEqual(self.lookup(self.adapter(dtype="f16"), self.keys(1)), [False])

    def test_a_store_that_failed_is_not_visible(self):
        """LMCache#4991."""
        adapter = self.adapter()
        self.node.kill()
        self.addCleanup(lambda: self.node.process.poll() is None or self.node.start())
        self.assertFalse(self.store(adapter, self.keys(1), [self.memory(1)]).is_successful())
        self.assertEqual(self.lookup(adapter, self.keys(1)), [False])
        self.assertEqual(self.load(adapter, self.keys(1), [self.memory(1)]), [False])
        self.node.start()
        self.assertEqual(self.lookup(adapter, self.keys(1)), [False])
        self.until(lambda: self.store(adapter, self.keys(1), [self.memory(1)]).is_successful() or None)
        self.assertEqual(self.lookup(adapter, self.keys(1)), [True])


class Remote(Case):
    """What tests of the remote connector need."""

    def setUp(self):
        self.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        thread.start()

        def stop():
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join()
            self.loop.close()
        self.addCleanup(stop)

    def config(self, engine=None, **settings):
        settings = {"weights": self.id(), "socket": self.node.socket, **settings}
        engine = {"chunk_size": CHUNK, "remote_serde": "naive", **(engine or {})}
        return LMCacheEngineConfig.from_defaults(
            local_cpu=False, remote_storage_plugins=["weft"], **engine,
            extra_config={"remote_storage_plugin.weft.module_path": "weft.connectors.lmcache",
                          "remote_storage_plugin.weft.class_name": "WeftConnectorAdapter",
                          **{f"remote_storage_plugin.weft.{name}": value for name, value in settings.items()}})

    def metadata(self, **other):
        return LMCacheMetadata(**{"model_name": "org/model", "world_size": 1, "local_world_size": 1, "worker_id": 0,
                                  "local_worker_id": 0, "kv_dtype": torch.bfloat16,
                                  "kv_shape": (LAYERS, 2, CHUNK, HEADS, DIM), "chunk_size": CHUNK, **other})

    def parts(self, settings, metadata):
        config, metadata = self.config(**(settings or {})), self.metadata(**(metadata or {}))
        return config, metadata, LocalCPUBackend(config, metadata, "cpu", memory_allocator=self.allocator)

    def connector(self, settings=None, **metadata):
        config, metadata, local = self.parts(settings, metadata)
        connector = CreateConnector("plugin://weft", self.loop, local, config, metadata, plugin_name="weft")
        self.addCleanup(lambda: self.do(connector.close()))
        return connector

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def key(self, number=1, kind=CacheEngineKey, **other):
        return kind(**{"model_name": "org/model", "world_size": 1, "worker_id": 0, "chunk_hash": number,
                       "dtype": torch.bfloat16, **other})

    def put(self, connector, key, memory):
        memory.ref_count_up()  # LMCache's wrapper gives one back
        self.do(connector.put(key, memory))

    def same(self, one, other):
        self.assertIsNotNone(one)
        self.assertEqual((one.get_shapes(), one.get_dtypes(), one.get_memory_format()),
                         (other.get_shapes(), other.get_dtypes(), other.get_memory_format()))
        self.assertTrue(torch.equal(tensor_of(one).view(torch.uint8), tensor_of(other).view(torch.uint8)))


class InProcess(Remote):
    """The remote connector."""

    def test_put_get_exists_remove(self):
        connector, memory = self.connector(), self.memory(1)
        self.assertFalse(self.do(connector.exists(self.key())))
        self.assertIsNone(self.do(connector.get(self.key())))
        self.put(connector, self.key(), memory)
        self.assertTrue(self.do(connector.exists(self.key())))
        self.assertTrue(connector.exists_sync(self.key()))
        self.same(self.do(connector.get(self.key())), memory)
        self.assertEqual(memory.get_ref_count(), 1)
        self.assertTrue(connector.remove_sync(self.key()))
        self.assertFalse(connector.remove_sync(self.key()))
        self.assertFalse(connector.exists_sync(self.key()))
        self.assertEqual(self.do(connector.list()), [])
        self.assertEqual(self.do(connector.ping()), 0)

    def test_last_chunks_and_every_memory_format(self):
        connector = self.connector()
        cases = [self.memory(1, tokens=1), self.memory(2, tokens=77), self.memory(3, tokens=CHUNK),
                 self.memory(4, fmt=MemoryFormat.KV_T2D, shape=(33, 2, HEADS * DIM)),
                 self.memory(5, fmt=MemoryFormat.KV_2TD, shape=(2, 33, HEADS * DIM)),
                 self.memory(6, fmt=MemoryFormat.KV_MLA_FMT, shape=(1, LAYERS, 50, 64)),
                 self.memory(7, dtype=torch.float8_e4m3fn), self.memory(8, dtype=torch.float32)]
        for number, memory in enumerate(cases):
            self.put(connector, self.key(number), memory)
        for number, memory in enumerate(cases):
            self.same(self.do(connector.get(self.key(number))), memory)
            self.assertEqual(meta_of(memory), meta_of(self.allocator.allocate(*read_meta(meta_of(memory)))))

    def test_batches(self):
        connector = self.connector()
        keys = [self.key(n) for n in range(6)]
        for n in (0, 1, 2, 4):
            self.put(connector, keys[n], self.memory(n))
        self.assertTrue(connector.support_batched_contains())
        self.assertEqual(connector.batched_contains(keys), 3)
        self.assertEqual(self.do(connector.batched_async_contains("lookup", keys)), 3)
        got = self.do(connector.batched_get(keys))
        self.assertEqual([memory is not None for memory in got], [True, True, True, False, True, False])
        leading = self.do(connector.batched_get_non_blocking("lookup", keys))
        self.assertEqual(len(leading), 3)
        self.same(leading[2], self.memory(2))

    def test_every_field_of_a_key_counts(self):
        """LMCache#4385 and #4825: all that a key says is in Weft's, and tags are not joined into one text."""
        connector = self.connector()
        tags = {"lmcache.tag.a": "1"}
        self.put(connector, self.key(request_configs=tags), self.memory(1))
        self.assertTrue(connector.exists_sync(self.key(request_configs=tags)))
        for other in (self.key(), self.key(2, request_configs=tags), self.key(request_configs={"lmcache.tag.a": "2"}),
                      self.key(request_configs={"lmcache.tag.b": "1"}),
                      self.key(request_configs={**tags, "lmcache.tag.b": "1"}),
                      self.key(world_size=2, request_configs=tags), self.key(worker_id=1, request_configs=tags),
                      self.key(model_name="org/other", request_configs=tags),
                      self.key(dtype=torch.float16, request_configs=tags),
                      self.key(request_configs={**tags, "lmcache.cache_salt": "tenant"}),
                      self.key(request_configs={**tags, "cache_salt": "tenant"}),
                      self.key(kind=LayerCacheEngineKey, layer_id=0, request_configs=tags)):
            self.assertFalse(connector.exists_sync(other), other)
            self.assertIsNone(self.do(connector.get(other)))
        joined = self.key(request_configs={"lmcache.tag.a": "1@b%2"})
        apart = self.key(request_configs={"lmcache.tag.a": "1", "lmcache.tag.b": "2"})
        self.assertEqual(joined.to_string(), apart.to_string())  # LMCache's own text cannot tell
        self.assertNotEqual(name_of(joined), name_of(apart))

    def test_what_the_engine_is_counts(self):
        """LMCache#4463, #4247: another layout of the same model; other weights; another salt."""
        self.put(self.connector(), self.key(), self.memory(1))
        self.assertTrue(self.connector().exists_sync(self.key()))
        for settings, metadata in (({"weights": "others"}, {}), ({"salt": "tenant"}, {}), ({}, {"use_mla": True}),
                                   ({}, {"kv_dtype": torch.float16}),
                                   ({}, {"kv_shape": (LAYERS, 2, CHUNK, 2 * HEADS, DIM // 2 * 2)}),
                                   ({}, {"kv_shape": (LAYERS * 2, 2, CHUNK, HEADS, DIM)}), ({}, {"chunk_size": 128}),
                                   ({"engine": {"use_layerwise": True}}, {}), ({"engine": {"remote_serde": "cachegen"}}, {}),
                                   ({"engine": {"pre_caching_hash_algorithm": "sha256_cbor"}}, {})):
            self.assertFalse(self.connector(settings, **metadata).exists_sync(self.key()), (settings, metadata))

    def test_metadata_that_says_nothing_known_is_a_miss(self):
        connector = self.connector()
        values, memory = connector.getWrappedConnector()._values, self.memory(1)
        for number, meta in enumerate(("", "[]", "{}", '{"format": "NEWER", "groups": [[[1], "torch.uint8"]]}',
                                       '{"format": "KV_2LTD", "groups": [[[1], "os.system"]]}',
                                       '{"format": "KV_2LTD", "groups": [[[2, 4, 8, 32], "torch.bfloat16"]]}')):
            values.put([name_of(self.key(number))], [memory.byte_array], [meta])
            self.assertIsNone(self.do(connector.get(self.key(number))), meta)

    def test_the_node_is_killed_and_comes_back(self):
        connector, memory = self.connector(), self.memory(1)
        self.put(connector, self.key(), memory)
        self.node.kill()
        self.assertFalse(connector.exists_sync(self.key()))
        self.assertEqual(connector.batched_contains([self.key()]), 0)
        self.assertIsNone(self.do(connector.get(self.key())))
        self.assertEqual(self.do(connector.ping()), 1)
        with self.assertRaises(Exception):
            self.put(connector, self.key(), memory)
        self.node.start()
        self.until(lambda: self.do(connector.ping()) == 0)
        self.assertIsNone(self.do(connector.get(self.key())))
        self.put(connector, self.key(), memory)
        self.same(self.do(connector.get(self.key())), memory)

    def test_who_cancels_a_get_leaks_nothing(self):
        connector, memory = self.connector(), self.memory(1)
        self.put(connector, self.key(), memory)
        given, allocate = [], self.allocator.allocate
        local = connector.getWrappedConnector()._local

        def watched(*args, **kwargs):
            time.sleep(0.2)
            given.append(allocate(*args, **kwargs))
            return given[-1]
        local.allocate = watched
        future = asyncio.run_coroutine_threadsafe(connector.get(self.key()), self.loop)
        time.sleep(0.05)
        future.cancel()
        self.do(connector.getWrappedConnector()._run(lambda: None))
        end = time.monotonic() + 30
        while not given or given[0].get_ref_count() > 0:
            self.assertLess(time.monotonic(), end, "the memory was not given back")
            time.sleep(0.01)

    def test_the_whole_remote_backend(self):
        config, metadata, local = self.parts(None, None)
        backend = RemoteBackend(config, metadata, self.loop, local, "cpu", plugin_name="weft")
        self.addCleanup(lambda: self.do(backend.connection.close()))
        keys, memories = [self.key(n) for n in range(20)], [self.memory(n) for n in range(20)]
        self.assertEqual(backend.batched_contains(keys), 0)
        backend.batched_submit_put_task(keys, memories)
        end = time.monotonic() + 60
        while backend.put_tasks and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(backend.batched_contains(keys), 20)
        self.assertTrue(backend.contains(keys[7]))
        self.same(backend.get_blocking(keys[7]), memories[7])
        for got, memory in zip(backend.batched_get_blocking(keys), memories, strict=True):
            self.same(got, memory)

    def test_what_is_not_said_is_refused(self):
        for settings, words in (({"weights": None}, "which weights"), ({"wieghts": "x"}, "no setting 'wieghts'")):
            config, metadata, local = self.parts(settings, None)
            with self.assertRaisesRegex(ValueError, words):
                CreateConnector("plugin://weft", self.loop, local, config, metadata, plugin_name="weft")


if __name__ == "__main__":
    unittest.main()
