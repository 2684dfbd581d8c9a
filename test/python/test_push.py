# SPDX-License-Identifier: Apache-2.0
"""Blocks that go to another node while they are written: two nodes, and what happens to either's client meanwhile."""
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from node import Node

import weft

LAYERS, LAYER, BLOCKS, MOST = 4, 16384, 6, 12
BLOCK = LAYERS * LAYER
FORMAT = {"model": "pushed@1", "layers": LAYERS, "kv_heads": 1, "head_dim": 1, "dtype": "int8", "block_bytes": BLOCK}
# A client that pushes, writes half of it, says so, and waits to be killed.
DIES = """
import sys, weft
fabric = weft.connect(sys.argv[1])
fmt = fabric.format(**eval(sys.argv[2]))
slots = fmt.reserve(fmt.keys_from_bytes([b"dies %d" % i for i in range(6)]))
assert slots.push("right")
for i in range(6):
    slots.write(i, b"x" * 32768)
slots.written(2)
print("half", flush=True)
sys.stdin.read()
"""


def content(name, block):
    return b"".join(bytes([len(name) + 7 * block + layer]) * LAYER for layer in range(LAYERS))


class Push(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="weft-push-")
        cls.addClassCleanup(cls.folder.cleanup)
        secret = os.path.join(cls.folder.name, "secret")
        with open(secret, "wb") as file:
            file.write(b"\x05" * 32)
        os.chmod(secret, 0o600)
        cls.nodes = {}
        for name, other in (("left", "right"), ("right", "left")):
            cls.nodes[name] = Node(settings=[
                f"fabric.name={name}", f"fabric.secret_file={secret}", f"fabric.listen=unix:{cls.folder.name}/{name}",
                f"fabric.join=unix:{cls.folder.name}/{other}", "fabric.push_max=1MB"])
            cls.addClassCleanup(cls.nodes[name].close)
        cls.left, cls.right = (cls.nodes[name].connect() for name in ("left", "right"))
        cls.addClassCleanup(cls.left.close)
        cls.addClassCleanup(cls.right.close)
        cls.here, cls.there = cls.left.format(**FORMAT), cls.right.format(**FORMAT)
        for fabric in (cls.left, cls.right):
            cls.until(lambda fabric=fabric: [node["state"] for node in fabric.query("fabric")["nodes"]] == ["ok"])

    @staticmethod
    def until(holds):
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.005)

    def figure(self, name, fabric=None):
        return (fabric or self.right).query("fabric")["self"][name]

    def settled(self, name, fabric):
        """That figure, when it has not changed for a while: a push is counted after what it brings is there."""
        value, since = self.figure(name, fabric), time.monotonic()
        while time.monotonic() < since + 0.5:
            time.sleep(0.01)
            now = self.figure(name, fabric)
            if now != value:
                value, since = now, time.monotonic()
        return value

    def in_memory(self, keys):
        """On the right; without a word that would have it fetched."""
        for key in keys:
            pins = self.there.pin(key)
            if pins is None:
                return False
            pins.release()
        return True

    def keys(self, name, count=BLOCKS):
        return self.here.keys_from_bytes([f"{name} {i}".encode() for i in range(count)])

    def prefill(self, slots, name, count=BLOCKS):
        for layer in range(LAYERS):
            for i in range(count):
                slots.write(i, content(name, i)[layer * LAYER:(layer + 1) * LAYER], offset=layer * LAYER)
            slots.written(layer + 1)

    def check(self, keys, name):
        self.until(lambda: self.in_memory(keys))
        for i, key in enumerate(keys):
            with self.there.pin(key) as pins:
                found = bytearray(BLOCK)
                pins.read_into(0, found)
                self.assertEqual(bytes(found), content(name, i))

    def all_room_is_free(self, name):
        """A push that takes most of what the right allows goes through."""
        def came():
            return [self.figure("taken"), self.figure("fetches")]

        for tries in itertools.count():
            before, again = came(), f"after {name} {tries}"
            keys = self.keys(again, MOST)
            slots = self.here.reserve(keys)
            slots.push("right")
            self.prefill(slots, again, MOST)
            slots.commit()
            self.check(keys, again)
            self.until(lambda before=before: sum(came()) == sum(before) + MOST)
            if came() == [before[0] + MOST, before[1]]:
                return
            self.assertLess(tries, 100)

    def test_what_is_written_here_is_there_when_it_is_committed(self):
        keys, taken, fetches = self.keys("whole"), self.figure("taken"), self.figure("fetches")
        slots = self.here.reserve(keys)
        self.assertTrue(slots.push("right"))
        self.prefill(slots, "whole")
        self.assertEqual(self.there.match(keys), 0)
        self.assertEqual(slots.commit(), ["stored"] * BLOCKS)
        self.check(keys, "whole")
        self.until(lambda: self.figure("taken") == taken + BLOCKS)
        self.assertEqual(self.figure("fetches"), fetches)

    def test_the_chain_before_it_goes_along(self):
        keys, taken, fetches = self.keys("chain"), self.figure("taken"), self.figure("fetches")
        with self.here.reserve(keys[:3]) as slots:
            for i in range(3):
                slots.write(i, content("chain", i))
        slots = self.here.reserve(keys[3:], parent=keys[2])
        self.assertTrue(slots.push("right"))
        for i in range(3):
            slots.write(i, content("chain", 3 + i))
        slots.commit()  # says that all is written
        self.check(keys, "chain")
        self.until(lambda: self.figure("taken") == taken + BLOCKS)
        self.assertEqual(self.figure("fetches"), fetches)

    def test_what_is_given_up_is_nowhere(self):
        keys, fails = self.keys("given up"), self.figure("push_fails", self.left)
        slots = self.here.reserve(keys)
        slots.push("right")
        self.prefill(slots, "given up")
        slots.abort()
        self.until(lambda: self.figure("push_fails", self.left) > fails)
        self.assertEqual(self.here.match(keys) + self.there.match(keys), 0)
        self.all_room_is_free("given up")

    def test_a_client_that_dies_leaves_nothing(self):
        fails = self.figure("push_fails", self.left)
        client = subprocess.Popen([sys.executable, "-c", DIES, self.nodes["left"].socket, repr(FORMAT)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(client.stdout.readline(), b"half\n")
        client.send_signal(signal.SIGKILL)
        client.communicate()
        self.until(lambda: self.figure("push_fails", self.left) > fails)
        keys = self.keys("dies")
        self.assertEqual(self.here.match(keys) + self.there.match(keys), 0)
        self.all_room_is_free("dies")

    def test_who_has_it_is_sent_nothing(self):
        keys = self.keys("both")
        for fmt in (self.here, self.there):
            if fmt is self.there:
                with fmt.reserve(keys) as slots:
                    for i in range(BLOCKS):
                        slots.write(i, content("both", i))
        slots, sent = self.here.reserve(keys), self.settled("pushed_bytes", self.left)
        slots.push("right")
        self.prefill(slots, "both")
        slots.commit()
        self.check(keys, "both")
        self.assertEqual(self.settled("pushed_bytes", self.left), sent)

    def test_what_finds_no_room_is_fetched_when_it_is_committed(self):
        count = 20  # more than fabric.push_max
        keys, fetches = self.keys("much", count), self.figure("fetches")
        slots = self.here.reserve(keys)
        self.assertTrue(slots.push("right"))
        self.until(lambda: not slots.written(1))
        for i in range(count):
            slots.write(i, content("much", i))
        slots.commit()
        self.check(keys, "much")
        self.until(lambda: self.figure("fetches") == fetches + count)

    def test_sentences(self):
        slots = self.here.reserve(self.keys("wrong"))
        self.addCleanup(slots.abort)
        with self.assertRaisesRegex(weft.Error, "no node is called 'nobody'"):
            slots.push("nobody")
        with self.assertRaisesRegex(weft.Error, "push\\(node\\) comes first"):
            slots.written(1)
        slots.push("right")
        with self.assertRaisesRegex(weft.Error, "5 layers are written of 4"):
            slots.written(5)
        odd = self.left.format(**{**FORMAT, "model": "odd@1", "layers": 3}).reserve(self.keys("odd"))
        self.addCleanup(odd.abort)
        with self.assertRaisesRegex(weft.Error, "evenly"):
            odd.push("right")

    def test_handed_over_by_name(self):
        keys, fetches = self.keys("handed"), self.figure("fetches")
        with self.here.reserve(keys) as slots:
            for i in range(BLOCKS):
                slots.write(i, content("handed", i))
        self.left.hand_over(keys[-1], "right")
        self.check(keys, "handed")
        self.until(lambda: self.figure("fetches") == fetches + BLOCKS)
