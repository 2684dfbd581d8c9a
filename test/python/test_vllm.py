# SPDX-License-Identifier: Apache-2.0
"""weft.vllm: block hashes against what vLLM made (docs/vectors/vllm.json)."""
import json
import pathlib
import unittest

import weft
import weft.vllm

VECTORS = json.loads((pathlib.Path(__file__).resolve().parents[2] / "docs" / "vectors" / "vllm.json").read_text())


class Hashes(unittest.TestCase):
    def test_what_vllm_made(self):
        for vector in VECTORS["chains"]:
            with self.subTest(vector["name"]):
                extra = [() for _ in vector["hashes"]]
                for block, kind, *rest in vector["extras"]:
                    rest = [bytes.fromhex(rest[0])] if kind == "prompt_embeds" else rest
                    extra[block] += ((kind, *rest),)
                made = weft.vllm.block_hashes(vector["tokens"], vector["block_tokens"], extra=extra,
                                              parent=bytes.fromhex(vector["parent"]))
                self.assertEqual([each.hex() for each in made], vector["hashes"])
        for root in VECTORS["roots"]:
            self.assertEqual(weft.vllm.none_hash(root["seed"]).hex(), root["root"])
        seeded = next(vector for vector in VECTORS["chains"] if vector["seed"] == "0")
        self.assertEqual(weft.vllm.block_hashes(seeded["tokens"], 16, seed="0")[1].hex(), seeded["hashes"][1])

    def test_refusals(self):
        for words, how in (("('lora', name, path)", {"extra": [(("lora", "name"),)]}),
                           ("full blocks", {"extra": [None, None, (("cache_salt", "x"),)]}),
                           ("one of them", {"seed": "0", "parent": bytes(32)}), ("0 tokens", {"block_tokens": 0})):
            with self.subTest(words), self.assertRaises(weft.InvalidError) as caught:
                weft.vllm.block_hashes(range(32), **how)
            self.assertIn(words, str(caught.exception))
