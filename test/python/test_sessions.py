# SPDX-License-Identifier: Apache-2.0
"""Sessions: match, get, reserve by tokens, and a match that has become old."""
import unittest

import weft
from node import Case, payload


class Sessions(Case):
    def fill(self, session, tokens, from_token=0):
        with session.reserve(tokens, from_token) as slots:
            for i in range(len(slots)):
                if slots.status(i) == "reserved":
                    slots.write(i, payload(self.fmt, tokens[0] + i + slots.first_block))
        return slots.statuses()

    def test_a_conversation(self):
        turn = list(range(64))
        with self.fmt.session(name="talk") as session:
            self.assertGreater(session.id, 0)
            self.assertEqual(session.match(turn).blocks, 0)
            self.assertEqual(self.fill(session, turn), ["stored"] * 4)
            longer = turn + list(range(1000, 1033))
            match = session.match(longer)
            self.assertEqual((match.blocks, match.tokens, match.quality), (4, 64, "lossless"))
            with session.get(match) as pins:
                self.assertEqual([bytes(b) for b in pins], [payload(self.fmt, i) for i in range(4)])
                self.assertEqual(self.fill(session, longer, match.tokens), ["stored"] * 2)
            session.hint("waiting", returns_in_ms=5000)
            with session.fork("side") as side:
                self.assertNotEqual(side.id, session.id)
                self.assertEqual(side.match(longer).blocks, 6)
            session.hint("done")

    def test_an_old_match_is_refused(self):
        one, other = list(range(33)), list(range(500, 533))
        with self.fmt.session() as session:
            self.fill(session, one)
            self.fill(session, other)
            match = session.match(one)
            session.match(other)  # the session knows the keys of these now
            self.refused(weft.InvalidError, "match again", session.get, match)
            with self.fmt.session() as another:
                self.refused(weft.InvalidError, "match again", another.get, session.match(one))
            with session.get(session.match(one)) as pins:
                self.assertEqual(pins[0], payload(self.fmt, 0))

    def test_refusals(self):
        with self.fmt.session() as session:
            self.refused(weft.InvalidError, "state 'asleep'", session.hint, "asleep")
            self.refused(weft.InvalidError, "multiple of block_tokens", session.reserve, list(range(32)), 3)
            self.refused(TypeError, "match()", session.get, (1, 2))
        self.refused(weft.InvalidError, "64", self.fmt.session, name="x" * 65)
        self.refused(weft.Error, "", self.fmt.session, priority=10)


if __name__ == "__main__":
    unittest.main()
