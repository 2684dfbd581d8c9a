#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second derivation of Weft's roots and keys, from docs/IDENTITY.md and the standard library alone.

Run plainly it checks that docs/vectors/identity.json is what this derivation gives, and that what must differ
differs.  `--write` writes that file anew.  The C tests read the same file, so neither side can drift alone.
"""
import hashlib
import hmac
import json
import pathlib
import struct
import sys
import unittest

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "vectors" / "identity.json"

QUALITIES = {"lossless": 1, "transparent": 2, "economy": 3}
DTYPES = {"f32": 1, "f16": 2, "bf16": 3, "fp8_e4m3": 4, "fp8_e5m2": 5, "int8": 6}


def u32(value):
    return struct.pack("<I", value)


def field(name, data):
    return name.encode("ascii") + u32(len(data)) + data


def layout(spec):
    return b"".join([
        field("M", spec["model"].encode("utf-8")),
        field("L", u32(spec["layers"])),
        field("H", u32(spec["kv_heads"])),
        field("D", u32(spec["head_dim"])),
        field("E", u32(DTYPES[spec["dtype"]])),
        field("B", u32(spec["block_tokens"])),
        field("r", u32(spec["tp_rank"])),
        field("s", u32(spec["tp_size"] or 1)),
        field("f", struct.pack("<d", spec["rope_theta"] + 0.0)),
        field("c", spec["rope_scaling"].encode("utf-8")),
        field("A", bytes.fromhex(spec["adapter"])),
    ])


def end(spec):
    """Only a layout that asks for better than its domain has a quality here."""
    quality = field("Q", u32(QUALITIES[spec["quality"]])) if "quality" in spec else b""
    return field("O", struct.pack("<Q", spec["block_bytes"])) + quality


def root_message(spec, session_salt):
    salts = field("S", bytes.fromhex(spec["salt"])) + field("U", session_salt)
    return b"weftroot" + layout(spec) + salts + end(spec)


def root(secret, spec, session_salt):
    return hmac.new(secret, root_message(spec, session_salt), hashlib.sha256).digest()


def format_digest(spec):
    return hashlib.sha256(b"weftfmt1" + layout(spec) + end(spec)).digest()


def key_message(parent, tokens, extra):
    return (b"weftkey1" + field("T", b"".join(u32(token) for token in tokens)) +
            field("X", extra if any(extra) else b"") + field("P", parent))


def chain(parent, tokens, block_tokens, extra):
    keys = []
    for block in range(len(tokens) // block_tokens):
        part = tokens[block * block_tokens:(block + 1) * block_tokens]
        parent = hashlib.sha256(key_message(parent, part, extra[block] if extra else b"")).digest()
        keys.append(parent)
    return keys


def opaque(root_key, data):
    return hashlib.sha256(b"weftraw1" + field("R", root_key) + field("B", data)).digest()


def domain_tag(secret):
    label = b"weft-domain-tag"
    return hashlib.sha256(b"weftdom1" + field("N", label) +
                          field("H", hmac.new(secret, label, hashlib.sha256).digest())).digest()


# ---------------------------------------------------------------------------------------------- the file

PLAIN = dict(model="llama-3-8b@0f1e2d3c4b5a69788796a5b4c3d2e1f0", layers=32, kv_heads=8, head_dim=128, dtype="bf16",
             block_tokens=16, tp_rank=0, tp_size=0, rope_theta=500000.0, rope_scaling="", adapter="", salt="",
             block_bytes=0)


def bytes_of(label, count):
    """Bytes that look random and are the same everywhere."""
    out = b""
    while len(out) < count:
        out += hashlib.sha256(f"{label} {len(out)}".encode()).digest()
    return out[:count]


def tokens_of(label, count):
    return [value % 128256 for value in struct.unpack(f"<{count}I", bytes_of(label, 4 * count))]


def roots_to_publish():
    secret = bytes(range(32))
    return [
        ("plain", secret, PLAIN, b""),
        ("another secret", bytes_of("secret", 32), PLAIN, b""),
        ("a secret longer than SHA-256's block", bytes_of("long", 100), PLAIN, b""),
        ("a secret of exactly SHA-256's block", bytes_of("block", 64), PLAIN, b""),
        ("salted format", secret, PLAIN | dict(salt="73616c74"), b""),
        ("salted session: not the same as a salted format", secret, PLAIN, b"salt"),
        ("both salts", secret, PLAIN | dict(salt="73616c74"), b"session"),
        ("adapter", secret, PLAIN | dict(adapter=bytes_of("adapter", 32).hex()), b""),
        ("rank 1 of 4", secret, PLAIN | dict(tp_rank=1, tp_size=4, kv_heads=2), b""),
        ("rope scaling", secret, PLAIN | dict(rope_scaling='{"factor":8.0,"rope_type":"llama3"}'), b""),
        ("no rotary positions", secret, PLAIN | dict(rope_theta=0.0), b""),
        ("fp8", secret, PLAIN | dict(dtype="fp8_e4m3", block_tokens=256), b""),
        ("opaque payload", secret, PLAIN | dict(block_bytes=2097152), b""),
        ("better than its domain: lossless", secret, PLAIN | dict(quality="lossless"), b""),
        ("better than its domain: transparent", secret, PLAIN | dict(quality="transparent", salt="73616c74"), b""),
        ("model name beyond ASCII", secret, PLAIN | dict(model="modèle-千@v1", rope_theta=1e4 / 3), b""),
        ("all extremes", secret, PLAIN | dict(model="m" * 512, layers=1024, kv_heads=4096, head_dim=4096, dtype="f32",
                                              block_tokens=65536, tp_rank=4294967294, tp_size=4294967295,
                                              adapter="ff" * 256, salt="00" * 256), bytes(256)),
    ]


def chains_to_publish():
    first = root(bytes(range(32)), PLAIN, b"")
    digests = [bytes_of(f"image {i}", 32) for i in range(40)]
    none = bytes(32)
    return [
        ("one token a block", first, tokens_of("one", 5), 1, None),
        ("all bits of a token", first, [0, 0xFFFFFFFF, 0x01020304, 0x80000000], 2, None),
        ("16 tokens a block", first, tokens_of("sixteen", 16 * 40), 16, None),
        ("a chain that goes on from a key", chain(first, tokens_of("sixteen", 32), 16, None)[-1],
         tokens_of("sixteen", 16 * 40)[32:64], 16, None),
        ("some blocks with a digest of images", first, tokens_of("sixteen", 16 * 6), 16,
         [none, digests[0], none, digests[1], digests[1], none]),
        ("every block with one", first, tokens_of("extra", 12 * 20), 12, digests[:20]),
        ("13 tokens: one compression and one byte before X", first, tokens_of("thirteen", 13 * 18), 13, None),
        ("256 tokens a block", first, tokens_of("256", 256 * 3), 256, None),
    ]


def document():
    secret = bytes(range(32))
    plain = root(secret, PLAIN, b"")
    return {
        "about": "Test vectors of docs/IDENTITY.md. Byte strings are hexadecimal. Written by "
                 "test/python/identity_vectors.py --write",
        "roots": [
            dict(name=name, secret=key.hex(), format=spec, session_salt=salt.hex(),
                 message=root_message(spec, salt).hex(), root=root(key, spec, salt).hex(),
                 format_digest=format_digest(spec).hex())
            for name, key, spec, salt in roots_to_publish()],
        "chains": [
            dict(name=name, parent=parent.hex(), block_tokens=size, tokens=tokens,
                 extra=[digest.hex() for digest in extra] if extra else None,
                 first_message=key_message(parent, tokens[:size], extra[0] if extra else b"").hex(),
                 keys=[key.hex() for key in chain(parent, tokens, size, extra)])
            for name, parent, tokens, size, extra in chains_to_publish()],
        "opaque": [
            dict(root=plain.hex(), bytes=data.hex(), key=opaque(plain, data).hex())
            for data in (b"\0", b"engine-hash-1", bytes_of("opaque", 32), bytes_of("opaque", 4096))],
        "domain_tags": [
            dict(secret=key.hex(), tag=domain_tag(key).hex())
            for key in (secret, bytes_of("secret", 32), bytes_of("block", 64), bytes_of("long", 100))],
    }


def text():
    """JSON with one entry a line, so that a change shows as the entries that changed."""
    parts = document()
    out = "{\n" + f' "about": {json.dumps(parts["about"])}'
    for name in ("roots", "chains", "opaque", "domain_tags"):
        rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in parts[name])
        out += f',\n "{name}": [\n  {rows}\n ]'
    return out + "\n}\n"


class Identity(unittest.TestCase):
    def test_file_is_what_is_derived(self):
        self.assertEqual(VECTORS.read_text(encoding="utf-8"), text(), "run with --write if the format changed")

    def test_all_roots_differ(self):
        found = [root(key, spec, salt) for _, key, spec, salt in roots_to_publish()]
        self.assertEqual(len(found), len(set(found)))

    def test_a_tag_is_no_root_and_no_secret(self):
        found = [domain_tag(key) for key in (b"a" * 32, b"b" * 32)]
        self.assertNotEqual(*found)
        self.assertNotIn(b"a" * 32, found)
        self.assertFalse(root_message(PLAIN, b"").startswith(b"weft-domain-tag"))

    def test_every_field_is_in_the_root(self):
        changed = dict(model="x", layers=31, kv_heads=7, head_dim=64, dtype="f16", block_tokens=32, tp_rank=1, tp_size=2,
                       rope_theta=1e4, rope_scaling="x", adapter="00", salt="00", block_bytes=1)
        self.assertEqual(set(changed), set(PLAIN))
        base = root(b"k", PLAIN, b"")
        for name, value in changed.items():
            self.assertNotEqual(base, root(b"k", PLAIN | {name: value}, b""), name)
        self.assertNotEqual(base, root(b"k", PLAIN | dict(quality="lossless"), b""))
        self.assertEqual(base, root(b"k", PLAIN | dict(tp_size=1), b""), "rank 0 of 0 is rank 0 of 1")
        self.assertEqual(root(b"k", PLAIN | dict(rope_theta=0.0), b""), root(b"k", PLAIN | dict(rope_theta=-0.0), b""))

    def test_fields_cannot_run_into_each_other(self):
        split = [root(b"k", PLAIN | dict(adapter=a.hex(), salt=s.hex()), u)
                 for a, s, u in ((b"ab", b"", b""), (b"a", b"b", b""), (b"", b"ab", b""), (b"", b"a", b"b"), (b"", b"", b"ab"))]
        self.assertEqual(len(split), len(set(split)))

    def test_usual_sizes_have_one_serial_compression(self):
        for size in (16, 32, 64, 128, 256):
            message = key_message(bytes(32), [0] * size, b"")
            padded = (len(message) + 9 + 63) // 64
            self.assertEqual(padded - (len(message) - 32) // 64, 1, size)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        VECTORS.parent.mkdir(parents=True, exist_ok=True)
        VECTORS.write_text(text(), encoding="utf-8")
    else:
        unittest.main()
