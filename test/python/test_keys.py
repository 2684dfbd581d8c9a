# SPDX-License-Identifier: Apache-2.0
"""Keys: the sequence, the vectors of docs/IDENTITY.md's kind, and what must make a miss."""
import array
import pickle
import unittest

import weft
import weft.vllm
from node import SMALL, Case, payload


class Keys(Case):
    def test_a_sequence_of_32_bytes(self):
        keys = self.fmt.keys(range(64))
        self.assertEqual(len(keys), 4)
        self.assertTrue(all(isinstance(key, bytes) and len(key) == 32 for key in keys))
        self.assertEqual(keys[-1], keys[3])
        self.assertEqual(list(keys[1:3]), [keys[1], keys[2]])
        self.assertEqual(list(keys[::-1]), list(keys)[::-1])
        self.assertEqual(keys[:2] + keys[2:], keys)
        self.assertEqual(b"".join(keys), bytes(keys))
        self.assertEqual(weft.Keys(list(keys)), keys)
        self.assertEqual(hash(weft.Keys(bytes(keys))), hash(keys))
        self.assertEqual(pickle.loads(pickle.dumps(keys[1:])), keys[1:])
        self.assertEqual(len(keys[9:]), 0)
        self.assertTrue(memoryview(keys).readonly)
        with self.assertRaises(IndexError):
            _ = keys[4]

    def test_a_chain_goes_on_from_a_parent(self):
        whole = self.fmt.keys(range(64))
        self.assertEqual(self.fmt.keys(range(32, 64), parent=whole[1]), whole[2:])
        self.assertNotEqual(self.fmt.keys(range(32, 64)), whole[2:])

    def test_tokens_in_every_form(self):
        want = self.fmt.keys(list(range(32)))
        for form in "iIqQ":
            self.assertEqual(self.fmt.keys(array.array(form, range(32))), want, form)
        self.assertEqual(self.fmt.keys(tuple(range(40))), want)  # an unfinished block has no key

    def test_tokens_that_lie_anywhere(self):
        """A part of a message that came by the wire begins where it begins."""
        for code in "iIqQ":
            plain = array.array(code, range(32))
            for shift in (1, 2, 3, 4, 7):
                there = memoryview(bytes(shift) + plain.tobytes())[shift:].cast(code)
                self.assertEqual(self.fmt.keys(there), self.fmt.keys(plain), (code, shift))
                self.assertEqual(weft.vllm.block_hashes(there), weft.vllm.block_hashes(plain))

    def test_tokens_that_are_none(self):
        self.refused(weft.InvalidError, "token 1 is -1", self.fmt.keys, array.array("i", [0, -1]))
        self.refused(weft.InvalidError, "token 0 is 4294967296", self.fmt.keys, array.array("q", [1 << 32]))
        self.refused(weft.InvalidError, "number -1", self.fmt.keys, [-1])
        self.refused(weft.InvalidError, "format 'B'", self.fmt.keys, b"0123")
        with self.assertRaises(TypeError):
            self.fmt.keys(["a"])
        with self.assertRaises(TypeError):
            self.fmt.keys([1.5])

    def test_extra_is_part_of_the_key(self):
        image = bytes(range(32))
        with_image = self.fmt.keys(range(32), extra=[image, bytes(32)])
        without = self.fmt.keys(range(32))
        self.assertNotEqual(with_image[0], without[0])
        self.assertNotEqual(with_image[1], without[1])
        self.assertEqual(self.fmt.keys(range(32), extra=[bytes(32)] * 2), without)
        self.refused(weft.InvalidError, "1 digests", self.fmt.keys, range(32), extra=[image])

    def test_identities_of_engines(self):
        keys = self.fmt.keys_from_bytes([b"a", b"b"])
        self.assertEqual(keys[0], self.fmt.key(b"a"))
        self.assertNotEqual(keys[0], keys[1])
        self.refused(weft.InvalidError, "4096", self.fmt.key, bytes(5000))

    def test_keys_that_are_none(self):
        self.refused(weft.InvalidError, "31 bytes", self.fmt.match, [bytes(31)])
        self.refused(weft.InvalidError, "33 bytes of keys", self.fmt.match, bytes(33))
        self.assertEqual(self.fmt.match([]), 0)
        self.refused(weft.InvalidError, "2 keys where one", self.fmt.pin, bytes(64))


class Misses(Case):
    """What differs in any field is a miss, and never somebody else's block."""

    def test_every_field_of_a_format(self):
        tokens = list(range(16))
        base = {**SMALL, "salt": b"s", "adapter": b"a", "rope_theta": 1e4, "rope_scaling": "x"}
        fmt = self.fabric.format("m@1", **base)
        fmt.put(fmt.keys(tokens), payload(fmt, 1))
        self.assertEqual(fmt.match(fmt.keys(tokens)), 1)
        same = self.fabric.format("m@1", **base)
        self.assertEqual(same.match(same.keys(tokens)), 1)
        others = [("m@2", {})] + [("m@1", change) for change in (
            {"layers": 3}, {"kv_heads": 4}, {"head_dim": 16}, {"dtype": "f16"}, {"dtype": "bf16"},
            {"block_tokens": 8}, {"tp_rank": 1, "tp_size": 2}, {"rope_theta": 5e5}, {"rope_scaling": "y"},
            {"adapter": b"b"}, {"adapter": b""}, {"salt": b"t"}, {"salt": b""}, {"layers": 1, "kv_heads": 4})]
        for model, change in others:
            with self.subTest(model=model, change=change):
                other = self.fabric.format(model, **{**base, **change})
                self.assertEqual(other.match(other.keys(tokens)), 0)
                self.assertIsNone(other.pin(other.keys(tokens)[0]))

    def test_a_key_of_another_size_of_block(self):
        key = self.fmt.key(b"one identity")
        other = self.fabric.format("m@1", **{**SMALL, "head_dim": 16})
        self.fmt.put(key, payload(self.fmt, 1))
        self.assertIsNone(other.pin(key))

    def test_a_session_salt(self):
        with self.fmt.session(salt=b"mine") as one, self.fmt.session(salt=b"yours") as two:
            with one.reserve(range(32)) as slots:
                for i in range(2):
                    slots.write(i, payload(self.fmt, i))
            self.assertEqual(one.match(range(33)).blocks, 2)
            self.assertEqual(two.match(range(33)).blocks, 0)


class Formats(Case):
    def test_fields(self):
        self.assertEqual(self.fmt.block_bytes, 2 * 2 * 16 * 2 * 8 * 4)
        self.assertEqual(self.fmt.layer_bytes, 16 * 2 * 8 * 4)
        self.assertEqual((self.fmt.layers, self.fmt.block_tokens, self.fmt.quality), (2, 16, "lossless"))
        self.assertIs(self.fmt.fabric, self.fabric)

    def test_refusals_name_the_field(self):
        self.refused(weft.InvalidError, "layers", self.fabric.format, "m", **{**SMALL, "layers": 0})
        self.refused(weft.InvalidError, "dtype 'f17'", self.fabric.format, "m", **{**SMALL, "dtype": "f17"})
        self.refused(weft.InvalidError, "4294967298", self.fabric.format, "m", **{**SMALL, "layers": (1 << 32) + 2})
        self.refused(weft.InvalidError, "quality", self.fabric.format, "m", quality="best", **SMALL)
        self.refused(weft.InvalidError, "NUL", self.fabric.format, "m\0x", **SMALL)

    def test_names_of_torch(self):
        class Dtype:
            def __str__(self):
                return "torch.bfloat16"
        self.assertEqual(self.fabric.format("m", **{**SMALL, "dtype": Dtype()}).block_bytes, self.fmt.block_bytes // 2)


if __name__ == "__main__":
    unittest.main()
