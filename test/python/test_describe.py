# SPDX-License-Identifier: Apache-2.0
"""Format.describe(): what a node that publishes KV events takes, and what is refused."""
import unittest

import weft
from node import SMALL, Node, payload
from weft.connectors._describe import Describer


class Describes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(WEFT_KV_EVENTS_LISTEN="127.0.0.1:0")
        cls.fabric = cls.node.connect()
        cls.fmt = cls.fabric.format("described@1", **SMALL)

    @classmethod
    def tearDownClass(cls):
        cls.fabric.close()
        cls.node.close()

    def figures(self):
        return self.fabric.query("status")["kv_events"]

    def test_all_forms(self):
        before = self.figures()["described"]
        for i, hashes in enumerate(([bytes([9, n]) for n in range(4)], bytes(range(32)), memoryview(bytes(4 * 64)),
                                    weft.Keys(bytes(4 * 32)), (bytearray([7] * 32),) * 4)):
            tokens = list(range(1000 * i, 1000 * i + 64))
            keys = self.fmt.keys(tokens)
            self.assertEqual(self.fmt.describe(keys, hashes, tokens), 4)
            self.assertEqual(self.figures()["described"], before + 4 * (i + 1))
        self.assertEqual(self.fmt.describe([], []), 0)
        tokens = list(range(7000, 7032))
        keys = self.fmt.keys(tokens)
        self.assertEqual(self.fmt.describe(keys[1:], [b"12345678"], tokens[16:], parent=b"abcdefgh", lora="sql"), 1)

    def test_without_tokens_is_held(self):
        held = self.figures()["held"]
        keys = self.fmt.keys(range(9000, 9032))
        self.assertEqual(self.fmt.describe(keys, [b"1" * 32, b"2" * 32]), 2)
        self.assertEqual(self.figures()["held"], held + 2)
        self.assertEqual(self.fmt.describe(keys, [b"1" * 32, b"2" * 32], tokens=range(9000, 9032)), 2)
        self.assertEqual(self.figures()["held"], held)
        self.fmt.put(keys, [payload(self.fmt, i) for i in range(2)])

    def test_refusals(self):
        keys = self.fmt.keys(range(32))
        for words, hashes, how in (("one hash", [b"1" * 32], {}), ("one hash", b"123", {}), ("one hash", b"", {}),
                                   ("one hash", [b"1" * 65] * 2, {}), ("the first has 2", [b"12", b"1"], {}),
                                   ("31 tokens", bytes(64), {"tokens": range(31)}),
                                   ("parent's hash has 8", bytes(64), {"parent": bytes(8)}),
                                   ("255", bytes(64), {"lora": "x" * 256})):
            with self.subTest(words), self.assertRaises(weft.InvalidError) as caught:
                self.fmt.describe(keys, hashes, **how)
            self.assertIn(words, str(caught.exception))
        for hashes, how in ((None, {}), ([1, 2], {}), (bytes(64), {"tokens": "x"}), (bytes(64), {"parent": "x"})):
            with self.subTest(hashes), self.assertRaises((TypeError, weft.InvalidError)):
                self.fmt.describe(keys, hashes, **how)

    def test_connectors_let_be(self):
        """Whoever describes on the side is never in the way: a node that tells nobody is not asked again for a while."""
        quiet = Node()
        try:
            with quiet.connect() as fabric, fabric.format("described@1", **SMALL) as fmt:
                calls = []

                class Counted:
                    keys_from_bytes = fmt.keys_from_bytes

                    def describe(self, *args, **how):
                        calls.append(how)
                        return fmt.describe(*args, **how)

                describer = Describer(Counted())
                describer.say([b"a"], [bytes(32)])
                describer.say([b"b"], [bytes(32)])
                self.assertEqual(len(calls), 1)
                odd = Describer(Counted())
                odd.say([b"a"], ["no bytes"])
                odd.say([], [])
        finally:
            quiet.close()
