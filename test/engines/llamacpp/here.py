# SPDX-License-Identifier: Apache-2.0
"""Where the package and the daemon are, for tests that run alone: PYTHONPATH and WEFTD, or this tree's build/."""
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "test/python"))
try:
    import weft  # noqa: F401
except ImportError:
    sys.path.insert(0, str(ROOT / "build/python"))
os.environ.setdefault("WEFTD", str(ROOT / "build/src/daemon/weftd"))
