# SPDX-License-Identifier: Apache-2.0
"""What vLLM calls a block, from its tokens alone: no vLLM is needed, and no node.

    import weft, weft.vllm

    hashes = weft.vllm.block_hashes(tokens, 16)     # what --prefix-caching-hash-algo sha256_cbor makes
    keys = fmt.keys_from_bytes(hashes)              # the keys of blocks that an engine named so

The default algorithm of vLLM, `sha256`, hashes Python's pickle of the same things and is not made here.
"""
from . import _weft

_LORA, _MM, _SALT, _EMBEDS = 1, 2, 3, 4


def none_hash(seed=None):
    """The hash before a chain's first block; `seed` is the engine's PYTHONHASHSEED, None when it is not set."""
    return _weft._vllm_root(seed)


def block_hashes(tokens, block_tokens=16, *, parent=None, seed=None, extra=None):
    """The 32-byte hashes of the full blocks of `tokens`, as weft.Keys.

    parent: hash of the block before the first; none: the chain's root, of `seed`.
    extra: what vLLM's generate_block_hash_extra_keys() makes, one for each full block: None, or a tuple of
        ("lora", name, path), ("mm", identifier, offset), ("cache_salt", salt), ("prompt_embeds", digest of 32 bytes).
    """
    if parent is None:
        parent = none_hash(seed)
    elif seed is not None:
        raise _weft.InvalidError("a seed makes the root of a chain, and a parent takes its place; give one of them")
    listed = []
    for block, keys in enumerate(extra or ()):
        for key in keys or ():
            listed.append((block, *_extra(key)))
    return _weft._vllm_hashes(tokens, block_tokens, parent, listed)


def _extra(key):
    match tuple(key):
        case ("lora", str() as name, str() as path):
            return _LORA, name, path, 0
        case ("mm", str() as identifier, int() as offset) if -1 << 63 <= offset < 1 << 63:
            return _MM, identifier, "", offset
        case ("cache_salt", str() as salt):
            return _SALT, salt, "", 0
        case ("prompt_embeds", bytes() as digest):
            return _EMBEDS, digest, "", 0
    raise _weft.InvalidError(f"an extra key {key!r}; vLLM has ('lora', name, path), ('mm', identifier, offset), "
                             "('cache_salt', salt) and ('prompt_embeds', digest)")
