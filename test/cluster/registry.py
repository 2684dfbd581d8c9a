# SPDX-License-Identifier: Apache-2.0
"""etcd in trouble under a cluster that lives: one of three dies or is cut off, it is slow, full, asks for a password or
a certificate in the middle.  No node is out for longer than it has to be, none is busy with it, and what people see
says what it is and what to do."""
import base64
import contextlib
import os
import subprocess
import time

from bed import check, fabric_settings, until
from fabric import needed, put, reads, seen, whole
from harness import a_bed, slow

LEASE_MS = 3000
LEASE = {"fabric__lease": f"{LEASE_MS}ms"}
BUSY = 0.5  # of a processor, for a node that has nothing to do: one that asks without a pause takes all of it


class Etcds:
    """An etcd of three members, each on a host of its own; stands where the bed's one etcd does."""

    def __init__(self, bed, hosts):
        self.bed, self.hosts, self.process, self.members = bed, hosts, None, {}
        self.address = ",".join(f"{bed.address(host)}:2379" for host in hosts)
        self.log = os.path.join(bed.folder, f"etcd.{hosts[0]}")

    def spawn(self, host):
        def url(of, port):
            return f"http://{self.bed.address(of)}:{port}"
        cluster = ",".join(f"{each}={url(each, 2380)}" for each in self.hosts)
        self.members[host] = self.bed.process(host, [
            "etcd", "--name", host, "--data-dir", os.path.join(self.bed.folder, f"data.{host}"),
            "--listen-client-urls", url(host, 2379), "--advertise-client-urls", url(host, 2379),
            "--listen-peer-urls", url(host, 2380), "--initial-advertise-peer-urls", url(host, 2380),
            "--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "500",
            "--logger", "zap", "--log-level", "warn"], f"etcd.{host}")

    def start(self):
        for host in self.hosts:
            self.spawn(host)
        until("the three have a leader", self.leader, 60)
        return self

    def leader(self):
        """The host of the leader, as all that run see it."""
        names = {}
        for host, process in self.members.items():
            if process.running():
                said = self.bed.http(host, f"{self.bed.address(host)}:2379", "POST", "/v3/maintenance/status", {},
                                     timeout=2)
                names[said["header"]["member_id"]] = (host, said.get("leader", "0"))
        leaders = {leader for _, leader in names.values()}
        return names[leaders.pop()][0] if len(leaders) == 1 and leaders <= set(names) else None


@contextlib.contextmanager
def etcd_of_three(hosts, **settings):
    with a_bed(f"{hosts}xyz") as bed:
        bed.etcd = Etcds(bed, "xyz").start()
        begin(bed, hosts, **settings)
        yield bed


def begin(bed, hosts, **settings):
    for host in hosts:
        bed.node(host, **{**fabric_settings(bed, host, "test"), **LEASE, **settings}).spawn()
    for host in hosts:
        bed.nodes[host].ready()
    whole(bed, hosts, 60)


def epochs(bed, hosts):
    """{host: its epoch}, as each says it of itself."""
    return {host: bed.nodes[host].answer("fabric")["self"]["epoch"] for host in hosts}


def standing(node):
    said = node.answer("fabric")["self"]
    return said["standing"], said["why"]


def stands(node, state, word, seconds=30):
    """It says that of itself, and why, with that word; the sentence."""
    def asked():
        now, why = standing(node)
        return why if now == state and word in why else None
    return until(f"{node.host} is {state}, '{word}'", asked, seconds, 0.1)


def processor(node):
    """Seconds of processors that it took so far."""
    with open(f"/proc/{node.process.popen.pid}/stat", encoding="utf-8") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def not_busy(bed, hosts):
    """What is done meanwhile keeps no node busy."""
    before, began = {host: processor(bed.nodes[host]) for host in hosts}, time.monotonic()
    yield
    took = time.monotonic() - began
    for host in hosts:
        used = processor(bed.nodes[host]) - before[host]
        check(used < BUSY * took + 0.5, f"{host} took {used:.1f} s of a processor in {took:.1f} s")


def ask(bed, path, body):
    return bed.http("etcd", bed.etcd.address, "POST", path, body)


def alarm(bed, action):
    """etcd is full, or is so no more, without anybody filling it."""
    said = ask(bed, "/v3/maintenance/status", {})
    ask(bed, "/v3/maintenance/alarm", {"action": action, "memberID": said["header"]["member_id"], "alarm": "NOSPACE"})


# ------------------------------------------------------------------------------------------------------ three

@slow
def one_etcd_of_three_dies_and_another_is_cut_off():
    if why := needed():
        return why
    with etcd_of_three("ab") as bed:
        a, b = bed.nodes["a"], bed.nodes["b"]
        before, path = epochs(bed, "ab"), put(a, "k", 1)
        reads(b, "k", path)
        with not_busy(bed, "ab"):
            leader = until("there is a leader", bed.etcd.leader)
            bed.etcd.members[leader].kill()
            until("there is another leader", lambda: bed.etcd.leader() not in (None, leader), 30)
            time.sleep(2 * LEASE_MS / 1000)  # who was to lose its lease has lost it by now
            check(epochs(bed, "ab") == before, "a leader's death cost somebody its lease:", epochs(bed, "ab"), before)
            bed.etcd.spawn(leader)
            until("it is back", lambda: bed.etcd.leader() is not None and bed.etcd.members[leader].running(), 30)
            # A follower that hears neither the others nor is heard answers nobody: a asks the next one.
            follower = next(host for host in "xyz" if host != bed.etcd.leader())
            rest = [host for host in "xyz" if host != follower]
            bed.wire(*(f"cut {follower}<>{other}" for other in rest))
            time.sleep(2 * LEASE_MS / 1000)
            check(epochs(bed, "ab") == before, "a follower that was cut off cost somebody its lease:",
                  epochs(bed, "ab"), before)
            check(set(seen(a)) >= set("ab") and set(seen(b)) >= set("ab"), "they lost sight of each other")
        path = put(a, "more", 2)
        reads(b, "more", path)
        # Without a majority nobody is a member; with one all are, and anew.
        bed.wire(f"cut {rest[0]}<>{rest[1]}")
        with not_busy(bed, "ab"):
            for node in (a, b):
                until(f"{node.host} is none", lambda node=node: standing(node)[0] == "lost", 30, 0.1)
        bed.wire("heal *<>*")
        whole(bed, "ab", 60)
        after = epochs(bed, "ab")
        check(all(after[host] > before[host] for host in "ab"), "an epoch that was lost is back:", before, after)
    return None


# --------------------------------------------------------------------------------------------- slow, full, guarded

@slow
def a_slow_etcd_is_borne_or_told_of():
    if why := needed():
        return why
    with a_bed("ab", etcd=True) as bed:
        # An answer may take a quarter of the lease, and a connection as much.
        bed.wire("delay a<>etcd 250ms")
        begin(bed, "ab")
        before = epochs(bed, "ab")
        time.sleep(3 * LEASE_MS / 1000)
        check(epochs(bed, "ab") == before, "a little patience was too much:", epochs(bed, "ab"), before)
        bed.wire("delay a<>etcd 2s")
        with not_busy(bed, "ab"):
            stands(bed.nodes["a"], "lost", "does not answer")
            time.sleep(2 * LEASE_MS / 1000)
        with open(bed.nodes["a"].log, encoding="utf-8") as log:
            said = sum("does not answer" in line for line in log)
        check(said < 10, "it says", said, "times in the log that etcd does not answer")
        check(epochs(bed, "b")["b"] == before["b"], "who has a good way to etcd lost its lease")
        bed.wire("clear *<>*")
        whole(bed, "ab", 30)
    return None


@slow
def a_full_etcd_is_told_of_as_full():
    if why := needed():
        return why
    with a_bed("abc", etcd=True) as bed:
        begin(bed, "ab", fabric__lend="16MB")
        before = epochs(bed, "ab")
        alarm(bed, "ACTIVATE")
        c = bed.node("c", **{**fabric_settings(bed, "c", "test"), **LEASE}).start()
        with not_busy(bed, "abc"):
            why = stands(c, "refused", "full (database space exceeded)")
            check("compact" in why and "disarm" in why, "no mend:", why)
            done = bed.nodes["a"].weft("fabric", "lend", "8MB", expect=None)
            said = done.stderr.decode()
            check(done.returncode and "full (database space exceeded)" in said, "a change of what is lent:", said)
            doctor = c.weft("doctor", expect=None).stdout.decode()
            check("database space exceeded" in doctor, "the doctor does not say it:", doctor)
            time.sleep(2 * LEASE_MS / 1000)
        check(epochs(bed, "ab") == before, "a full etcd cost somebody its lease:", epochs(bed, "ab"), before)
        whole(bed, "ab")
        alarm(bed, "DEACTIVATE")
        whole(bed, "abc", 30)
        bed.nodes["a"].weft("fabric", "lend", "8MB")
    return None


@slow
def history_is_compacted_beneath_a_watch():
    if why := needed():
        return why
    with a_bed("ab", etcd=True) as bed:
        begin(bed, "ab", fabric__lease="15s", fabric__lend="16MB")
        before = epochs(bed, "ab")
        bed.wire("cut a<>etcd")
        for size in ("8MB", "4MB", "2MB"):  # settings, which a's watch does not bring now
            bed.nodes["b"].weft("fabric", "lend", size)
        revision = ask(bed, "/v3/kv/range", {"key": "AA=="})["header"]["revision"]
        ask(bed, "/v3/kv/compaction", {"revision": revision, "physical": True})
        bed.nodes["b"].weft("fabric", "lend", "1MB")
        with not_busy(bed, "ab"):
            stands(bed.nodes["a"], "doubtful", "does not answer")  # so its watch has ended, and is to begin anew
            bed.wire("heal a<>etcd")
            # What it missed it knows: it changes the setting that there is now, and not an older one.
            until("a says how much b lends", lambda: bed.nodes["a"].weft(
                "fabric", "lend", "3MB", "--lender", "b", expect=None).returncode == 0, 30)
            until("b lends that", lambda: bed.nodes["b"].answer("fabric")["self"]["lent_bytes"] == 3 << 20, 30)
        check(epochs(bed, "ab") == before, "it cost somebody its lease:", epochs(bed, "ab"), before)
    return None


def guard(bed):
    """etcd asks for a password from now on: weft's is `right`."""
    def text(word):
        return base64.b64encode(word.encode()).decode()
    for name, password in (("root", "r"), ("weft", "right")):
        ask(bed, "/v3/auth/user/add", {"name": name, "password": password})
        ask(bed, "/v3/auth/role/add", {"name": name})
        ask(bed, "/v3/auth/user/grant", {"user": name, "role": name})
    ask(bed, "/v3/auth/role/grant", {"name": "weft", "perm": {"permType": "READWRITE", "key": text("/weft/test/"),
                                                               "range_end": text("/weft/test0")}})
    ask(bed, "/v3/auth/enable", {})


@slow
def a_password_is_asked_for_in_the_middle():
    if why := needed():
        return why
    with a_bed("abc", etcd=True) as bed:
        more = {"fabric__lease": "6s", "fabric__registry_user": "weft"}  # etcd takes long to look at a password
        begin(bed, "a", fabric__registry_password="right", **more)
        begin(bed, "b", fabric__registry_password="wrong", **more)
        whole(bed, "ab")
        before = epochs(bed, "ab")
        guard(bed)
        with not_busy(bed, "ab"):
            stands(bed.nodes["b"], "member", "does not know the user weft by this password", 60)
            check(standing(bed.nodes["a"]) == ("member", ""), "a is amiss:", standing(bed.nodes["a"]))
            check(epochs(bed, "ab") == before, "it cost somebody its lease:", epochs(bed, "ab"), before)
            path = put(bed.nodes["a"], "k", 1)
            reads(bed.nodes["b"], "k", path)
        c = bed.node("c", **{**fabric_settings(bed, "c", "test"), **LEASE}).start()
        stands(c, "refused", "asks for a user and a password; set fabric.registry_user")
        bed.nodes["b"].restart()
        why = stands(bed.nodes["b"], "refused", "does not know the user weft by this password")
        check("fabric.registry_password" in why, "no mend:", why)
        bed.nodes["b"].kill()
        begin(bed, "b", fabric__registry_password="right", **more)
        whole(bed, "ab")
    return None


# -------------------------------------------------------------------------------------------------- certificates

def certificates(bed, names):
    """A CA, and of each of the names a certificate and its key, in the bed's folder."""
    def openssl(*words):
        done = subprocess.run(["openssl", *words], cwd=bed.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              check=False)
        check(done.returncode == 0, "openssl", *words, done.stderr.decode())
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=test-ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in names:
        with open(os.path.join(bed.folder, f"{name}.ext"), "w", encoding="utf-8") as file:
            file.write(f"subjectAltName=IP:{bed.address(name)}\n")
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")


@slow
def an_etcd_that_asks_for_certificates_sees_the_nodes():
    if why := needed():
        return why
    with a_bed("abcq") as bed:
        def file(name):
            return os.path.join(bed.folder, name)
        certificates(bed, "abq")
        place = f"{bed.address('q')}:2379"
        bed.process("q", ["etcd", "--name", "q", "--data-dir", file("data"), "--cert-file", file("q.pem"),
                          "--key-file", file("q.key"), "--client-cert-auth", "--trusted-ca-file", file("ca.pem"),
                          "--listen-client-urls", f"https://{place}", "--advertise-client-urls", f"https://{place}",
                          "--logger", "zap", "--log-level", "warn"], "etcd.q")

        def node(host, scheme="etcds", **settings):
            shared = {"fabric__join": f"{scheme}://{place}/test", "fabric__name": host, **LEASE,
                      "fabric__listen": f"tcp:{bed.address(host)}:7420"}
            return bed.node(host, **{**shared, **settings}).start()
        for host in "ab":
            node(host, fabric__registry_ca=file("ca.pem"), fabric__ca=file("ca.pem"),
                 fabric__certificate=file(f"{host}.pem"), fabric__key=file(f"{host}.key"))
        whole(bed, "ab", 60)
        path = put(bed.nodes["a"], "k", 1)
        reads(bed.nodes["b"], "k", path)
        secret = {"fabric__secret_file": bed.secret("cluster")}
        for how, word in (({"scheme": "etcd"}, "if it speaks TLS, write etcds://"),
                          ({}, "see to fabric.registry_ca"),
                          ({"fabric__registry_ca": file("ca.pem")}, "see to fabric.certificate and fabric.key")):
            stands(node("c", **how, **secret), "joining", word)
            bed.nodes["c"].kill()
    return None
