# SPDX-License-Identifier: Apache-2.0
"""What all cases of run.py share: the programs, a folder, nodes, golden files.

A golden file is the answer with placeholders where a value may differ: "<int>", "<number>", "<text>",
"<key>" (64 hex digits), "<bool>", "<any>"; a list with one entry and "..." is any number of such entries.
Keys and their order are exact.
"""
import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

WEFT, WEFTD, ROOT = sys.argv[1:4]
HOLD = os.path.join(os.path.dirname(os.path.abspath(WEFT)), "..", "..", "test", "session_hold")
HERE = os.path.join(ROOT, "test", "cli")
FOLDER = tempfile.mkdtemp(prefix="weft-cli-")
SOCKET = os.path.join(FOLDER, "node.sock")
CASES = []
NODES = []


def case(function):
    CASES.append(function)
    return function


class Failed(Exception):
    pass


def check(truth, *words):
    if not truth:
        raise Failed(" ".join(str(word) for word in words))


def environment(**more):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WEFT_")}
    beside = os.path.dirname(os.path.abspath(WEFTD))
    path = ":".join([beside, os.path.join(beside, "..", "..", "examples"), clean.get("PATH", "")])
    return {**clean, "PATH": path, "WEFT_SOCKET": SOCKET, "TMPDIR": FOLDER, "LC_ALL": "C.UTF-8", "TZ": "UTC", **more}


def weft(*words, expect=0, stdin=None, timeout=120, **variables):
    """Run weft; the finished process, its exit code checked unless `expect` is None."""
    done = subprocess.run([WEFT, *words], input=stdin, env=environment(**variables), timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    check(expect in (None, done.returncode), "weft", *words, "exited with", done.returncode, "not", expect, ":",
          done.stderr.decode(errors="replace"), done.stdout[:300])
    return done


def answer(*words, **how):
    """Run weft --json; its one line, read with the order of keys kept."""
    out = weft(*words, "--json", **how).stdout.decode()
    check(out.count("\n") == 1 and out.endswith("\n"), "not one line:", out)
    return json.loads(out)


def differ(want, got, at):
    """Where `got` is not what the golden answer says; None when it is."""
    kinds = {"<int>": lambda v: isinstance(v, int) and not isinstance(v, bool),
             "<number>": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
             "<text>": lambda v: isinstance(v, str), "<bool>": lambda v: isinstance(v, bool),
             "<key>": lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v),
             "<any>": lambda v: True}
    if isinstance(want, str) and want in kinds:
        return None if kinds[want](got) else f"{at}: {got!r} is no {want}"
    if type(want) is not type(got):
        return f"{at}: {got!r} instead of {want!r}"
    if isinstance(want, dict):
        if list(want) != list(got):
            return f"{at}: keys {list(got)} instead of {list(want)}"
        return next(filter(None, (differ(want[key], got[key], f"{at}.{key}") for key in want)), None)
    if isinstance(want, list):
        if want and want[-1] == "...":
            want = want[:1] * max(1, len(got))
        if len(want) != len(got):
            return f"{at}: {len(got)} entries instead of {len(want)}"
        return next(filter(None, (differ(w, g, f"{at}[{i}]") for i, (w, g) in enumerate(zip(want, got)))),
                    None)
    return None if want == got else f"{at}: {got!r} instead of {want!r}"


def golden(name, got):
    with open(os.path.join(HERE, "golden", name + ".json"), encoding="utf-8") as file:
        complaint = differ(json.load(file), got, name)
    check(complaint is None, complaint)


def start_node(pool="256MB", socket=SOCKET, tiers=(), http="off", **variables):
    words = [word for tier in tiers for word in ("--tier", tier)]
    node = subprocess.Popen([WEFTD, "--socket", socket, "--pool", pool, "--http", http, "--log", "warn", *words],
                            env=environment(**{"WEFT_STATE_DIR": FOLDER, **variables}), stderr=subprocess.PIPE)
    NODES.append(node)
    until = time.time() + 60
    while subprocess.run([WEFT, "status", "--socket", socket], env=environment(), check=False,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        if node.poll() is not None or time.time() > until:
            raise Failed("weftd did not start: " + node.stderr.read().decode())
        time.sleep(0.05)
    return node


def no_room(path, *words):
    """A command whose files may have 4 KiB leaves what was at `path` as it was, and nothing beside it."""
    def small():  # a signal that this process ignores, so that it is an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    for before in b"before", None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        if before:
            with open(path, "wb") as file:
                file.write(before)
        done = subprocess.run([WEFT, *words], env=environment(), capture_output=True, preexec_fn=small,
                              restore_signals=False, check=False)
        check(done.returncode == 6 and done.stderr.decode().count("File too large") == 1, words, done)
        check(not os.path.exists(path + ".new") and os.path.exists(path) == bool(before), path)
        if before:
            with open(path, "rb") as file:
                check(file.read() == before, "a part of it is there:", path)


def until(what, holds, *seen):
    end = time.time() + 60
    while not holds():
        check(time.time() < end, "never:", what, *seen)
        time.sleep(0.05)


def tiers_open(socket=SOCKET):
    """All of them, so that what a node says of each is what it says from then on."""
    until("the tiers are open", lambda: all(tier["state"] != "opening"
                                            for tier in answer("ls", "tiers", "--socket", socket)["tiers"]))


def stop_node(node):
    node.send_signal(signal.SIGTERM)
    try:
        node.wait(60)  # what is only in DRAM is written below first
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def kill_nodes(but=None):
    """Those of cases that failed half-way: whoever reads our output waits for them, too."""
    for node in NODES:
        if node is not but and node.poll() is None:
            node.kill()
            node.wait()


def blob(name, size, seed=1):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as file:
        file.write(random.Random(seed).randbytes(size))
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def tier_paths(name):
    """An nvme tier on a file, and a cxl tier that is emulated by one."""
    return (f"nvme:{os.path.join(FOLDER, name)}.nvme:256MB", f"cxl:file-emulation:{os.path.join(FOLDER, name)}.cxl:64MB")


def left_behind():
    return [name for name in os.listdir(FOLDER) if re.fullmatch("weft-[0-9]+-[A-Za-z0-9]{6}", name)]


def trace_make(name, *words):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as file:
        subprocess.run([sys.executable, os.path.join(HERE, "make_trace.py"), *words], stdout=file, check=True)
    return path

