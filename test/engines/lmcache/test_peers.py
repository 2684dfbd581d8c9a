#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bugs that users of LMCache met, asked of LMCache with Weft below it; docs/PEERS-BUGS.md has the list."""
import os
import subprocess
import sys
import threading
import unittest

import test_lmcache as base
from lmcache.v1.storage_backend.remote_backend import RemoteBackend
from lmcache.v1.token_database import ChunkedTokenDatabase

from node import Node

CHUNK = base.CHUNK
ROUNDS = 8


class Peers(base.Remote):
    """A chunk is 256 KiB: the small pool holds 120 of them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.small = Node(pool="32MB")
        cls.addClassCleanup(cls.small.close)

    def backend(self, node, **engine):
        """LMCache's own backend, as its storage manager makes it."""
        config = self.config(engine=engine, socket=node.socket)
        metadata = self.metadata()
        local = base.LocalCPUBackend(config, metadata, "cpu", memory_allocator=self.allocator)
        backend = RemoteBackend(config, metadata, self.loop, local, "cpu", plugin_name="weft")
        self.addCleanup(lambda: self.do(backend.connection.close()))
        return backend, ChunkedTokenDatabase(config, metadata)

    @staticmethod
    def prompt(seed, chunks):
        return [seed * 100_000 + i for i in range(chunks * CHUNK)]

    @staticmethod
    def keys(tokens_of, tokens):
        return [key for _, _, key in tokens_of.process_tokens(tokens)]

    def kv(self, seed, number):
        """256 KiB that no other session and no other chunk has."""
        return self.memory(seed * 1000 + number, shape=(2, base.LAYERS, CHUNK, 64))

    def store(self, backend, keys, seed):
        backend.batched_submit_put_task(keys, [self.kv(seed, i) for i in range(len(keys))])
        self.until(lambda: not any(backend.exists_in_put_tasks(key) for key in keys))

    def served(self, backend, keys, seed):
        """How many of a session's chunks came back; each that did is that session's."""
        count = 0
        for i, memory in enumerate(backend.batched_get_blocking(keys)):
            if memory is None:
                continue
            self.same(memory, self.kv(seed, i))
            memory.ref_count_down()
            count += 1
        return count

    def test_4385_a_session_that_returns_from_below_gets_its_own(self):
        """Long sessions, paged out by short requests that go on meanwhile, came back with others' KV."""
        node = Node(pool="16MB", tier=True)
        self.addCleanup(node.close)
        backend, tokens_of = self.backend(node)
        long = {seed: self.keys(tokens_of, self.prompt(seed, 24)) for seed in range(1, 5)}  # 24 MB in a pool of 16
        for seed, keys in long.items():
            self.until(lambda k=keys, s=seed: self.store(backend, k, s) or backend.batched_contains(k) == len(k))
        stop, failed = threading.Event(), []

        def short(first):
            try:
                for seed in range(first, first + 100):
                    keys = self.keys(tokens_of, self.prompt(seed, 2))
                    self.store(backend, keys, seed)
                    self.served(backend, keys, seed)
                    if stop.is_set():
                        return
            except BaseException as error:  # told below, by the test's own thread
                failed.append(error)
        beside = [threading.Thread(target=short, args=(first,)) for first in (1000, 2000)]
        for thread in beside:
            thread.start()
        try:
            for seed, keys in [*long.items()] * 3:
                self.served(backend, keys, seed)
        finally:
            stop.set()
            for thread in beside:
                thread.join()
        self.assertEqual(failed, [])
        for seed, keys in long.items():
            self.until(lambda k=keys, s=seed: self.served(backend, k, s) == len(k))

    def test_987_the_hit_rate_stays(self):
        """One prompt is asked for again and again, beside ever new ones that are, too: hits fell to nothing."""
        backend, tokens_of = self.backend(self.small)
        keys, hits = self.keys(tokens_of, self.prompt(1, 8)), []
        for number in range(ROUNDS):
            self.store(backend, keys, 1)
            for seed in range(4):  # 8 MB a round, and 64 through a pool of 32
                new = self.keys(tokens_of, self.prompt(100 + number * 4 + seed, 8))
                self.store(backend, new, 100 + number * 4 + seed)
                backend.batched_contains(new)
                hits.append((self.served(backend, keys, 1), self.served(backend, new, 100 + number * 4 + seed)))
        late = hits[len(hits) // 2:]  # each of them may miss now and then, as Weft evicts what it thinks least of
        for which in zip(*late):
            self.assertGreater(sum(which), len(late) * 8 // 2, hits)

    def test_1034_what_was_looked_up_and_never_fetched_holds_nothing(self):
        """Lookups pinned what they found, and whoever did not come back left it pinned until all was."""
        backend, tokens_of = self.backend(self.small)
        for seed in range(40):  # 80 MB through a pool of 32
            keys = self.keys(tokens_of, self.prompt(seed, 8))
            # What is stored may be gone the next moment; room for it there must be.
            self.until(lambda k=keys, s=seed: self.store(backend, k, s) or
                       backend.batched_contains(k, pin=True) == len(k))
            backend.contains(keys[0], pin=True)
            self.do(backend.connection.batched_async_contains(f"lookup {seed}", keys, True))
        counters = backend.connection.getWrappedConnector()._fabric.counters()
        self.assertEqual(counters["pins"], counters["unpins"])

    def test_1139_another_process_finds_what_its_own_tokens_name(self):
        """The first name of a chain was a random number of the process's: nobody found what another had stored."""
        backend, tokens_of = self.backend(self.node, pre_caching_hash_algorithm="sha256_cbor")
        keys = self.keys(tokens_of, self.prompt(7, 3))
        self.store(backend, keys, 7)
        code = f"""if True:
            import sys
            sys.path.insert(0, {os.path.dirname(__file__)!r})
            import test_peers as t
            class Other(t.Peers):
                @classmethod
                def setUpClass(cls):
                    cls.allocator = t.base.AdHocMemoryAllocator()
                    cls.node = type("Node", (), {{"socket": {self.node.socket!r}}})
                def id(self):
                    return {self.id()!r}
                def runTest(self):
                    backend, tokens_of = self.backend(self.node, pre_caching_hash_algorithm="sha256_cbor")
                    keys = self.keys(tokens_of, self.prompt(7, 3))
                    self.assertEqual(backend.batched_contains(keys), 3)
                    self.assertEqual(self.served(backend, keys, 7), 3)
            result = t.unittest.TextTestRunner().run(t.unittest.TestSuite([Other()]))
            sys.exit(not (result.wasSuccessful() and result.testsRun == 1))"""
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "random"},
                              capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
