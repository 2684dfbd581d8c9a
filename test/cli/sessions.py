# SPDX-License-Identifier: Apache-2.0
"""weft explain SESSION: what a session said, where its chain is, what was decided of it, and why."""
import os
import re
import subprocess
import time

from harness import FOLDER, HOLD, answer, case, check, environment, start_node, stop_node, weft

IDLE, WAITING, DONE, PREFILL = 3, 4, 5, 1


class Held:
    """Sessions that stay open, in a client of their own."""

    def __init__(self, socket):
        self.client = subprocess.Popen([HOLD, socket], env=environment(), stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.line()

    def line(self):
        words = self.client.stdout.readline().split()
        check(words and words[0] in ("ok", "failed"), "session_hold:", *words)
        return words

    def do(self, *words):
        """The session's number, and how many blocks it came to."""
        print(*words, file=self.client.stdin, flush=True)
        said, number, blocks = self.line()[:3]
        check(said == "ok", "session_hold:", *words, said, number, blocks)
        return int(number), int(blocks)

    def down(self, name):
        """Its chain leaves DRAM, when the tier is open and has taken it."""
        def tried():
            print("demote", name, file=self.client.stdin, flush=True)
            return self.line()[0] == "ok"
        wait_for(tried)

    def end(self):
        self.client.stdin.close()
        self.client.wait(60)
        self.client.stdout.close()


def on_node(name, *tiers, **variables):
    socket = os.path.join(FOLDER, name + ".sock")
    node = start_node("8MB", socket, tiers, WEFT_POOL_SIZE_MAX="8MB", **variables)
    return node, Held(socket), ["--socket", socket]


def wait_for(look):
    """What look() says, when it says something."""
    until, found = time.time() + 60, look()
    while not found and time.time() < until:
        time.sleep(0.02)
        found = look()
    check(found, "it did not come to that")
    return found


@case
def what_a_session_finds_below_is_counted():
    node, held, at = on_node("found", f"nvme:{os.path.join(FOLDER, 'found')}.nvme:256MB")

    def counted():
        domain = answer("status", *at)["domains"][0]
        return domain["blocks_asked"], domain["blocks_matched"], domain["below"]["blocks_matched"], domain["below"]["hit_rate"]
    try:
        held.do("put", "chat", 1)
        asked, matched, below, _ = counted()
        check(held.do("get", "chat", 1)[1] == 4)
        check(counted() == (asked + 4, matched + 4, 0, 0) and below == 0, "it was in DRAM:", counted())
        held.down("chat")
        check(answer("explain", "chat", *at)["chain"]["tiers"] == {"nvme0": 4})
        check(held.do("get", "chat", 1)[1] == 4)
        check(counted() == (asked + 8, matched + 8, 4, 4 / (asked + 8)), "it was below:", counted(), asked)
        wait_for(lambda: answer("explain", "chat", *at)["chain"]["dram"] == 4)
        check(held.do("get", "chat", 1)[1] == 4)
        check(counted()[:3] == (asked + 12, matched + 12, 4), "it is up again:", counted(), asked)
    finally:
        held.end()
        stop_node(node)


@case
def a_session_is_explained():
    tier = f"nvme:{os.path.join(FOLDER, 'held')}.nvme:256MB"
    node, held, at = on_node("held", tier)
    try:
        number, _ = held.do("put", "chat", 1)
        one = answer("explain", "chat", *at)
        check(one["session"]["session"] == number and one["session"]["name"] == "chat", one)
        check(one["chain"]["blocks"] == one["chain"]["found"] == one["chain"]["dram"] == 4, one)
        check(one["session"]["due_in_ms"] is None and one["next_fetch"] is None, one)
        check(answer("explain", str(number), *at)["session"]["name"] == "chat")
        said = weft("explain", "chat", *at).stdout.decode()
        check(said.startswith(f"session {number} 'chat' of domain default\n  idle for "), said)
        check("did not say when" in said and "4 in DRAM" in said, said)
        # It goes down, and is due in ten minutes.
        held.down("chat")
        held.do("hint", "chat", WAITING, 600000, 0)
        one = answer("explain", "chat", *at)
        check(one["chain"]["dram"] == 0 and one["chain"]["tiers"] == {"nvme0": 4}, one)
        check(one["policy"] is None and one["session"]["return"] == "waited for", one)
        check(590000 < one["session"]["due_in_ms"] <= 600000, one)
        check(one["next_fetch"]["blocks"] == 4 and one["next_fetch"]["looked_at_in_ms"] <= 300000, one)
        check([event["what"] for event in one["events"]].count("demote") == 4, one)
        check([event["what"] for event in one["events"]].count("evict") == 4, one)
        said = weft("explain", "chat", *at).stdout.decode()
        for words in ("waiting for", "said to be back in 600.0 s", "4 on nvme0", "nothing of it is in DRAM",
                      "what happened:", "its session waits", "ms of waiting"):
            check(words in said, words, "is not in", said)
        next_look = one["next_fetch"]
        later = next_look["reason"] == "later" and next_look["begin_in_ms"] < next_look["looked_at_in_ms"]
        check(("its chain is brought up when it is looked at, in " in said) == later, next_look, said)
        # Due soon, it is brought up; the event says why, and so does what is made of it.
        held.do("hint", "chat", WAITING, 400, 0)
        one = wait_for(lambda: [event for event in answer("events", "--what", "prefetch", *at)["events"]])[0]
        check(one["reason"] in ("now", "late") and one["session"] == number, one)
        check(one["blocks"] == one["begun"] == 4 and one["bytes"] == 4 * 65536 * 4, one)
        check(one["chance"] == 1 and one["load_ms"] > 0 and one["saved_ms"] > 0 and one["spread_ms"] == 100, one)
        check(one["pushed_bytes"] == 0 and one["room_ms"] == 0 and one["quantile"] == 0, one)
        wait_for(lambda: answer("explain", "chat", *at)["chain"]["dram"] == 4)
        said = weft("explain", "chat", *at).stdout.decode()
        check("its chain is brought up, 4 blocks" in said and "room is free" in said, said)
        check("because its session comes back" in said and "for session" in said, said)
        check("its chain is brought up" in weft("explain", one["key"], *at).stdout.decode(), one)
        # It comes, and that is remembered.
        check(held.do("get", "chat", 1)[1] == 4)
        held.do("hint", "chat", PREFILL, 0, 0)
        one = answer("explain", "chat", *at)
        check(one["returns"]["said"] == one["returns"]["came"] == 1 and one["session"]["held"], one)
        check(one["policy"]["stays"] == "held", one)
        held.do("put", "other", 90)  # so that the request before is over
        check(answer("explain", "chat", *at)["policy"]["turn"] == 2, "it had two, and bringing it up was none")
        check("it may not go, because it is in use" in weft("explain", "chat", *at).stdout.decode())
        check(one["session"]["return"] == "nothing", one)
        # What a client asks for is not weighed.
        held.do("hint", "chat", IDLE, 0, 0)
        held.down("chat")
        check(held.do("prefetch", "chat", 1, 5000)[1] == 4)
        one = answer("events", "--what", "prefetch", *at)["events"][-1]
        check(one["reason"] == "asked" and one["begun"] == 4 and one["due_in_ms"] == 5000, one)
        # What is in DRAM yet goes first while its session waits, and is kept when that is due.
        wait_for(lambda: answer("explain", "chat", *at)["chain"]["dram"] == 4)
        held.do("hint", "chat", WAITING, 600000, 0)
        wait_for(lambda: answer("explain", "chat", *at)["policy"]["aside"] == "first")
        check("to go first, because its session waits" in weft("explain", "chat", *at).stdout.decode())
        held.do("hint", "chat", WAITING, 2000, 0)
        wait_for(lambda: answer("explain", "chat", *at)["policy"]["aside"] == "last")
        one = answer("events", "--what", "prefetch", *at)["events"][-1]
        check(one["reason"] == "kept" and one["blocks"] == 0 and one["due_in_ms"] <= 1000, one)
        check("its chain is in DRAM, and is kept there" in weft("explain", "chat", *at).stdout.decode())
    finally:
        held.end()
        stop_node(node)


@case
def a_word_is_a_session_or_a_key_and_which_is_said():
    node, held, at = on_node("words")
    try:
        held.do("put", "cafe1234", 1)
        held.do("put", "twice", 2)
        key = answer("ls", "blocks", *at)["blocks"][0]["key"]
        said = weft("explain", "cafe1234", *at).stdout.decode()
        check("session " in said and "(for a block whose key begins so: --key)" in said, said)
        weft("explain", "cafe1234", "--key", *at, expect=1)
        check(f"{key} is there, in DRAM" in weft("explain", key, *at).stdout.decode())
        check(f"{key} is there" in weft("explain", key[:12].upper(), *at).stdout.decode())
        check(answer("explain", key[:8], "--key", *at)["present"][0]["key"] == key)
        missing = weft("explain", key, "--session", *at, expect=1).stderr.decode()
        check(f"there is no session '{key}'" in missing and "no key either" not in missing, missing)
        missing = weft("explain", "No Such", *at, expect=1).stderr.decode()
        check("there is no session 'No Such'" in missing and "no key either" in missing, missing)
        check("four or more hex digits" in weft("explain", key[:3], *at, expect=1).stderr.decode())
        weft("explain", "x" * 80, *at, expect=1)
        for words in (["--key", "--session", "abcd"], ["--key"], ["--key", "xyz"], ["a", "b"]):
            weft("explain", *words, *at, expect=2)
        other = Held(at[1])
        number, _ = other.do("put", "twice", 3)
        one = answer("explain", "twice", *at)
        check(one["session"]["session"] == number and one["of_that_name"] == 2, one)
        check("the last used of 2 of that name" in weft("explain", "twice", *at).stdout.decode())
        other.end()
    finally:
        held.end()
        stop_node(node)


@case
def a_chain_that_went_is_followed_from_its_end():
    node, held, at = on_node("went")
    try:
        number, _ = held.do("put", "lost", 1)
        for chain in range(2, 30):
            held.do("put", "others", chain)
        one = answer("explain", str(number), *at)
        check(one["chain"]["blocks"] == 4 and one["chain"]["found"] == 0, one)
        check([event["what"] for event in one["events"]] == ["evict"] * 4, one)
        check("parent" not in one["events"][-1] and one["events"][0]["parent"] == one["events"][1]["key"], one)
        check(one["events"][0]["key"] == one["tip"][:16], one)
        said = weft("explain", "lost", *at).stdout.decode()
        check("4 gone from everywhere" in said, said)
        reasons = [event["reason"] for event in one["events"]]
        runs = [at for at in range(4) if at == 0 or reasons[at] != reasons[at - 1]]
        check(said.count("left DRAM (") == len(runs), "one line for those that are alike", said)
        more = sum(map(int, re.findall(r"; and so (\d+) more, the last of them ", said)))
        check(more == 4 - len(runs), said)
    finally:
        held.end()
        stop_node(node)


@case
def what_room_is_worth_speaks_against():
    tier = f"nvme:{os.path.join(FOLDER, 'worth')}.nvme:256MB"
    node, held, at = on_node("worth", tier, WEFT_TIER_NVME0_ADMIT="always")
    try:
        held.do("put", "away", 1)
        held.down("away")
        for chain in range(2, 40):  # each pushes one out that is as young
            held.do("put", "busy", chain)
        held.do("hint", "away", WAITING, 4000000000, 0)  # in six weeks
        one = answer("explain", "away", *at)["next_fetch"]
        check(one["pushed_bytes"] > 0 and one["room_ms"] > one["saved_ms"], one)
        check(one["reason"] == "not worth" and one["begin_in_ms"] is None, one)
        said = weft("explain", "away", *at).stdout.decode()
        check("what would have to go for it is worth more" in said and "of theirs has to go" in said, said)
    finally:
        held.end()
        stop_node(node)


@case
def what_a_session_s_priority_counts():
    node, held, at = on_node("priority")
    try:
        held.do("priority", "urgent", 9)
        held.do("priority", "background", 0)
        held.do("put", "urgent", 1)  # the oldest, and of all that are there
        for chain in range(2, 7):
            held.do("put", f"usual{chain}", chain)
        held.do("put", "background", 7)
        one = answer("explain", "background", *at)
        check(one["policy"]["weight"] < 0.05 and answer("explain", "usual2", *at)["policy"]["weight"] == 1, one)
        said = weft("explain", "background", *at).stdout.decode()
        check("by its priority it counts 0.0" in said, said)
        for chain in range(10, 13):
            held.do("put", "usual", chain)
        check(answer("explain", "background", *at)["chain"]["found"] == 0, "the youngest, and it stayed")
        check(answer("explain", "urgent", *at)["chain"]["dram"] == 4, "the oldest, and it went")
        # A deadline that is being worked for.
        held.do("hint", "usual", PREFILL, 0, 3600000)
        said = weft("explain", "usual", *at).stdout.decode()
        check("its domain counts one class higher" in said, said)
    finally:
        held.end()
        stop_node(node)


@case
def a_node_without_tiers_waits_for_nobody():
    node, held, at = on_node("alone")
    try:
        held.do("put", "away", 1)
        held.do("hint", "away", WAITING, 20, 0)
        wait_for(lambda: answer("explain", "away", *at)["session"]["return"] == "late")
        check("counts as not kept" in weft("explain", "away", *at).stdout.decode())
        with open(f"/proc/{node.pid}/stat", encoding="ascii") as file:
            before = sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))
        time.sleep(1)
        with open(f"/proc/{node.pid}/stat", encoding="ascii") as file:
            spent = sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) - before
        check(spent < 0.5 * os.sysconf("SC_CLK_TCK"), spent, "ticks of a second, with nothing to do")
        held.do("prefetch", "away", 1, 100)  # there is nowhere to bring it up from
        held.do("prefetch", "away", 2, 100)
        held.do("hint", "away", PREFILL, 0, 0)
        one = answer("explain", "away", *at)["returns"]
        check(one["said"] == one["came"] == 1, one)
    finally:
        held.end()
        stop_node(node)
