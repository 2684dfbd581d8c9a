# SPDX-License-Identifier: Apache-2.0
"""Every call a thousand times, those that are refused too: nothing grows.

Four counts stand in for sys.gettotalrefcount(), which only Python's debug builds have: the objects that the collector
knows, the bytes that Python allocated (tracemalloc), the bytes that malloc gave out, which has libweft's, and the
references to what is never freed.  What leaks once a call leaks a thousand times, so a little a call is room for noise.
"""
import asyncio
import ctypes
import gc
import os
import sys
import threading
import time
import tracemalloc
import unittest

import weft
import weft.vllm
from node import Case, payload

# A sanitizer's build finds lost memory by itself (run.py), and is slow; and tracemalloc loses some of its own.
SANITIZED = "LD_PRELOAD" in os.environ
ROUNDS = 100 if SANITIZED else 1000


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]


def malloc_bytes():
    """What malloc has given out; 0 where another malloc took its place, as a sanitizer's does."""
    look = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if not look:
        return 0
    look.restype = Mallinfo
    found = look()
    return found.uordblks + found.hblkhd


def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except (weft.Error, TypeError, IndexError, BufferError, ValueError):
        return
    raise AssertionError(f"{call} was not refused")


class Leaks(Case):
    def counts(self):
        gc.collect()
        lasting = (None, True, False, self.fmt, self.fabric, weft.Keys, weft.Pins, weft.Slots, weft.Session, weft.Region,
                   weft.Format, weft.Fabric, weft.Error, weft.InvalidError, weft.Match)
        return (len(gc.get_objects()), tracemalloc.get_traced_memory()[0], malloc_bytes(),
                *(sys.getrefcount(each) for each in lasting))

    def check(self, name, call, rounds=ROUNDS):
        rounds = min(rounds, ROUNDS)
        with self.subTest(name):
            for _ in range(rounds // 10):
                call()
            if not SANITIZED:
                tracemalloc.start()
            try:
                for _ in range(rounds // 10):
                    call()
                before = self.counts()
                for _ in range(rounds):
                    call()
                objects, python, malloc, *references = [now - then for now, then in zip(self.counts(), before)]
            finally:
                tracemalloc.stop()
            self.assertLess(objects, rounds // 10 + 20, "objects")
            self.assertLess(python, 8 * rounds + 8192, "bytes of Python's")
            self.assertLess(malloc, 8 * rounds + 65536, "bytes of malloc's")
            self.assertLess(max(references), rounds // 10 + 20, f"references: {references}")

    def test_keys(self):
        keys, fmt, tokens = self.chain(4)[0], self.fmt, list(range(64))
        self.check("keys", lambda: fmt.keys(tokens))
        self.check("keys of a buffer", lambda: fmt.keys(memoryview(bytes(256)).cast("I")))
        self.check("keys of a wide buffer", lambda: fmt.keys(memoryview(bytes(512)).cast("q")))
        self.check("keys with a parent and extra", lambda: fmt.keys(tokens, parent=keys[0], extra=bytes(4 * 32)))
        self.check("key", lambda: fmt.key(b"name"))
        self.check("keys_from_bytes", lambda: fmt.keys_from_bytes([b"a", b"b"]))
        self.check("a list of keys", lambda: weft.Keys([keys[0], keys[1]]) + keys[1:] + keys[::2])
        self.check("as a value", lambda: (hash(keys), repr(keys), keys == keys[:], bytes(memoryview(keys)), keys.__reduce__()))
        self.check("hashes of vLLM", lambda: weft.vllm.block_hashes(tokens, extra=[(("lora", "n", "p"),), None, None, None]))

    def test_keys_refused(self):
        fmt, keys, tokens = self.fmt, self.chain(2)[0], list(range(64))
        for words in ([-1], [1 << 32], ["x"], "text", None, 7, b"abc", memoryview(bytes(8)).cast("d"),
                      memoryview(b"\xff" * 8).cast("i"), memoryview(b"\xff" * 8).cast("q")):
            self.check(f"tokens {words!r}", lambda words=words: refused(fmt.keys, words))
        self.check("extra", lambda: refused(fmt.keys, tokens, extra=bytes(32)))
        self.check("parent", lambda: refused(fmt.keys, tokens, parent=keys))
        self.check("parent's type", lambda: refused(fmt.keys, tokens, parent=3))
        self.check("key", lambda: refused(fmt.key, "text"))
        self.check("keys_from_bytes", lambda: refused(fmt.keys_from_bytes, [b"good", 3]))
        self.check("keys_from_bytes of nothing", lambda: refused(fmt.keys_from_bytes, 3))
        self.check("short key", lambda: refused(weft.Keys, [keys[0], b"short"]))
        self.check("short bytes", lambda: refused(weft.Keys, b"short"))
        self.check("key of a list that is none", lambda: refused(weft.Keys, [keys[0], 3]))
        self.check("index", lambda: refused(keys.__getitem__, 99))
        self.check("sum", lambda: refused(keys.__add__, [b"x"]))
        self.check("hashes of vLLM", lambda: refused(weft.vllm.block_hashes, tokens, 16, extra=[(("mm", "a", 1 << 70),)]))
        self.check("hashes, extra", lambda: refused(weft._weft._vllm_hashes, tokens, 16, None, [(1, 1, "x"), 3]))

    def test_blocks(self):
        fmt, (keys, contents) = self.fmt, self.chain(4)
        room = bytearray(fmt.block_bytes)

        def get():
            with fmt.get(keys) as pins:
                pins.k(0, 1), pins.v(1, 0), pins[2], list(pins)
                pins.read_into(3, room)
                pins.wait_layer(1), pins.wait_block(0), pins.quality(0)
                (pins.blocks, pins.tokens, pins.loading, pins.released)
                refused(pins.k, 9, 0), refused(pins.v, 0, 9), refused(pins.__getitem__, 4)
                refused(pins.read_into, 0, b"fixed"), refused(pins.quality, 77), refused(pins.wait_layer, 99)

        def pin():
            with fmt.pin(keys[0]) as pins:
                pins[0]
            fmt.pin(bytes(32))

        def reserve():
            new = fmt.keys(range(5000, 5032))
            with fmt.reserve(new) as slots:
                slots.write(0, contents[0])
                with slots[1] as view:
                    view[:1] = b"x"
                slots.k(0, 1), slots.v(1, 1), slots.status(0), slots.statuses(), slots.first_block
                refused(slots.write, 0, contents[0], 1), refused(slots.write, 5, b""), refused(slots.k, 0, 77)
                refused(slots.status, "x")
            refused(slots.write, 0, b"x"), refused(slots.commit)
            fmt.remove(new[0])

        def abort():
            fmt.reserve(fmt.keys(range(6000, 6032))).abort()
            view = fmt.reserve(fmt.keys(range(6000, 6032)))[0]
            del view
            try:
                with fmt.reserve(fmt.keys(range(6000, 6016))):
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass

        def put():
            new = fmt.keys(range(7000, 7032))
            fmt.put(new, [contents[0], contents[1]], lost=None)
            fmt.put(new, bytes(2 * fmt.block_bytes), insist=True)
            refused(fmt.put, new, [contents[0]]), refused(fmt.put, new, [contents[0], b"short"])
            refused(fmt.put, new, [contents[0], 3]), refused(fmt.put, new, b"short"), refused(fmt.put, new, 3)
            refused(fmt.put, new, [], lost="much"), refused(fmt.put, 3, []), refused(fmt.put, new, [], parent=b"x")
            fmt.remove(new[0])
        for call in (get, pin, reserve, abort, put):
            self.check(call.__name__, call)
        self.check("looks", lambda: (fmt.match(keys), fmt.locate(keys), fmt.quality_of(keys), fmt.prefetch(keys, within_ms=1)))
        self.check("looks refused", lambda: (refused(fmt.match, b"x"), refused(fmt.locate, b"x"), refused(fmt.quality_of, 1),
                                             refused(fmt.prefetch, keys, within_ms=-1), refused(fmt.get, keys, order="x"),
                                             refused(fmt.pin, None), refused(fmt.pin, keys), refused(fmt.remove, None),
                                             refused(fmt.archive, "n", None), refused(fmt.archive, "", keys[0])))

    def test_waits_in_a_loop(self):
        keys, _ = self.chain(2)
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def wait():
            with self.fmt.get(keys) as pins:
                await pins.layer(0)
                await pins.block(1)
                try:
                    await pins.block(9)
                except weft.InvalidError:
                    pass
        self.check("wait", lambda: loop.run_until_complete(wait()))

    def test_sessions(self):
        keys, _ = self.chain(4)
        tokens = list(range(65))

        def session():
            with self.fmt.session(name="s", priority=1, salt=b"") as one:
                match = one.match(tokens)
                with one.get(match) as pins:
                    pins[0]
                one.reserve(list(range(80)), from_token=64).abort()
                one.hint("idle", returns_in_ms=5, tip=keys[-1])
                one.prefetch(tokens)
                one.fork(name="t").close()
                one.id
                refused(one.hint, "asleep"), refused(one.match, 3), refused(one.get, 3), refused(one.get, match[:3])
                refused(one.reserve, tokens, -1), refused(one.fork, name=3), refused(one.archive, -1)
            refused(one.match, tokens)
        self.check("session", session)
        self.check("no session", lambda: (refused(self.fmt.session, name="n" * 300), refused(self.fmt.session, salt=3)))

    def test_fabrics_and_formats(self):
        fabric = self.fabric
        spec = {"layers": 1, "kv_heads": 1, "head_dim": 8}

        def formats():
            with fabric.format("one", **spec, adapter=b"a", salt="s", rope_scaling="x", quality="lossless") as fmt:
                (fmt.block_bytes, fmt.layer_bytes, fmt.block_tokens, fmt.layers, fmt.quality, fmt.fabric)
            refused(lambda: fmt.quality)

        def refuse():
            refused(fabric.format, "m", **{**spec, "layers": 0}), refused(fabric.format, None)
            refused(fabric.format, "m", dtype="f33"), refused(fabric.format, "m", adapter=3)
            refused(fabric.format, "m", adapter=b"a", salt=b"s", quality="much"), refused(fabric.format, "a\0b")
            refused(fabric.query, "nothing"), refused(fabric.archive_remove, "nobody"), refused(fabric.load, __file__)
            refused(fabric.connector, "m", workers=99), refused(fabric.connector, ""), refused(fabric.connector, "m", workers=0)

        def connect():
            self.node.connect(timeout=3).close()
        self.check("formats", formats)
        self.check("refused", refuse)
        self.check("queries", lambda: (fabric.query("status"), fabric.counters(), fabric.closed))
        self.check("connect", connect, 300)
        self.check("no node", lambda: refused(weft.connect, "/nowhere/socket", timeout=1))
        self.check("no such timeout", lambda: refused(weft.connect, "/nowhere/socket", timeout=-1))
        self.check("size_parse", lambda: (weft.size_parse("4KB"), refused(weft.size_parse, "x"), refused(weft.size_parse, 3)))

    def test_regions(self):
        fabric = self.fabric

        def region():
            with fabric.allocate(8192, share="read", name="leaky") as mine:
                memoryview(mine)[:1] = b"x"
                mine.view(8, 8)
                (mine.size, mine.name, mine.writable, mine.released)
                with fabric.open("leaky") as theirs:
                    memoryview(theirs)
                refused(mine.view, 9000), refused(fabric.allocate, 1, name="leaky"), refused(fabric.release, 3)
            refused(memoryview, mine), refused(fabric.open, "nobody"), refused(fabric.allocate, 1, latency="x")
        self.check("region", region, 300)

    def test_connectors(self):
        with self.fabric.connector("leaks", workers=2) as values:
            room = bytearray(100)

            def calls():
                values.put(["a", b"b"], [b"x" * 100, b"y" * 100], ["m", ""])
                values.get(["a", "none"], [room, bytearray(5)], ["m", ""])
                values.exists(["a"]), values.look(["a", "none"]), values.remove(["b"])
                values.submit_batch_set(["c"], [b"z"]), values.submit_batch_exists(["c"])
                done = 0
                while done < 2:
                    done += len(values.drain_completions())
                refused(values.put, ["a"], []), refused(values.put, ["a", 3], [b"", b""]), refused(values.get, ["a"], [b"fixed"])
                refused(values.put, ["a"], [b"x"], ["m", "n"]), refused(values.look, ["x" * 3000]), refused(values.exists, 3)
                refused(values.put, ["a", "b"], [b"x", 3])
            self.check("connector", calls, 300)
        self.check("made and closed", lambda: self.fabric.connector("leaks", workers=1).close(), 200)

    def test_objects_in_threads(self):
        keys, contents = self.chain(2)

        def work():
            with self.fmt.get(keys) as pins:
                assert pins[1] == contents[1]
            self.fmt.put(self.fmt.keys(range(900, 916)), payload(self.fmt, 3))

        def threads():
            both = [threading.Thread(target=work) for _ in range(2)]
            for each in both:
                each.start()
            for each in both:
                each.join()
        self.check("threads", threads, 200)

    def test_resident_memory_is_bounded(self):
        """Counts that nothing above sees: pages of maps that stay mapped."""
        def resident():
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[0]) * 4096  # mapped, whether or not it was touched

        def cycle():
            with self.node.connect() as fabric:
                fmt = fabric.format(f"model@{self.id()}", layers=1, kv_heads=1, head_dim=8)
                fmt.put(fmt.key(b"k"), bytes(fmt.block_bytes))
                fabric.allocate("1MB").release()
        for _ in range(20):
            cycle()
        before = resident()
        for _ in range(100):
            cycle()
        until = time.monotonic() + 20
        while resident() - before > 50 << 20 and time.monotonic() < until:
            time.sleep(0.1)
        self.assertLess(resident() - before, 50 << 20)  # the pool alone is 64 MB


if __name__ == "__main__":
    unittest.main()
