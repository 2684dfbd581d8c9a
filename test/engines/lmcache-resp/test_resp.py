# SPDX-License-Identifier: Apache-2.0
"""LMCache's own clients of Redis before weftd's gateway: on redis-py (redis://), its native one (resp://), and that one
below its multiprocess server (the L2 adapter `resp`), as they are.  test/engines/lmcache has Weft's own connectors."""
import asyncio
import signal
import threading
import time
import unittest

import torch
from lmcache.lmcache_redis import LMCacheRedisClient  # noqa: F401
from lmcache.utils import CacheEngineKey
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.l2_adapters.resp_l2_adapter import RESPL2AdapterConfig, _create_resp_l2_adapter
from lmcache.v1.memory_allocators.ad_hoc_memory_allocator import AdHocMemoryAllocator
from lmcache.v1.memory_management import MemoryFormat
from lmcache.v1.metadata import LMCacheMetadata
from lmcache.v1.storage_backend.connector import CreateConnector
from lmcache.v1.storage_backend.connector.redis_connector import RedisConnector, RESPConnector
from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
from node import Node

LAYERS, HEADS, DIM, CHUNK = 4, 2, 16, 256
PASSWORD = "0123456789abcdef"


def bits(memory):
    return memory.tensor.view(torch.uint8)


class Case(unittest.TestCase):
    NODE = {"pool": "256MB"}

    @classmethod
    def setUpClass(cls):
        cls.node = Node(resp=True, **cls.NODE)
        cls.addClassCleanup(cls.node.close)
        cls.allocator = AdHocMemoryAllocator()
        cls.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=cls.loop.run_forever)
        thread.start()
        cls.addClassCleanup(thread.join)
        cls.addClassCleanup(cls.loop.call_soon_threadsafe, cls.loop.stop)

    def memory(self, seed, tokens=CHUNK, layers=LAYERS):
        memory = self.allocator.allocate([torch.Size((2, layers, tokens, HEADS * DIM))], [torch.bfloat16],
                                         MemoryFormat.KV_2LTD)
        generator = torch.Generator().manual_seed(seed)
        bits(memory).copy_(torch.randint(0, 251, bits(memory).shape, generator=generator, dtype=torch.uint8))
        return memory

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def key(self, number, **other):
        return CacheEngineKey(**{"model_name": "org/" + self.id(), "world_size": 1, "worker_id": 0,
                                 "chunk_hash": number, "dtype": torch.bfloat16, **other})

    def connector(self, scheme, login="", layers=LAYERS, **extra):
        config = LMCacheEngineConfig.from_defaults(chunk_size=CHUNK, local_cpu=True, max_local_cpu_size=0.1,
                                                   save_unfull_chunk=False, extra_config={
                                                       "save_chunk_meta": False, "resp_num_threads": 3, **extra})
        metadata = LMCacheMetadata(model_name="org/model", world_size=1, local_world_size=1, worker_id=0,
                                   local_worker_id=0, kv_dtype=torch.bfloat16,
                                   kv_shape=(layers, 2, CHUNK, HEADS, DIM), chunk_size=CHUNK)
        local = LocalCPUBackend(config, metadata, "cpu", memory_allocator=self.allocator)
        made = CreateConnector(f"{scheme}://{login}127.0.0.1:{self.node.resp_port}", self.loop, local, config, metadata)
        self.addCleanup(self.shut, made, scheme)
        return made

    def shut(self, made, scheme):
        """Their own close() waits in the loop for that loop, for ever."""
        inner = made.getWrappedConnector()
        inner.pq_executor.shutdown(wait=False)
        if scheme == "redis":
            self.do(inner.connection.aclose())
        else:
            inner.client.close()

    def put(self, connector, number, memory):
        memory.ref_count_up()  # LMCache's wrapper gives one back
        self.do(connector.put(self.key(number), memory))

    def same(self, one, other):
        self.assertIsNotNone(one)
        self.assertTrue(torch.equal(bits(one), bits(other)))


class OnRedisPy(Case):
    """`redis://`: metadata and bytes under two keys, many connections, RESP3 since redis-py 8."""

    def test_chunks(self):
        connector = self.connector("redis")
        self.assertIsInstance(connector.getWrappedConnector(), RedisConnector)
        self.assertFalse(self.do(connector.exists(self.key(0))))
        self.assertIsNone(self.do(connector.get(self.key(0))))
        sizes = (CHUNK, CHUNK, 1, 77, CHUNK)
        for number, tokens in enumerate(sizes):
            self.put(connector, number, self.memory(number, tokens))
        again = self.connector("redis")
        for number, tokens in enumerate(sizes):
            self.assertTrue(self.do(again.exists(self.key(number))))
            self.assertTrue(again.exists_sync(self.key(number)))
            self.same(self.do(again.get(self.key(number))), self.memory(number, tokens))
        self.put(connector, 0, self.memory(100))
        self.same(self.do(again.get(self.key(0))), self.memory(100))

    def test_many_at_once(self):
        connector = self.connector("redis")

        async def work():
            memories = [self.memory(number, 32) for number in range(100)]
            for memory in memories:
                memory.ref_count_up()
            await asyncio.gather(*(connector.put(self.key(n), memory) for n, memory in enumerate(memories)))
            return await asyncio.gather(*(connector.get(self.key(n)) for n in range(120)))
        got = self.do(work())
        for number, memory in enumerate(got):
            if number < 100:
                self.same(memory, self.memory(number, 32))
            else:
                self.assertIsNone(memory)

    def test_bytes_that_are_gone(self):
        """The metadata alone is a miss, and is taken away."""
        import redis
        connector = self.connector("redis")
        self.put(connector, 1, self.memory(1))
        with redis.Redis(port=self.node.resp_port) as client:
            self.assertEqual(client.delete(self.key(1).to_string() + "kv_bytes"), 1)
            self.assertIsNone(self.do(connector.get(self.key(1))))
            self.assertFalse(self.do(connector.exists(self.key(1))))

    def test_the_node_restarts(self):
        connector = self.connector("redis")
        self.put(connector, 1, self.memory(1))
        self.node.kill()
        self.node.start()
        until, said = time.monotonic() + 60, "nothing"
        while said is not None and time.monotonic() < until:
            try:
                said = self.do(connector.get(self.key(1)))
            except Exception as error:  # redis-py's, of a connection that broke
                said = str(error)
        self.assertIsNone(said)
        self.put(connector, 1, self.memory(2))
        self.same(self.do(connector.get(self.key(1))), self.memory(2))


class Native(Case):
    """`resp://`: C++, RESP2, values of one size that are received where they are to be.

    It asks EXISTS first: after a GET of what is not there it waits for ever, before Redis as well, so nothing here does
    that.  Nor does anything call exists_sync() and batched_contains(), which wait for ever when the answer comes before
    they have noted what they asked (ConnectorClientBase._register_future_sync)."""

    def test_chunks(self):
        connector = self.connector("resp")
        self.assertIsInstance(connector.getWrappedConnector(), RESPConnector)
        self.assertFalse(self.do(connector.exists(self.key(0))))
        for number in range(6):
            self.put(connector, number, self.memory(number))
        again = self.connector("resp")
        for number in range(6):
            self.assertTrue(self.do(again.exists(self.key(number))))
            self.same(self.do(again.get(self.key(number))), self.memory(number))

    def test_batches(self):
        connector = self.connector("resp")
        memories = [self.memory(number) for number in range(24)]
        for memory in memories:
            memory.ref_count_up()
        keys = [self.key(number) for number in range(24)]
        self.do(connector.batched_put(keys, memories))
        self.assertEqual(self.do(connector.batched_async_contains("lookup", keys)), 24)
        self.assertEqual(self.do(connector.batched_async_contains("lookup", [*keys[:5], self.key(99), *keys[5:]])), 5)
        for one, other in zip(self.do(connector.batched_get(keys)), memories):
            self.same(one, other)
        for one, other in zip(self.do(connector.batched_get_non_blocking("lookup", keys)), memories):
            self.same(one, other)


class NativeFull(Case):
    NODE = {"pool": "64MB"}

    def test_what_finds_no_room_is_dropped(self):
        """An error where +OK is due would desynchronise it for good."""
        connector = self.connector("resp", layers=64, resp_num_threads=2)  # a chunk is 2 MiB
        for number in range(60):
            self.put(connector, number, self.memory(number, layers=64))
        there = [number for number in range(60) if self.do(connector.exists(self.key(number)))]
        self.assertTrue(5 < len(there) < 60, there)
        for number in there:
            if self.do(connector.exists(self.key(number))):
                self.same(self.do(connector.get(self.key(number))), self.memory(number, layers=64))


class NativePasswords(Case):
    NODE = {"pool": "64MB", "settings": (f"resp.password={PASSWORD}",)}

    def test_who_is_let_in(self):
        connector = self.connector("resp", password=PASSWORD)
        self.put(connector, 1, self.memory(1))
        self.same(self.do(connector.get(self.key(1))), self.memory(1))
        named = self.connector("resp", username="default", password=PASSWORD)
        self.same(self.do(named.get(self.key(1))), self.memory(1))
        python = self.connector("redis", login=f":{PASSWORD}@")
        self.put(python, 2, self.memory(2))
        self.same(self.do(python.get(self.key(2))), self.memory(2))


class Server(Case):
    """The L2 adapter of LMCache's server, which is the native client again."""

    def adapter(self, **how):
        config = RESPL2AdapterConfig.from_dict({"host": "127.0.0.1", "port": self.node.resp_port,
                                                "num_workers": 3, **how})
        adapter = _create_resp_l2_adapter(config)
        self.addCleanup(adapter.close)
        return adapter

    def until(self, call):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            result = call()
            if result is not None and result is not False:
                return result
            time.sleep(0.005)
        self.fail("it did not come to pass")

    def store(self, adapter, keys, objects):
        task, done = adapter.submit_store_task(keys, objects), {}

        def look():
            done.update(adapter.pop_completed_store_tasks())
            return done.get(task)
        return self.until(look)

    def lookup(self, adapter, keys):
        task = adapter.submit_lookup_and_lock_task(keys, {})
        found = self.until(lambda: adapter.query_lookup_and_lock_result(task))
        adapter.submit_unlock(keys)
        return [found.test(i) for i in range(len(keys))]

    def load(self, adapter, keys, objects):
        task = adapter.submit_load_task(keys, objects)
        found = self.until(lambda: adapter.query_load_result(task))
        return [found.test(i) for i in range(len(keys))]

    def keys(self, count, first=0):
        return [ObjectKey(chunk_hash=bytes([first + i]) * 32, model_name="org/" + self.id(), kv_rank=3)
                for i in range(count)]

    def test_store_lookup_load_delete(self):
        adapter, keys, objects = self.adapter(), self.keys(8), [self.memory(i) for i in range(8)]
        self.assertEqual(self.lookup(adapter, keys), [False] * 8)
        self.assertTrue(self.store(adapter, keys, objects).is_successful())
        other = self.adapter()
        self.assertEqual(self.lookup(other, keys), [True] * 8)
        rooms = [self.memory(100 + i) for i in range(8)]
        self.assertEqual(self.load(other, keys, rooms), [True] * 8)
        for room, memory in zip(rooms, objects):
            self.same(room, memory)
        other.delete(keys[:3])
        self.assertEqual(self.lookup(adapter, keys), [False] * 3 + [True] * 5)

    def test_misses_beside_hits(self):
        adapter, keys, objects = self.adapter(), self.keys(6), [self.memory(i) for i in range(6)]
        self.assertTrue(self.store(adapter, keys[::2], objects[::2]).is_successful())
        for _ in range(5):  # sockets stay in step
            self.assertEqual(self.lookup(adapter, keys), [True, False] * 3)
            rooms = [self.memory(100 + i) for i in range(3)]
            self.assertEqual(self.load(adapter, keys[::2], rooms), [True] * 3)
            for room, memory in zip(rooms, objects[::2]):
                self.same(room, memory)

    def test_the_node_is_gone(self):
        """It never reconnects: what it then says is a miss, and a new one goes on."""
        adapter, keys = self.adapter(), self.keys(2)
        self.assertTrue(self.store(adapter, keys, [self.memory(1), self.memory(2)]).is_successful())
        self.node.process.send_signal(signal.SIGKILL)
        self.node.process.wait(60)
        try:
            self.assertEqual(self.load(adapter, keys, [self.memory(1), self.memory(2)]), [False, False])
        finally:
            self.node.start()
        again = self.adapter()
        self.assertEqual(self.lookup(again, keys), [False, False])
        self.assertTrue(self.store(again, keys, [self.memory(1), self.memory(2)]).is_successful())
        self.assertEqual(self.lookup(again, keys), [True, True])


if __name__ == "__main__":
    unittest.main()
