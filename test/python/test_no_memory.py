# SPDX-License-Identifier: Apache-2.0
"""The Nth allocation of a call fails, for every N: Python's, the extension's and libweft's alike.

Each call is answered, or refused with a MemoryError or a sentence; it crashes never, holds nothing afterwards, and works
when it is asked again.  FAILING_MALLOC names the library that makes malloc fail; the calls run in a process of their own
that has it preloaded.
"""
import ctypes
import faulthandler
import gc
import os
import subprocess
import sys
import unittest

import weft
from node import Case, payload

LIBRARY = os.environ.get("FAILING_MALLOC")
MOST = 3000  # allocations of one call
OUT_OF_MEMORY = (MemoryError, weft.Error, ctypes.ArgumentError)


def calls(fabric, fmt):
    """Name and call."""
    tokens = list(range(64))
    keys = fmt.keys(tokens)
    contents = [payload(fmt, i) for i in range(4)]
    fmt.put(keys, contents)
    room = bytearray(fmt.block_bytes)
    values = fabric.connector("no-memory", workers=1)
    values.put(["there"], [b"x" * 100], ["m"])
    lines = memoryview(bytes(64 * 8)).cast("q")

    def get():
        with fmt.get(keys) as pins:
            return bytes(pins.k(0, 1)), bytes(pins[3]), pins.read_into(1, room), pins.quality(0)

    def pin():
        with fmt.pin(keys[0]) as pins:
            return bytes(pins[0])

    def reserve():
        new = fmt.keys(range(5000, 5032))
        fmt.remove(new[0])
        with fmt.reserve(new) as slots:
            slots.write(0, contents[0])
            with slots[1] as view:
                view[:4] = b"KV.."
            return slots.commit()

    def put():
        new = fmt.keys(range(6000, 6016))
        return fmt.put(new, [contents[2]]), fmt.remove(new[0])

    def session():
        with fmt.session(name="chat") as one:
            match = one.match(tokens + [1])
            with one.get(match) as pins:
                first = bytes(pins[0])
            one.hint("idle")
            with one.reserve(tokens + list(range(16)), from_token=64) as slots:
                slots.abort()
            with one.fork() as other:
                return first, match.blocks, other.match(tokens + [1]).blocks

    def region():
        with fabric.allocate("64KB", share="read", name="r") as mine, fabric.open("r") as theirs:
            memoryview(mine)[:3] = b"abc"
            return bytes(memoryview(theirs)[:3]), bytes(theirs.view(1, 1))

    def value():
        return (values.put(["n", b"o"], [b"x", b"yy"], ["a", "b"]), values.exists(["n"]), values.look(["n", "none"]),
                values.get(["n", "there"], [bytearray(1), bytearray(100)], ["a", "m"]), values.remove(["n", "o"]))

    def connect():
        with weft.connect() as other:
            with other.format("model@other", layers=1, kv_heads=1, head_dim=8, salt="s") as one:
                return one.match(one.key(b"none"))

    def connector():
        with fabric.connector("no-memory", workers=2) as one:
            return one.exists(["there"])
    return {"keys": lambda: fmt.keys(tokens).__reduce__()[1], "keys of a buffer": lambda: bytes(fmt.keys(lines)),
            "keys_from_bytes": lambda: bytes(fmt.keys_from_bytes([b"a", b"b"])), "slices": lambda: bytes(keys[::2] + [keys[0]]),
            "locate": lambda: (fmt.match(keys), fmt.locate(keys), fmt.quality_of(keys), fmt.prefetch(keys)),
            "hashes of vLLM": lambda: bytes(weft._weft._vllm_hashes(tokens, 16, None, [(0, 1, "n", "p", 0)])),
            "counters": lambda: set(fabric.counters()), "refused": lambda: refused(fmt), "get": get, "pin": pin,
            "reserve": reserve, "put": put, "session": session, "region": region, "value": value, "connect": connect,
            "connector": connector}


def refused(fmt):
    said = []
    for call in (lambda: fmt.match(b"x"), lambda: fmt.pin(None), lambda: fmt.keys([-1]), lambda: fmt.session(name="n" * 300)):
        try:
            call()
        except weft.InvalidError as error:
            said.append(str(error))
    return said


def code_of(library):
    """From which address to which it lies."""
    with open("/proc/self/maps", encoding="ascii") as file:
        lines = [line.split()[0].split("-") for line in file if line.rstrip().endswith(library)]
    return int(lines[0][0], 16), int(lines[-1][1], 16)


def child():
    faulthandler.enable()
    library = ctypes.CDLL(LIBRARY)
    fail, failed = library.fail_malloc, library.fail_malloc_failed
    fail.argtypes, fail.restype = (ctypes.c_uint64,) * 4, None
    failed.restype = ctypes.c_uint64
    # One allocation of anybody's, and all of ours from one on: Python's own would leave nothing to tell of it with.
    modes = ((1, 0, (1 << 64) - 1), (1 << 62, *code_of("_weft.abi3.so")))
    with weft.connect() as fabric:
        fmt = fabric.format("model@no-memory", layers=2, kv_heads=2, head_dim=8, dtype="f32", block_tokens=16)
        refused(fmt)  # the room for sentences is made, by the loader, which aborts when it cannot
        for name, call in calls(fabric, fmt).items():
            if sys.argv[2:] and name not in sys.argv[2:]:
                continue
            want, errors = call(), [0, 0]
            for mode, how in enumerate(modes):
                errors[mode] = each_allocation(name, call, want, lambda n, how=how: fail(n, *how), failed)
                gc.collect()
                counters = fabric.counters()
                if counters["pins"] != counters["unpins"]:
                    raise AssertionError(f"{name}: {counters}")
                if call() != want:
                    raise AssertionError(f"{name} no longer answers {want!r}")
            print(f"{name}: {errors[0]} {errors[1]}", flush=True)


def each_allocation(name, call, want, fail, failed):
    """Let the first fail, the second, ... until none is left; how many errors that gave."""
    errors = 0
    for n in range(1, MOST):
        got = None
        try:
            fail(n)
            got = call()
        except OUT_OF_MEMORY:
            errors += 1
        except SystemError as error:  # CPython 3.11's own when it cannot have a frame; of a call of ours it says "returned"
            if str(error) != "error return without exception set":
                raise
        count = 1
        try:
            count = failed()
            fail(0)
        except OUT_OF_MEMORY:
            fail(0)
        if got is not None and got != want:
            raise AssertionError(f"{name}, allocation {n}: {got!r} and not {want!r}")
        if not count:
            return errors
    raise AssertionError(f"{name} has more than {MOST} allocations")


@unittest.skipUnless(LIBRARY, "FAILING_MALLOC names no library; a sanitizer's malloc cannot be made to fail so")
class NoMemory(Case):
    def test_every_allocation_fails(self):
        done = subprocess.run([sys.executable, __file__, "child"], check=False, capture_output=True, text=True,
                              env={**os.environ, "LD_PRELOAD": LIBRARY, "PYTHONMALLOC": "malloc",
                                   "WEFT_SOCKET": self.node.socket})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 17, done.stdout)
        self.assertTrue(all(int(line.split()[-2]) > 0 for line in done.stdout.splitlines()), done.stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child()
    else:
        unittest.main()
