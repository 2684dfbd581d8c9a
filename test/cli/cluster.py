# SPDX-License-Identifier: Apache-2.0
"""Two nodes of one cluster, joined by Unix sockets: what one has the other reads, and what is said of it."""
import contextlib
import os
import random
import shutil
import socket
import struct
import subprocess
import time
import urllib.request

from codec import checkpoint, text, written
from harness import (FOLDER, WEFT, answer, blob, case, check, environment, golden, read, start_node, stop_node, until,
                     weft)

NAMES = ("left", "right")


def place(name):
    return os.path.join(FOLDER, name)


def start(name, secret, tiers=(), pool="64MB", **more):
    other = NAMES[1 - NAMES.index(name)]
    return start_node(pool, place(name + ".sock"), tiers, WEFT_FABRIC_NAME=name, WEFT_STATE_DIR=place(name),
                      WEFT_FABRIC_PLACE=f"hall/rack{1 + NAMES.index(name)}/{name}",
                      WEFT_FABRIC_LISTEN="unix:" + place(name + ".net"), WEFT_FABRIC_JOIN="unix:" + place(other + ".net"),
                      WEFT_FABRIC_SECRET_FILE=secret, **more)


def forget():
    """What earlier cases left of both nodes: settings, and what is on a tier."""
    for name in NAMES:
        shutil.rmtree(place(name), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.remove(place(name + ".nvme"))


def sees(name):
    nodes = answer("fabric", "--socket", place(name + ".sock"))["nodes"]
    return [node for node in nodes if node["state"] in ("ok", "draining")]


def until_both_see_each_other():
    """... and nobody else: an address of the list stands for itself until its node has answered there."""
    until("both see each other, and nobody else",
          lambda: all(len(sees(name)) == 1 == len(answer("fabric", "--socket", place(name + ".sock"))["nodes"])
                      for name in NAMES))


def said_in_vain(*socket):
    """How often a node said that no link to one that was there comes up again."""
    return sum("no link to right, at unix:" in event.get("text", "") for event in answer("events", *socket)["events"])


def refused(*words):
    done = subprocess.run([WEFT, *words], env=environment(), timeout=60, capture_output=True, text=True, check=False)
    check(done.returncode != 0, "not refused:", words)
    return done.stderr


@case
def two_nodes_are_one_memory():
    secret, data = blob("cluster.secret", 32, 5), blob("cluster.data", 5 << 20, 6)
    os.chmod(secret, 0o600)
    nodes = [start("left", secret), start("right", secret, WEFT_FABRIC_LEND="32MB")]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    chain = ("--key", "shared", "--block-bytes", "1MiB")
    until_both_see_each_other()
    known = {}
    # Of two links that both began for a moment one goes, and all is told anew.
    until("all has been told", lambda: known.update(answer("fabric", *left)) or known["nodes"][0]["state"] == "ok")
    golden("fabric", known)
    # Whoever began the link: where the other can be called, and not where it came from.
    for name, other in (NAMES, NAMES[::-1]):
        check([node["address"] for node in sees(name)] == ["unix:" + place(other + ".net")], name, sees(name))
    check("right" in weft("fabric", *left).stdout.decode(), "the table names nobody")
    golden("fabric-topology", answer("fabric", "topology", *left))
    shown = weft("fabric", "topology", *left).stdout.decode()
    check("numa_node" in shown and "hall\n  rack1\n    left  left: this node\n  rack2\n    right  right: ok" in shown, shown)
    weft("put", *chain, data, *left)
    until("what is put on one is matched on the other",
          lambda: answer("match", *chain, "--blocks", "5", *right, expect=None)["present"] == 5)
    check(answer("match", *chain, "--blocks", "5", *right)["tiers"]["remote"] == 5, "it is not on another node")
    key = answer("ls", "blocks", *left)["blocks"][0]["key"]
    check(answer("explain", key, *right)["below"][0]["nodes"] == ["left"], "it does not say on which")
    check("on peers (other nodes with it: left)" in weft("explain", key, *right).stdout.decode(), "nor in words")
    copy = place("cluster.copy")
    weft("get", *chain, "--blocks", "5", "--output", copy, *right)
    check(read(copy) == read(data), "other bytes")
    until("what was read is counted", lambda: answer("fabric", *right)["self"]["fetches"] == 5)

    other = ("--key", "handed", "--block-bytes", "1MiB")
    weft("put", *other, data, *left)
    weft("fabric", "hand-over", "right", *other, "--blocks", "5", *left)
    until("a chain that is handed over is there",
          lambda: answer("fabric", *right)["self"]["taken_over"] == 1 and
          answer("fabric", *right)["self"]["fetches"] == 10)

    gone = ("--key", "gone", "--block-bytes", "1MiB")
    weft("put", *gone, data, *left)
    until("it is known there, too",
          lambda: answer("match", *gone, "--blocks", "5", *right, expect=None)["present"] == 5)
    weft("get", *gone, "--blocks", "5", "--output", copy, *right)
    check(answer("rm", *gone, *left)["removed"] == 5, "it was not all here")
    check(answer("match", *gone, "--blocks", "5", *right, expect=None)["present"] == 5, "the other has it no more")
    weft("rm", "--everywhere", *gone, *left)
    until("it is nowhere", lambda: all(answer("match", *gone, "--blocks", "5", *end, expect=None)["present"] == 0
                                       for end in (left, right)))

    routed = answer("route", *chain, "--blocks", "5", *left)
    check(sorted(each["node"] for each in routed["candidates"]) == sorted(NAMES), routed)

    weft("fabric", "allot", "left", "8MB", *right)
    weft("fabric", "lend", "16MB", *right)
    until("what is lent is what was said", lambda: answer("fabric", *right)["self"]["lent_bytes"] == 16 << 20)
    until("what is allotted is what was said",
          lambda: answer("fabric", *right)["nodes"][0]["limit_bytes"] == 8 << 20)
    weft("fabric", "allot", "left", "8MB", "--min", "4MB", *right)
    until("what is due at least is what was said",
          lambda: answer("fabric", *right)["nodes"][0]["least_bytes"] == 4 << 20)
    check("due at least" in refused("fabric", "lend", "2MB", *right), "lends less than is due")
    check("on right itself" in refused("fabric", "allot", "left", "8MB", "--lender", "right", *left), "without a registry")
    check("more than fabric.lend" in refused("fabric", "lend", "64MB", *right), "lends more than it has")
    check("no node is called" in refused("fabric", "allot", "nobody", "1MB", *right), "allots to nobody")
    check("lends memory, as far as is known" in refused("fabric", "allot", "right", "1MB", *left), "lends what it has not")
    weft("fabric", "limit", "link", "left", "64MB", *right)
    weft("fabric", "limit", "share", "default", "3", *right)
    weft("fabric", "limit", "domain", "default", "32MB", *right)
    until("what is sent is bounded",
          lambda: [(domain["share"], domain["max_bytes_s"]) for domain in answer("fabric", *right)["self"]["domains"]]
          == [(3, 32 << 20)] and answer("fabric", *right)["nodes"][0]["max_bytes_s"] == 64 << 20)
    bounds = {(row["of"], row["name"]): (row["max_bytes_s"], row["share"])
              for row in answer("fabric", "limit", *right)["limits"]}
    check(bounds == {("domain", "default"): (32 << 20, 3), ("link", "left"): (64 << 20, None), ("link", "all"): (0, None)},
          bounds)
    check("64 MiB" in weft("fabric", "limit", *right).stdout.decode(), "the table has no bounds")
    said = weft("fabric", "limit", "link", "nobody", "1", *right).stdout.decode()
    check("nobody: 1 B a second at most is sent to it from now on; no node of that name is there" in said, said)
    bounds = {row["name"]: (row["max_bytes_s"], row["own"], row["there"])
              for row in answer("fabric", "limit", *right)["limits"] if row["of"] == "link"}
    check(bounds == {"left": (64 << 20, True, True), "nobody": (1, True, False), "all": (0, None, None)}, bounds)
    check("a node's name" in refused("fabric", "limit", "link", "No Body", "1", *right), "of what is no name")
    check("this node, which sends itself" in refused("fabric", "limit", "link", "right", "1", *right), "of itself")
    said = weft("fabric", "limit", "domain", "default", "0", *right).stdout.decode()
    check("default: what is sent of it has no bound from now on" in said, said)
    until("a bound that is none is shown as none",
          lambda: "0 B" not in weft("fabric", "limit", *right).stdout.decode())
    told = weft("events", "--what", "fabric", *right).stdout.decode()
    for words in ("left may have 8 MiB of what this node lends", "left may have 8 MiB of what this node lends, and is due 4 MiB",
                  "this node lends 16 MiB from now on", "64 MiB a second at most is sent to left from now on",
                  "what is sent of default has no bound from now on", "the share of default is 3 from now on"):
        check(words in told, words, told)
    weft("fabric", "limit", "link", "left", "0", *right)
    said = weft("fabric", "limit", "link", "all", "16MB", *right).stdout.decode()
    check("to each node without a bound of its own" in said, said)
    until("its own goes before that of all", lambda: answer("fabric", *right)["nodes"][0]["max_bytes_s"] == 0)
    weft("fabric", "limit", "link", "left", "default", *right)
    until("it has that of all", lambda: answer("fabric", *right)["nodes"][0]["max_bytes_s"] == 16 << 20)
    weft("fabric", "limit", "link", "all", "0", *right)
    check("no size" in refused("fabric", "limit", "link", "all", "default", *right), "all have the bound of all")
    check("no domain is called" in refused("fabric", "limit", "domain", "nobody", "1MB", *right), "bounds nobody")
    check("1 to 1000000" in refused("fabric", "limit", "share", "default", "0", *right), "a share of nothing")
    check("none of link" in refused("fabric", "limit", "cable", "left", "1MB", *right), "bounds a cable")
    check("a number from 1" in refused("fabric", "limit", "share", "default", "3MB", *right), "a share in bytes")
    check("for allot and lend, not for drain" in refused("fabric", "drain", "--lender", "left", *right), "drains another")
    check("for drain, not for show" in refused("fabric", "--off", *right), "shows off")
    until("what was sent is counted", lambda: answer("fabric", *left)["self"]["domains"][0]["sent"]["bytes"] > 0)
    weft("fabric", "drain", *right)
    until("a node that drains is seen to", lambda: sees("left")[0]["state"] == "draining")
    weft("fabric", "drain", "--off", *right)
    until("and not any more", lambda: sees("left")[0]["state"] == "ok")
    before = said_in_vain(*left)  # it may have said so of one that took long to start
    stop_node(nodes[1])
    until("a node that is gone is away", lambda: not sees("left"))
    found = {finding["name"]: finding for finding in answer("doctor", *left, expect=1)["findings"]}
    check(found["cluster"]["state"] == "ok" and found["nodes"]["state"] == "broken", found)
    check(found["nodes"]["why"].startswith("right: ") and found["nodes"]["mend"], found["nodes"])
    until("that no link came up is said once, with where and why", lambda: said_in_vain(*left) == before + 1)
    nodes[1] = start("right", secret, WEFT_FABRIC_LEND="32MB")
    until("what is lent, and to whom, outlives the lender",
          lambda: answer("fabric", *right)["self"]["lent_bytes"] == 16 << 20 and
          [(node["least_bytes"], node["limit_bytes"]) for node in answer("fabric", *right)["nodes"]
           if node["name"] == "left"] == [(4 << 20, 8 << 20)])
    stop_node(nodes[1])
    stop_node(nodes[0])


def of_left():
    """What the right one says of the left one."""
    return next(iter(sees("right")), {"blocks": 0, "below_blocks": 0})


def damage(path, data, every):
    """A byte of each so-many-th MiB of the data, where it lies in the file."""
    with open(path, "r+b") as file:
        held, done = file.read(), 0
        for at in range(0, len(data), every):
            found = held.find(data[at:at + 4096])
            check(found >= 0, "the data is not in the file as it is")
            file.seek(found + 1000)
            file.write(bytes([held[found + 1000] ^ 1]))
            done += 1
    return done


@case
def what_is_on_a_tier_of_one_is_read_by_the_other():
    secret = blob("below.secret", 32, 9)
    os.chmod(secret, 0o600)
    tier = "nvme:" + place("left.nvme") + ":256MB"
    chains = {name: blob("below." + name, 5 << 20, seed) for name, seed in (("one", 10), ("two", 11), ("three", 12))}
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    size = ("--block-bytes", "1MiB")
    nodes = [start("left", secret, [tier]), start("right", secret)]
    for name, path in chains.items():
        weft("put", "--key", name, *size, path, *left)
        weft("demote", "--key", name, *size, "--blocks", "5", *left)
    until("what went down is told as that", lambda: of_left()["blocks"] == of_left()["below_blocks"] == 15)
    replica = lambda: [answer("fabric", *right)["self"][key] for key in ("replica_copies", "replica_below")]
    until("what an older link told is swept out", lambda: replica() == [15, 15])
    until("the tier's speed is said", lambda: of_left()["below_mbps"] > 0)

    def reads(name):
        until(name + " is matched", lambda: answer("match", "--key", name, *size, "--blocks", "5", *right,
                                                   expect=None)["present"] == 5)
        weft("get", "--key", name, *size, "--blocks", "5", "--output", place("copy"), "--verify", *right)
        check(read(place("copy")) == read(chains[name]), "other bytes of", name)

    routed = answer("route", "--key", "one", *size, "--blocks", "5", *right)
    check("left" in [each["node"] for each in routed["candidates"]], routed)
    reads("one")
    until("what was read is counted", lambda: answer("fabric", *left)["self"]["serves_below"] >= 5)
    said = answer("fabric", *left)["self"]
    check(said["serves"] == said["serves_below"] and said["served_below_bytes"] == 5 << 20, said)
    there = answer("match", "--key", "one", *size, "--blocks", "5", *left)
    check(there["tiers"]["nvme"] == 5, "it came up for another node:", there)
    check(of_left()["below_blocks"] == 15, of_left())

    nodes[0].kill()
    nodes[0].wait()
    until("a node that died is away", lambda: not sees("right"))
    nodes[0] = start("left", secret, [tier])
    until("what it finds on its tier is told", lambda: of_left()["below_blocks"] == 15)
    reads("two")

    nodes[0].kill()
    nodes[0].wait()
    check(damage(place("left.nvme"), read(chains["three"]), 1 << 20) == 5, "nothing was damaged")
    nodes[0] = start("left", secret, [tier])
    until("it tells of it again", lambda: of_left()["below_blocks"] == 15)
    until("it is matched", lambda: answer("match", "--key", "three", *size, "--blocks", "5", *right,
                                          expect=None)["present"] == 5)
    weft("get", "--key", "three", *size, "--blocks", "5", "--output", place("copy"), "--verify", *right, expect=1)
    until("what is damaged is there no more", lambda: of_left()["below_blocks"] == 10)
    check(answer("match", "--key", "three", *size, "--blocks", "5", *left, expect=1)["present"] == 0, "it is still there")
    check(any(event["key"] for event in answer("events", "--what", "corrupt", *left)["events"]), "nobody says so")
    for node in nodes:
        stop_node(node)


@case
def memory_that_is_lent_is_used():
    secret, data = blob("cluster.secret", 32, 5), blob("lent.data", 4 << 20, 14)
    os.chmod(secret, 0o600)
    forget()
    nodes = [start("left", secret), start("right", secret, WEFT_FABRIC_LEND="16MB")]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    until("what is lent is known", lambda: sees("left")[0]["lent_bytes"] == 16 << 20)
    for i in range(6):
        chain = ("--key", f"lent{i}", "--block-bytes", "1MiB", "--blocks", "4")
        weft("put", *chain[:4], data, *left)
        until("it went down", lambda: answer("demote", *chain, *left, expect=None) and
              answer("match", *chain, *left, expect=None)["tiers"].get("dram", 0) == 0)
    # Of 16 MiB a thirty-second stays unused, and a block with its sums takes some more than 1 MiB.
    lent = {}
    until("it is used", lambda: lent.update(answer("fabric", *right)["self"]) or lent["lent_blocks"] >= 14, lent)
    # Who lends it removes it, too: it is not in its own pool, and whom it is for need not be there.
    chain = ("--key", "lent5", "--block-bytes", "1MiB")
    check(answer("match", *chain, "--blocks", "4", *left, expect=None)["present"] == 4, "it is not lent")
    nodes[0].kill()
    nodes[0].wait(60)
    until("left has gone", lambda: not sees("right"))
    weft("rm", "--everywhere", *chain, *right, expect=None)
    nodes[0] = start("left", secret)
    until_both_see_each_other()
    until("left has heard all", lambda: sees("left")[0]["blocks"] >= 10)
    check(answer("match", *chain, "--blocks", "4", *left, expect=None)["present"] == 0, "it is there still")
    for node in nodes:
        stop_node(node)


@case
def what_went_with_a_lender_is_explained():
    secret, data = blob("cluster.secret", 32, 5), blob("lender.data", 4 << 20, 16)
    os.chmod(secret, 0o600)
    forget()
    nodes = [start("left", secret), start("right", secret, WEFT_FABRIC_LEND="16MB")]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    until("what is lent is known", lambda: sees("left")[0]["lent_bytes"] == 16 << 20)
    chain = ("--key", "lender", "--block-bytes", "1MiB")
    key = answer("put", *chain, data, *left)["first_key"]
    weft("demote", *chain, "--blocks", "4", *left)
    until("it is there", lambda: answer("fabric", *right)["self"]["lent_blocks"] == 4)
    nodes[1].kill()
    nodes[1].wait(60)
    until("it is told", lambda: ("missing", "lender") in [(event["what"], event.get("reason"))
                                                          for event in answer("explain", key, *left)["events"]])
    said = weft("explain", key, *left).stdout.decode()
    check(said.startswith(key + " is not there any more\n") and "the node that lent the memory went" in said, said)
    check("fabric.copies" in weft("explain", *left).stdout.decode(), "nor in the sum")
    stop_node(nodes[0])


@case
def what_only_a_node_that_went_had_is_explained():
    secret, data = blob("cluster.secret", 32, 5), blob("went.data", 4 << 20, 17)
    os.chmod(secret, 0o600)
    forget()
    nodes = [start("left", secret), start("right", secret)]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    chain = ("--key", "went", "--block-bytes", "1MiB")
    put = answer("put", *chain, data, *right)
    until("it is known", lambda: answer("match", *chain, "--blocks", "4", *left, expect=None)["present"] == 4)
    nodes[1].kill()
    nodes[1].wait(60)
    for key in put["first_key"], put["last_key"]:
        until("it is told", lambda: ("missing", "node") in [(event["what"], event.get("reason"))
                                                            for event in answer("explain", key, *left)["events"]])
        said = weft("explain", key, *left).stdout.decode()
        check(said.startswith(key + " is not there any more\n") and "the node that had it went" in said, said)
    said = weft("explain", *left).stdout.decode()
    check("only a node that went had it" in said and "parent" not in said, said)
    weft("put", *chain, data, *left)
    check("right is away" in refused("fabric", "hand-over", "right", *chain, "--blocks", "4", *left), "it was told")
    stop_node(nodes[0])


@case
def what_others_put_into_a_nodes_memory_is_found_there():
    """A lender's own clients read it like what any other node has, also when nobody else is left."""
    secret, data = blob("cluster.secret", 32, 5), blob("own.data", 8 << 20, 21)
    os.chmod(secret, 0o600)
    forget()
    nodes = [start("left", secret), start("right", secret, WEFT_FABRIC_LEND="32MB")]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    chain = ("--key", "own", "--block-bytes", "1MiB")
    weft("put", *chain, data, *left)
    weft("fabric", "drain", *left)
    until("it is drained", lambda: answer("fabric", *left)["self"]["drained"])
    check(answer("fabric", *right)["self"]["lent_blocks"] == 8, "it went elsewhere")
    nodes[0].kill()
    nodes[0].wait(60)
    until("it is away", lambda: answer("fabric", *right)["nodes"][0]["state"] == "away")
    until("it is matched", lambda: answer("match", *chain, "--blocks", "8", *right, expect=None)["present"] == 8)
    routed = answer("route", *chain, "--blocks", "8", *right)
    check(routed["action"] == "local" and routed["held_blocks"] == 8, routed)
    weft("get", *chain, "--blocks", "8", "--output", place("own.copy"), "--verify", *right)
    check(read(place("own.copy")) == read(data), "other bytes")
    until("these were reads of what it lends", lambda: [answer("fabric", *right)["self"][key] for key in (
        "lent_reads", "lent_read_bytes", "fetches")] == [8, 8 << 20, 0])
    last = answer("put", *chain, data, *right)["last_key"]
    weft("rm", "--everywhere", *chain, *right)
    until("it went", lambda: answer("match", *chain, "--blocks", "8", *right, expect=None)["present"] == 0)
    check("is not there" in weft("explain", last, *right, expect=None).stdout.decode(), "it is there still")
    stop_node(nodes[1])


@case
def a_chain_that_lies_with_several_is_counted_on():
    """Lenders get blocks as they have room: a router counts on what all of them have, as a get finds it."""
    secret, data, names = blob("cluster.secret", 32, 5), blob("several.data", 24 << 20, 22), ("north", "south", "east")
    os.chmod(secret, 0o600)
    at = {name: ("--socket", place(name + ".sock")) for name in names}
    nodes = {name: start_node("64MB", place(name + ".sock"), WEFT_FABRIC_NAME=name, WEFT_STATE_DIR=place(name),
                              WEFT_FABRIC_LISTEN="unix:" + place(name + ".net"), WEFT_FABRIC_SECRET_FILE=secret,
                              WEFT_FABRIC_JOIN=",".join("unix:" + place(o + ".net") for o in names if o != name),
                              WEFT_FABRIC_LEND="0" if name == "north" else "32MB") for name in names}
    for name in names:
        until(f"{name} sees the others", lambda name=name: len(sees(name)) == 2)
    chain = ("--key", "several", "--block-bytes", "1MiB")
    weft("put", *chain, data, *at["north"])
    weft("fabric", "drain", *at["north"])
    until("it is drained", lambda: answer("fabric", *at["north"])["self"]["drained"])
    weft("fabric", "drain", "--off", *at["north"])
    check(all(answer("fabric", *at[name])["self"]["lent_blocks"] > 0 for name in names[1:]), "one of them has it all")
    weft("rm", *chain, *at["north"])
    until("it is with them alone", lambda: answer("route", *chain, "--blocks", "24", "--candidate", "north", *at["north"])
          ["held_blocks"] == 0)
    for name in names:
        routed = answer("route", *chain, "--blocks", "24", "--candidate", name, *at[name])
        check(routed["action"] == "fetch" and routed["source"] == "several nodes", routed)
        loaded = routed["held_blocks"] + routed["fetch_blocks"]  # without the last one, of a token, which is computed
        check(routed["load_blocks"] == loaded >= 23, routed)
    check("from elsewhere: several nodes" in weft("route", *chain, "--blocks", "24", *at["north"]).stdout.decode(), "why")
    got = answer("get", *chain, "--blocks", "24", "--output", place("several.copy"), *at["south"])
    check(got["present"] == 24 and read(place("several.copy")) == read(data), "other bytes")
    check("no other node that is there has it" in weft("rm", "--everywhere", *chain, *at["north"]).stdout.decode(), "said")
    for name in names[1:]:
        until("all of it is gone", lambda name=name: answer("fabric", *at[name])["self"]["lent_blocks"] == 0)
    for name in names:
        stop_node(nodes[name])


@case
def a_drain_ends_soon_or_says_what_is_in_its_way():
    """However many blocks there might be: looking at what never was used took minutes."""
    secret, data = blob("cluster.secret", 32, 5), blob("drain.data", 4 << 20, 15)
    os.chmod(secret, 0o600)
    forget()
    most = {"WEFT_POOL_SIZE_MAX": "64GB", "WEFT_POOL_BLOCK_BYTES_MIN": "4KB"}
    nodes = [start("left", secret, **most), start("right", secret, WEFT_FABRIC_LEND="16MB")]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    weft("fabric", "lend", "1MB", *right)
    until("less is lent", lambda: sees("left")[0]["lent_bytes"] == 1 << 20)
    weft("put", "--key", "drained", "--block-bytes", "1MiB", data, *left)
    weft("fabric", "drain", *left)
    until("it has no room", lambda: answer("fabric", *left)["self"]["move_full_bytes"] == 4 << 20)
    said = weft("fabric", *left).stdout.decode()
    check("no other node that lends has room for 4 MiB of it" in said and " s more" not in said, said)
    until("it says so once", lambda: weft("events", "--what", "fabric", *left).stdout.decode()
          .count("no lender has room for 4 MiB") == 1)
    weft("fabric", "lend", "16MB", *right)
    until("it is drained", lambda: answer("fabric", *left)["self"]["drained"])
    check(answer("fabric", *left)["self"]["move_full_bytes"] == 0, "it has room by now")
    for node in nodes:
        stop_node(node)


@case
def a_chain_on_a_tier_is_handed_over():
    secret, data = blob("below.secret", 32, 9), blob("below.handed", 5 << 20, 13)
    os.chmod(secret, 0o600)
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    chain = ("--key", "handed", "--block-bytes", "1MiB")
    forget()
    nodes = [start("left", secret, ["nvme:" + place("left.nvme") + ":256MB"]), start("right", secret)]
    until_both_see_each_other()
    weft("put", *chain, data, *left)
    weft("demote", *chain, "--blocks", "5", *left)
    until("it went down", lambda: of_left()["below_blocks"] == 5)
    until("it is matched there", lambda: answer("match", *chain, "--blocks", "5", *right, expect=None)["present"] == 5)
    said = refused("fabric", "hand-over", "left", *chain, "--blocks", "5", *right)
    check("nor on a tier of its own" in said, said)
    weft("fabric", "hand-over", "right", *chain, "--blocks", "5", *left)
    until("it is in the other's DRAM",
          lambda: answer("match", *chain, "--blocks", "5", *right, expect=None)["tiers"].get("dram") == 5)
    weft("get", *chain, "--blocks", "5", "--output", place("copy"), "--verify", *right)
    check(read(place("copy")) == read(data), "other bytes")
    for node in nodes:
        stop_node(node)


def numbers(name, count):
    """bf16 as KV has it: near a normal distribution."""
    path, draw = place(name), random.Random(7)
    with open(path, "wb") as file:
        file.write(b"".join(struct.pack("<f", draw.gauss(0, 1))[2:] for _ in range(count)))
    return path


@case
def a_chain_that_has_no_room_is_no_mystery():
    secret, data = blob("cluster.secret", 32, 5), blob("room.data", 8 << 20, 18)
    os.chmod(secret, 0o600)
    forget()
    nodes = [start("left", secret), start("right", secret, pool="4MB")]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    chain, copy = ("--key", "large", "--block-bytes", "1MiB"), place("room.copy")
    weft("put", *chain, data, *left)
    until("it is known", lambda: answer("match", *chain, "--blocks", "8", *right, expect=None)["present"] == 8)
    got = answer("get", *chain, "--blocks", "8", "--output", copy, expect=1, *right)
    check(got["present"] < 8 and got["missing"]["why"] == "room" and "enlarge the pool" in got["missing"]["text"], got)
    check(read(copy) == read(data)[:got["bytes"]], "other bytes")
    weft("fabric", "hand-over", "right", *chain, "--blocks", "8", *left)
    until("who was told says what has no room", lambda: any(
        "have no room in DRAM" in event["text"] for event in answer("events", "--what", "handed_over", *right)["events"]))
    for node in nodes:
        stop_node(node)


@case
def blocks_cross_encoded():
    secret, data = blob("cluster.secret", 32, 5), numbers("cluster.numbers", 8 * 65536)
    os.chmod(secret, 0o600)
    nodes = [start(name, secret, WEFT_FABRIC_CODEC="lossless") for name in NAMES]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    chain = ("--key", "numbers", "--layers", "4", "--kv-heads", "4", "--head-dim", "128", "--dtype", "bf16",
             "--block-tokens", "16")
    weft("put", *chain, data, *left)
    until("what is put on one is matched on the other",
          lambda: answer("match", *chain, "--blocks", "8", *right, expect=None)["present"] == 8)
    copy = place("cluster.copy")
    weft("get", *chain, "--blocks", "8", "--output", copy, *right)
    check(read(copy) == read(data), "other bytes")
    seen = {}

    def counted():
        seen.update(right=answer("fabric", *right), left=answer("fabric", *left))
        came, went = seen["right"]["self"], seen["left"]["self"]
        return came["frames_in_plain_bytes"] == came["fetched_bytes"] == 8 * 131072 and \
            went["frames_out_bytes"] == came["frames_in_bytes"] and seen["left"]["nodes"][0]["codec_out"] == "lossless"

    until("what crossed is counted on both sides:", counted, seen)
    came, peer = seen["right"]["self"], seen["right"]["nodes"][0]
    check(came["frames_in"] >= 8 and came["frames_in_bytes"] * 1.2 < came["frames_in_plain_bytes"], came)
    check(peer["codec_in"] == "lossless" and peer["codec_out"] == "none" and peer["ratio_in"] > 1.2, peer)
    check("in 1." in weft("fabric", *right).stdout.decode(), "the table does not say so")
    for node in nodes:
        stop_node(node)


class Lossy:
    """A chain of KV of which there is a profile, for nodes whose domains ask for that or this quality."""
    SHAPE = ("--layers", "2", "--kv-heads", "4", "--head-dim", "12", "--dtype", "bf16", "--block-tokens", "64",
             "--rope-theta", "10000")

    def __init__(self):
        self.secret, self.blocks, self.profiles = blob("cluster.secret", 32, 5), place("lossy.kv"), place("lossy.profiles")
        os.chmod(self.secret, 0o600)
        given = ("--model", checkpoint("long.bin", context=512, kv_heads=4), "--text", text())
        os.makedirs(self.profiles, exist_ok=True)
        weft("codec", "calibrate", *given, "--name", "shared@1", "--kl", "0.1",
             "--output", os.path.join(self.profiles, "shared.wfprofile"))
        shape = answer("codec", "kv", *given, "--tokens", "2048", "--output", self.blocks,
                       "--format-output", place("lossy.json"))
        # Of one window: its positions are a chain's.
        self.count, self.size = shape["blocks_per_sequence"], shape["block_bytes"]
        with open(self.blocks, "r+b") as file:
            file.truncate(self.count * self.size)
        self.form = ("--model", "shared@1", *self.SHAPE)

    def node(self, who, quality, size="64MB", **more):
        config = written(f"lossy.{who}.yaml", f"domains:\n  - name: default\n    quality: {quality}\n".encode())
        return start(who, self.secret, ["nvme:" + place(f"lossy.{who}.nvme") + ":" + size], WEFT_PROFILES=self.profiles,
                     WEFT_CONFIG=config, **more)


@case
def what_was_stored_with_loss_is_read_as_that():
    """By who asks for no more than that, which keeps it as that; and by nobody else."""
    lossy = Lossy()
    count, size, blocks, node = lossy.count, lossy.size, lossy.blocks, lossy.node
    data = read(blocks)
    chain, asked = ("--key", "lossy", *lossy.form), ("--blocks", str(count))
    left, right = (("--socket", place(who + ".sock")) for who in NAMES)

    def known():
        """Of the chain, on the right: how many, and the worst of them."""
        there = answer("match", *chain, *asked, *right, expect=None)
        return there["present"], there.get("quality")

    def got(socket, expect=0):
        weft("get", *chain, *asked, "--output", place("lossy.copy"), *socket, expect=expect)
        return read(place("lossy.copy"))

    nodes = [node("left", "transparent"), node("right", "transparent")]
    until_both_see_each_other()
    weft("put", *chain, blocks, *left)
    until("what is as it was put is known as that", lambda: known() == (count, "lossless"))
    weft("demote", *chain, *asked, *left)
    until("what lies below with loss is known as that", lambda: known() == (count, "transparent"))
    came = got(right)
    check(came != data and len(came) == len(data), "nothing was lost")
    seen = {}

    def as_it_lies():
        """All of it came as it lies there, and both sides have counted that."""
        seen.update({who: answer("fabric", *at)["self"] for who, at in (("left", left), ("right", right))})
        return seen["right"]["fetches_lossy"] >= count and \
            seen["right"]["cuts_in_plain_bytes"] == count * size == seen["left"]["cuts_out_plain_bytes"]

    until("it is counted", as_it_lies, seen)
    check(seen["right"]["cuts_in_bytes"] == seen["left"]["cuts_out_bytes"] < count * size // 2, seen)
    check(seen["right"]["cuts_unread"] == seen["left"]["frames_out"] == 0, seen)
    check(known() == (count, "transparent"), known())
    check(got(left) == came, "both have other bytes")

    # When nobody else has it, it goes down here, by the profile that it came with.
    stop_node(nodes[0])
    until("nobody has it there", lambda: [tier["blocks"] for tier in answer("ls", "tiers", *right)["tiers"]
                                         if tier["name"] == "peers"] == [0])
    weft("demote", *chain, *asked, *right)
    until("it is on a tier here", lambda: answer("match", *chain, *asked, *right)["tiers"]["nvme"] == count)
    check(known() == (count, "transparent") and len(got(right)) == len(data), known())
    stop_node(nodes[1])

    # Who asks for what is exact finds nothing of it, and has all of it as soon as that is there.
    nodes = [node("left", "transparent"), node("right", "lossless")]
    until_both_see_each_other()
    until("the left one has it", lambda: answer("match", *chain, *asked, *left, expect=None)["present"] == count)
    until("all is told", lambda: answer("fabric", *right)["nodes"][0]["blocks"] == count)
    check(known()[0] == 0, known())
    weft("get", *chain, *asked, "--output", place("lossy.copy"), *right, expect=1)
    check(answer("fabric", *left)["self"]["serves"] == 0, "a block was sent")
    for stopped in nodes:
        stop_node(stopped)


@case
def what_was_stored_with_loss_goes_on_to_memory_that_is_lent():
    """As what it is, when its tier has no more room; and back from there to who takes it, and to nobody else."""
    lossy = Lossy()
    left, right = (("--socket", place(who + ".sock")) for who in NAMES)
    asked = ("--blocks", str(lossy.count))
    for who in NAMES:
        with contextlib.suppress(FileNotFoundError):
            os.remove(place(f"lossy.{who}.nvme"))
    nodes = [lossy.node("left", "transparent", "2MB"), lossy.node("right", "lossless", WEFT_FABRIC_LEND="32MB")]
    until_both_see_each_other()
    until("the lender's memory is known", lambda: sees("left")[0]["lent_bytes"] > 0)
    first = ("--key", "chain0", *lossy.form)
    lent = lambda: answer("fabric", *right)["self"]["lent_blocks"]
    came = None
    for number in range(200):
        chain = ("--key", f"chain{number}", *lossy.form)
        weft("put", *chain, lossy.blocks, *left)
        weft("demote", *chain, *asked, *left)
        if number == 0:
            weft("get", *chain, *asked, "--output", place("lossy.copy"), *left)
            came = read(place("lossy.copy"))
            check(len(came) == lossy.count * lossy.size and came != read(lossy.blocks), "nothing was lost")
            weft("demote", *chain, *asked, *left)
        if lent() >= 2 * lossy.count:
            break
    moves = [event for event in answer("events", "--what", "move", *left)["events"] if event.get("tier") == "remote"]
    check(moves and all(event.get("quality") == "transparent" for event in moves), "it did not go there:", moves[:3])
    # The first chain went first, or is where it was: either way it is what it was.
    there = answer("match", *first, *asked, *left)
    check(there["present"] == lossy.count and there["quality"] == "transparent", there)
    check(there["tiers"].get("remote", 0) > 0, "nothing of it is lent:", there)
    weft("get", *first, *asked, "--output", place("lossy.copy"), *left)
    check(read(place("lossy.copy")) == came, "other bytes")
    # It was exact until it went down, and that it is so no more is news for a moment.
    until("who asks for what is exact does not find it",
          lambda: answer("match", *first, *asked, *right, expect=None)["present"] == 0)
    weft("get", *first, *asked, "--output", place("lossy.copy"), *right, expect=1)
    for node in nodes:
        stop_node(node)


@case
def a_node_without_a_codec_hears_none():
    secret, data = blob("cluster.secret", 32, 5), numbers("cluster.numbers", 2 * 65536)
    os.chmod(secret, 0o600)
    nodes = [start("left", secret, WEFT_FABRIC_CODEC="lossless"), start("right", secret, WEFT_FABRIC_CODEC="none")]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    chain = ("--key", "numbers", "--block-bytes", "128KiB", "--dtype", "bf16")
    weft("put", *chain, data, *left)
    until("it is matched", lambda: answer("match", *chain, "--blocks", "2", *right, expect=None)["present"] == 2)
    weft("get", *chain, "--blocks", "2", "--output", place("cluster.copy"), *right)
    check(read(place("cluster.copy")) == read(data), "other bytes")
    check(answer("fabric", *right)["self"]["frames_in"] == 0, "it was asked for encoded")
    for node in nodes:
        stop_node(node)


@case
def the_last_copy_stays_longer():
    secret = blob("cluster.secret", 32, 5)
    os.chmod(secret, 0o600)
    nodes = [start(name, secret, WEFT_POOL_POLICY="lru") for name in NAMES]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    chains = {}
    for name, blocks in (("alone", 16), ("shared", 16), ("new", 40)):
        chains[name] = ("--key", name, "--block-bytes", "1MiB", "--blocks", str(blocks))
        data = blob("cluster." + name, blocks << 20, 6)
        if name == "new":  # the other node has what was used later
            until("the other knows of it",
                  lambda: answer("match", *chains["shared"], *right, expect=None)["present"] == 16)
            weft("get", *chains["shared"], "--output", place("cluster.copy"), *right)
            until("both know that both have it",
                  lambda: [tier["blocks"] for tier in answer("ls", "tiers", *left)["tiers"] if tier["kind"] == "peers"] == [16])
        weft("put", *chains[name][:4], data, *left)
    found = {name: answer("match", *chains[name], *left)["tiers"] for name in chains}
    check(found["alone"].get("dram", 0) == 16, "what nobody else has went:", found)
    check(found["shared"].get("remote", 0) >= 8, "what another node has stayed:", found)
    gone = [event for event in answer("events", *left)["events"] if event["what"] == "evict"]
    check(gone and all(event["why"].get("elsewhere") for event in gone[-4:]), "it does not say why:", gone[-4:])
    for node in nodes:
        stop_node(node)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def etcd_begin():
    """One of this case's own, and where it is; it ends with this process."""
    for _ in range(5):  # somebody else may take the port before it does
        url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        process = subprocess.Popen(["etcd", "--name", "one", "--data-dir", place("etcd"), "--listen-client-urls", url,
                                    "--advertise-client-urls", url, "--listen-peer-urls", peer,
                                    "--initial-advertise-peer-urls", peer, "--initial-cluster", "one=" + peer,
                                    "--log-level", "error", "--unsafe-no-fsync"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.time() + 60
        while process.poll() is None and time.time() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(url + "/health", timeout=5):
                return process, url.replace("http", "etcd")
            time.sleep(0.05)
        process.kill()
        process.wait()
        shutil.rmtree(place("etcd"), ignore_errors=True)
    raise RuntimeError("etcd does not begin")


@case
def a_directory_in_parts_is_asked():
    """Three nodes keep two thirds of it each; what one does not know of it asks the others for, when it is to."""
    if not shutil.which("etcd"):
        return "there is no program `etcd`"
    secret, data, names = blob("cluster.secret", 32, 5), blob("parts.data", 32 << 16, 8), ("one", "two", "three")
    os.chmod(secret, 0o600)
    etcd, url = etcd_begin()
    try:
        nodes = {name: start_node("64MB", place(name + ".sock"), WEFT_FABRIC_NAME=name, WEFT_STATE_DIR=place(name),
                                  WEFT_FABRIC_LISTEN="unix:" + place(name + ".net"), WEFT_FABRIC_JOIN=url + "/parts",
                                  WEFT_FABRIC_SECRET_FILE=secret, WEFT_FABRIC_DIRECTORY="parts") for name in names}
        for name in names:
            until(f"{name} sees the others", lambda name=name: len(sees(name)) == 2)
        chain = ("--key", "k", "--block-bytes", "64KiB", "--blocks", "32")
        at = {name: ("--socket", place(name + ".sock")) for name in names}

        def matched(name, *words):
            return answer("match", *chain, *words, *at[name], expect=None)["present"]

        weft("put", *chain[:4], data, *at["one"])
        check(matched("one") == 32, "it is not where it was put")
        for name in names[1:]:
            check(matched(name) == 0, name, "knows of it without asking")
            until(f"{name} finds it", lambda name=name: matched(name, "--within", "10000") == 32)
            until("a match finds what was found",
                  lambda name=name: matched(name, "--within", "10000") == matched(name) == 32)
            check(answer("fabric", *at[name])["self"]["directory_parts"] == 1, name, "keeps all of it")
        until("who was not told, as an owner is, asked for that",
              lambda: any(answer("fabric", *at[name])["self"]["lookups"] > 0 for name in names[1:]))
        weft("get", *chain, "--output", place("parts.copy"), *at["three"])
        check(read(place("parts.copy")) == read(data), "other bytes")
        unasked = ("--key", "unasked", *chain[2:])
        weft("put", *unasked[:4], data, *at["one"])
        said = weft("explain", "ab" * 32, *at["two"], expect=1).stdout.decode()
        check("weft match --within" in said, said)
        for name in names[1:]:
            until(f"{name} asks for what it gets", lambda name=name: answer(
                "get", *unasked, "--output", place("parts.copy"), *at[name], expect=None)["present"] == 32)
            check(read(place("parts.copy")) == read(data), name, "other bytes")
        unasked = ("--key", "unasked too", *chain[2:])
        weft("put", *unasked[:4], data, *at["one"])
        until("a prefetch asks for it", lambda: answer("prefetch", *unasked, "--by", "10000", *at["two"],
                                                       expect=None)["in_dram"] == 32)
        for i in range(8):  # half of it may be known when it is asked for: of no block is there no room
            few = ("--key", f"few {i}", "--block-bytes", "1MiB", "--blocks", "2")
            weft("put", *few[:4], data, *at["one"])
            until("one that waits for none does", lambda few=few: check(
                (found := answer("prefetch", *few, *at["two"], expect=None))["no_room"] == 0, found) or found["present"] == 2)
        nothing = ("--key", "nothing", *chain[2:])
        check(answer("match", *nothing, "--within", "10000", *at["two"], expect=None)["present"] == 0, "from nowhere")
        check("up to 3600000" in refused("match", *chain, "--within", "3600001", *at["two"]), "for ever")
        for node in nodes.values():
            stop_node(node)
    finally:
        etcd.kill()
        etcd.wait()
        shutil.rmtree(place("etcd"), ignore_errors=True)
    return None


@case
def another_secret_is_another_cluster():
    ours, theirs = blob("cluster.ours", 32, 7), blob("cluster.theirs", 32, 8)
    nodes = [start("left", ours), start("right", theirs)]
    until("who does not know the secret is refused",
          lambda: any("secret" in node["why"] for name in NAMES
                      for node in answer("fabric", "--socket", place(name + ".sock"))["nodes"]))
    check(not sees("left") and not sees("right"), "they see each other")
    for node in nodes:
        stop_node(node)


@case
def nodes_without_a_domain_in_common_say_so():
    """Without a cluster's secret each has one of its own: there is a link, and nothing crosses it."""
    nodes = [start(name, "") for name in NAMES]
    until_both_see_each_other()
    for name in NAMES:
        at = ("--socket", place(name + ".sock"))
        seen = answer("fabric", *at)["nodes"][0]
        check(seen["domains"] == 0 and "fabric.secret_file" in seen["why"], seen)
        check("none of this node's domains" in weft("fabric", *at).stdout.decode(), name, "does not say it")
        found = {finding["name"]: finding for finding in answer("doctor", *at, expect=1)["findings"]}
        check(found["nodes"]["state"] == "broken" and "fabric.secret_file" in found["nodes"]["mend"], found["nodes"])
    for node in nodes:
        stop_node(node)


@case
def a_name_that_is_taken_is_told_on_both_sides():
    secret = blob("cluster.secret", 32, 5)
    forget()

    def begin(name, folder, join):
        return start_node("64MB", place(folder + ".sock"), WEFT_FABRIC_NAME=name, WEFT_STATE_DIR=place(folder),
                          WEFT_FABRIC_LISTEN=f"unix:{place(folder)}.net", WEFT_FABRIC_JOIN=f"unix:{place(join)}.net",
                          WEFT_FABRIC_SECRET_FILE=secret)

    def events(name):
        return [event.get("text", "") for event in answer("events", "--socket", place(name + ".sock"))["events"]]

    nodes = [begin("left", "left", "right"), begin("right", "right", "right")]  # who calls itself calls nobody
    until("the one that has the name is there", lambda: sees("left"))
    nodes.append(begin("right", "namesake", "left"))
    second = ("--socket", place("namesake.sock"))
    why = f"the name 'right' is taken by a node at 'unix:{place('right')}.net'"
    until("who is refused knows why", lambda: answer("fabric", *second)["nodes"][0]["why"].startswith(why))
    found = {finding["name"]: finding for finding in answer("doctor", *second, expect=1)["findings"]}
    check(found["nodes"]["why"].startswith("left: the name 'right' is taken"), found["nodes"])
    until("and so do those that ask the one that refuses",
          lambda: any(text.startswith("two nodes call themselves right") for text in events("left")))
    check(sum(text.startswith("no link to left") for text in events("namesake")) == 1, events("namesake"))
    check(len(sees("left")) == 1, "the one that has the name has lost its link")
    for each in nodes:
        stop_node(each)
    shutil.rmtree(place("namesake"), ignore_errors=True)


@case
def what_waits_for_a_bound_does_not_hold_up_the_end():
    """Blocks in line for memory of others are given up when the node is told to stop."""
    secret, data = blob("cluster.secret", 32, 5), blob("bound.data", 20 << 20, 19)
    os.chmod(secret, 0o600)
    forget()
    nodes = [start("left", secret), start("right", secret, WEFT_FABRIC_LEND="32MB")]
    left = ("--socket", place("left.sock"))
    until_both_see_each_other()
    until("what is lent is known", lambda: sees("left")[0]["lent_bytes"] == 32 << 20)
    weft("put", "--key", "bound", "--block-bytes", "1MiB", data, *left)
    weft("fabric", "limit", "domain", "default", "1", *left)
    weft("demote", "--key", "bound", "--block-bytes", "1MiB", "--blocks", "20", "--wait", "0.2", *left, expect=None)
    for node in nodes:
        stop_node(node)
    log = nodes[0].stderr.read().decode()
    check("does not end" not in log, log)


@case
def a_node_is_shown_where_it_can_be_called():
    """Not at the port that it called from; nor, with its name, where another of that name was."""
    secret, ports = blob("cluster.secret", 32, 5), [free_port() for _ in range(3)]
    forget()

    def begin(name, folder, number, join):
        return start_node("64MB", place(folder + ".sock"), WEFT_FABRIC_NAME=name, WEFT_STATE_DIR=place(folder),
                          WEFT_FABRIC_LISTEN=f"tcp:127.0.0.1:{ports[number]}",
                          WEFT_FABRIC_JOIN=f"tcp:127.0.0.1:{ports[join]}", WEFT_FABRIC_SECRET_FILE=secret)

    def events(name):
        return [event.get("text", "") for event in answer("events", "--socket", place(name + ".sock"))["events"]]

    nodes = [begin("left", "left", 0, 0), begin("right", "right", 1, 0)]
    until("it is there", lambda: sees("left"))
    check(sees("left")[0]["address"] == f"tcp:127.0.0.1:{ports[1]}", sees("left"))
    nodes.append(begin("right", "namesake", 2, 0))
    until("one of both is told where the other is", lambda: any(
        f"is taken by a node at 'tcp:127.0.0.1:{ports[at]}'" in text for at, name in ((2, "right"), (1, "namesake"))
        for text in events(name)))
    until("it is said whose name it is", lambda: any(
        text.startswith("two nodes call themselves right") and all(f":{port} " in text for port in ports[1:])
        for text in events("left")))
    for each in nodes:
        stop_node(each)
    shutil.rmtree(place("namesake"), ignore_errors=True)


@case
def a_limit_makes_slow_and_breaks_nothing():
    secret, data = blob("cluster.secret", 32, 5), blob("cluster.data", 4 << 20, 6)
    os.chmod(secret, 0o600)
    nodes = [start(name, secret) for name in NAMES]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    weft("fabric", "limit", "link", "right", "500kB", *left)
    until("it is bounded", lambda: answer("fabric", *left)["nodes"][0]["max_bytes_s"] == 500 << 10)
    chain, copy = ("--key", "slow", "--block-bytes", "1MiB"), place("cluster.slow")
    weft("put", *chain, data, *left)
    until("it is known there", lambda: answer("match", *chain, "--blocks", "4", *right, expect=None)["present"] == 4)
    weft("get", *chain, "--blocks", "4", "--output", copy, *right)
    check(read(copy) == read(data), "other bytes")
    seen = answer("fabric", *right)["self"]
    check(seen["fetches_patient"] > 0, seen)
    check(answer("fabric", *left)["self"]["serves_limited"] > 0, "nobody was told")
    weft("fabric", "limit", "link", "right", "1kB", *left)
    until("it is bounded more", lambda: answer("fabric", *left)["nodes"][0]["max_bytes_s"] == 1 << 10)
    more = ("--key", "hopeless", "--block-bytes", "1MiB")
    weft("put", *more, data, *left)
    until("it is known there", lambda: answer("match", *more, "--blocks", "4", *right, expect=None)["present"] == 4)
    check("fabric.link_max" in refused("get", *more, "--blocks", "4", "--output", copy, *right), "hopeless")
    for node in nodes:
        stop_node(node)
    log = nodes[1].stderr.read().decode()
    check("…: node left has the block, and may send only 1024 bytes a second" in log, log)
    check("tier peers: tier peers" not in log and log.count("tier peers: ") == log.count("tier peers: block"), log)


@case
def who_lends_and_who_came_and_went_is_shown():
    secret = blob("cluster.secret", 32, 5)
    os.chmod(secret, 0o600)
    nodes = [start("left", secret, WEFT_FABRIC_LEND="32MB"), start("right", secret)]
    left, right = (("--socket", place(name + ".sock")) for name in NAMES)
    until_both_see_each_other()
    said = weft("fabric", "allot", "right", "16MB", "--min", "8MB", *left).stdout.decode()
    check("due 8 MiB at least" in said, said)

    def shown(words, *socket):
        return lambda: words in weft("fabric", "lent", *socket).stdout.decode()
    until("who has how much is shown", shown("16 MiB", *left))
    check("lends 32 MiB" in weft("fabric", "lent", *left).stdout.decode(), "it lends less")
    until("what is lent to it is shown", shown("left lends this node 16 MiB at most", *right))
    check("nothing to itself" in refused("fabric", "allot", "left", "1MB", *left), "left")
    check("8 MiB, is more" in refused("fabric", "allot", "right", "1MB", "--min", "8MB", *left), "least")
    check("no node of that name" in weft("fabric", "limit", "link", "rihgt", "1MB", *left).stdout.decode(), "rihgt")
    check("no node of that" not in weft("fabric", "limit", "link", "right", "1MB", *left).stdout.decode(), "right")
    key = ("--key", "x", "--block-bytes", "4KiB")
    weft("put", *key, "--pad", blob("cluster.x", 4096, 9), *left)
    check("left is this node" in refused("fabric", "hand-over", "left", *key, *left), "left")
    stop_node(nodes.pop())

    def told(words):
        return lambda: words in weft("events", "--what", "fabric", *left).stdout.decode()
    until("who went is told", told("no link to right: "))
    check(told("right is there, at ")(), "who came is not")
    until("who is away has its name",
          lambda: [(node["name"], node["state"]) for node in answer("fabric", *left)["nodes"]] == [("right", "away")])
    for node in nodes:
        stop_node(node)


@case
def a_node_that_is_alone_says_so():
    check("alone" in weft("fabric").stdout.decode(), "it is not")
    check(answer("fabric")["self"] is None, "it is not")
    check(answer("fabric", "topology")["name"] is None, "it has no name")
    check("too many" in refused("fabric", "topology", "left"), "left")
    check("alone" in refused("fabric", "drain"), "it drains")
    check("say to whom" in refused("fabric", "hand-over"), "to nobody")
    check("is no size" in refused("fabric", "allot", "left", "much"), "much")
