#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A model's weights in memory once, for two processes: weights_once.py [FILE.safetensors | FILE.gguf]

Without a file it makes one of 32 MiB.
"""
import json
import multiprocessing
import os
import struct
import sys
import tempfile

import weft


def sample(path):
    """A safetensors file with one tensor of 32 MiB."""
    size = 32 << 20
    head = json.dumps({"w": {"dtype": "BF16", "shape": [size // 8192, 4096], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + os.urandom(size))


def engine(path, both, say):
    with weft.connect() as fabric, fabric.load(path) as weights:
        touched = sum(tensor.data[i] for tensor in weights.values() for i in range(0, tensor.nbytes, 4096))
        how = "copied it in" if weights.loaded else "maps what was there"
        both.wait()  # the other one has it, too
        held = [each for each in fabric.query("regions")["regions"] if each["name"] == weights.name]
        say.put((how, len(weights), touched, held[0]["bytes"], held[0]["holders"]))
        both.wait()


def main():
    folder = tempfile.TemporaryDirectory()
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(folder.name, "sample.safetensors")
    if len(sys.argv) < 2:
        sample(path)
    context = multiprocessing.get_context("spawn")
    both, say = context.Barrier(2), context.Queue()
    engines = [context.Process(target=engine, args=(path, both, say), daemon=True) for _ in range(2)]
    for each in engines:
        each.start()
    said = [say.get(timeout=600) for _ in engines]
    for each in engines:
        each.join()
    for number, (how, tensors, _, _, _) in enumerate(said, 1):
        print(f"process {number} {how}: {tensors} tensor{'s' if tensors != 1 else ''}")
    _, _, touched, held, holders = said[0]
    same = "the same bytes" if touched == said[1][2] else "OTHER BYTES"
    print(f"{held / 2**20:.1f} MiB once in memory, held by {holders} processes, who read {same}")


if __name__ == "__main__":
    main()
