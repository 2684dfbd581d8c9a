# SPDX-License-Identifier: Apache-2.0
"""One object, many threads: closed under their hands, it refuses; it never crashes, and loses nothing."""
import threading
import unittest

import weft
from node import SMALL, Case, payload


class Threads(Case):
    def all_of(self, *calls, times=1):
        """Run them at once; what one raises is raised here."""
        errors = []

        def run(call):
            try:
                call()
            except Exception as error:  # told below
                errors.append(error)
        threads = [threading.Thread(target=run, args=(call,)) for call in calls * times]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def test_one_format(self):
        keys, contents = self.chain(8)

        def reader():
            for i in range(200):
                with self.fmt.get(keys) as pins:
                    self.assertEqual(pins[i % 8], contents[i % 8])

        def writer():
            for i in range(50):
                start = 10000 + 16 * i
                self.fmt.put(self.fmt.keys(range(start, start + 16)), payload(self.fmt, i))
        self.all_of(reader, writer, reader, writer)

    def test_one_session(self):
        tokens = list(range(65))
        with self.fmt.session() as session:
            with session.reserve(tokens) as slots:
                for i in range(4):
                    slots.write(i, payload(self.fmt, i))

            def user():
                for i in range(100):
                    match = session.match(tokens)
                    try:
                        with session.get(match) as pins:
                            self.assertEqual(pins[i % 4], payload(self.fmt, i % 4))
                    except weft.InvalidError as error:
                        self.assertIn("match again", str(error))  # another thread matched in between
                    session.hint("idle")
            self.all_of(user, times=4)

    def test_closed_under_their_hands(self):
        keys, contents = self.chain(4)
        for _ in range(30):
            fabric = self.node.connect()
            fmt = fabric.format(f"model@{self.id()}", **SMALL)
            session, pins = fmt.session(), fmt.get(keys)
            started = threading.Barrier(5)

            def user():
                started.wait()
                for _ in range(100):
                    try:
                        fmt.match(keys)
                        view = pins[1]
                        assert view == contents[1]
                        session.match(range(65))
                        fmt.put(fmt.keys(range(700, 716)), payload(fmt, 7))
                        fabric.allocate(4096).release()
                    except weft.InvalidError as error:
                        if "closed" not in str(error):
                            raise

            def closer():
                started.wait()
                pins.release()
                session.close()
                fabric.close()
            self.all_of(user, user, user, closer, closer)
            self.assertTrue(fabric.closed)

    def test_writers_and_a_commit(self):
        """A commit while others write is refused or comes after them; what is stored never changes."""
        data = bytes([7]) * self.fmt.block_bytes
        for i in range(30):
            keys = self.fmt.keys(range(20000 + 16 * i, 20016 + 16 * i))
            slots = self.fmt.reserve(keys)
            seen = []

            def write():
                try:
                    slots.write(0, data)
                except weft.InvalidError:
                    pass

            def commit():
                while True:
                    try:
                        seen.append(slots.commit())
                        with self.fmt.get(keys) as pins:
                            seen.append(bytes(pins[0]))
                        return
                    except weft.BusyError:
                        pass
            self.all_of(write, commit, write)
            with self.fmt.get(keys) as pins:
                self.assertEqual(pins[0], seen[1])


if __name__ == "__main__":
    unittest.main()
