# SPDX-License-Identifier: Apache-2.0
"""docs/PYTHON.md runs as it stands: its Python blocks, one after the other, against a node."""
import os
import re
import subprocess
import sys
import unittest

from node import Case

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


class Tour(Case):
    def test_the_tour(self):
        with open(os.path.join(ROOT, "docs", "PYTHON.md"), encoding="utf-8") as file:
            blocks = re.findall(r"^```python\n(.*?)^```$", file.read(), re.S | re.M)
        self.assertGreater(len(blocks), 4)
        script = "\n".join(blocks)
        done = subprocess.run([sys.executable, "-c", script], cwd=self.node.folder, check=False,
                              env={**os.environ, "WEFT_SOCKET": self.node.socket}, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = re.findall(r"^ *print\(.*\)  # (.*)$", script, re.M)
        self.assertEqual(done.stdout.splitlines(), said)

    def example(self, name):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "examples", name)], check=False,
                              env={**os.environ, "WEFT_SOCKET": self.node.socket}, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_example_fabric(self):
        self.assertIn("10.0 MiB", self.example("fabric.py"))

    def test_example_weights_once(self):
        out = self.example("weights_once.py")
        self.assertEqual(out.count("copied it in"), 1, out)
        self.assertEqual(out.count("maps what was there"), 1, out)
        self.assertIn("once in memory", out)


if __name__ == "__main__":
    unittest.main()
