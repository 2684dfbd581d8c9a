#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write docs/vectors/vllm.json anew with vLLM's own code: vectors.py, in a Python that can import vllm."""
import importlib.metadata
import json
import os
import pathlib
import random
import sys

from vllm.utils.hashing import sha256_cbor
from vllm.v1.core import kv_cache_utils

PATH = pathlib.Path(__file__).resolve().parents[3] / "docs" / "vectors" / "vllm.json"


def root(seed):
    os.environ.pop("PYTHONHASHSEED", None)
    if seed is not None:
        os.environ["PYTHONHASHSEED"] = seed
    kv_cache_utils.init_none_hash(sha256_cbor)
    return kv_cache_utils.NONE_HASH


def chain(name, tokens, block_tokens, extras=None, seed=None, parent=None):
    """`extras` maps blocks to tuples as generate_block_hash_extra_keys() makes them."""
    before = parent or root(seed)
    vector = {"name": name, "seed": seed, "parent": before.hex(), "block_tokens": block_tokens, "tokens": tokens,
              "extras": [], "hashes": []}
    for block in range(len(tokens) // block_tokens):
        extra = (extras or {}).get(block)
        before = kv_cache_utils.hash_block_tokens(
            sha256_cbor, before, tokens[block * block_tokens:(block + 1) * block_tokens], extra)
        vector["hashes"].append(before.hex())
        for key in extra or ():
            vector["extras"].append([block, *(part.hex() if isinstance(part, bytes) else part for part in key)])
    return vector


def main():
    numbers = random.Random(6)
    tokens = [numbers.randrange(128256) for _ in range(96)]
    lora, salt = ("lora", "sql", "/adapters/sql"), ("cache_salt", "tenant-7")
    embeds = ("prompt_embeds", bytes(range(32)))
    vectors = [
        chain("plain", tokens, 16),
        chain("a seed", tokens[:32], 16, seed="0"),
        chain("a seed that is a text", tokens[:32], 16, seed="random"),
        chain("after a parent", tokens[:32], 16, parent=bytes(range(1, 33))),
        chain("every width of a number", [0, 23, 24, 255, 256, 65535, 65536, 4294967295], 8),
        chain("one token", [7, 7, 7], 1),
        chain("more than fill a piece", [numbers.randrange(1 << 32) for _ in range(512)], 256),
        chain("a tail is not hashed", tokens[:20], 16),
        chain("LoRA", tokens[:48], 16, {i: (lora,) for i in range(3)}),
        chain("cache_salt", tokens[:48], 16, {0: (salt,)}),
        chain("LoRA of that name without the salt, as one text", tokens[:16], 16,
              {0: (("lora", "sqltenant-7", "/adapters/sql"),)}),
        chain("images", tokens[:64], 16, {0: (("mm", "a" * 64, 3),), 1: (("mm", "a" * 64, -13), ("mm", "b" * 64, 15)),
                                          2: (("mm", "b" * 64, -1),), 3: (("mm", "b" * 64, -300),)}),
        chain("prompt embeddings", tokens[:32], 16, {0: (embeds,), 1: (embeds,)}),
        chain("all of them", tokens[:32], 16, {0: (lora, ("mm", "c\u00e9\u4e16", 0), salt, embeds), 1: (lora, embeds)}),
        chain("texts of all lengths", tokens[:64], 16,
              {0: (("cache_salt", ""),), 1: (("cache_salt", "x" * 23),), 2: (("cache_salt", "x" * 24),),
               3: (("cache_salt", "x" * 300),)}),
    ]
    roots = [{"seed": seed, "root": root(seed).hex()} for seed in (None, "0", "random", "", "x" * 70)]
    made = {"made_by": f"vllm {importlib.metadata.version('vllm')}, sha256_cbor", "roots": roots, "chains": vectors}
    lines = ",\n".join("  " + json.dumps(vector) for vector in vectors)
    heads = ",\n".join("  " + json.dumps(vector) for vector in roots)
    PATH.write_text(f'{{"made_by": {json.dumps(made["made_by"])},\n "roots": [\n{heads}\n ],\n "chains": [\n{lines}\n ]}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
