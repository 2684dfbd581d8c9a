# SPDX-License-Identifier: Apache-2.0
"""Whatever Python still sees stays as it is, and nothing is held for longer."""
import gc
import os
import sys
import unittest

import weft
from node import SMALL, Case, Node, payload


class Lifetimes(Case):
    def held(self):
        counters = self.fabric.counters()
        return counters["pins"] - counters["unpins"]

    def test_a_view_outlives_its_pins(self):
        keys, contents = self.chain(3)
        pins = self.fmt.get(keys)
        view = pins[1][10:20]
        pins.release()
        pins.release()
        self.assertEqual(self.held(), 1)  # of the three, the one that is looked at
        self.assertEqual(view, contents[1][10:20])
        del pins
        self.assertEqual(self.held(), 1)
        del view
        self.assertEqual(self.held(), 0)

    def test_views_without_pins(self):
        keys, contents = self.chain(2)
        views = [bytes(view) == want for view, want in zip(self.fmt.get(keys), contents)]
        self.assertEqual(views, [True, True])
        self.assertEqual(self.held(), 0)

    def test_a_view_outlives_everything(self):
        keys, contents = self.chain(1)
        fabric = self.node.connect()
        fmt = fabric.format(f"model@{self.id()}", **SMALL)
        view = fmt.get(fmt.keys(range(16)))[0]
        fabric.close()
        self.refused(weft.InvalidError, "closed", fmt.match, keys)
        del fabric, fmt
        gc.collect()
        self.assertEqual(view, contents[0])

    def test_commit_refuses_while_somebody_can_write(self):
        slots = self.fmt.reserve(self.fmt.keys(range(32)))
        view = slots[1]
        self.refused(BufferError, "slot 1", slots.commit)
        part = view[3:5]
        del view
        self.refused(BufferError, "slot 1", slots.commit)
        part.release()
        del part
        self.assertEqual(slots.commit(), ["stored", "stored"])

    def test_with_refuses_too(self):
        keys = self.fmt.keys(range(16))
        with self.assertRaises(BufferError), self.fmt.reserve(keys) as slots:
            view = slots[0]
        self.assertEqual(self.fmt.match(keys), 0)
        del view
        self.assertEqual(slots.commit(), ["stored"])

    def test_an_aborted_slot_waits_for_its_view(self):
        keys = self.fmt.keys(range(48))
        slots = self.fmt.reserve(keys)
        view = slots[1]
        slots.abort()
        self.assertEqual(self.fmt.reserve(keys[:1]).statuses(), ["reserved"])
        view[:] = payload(self.fmt, 1)  # still its own memory, and nobody else's
        del view
        self.assertEqual(self.fmt.put(keys, bytes(3 * self.fmt.block_bytes)), 3)
        with self.fmt.get(keys) as pins:
            self.assertEqual(bytes(pins[1]), bytes(self.fmt.block_bytes))

    def test_closing_twice_and_in_any_order(self):
        keys, _ = self.chain(1)
        pins, session, slots = self.fmt.get(keys), self.fmt.session(), self.fmt.reserve(self.fmt.keys(range(50, 66)))
        region = self.fabric.allocate("4096")
        self.fabric.close()
        self.fabric.close()
        self.assertTrue(self.fabric.closed and pins.released and region.released)
        for call in (session.close, pins.release, slots.abort, region.release, self.fmt.close):
            call()
            call()
        self.refused(weft.InvalidError, "closed", session.match, [1])
        self.refused(weft.InvalidError, "closed", self.fabric.counters)
        self.refused(weft.InvalidError, "closed", memoryview, region)

    def test_nothing_is_left_behind(self):
        keys, _ = self.chain(4)
        before = None
        for _ in range(3):
            for _ in range(200):
                with self.fmt.get(keys) as pins:
                    pins.k(1, 1)
                self.fmt.keys(range(64))[1:]
                self.fmt.reserve(self.fmt.keys(range(9000, 9016))).abort()
                try:
                    self.fmt.match(b"x")
                except weft.Error:
                    pass
            gc.collect()
            now = [sys.getrefcount(each) for each in (self.fmt, self.fabric, keys, weft.Keys, weft.Pins, weft.Slots)]
            if before:
                self.assertEqual(before, now)
            before = now

    def test_fork(self):
        keys, contents = self.chain(1)
        pins = self.fmt.get(keys)
        view = pins[0]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                try:
                    self.fmt.match(keys)
                except weft.ForkedError as error:
                    del view
                    pins.release()
                    self.fabric.close()
                    with self.node.connect() as own:
                        fmt = own.format(f"model@{self.id()}", **SMALL)
                        status = 0 if "fork" in str(error) and fmt.get(keys)[0] == contents[0] else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(self.held(), 1)  # the child gave back nothing of ours
        self.assertEqual(view, contents[0])
        pins.release()


    def test_fork_and_a_connector(self):
        """Its threads are not in the child: it must neither wait for them nor take what they hold."""
        values = self.fabric.connector("m", workers=3)
        for n in range(50):
            values.submit_batch_set([f"n{n}"], [b"x" * 100000])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.assertEqual(values.drain_completions(), [])
                for call in (values.exists, values.submit_batch_exists):
                    with self.assertRaisesRegex(weft.ForkedError, "before fork"):
                        call(["n1"])
                values.close()
                self.fabric.close()
                del values
                gc.collect()
                if "libtsan" not in os.environ.get("LD_PRELOAD", ""):  # it does not go on with threads after fork()
                    with self.node.connect() as own, own.connector("m") as there:
                        there.exists(["n1"])
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(values.exists(["n1"]), [True])
        values.close()
        self.assertEqual(len(values.drain_completions()), 50)


class NodeLost(unittest.TestCase):
    def test_a_node_killed_while_blocks_are_held(self):
        node = Node()
        self.addCleanup(node.close)
        fabric = node.connect(timeout=2)
        fmt = fabric.format("m@1", **SMALL)
        keys = fmt.keys(range(32))
        fmt.put(keys, [payload(fmt, 0), payload(fmt, 1)])
        pins, slots = fmt.get(keys), fmt.reserve(fmt.keys(range(100, 116)))
        view, writable = pins[1], slots[0]
        node.kill()
        with self.assertRaises(ConnectionError) as caught:
            fmt.put(fmt.keys(range(200, 216)), payload(fmt, 2))
        self.assertIsInstance(caught.exception, weft.NodeError)
        self.assertEqual(caught.exception.status, -60)
        self.assertEqual((view, pins[0]), (payload(fmt, 1), payload(fmt, 0)))
        writable[:] = payload(fmt, 3)
        node.start()
        deadline = 100
        while deadline:
            try:
                self.assertEqual(fmt.match(keys), 0)
                break
            except weft.NodeError:
                deadline -= 1
                __import__("time").sleep(0.05)
        del writable
        self.refused_commit(slots)
        self.assertEqual(fmt.put(fmt.keys(range(100, 116)), payload(fmt, 4)), 1)
        self.assertEqual(view, payload(fmt, 1))
        pins.release()
        del view, pins
        counters = fabric.counters()
        self.assertEqual((counters["pins"], counters["reconnects"]), (counters["unpins"], 1))
        fabric.close()

    def refused_commit(self, slots):
        with self.assertRaises(weft.NodeError):
            slots.commit()

    def test_no_node(self):
        with self.assertRaises(weft.NodeError) as caught:
            weft.connect("/nonexistent/socket")
        self.assertIn("/nonexistent/socket", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
