# SPDX-License-Identifier: Apache-2.0
"""Weights once a host: two formats, several processes, loaders that die, files that lie."""
import json
import multiprocessing
import os
import random
import signal
import struct
import time
import unittest

import weft
from node import Case


def safetensors(tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)."""
    head, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    if metadata:
        head["__metadata__"] = metadata
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def text(word):
    return struct.pack("<Q", len(word)) + word.encode()


def gguf(tensors, values=(), version=3):
    """tensors: name -> (type, dimensions innermost first, bytes); values: (name, type, encoded)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    for name, kind, encoded in values:
        head += text(name) + struct.pack("<I", kind) + encoded
    data = b""
    for name, (kind, sizes, content) in tensors.items():
        head += text(name) + struct.pack("<I", len(sizes)) + b"".join(struct.pack("<Q", size) for size in sizes)
        head += struct.pack("<IQ", kind, len(data))
        data += content + bytes(-len(content) % 32)
    return head + bytes(-len(head) % 32) + data


FLOATS = struct.pack("<8f", *range(8))
GOOD = {"a.weight": ("F32", [2, 4], FLOATS), "b": ("BF16", [3], bytes(range(6))), "none": ("F16", [0, 4], b"")}


def load_there(socket, path, queue):
    with weft.connect(socket) as fabric, fabric.load(path) as weights:
        queue.put((weights.loaded, bytes(weights["a.weight"].data)))


def die_half_way(socket, path, ready):
    import weft._weights as inside

    def stop(*_):
        ready.set()
        time.sleep(600)
    inside._copy = stop
    weft.connect(socket).load(path)


class Weights(Case):
    def file(self, name, content):
        path = os.path.join(self.node.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_safetensors(self):
        with self.fabric.load(self.file("a.safetensors", safetensors(GOOD, {"format": "pt"}))) as weights:
            self.assertEqual(set(weights), set(GOOD))
            tensor = weights["a.weight"]
            self.assertEqual((tensor.dtype, tensor.shape, tensor.nbytes), ("f32", (2, 4), 32))
            self.assertEqual(tensor.data, FLOATS)
            self.assertTrue(tensor.data.readonly)
            self.assertEqual(weights.metadata, {"format": "pt"})
            self.assertEqual(weights["none"].nbytes, 0)
            self.assertTrue(weights.loaded)
        self.assertEqual(tensor.data, FLOATS)  # still viewed, still there

    def test_gguf(self):
        block = bytes(range(34))
        path = self.file("a.gguf", gguf(
            {"w": (8, [32, 2], block * 2), "f": (0, [4, 2], FLOATS)},
            [("general.architecture", 8, text("llama")), ("n", 4, struct.pack("<I", 7)),
             ("list", 9, struct.pack("<IQ", 8, 2) + text("x") + text("y")),
             ("numbers", 9, struct.pack("<IQ3f", 6, 3, 1, 2, 3))]))
        with self.fabric.load(path) as weights:
            self.assertEqual((weights["w"].dtype, weights["w"].shape), ("q8_0", (2, 32)))
            self.assertEqual(weights["w"].data, block * 2)
            self.assertEqual((weights["f"].shape, bytes(weights["f"].data)), ((2, 4), FLOATS))
            self.assertEqual(weights.metadata, {"general.architecture": "llama", "n": 7, "list": ["x", "y"],
                                                "numbers": [1, 2, 3]})
            self.refused(weft.InvalidError, "q8_0", weights["w"].numpy)

    def test_numpy_and_torch(self):
        with self.fabric.load(self.file("n.safetensors", safetensors(GOOD))) as weights:
            try:
                import numpy
                self.assertEqual(weights["a.weight"].numpy().tolist(), [[0, 1, 2, 3], [4, 5, 6, 7]])
                self.assertEqual(weights["b"].numpy().dtype, numpy.uint16)
            except ImportError:
                self.skipTest("numpy is not installed")

    def test_two_processes_share_one(self):
        path = self.file("two.safetensors", safetensors(GOOD))
        here = self.fabric.load(path)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        there = context.Process(target=load_there, args=(self.node.socket, path, queue))
        there.start()
        self.assertEqual(queue.get(timeout=60), (False, FLOATS))
        there.join()
        self.assertEqual(len(self.fabric.query("regions")["regions"]), 1)
        here.release()

    def test_a_loader_that_dies_half_way(self):
        path = self.file("dies.safetensors", safetensors(GOOD))
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        loader = context.Process(target=die_half_way, args=(self.node.socket, path, ready))
        loader.start()
        self.assertTrue(ready.wait(60))
        self.refused(weft.TimedOutError, "still being loaded", self.fabric.load, path, timeout=0.2)
        os.kill(loader.pid, signal.SIGKILL)
        loader.join()
        with self.fabric.load(path, timeout=30) as weights:
            self.assertTrue(weights.loaded)
            self.assertEqual(weights["a.weight"].data, FLOATS)

    def test_a_name_that_is_another_files(self):
        with self.fabric.load(self.file("x.safetensors", safetensors(GOOD)), name="model"):
            other = self.file("y.safetensors", safetensors({"c": ("U8", [3], b"abc")}))
            self.refused(weft.InvalidError, "another file", self.fabric.load, other, name="model")
        self.fabric.load(other, name="model").release()
        with self.fabric.allocate(8192, share="read", name="mine") as region:
            memoryview(region)[:8] = b"anything"
            self.refused(weft.InvalidError, "no weights", self.fabric.load, other, name="mine")
        self.refused(weft.InvalidError, "1 to 55", self.fabric.load, other, name="x" * 56)

    def test_hostile_safetensors(self):
        def entry(**change):
            fields = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}
            head = json.dumps({"t": fields}).encode()
            return struct.pack("<Q", len(head)) + head + bytes(8)
        two = b'{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"u":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}'
        twice = b'{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        bad = {
            "beyond": entry(data_offsets=[0, 12], shape=[3]), "backwards": entry(data_offsets=[8, 0]),
            "short": entry(shape=[3]), "negative": entry(shape=[-2]), "huge": entry(shape=[1 << 40, 1 << 40]),
            "float": entry(shape=[2.0]), "bool": entry(shape=[True, 2]), "dtype": entry(dtype="F33"),
            "no dtype": entry(dtype=None), "shape": entry(shape="2"), "offsets": entry(data_offsets=[0]),
            "overlap": struct.pack("<Q", len(two)) + two + bytes(8),
            "twice": struct.pack("<Q", len(twice)) + twice,
            "long head": struct.pack("<Q", 1 << 60) + b"{}", "no JSON": struct.pack("<Q", 2) + b"{x",
            "deep": struct.pack("<Q", 100001) + b"{" + b"[" * 100000, "list": struct.pack("<Q", 2) + b"[]",
            "empty": b"", "tiny": b"abc", "noise": random.Random(1).randbytes(500),
        }
        for name, content in bad.items():
            with self.subTest(name):
                path = self.file("bad.safetensors", content)
                error = self.refused(weft.InvalidError, path, self.fabric.load, path)
                self.assertNotIn("\n", str(error))
        self.assertEqual(self.fabric.query("regions")["regions"], [])

    def test_hostile_gguf(self):
        good = gguf({"f": (0, [4, 2], FLOATS)}, [("n", 4, struct.pack("<I", 7))])
        bad = {
            "version": gguf({}, version=1), "count": b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0) + bytes(64),
            "values": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 62) + bytes(64),
            "array": gguf({}, [("a", 9, struct.pack("<IQ", 4, 1 << 61))]),
            "texts": gguf({}, [("a", 9, struct.pack("<IQ", 8, 1 << 61))]),
            "arrays": gguf({}, [("a", 9, struct.pack("<IQ", 9, 1) * 8)]),
            "type of value": gguf({}, [("a", 99, b"")]), "type": gguf({"t": (77, [32], bytes(64))}),
            "rows": gguf({"t": (8, [33], bytes(34))}), "huge": gguf({"t": (0, [1 << 40, 1 << 40], b"")}),
            "beyond": gguf({"t": (0, [100], bytes(4))}), "many sizes": gguf({"t": (0, [1] * 9, bytes(4))}),
            "alignment": gguf({"t": (0, [1], bytes(4))}, [("general.alignment", 4, struct.pack("<I", 3))]),
        }
        for name, content in bad.items():
            with self.subTest(name):
                path = self.file("bad.gguf", content)
                self.refused(weft.InvalidError, path, self.fabric.load, path)
        seed = random.Random(7)
        for number in range(300):  # cut or changed anywhere: loaded within bounds, or a sentence
            content = bytearray(good[:seed.randrange(8, len(good) + 1)])
            for _ in range(seed.randrange(3)):
                content[seed.randrange(len(content))] = seed.randrange(256)
            try:
                with self.fabric.load(self.file("bad.gguf", bytes(content)), name="fuzz") as weights:
                    self.assertGreaterEqual(sum(len(bytes(tensor.data)) for tensor in weights.values()), 0)
            except weft.InvalidError:
                pass
            except Exception as error:
                raise AssertionError(f"number {number}: {bytes(content)!r}") from error
        self.assertEqual(self.fabric.query("regions")["regions"], [])


if __name__ == "__main__":
    unittest.main()
