# SPDX-License-Identifier: Apache-2.0
"""A node of the tests' own, and what several of them need: WEFTD names the program."""
import ctypes
import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import weft

WEFTD = os.environ.get("WEFTD", "weftd")
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def die_with_parent():
    """A test that is aborted, as a sanitizer does, leaves no node that holds on to its output."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Node:
    """A private weftd; `tier` gives it a file below DRAM, `resp` serves clients of Redis on `resp_port`."""

    def __init__(self, pool="64MB", tier=False, resp=False, settings=(), **variables):
        self.folder = tempfile.mkdtemp(prefix="weft-python-")
        self.socket = os.path.join(self.folder, "node.sock")
        words = ["--tier", f"nvme:{self.folder}/below.nvme:256MB"] if tier else []
        if resp:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.resp_port = free.getsockname()[1]
            settings = (f"resp.listen=127.0.0.1:{self.resp_port}", *settings)
        words += [word for setting in settings for word in ("--set", setting)]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WEFT_")}
        self.words = [WEFTD, "--socket", self.socket, "--pool", pool, "--http", "off", "--log", "warn", *words]
        self.environment = {**clean, "WEFT_STATE_DIR": self.folder, "WEFT_POOL_SIZE_MAX": "1GB", **variables}
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.words, env=self.environment, preexec_fn=die_with_parent)
        until = time.monotonic() + 60
        while True:
            try:
                weft.connect(self.socket).close()
                return
            except weft.NodeError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def connect(self, **how):
        return weft.connect(self.socket, **how)

    def kill(self):
        """As a crash would: nothing is told to anybody."""
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


SMALL = {"layers": 2, "kv_heads": 2, "head_dim": 8, "dtype": "f32", "block_tokens": 16}


def payload(fmt, number):
    """Bytes of a block that no other number has."""
    return bytes((number * 7 + i) % 251 for i in range(fmt.block_bytes))


class Case(unittest.TestCase):
    """Tests that share a node.  Each has its own connection, and at its end every pin must be back."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node(**getattr(cls, "NODE", {}))
        cls.addClassCleanup(cls.node.close)

    def setUp(self):
        self.fabric = self.node.connect()
        self.fmt = self.fabric.format(f"model@{self.id()}", **SMALL)

    def tearDown(self):
        gc.collect()
        if not self.fabric.closed:
            counters = self.fabric.counters()
            self.assertEqual(counters["pins"], counters["unpins"], "a pin was not given back")
            self.fabric.close()

    def chain(self, blocks, start=0):
        """Keys of a chain that is put, and what its blocks hold."""
        keys = self.fmt.keys(range(start, start + 16 * blocks))
        contents = [payload(self.fmt, start + i) for i in range(blocks)]
        self.assertEqual(self.fmt.put(keys, contents), blocks)
        return keys, contents

    def refused(self, kind, words, call, *args, **kwargs):
        """It raises `kind`, and its sentence has `words`."""
        with self.assertRaises(kind) as caught:
            call(*args, **kwargs)
        self.assertIn(words, str(caught.exception))
        return caught.exception
