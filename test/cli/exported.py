# SPDX-License-Identifier: Apache-2.0
"""Exported sessions that are damaged, or lie, or are no files: each is refused in one sentence, and
nothing of it is left on the node.
"""
import ctypes
import os
import struct
import subprocess

from harness import (FOLDER, WEFT, answer, blob, case, check, environment, read, start_node, stop_node, tier_paths,
                     weft)

XXHASH = ctypes.CDLL("libxxhash.so.0")
XXHASH.XXH3_64bits.restype = ctypes.c_uint64
XXHASH.XXH3_64bits.argtypes = (ctypes.c_char_p, ctypes.c_size_t)

# Places in the header; src/cli/session_file.h draws it.
HEADER_BYTES, CHECKSUM, BLOCKS, BLOCK_BYTES, TIP = 12, 16, 24, 32, 72
LAYERS, DTYPE, MODEL_BYTES, HEAD = 112, 124, 140, 176
BLOCK_HEAD, FOOT = 48, 24
PAYLOAD, COUNT = 65536, 5


def digest(data):
    return XXHASH.XXH3_64bits(bytes(data), len(data))


def sealed(data):
    """The file with checksums that fit what it says, as who means harm would make it."""
    data = bytearray(data)
    head = struct.unpack_from("<I", data, HEADER_BYTES)[0]
    struct.pack_into("<Q", data, CHECKSUM, digest(data[24:head]))
    heads = b"".join(bytes(data[at:at + BLOCK_HEAD]) for at in range(head, len(data) - FOOT, BLOCK_HEAD + PAYLOAD))
    struct.pack_into("<QQ", data, len(data) - 16, (len(data) - FOOT - head) // (BLOCK_HEAD + PAYLOAD),
                     digest(bytes(data[:head]) + heads))
    return data


def changed(data, at, form, value):
    data = bytearray(data)
    struct.pack_into(form, data, at, value)
    return data


class Importer:
    def __init__(self, at):
        self.at, self.path = at, os.path.join(FOLDER, "bad.weft")

    def refused(self, path, what, *words, codes=(5,)):
        done = subprocess.run([WEFT, "session", "import", path, *words, *self.at], env=environment(), timeout=20,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        said = done.stderr.decode()
        check(done.returncode in codes, what, "ended with", done.returncode, said)
        check("changed while" not in said, what, "was found out too late:", said)
        check(said.count("\n") == 1 and said.startswith("weft session: ") and not done.stdout, what, "says", repr(said))

    def bad(self, data, what, **how):
        with open(self.path, "wb") as out:
            out.write(data)
        self.refused(self.path, what, **how)

    def nothing_is_there(self):
        status = answer("status", *self.at)
        domain = status["domains"][0]
        check(domain["blocks"] == 0 and domain["blocks_reserved"] == 0, domain)
        check(status["clients"] == 1, "clients are left behind:", status["clients"])  # who asks
        check(answer("session", "ls", *self.at)["archives"] == [], "an archive was made")


def lies(good, head):
    """Right checksums, wrong words."""
    yield "no blocks", changed(good, BLOCKS, "<I", 0)
    for blocks in (COUNT - 1, COUNT + 1, 1 << 18, (1 << 18) + 1, 0xffffffff):
        yield f"{blocks} blocks", changed(good, BLOCKS, "<I", blocks)
    for size in (0, 1, PAYLOAD - 1, PAYLOAD + 1, 0xffffffff, 1 << 32, (1 << 64) - 1):
        yield f"blocks of {size} bytes", changed(good, BLOCK_BYTES, "<Q", size)
    for size in (0, 24, HEAD - 1, head - 1, head + 1, 5360, 5361, 0xffffffff):
        lying = changed(good, HEADER_BYTES, "<I", size)
        yield f"a header of {size} bytes", changed(lying, CHECKSUM, "<Q", digest(lying[24:max(24, min(size, 9999))]))
    for length in (0, 1, 512, 513, 0xffffffff):
        yield f"a model's name of {length} bytes", changed(good, MODEL_BYTES, "<I", length)
    yield "an end in the name", changed(good, HEAD, "<B", 0)
    yield "a line's end in the name", changed(good, HEAD, "<B", 10)
    yield "a tip that is not the last", changed(good, TIP, "<Q", 1)
    first = head + BLOCK_HEAD + PAYLOAD
    yield "a block of another size", changed(good, head + 32, "<Q", PAYLOAD - 1)
    yield "a huge block", changed(good, first + 32, "<Q", (1 << 64) - 1)
    twice = bytearray(good)
    twice[first:first + 32] = good[head:head + 32]
    yield "a key twice", twice


@case
def damaged_exports_are_refused():
    size, chain = ["--block-bytes", "64KB"], blob("whole", COUNT * PAYLOAD, seed=3)
    file, at = os.path.join(FOLDER, "whole.weft"), ["--socket", os.path.join(FOLDER, "exported.sock")]
    node = start_node("32MB", at[1], tier_paths("exported")[:1])
    try:
        weft("put", "--key", "whole", *size, *at, chain)
        weft("session", "archive", "whole", "--key", "whole", *size, "--blocks", str(COUNT), *at)
        weft("session", "export", "whole", "--output", file, *at)
    finally:
        stop_node(node)
    good = read(file)
    head = struct.unpack_from("<I", good, HEADER_BYTES)[0]
    check(len(good) == head + COUNT * (BLOCK_HEAD + PAYLOAD) + FOOT and sealed(good) == good, "not as it is drawn")
    at = ["--socket", os.path.join(FOLDER, "importer.sock")]
    node = start_node("32MB", at[1], tier_paths("importer")[:1])
    try:
        there = Importer(at)
        last = len(good) - FOOT - PAYLOAD - BLOCK_HEAD
        flips = [*range(0, 24, 3), *range(24, head, 7), *range(head, head + BLOCK_HEAD, 5), head + BLOCK_HEAD,
                 last, last + 33, last + 41, last + BLOCK_HEAD + 77, *range(len(good) - FOOT, len(good), 3)]
        for place in flips:
            there.bad(changed(good, place, "<B", good[place] ^ 0x10), f"a flipped bit at {place}", codes=(4, 5))
        ends = [0, 1, 8, 24, HEAD - 1, HEAD, head - 1, head, head + 1, head + BLOCK_HEAD, head + BLOCK_HEAD + 1,
                head + BLOCK_HEAD + PAYLOAD, last, last + BLOCK_HEAD, len(good) - FOOT, len(good) - 1]
        for end in ends:
            there.bad(good[:end], f"{end} bytes of it")
        there.bad(good + b"\0", "a byte more")
        there.bad(good + good, "twice as much")
        for what, data in lies(good, head):
            there.bad(data, what, codes=(4, 5))
            there.bad(sealed(data) if struct.unpack_from("<I", data, HEADER_BYTES)[0] == head else data,
                      what + ", sealed", codes=(2, 3, 4, 5))
        there.bad(b"", "an empty file")
        there.bad(b"\0" * 70000, "zeros")
        there.refused(FOLDER, "a directory", codes=(5, 6))
        there.refused("/dev/zero", "a device", codes=(5,))
        there.refused(os.path.join(FOLDER, "nowhere.weft"), "no file", codes=(6,))
        pipe = os.path.join(FOLDER, "pipe.weft")
        os.mkfifo(pipe)
        there.refused(pipe, "a pipe that nobody writes to", codes=(5,))
        there.refused(file, "too long a name", "--as", "n" * 65, codes=(2,))
        there.nothing_is_there()
        check(f"{COUNT} put now, 0 here before" in weft("session", "import", file, *at).stdout.decode())
        copy = os.path.join(FOLDER, "whole.copy")
        weft("get", "--key", "whole", *size, "--blocks", str(COUNT), "--output", copy, "--verify", *at)
        check(read(copy) == read(chain), "other bytes were imported")
    finally:
        stop_node(node)
