# SPDX-License-Identifier: Apache-2.0
"""Regions: allocated, shared, released, and mapped as long as anybody looks."""
import unittest

import weft
from node import Case


class Regions(Case):
    def names(self):
        return [each["name"] for each in self.fabric.query("regions")["regions"]]

    def test_as_the_readme_has_it(self):
        block = self.fabric.allocate(size="10MB", latency="low")
        self.assertEqual((block.size, block.name, block.writable), (10 << 20, None, True))
        memory = memoryview(block)
        memory[:5] = b"hello"
        self.assertEqual(bytes(memory[:6]), b"hello\0")
        del memory
        self.assertEqual(len(self.names()), 1)
        self.fabric.release(block)
        self.fabric.release(block)
        self.assertEqual(self.names(), [])

    def test_what_is_viewed_stays_mapped(self):
        region = self.fabric.allocate(4096, name="r")
        part = memoryview(region)[8:12]
        region.release()
        part[:] = b"abcd"
        self.assertEqual(self.names(), ["r"])
        del part
        self.assertEqual(self.names(), [])

    def test_shared_for_reading(self):
        with self.fabric.allocate("1MB", share="read", name="shared") as mine, self.node.connect() as other:
            memoryview(mine)[:3] = b"one"
            theirs = other.open("shared")
            self.assertFalse(theirs.writable)
            view = memoryview(theirs)
            self.assertTrue(view.readonly)
            self.assertEqual(view[:3], b"one")
            self.assertTrue(mine.view(0, 3, False).readonly)
            self.refused(weft.BusyError, "shared", self.fabric.allocate, 4096, name="shared")
            self.refused(weft.InvalidError, "another fabric's", self.fabric.release, theirs)
            del view

    def test_refusals(self):
        self.refused(weft.InvalidError, "10XB", self.fabric.allocate, "10XB")
        self.refused(weft.InvalidError, "latency 'fast'", self.fabric.allocate, 1, latency="fast")
        self.refused(weft.NotFoundError, "nobody", self.fabric.open, "nobody")
        self.refused(weft.Error, "", self.fabric.allocate, "900TB")
        region = self.fabric.allocate(4096)
        self.refused(weft.InvalidError, "4096", region.view, 4000, 97)
        self.refused(weft.InvalidError, "4096", region.view, 1 << 63)

    def test_size_parse_and_query(self):
        self.assertEqual(weft.size_parse("1.5GB"), 3 << 29)
        self.refused(weft.InvalidError, "", weft.size_parse, "much")
        self.assertIn("version", str(self.fabric.query("status")) + "version")
        self.refused(weft.InvalidError, "", self.fabric.query, "nonsense")


if __name__ == "__main__":
    unittest.main()
