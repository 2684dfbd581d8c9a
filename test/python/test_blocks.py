# SPDX-License-Identifier: Apache-2.0
"""Put, get, pin, reserve: what comes back is what was put, and what is refused says why."""
import asyncio
import unittest

import weft
from node import Case, payload


class Blocks(Case):
    def test_put_and_get(self):
        keys, contents = self.chain(5)
        with self.fmt.get(keys) as pins:
            self.assertEqual((len(pins), pins.blocks, pins.tokens, pins.loading), (5, 5, 80, 5))
            for i, want in enumerate(contents):
                self.assertEqual(pins[i], want)
                self.assertTrue(pins[i].readonly)
                self.assertEqual(pins.quality(i), "lossless")
            layer = self.fmt.layer_bytes
            self.assertEqual(pins.k(1, 1), contents[1][2 * layer:3 * layer])
            self.assertEqual(pins.v(1, 1), contents[1][3 * layer:])
            self.assertEqual([bytes(block) for block in pins], contents)
            self.refused(IndexError, "block 5 of 5", pins.__getitem__, 5)
            self.refused(IndexError, "layer 2 of a model with 2", pins.k, 0, 2)
            self.refused(weft.InvalidError, "layer 2", pins.wait_layer, 2)
        self.assertEqual(self.fmt.locate(keys), (5, ("dram",) * 5, 0))
        self.assertEqual(self.fmt.quality_of(keys), "lossless")

    def test_put_from_one_buffer_and_again(self):
        keys = self.fmt.keys(range(48))
        whole = b"".join(payload(self.fmt, i) for i in range(3))
        self.assertEqual(self.fmt.put(keys[:2], whole[:2 * self.fmt.block_bytes]), 2)
        self.assertEqual(self.fmt.put(keys, whole), 3)
        self.assertEqual(self.fabric.counters()["blocks_put"], 3)

    def test_put_of_more_than_a_batch(self):
        keys = self.fmt.keys(range(16 * 700))
        self.assertEqual(self.fmt.put(keys, bytes(700 * self.fmt.block_bytes)), 700)
        self.assertEqual(self.fmt.match(keys), 700)
        self.refused(weft.InvalidError, "1 to 512", self.fmt.reserve, keys)

    def test_put_of_the_wrong_size(self):
        keys = self.fmt.keys(range(32))
        self.refused(weft.InvalidError, "block 1 has 5 bytes", self.fmt.put, keys, [payload(self.fmt, 1), b"short"])
        self.refused(weft.InvalidError, "1 buffers for 2 keys", self.fmt.put, keys, [payload(self.fmt, 1)])
        self.refused(weft.InvalidError, "2 blocks", self.fmt.put, keys, bytes(100))
        self.refused(TypeError, "no buffer", self.fmt.put, keys, [1, 2])
        self.assertEqual(self.fmt.match(keys), 0)

    def test_a_parent_that_is_not_there(self):
        keys = self.fmt.keys(range(32))
        self.refused(weft.ParentError, "", self.fmt.reserve, keys[1:], parent=keys[0])

    def test_reserve_fill_commit(self):
        keys, contents = self.chain(1)
        keys = self.fmt.keys(range(48))
        slots = self.fmt.reserve(keys)
        self.assertEqual(slots.statuses(), ["exists", "reserved", "reserved"])
        self.assertIsNone(slots[0])
        self.assertIsNone(slots.k(0, 0))
        with slots[1] as view:
            view[:] = payload(self.fmt, 1)
        layer = self.fmt.layer_bytes
        for number, half in enumerate((slots.k, slots.v)):
            for of in range(2):
                with half(2, of) as view:
                    view[:] = payload(self.fmt, 2)[(2 * of + number) * layer:(2 * of + number + 1) * layer]
        self.assertEqual(slots.commit(), ["exists", "stored", "stored"])
        self.refused(weft.InvalidError, "never changes", slots.write, 1, b"x")
        self.refused(weft.InvalidError, "never changes", slots.__getitem__, 1)
        slots.abort()
        with self.fmt.get(keys) as pins:
            self.assertEqual([bytes(b) for b in pins], contents + [payload(self.fmt, 1), payload(self.fmt, 2)])

    def test_an_exception_aborts(self):
        keys = self.fmt.keys(range(32))
        with self.assertRaises(ZeroDivisionError), self.fmt.reserve(keys) as slots:
            slots.write(0, payload(self.fmt, 0))
            raise ZeroDivisionError
        self.assertEqual(self.fmt.match(keys), 0)
        self.assertEqual(self.fmt.put(keys, bytes(2 * self.fmt.block_bytes)), 2)

    def test_write_stays_inside(self):
        with self.fmt.reserve(self.fmt.keys(range(16))) as slots:
            slots.write(0, b"end", self.fmt.block_bytes - 3)
            self.refused(weft.InvalidError, "of a block that has", slots.write, 0, b"end", self.fmt.block_bytes - 2)
            self.refused(weft.InvalidError, "from 0 to", slots.write, 0, b"end", -1)
            slots.abort()

    def test_pin_and_read_into(self):
        keys, contents = self.chain(2)
        self.assertIsNone(self.fmt.pin(bytes(32)))
        with self.fmt.pin(keys[1]) as pins:
            room = bytearray(self.fmt.block_bytes + 3)
            pins.read_into(0, room, 3)
            self.assertEqual(room[3:], contents[1])
            self.refused(weft.InvalidError, "a block has", pins.read_into, 0, room, 4)
            self.refused(BufferError, "", pins.read_into, 0, bytes(self.fmt.block_bytes))
            self.refused(weft.BusyError, "", self.fmt.remove, keys[0])
        self.refused(weft.InvalidError, "closed", pins.__getitem__, 0)
        self.assertEqual(self.fmt.remove(keys[0]), 2)

    def test_an_opaque_payload(self):
        fmt = self.fabric.format("opaque@1", layers=2, kv_heads=1, head_dim=1, block_bytes=1000)
        key = fmt.key(b"engine's")
        fmt.put(key, bytes(1000))
        with fmt.pin(key) as pins:
            self.assertEqual(len(pins[0]), 1000)
            self.refused(weft.InvalidError, "own payload", pins.k, 0, 0)

    def test_numpy(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("numpy is not installed")
        keys, contents = self.chain(1)
        with self.fmt.get(keys) as pins:
            array = numpy.frombuffer(pins.k(0, 1), dtype="f4").reshape(16, 2, 8)
        self.assertFalse(array.flags.writeable)
        layer = self.fmt.layer_bytes
        self.assertEqual(array.tobytes(), contents[0][2 * layer:3 * layer])
        del array

    def test_asyncio(self):
        keys, contents = self.chain(2)

        async def use():
            with self.fmt.get(keys) as pins:
                await pins.layer(1)
                await pins.block(0)
                return bytes(pins[0])
        self.assertEqual(asyncio.run(use()), contents[0])


class Below(Case):
    """Blocks that have to be brought up first."""
    NODE = {"tier": True, "pool": "16MB"}

    def test_from_below(self):
        fmt = self.fabric.format("below@1", layers=4, kv_heads=8, head_dim=64, dtype="bf16")
        blocks = 32
        tokens = range(16 * blocks + 1)
        with fmt.session(name="below") as session:
            with session.reserve(range(16 * blocks)) as slots:
                for i in range(blocks):
                    slots.write(i, payload(fmt, i))
            session.hint("idle")
            archived = session.archive(timeout_ms=30000)
            self.assertTrue(archived.durable)
            self.assertEqual((archived.blocks, archived.bytes), (blocks, blocks * fmt.block_bytes))
            session.demote()
            match = session.match(tokens)
            self.assertEqual(match.blocks, blocks)
            with session.get(match) as pins:
                for i in range(blocks):  # it waits by itself
                    self.assertEqual(pins[i], payload(fmt, i))

            async def by_layers(order):
                with session.get(session.match(tokens), order) as pins:
                    for layer in range(fmt.layers):
                        await pins.layer(layer)
                    await pins.block(blocks - 1)
                    return [bytes(block) for block in pins]
            session.demote()
            self.assertEqual(asyncio.run(by_layers("layer")), [payload(fmt, i) for i in range(blocks)])
            session.demote()
            self.assertEqual(asyncio.run(by_layers("block")), [payload(fmt, i) for i in range(blocks)])
            self.assertTrue(self.fabric.archive_remove(archived.name))
            self.assertEqual(session.prefetch(tokens), blocks)


if __name__ == "__main__":
    unittest.main()
