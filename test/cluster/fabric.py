# SPDX-License-Identifier: Apache-2.0
"""Many hosts, one memory: what is put on one host is read on another, or missed, and never wrong or waited for without
end, whatever happens to hosts, to the network and to etcd."""
import contextlib
import os
import random
import shutil
import struct
import threading
import time

import harness
from bed import Failed, fabric_settings, why_not
from harness import a_bed, blob, check, slow, until

BLOCK, BLOCKS = 256 << 10, 16
SIZE = ["--block-bytes", str(BLOCK)]
LEASE_MS, DEAD_MS = 3000, 5000
STATES = ("ok", "telling", "draining")  # of those that are believed
BOUND = 20  # seconds that a read may take whatever happens: a client's timeout and some tries


def needed(setting="fabric.join"):
    """What a case is skipped for, if anything."""
    return why_not(etcd=True) or (None if harness.knows(setting) else f"this weftd has no {setting}")


@contextlib.contextmanager
def cluster(hosts, network="wire", start=True, variables=None, **settings):
    """A bed with a node on each host, all members of one cluster."""
    with a_bed(hosts, network=network, etcd=True) as bed:
        for host in hosts:
            bed.node(host, variables=variables, **{**fabric_settings(bed, host, "test"), **settings})
        if start:
            for host in hosts:
                bed.nodes[host].spawn()
            for host in hosts:
                bed.nodes[host].ready()
            whole(bed, hosts)
        yield bed


def seen(node):
    """{name: what the node says} of those that it believes, itself among them while it is a member."""
    said = node.answer("fabric")
    mine = [said["self"]] if said["self"]["standing"] in ("member", "doubtful") else []
    return {each["name"]: each for each in mine + [one for one in said["nodes"] if one["state"] in STATES]}


def whole(bed, hosts, seconds=30):
    for host in hosts:
        until(f"{host} sees {hosts}", lambda host=host: set(seen(bed.nodes[host])) >= set(hosts), seconds, 0.1)


def put(node, key, seed, blocks=BLOCKS, **how):
    """Put a chain of random blocks; the file that has its bytes."""
    path = blob(node.bed, f"{key}.{seed}", BLOCK * blocks, seed)
    node.weft("put", "--key", key, *SIZE, path, **how)
    return path


def present(node, key, blocks=BLOCKS, **how):
    return node.answer("match", "--key", key, *SIZE, "--blocks", str(blocks), expect=None, **how)["present"]


def comes(node, key, blocks=BLOCKS, seconds=20, **how):
    until(f"{node.host} hears of {key}", lambda: present(node, key, blocks, **how) == blocks, seconds, 0.1)


def read(node, key, path, blocks=BLOCKS, **how):
    """True when the whole chain came, False when some of it is not there; wrong bytes, or too late, fail."""
    copy, began = os.path.join(node.folder, f"copy.{threading.get_ident()}"), time.monotonic()
    done = node.weft("get", "--key", key, *SIZE, "--blocks", str(blocks), "--output", copy, "--verify", expect=None,
                     timeout=3 * BOUND, **how)
    took = time.monotonic() - began
    check(took < BOUND, f"{node.host} read {key} for {took:.1f} s")
    check(done.returncode in (0, 1), "get ended with", done.returncode, done.stderr.decode())
    if done.returncode == 1:
        return False
    with open(copy, "rb") as one, open(path, "rb") as other:
        check(one.read() == other.read(), f"{node.host} read wrong bytes of {key}")
    return True


def reads(node, key, path, seconds=20, **how):
    until(f"{node.host} reads {key}", lambda: read(node, key, path, **how), seconds, 0.2)


# ------------------------------------------------------------------------------------------------ all is well

@harness.case
def what_is_put_on_one_host_is_read_on_another():
    if why := needed():
        return why
    with cluster("abc", network="bridge") as bed:
        paths = {host: put(bed.nodes[host], f"of-{host}", number) for number, host in enumerate("abc")}
        for reader in "cab":
            for host in "abc":
                comes(bed.nodes[reader], f"of-{host}")
                check(read(bed.nodes[reader], f"of-{host}", paths[host]), reader, "does not read what", host, "has")
        for host in "abc":
            shown = {each["name"]: each["address"] for each in bed.nodes[host].answer("fabric")["nodes"]}
            check(shown == {other: f"tcp:{bed.address(other)}:7420" for other in "abc" if other != host}, host, shown)
            places = bed.listening(host)
            check(places == {(bed.address(host), 7420)}, host, "listens at", places)
        check("nobody" not in seen(bed.nodes["a"]) and present(bed.nodes["b"], "nothing") == 0, "from nowhere")
    return None


@slow
def a_node_that_ends_is_gone_at_once_and_comes_back():
    if why := needed():
        return why
    with cluster("ab") as bed:
        before = seen(bed.nodes["a"])["b"]["epoch"]
        path = put(bed.nodes["b"], "k", 1)
        reads(bed.nodes["a"], "k", path)
        bed.nodes["b"].stop()
        until("a sees that b left", lambda: "b" not in seen(bed.nodes["a"]), LEASE_MS / 1000)
        bed.nodes["b"].start()
        whole(bed, "ab")
        check(seen(bed.nodes["a"])["b"]["epoch"] > before, "the epoch did not grow")
        path = put(bed.nodes["b"], "new", 2)
        reads(bed.nodes["a"], "new", path)
    return None


@slow
def nodes_find_each_other_without_etcd():
    if why := needed():
        return why
    with a_bed("abc") as bed:
        for host in "abc":
            others = ",".join(f"tcp:{bed.address(other)}:7420" for other in "abc" if other != host)
            bed.node(host, **{**fabric_settings(bed, host, None), "fabric__join": others}).spawn()
        for host in "abc":
            bed.nodes[host].ready()
        whole(bed, "abc")
        path = put(bed.nodes["a"], "k", 1)
        reads(bed.nodes["c"], "k", path)
        before = seen(bed.nodes["c"])["a"]["epoch"]
        bed.nodes["a"].restart()
        until("a is known by a higher epoch", lambda: seen(bed.nodes["c"])["a"]["epoch"] > before)
        path = put(bed.nodes["a"], "new", 2)
        reads(bed.nodes["b"], "new", path)
    return None


@slow
def what_is_encrypted_cannot_be_read_or_changed_on_the_way():
    if why := needed():
        return why
    with cluster("ab", fabric__encrypt="true") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        tap = bed.listen_in("b")
        path = put(a, "k", 1)
        reads(b, "k", path)
        with open(path, "rb") as file:
            clear = file.read(64)
        heard = b"".join(tap())
        check(len(heard) > BLOCK * BLOCKS, "nothing was heard")
        check(clear not in heard and clear[:16] not in heard, "blocks cross in the clear")
        bed.wire("corrupt a>b 1% sly")
        path = put(a, "k2", 2)
        read(b, "k2", path)
        bed.wire("clear *<>*")
        whole(bed, "ab")
        path = put(a, "k3", 3)
        reads(b, "k3", path)
    return None


@slow
def what_a_node_hands_over_or_drains_outlives_it():
    if why := needed("fabric.lend"):
        return why
    with a_bed("abm", etcd=True) as bed:
        bed.start("m", fabric__lend="128MB", **fabric_settings(bed, "m", "test"))
        for host in "ab":
            bed.start(host, pool="32MB", **fabric_settings(bed, host, "test"))
        whole(bed, "abm")
        a, b = bed.nodes["a"], bed.nodes["b"]
        if "drain" not in a.weft("fabric", "--help").stdout.decode():
            return "this weft knows no drain"
        handed, left = put(a, "handed", 1), put(a, "left", 2)
        a.weft("fabric", "hand-over", "b", "--key", "handed", *SIZE, "--blocks", str(BLOCKS))
        comes(b, "left")
        a.weft("fabric", "drain")
        until("b sees that a drains", lambda: seen(b)["a"]["state"] == "draining")
        reads(b, "handed", handed)
        a.weft("fabric", "drain", "--off")
        until("b sees that it does not any more", lambda: seen(b)["a"]["state"] == "ok")
        a.weft("fabric", "drain")
        a.stop()
        until("b sees that a left", lambda: "a" not in seen(b))
        check(read(b, "handed", handed), "what was handed over went with its node")
        reads(b, "left", left)  # from the memory that m lends
    return None


# -------------------------------------------------------------------------------------- nodes die and are slow

@slow
def the_node_that_serves_is_killed():
    if why := needed():
        return why
    with cluster("ab", pool="128MB") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        path = put(a, "long", 1, blocks=128)
        comes(b, "long", 128)
        bed.wire("rate a>b 8MB")
        came = []
        reader = threading.Thread(target=lambda: came.append(read(b, "long", path, 128)))
        before = bed.link("a", "b")["bytes"]
        reader.start()
        until("it is on its way", lambda: bed.link("a", "b")["bytes"] > before + (4 << 20))
        a.kill()
        reader.join()
        check(came == [False], "it was read from a dead node?", came)
        bed.wire("clear *<>*")
        a.start()
        whole(bed, "ab")
        path = put(a, "anew", 2)
        reads(b, "anew", path)
    return None


@slow
def a_node_that_stops_is_not_waited_for():
    if why := needed():
        return why
    with cluster("abc") as bed:
        a, b, c = (bed.nodes[host] for host in "abc")
        path, other = put(a, "both", 1), put(a, "lone", 2)
        reads(c, "both", path)  # c has it now, too
        comes(b, "both")
        comes(b, "lone")
        a.pause()
        reads(b, "both", path, BOUND)
        check(not read(b, "lone", other), "it was read from a node that is stopped?")
        a.resume()
        whole(bed, "abc")
        reads(b, "lone", other)
    return None


@slow
def a_short_stall_is_not_held_against_a_node():
    if why := needed():
        return why
    with cluster("ab") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        paths = [put(a, f"k{number}", number) for number in range(3)]
        for number in range(3):
            comes(b, f"k{number}")
        for stall in (0.3, 1.5, 3):
            a.pause()
            resume = threading.Timer(stall, a.resume)
            resume.start()
            for number, path in enumerate(paths):
                read(b, f"k{number}", path)
            resume.join()
        for number, path in enumerate(paths):
            reads(b, f"k{number}", path)
    return None


@slow
def a_node_without_its_lease_is_not_believed():
    if why := needed():
        return why
    with cluster("ab", fabric__lease=f"{LEASE_MS}ms") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        before = seen(b)["a"]["epoch"]
        path = put(a, "k", 1)
        comes(b, "k")
        bed.wire("cut a<>etcd")
        until("b does not know a any more", lambda: "a" not in seen(b), 3 * LEASE_MS / 1000)
        check(not read(b, "k", path), "b believed it all the same")
        check(read(a, "k", path), "a does not even serve itself")
        bed.wire("heal a<>etcd")
        whole(bed, "ab")
        check(seen(b)["a"]["epoch"] > before, "it came back with the epoch that it had lost")
        reads(b, "k", path)
    return None


# ------------------------------------------------------------------------------------------------- the network

@slow
def a_partition_heals():
    if why := needed():
        return why
    with cluster("abc") as bed:
        a, b, c = (bed.nodes[host] for host in "abc")
        path = put(a, "k", 1)
        comes(b, "k")
        bed.wire("cut a<>b")
        check(not read(b, "k", path), "through a partition")
        check(read(a, "k", path), "a does not serve itself")
        reads(c, "k", path)
        bed.wire("heal a<>b")
        whole(bed, "abc")
        reads(b, "k", path)
    return None


@slow
def one_direction_is_lost():
    if why := needed():
        return why
    for link in ("a>b", "b>a"):
        with cluster("ab") as bed:
            path = put(bed.nodes["a"], "k", 1)
            comes(bed.nodes["b"], "k")
            bed.wire(f"cut {link}")
            check(not read(bed.nodes["b"], "k", path), "through", link)
            bed.wire(f"heal {link}")
            whole(bed, "ab")
            reads(bed.nodes["b"], "k", path)
    return None


@slow
def a_bad_network_changes_no_byte():
    if why := needed():
        return why
    with cluster("ab") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        bed.wire("delay a<>b 5ms 5ms", "loss a<>b 1%", "duplicate a<>b 2%", "reorder a<>b 5% 5ms", "corrupt a<>b 0.5%")
        for number in range(4):
            path = put(a, f"k{number}", number)
            reads(b, f"k{number}", path, 60)
    return None


@slow
def bytes_that_change_on_the_way_are_a_miss():
    if why := needed():
        return why
    with cluster("ab") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        paths = [put(a, f"k{number}", number) for number in range(8)]
        for number in range(8):
            comes(b, f"k{number}")
        bed.wire("corrupt a>b 1% sly")  # TCP notices nothing
        came = sum(read(b, f"k{number}", path) for number, path in enumerate(paths))
        print(f"# {came} of 8 chains came whole, {bed.link('a', 'b')['corrupted']} frames were changed")
        check(bed.link("a", "b")["corrupted"] > 0, "nothing was changed")
        bed.wire("clear *<>*")
        for number, path in enumerate(paths):
            reads(b, f"k{number}", path)
    return None


# -------------------------------------------------------------------------------------------- etcd and clocks

@slow
def etcd_is_lost_and_comes_back():
    if why := needed():
        return why
    with cluster("ab", fabric__lease=f"{LEASE_MS}ms") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        path = put(a, "k", 1)
        reads(b, "k", path)
        bed.etcd.pause()
        time.sleep(LEASE_MS / 1000 / 3)
        bed.etcd.resume()
        whole(bed, "ab")
        bed.etcd.kill()
        end = time.monotonic() + 3 * LEASE_MS / 1000
        number = 1
        while time.monotonic() < end:  # what it had may be read or not, but nothing hangs
            number += 1
            check(read(a, f"k{number}", put(a, f"k{number}", number)), "a does not serve itself")
            read(b, f"k{number}", os.path.join(bed.folder, f"k{number}.{number}"))
        bed.etcd.start()
        whole(bed, "ab", 60)
        reads(b, f"k{number}", os.path.join(bed.folder, f"k{number}.{number}"))
    return None


@slow
def an_etcd_that_lost_everything_is_joined_anew():
    if why := needed():
        return why
    with cluster("ab", fabric__lease=f"{LEASE_MS}ms") as bed:
        path = put(bed.nodes["a"], "k", 1)
        reads(bed.nodes["b"], "k", path)
        bed.etcd.kill()
        shutil.rmtree(os.path.join(bed.etcd.folder, "data"))
        bed.etcd.start()
        whole(bed, "ab", 60)
        path = put(bed.nodes["a"], "new", 2)
        reads(bed.nodes["b"], "new", path)
        bed.nodes["b"].restart()
        whole(bed, "ab", 60)
        reads(bed.nodes["b"], "k", os.path.join(bed.folder, "k.1"))
    return None


@slow
def the_side_of_a_partition_that_has_etcd_goes_on():
    if why := needed():
        return why
    with cluster("abcd", fabric__lease=f"{LEASE_MS}ms") as bed:
        bed.wire(*(f"cut {one}<>{other}" for one in "ab" for other in ("c", "d", "etcd")))
        for one, other in ("cd", "dc"):
            until(f"{one} and {other} alone are members", lambda one=one: set(seen(bed.nodes[one])) == set("cd"),
                  3 * (LEASE_MS + DEAD_MS) / 1000)
        path = put(bed.nodes["c"], "k", 1)
        reads(bed.nodes["d"], "k", path)
        until("a and b are no members, and know it", lambda: not any(
            bed.nodes[host].answer("fabric")["self"]["standing"] == "member" for host in "ab"), 3 * LEASE_MS / 1000)
        for host in "ab":
            path = put(bed.nodes[host], f"of-{host}", 2)
            check(read(bed.nodes[host], f"of-{host}", path), host, "does not serve itself")
        bed.wire("clear *<>*")
        whole(bed, "abcd", 60)
        for host in "abcd":
            reads(bed.nodes[host], "k", os.path.join(bed.folder, "k.1"))
            reads(bed.nodes[host], "of-b", os.path.join(bed.folder, "of-b.2"))
    return None


@slow
def eight_nodes_behave_as_one():
    if why := needed():
        return why
    hosts = "abcdefgh"
    with cluster(hosts, network="bridge", pool="16MB") as bed:
        paths = {host: put(bed.nodes[host], f"of-{host}", number) for number, host in enumerate(hosts)}
        for number, host in enumerate(hosts):
            for other in (hosts[number - 1], hosts[number - 3]):
                reads(bed.nodes[host], f"of-{other}", paths[other], 30)
        for host in "aceg":
            bed.nodes[host].kill()
        for host in "bdfh":
            until(f"{host} knows who is gone", lambda host=host: set(seen(bed.nodes[host])) == set("bdfh"), 30)
            reads(bed.nodes[host], "of-h", paths["h"], 30)
        for host in "aceg":
            bed.nodes[host].spawn()
        for host in "aceg":
            bed.nodes[host].ready()
        whole(bed, hosts, 60)
        reads(bed.nodes["a"], "of-b", paths["b"], 30)
    return None


@slow
def wall_clocks_jump():
    if why := needed():
        return why
    library = os.path.join(harness.build[0], "test", "test_clock.so")
    if not os.path.exists(library):
        return "no clock can be preloaded in this build"
    with a_bed("ab", etcd=True) as bed:
        clocks = {host: os.path.join(bed.folder, f"clock.{host}") for host in "ab"}

        def jump(host, seconds):
            with open(clocks[host], "wb" if not os.path.exists(clocks[host]) else "r+b") as file:
                file.write(struct.pack("<q", seconds))
        for host in "ab":
            jump(host, 0)
            bed.node(host, variables={"LD_PRELOAD": library, "WEFT_TEST_CLOCK": clocks[host]},
                     **fabric_settings(bed, host, "test")).start()
        whole(bed, "ab")
        epochs = {host: seen(bed.nodes["a"])[host]["epoch"] for host in "ab"}
        for number, seconds in enumerate((86400, -86400, 10 * 365 * 86400, -3)):
            jump("a", seconds)
            path = put(bed.nodes["a"], f"k{number}", number)
            reads(bed.nodes["b"], f"k{number}", path)
            time.sleep(1)
        time.sleep(2 * LEASE_MS / 1000)
        now = {host: seen(bed.nodes["a"])[host]["epoch"] for host in "ab"}
        check(now == epochs, "a jump of the wall clock cost somebody its lease:", epochs, now)
        jump("a", 10 * 365 * 86400)
        jump("b", -400 * 86400)
        bed.nodes["b"].restart()
        whole(bed, "ab", 60)
        check(seen(bed.nodes["a"])["b"]["epoch"] > epochs["b"], "an epoch went back with the clock")
        for host, years in (("a", 10), ("b", -1)):
            with open(bed.nodes[host].log, encoding="utf-8") as log:
                said = {int(line[:4]) - time.gmtime().tm_year for line in log if line[:4].isdigit()}
            check(any(abs(year - years) <= 1 and year for year in said), f"the clock of {host} never jumped:", said)
    return None


# ------------------------------------------------------------------------------------------- who may do what

DOMAINS = """domains:
  - {{name: default, secret_file: {default}}}
  - {{name: guest, secret_file: {guest}}}
"""


@slow
def tenants_do_not_see_each_other():
    if why := needed():
        return why
    with a_bed("ab", etcd=True) as bed:
        # Both know a guest, but b's is another one: it has another secret.
        for host, guest in (("a", "guest"), ("b", "stranger")):
            config = DOMAINS.format(default=bed.secret("domain"), guest=bed.secret(guest))
            bed.node(host, config=config, domain__default__secret_file=None, **fabric_settings(bed, host, "test")).start()
        whole(bed, "ab")
        a, b = bed.nodes["a"], bed.nodes["b"]
        put(a, "hers", 1, domain="guest")
        path = put(a, "ours", 2)
        reads(b, "ours", path)
        time.sleep(2)
        for domain in ("default", "guest"):
            check(present(b, "hers", domain=domain) == 0, domain, "sees what is another tenant's")
        check(present(b, "ours", domain="guest") == 0, "a guest sees what is the host's")
    return None


@slow
def who_has_another_secret_is_refused():
    if why := needed():
        return why
    with a_bed("abc", etcd=True) as bed:
        for host in "abc":
            settings = fabric_settings(bed, host, "test")
            if host == "c":
                settings["fabric__secret_file"] = bed.secret("other")
            bed.node(host, **settings).start()
        whole(bed, "ab")
        path, other = put(bed.nodes["a"], "k", 1), put(bed.nodes["c"], "c", 2)
        reads(bed.nodes["b"], "k", path)
        time.sleep(3)
        check("c" not in seen(bed.nodes["a"]) and "a" not in seen(bed.nodes["c"]), "they speak to each other")
        check(present(bed.nodes["c"], "k") == 0 and not read(bed.nodes["c"], "k", path), "c sees what is not its")
        check(present(bed.nodes["a"], "c") == 0 and read(bed.nodes["c"], "c", other), "others see what c has")
    return None


@slow
def two_of_one_name_are_never_members_at_once():
    if why := needed():
        return why
    with a_bed("abc", etcd=True) as bed:
        for host in "ab":
            bed.start(host, **fabric_settings(bed, host, "test"))
        whole(bed, "ab")
        bed.start("c", **{**fabric_settings(bed, "c", "test"), "fabric__name": "b"})
        path = put(bed.nodes["c"], "k", 1)
        time.sleep(2)
        check(read(bed.nodes["c"], "k", path), "c does not serve itself")
        check(present(bed.nodes["a"], "k") == 0, "a believed a second b")
        with open(bed.nodes["c"].log, encoding="utf-8") as log:
            check(" is there, at " not in log.read(), "c calls others by a name that is not its own")
        bed.nodes["b"].kill()
        until("the name is c's now", lambda: present(bed.nodes["a"], "k") == BLOCKS, 30)
    return None


@slow
def it_listens_to_its_own_host_unless_told():
    if why := needed():
        return why
    with a_bed("ab", etcd=True) as bed:
        settings = fabric_settings(bed, "a", "test")
        for each in ("fabric__listen", "fabric__secret_file"):
            del settings[each]
        bed.start("a", **settings)
        check(all(address.startswith("127.") for address, _ in bed.listening("a")), bed.listening("a"))
        settings["fabric__listen"] = f"tcp:{bed.address('b')}:7420"
        node = bed.node("b", **settings)
        try:
            node.start(20)
        except (Failed, harness.EndedEarly):
            pass
        check(not bed.listening("b"), "without a secret it listens at", bed.listening("b"))
    return None


# ------------------------------------------------------------------------------------------- memory for others

@slow
def a_host_with_memory_alone_is_a_pool_to_others():
    if why := needed("fabric.lend"):
        return why
    with a_bed("abm", etcd=True) as bed:
        bed.start("m", fabric__lend="128MB", **fabric_settings(bed, "m", "test"))
        for host in "ab":
            bed.start(host, pool="16MB", **fabric_settings(bed, host, "test"))
        whole(bed, "abm")
        a, b = bed.nodes["a"], bed.nodes["b"]
        paths = [put(a, f"k{number}", number) for number in range(12)]  # 48 MB
        until("what a has no room for is lent", lambda: sum(present(a, f"k{n}") == BLOCKS for n in range(12)) == 12)
        for number, path in enumerate(paths):
            check(read(a, f"k{number}", path), "a does not get back", number)
            reads(b, f"k{number}", path)
        bed.nodes["m"].kill()
        for number, path in enumerate(paths):
            read(a, f"k{number}", path)
    return None


# ------------------------------------------------------------------------------------------------ encoded

def numbers(node, blocks):
    """bf16 as KV has it, near a normal distribution; a MiB of it, again and again."""
    path, draw = os.path.join(node.folder, "numbers"), random.Random(7)
    piece = b"".join(struct.pack("<f", draw.gauss(0, 1))[2:] for _ in range(1 << 19))
    with open(path, "wb") as file:
        file.write(piece * (blocks * BLOCK // len(piece)))
    return path


def over_a_slow_link(codec, blocks, rate):
    """Seconds to read so many blocks of another host, and the bytes that crossed for them."""
    layout = ["--layers", "4", "--kv-heads", "8", "--head-dim", "128", "--dtype", "bf16", "--block-tokens", "16"]
    with cluster("ab", pool="160MB", variables={"WEFT_FABRIC_CODEC": codec}) as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        path, copy = numbers(a, blocks), os.path.join(b.folder, "copy")
        for key in ("learn", "timed"):
            a.weft("put", "--key", key, *layout, path)
            until("it is heard of", lambda key=key: b.answer(
                "match", "--key", key, *layout, "--blocks", str(blocks), expect=None)["present"] == blocks)
        bed.wire(f"rate a>b {rate}")
        for key in ("learn", "timed"):
            before, began = bed.link("a", "b")["bytes"], time.monotonic()
            b.weft("get", "--key", key, *layout, "--blocks", str(blocks), "--output", copy)
            took, crossed = time.monotonic() - began, bed.link("a", "b")["bytes"] - before
            with open(copy, "rb") as one, open(path, "rb") as other:
                check(one.read() == other.read(), "wrong bytes of", key)
        said = next(each for each in b.answer("fabric")["nodes"] if each["name"] == "a")
        print(f"# codec {codec}, {rate}/s: {blocks * BLOCK >> 20} MiB in {took:.2f} s, {crossed / 1e6:.1f} MB crossed; "
              f"codec_in {said['codec_in']}, ratio_in {said['ratio_in']:.2f}, link_mbps {said['link_mbps']:.1f}")
        return took, crossed, said["codec_in"]


@slow
def over_a_slow_link_blocks_cross_encoded():
    if why := needed("fabric.codec"):
        return why
    plain_took, plain, chosen = over_a_slow_link("none", 192, "20MB")
    check(chosen == "none", "it encodes nevertheless")
    took, crossed, chosen = over_a_slow_link("auto", 192, "20MB")
    check(chosen == "lossless", "it does not encode over a link of 20 MB/s")
    check(crossed < plain * 0.85, crossed, "bytes crossed, and", plain, "as they are")
    check(took < plain_took, took, "seconds, and", plain_took, "as they are")


@harness.case
def a_directory_in_parts_finds_what_is_anywhere():
    if why := needed("fabric.directory"):
        return why
    with cluster("abcd", network="bridge", fabric__directory="parts") as bed:
        def finds(host, key):
            return bed.nodes[host].answer("match", "--key", key, *SIZE, "--blocks", str(BLOCKS), "--within", "10000",
                                          expect=None)["present"] == BLOCKS

        paths = {host: put(bed.nodes[host], f"of-{host}", number) for number, host in enumerate("abcd")}
        for reader in "badc":
            for host in "abcd":
                until(f"{reader} finds what {host} has", lambda reader=reader, host=host: finds(reader, f"of-{host}"))
                reads(bed.nodes[reader], f"of-{host}", paths[host])
            until(f"{reader} asked", lambda reader=reader: bed.nodes[reader].answer("fabric")["self"]["lookups"] > 0)
            check(bed.nodes[reader].answer("fabric")["self"]["directory_parts"] == 1, reader, "keeps all of it")
        check(not finds("a", "nothing"), "from nowhere")
        # Who owns half of the shards is killed: the others know until its lease is over, and from then on.
        bed.nodes["d"].kill()
        path = put(bed.nodes["a"], "late", 9)
        until("c finds it without d", lambda: finds("c", "late"))
        reads(bed.nodes["c"], "late", path)
        until("d is gone", lambda: "d" not in seen(bed.nodes["b"]), 20, 0.1)
        path = put(bed.nodes["a"], "later", 10)
        until("b finds what came then", lambda: finds("b", "later"))
        reads(bed.nodes["b"], "later", path)
    return None
