#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""WeftNative by itself: no LMCache is needed."""
import os
import select
import subprocess
import sys
import time
import unittest

import weft
from node import Node
from weft.connectors.lmcache import WeftNative

MIB = 1 << 20


def chunk(number, size=MIB):
    return bytes([number % 251]) * size


class Case(unittest.TestCase):
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



class Native(Case):
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

    def test_200_batches_at_once(self):
        client = self.client(workers=8)
        names = [[f"m@0@0@{n:x}.{i}" for i in range(5)] for n in range(200)]
        done = self.wait(client, *[client.submit_batch_set(names[n], [chunk(n, 65536 + n)] * 5) for n in range(200)])
        self.assertTrue(all(ok for ok, _, _ in done.values()))
        rooms = [[bytearray(65536 + n) for _ in range(5)] for n in range(200)]
        ids = [client.submit_batch_get(names[n], rooms[n]) for n in range(200)]
        looks = [client.submit_batch_exists(names[n]) for n in range(200)]
        done = self.wait(client, *ids, *looks)
        for n in range(200):
            self.assertEqual((done[ids[n]], done[looks[n]]), ((True, "", [True] * 5), (True, "", [True] * 5)))
            self.assertEqual(rooms[n], [bytearray(chunk(n, 65536 + n))] * 5)

    def test_an_empty_batch_completes(self):
        client = self.client()
        self.assertEqual(self.one(client, client.submit_batch_get([], [])), (True, "", []))

    def test_another_length_is_a_miss(self):
        client = self.client()
        self.store(client, ["k"], [chunk(1, 5000)])
        for size in (4999, 5001, 1, 10000):
            ok, there, room = self.load(client, ["k"], [size])
            self.assertEqual((ok, there, bytes(room[0])), (True, [False], b"\xee" * size))
        self.assertEqual(self.load(client, ["k"], [5000])[1], [True])

    def test_a_value_that_is_stored_anew_with_another_length(self):
        client = self.client()
        self.store(client, ["k"], [chunk(1, 5000)])
        self.assertEqual(self.store(client, ["k"], [chunk(2, 6000)])[2], [True])
        self.assertEqual(self.load(client, ["k"], [5000])[1], [False])
        ok, there, room = self.load(client, ["k"], [6000])
        self.assertEqual((there, bytes(room[0])), ([True], chunk(2, 6000)))

    def test_names_do_not_run_into_each_other(self):
        client = self.client()
        self.store(client, ["model@1@2"], [b"x" * 100])
        for name in ("model@1", "model@1@2@", "model@1@2\0", "model@1@2 ", "MODEL@1@2", "@1@2"):
            self.assertEqual(self.exists(client, [name]), [False], name)
        values = client._connector
        values.put(["ab"], [b"y" * 100], ["c"])
        self.assertEqual(values.get(["ab", "a", "abc"], [bytearray(100) for _ in range(3)], ["c", "bc", ""]),
                         [True, False, False])
        self.assertEqual(values.look(["ab", "a"]), [(100, b"c"), None])

    def test_other_weights_dtype_or_salt_is_a_miss(self):
        """LMCache#4385 and its like: nobody is served what somebody else's model made."""
        self.store(self.client(), ["k"], [b"x" * 100])
        self.assertEqual(self.exists(self.client(), ["k"]), [True])
        for change in ({"weights": "others"}, {"dtype": "fp8_e4m3"}, {"salt": "tenant"}):
            other = self.client(**change)
            self.assertEqual(self.exists(other, ["k"]), [False])
            self.assertEqual(self.load(other, ["k"], [100])[1], [False])
        with self.node.connect() as fabric:  # a domain of its own cannot be had here, but another name can
            self.assertEqual(fabric.connector("lmcache").exists(["k"]), [False])

    def test_what_is_not_said_is_refused(self):
        for how, words in (({"dtype": "bf16"}, "which weights"), ({"weights": "w"}, "leave out the KV cache's dtype"),
                           ({"weights": "w", "dtype": "bf16", "host": "x"}, "no setting 'host'"),
                           ({"model": "no/such-model", "dtype": "bf16"}, "not on this machine")):
            with self.assertRaisesRegex(ValueError, words):
                WeftNative(socket=self.node.socket, **how)
        with self.assertRaises(weft.NodeError):
            WeftNative(socket="/nowhere/node.sock", weights="w", dtype="bf16")

    def test_what_cannot_be_asked_is_refused(self):
        client = self.client()
        for call, words in ((lambda: client.submit_batch_set(["a", "b"], [b"x"]), "2 names and 1 buffers"),
                            (lambda: client.submit_batch_exists(["x" * 3000]), "2024"),
                            (lambda: client.submit_batch_exists([7]), "neither str nor bytes"),
                            (lambda: client.submit_batch_get(["a"], [b"read-only"]), "not writable|read-only")):
            with self.assertRaisesRegex((weft.Error, TypeError, BufferError), words):
                call()
        ok, error, stored = self.store(client, ["", "good"], [b"x", b"y"])
        self.assertEqual((ok, stored), (False, [False, True]))
        self.assertIn("the name has none", error)

    def test_a_record_without_its_payload_is_a_miss(self):
        client = self.client()
        self.store(client, ["k"], [b"x" * 777])
        fabric, model = client._fabric, "lmcache-native@" + client._identity
        fmt = fabric.format(model, layers=1, kv_heads=1, head_dim=1, dtype="int8", block_tokens=1, block_bytes=777,
                            quality="lossless")
        field = lambda tag, data: tag + len(data).to_bytes(4, "little") + data  # noqa: E731
        key = fmt.key(b"weftval1" + field(b"P", b"") + field(b"N", b"k") + field(b"M", b"") +
                      field(b"L", (777).to_bytes(8, "little")))
        self.assertEqual(fmt.remove(key), 1)
        self.assertEqual(self.exists(client, ["k"]), [False])
        self.assertEqual(self.load(client, ["k"], [777])[1], [False])
        self.assertEqual(self.store(client, ["k"], [b"x" * 777])[2], [True])
        self.assertEqual(self.load(client, ["k"], [777])[1], [True])

    def test_close_with_work_left(self):
        client = self.client(workers=1)
        ids = [client.submit_batch_set([f"{n}.{i}" for i in range(16)], [chunk(n)] * 16) for n in range(20)]
        client.close()
        client.close()
        done = {each[0]: each for each in client.drain_completions()}
        self.assertEqual(sorted(done), sorted(ids))
        self.assertTrue(all(done[n][1] or "closed" in done[n][2] for n in ids))
        with self.assertRaisesRegex(weft.Error, "closed"):
            client.submit_batch_exists(["x"])

    def test_two_processes(self):
        client = self.client()
        self.store(client, ["k"], [chunk(7, 12345)])
        code = f"""if True:
            import sys
            from weft.connectors.lmcache import WeftNative
            client = WeftNative(weights={self.id()!r}, dtype="bf16", socket={self.node.socket!r})
            room = bytearray(12345)
            assert client._connector.get(["k"], [room]) == [True]
            assert room == bytes([7]) * 12345
            client._connector.put(["back"], [b"z" * 99])"""
        where = os.pathsep.join(sys.path)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "PYTHONPATH": where})
        self.assertEqual(self.load(client, ["back"], [99])[1], [True])


class Full(Case):
    """Nodes that must evict: what was stored may be gone the next moment, but is never wrong."""

    def test_a_store_that_failed_is_seen_by_nobody(self):
        """LMCache#4991: failed stores stayed visible."""
        client = self.client()
        names = [f"big{i}" for i in range(4)]
        ok, error, stored = self.store(client, names, [bytes(90 * MIB)] * 4)  # more than the pool has
        self.assertFalse(all(stored))
        self.assertFalse(ok)
        self.assertIn("room", error)
        self.assertEqual(self.exists(client, names), stored)
        self.one(client, client.submit_batch_delete(names))

    def test_many_more_than_the_pool_holds(self):
        """LMCache#987, #1034: hit rates that go to nothing, since what was looked up stays held."""
        client = self.client()
        hits = 0
        for n in range(60):
            names = [f"n{n}.{i}" for i in range(10)]
            self.store(client, names, [chunk(n)] * 10)
            _, loaded, rooms = self.load(client, names, [MIB] * 10)
            self.assertTrue(all(room == chunk(n) for room, is_loaded in zip(rooms, loaded) if is_loaded))
            hits += sum(loaded) if n >= 30 else 0
        self.assertGreater(hits, 200)  # of the last 300
        counters = client._fabric.counters()
        self.assertEqual(counters["pins"], counters["unpins"])

    def test_a_writer_killed_in_a_set_leaves_nothing(self):
        code = f"""if True:
            from weft.connectors.lmcache import WeftNative
            client = WeftNative(weights={self.id()!r}, dtype="bf16", socket={self.node.socket!r}, workers=2)
            data = bytes([9]) * {MIB}
            print("go", flush=True)
            for n in range(100000):
                client._connector.put([f"{{n % 50}}.{{i}}" for i in range(8)], [data] * 8)"""
        where = os.pathsep.join(sys.path)
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "PYTHONPATH": where})
        with writer:
            writer.stdout.readline()
            time.sleep(0.3)
            writer.kill()
        client = self.client()
        names = [f"{n}.{i}" for n in range(50) for i in range(8)]
        there = self.exists(client, names)
        _, loaded, rooms = self.load(client, [n for n, is_there in zip(names, there) if is_there], [MIB] * sum(there))
        for is_loaded, room in zip(loaded, rooms):
            self.assertTrue(not is_loaded or room == bytes([9]) * MIB)
        self.assertTrue(self.store(client, names[:8], [chunk(9)] * 8)[0])


class NearlyFull(Case):
    """A value is two blocks, and a pool that has no room for the second must not take the first for it."""
    NODE = {"pool": "16MB", "settings": ("pool.size_max=16MB",)}

    def put_and_get(self, client, names, values):
        """How many were stored; each of these is there, and no other."""
        ok, error, stored = self.store(client, names, values)
        self.assertEqual(ok, all(stored))
        self.assertTrue(ok or "room" in error, error)
        _, loaded, rooms = self.load(client, names, [len(value) for value in values])
        self.assertEqual(loaded, stored)
        self.assertTrue(all(room == value for room, value, is_loaded in zip(rooms, values, loaded) if is_loaded))
        return sum(stored)

    def test_one_that_fills_the_pool(self):
        client = self.client()
        stored = [self.put_and_get(client, [f"n{n}"], [chunk(n, 16 * MIB - n % 3 * 4096)]) for n in range(12)]
        self.assertEqual(stored, [0, 1, 1] * 4)  # the first of three leaves no room for its record

    def test_as_many_as_fill_the_pool(self):
        client = self.client()
        stored = 0
        for n in range(25):
            size = (MIB, 2 * MIB, 100000, 900000, MIB - 2048)[n % 5]
            stored += self.put_and_get(client, [f"n{n}.{i}" for i in range(16)], [chunk(n, size)] * 16)
        self.assertGreater(stored, 250)

    def test_one_whose_record_was_there(self):
        """What is stored again is held as what is new: one whose record says the same, or something else."""
        client = self.client()
        for n in range(24):
            names = [f"n{n % 3}.{i}" for i in range(8)]
            self.put_and_get(client, names, [chunk(n % 3, 2 * MIB - 4096 * (n % 4 == 3))] * 8)


class Below(Case):
    """With a tier that takes what the pool has no room for."""
    NODE = {"pool": "64MB", "tier": True}

    def test_values_come_back_from_below(self):
        client = self.client()
        names = [f"n{i}" for i in range(120)]
        for i, name in enumerate(names):
            ok = False
            for _ in range(200):  # the tier is written as fast as it is
                ok = self.store(client, [name], [chunk(i)])[0]
                if ok:
                    break
                time.sleep(0.05)
            self.assertTrue(ok, name)
        there = self.exists(client, names)
        self.assertGreater(sum(there), 60)
        kept = [i for i, is_there in enumerate(there) if is_there]
        _, loaded, rooms = self.load(client, [names[i] for i in kept[:40]], [MIB] * 40)
        self.assertEqual(loaded, [True] * 40)
        self.assertEqual([bytes(room) for room in rooms], [chunk(i) for i in kept[:40]])


class Away(Case):
    def test_the_node_is_killed_and_comes_back(self):
        client = self.client()
        self.store(client, ["k"], [b"x" * 100])
        self.node.kill()
        ok, error, there = self.one(client, client.submit_batch_exists(["k"]))
        self.assertEqual((ok, there), (False, [False]))
        self.assertTrue(error)
        self.assertEqual(self.load(client, ["k"], [100])[:2], (False, [False]))
        self.assertEqual(self.store(client, ["k"], [b"x" * 100])[2], [False])
        self.node.start()
        end = time.monotonic() + 60
        while not self.one(client, client.submit_batch_exists(["k"]))[0]:  # it is not asked for at every call
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.assertEqual(self.exists(client, ["k"]), [False])
        self.assertEqual(self.store(client, ["k"], [b"y" * 100]), (True, "", [True]))
        ok, there, room = self.load(client, ["k"], [100])
        self.assertEqual((ok, there, bytes(room[0])), (True, [True], b"y" * 100))


if __name__ == "__main__":
    unittest.main()
