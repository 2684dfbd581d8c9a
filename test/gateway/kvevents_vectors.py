#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""KV events as vLLM's own classes write them: kvevents_vectors.py KV_EVENTS.PY > kvevents_vectors.h

Needs msgspec, pyzmq and the file vllm/distributed/kv_events.py of a release of vLLM, of which no more than that is
loaded.  Arrays are the same classes with array_like=True, as vLLM had them before mid-2026.
"""
import importlib.util
import pathlib
import sys
import types

import msgspec


def load(path):
    """vLLM's module, without the vLLM around it, of which the classes of events use nothing."""
    for name, has in {"vllm.config.kv_events": "KVEventsConfig", "vllm.logger": "init_logger",
                      "vllm.utils.network_utils": "get_ip get_tcp_uri is_valid_ipv6_address split_zmq_path",
                      "vllm.v1.core.kv_cache_utils": "ExternalBlockHash"}.items():
        parts = name.split(".")
        for i in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
        for word in has.split():
            setattr(sys.modules[name], word, type(word, (), {"__init__": lambda *_: None}))
    sys.modules["vllm.v1.core.kv_cache_utils"].ExternalBlockHash = bytes | int
    spec = importlib.util.spec_from_file_location("kv_events", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vllm = load(sys.argv[1])


def older(cls, fields):
    """The class as vLLM had it: an array."""
    made = [(name, cls.__annotations__[name]) for name in fields]
    return msgspec.defstruct(cls.__name__, made, array_like=True, omit_defaults=True, tag=True)


STORED = ["block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name"]
OldStored = older(vllm.BlockStored, STORED)
OldRemoved = older(vllm.BlockRemoved, ["block_hashes", "medium"])
OldCleared = older(vllm.AllBlocksCleared, [])


def digest(number):
    return bytes((number * 7 + i) % 256 for i in range(32))


def hash_of(number, numbers):
    return int.from_bytes(digest(number)[-8:], "big") if numbers else digest(number)


def batch(arrays, numbers):
    """Two blocks behind another, one of an adapter that begins a prompt, two that go, and the end of all."""
    h = lambda n: hash_of(n, numbers)
    stored, removed, cleared = ((OldStored, OldRemoved, OldCleared) if arrays else
                                (vllm.BlockStored, vllm.BlockRemoved, vllm.AllBlocksCleared))
    common = dict(lora_id=None)
    return [
        stored(block_hashes=[h(1), h(2)], parent_block_hash=h(0), token_ids=[0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1],
               block_size=4, medium="CPU", lora_name=None, **common),
        stored(block_hashes=[h(3)], parent_block_hash=None, token_ids=[9] * 20, block_size=20, medium="STORAGE",
               lora_name="a name that is longer than thirty-one bytes", **common),
        removed(block_hashes=[h(2), h(1)], medium="CPU"),
        cleared(),
    ]


def say(name, data):
    print(f"static const uint8_t {name}[] = {{")
    for at in range(0, len(data), 16):
        print("    " + " ".join(f"0x{byte:02x}," for byte in data[at:at + 16]))
    print("};")


print("/* SPDX-License-Identifier: Apache-2.0")
print(" *\n * Made by kvevents_vectors.py from vLLM 0.33.0's classes and msgspec.\n */")
print("/* clang-format off */")
for arrays in (False, True):
    for numbers in (False, True):
        name = f"{'array' if arrays else 'map'}_{'numbers' if numbers else 'bytes'}"
        say(name, msgspec.msgpack.encode(vllm.KVEventBatch(1.5, batch(arrays, numbers), 0)))
# What Weft never writes: further fields, which readers of events pass over, and no rank.
say("map_rich", msgspec.msgpack.encode(vllm.KVEventBatch(1.5, [vllm.BlockStored(
    block_hashes=[5, 2**63 + 1], parent_block_hash=digest(4), token_ids=[1, 2], block_size=1, lora_id=3, medium="GPU",
    lora_name="x", extra_keys=[("x", ("image", 4)), None], group_idx=2, kv_cache_spec_kind="full", session_id="s",
    lookahead_token_ids=[[1], []])])))
assert pathlib.Path(sys.argv[1]).name == "kv_events.py"
