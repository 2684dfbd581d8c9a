# SPDX-License-Identifier: Apache-2.0
"""The test bed itself: the wire does to UDP and TCP what it is told, and nothing else."""
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time

from bed import Bed, SO_RCVBUFFORCE, start_time
from harness import SEED, a_bed, case, check, slow, until

PORT = 7000


class Pair:
    """A UDP socket on each of two hosts; what is said from the one to the other has a number and its time."""

    def __init__(self, bed, one="a", other="b"):
        self.out, self.into = bed.sock(one, socket.SOCK_DGRAM), bed.sock(other, socket.SOCK_DGRAM)
        self.into.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        self.into.bind((bed.address(other), PORT))
        self.to = (bed.address(other), PORT)

    def say(self, count, bytes=200, pause=0.0):
        """Send so many and hear what comes until half a second was silent: [(number, seconds on the way, bytes)]."""
        heard, silent = [], threading.Event()

        def hear():
            while select.select([self.into], [], [], 0.5)[0] or not silent.is_set():
                if not select.select([self.into], [], [], 0)[0]:
                    continue
                data = self.into.recv(2000)
                number, then = struct.unpack_from("<Id", data)
                heard.append((number, time.monotonic() - then, data[12:]))
        ear = threading.Thread(target=hear)
        ear.start()
        for number in range(count):
            self.out.sendto(struct.pack("<Id", number, time.monotonic()) + payload(number, bytes), self.to)
            if pause:
                time.sleep(pause)
            elif number % 64 == 63:
                time.sleep(0.001)  # no burst that the receiver's queue has no room for
        silent.set()
        ear.join()
        return heard

    def close(self):
        self.out.close()
        self.into.close()


def payload(number, bytes):
    return random.Random(number).randbytes(bytes)


def numbers(heard):
    return [number for number, _, _ in heard]


def stream(bed, megabytes, seconds=60):
    """TCP from a to b: (seconds that it took, whether every byte came as it was sent)."""
    listener, out = bed.sock("b"), bed.sock("a")
    listener.bind((bed.address("b"), 0))
    listener.listen()
    sent, got = random.Random(megabytes).randbytes(1 << 20) * megabytes, bytearray()

    def hear():
        connection, _ = listener.accept()
        connection.settimeout(seconds)
        with connection:
            while part := connection.recv(1 << 18):
                got.extend(part)
    ear = threading.Thread(target=hear)
    ear.start()
    began = time.monotonic()
    out.settimeout(seconds)
    out.connect(listener.getsockname())
    out.sendall(sent)
    out.close()
    ear.join()
    listener.close()
    return time.monotonic() - began, bytes(got) == sent


@case
def nothing_happens_to_frames_without_faults():
    with a_bed("ab") as bed:
        pair = Pair(bed)
        heard = pair.say(2000)
        check(numbers(heard) == list(range(2000)), len(heard), "of 2000, or another order", bed.link("a", "b"))
        check(all(data == payload(number, 200) for number, _, data in heard), "other bytes")
        link = bed.link("a", "b")
        check(link["frames"] == link["delivered"] == 2000, link)
        check(bed.link("b", "a")["frames"] == 0, "b said something")
        took, right = stream(bed, 32)
        check(right and took < 10, "32 MB of TCP took", took, "s, right:", right)
        print(f"# TCP through the wire: {32 / took:.0f} MB/s; frames up to {link['late_us_max']} us late")


@slow
def a_delay_is_kept_and_so_is_the_order():
    with a_bed("ab") as bed:
        pair = Pair(bed)
        bed.wire("delay a>b 20ms 5ms")
        heard = pair.say(500, pause=0.001)
        check(numbers(heard) == list(range(500)), "lost, or another order")
        check(min(seconds for _, seconds, _ in heard) >= 0.02, "one came before its time")
        check(sorted(seconds for _, seconds, _ in heard)[250] < 0.04, "most came too late")
        bed.wire("clear a>b")
        check(min(seconds for _, seconds, _ in pair.say(50)) < 0.02, "clear left the delay")


@case
def the_same_seed_loses_the_same_frames():
    seen = []
    for seed in (SEED, SEED, SEED + 1):
        with a_bed("ab", seed=seed) as bed:
            pair = Pair(bed)
            bed.wire("loss a>b 5%", "duplicate a>b 3%")
            seen.append(numbers(pair.say(2000)))
            link = bed.link("a", "b")
            check(40 < link["lost"] < 180 and 20 < link["duplicated"] < 120, link)
            check(len(seen[-1]) == 2000 - link["lost"] + link["duplicated"], len(seen[-1]), link)
    check(seen[0] == seen[1], "another fate with the same seed")
    check(seen[0] != seen[2], "the same fate with another seed")
    check(seen[0] == sorted(seen[0]), "another order")


@slow
def one_direction_can_be_cut():
    with a_bed("abc") as bed:
        there, back, aside = Pair(bed), Pair(bed, "b", "a"), Pair(bed, "a", "c")
        bed.wire("cut a>b")
        check(there.say(50) == [], "it came through")
        check(len(back.say(50)) == 50 and len(aside.say(50)) == 50, "others were cut, too")
        bed.wire("cut a<>*")
        check(there.say(20) == back.say(20) == aside.say(20) == [], "it came through")
        bed.wire("heal a<>*")
        check(len(there.say(50)) == len(back.say(50)) == 50, "still cut")
        bed.wire("delay a>b 2s")
        there.out.sendto(bytes(12), there.to)
        until("it is on its way", lambda: bed.wire("stats")["waiting"] == 1, 2)
        bed.wire("cut a>b", "clear a>b", "cut a>b")
        until("it is not any more", lambda: bed.wire("stats")["waiting"] == 0, 4)
        check(not select.select([there.into], [], [], 0.1)[0], "what was on its way came through a cut")


@slow
def frames_overtake_only_when_told():
    with a_bed("ab") as bed:
        pair = Pair(bed)
        bed.wire("delay a>b 5ms", "reorder a>b 10% 10ms")
        heard = numbers(pair.say(1000, pause=0.0005))
        check(sorted(heard) == list(range(1000)), "lost")
        check(heard != sorted(heard), "none was overtaken")
        check(50 < bed.link("a", "b")["reordered"] < 170, bed.link("a", "b"))


@case
def checksums_tell_of_corruption_unless_it_is_sly():
    with a_bed("ab") as bed:
        pair = Pair(bed)
        bed.wire("corrupt a>b 10%")
        heard, link = pair.say(1000), bed.link("a", "b")
        check(link["corrupted"] > 50 and len(heard) == 1000 - link["corrupted"], len(heard), link)
        check(all(data == payload(number, 200) for number, _, data in heard), "a wrong byte came through")
        check(stream(bed, 2)[1], "TCP handed on wrong bytes")
        bed.wire("corrupt a>b 10% sly")
        before = bed.link("a", "b")["corrupted"]
        heard = pair.say(1000)
        wrong = sum(number > 1000 or data != payload(number, 200) for number, _, data in heard)
        check(len(heard) == 1000 and wrong > 50, len(heard), wrong)
        check(bed.link("a", "b")["corrupted"] - before >= wrong, wrong)
        bed.wire("corrupt a>b 1% sly")
        check(not stream(bed, 2)[1], "TCP noticed")


@slow
def a_rate_is_kept():
    with a_bed("ab") as bed:
        bed.wire("rate a>b 4MB 50ms")
        took, right = stream(bed, 4)
        check(right and 0.9 < took < 10, "4 MB at 4 MB a second took", took, "s")


@slow
def streams_survive_faults():
    with a_bed("ab") as bed:
        bed.wire("delay a<>b 2ms 1ms", "loss a<>b 1%", "duplicate a<>b 1%", "reorder a<>b 2% 3ms")
        took, right = stream(bed, 4)
        check(right, "wrong bytes")
        bed.wire("rate a>b 8MB")
        cut, heal = (threading.Timer(*when) for when in ((0.3, bed.wire, ["cut a<>b"]), (1.2, bed.wire, ["heal a<>b"])))
        cut.start()
        heal.start()
        took, right = stream(bed, 8)
        check(right, "wrong bytes after a partition")
        check(bed.link("a", "b")["cut"] > 0 and took > 1, "there was no partition")
        cut.join()
        heal.join()


@case
def nonsense_is_answered_with_a_sentence():
    with a_bed("ab") as bed:
        for line in ("", "cut", "cut ab", "cut a<b", "cut a<>z", "loss a>b", "loss a>b x", "loss a>b 101%", "melt a>b",
                     "delay a>b 61s", "delay a>b -1ms", "delay a>b 1", "rate a>b 1MB 1ms 1", "corrupt a>b 1% slow",
                     "a b c d e f g h", "loss a>b nan%", "x" * 400):
            bed.switch.stdin.write(line.encode() + b"\n")
            bed.switch.stdin.flush()
            answer = bed.switch.stdout.readline()
            check(answer.startswith(b"error: "), line, answer)
            if len(line) > 300:
                check(bed.switch.stdout.readline().startswith(b"error: "), "the rest of a long line")
        check(bed.link("a", "b")["frames"] == 0, "something changed")


@slow
def a_bed_that_was_killed_is_removed_by_the_next():
    with a_bed("a") as bed:
        build = os.path.dirname(os.path.dirname(bed.weft))
        script = ("import sys, time; sys.path.insert(0, sys.argv[1]); from bed import Bed\n"
                  "with Bed('ab', sys.argv[2]) as bed:\n    sleeper = bed.process('a', ['sleep', '1000'], 'log')\n"
                  "    while open(f'/proc/{sleeper.popen.pid}/comm').read() != 'sleep\\n':\n        time.sleep(0.01)\n"
                  "    print(bed.name, sleeper.popen.pid, bed.folder, flush=True)\n    time.sleep(100)\n")
        other = subprocess.Popen([sys.executable, "-B", "-c", script, os.path.dirname(__file__), build],
                                 stdout=subprocess.PIPE, text=True)
        name, pid, folder = other.stdout.readline().split()
        began = start_time(int(pid))
        other.kill()
        other.communicate()
        until("its programs are gone", lambda: start_time(int(pid)) != began, 5)
        check(os.path.exists(f"/run/netns/{name}-a") and os.path.exists(folder), "they went by themselves?")
        with Bed("a", build):
            check(not os.path.exists(f"/run/netns/{name}-a") and not os.path.exists(folder), "they are still there")
            check(os.path.exists(bed.folder), "another bed went, too")
