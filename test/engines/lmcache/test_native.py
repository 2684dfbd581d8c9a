#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""WeftNative by itself: no LMCache is needed."""
import os
import select
import unittest

import here  # noqa: F401
import weft
from node import Node
from weft.connectors.lmcache import WeftNative

MIB = 1 << 20


def chunk(number, size=MIB):
    return bytes([number % 251]) * size


class Native(unittest.TestCase):
    NODE = {"pool": "256MB"}

    @classmethod
    def setUpClass(cls):
        cls.node = Node(**cls.NODE)
        cls.addClassCleanup(cls.node.close)

    def client(self, **how):
        how = {"weights": self.id(), "dtype": "bf16", "socket": self.node.socket, **how}
        client = WeftNative(**how)
        self.addCleanup(client.close)
        return client

    def wait(self, client, *ids):
        """{id: (ok, error, bools)} when all of `ids` are done."""
        done, ids = {}, set(ids)
        while not ids <= set(done):
            self.assertTrue(select.select([client.event_fd()], [], [], 60)[0], "no completion came")
            for number, *rest in client.drain_completions():
                self.assertNotIn(number, done)
                done[number] = tuple(rest)
        return done

    def one(self, client, number):
        return self.wait(client, number)[number]

    def store(self, client, names, values):
        return self.one(client, client.submit_batch_set(names, [memoryview(v) for v in values]))

    def load(self, client, names, sizes):
        room = [bytearray(b"\xee" * size) for size in sizes]
        ok, error, there = self.one(client, client.submit_batch_get(names, room))
        return ok, there, room

    def exists(self, client, names):
        return self.one(client, client.submit_batch_exists(names))[2]

    def test_store_load_exists_delete(self):
        client = self.client()
        names = [f"m@0@0@{i:064x}" for i in range(40)]
        values = [chunk(i, MIB if i % 3 else MIB - 4096 * i) for i in range(40)]
        self.assertEqual(self.exists(client, names), [False] * 40)
        self.assertEqual(self.store(client, names, values), (True, "", [True] * 40))
        self.assertEqual(self.exists(client, names + ["m@0@0@ff"]), [True] * 40 + [False])
        ok, there, room = self.load(client, names, [len(v) for v in values])
        self.assertTrue(ok and all(there))
        self.assertEqual([bytes(r) for r in room], values)
        self.assertEqual(self.one(client, client.submit_batch_delete(names[:2] + ["none"]))[2], [True, True, False])
        self.assertEqual(self.exists(client, names[:3]), [False, False, True])


if __name__ == "__main__":
    unittest.main()
