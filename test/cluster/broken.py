# SPDX-License-Identifier: Apache-2.0
"""Nodes that die, stand still or come back with an older disk in the middle of what they do for each other: drains,
copies of what is lent, what lies on tiers.  Afterwards every archive is there and right, nobody drains who was not told
to, what is lent is as much as it should be, and no byte is wrong."""
import os
import shutil
import time

from bed import fabric_settings
from fabric import BLOCKS, LEASE_MS, SIZE, comes, needed, present, put, read, reads, seen, whole
from harness import a_bed, check, slow, until

LENDERS = "klmn"
STAND_S = 9  # longer than a lease, and than silence is borne


def self_of(node):
    return node.answer("fabric")["self"]


def count(node, name):
    return self_of(node)[name]


def archive(node, key, name, blocks=BLOCKS):
    node.weft("session", "archive", name, "--key", key, *SIZE, "--blocks", str(blocks))


def archives(node, **how):
    return {each["name"]: each for each in node.answer("session", "ls", **how)["archives"]}


def demoted(node, keys, blocks=BLOCKS):
    """None of these is in DRAM there."""
    def gone(key):
        chain = ("--key", key, *SIZE, "--blocks", str(blocks))
        node.weft("demote", *chain, expect=None)
        found = node.answer("match", *chain, expect=None)
        return found["present"] == blocks and not found["tiers"].get("dram", 0)
    for key in keys:
        until(f"{key} leaves the DRAM of {node.host}", lambda key=key: gone(key), 40)


def has_room_for_nobody(bed, hosts):
    for host in hosts:
        until(f"nothing is reserved on {host}", lambda host=host: all(
            domain["blocks_reserved"] == 0 for domain in bed.nodes[host].answer("ls", "domains")["domains"]), 60, 0.2)


# --------------------------------------------------------------------------------------------------------- drains

class Drain:
    """A node with an archive and chains in its DRAM alone, two that lend memory, and one that looks."""
    CHAINS = 6

    def __init__(self, bed):
        self.bed, self.paths = bed, {}
        lease = {"fabric__lease": f"{LEASE_MS}ms"}
        for host in "mn":
            bed.node(host, fabric__lend="96MB", pool="16MB", **lease, **fabric_settings(bed, host, "test"))
        bed.node("b", pool="64MB", **lease, **fabric_settings(bed, "b", "test"))
        bed.node("a", tiers=("nvme:@/nvme:96MB",), fabric__move_rate="4MB", **lease, **fabric_settings(bed, "a", "test"))
        for host in "abmn":
            bed.nodes[host].spawn()
        for host in "abmn":
            bed.nodes[host].ready()
        whole(bed, "abmn")
        self.a, self.b, self.m, self.n = (bed.nodes[host] for host in "abmn")
        self.kept = put(self.a, "kept", 99)
        archive(self.a, "kept", "kept")

    def fill(self, word):
        """Chains in the DRAM of a."""
        self.paths = {f"{word}{number}": put(self.a, f"{word}{number}", number) for number in range(self.CHAINS)}

    def begin(self):
        before = count(self.a, "moved")
        self.a.weft("fabric", "drain")
        until("it is in the middle of it", lambda: before + 8 <= count(self.a, "moved") < before + self.CHAINS * BLOCKS / 2,
              30)

    def end(self):
        self.a.weft("fabric", "drain", "--off")
        until("b sees that a drains no more", lambda: seen(self.b)["a"]["state"] == "ok", 40)

    def all_is_right(self, all_of_it):
        """What b reads is what was put; and it is all there, if it is to be."""
        for key, path in self.paths.items():
            if all_of_it:
                reads(self.b, key, path, 40)
            else:
                read(self.b, key, path)
        check(archives(self.a)["kept"]["state"] == "ok", archives(self.a))
        check(read(self.a, "kept", self.kept), "the archive is not read")

    def lent_is_what_was_told(self):
        """Room for blocks that came in part was given back."""
        def same():
            told = seen(self.b)
            for host in "mn":
                mine, lent = self_of(self.bed.nodes[host]), told[host]["blocks"]
                check(mine["lent_blocks"] == lent, host, "has", mine["lent_blocks"], "blocks, and told of", lent)
                check(lent == 0 or mine["lent_used_bytes"] % lent == 0, host, mine)
            return True
        until("what is lent is what was told of", same, 30, 0.2)


@slow
def a_drain_outlives_what_is_killed_and_stopped_meanwhile():
    if why := needed("fabric.lend"):
        return why
    with a_bed("abmn", etcd=True) as bed:
        drain = Drain(bed)
        drain.fill("lender-dies")
        drain.begin()
        drain.m.kill()
        until("a is drained", lambda: count(drain.a, "drained"), 60, 0.2)
        drain.m.start()
        whole(bed, "abmn")
        drain.all_is_right(True)
        drain.end()

        drain.fill("lender-stands")
        drain.begin()
        drain.n.pause()
        time.sleep(STAND_S)
        drain.n.resume()
        whole(bed, "abmn", 60)
        until("a is drained", lambda: count(drain.a, "drained"), 60, 0.2)
        drain.all_is_right(True)
        drain.end()
        drain.lent_is_what_was_told()

        drain.fill("it-stands")
        drain.begin()
        drain.a.pause()
        said = drain.a.weft("fabric", "drain", expect=None, timeout=60)
        check(said.returncode > 0 and said.stderr.startswith(b"weft fabric: "), "of a node that stands:", said)
        time.sleep(STAND_S)
        drain.a.resume()
        until("a is a member again, and drains", lambda: seen(drain.b)["a"]["state"] == "draining", 40)
        until("a is drained", lambda: count(drain.a, "drained"), 60, 0.2)
        drain.all_is_right(True)
        drain.end()

        drain.fill("it-dies")
        drain.begin()
        drain.a.kill()
        said = drain.a.weft("fabric", "drain", expect=None, timeout=60)
        check(said.returncode > 0 and said.stderr.startswith(b"weft fabric: "), "of a node that is dead:", said)
        drain.lent_is_what_was_told()
        drain.a.start()
        whole(bed, "abmn")
        check(not count(drain.a, "draining") and seen(drain.b)["a"]["state"] == "ok", "it drains still")
        drain.all_is_right(False)
        drain.fill("anew")
        drain.all_is_right(True)
        has_room_for_nobody(bed, "abmn")
    return None


# --------------------------------------------------------------------------------------------------------- copies

def lent_copies(bed, alive):
    return sum(count(bed.nodes[host], "lent_blocks") for host in alive)


def copies_settle(bed, alive, wanted, what):
    """As many as asked for, and no more a while later."""
    last = []

    def settled():
        last.append((time.monotonic(), lent_copies(bed, alive)))
        check(last[-1][1] == wanted, last[-1][1], "copies instead of", wanted)
        wrong = [when for when, copies in last if copies != wanted]
        return last[-1][0] - (wrong[-1] if wrong else last[0][0]) > 3
    until(what, settled, 90, 0.2)
    print(f"# {what}: {last[-1][1]} copies after {last[-1][0] - last[0][0] - 3:.1f} s, "
          f"{min(copies for _, copies in last)} to {max(copies for _, copies in last)} meanwhile")


def each_lender_dies(copies):
    hosts = "p" + LENDERS
    with a_bed(hosts, network="bridge", etcd=True) as bed:
        for host in hosts:
            bed.node(host, pool="32MB", fabric__lease=f"{LEASE_MS}ms", fabric__copies=copies,
                     **({} if host == "p" else {"fabric__lend": "64MB"}), **fabric_settings(bed, host, "test")).spawn()
        for host in hosts:
            bed.nodes[host].ready()
        whole(bed, hosts)
        putter, keys = bed.nodes["p"], [f"k{number}" for number in range(3)]
        paths = {key: put(putter, key, number) for number, key in enumerate(keys)}
        until("what all lend is known", lambda: sum(
            node["lent_bytes"] > 0 for node in putter.answer("fabric")["nodes"]) == len(LENDERS))
        demoted(putter, keys)
        wanted = copies * len(keys) * BLOCKS
        copies_settle(bed, LENDERS, wanted, f"{copies} of each")
        for host in LENDERS:
            alive = [other for other in LENDERS if other != host]
            bed.nodes[host].kill()
            until(f"{host} is gone", lambda host=host, alive=alive: all(
                host not in seen(bed.nodes[other]) for other in alive), 30, 0.1)
            copies_settle(bed, alive, wanted, f"{copies} of each without {host}")
            bed.nodes[host].start()
            whole(bed, hosts)
            copies_settle(bed, LENDERS, wanted, f"{copies} of each with {host} again")
        # One that stands still is gone for a while, and comes back with what it had: those are copies more.
        host, alive = LENDERS[1], [other for other in LENDERS if other != LENDERS[1]]
        had = lent_copies(bed, [host])
        bed.nodes[host].pause()
        until(f"{host} is gone", lambda: all(host not in seen(bed.nodes[other]) for other in alive), 30, 0.1)
        copies_settle(bed, alive, wanted, f"{copies} of each while {host} stands")
        bed.nodes[host].resume()
        whole(bed, hosts, 60)
        copies_settle(bed, LENDERS, wanted + had, f"those that {host} has had as well, when it goes on")
        for key, path in paths.items():
            reads(putter, key, path)


@slow
def two_copies_are_two_again_whoever_dies():
    if why := needed("fabric.copies"):
        return why
    return each_lender_dies(2)


@slow
def three_copies_are_three_again_whoever_dies():
    if why := needed("fabric.copies"):
        return why
    return each_lender_dies(3)


# -------------------------------------------------------------------------------------------------------- a share

@slow
def a_share_that_is_given_half_way_leaves_nothing_wrong():
    """m lends what it has to n, which came later: n dies, then stands still, and then m dies, in the middle of it."""
    if why := needed("fabric.lend"):
        return why
    with a_bed("amn", network="bridge", etcd=True) as bed:
        lease = {"fabric__lease": f"{LEASE_MS}ms"}
        for host in "mn":
            bed.node(host, fabric__lend="96MB", fabric__move_rate="4MB", pool="16MB", **lease,
                     **fabric_settings(bed, host, "test"))
        bed.node("a", pool="32MB", **lease, **fabric_settings(bed, "a", "test"))
        a, m, n = (bed.nodes[host] for host in "amn")
        for node in (a, m):
            node.start()
        whole(bed, "am")
        until("what is lent is known", lambda: a.answer("fabric")["nodes"][0]["lent_bytes"] > 0)
        keys = [f"k{number}" for number in range(12)]
        blocks, paths = len(keys) * BLOCKS, {}
        for number, key in enumerate(keys):
            paths[key] = put(a, key, number)
            demoted(a, [key])
        until("all is lent", lambda: count(m, "lent_blocks") == blocks, 30)

        def begun():
            until("it is in the middle of it", lambda: count(n, "lent_blocks") >= 8, 30)
            check(count(n, "lent_blocks") < blocks / 3, "it is over already")

        def balanced():
            until("the shares are alike", lambda: abs(count(m, "lent_blocks") - count(n, "lent_blocks")) < blocks / 5, 60)

        def all_again():
            """What is there is right; the rest of chains whose beginnings were away is put anew."""
            for key, path in paths.items():
                read(a, key, path)
                if present(a, key) < BLOCKS:
                    a.weft("put", "--key", key, *SIZE, path)

        n.start()
        begun()
        n.kill()
        until("n is gone", lambda: "n" not in seen(m) and "n" not in seen(a), 30, 0.1)
        said = self_of(m)  # what extends a block that went with n is of no use any more, and is dropped
        check(said["lent_given"] > 0 and said["lent_evicted"] == 0, "not given, but let go:", said)
        all_again()
        demoted(a, keys)

        n.start()
        begun()
        n.pause()
        time.sleep(STAND_S)
        n.resume()
        whole(bed, "amn", 60)
        balanced()
        all_again()
        demoted(a, keys)

        n.restart()
        whole(bed, "amn", 60)
        begun()
        m.kill()
        until("m is gone", lambda: "m" not in seen(n) and "m" not in seen(a), 30, 0.1)
        for key, path in paths.items():
            read(a, key, path)
        m.start()
        whole(bed, "amn", 60)
        path = put(a, "anew", 99)
        reads(m, "anew", path)
        has_room_for_nobody(bed, "amn")
    return None


# ------------------------------------------------------------------------------------------------------ old disks

def config_with(bed, secrets):
    """Domains and their secrets' files."""
    rows = "".join(f"  - {{name: {name}, secret_file: {bed.secret(secret)}}}\n" for name, secret in secrets.items())
    return f"domains:\n{rows}"


def tier_of(node, name="nvme0"):
    return next(tier for tier in node.answer("ls", "tiers")["tiers"] if tier["name"] == name)


def opened(node):
    until(f"the tiers of {node.host} are open", lambda: all(
        tier["state"] != "opening" for tier in node.answer("ls", "tiers")["tiers"]), 60)


class Disks:
    """b keeps chains and archives of two tenants on a tier, of which there is an older copy."""

    def __init__(self, bed):
        self.bed = bed
        both = {"default": "domain", "guest": "guest"}
        self.a, self.b, self.c = (self.node(host, both) for host in "abc")
        for node in (self.a, self.b):
            node.start()
        whole(bed, "ab")
        self.disk, self.old = os.path.join(self.b.folder, "nvme"), os.path.join(bed.folder, "old")

    def node(self, host, secrets, tiers=("nvme:@/nvme:64MB",)):
        return self.bed.node(host, pool="32MB", tiers=() if host == "a" else tiers, domain__default__secret_file=None,
                             config=config_with(self.bed, secrets), fabric__lease=f"{LEASE_MS}ms",
                             **fabric_settings(self.bed, host, "test"))

    def begin(self, host, secrets, **how):
        """A node with other domains, and perhaps other disks."""
        node = self.node(host, secrets, **how).start()
        opened(node)
        whole(self.bed, [name for name, each in self.bed.nodes.items() if each.process and each.process.running()])
        return node


@slow
def an_old_disk_brings_nothing_wrong_and_nobody_back():
    if why := needed():
        return why
    with a_bed("abc", network="bridge", etcd=True) as bed:
        disks = Disks(bed)
        a, b = disks.a, disks.b
        paths = {key: put(b, key, number) for number, key in enumerate(("kept", "removed"))}
        hers = put(b, "hers", 7, domain="guest")
        archive(b, "kept", "name")
        b.weft("session", "archive", "hers", "--key", "hers", *SIZE, "--blocks", str(BLOCKS), domain="guest")
        demoted(b, ("removed",))
        b.stop()
        shutil.copyfile(disks.disk, disks.old)

        # The cluster goes on: what is removed, archived anew, and put since is on the newer disk alone.
        b.start()
        opened(b)
        whole(bed, "ab")
        comes(a, "removed")
        b.weft("rm", "--everywhere", "--key", "removed", *SIZE)
        paths["newer"] = put(b, "newer", 3)
        archive(b, "newer", "name")
        paths["below"] = put(b, "below", 4)
        demoted(b, ("below",))
        comes(a, "below")
        comes(a, "newer")
        b.stop()
        newer = os.path.join(bed.folder, "newer")
        os.rename(disks.disk, newer)

        # The older disk, without the tenant: nobody finds what was his, and what others were told of the newer is over.
        shutil.copyfile(disks.old, disks.disk)
        b = disks.begin("b", {"default": "domain"})
        comes(a, "kept")
        reads(a, "kept", paths["kept"])
        for key in ("below", "newer"):
            until(f"a believes in {key} no more", lambda key=key: present(a, key) == 0, 10)
            check(not read(a, key, paths[key]), "it is read from nowhere")
        check(present(a, "removed") in (0, BLOCKS), "half of what was removed")
        read(a, "removed", paths["removed"])
        check(present(a, "hers", domain="guest") == 0 and not read(a, "hers", hers, domain="guest"), "a tenant's ghost")
        check(tier_of(b)["foreign_bytes"] > 0, "whose blocks are they?", tier_of(b))
        check({name: each["state"] for name, each in archives(b).items()} == {"name": "ok"}, archives(b))
        b.stop()

        # Another tenant of that name has nothing of it.
        b = disks.begin("b", {"default": "domain", "guest": "another"})
        check(present(b, "hers", domain="guest") == 0 and not archives(b, domain="guest"), "of another tenant")
        check(present(a, "hers", domain="guest") == 0, "of another tenant, elsewhere")
        put(b, "hers", 8, domain="guest")
        time.sleep(1)
        check(present(a, "hers", domain="guest") == 0, "two tenants of one name are one")
        b.stop()

        # Under another node's name, beside the newer one at its own: each archive is what it was there.
        os.rename(newer, disks.disk)
        b = disks.begin("b", {"default": "domain", "guest": "guest"})
        os.makedirs(disks.c.folder, exist_ok=True)
        shutil.copyfile(disks.old, os.path.join(disks.c.folder, "nvme"))
        c = disks.begin("c", {"default": "domain", "guest": "guest"})
        check(archives(b)["name"]["state"] == archives(c)["name"]["state"] == "ok", archives(b), archives(c))
        for key in ("kept", "newer", "below"):
            reads(a, key, paths[key])
        reads(a, "hers", hers, domain="guest")
        check(read(c, "kept", paths["kept"]) and archives(c, domain="guest")["hers"]["state"] == "ok", "the old one lost")
        b.stop()

        # Both in one node: the newer archive of a name counts, also after it was killed.
        shutil.copyfile(disks.old, os.path.join(b.folder, "older"))
        b = disks.begin("b", {"default": "domain", "guest": "guest"}, tiers=("nvme:@/nvme:64MB", "nvme:@/older:64MB"))
        for _ in range(2):
            until("it is whole", lambda b=b: archives(b)["name"]["state"] == "ok", 30)
            found = archives(b)["name"]
            check(found["blocks"] == BLOCKS, found)
            check(read(b, "newer", paths["newer"]), "the newer archive is not read")
            b.kill()
            b.start()
            opened(b)
        whole(bed, "abc")
        reads(a, "newer", paths["newer"])
    return None
