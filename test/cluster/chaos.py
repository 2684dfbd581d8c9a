#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything that can happen to a cluster, by a seed: chaos.py BUILD [--seed N] [--minutes M] [--nodes N] [--list]

Nodes on hosts of a test bed (bed.py), a real etcd, a client (client.c) at each node that puts and reads chains whose
every byte follows from their keys, and that pushes some of them to other nodes while it writes them, and a schedule of
faults that the seed alone makes (--list prints it): nodes killed, stopped, ended, drained, and that in the middle of each
other; the network parted, cut in one direction, late, lossy, slow, doubling, reordering, damaging; etcd killed, stopped,
cut off; clients killed.  By the seed blocks that are lent have two copies, and hosts' clocks are a year apart.  At the
end all faults are taken back, no node drains or has room reserved for anybody, every node is killed once more and every
archive that a client was told of is read from the node that has it, alone.

Prints one line of JSON; all of wrong_bytes (blocks with one), hangs, lost_archives and crashes (programs that ended
by themselves) must be 0, else the exit status is 1.  77: this machine has no network namespaces, or no etcd.
"""
import argparse
import collections
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True  # nothing appears beside the sources

from bed import Bed, Failed, Process, fabric_settings, until, why_not

POOL, TIER = "24MB", ("nvme:@/nvme:96MB",)
SMALL_TIER = ("nvme:@/nvme:24MB",)  # of one node: archives find no room there
CHAINS = 400
BOUND_MS = 12000  # of a call; nodes are stopped for less than what makes that a hang
SABOTAGED_MS = 40  # what no node that is stopped, killed or cut off keeps to
GAVE_UP = 3  # client.c: a call took thrice its bound, and it waited no longer
Fault = collections.namedtuple("Fault", "at seconds what on")  # from `at` on, for so long

# What happens: weight, seconds from and to, what it takes while it lasts ("node", or a word of its own).
KINDS = {"kill": (5, 0, 4, "node"), "stop": (4, 0.5, 8, "node"), "end": (2, 0, 3, "node"),
         "drain": (2, 1, 6, "drain"),
         "part": (3, 1, 10, "cut"), "one-way": (3, 1, 10, "cut"), "alone": (2, 1, 10, "cut"),
         "loss": (3, 2, 15, "loss"), "delay": (3, 2, 15, "delay"), "reorder": (2, 2, 15, "reorder"),
         "duplicate": (2, 2, 15, "duplicate"), "rate": (2, 2, 15, "rate"), "corrupt": (3, 2, 15, "corrupt"),
         "etcd-kill": (2, 0, 8, "etcd"), "etcd-stop": (2, 1, 12, "etcd"), "client-kill": (2, 0, 1, "client")}


def random_fault(dice, at, what, hosts):
    _, least, most, _ = KINDS[what]
    one, other = dice.sample(hosts, 2)
    link = dice.choice([f"{one}<>{other}", f"{one}>{other}", f"{one}<>*", "*<>*"])
    group = sorted(dice.sample(hosts, len(hosts) // 2)) + dice.choice([[], ["etcd"]])
    on = {"kill": one, "stop": one, "end": one, "drain": one, "client-kill": one, "part": group, "one-way": f"{one}>{other}",
          "alone": f"{one}<>*", "loss": [link, f"{dice.choice([1, 5, 20])}%"],
          "delay": [link, f"{dice.choice([1, 10, 50])}ms", f"{dice.choice([0, 1, 20])}ms"],
          "reorder": [link, f"{dice.choice([1, 10])}%", f"{dice.choice([1, 5])}ms"],
          "duplicate": [link, f"{dice.choice([1, 10])}%"], "rate": [link, f"{dice.choice([1, 4, 20])}MB"],
          "corrupt": [link, f"{dice.choice([0.1, 1])}%"] + dice.choice([[], ["sly"]])}.get(what, "etcd")
    return Fault(round(at, 2), round(dice.uniform(least, most), 2), what, on)


def schedule(seed, seconds, hosts):
    """Faults by time; of two that would meet (one node, one kind of damage), the second waits for another turn."""
    dice, at, faults, busy = random.Random(seed), 3.0, [], {}
    while True:
        at += dice.expovariate(1 / 1.2)
        fault = random_fault(dice, at, dice.choices(list(KINDS), [kind[0] for kind in KINDS.values()])[0], hosts)
        if fault.at + fault.seconds > seconds:
            return faults
        takes = KINDS[fault.what][3]
        takes = fault.on if takes == "node" else fault.on + takes if takes in ("client", "drain") else takes
        if busy.get(takes, 0) > fault.at:
            continue
        # A node that was killed has some time to start before it meets the next one.
        busy[takes] = fault.at + fault.seconds + (4 if fault.what in ("kill", "end", "stop") else 0.5)
        faults.append(fault)


class Client:
    """client.c at one node, what it says counted."""

    def __init__(self, chaos, host, seed):
        self.chaos, self.host, self.counts, self.ended, self.killed = chaos, host, {}, False, False
        spoiled = chaos.options.sabotage
        words = [chaos.program, "--socket", chaos.bed.nodes[host].socket, "--name", host, "--seed", str(seed), "--chains",
                 str(CHAINS), "--bound", str(SABOTAGED_MS if spoiled == "hangs" else BOUND_MS), "--archives",
                 "--others", ",".join(other for other in chaos.hosts if other != host)]
        if spoiled == "wrong_bytes" and host == "a":
            words.append("--lie")
        self.process = Process(chaos.bed, host, words, os.path.join(chaos.bed.folder, host, "client.log"),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ear = threading.Thread(target=self.hear)
        self.ear.start()

    def hear(self):
        for line in self.process.popen.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # the last words of one that was killed
            if "archived" in said:
                self.chaos.archives[said["archived"]] = (self.host, said["chain"], said["blocks"])
            elif "tick" in said or "end" in said:
                self.ended = self.ended or "end" in said
                self.counts = said.get("tick") or said["end"]
            else:
                self.chaos.note(f"client of {self.host}: {line.decode().strip()}")

    def finish(self):
        self.process.popen.stdin.close()
        try:
            self.process.popen.wait(4 * BOUND_MS / 1000)
        except subprocess.TimeoutExpired:
            self.chaos.note(f"the client of {self.host} does not end")
            self.chaos.hangs += 1
        self.close()
        if not self.ended and not self.killed:
            self.over()

    def over(self):
        """It ended by itself: a hang that it did not sit out, or a crash."""
        status = self.process.popen.returncode
        if status == GAVE_UP:
            self.chaos.hangs += 1
            self.chaos.note(f"the client of {self.host} gave up on a call")
        else:
            self.chaos.crashed(f"the client of {self.host} ended with {status}")

    def close(self):
        self.process.kill()
        self.ear.join()
        self.process.popen.stdout.close()


class Chaos:
    def __init__(self, bed, options, faults):
        self.bed, self.options, self.faults = bed, options, faults
        self.program = os.path.join(os.path.abspath(options.build), "test", "cluster_client")
        self.hosts = [host for host in bed.hosts if host != "etcd"]
        self.archives, self.clients, self.gone = {}, {}, []
        self.done = self.hangs = self.crashes = 0
        self.notes, self.down, self.last, self.said = [], set(), "", []
        self.states, self.figures = collections.Counter(), collections.Counter()
        self.began = time.monotonic()

    # ------------------------------------------------------------------------------------ what is seen

    def note(self, words):
        self.notes.append(f"{time.monotonic() - self.began:7.2f} s  {words}")

    def crashed(self, words):
        self.crashes += 1
        self.note(words)

    def watch(self):
        """Programs that ended though nobody told them to."""
        for host in self.hosts:
            process = self.bed.nodes[host].process
            if host not in self.down and not process.running():
                self.crashed(f"weftd on {host} ended with {process.popen.returncode}")
                self.bed.nodes[host].spawn()
            client = self.clients[host]
            if not client.process.running():
                client.over()
                self.new_client(host)

    def total(self):
        sum_of = collections.Counter()
        for client in self.gone + list(self.clients.values()):
            sum_of.update({key: value for key, value in client.counts.items() if key != "slowest_ms"})
        return sum_of

    def show(self, now, seconds):
        if not sys.stderr.isatty():
            return
        part, total = min(1, now / seconds), self.total()
        bar = "█" * int(24 * part) + "░" * (24 - int(24 * part))
        operations = total["puts"] + total["gets"] + total["misses"] + total["matches"]
        sys.stderr.write(f"\r\x1b[Kchaos {bar} {100 * part:3.0f} %  {operations} operations, {self.done} faults, "
                         f"{len(self.archives)} archives  {self.last[:40]}")
        sys.stderr.flush()

    # ---------------------------------------------------------------------------------- what is done

    def new_client(self, host):
        if host in self.clients:
            self.clients[host].close()
            self.gone.append(self.clients[host])
        self.clients[host] = Client(self, host, self.options.seed * 1000 + self.hosts.index(host) * 100 + len(self.gone))

    def cuts(self, fault):
        if fault.what == "part":
            return [f"{one}<>{other}" for one in fault.on for other in self.bed.hosts if other not in fault.on]
        return [fault.on]

    def begin(self, fault):
        what, on, node = fault.what, fault.on, self.bed.nodes.get(fault.on if isinstance(fault.on, str) else None)
        if what in ("kill", "end"):
            self.down.add(on)
            node.kill() if what == "kill" else node.process.tell(signal.SIGTERM)
        elif what == "stop":
            node.pause()
        elif what == "drain":
            self.say(node, "drain")
        elif KINDS[what][3] == "cut":
            self.bed.wire(*(f"cut {link}" for link in self.cuts(fault)))
        elif what in ("etcd-kill", "etcd-stop"):
            self.bed.etcd.kill() if what == "etcd-kill" else self.bed.etcd.pause()
        elif what == "client-kill":
            self.clients[on].killed = True
            self.clients[on].process.kill()
            self.new_client(on)
        else:
            self.bed.wire(" ".join([what, *on]))

    def say(self, node, *words):
        """Have weft say it to a node that may be dead or stopped, in which case it says so, and ends."""
        def run():
            try:
                done = node.run("fabric", *words)
            except subprocess.TimeoutExpired:
                self.hangs += 1
                self.note(f"weft fabric {words} on {node.host} does not end")
                return
            if done.returncode < 0 or (done.returncode and not done.stderr.startswith(b"weft fabric: ")):
                self.crashed(f"weft fabric {words} on {node.host} ended with {done.returncode}: {done.stderr}")
        thread = threading.Thread(target=run)
        self.said.append(thread)
        thread.start()

    def undo(self, fault):
        what, on, node = fault.what, fault.on, self.bed.nodes.get(fault.on if isinstance(fault.on, str) else None)
        if what in ("kill", "end"):
            if what == "end":
                status = node.process.end(signal.SIGTERM, 60)
                if status != 0:
                    self.crashed(f"weftd on {on} ended with {status} when it was told to")
            node.spawn()
            self.down.discard(on)
        elif what == "stop":
            node.resume()
        elif what == "drain":
            self.say(node, "drain", "--off")
        elif KINDS[what][3] == "cut":
            self.bed.wire(*(f"heal {link}" for link in self.cuts(fault)))
        elif what in ("etcd-kill", "etcd-stop"):
            self.bed.etcd.spawn() if what == "etcd-kill" else self.bed.etcd.resume()
        elif what != "client-kill":
            self.bed.wire(f"{what} {on[0]} 0")

    def run(self, seconds):
        """All faults at their times, each taken back at its end."""
        events = [(fault.at, 1, number, self.begin, fault) for number, fault in enumerate(self.faults)]
        events += [(fault.at + fault.seconds, 0, number, self.undo, fault) for number, fault in enumerate(self.faults)]
        events.sort(key=lambda event: event[:3])
        self.began = time.monotonic()
        while (now := time.monotonic() - self.began) < seconds:
            while events and events[0][0] <= now:
                _, begins, _, act, fault = events.pop(0)
                self.last = f"{fault.what} {fault.on}" + ("" if begins else " is over")
                self.note(self.last)
                act(fault)
                self.done += begins
            self.watch()
            self.show(now, seconds)
            time.sleep(0.05)

    def recover(self):
        self.bed.wire("clear *<>*")
        for host in self.hosts:
            self.bed.nodes[host].ready()
        until("etcd is well", self.bed.etcd.well, 60)
        if not self.settings(self.hosts[0]):
            return
        for thread in self.said:
            thread.join()
        for host in self.hosts:  # one that was stopped or dead has not heard that it is not to drain any more
            self.bed.nodes[host].weft("fabric", "drain", "--off")
        for host in self.hosts:
            until(f"{host} sees the others again", lambda host=host: self.sees_all(host), 60, 0.2)
            self.figures.update({key: value for key, value in self.bed.nodes[host].answer("fabric")["self"].items()
                                 if isinstance(value, int)})

    def sees_all(self, host):
        said = self.bed.nodes[host].answer("fabric")
        return said["self"]["standing"] == "member" and \
            sum(node["state"] == "ok" for node in said["nodes"]) == len(self.hosts) - 1

    def given_back(self):
        """No client is there, and nobody writes: what was reserved by clients or for pushes is free again."""
        for host in self.hosts:
            until(f"nothing is reserved on {host}", lambda host=host: all(
                domain["blocks_reserved"] == 0 for domain in self.bed.nodes[host].answer("ls", "domains")["domains"]), 60, 0.2)

    def settings(self, host):
        """One of the nodes lends memory, or, by the seed, three do and have two copies of what is there; by the seed,
        what they say to each other is encrypted."""
        settings, copies = fabric_settings(self.bed, host, "chaos"), 1 + (self.options.seed // 2) % 2
        if settings and host in self.hosts[-1 if copies == 1 else -3:] and self.bed.knows("fabric.lend"):
            settings["fabric__lend"] = "32MB"
        if settings and copies > 1:
            settings["fabric__copies"] = copies
        if settings and self.options.seed % 2 == 0:
            settings["fabric__encrypt"] = "true"
        return settings

    def clock(self, host):
        """By the seed, this host's is years from others', or goes right; variables for its node."""
        library = os.path.join(os.path.abspath(self.options.build), "test", "test_clock.so")
        if (self.options.seed // 4) % 2 == 0 or not os.path.exists(library):
            return {}
        path = os.path.join(self.bed.folder, f"clock.{host}")
        with open(path, "wb") as file:
            file.write(struct.pack("<q", (self.hosts.index(host) - 1) * 366 * 86400))
        return {"LD_PRELOAD": library, "WEFT_TEST_CLOCK": path}

    def check_archives(self):
        """Every node killed, started, and asked for its archives while it sees nobody."""
        for host in self.hosts:
            self.bed.nodes[host].kill()
        self.bed.wire("cut *<>*")
        if self.options.sabotage == "lost_archives":
            with open(os.path.join(self.bed.nodes["a"].folder, "nvme"), "r+b") as file:
                file.truncate(0)
        for host in self.hosts:
            node = self.bed.nodes[host].start()
            mine = [(name, *what[1:]) for name, what in self.archives.items() if what[0] == host]
            lines = "".join(f"{name} {chain} {blocks}\n" for name, chain, blocks in mine)
            done = subprocess.run([self.program, "--socket", node.socket, "--name", host, "--check"], text=True,
                                  input=lines, stdout=subprocess.PIPE, timeout=600, check=False)
            said = [json.loads(line) for line in done.stdout.splitlines()]
            states = {line["archive"]: line["state"] for line in said if "archive" in line}
            listed = {each["name"]: each for each in node.answer("session", "ls", expect=None)["archives"]}
            for name, _, _ in mine:
                state = states.get(name, "lost")
                if state == "right" and listed.get(name, {}).get("state") != "ok":
                    state = "lost"
                self.states[state] += 1
                if state != "right":
                    self.note(f"archive {name} of {host} is {state}: {listed.get(name)}")

    def close(self):
        for client in self.clients.values():
            client.process.kill()
            client.ear.join()


def work(bed, options, faults):
    chaos = Chaos(bed, options, faults)
    seconds = options.minutes * 60
    try:
        for number, host in enumerate(chaos.hosts):
            bed.node(host, pool=POOL, tiers=SMALL_TIER if number == 1 else TIER, variables=chaos.clock(host),
                     **chaos.settings(host))
            bed.nodes[host].spawn()
        for host in chaos.hosts:
            bed.nodes[host].ready()
            chaos.new_client(host)
        chaos.run(seconds)
        chaos.recover()
        for client in chaos.clients.values():
            client.finish()
        chaos.given_back()
        chaos.check_archives()
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        chaos.crashed(f"{type(error).__name__}: {error}")
    finally:
        chaos.close()
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    return chaos


def report(chaos, options):
    total = chaos.total()
    answer = {"operations": total["puts"] + total["gets"] + total["misses"] + total["matches"] + total["archives"],
              "faults": chaos.done, "wrong_bytes": total["wrong"] + chaos.states["wrong"],
              "hangs": total["hangs"] + chaos.hangs, "lost_archives": chaos.states["lost"], "crashes": chaos.crashes,
              "seed": options.seed, "minutes": options.minutes, "nodes": options.nodes,
              "fabric": bool(chaos.settings("a")), "encrypted": "fabric__encrypt" in chaos.settings("a"),
              **{key: chaos.figures[key] for key in ("fetches", "fetch_misses", "fetch_corrupt", "fetched_bytes",
                                                     "serves", "serves_below", "serves_busy", "moved", "pushed",
                                                     "push_fails", "taken", "taken_lost", "taken_over")},
              "puts": total["puts"], "gets": total["gets"], "misses": total["misses"],
              "blocks_verified": total["blocks"], "archives": len(chaos.archives),
              "archives_right": chaos.states["right"], "errors": total["errors"],
              "slowest_call_ms": max((client.counts.get("slowest_ms", 0)
                                      for client in chaos.gone + list(chaos.clients.values())), default=0)}
    bad = any(answer[key] for key in ("wrong_bytes", "hangs", "lost_archives", "crashes"))
    if bad or options.verbose:
        sys.stderr.write("\n".join(chaos.notes) + "\n" + (chaos.bed.logs(60) if bad else ""))
    print(json.dumps(answer), flush=True)
    return int(bad or not answer["operations"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("build")
    parser.add_argument("--seed", type=lambda text: int(text, 0), default=random.SystemRandom().randrange(1, 1 << 32))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--nodes", type=int, default=4, choices=range(2, 9))
    parser.add_argument("--list", action="store_true", help="print the seed's faults, and do nothing")
    parser.add_argument("--sabotage", choices=("wrong_bytes", "hangs", "lost_archives"),
                        help="spoil the run, to see that it is told")
    parser.add_argument("--verbose", action="store_true", help="say every fault in the end")
    options = parser.parse_args()
    hosts = list("abcdefgh"[:options.nodes])
    faults = schedule(options.seed, options.minutes * 60, hosts)
    if options.list:
        for fault in faults:
            print(f"{fault.at:8.2f} s  for {fault.seconds:5.2f} s  {fault.what} {fault.on}")
        return 0
    missing = why_not(etcd=True)
    if missing:
        print(f"chaos: skipped: {missing}", file=sys.stderr)
        return 77
    with Bed(hosts, os.path.abspath(options.build), seed=options.seed, etcd=True) as bed:
        return report(work(bed, options, faults), options)


if __name__ == "__main__":
    sys.exit(main())
