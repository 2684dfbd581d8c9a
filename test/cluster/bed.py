# SPDX-License-Identifier: Apache-2.0
"""Hosts as network namespaces on one machine, a network between them, an etcd and a weftd in each.

    with Bed(["a", "b"], network="wire", seed=7, etcd=True) as bed:
        a = bed.start("a", pool="64MB")
        a.weft("put", "--key", "k", path)
        bed.wire("cut a<>b")

The network is wire.c ("wire": every fault that it has, at some 100 MB/s) or veth and a bridge in a namespace of
its own ("bridge": fast, without faults).  Hosts are 10.77.0.1, 10.77.0.2, … in the order in which they are named,
etcd's is the last; nothing of it is seen from outside the namespaces, so beds do not meet.  Everything that a
bed starts dies with the process that made it (PDEATHSIG), and the next bed removes the namespaces and the folder
of one that was killed: both carry its process's number and start time.

Needs root, ip, nsenter, setpriv; why_not() says in a sentence what is missing.
"""
import contextlib
import ctypes
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

CLONE_NEWNET = 0x40000000
NAME = re.compile(r"weft-(\d+)-(\d+)-(\d+)(-[a-z0-9]+)?")
COUNT = itertools.count(1)  # of the beds of this process
LIBC = ctypes.CDLL(None, use_errno=True)
SUBNET = "10.77.0"
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>; Python has no name for it


class Failed(Exception):
    pass


def check(truth, *words):
    if not truth:
        raise Failed(" ".join(str(word) for word in words))


def until(what, function, seconds=20, step=0.05):
    """Ask until the answer is true, and return it; Failed says what it was last."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            last = function()
            if last:
                return last
        except (Failed, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            last = error
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}; last it was: {last!r}")
        time.sleep(step)


def start_time(pid):
    """When a process began, in ticks since the machine did; None when there is none, or it is dead."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            words = file.read().rpartition(")")[2].split()
            return None if words[0] == "Z" else int(words[19])
    except (OSError, IndexError, ValueError):
        return None


def ip(*words, stdin=None):
    done = subprocess.run(["ip", *words], input=stdin, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, check=False)
    check(done.returncode == 0, "ip", *words, ":", done.stderr.strip(), stdin or "")
    return done.stdout


def why_not(etcd=False):
    """What is missing for a bed, in a sentence; None when nothing is."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nsenter", "setpriv") + (("etcd",) if etcd else ()):
        if not shutil.which(program):
            return f"there is no program `{program}`"
    name = f"weft-{os.getpid()}-{start_time(os.getpid())}-0-try"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except (Failed, OSError) as error:
        return f"no network namespaces or TAP devices here: {error}"
    return None


@contextlib.contextmanager
def inside(namespace):
    """This thread in a network namespace: sockets that are made in it stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if LIBC.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        try:
            yield
        finally:
            if LIBC.setns(home, CLONE_NEWNET) != 0:
                os.abort()  # a thread that does not come home would make the next host's sockets here
    finally:
        os.close(home)
        os.close(there)


def remove_stale():
    """What a bed left behind whose process is gone."""
    def dead(name):
        match = NAME.fullmatch(name)
        return match and start_time(int(match[1])) != int(match[2])
    with contextlib.suppress(FileNotFoundError):
        for name in filter(dead, os.listdir("/run/netns")):
            with contextlib.suppress(Failed):
                for pid in ip("netns", "pids", name).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                ip("netns", "del", name)
    for name in filter(dead, os.listdir(tempfile.gettempdir())):
        path = os.path.join(tempfile.gettempdir(), name)
        for mount in mounts_under(path):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(path, ignore_errors=True)


def mounts_under(path):
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return [line.split()[1] for line in file if line.split()[1].startswith(path + "/")]


def fabric_settings(bed, host, cluster):
    """What makes a node one of a cluster in the bed's etcd; nothing where weftd knows no fabric."""
    if not bed.knows("fabric.join"):
        return {}
    return {"fabric__join": f"etcd://{bed.etcd.address}/{cluster}" if cluster else "", "fabric__name": host,
            "fabric__listen": f"tcp:{bed.address(host)}:7420", "fabric__secret_file": bed.secret("cluster")}


class Process:
    """A program in a host's namespace, its output in a log."""

    def __init__(self, bed, host, words, log, variables=None, **more):
        self.words, self.log = words, log
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WEFT_")}
        with open(log, "ab") as file:
            self.popen = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{bed.namespace(host)}", "setpriv", "--pdeathsig", "KILL", "--", *words],
                env={**clean, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(variables or {})}, stderr=file,
                **{"stdin": subprocess.DEVNULL, "stdout": file, **more})

    def running(self):
        return self.popen.poll() is None

    def tell(self, number):
        if self.running():
            self.popen.send_signal(number)

    def end(self, number=signal.SIGTERM, seconds=60):
        """Its exit status; one that does not end in time is killed, and that is a failure."""
        self.tell(signal.SIGCONT)
        self.tell(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise Failed(f"{self.words[0]} did not end within {seconds} s of signal {number}") from None

    def kill(self):
        if self.running():
            self.popen.kill()
        self.popen.wait()


class Node:
    """A weftd on a host.  It keeps its folder, and so its tiers and identity, over restarts."""

    def __init__(self, bed, host, settings, tiers, config, variables):
        self.bed, self.host = bed, host
        self.folder = os.path.join(bed.folder, host)
        os.makedirs(self.folder, exist_ok=True)
        self.socket = os.path.join(self.folder, "weftd.sock")
        self.log = os.path.join(self.folder, "log")
        self.settings, self.tiers, self.config, self.variables = settings, tiers, config, variables or {}
        self.process, self.paused = None, False

    def words(self):
        settings = {"socket": self.socket, "state_dir": os.path.join(self.folder, "state"), "http.listen": "off",
                    "pool.huge": "off", "log.level": "info", "domain.default.secret_file": self.bed.secret("domain"),
                    **self.settings}
        if self.config is not None:
            path = os.path.join(self.folder, "weftd.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.config)
        words = [self.bed.weftd]
        for key, value in settings.items():
            if value is not None:
                words += ["--set", f"{key}={value}"]
        for tier in self.tiers:
            words += ["--tier", tier.replace("@", self.folder)]
        return words

    def spawn(self):
        config = os.path.join(self.folder, "weftd.yaml") if self.config is not None else "/dev/null"
        self.process = Process(self.bed, self.host, self.words(), self.log,
                               {"WEFT_CONFIG": config, **self.variables})
        self.paused = False
        return self

    def start(self, seconds=60):
        self.spawn()
        return self.ready(seconds)

    def ready(self, seconds=60):
        def answers():
            if not self.process.running():
                raise EndedEarly(f"weftd on {self.host} ended with {self.process.popen.returncode}:\n"
                                 + tail(self.log, 20))
            return self.run("status", timeout=5).returncode == 0
        until(f"weftd on {self.host} answers", answers, seconds)
        return self

    def kill(self):
        self.process.kill()

    def stop(self, seconds=60):
        status = self.process.end(signal.SIGTERM, seconds)
        check(status == 0, "weftd on", self.host, "ended with", status, "\n" + tail(self.log, 20))

    def pause(self):
        self.process.tell(signal.SIGSTOP)
        self.paused = True

    def resume(self):
        self.process.tell(signal.SIGCONT)
        self.paused = False

    def restart(self):
        self.kill()
        return self.start()

    def run(self, *words, stdin=None, timeout=60, domain=None):
        variables = {"WEFT_SOCKET": self.socket, "LC_ALL": "C.UTF-8", "TZ": "UTC", "TMPDIR": self.folder,
                     "PATH": os.environ.get("PATH", "")}
        if domain:
            variables["WEFT_DOMAIN"] = domain
        return subprocess.run([self.bed.weft, *words], input=stdin, env=variables, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)

    def weft(self, *words, expect=0, **how):
        """Run weft against this node; the finished process, its exit status checked unless `expect` is None."""
        done = self.run(*words, **how)
        check(expect in (None, done.returncode), f"weft on {self.host}:", *words, "exited with", done.returncode,
              "not", expect, ":", done.stderr.decode(errors="replace"), done.stdout[:300])
        return done

    def answer(self, *words, **how):
        return json.loads(self.weft(*words, "--json", **how).stdout)

    def until(self, what, words, condition, seconds=20):
        """Ask `weft WORDS --json` until the condition holds of the answer."""
        def asked():
            answer = self.answer(*words)
            if condition(answer):
                return answer
            raise Failed(json.dumps(answer)[:1000])
        return until(f"{self.host}: {what}", asked, seconds, 0.1)


class EndedEarly(Exception):
    """Not a Failed: waiting on would not help."""


def tail(path, lines):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError as error:
        return str(error)


class Etcd:
    """A real etcd, of one member, on a host of its own."""

    def __init__(self, bed, host):
        self.bed, self.host = bed, host
        self.folder = os.path.join(bed.folder, host)
        os.makedirs(self.folder, exist_ok=True)
        self.log = os.path.join(self.folder, "log")
        self.process = None
        self.address = f"{bed.address(host)}:2379"

    def spawn(self):
        here, peer = f"http://{self.address}", "http://127.0.0.1:2380"
        self.process = Process(self.bed, self.host, [
            "etcd", "--name", "one", "--data-dir", os.path.join(self.folder, "data"), "--listen-client-urls", here,
            "--advertise-client-urls", here, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"one={peer}", "--heartbeat-interval", "50", "--election-timeout", "500",
            "--logger", "zap", "--log-level", "warn"], self.log)

    def start(self):
        self.spawn()
        until("etcd is well", self.well, 60)
        return self

    def well(self):
        return self.bed.http(self.host, self.address, "GET", "/health")["health"] == "true"

    def kill(self):
        self.process.kill()

    def pause(self):
        self.process.tell(signal.SIGSTOP)

    def resume(self):
        self.process.tell(signal.SIGCONT)


class Bed:
    def __init__(self, hosts, build, network="wire", seed=1, etcd=False, mtu=1500):
        self.hosts = list(hosts) + (["etcd"] if etcd else [])
        self.network, self.seed, self.mtu = network, seed, mtu
        self.weft, self.weftd = os.path.join(build, "bin", "weft"), os.path.join(build, "bin", "weftd")
        self.wire_program = os.path.join(build, "test", "wire")
        self.name = f"weft-{os.getpid()}-{start_time(os.getpid())}-{next(COUNT)}"
        self.folder = os.path.join(tempfile.gettempdir(), self.name)
        self.nodes, self.others, self.etcd, self.switch = {}, [], None, None
        self.lock = threading.Lock()  # of the wire's two pipes
        self.with_etcd = etcd

    # ---------------------------------------------------------------- hosts and what is between them

    def namespace(self, host):
        return f"{self.name}-{host}"

    def address(self, host):
        return f"{SUBNET}.{self.hosts.index(host) + 1}"

    def __enter__(self):
        remove_stale()
        os.makedirs(self.folder, mode=0o755)
        try:
            for host in self.hosts:
                ip("netns", "add", self.namespace(host))
                ip("-n", self.namespace(host), "link", "set", "lo", "up")
                with inside(self.namespace(host)), open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w",
                                                        encoding="utf-8") as file:
                    file.write("1")
            self.start_wire() if self.network == "wire" else self.make_bridge()
            self.address_hosts()
            if self.with_etcd:
                self.etcd = Etcd(self, "etcd").start()
        except BaseException:
            self.close()
            raise
        return self

    def start_wire(self):
        words = [self.wire_program, "--seed", str(self.seed), "--mtu", str(self.mtu)]
        words += [f"{host}={self.namespace(host)}" for host in self.hosts]
        with open(os.path.join(self.folder, "wire.log"), "ab") as log:
            self.switch = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *words], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=log)
        check(self.switch.stdout.readline() == b"ready\n", "the wire did not start:",
              tail(os.path.join(self.folder, "wire.log"), 5))

    def make_bridge(self):
        hub = f"{self.name}-hub"
        ip("netns", "add", hub)
        ip("-n", hub, "link", "add", "hub", "type", "bridge")
        ip("-n", hub, "link", "set", "hub", "up")
        for number, host in enumerate(self.hosts, 1):
            ip("-n", self.namespace(host), "link", "add", "weft0", "address", self.hardware(number), "type", "veth",
               "peer", "name", f"p{number}", "netns", hub)
            ip("-n", hub, "link", "set", f"p{number}", "master", "hub", "up", "mtu", str(self.mtu))

    @staticmethod
    def hardware(number):
        return f"02:77:65:66:74:{number:02x}"

    def address_hosts(self):
        """Neighbours are told, not asked for: only what hosts say to each other meets faults."""
        for host in self.hosts:
            lines = [f"link set weft0 mtu {self.mtu} txqueuelen 8192 up", f"addr add {self.address(host)}/24 dev weft0"]
            lines += [f"neigh replace {self.address(other)} lladdr {self.hardware(number)} dev weft0 nud permanent"
                      for number, other in enumerate(self.hosts, 1) if other != host]
            ip("-n", self.namespace(host), "-batch", "-", stdin="\n".join(lines) + "\n")

    def wire(self, *lines):
        """Say lines to the wire; its answers: None for each that was done, or what it had to tell."""
        answers = []
        with self.lock:
            for line in lines:
                self.switch.stdin.write(line.encode() + b"\n")
                self.switch.stdin.flush()
                answer = self.switch.stdout.readline().decode().rstrip("\n")
                check(answer and not answer.startswith("error"), "wire:", line, "→", answer)
                answers.append(json.loads(answer) if answer.startswith("{") else None)
        return answers[0] if len(answers) == 1 else answers

    def link(self, one, other):
        """What the wire counted from one host to the other."""
        return next(link for link in self.wire("stats")["links"] if (link["from"], link["to"]) == (one, other))

    def sock(self, host, kind=socket.SOCK_STREAM):
        with inside(self.namespace(host)):
            return socket.socket(socket.AF_INET, kind)

    def listen_in(self, host):
        """Hear all frames of a host from now on; calling what is returned ends that and gives them."""
        with inside(self.namespace(host)):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        tap.settimeout(0.2)
        frames, ending = [], threading.Event()

        def hear():
            while not ending.is_set():
                with contextlib.suppress(TimeoutError):
                    frames.append(tap.recv(65536))
        ear = threading.Thread(target=hear)
        ear.start()

        def end():
            ending.set()
            ear.join()
            tap.close()
            return frames
        return end

    def listening(self, host):
        """{(address, port)} of all TCP sockets that listen on a host."""
        found = set()
        with inside(self.namespace(host)):
            for name in ("tcp", "tcp6"):
                try:
                    with open(f"/proc/thread-self/net/{name}", encoding="utf-8") as file:
                        rows = [line.split() for line in file.readlines()[1:]]
                except FileNotFoundError:
                    continue
                for place in (row[1] for row in rows if row[3] == "0A"):
                    address, port = place.split(":")
                    words = [bytes.fromhex(address[i:i + 8])[::-1] for i in range(0, len(address), 8)]
                    family = socket.AF_INET if name == "tcp" else socket.AF_INET6
                    found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
        return found

    def http(self, host, address, method, path, body=None, timeout=5):
        """Ask an HTTP server as seen from a host; its answer's JSON."""
        name, port = address.rsplit(":", 1)
        connection = http.client.HTTPConnection(name, int(port), timeout=timeout)
        connection.sock = self.sock(host)
        connection.sock.settimeout(timeout)
        try:
            connection.sock.connect((name, int(port)))
            connection.request(method, path, body and json.dumps(body))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    # ------------------------------------------------------------------------------ what runs on them

    def secret(self, name):
        """The file of a secret that all nodes share; made when it is first asked for."""
        path = os.path.join(self.folder, name + ".secret")
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as file:
                file.write(f"the secret '{name}' of a test bed, longer than thirty-two bytes\n")
        return path

    def node(self, host, pool="64MB", tiers=(), config=None, variables=None, **settings):
        """A node that is not started yet.  `__` in a setting's name is a dot; `@` in a tier is its folder."""
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        node = Node(self, host, {"pool.size": pool, "pool.size_max": pool, **dotted}, tiers, config, variables)
        self.nodes[host] = node
        return node

    def knows(self, setting):
        """Does this weftd have such a key in its configuration?"""
        shown = subprocess.run([self.weftd, "--help-config"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               env={"WEFT_CONFIG": "/dev/null"}, check=False).stdout.decode()
        variable = "WEFT_" + setting.upper().replace(".", "_")
        return re.search(rf"\b{variable}\b", shown) is not None

    def start(self, host, **how):
        return self.node(host, **how).start()

    def process(self, host, words, log, **more):
        """Any program on a host; ended with the bed."""
        made = Process(self, host, words, os.path.join(self.folder, log), **more)
        self.others.append(made)
        return made

    def logs(self, lines=30):
        """The ends of all logs, for a test that failed."""
        paths = [node.log for node in self.nodes.values()] + ([self.etcd.log] if self.etcd else [])
        paths += [process.log for process in self.others] + [os.path.join(self.folder, "wire.log")]
        said = [(os.path.relpath(path, self.folder), tail(path, lines)) for path in dict.fromkeys(paths)
                if os.path.exists(path)]
        return "".join(f"--- {name}\n{text}" for name, text in said if text)

    def close(self):
        running = [node.process for node in self.nodes.values()] + self.others + [self.etcd and self.etcd.process]
        for process in filter(None, running):
            process.kill()
        if self.switch:
            self.switch.kill()
            self.switch.wait()
            self.switch.stdin.close()
            self.switch.stdout.close()
        for name in [self.namespace(host) for host in self.hosts] + [f"{self.name}-hub"]:
            if os.path.exists(f"/run/netns/{name}"):
                with contextlib.suppress(Failed):
                    ip("netns", "del", name)
        for mount in mounts_under(self.folder):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *error):
        self.close()
