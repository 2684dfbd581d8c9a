# SPDX-License-Identifier: Apache-2.0
"""For the examples: this machine's node, or a private one when there is none."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def need(module, line):
    """Import `module`, or say what to type."""
    try:
        return __import__(module)
    except ImportError as error:
        if error.name != module.partition(".")[0]:
            raise
        sys.exit(f"{sys.argv[0]}: this needs {module}, which is not installed for {sys.executable}; type: {line}")


def weft_package():
    """The package, installed or as built here."""
    if (ROOT / "build/python/weft").is_dir():
        sys.path.append(str(ROOT / "build/python"))
    return need("weft", "pip install .   (or make, which builds it into build/python)")


def _weftd():
    for each in (os.environ.get("WEFTD"), shutil.which("weftd"), ROOT / "build/bin/weftd"):
        if each and os.access(each, os.X_OK):
            return str(each)
    sys.exit(f"{sys.argv[0]}: no node runs here and there is no weftd to start one with; type: make")


@contextlib.contextmanager
def connect(pool="1GB"):
    """A Fabric of the node that runs here, or of a private one that ends with the example."""
    weft = weft_package()
    try:
        fabric = weft.connect()
    except weft.NodeError:
        fabric = None
    if fabric:
        with fabric:
            yield fabric
        return
    with tempfile.TemporaryDirectory(prefix="weft-example-") as folder:
        socket = os.path.join(folder, "node.sock")
        process = subprocess.Popen([_weftd(), "--socket", socket, "--pool", pool, "--http", "off", "--log", "warn"],
                                   env={**os.environ, "WEFT_STATE_DIR": folder})
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    fabric = weft.connect(socket)
                    break
                except weft.NodeError:
                    if process.poll() is not None or time.monotonic() > until:
                        raise
                    time.sleep(0.02)
            with fabric:
                yield fabric
        finally:
            process.terminate()
            process.wait()
