#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `weft` answers, against a node of the test's own: run.py WEFT WEFTD SOURCE_ROOT

A golden file is the answer with placeholders where a value may differ: "<int>", "<number>", "<text>",
"<key>" (64 hex digits), "<bool>", "<any>"; a list with one entry and "..." is any number of such entries.
Keys and their order are exact.  Prints TAP.
"""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

WEFT, WEFTD, ROOT = sys.argv[1:4]
HERE = os.path.join(ROOT, "test", "cli")
FOLDER = tempfile.mkdtemp(prefix="weft-cli-")
SOCKET = os.path.join(FOLDER, "node.sock")
RESULTS = []
CASES = []


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
    """Run weft; the finished process, its exit code checked."""
    done = subprocess.run([WEFT, *words], input=stdin, env=environment(**variables), timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    check(done.returncode == expect, "weft", *words, "exited with", done.returncode, "not", expect, ":",
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


def start_node(pool="256MB", socket=SOCKET, tiers=(), **variables):
    words = [word for tier in tiers for word in ("--tier", tier)]
    node = subprocess.Popen([WEFTD, "--socket", socket, "--pool", pool, "--http", "off", "--log", "warn", *words],
                            env=environment(**{"WEFT_STATE_DIR": FOLDER, **variables}), stderr=subprocess.PIPE)
    until = time.time() + 30
    while subprocess.run([WEFT, "status", "--socket", socket], env=environment(), check=False,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        if node.poll() is not None or time.time() > until:
            raise Failed("weftd did not start: " + node.stderr.read().decode())
        time.sleep(0.05)
    return node


def stop_node(node):
    node.send_signal(signal.SIGTERM)
    try:
        node.wait(20)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def blob(name, size, seed=1):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as file:
        file.write(bytes((i * 131 + seed * 7 + i // 257) % 256 for i in range(size)))
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


# ------------------------------------------------------------------------------------------ without a node


@case
def the_map_names_every_command():
    out = weft().stdout.decode()
    commands = re.findall(r"^  ([a-z]+) ", out, re.M)
    check(len(commands) >= 17, commands)
    for command in commands:
        text = weft(command, "--help").stdout.decode()
        check(f"usage: weft {command}" in text and "examples:" in text and "exit codes:" in text, command)
        check(text == weft("help", command).stdout.decode(), "help", command)


@case
def a_mistake_names_what_was_meant():
    for words, hint in ((["stauts"], "status"), (["put", "--blok-bytes", "4"], "--block-bytes"),
                        (["ls", "block"], "'blocks'"), (["bench", "locla"], "'local'"), (["help", "gte"], "'get'"),
                        (["events", "--what", "evcit"], "'evict'"), (["region", "--share", "raed"], "'read'")):
        said = weft(*words, expect=2).stderr.decode()
        check(hint in said and "did you mean" in said, words, said)
    nowhere = os.path.join(FOLDER, "nowhere.sock")
    check(json.loads(weft("--json", "--socket", nowhere, "status", expect=3).stdout)["exit"] == 3)
    check(weft("--json", "version").stdout == weft("version", "--json").stdout)
    check(weft("--help", "put").stdout == weft("put", "--help").stdout)
    for words in (["--jsno", "status"], ["--json"], ["--socket"], ["--socket", "status"]):
        said = weft(*words, expect=2).stderr.decode()
        check(said.startswith("weft: ") and said.count("\n") == 1, words, said)
    said = weft("top", "--interval", "abc", expect=2).stderr.decode()
    check("--interval 0.5" in said, said)
    for words in (["put"], ["get", "--key", "a", "extra"], ["put", "--key"], ["get", "--verify=yes"],
                  ["put", "--dtype", "bf17", "x"], ["match", "--blocks", "many"], ["lend"],
                  ["put", "--block-bytes", "12 parsecs", "x"], ["ls"], ["region", "open"],
                  ["replay"], ["replay", "--trace", "/dev/null", "--speed", "fast"],
                  ["top", "--interval", "0"], ["explain", "XYZ"], ["bench", "local", "--blocks", "0"]):
        said = weft(*words, expect=6 if "fast" in words else 2).stderr.decode()
        check(said.startswith("weft ") and said.count("\n") == 1, words, said)


@case
def without_a_node_it_says_so():
    nowhere = os.path.join(FOLDER, "nowhere.sock")
    error = answer("status", "--socket", nowhere, expect=3)
    golden("no_node", error)
    check("nowhere.sock" in error["error"], error)
    for words, code in ((["status", "--socket", nowhere], 3), (["lend", "a lot"], 2), (["put", "/nowhere"], 6),
                        (["status", "--domain", "nope"], 4), (["region", "open", "nope"], 1)):
        check(answer(*words, expect=code)["exit"] == code, words)
    for words in (["put", "--key", "a", blob("tiny", 10)], ["ls", "blocks"], ["lend", "1GB"],
                  ["region", "ls"], ["events"], ["top", "--count", "1"],
                  ["bench", "local"], ["get", "--key", "a", "--block-bytes", "10", "--output", "/dev/null"]):
        weft(*words, "--socket", nowhere, expect=3)


@case
def version_and_doctor():
    golden("version", answer("version"))
    check(re.search("built with (gcc|.*clang)", weft("version").stdout.decode()), "by which compiler?")
    check("low|normal|high\n" in weft("region", "--help").stdout.decode(), "an option runs into its help")
    findings = subprocess.run([WEFT, "doctor", "--json"], env=environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=False)
    check(findings.returncode in (0, 1), findings.returncode)
    report = json.loads(findings.stdout)
    golden("doctor", report)
    check((findings.returncode == 1) == (report["broken"] > 0), report["broken"])
    for finding in report["findings"]:
        check(finding["state"] in ("ok", "absent", "better", "broken"), finding)
        check(finding["state"] != "broken" or finding["mend"], "nothing mends", finding)
    names = {finding["name"] for finding in report["findings"]}
    check(names >= {"weftd", "node", "memory", "numa", "memlock", "kernel", "io_uring", "userfaultfd", "cxl", "dax"},
          names)


@case
def config_asks_weftd():
    good = os.path.join(FOLDER, "good.yaml")
    with open(good, "w", encoding="utf-8") as file:
        file.write("pool:\n  size: 64MB\n")
    weft("config", "check", "--file", good)
    shown = weft("config", "show", "--file", good).stdout.decode()
    check(re.search(r"^pool\.size +67108864 +\S*good\.yaml:2$", shown, re.M), shown)
    check("pool" in weft("config", "help").stdout.decode())
    with open(good, "w", encoding="utf-8") as file:
        file.write("pool:\n  size: lots\n")
    check("lots" in weft("config", "check", "--file", good, expect=2).stderr.decode())
    check(answer("config", "show", good, expect=2)["exit"] == 2)
    with open(good, "w", encoding="utf-8") as file:
        file.write("pool:\n  size: 32MB\n")
    for verb in ("check", "show"):
        check(answer("config", verb, good)["settings"]["pool.size"]["value"] == 32 << 20, verb)
    check("config show --json" in answer("config", "help", expect=2)["error"])
    weft("config", "help", good, expect=2)
    with open(good, "w", encoding="utf-8") as file:
        file.write(f"tiers:\n  - name: kv\n    path: {FOLDER}\n    size: 64MB\n")
    shown = weft("config", "show", good, WEFT_STATE_DIR=FOLDER).stdout.decode()
    check(re.search(r"^tier\.kv\.size +67108864 +\S*good\.yaml:4$", shown, re.M), shown)
    verbs = re.search(r"usage: weft config \[options\] (\S+)", weft("config", "--help").stdout.decode())[1].split("|")
    for verb in verbs:
        weft("config", verb)


@case
def tiers_have_a_short_form():
    def weftd(*words, expect=0):
        done = subprocess.run([WEFTD, *words, "--check-config", "--json"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, env=environment(WEFT_STATE_DIR=FOLDER))
        check(done.returncode == expect, "weftd", *words, done.returncode, done.stderr.decode())
        return done

    path = os.path.join(FOLDER, "kv.tier")
    # What --set says of a tier counts wherever it stands.
    tiers = json.loads(weftd("--set", "tier.nvme0.admit=reused", "--tier", f"nvme:{path}:64MB", "--tier",
                             "s3://kv-cache/n1").stdout)["tiers"]
    check(list(tiers) == ["nvme0", "s3"], tiers)
    got = {key: (tiers["nvme0"][key]["value"], tiers["nvme0"][key]["origin"]) for key in tiers["nvme0"]}
    check(got["path"] == (path, "flag tier.nvme0.path") and got["size"] == (64 << 20, "flag tier.nvme0.size"), got)
    check(got["admit"] == ("reused", "flag tier.nvme0.admit") and got["queue_depth"] == (32, "default"), got)
    check(tiers["s3"]["kind"]["value"] == "s3", tiers)
    for words, hint in ((["--tier", "floppy:/x"], "write nvme:PATH:SIZE"),
                        (["--tier", f"nvme:{path}"], "set size, like 100GB"),
                        (["--tier", "s3://kv-cache"] * 9, "9 times"),
                        (["--tier", "nvme:" + "x" * 300 + ":1GB"], "write nvme:PATH:SIZE")):
        said = weftd(*words, expect=2).stderr.decode()
        check(hint in said, words, said)
    check(not os.path.exists(path), "a check made", path)


@case
def completion_and_manuals_are_the_programs():
    def file(*path):
        with open(os.path.join(ROOT, *path), encoding="utf-8") as opened:
            return opened.read()

    check(weft("--print-completion").stdout.decode() == file("packaging", "weft.bash-completion"),
          "packaging/weft.bash-completion is old: weft --print-completion writes it")
    for command in re.findall(r"^  ([a-z]+) ", weft().stdout.decode(), re.M):
        check(weft("--print-man", command).stdout.decode() == file("docs", "man", f"weft-{command}.1"),
              f"docs/man/weft-{command}.1 is old: weft --print-man {command} writes it")
        check(f".Xr weft-{command} 1" in file("docs", "man", "weft.1"), "weft.1 does not name", command)


@case
def manuals_are_clean():
    if not shutil.which("mandoc"):
        return "mandoc is not installed"
    folder = os.path.join(ROOT, "docs", "man")
    pages = sorted(name for name in os.listdir(folder) if re.match(r"weft[._-]", name))
    said = subprocess.run(["mandoc", "-Tlint", *pages], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False).stdout.decode()
    # Pages refer to each other, and are not installed here.
    wrong = [line for line in said.splitlines()
             if "referenced manual not found" not in line and "mandoc.db" not in line]
    check(not wrong, "\n".join(wrong))
    build = read(os.path.join(folder, "meson.build")).decode()
    listed = re.findall(r"'([^' ]*\.[1-9])'", build.split("man_links")[0])
    there = sorted(name for name in os.listdir(folder) if re.search(r"\.[1-9]$", name))
    check(listed == there, "docs/man/meson.build installs", set(there) ^ set(listed), "not as they are")
    header = read(os.path.join(ROOT, "include", "weft", "weft.h")).decode()
    functions = set(re.findall(r"\b(weft_[a-z_]+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.S)))
    named = set()
    for page in pages:
        named |= set(re.findall(r"^\.Nm (weft_[a-z_]+)", read(os.path.join(folder, page)).decode(), re.M))
    check(functions == named, "no page for", functions - named, "no function for", named - functions)
    # man weft_get finds the page of its family.
    linked = set(page[: -len(".3")] for page in there)
    for page, words in re.findall(r"'(weft_[a-z_]+\.3)': \[(.*?)\]", build, re.S):
        about = set(re.findall(r"^\.Nm (weft_[a-z_]+)", read(os.path.join(folder, page)).decode(), re.M))
        links = set(re.findall(r"'(weft_[a-z_]+)'", words))
        check(links <= about, page, "is not about", links - about)
        linked |= links
    check(functions <= linked, "man does not find", functions - linked)
    return None


# --------------------------------------------------------------------------------------------- with a node


@case
def put_and_get_one_block():
    path, copy = blob("one", 100000), os.path.join(FOLDER, "one.copy")
    golden("put_new", answer("put", "--key", "one", path))
    again = answer("put", "--key", "one", path)
    check((again["stored"], again["existing"]) == (0, 1), again)
    golden("get", answer("get", "--key", "one", "--block-bytes", "100000", "--output", copy, "--verify"))
    check(read(path) == read(copy), "the copy differs")
    check(weft("get", "--key", "one", "--block-bytes", "100000").stdout == read(path), "the pipe differs")
    # Another size is another format, and so another key.
    said = weft("get", "--key", "one", "--block-bytes", "100001", "--output", copy, expect=1).stderr.decode()
    check("say --block-bytes 100000" in said, said)
    raw = answer("ls", "blocks")["blocks"][0]
    said = weft("get", "--raw-key", raw["key"], "--block-bytes", "7", expect=1).stderr.decode()
    check(f"say --block-bytes {raw['bytes']}" in said, said)
    weft("get", "--key", "two", "--block-bytes", "100000", "--output", copy, expect=1)


@case
def a_miss_leaves_the_file_as_it_was():
    path, copy, link = blob("kept", 50000), os.path.join(FOLDER, "kept.copy"), os.path.join(FOLDER, "kept.link")
    weft("put", "--key", "kept", path)
    for place in (copy, os.path.join(FOLDER, "kept.new")):
        if place == copy:
            shutil.copy(blob("before", 1000, seed=3), copy)
        before = read(copy)
        weft("get", "--key", "kept?", "--block-bytes", "50000", "--output", place, expect=1)
        check(read(copy) == before and not os.path.exists(os.path.join(FOLDER, "kept.new")), place)
    os.chmod(copy, 0o640)
    os.symlink(copy, link)
    weft("get", "--key", "kept", "--block-bytes", "50000", "--output", link)
    check(os.path.islink(link) and read(copy) == read(path), "not through the link")
    check(os.stat(copy).st_mode & 0o777 == 0o640, "another mode")
    weft("get", "--key", "kept", "--block-bytes", "50000", "--output", "/dev/null")
    weft("get", "--key", "kept", "--block-bytes", "50000", "--output", os.path.join(FOLDER, "no", "x"), expect=6)
    check(not [name for name in os.listdir(FOLDER) if re.fullmatch(r"kept\.copy\.[0-9]+", name)], "left behind")


@case
def chains_are_put_matched_and_dropped():
    path, copy = blob("chain", 40 * 4096), os.path.join(FOLDER, "chain.copy")
    size = ["--block-bytes", "4096"]
    stored = answer("put", "--key", "chain", *size, "-", stdin=read(path))
    check((stored["blocks"], stored["stored"]) == (40, 40), stored)
    golden("match", answer("match", "--key", "chain", *size, "--blocks", "40"))
    part = answer("match", "--key", "chain", *size, "--blocks", "50", expect=1)
    check((part["blocks"], part["present"]) == (50, 40), part)
    weft("get", "--key", "chain", *size, "--blocks", "40", "--output", copy)
    check(read(path) == read(copy), "the copy differs")
    part = answer("get", "--key", "chain", *size, "--blocks", "41", "--output", copy, "--verify", expect=1)
    check(part["present"] == 40, part)
    weft("get", "--raw-key", stored["last_key"], *size, "--output", copy)
    check(read(copy) == read(path)[-4096:], "the last block differs")
    golden("rm", answer("rm", "--raw-key", stored["last_key"], *size))
    check(answer("rm", "--key", "chain", *size)["removed"] == 39)
    check(answer("match", "--key", "chain", *size, expect=1)["present"] == 0)
    check(b"0 of 1 block is there" in weft("match", "--key", "chain", *size, expect=1).stdout)
    weft("rm", "--key", "chain", *size, expect=1)


@case
def a_key_that_is_taken_is_no_place_for_other_bytes():
    size = ["--block-bytes", "4096", "--pad"]
    first, second, copy = blob("first", 10000), blob("second", 10000, seed=2), os.path.join(FOLDER, "first.copy")
    weft("put", "--key", "taken", *size, first)
    done = weft("put", "--key", "taken", *size, "--json", second, expect=5)
    report = json.loads(done.stdout)
    check((report["stored"], report["existing"], report["differing"]) == (0, 3, 3), report)
    check(b"3 blocks are there already with other bytes" in done.stderr, done.stderr)
    # One byte of the padding is a difference, too.
    done = weft("put", "--key", "taken", *size, "-", stdin=read(first) + b"x", expect=5)
    check(b"1 block is there" in done.stderr and b"is block 2)" in done.stderr, done.stderr)
    check(answer("put", "--key", "taken", *size, first)["differing"] == 0)
    weft("get", "--key", "taken", *size[:2], "--blocks", "3", "--bytes", "10000", "--output", copy)
    check(read(copy) == read(first), "what was there did not stay")


@case
def a_full_quota_is_not_a_full_pool():
    socket, settings = os.path.join(FOLDER, "narrow.sock"), os.path.join(FOLDER, "narrow.yaml")
    with open(settings, "w", encoding="utf-8") as file:
        file.write("domains:\n  - name: default\n    quota: 8MB\n")
    node = start_node("64MB", socket, WEFT_CONFIG=settings)
    try:
        words = ["--key", "wide", "--block-bytes", "1MB", "--socket", socket]
        said = weft("put", *words, blob("wide", 20 << 20), expect=1).stderr.decode()
        check("domain 'default'" in said and "quota of 8 MiB" in said and "pool" not in said, said)
        refused = answer("explain", "--socket", socket)["not_stored"]
        check(refused["requests"] >= 1 and refused["blocks"] >= 1 and refused["last"], refused)
        check("found no room" in weft("explain", "--socket", socket).stdout.decode())
    finally:
        stop_node(node)


@case
def odd_sizes_are_padded_or_refused():
    path, copy = blob("odd", 10000), os.path.join(FOLDER, "odd.copy")
    said = weft("put", "--key", "odd", "--block-bytes", "4096", path, expect=2).stderr.decode()
    check("--pad" in said, said)
    weft("put", "--key", "odd", "--block-bytes", "4096", "--pad", path)
    weft("get", "--key", "odd", "--block-bytes", "4096", "--blocks", "3", "--bytes", "10000", "--output", copy)
    check(read(path) == read(copy), "the copy differs")
    weft("put", "--key", "nothing", "/dev/null", expect=6)
    weft("put", "--key", "nothing", "-", stdin=b"", expect=2)


@case
def tokens_name_blocks():
    layout = ["--model", "m@1", "--layers", "2", "--kv-heads", "2", "--head-dim", "16", "--dtype", "bf16"]
    tokens = os.path.join(FOLDER, "tokens")
    with open(tokens, "w", encoding="utf-8") as file:
        file.write("\n".join(str(i * 7) for i in range(70)))
    path, copy = blob("kv", 4 * 4096), os.path.join(FOLDER, "kv.copy")
    stored = answer("put", *layout, "--tokens", "@" + tokens, path)
    check(stored["block_bytes"] == 4096 and stored["stored"] == 4, stored)
    weft("get", *layout, "--tokens", "@" + tokens, "--output", copy)
    check(read(path) == read(copy), "the copy differs")
    shorter = ",".join(str(i * 7) for i in range(32))
    check(answer("match", *layout, "--tokens", shorter)["present"] == 2)
    other = ",".join(str(i * 7 + 1) for i in range(32))
    check(answer("match", *layout, "--tokens", other, expect=1)["present"] == 0)
    weft("match", *layout, "--tokens", "1,2,3", expect=2)
    weft("match", *layout, "--tokens", "1,-2", expect=2)


@case
def lists_and_status():
    weft("put", "--key", "listed", "--block-bytes", "4096", blob("listed", 8192))
    golden("status", answer("status"))
    golden("ls_blocks", answer("ls", "blocks"))
    golden("ls_domains", answer("ls", "domains"))
    golden("ls_formats", answer("ls", "formats"))
    check(list(answer("ls", "sessions")) == ["sessions"])
    check(len(answer("ls", "blocks", "--limit", "1")["blocks"]) == 1)
    for words in (["status"], ["ls", "blocks"], ["ls", "sessions"], ["ls", "domains"], ["ls", "regions"]):
        shown = weft(*words).stdout.decode()
        check(shown.strip() and not re.search(r"(?<![\d.,])1 (client|session|block|holder)s", shown), words, shown)


def tier_paths(name):
    """An nvme tier on a file, and a cxl tier that is emulated by one."""
    return (f"nvme:{os.path.join(FOLDER, name)}.nvme:256MB", f"cxl:file-emulation:{os.path.join(FOLDER, name)}.cxl:64MB")


@case
def tiers_are_listed_with_what_was_measured():
    tiers = answer("ls", "tiers")
    golden("ls_tiers", tiers)
    tiers = {tier["name"]: tier for tier in tiers["tiers"]}
    check({name: (tier["kind"], tier["emulated"]) for name, tier in tiers.items()} ==
          {"dram0": ("dram", False), "nvme0": ("nvme", False), "cxl0": ("cxl", True)}, tiers)
    for name, tier in tiers.items():
        check(min(tier[key] for key in ("read_latency_us", "read_mbps", "write_mbps", "capacity_bytes")) > 0, tier)
        check(name in weft("ls", "tiers").stdout.decode(), name)
    check(tiers["nvme0"]["path"] == tier_paths("main")[0].split(":")[1], tiers["nvme0"])


def where_it_is(at, first, size, tiers):
    """A chain that went down and came up, and one that is down: in lists, matches and explanations."""
    until, counts = time.time() + 20, None
    while counts is None or (counts[0] != counts[1] and time.time() < until):  # some may be on their way
        below = answer("ls", "blocks", "--below", *at)["below"]
        each = [answer("ls", "blocks", "--tier", tier["name"], *at)["below"] for tier in tiers]
        counts = (sum(len(block["tiers"]) for block in below), sum(map(len, each)))
    check(counts[0] == counts[1], counts)
    check(all(block["tiers"] and not block["archived"] for block in below), below)
    golden("ls_below", {"below": below[:1]})
    check(len(answer("ls", "blocks", "--tier", "nvme0", "--limit", "3", *at)["below"]) == 3)
    weft("ls", "blocks", "--tier", "nope", *at, expect=1)
    weft("ls", "sessions", "--below", *at, expect=2)
    check(sum(first["tiers"].values()) == 8 and first["tiers"]["dram"] < 8 and first["load_us"] > 0, first)
    deep = answer("match", "--key", "deep1", *size, "--blocks", "9", *at, expect=1)
    check(deep["tiers"]["nvme"] + deep["tiers"]["cxl"] == 8, deep)
    shown = weft("match", "--key", "deep1", *size, "--blocks", "9", *at, expect=1).stdout.decode()
    check(re.match(r"[cn]{8}\.  8 of 9 blocks are there", shown) and "to have all in DRAM" in shown, shown)
    # Of what came up, a full tier lets go of its copy, the longest there first.
    both = {block["key"][:16] for block in below if block["in_dram"]}
    up = next(event for event in reversed(answer("events", "--what", "promote", *at)["events"])
              if event["key"] in both)
    golden("event_promote", up)
    story = answer("explain", up["key"], *at)
    told = [event["what"] for event in story["events"]]  # and it may have moved on to the next tier
    check([what for what in told if what in ("demote", "evict", "promote")][-3:] == ["demote", "evict", "promote"], story)
    tier = story["below"][0]["tiers"][0]
    check(story["present"] and story["below"][0]["in_dram"], story)
    shown = weft("explain", up["key"], *at).stdout.decode()
    check(f"is there, in DRAM and on {tier}" in shown and "because a get waited for it" in shown, shown)
    down = next(block for block in below if not block["in_dram"])
    shown = weft("explain", down["key"], *at).stdout.decode()
    check(f"{down['key']} is there, below DRAM on {down['tiers'][0]}" in shown, shown)
    check("a get brings it up" in weft("explain", *at).stdout.decode())


@case
def what_leaves_dram_is_below_and_comes_back():
    socket, size = os.path.join(FOLDER, "deep.sock"), ["--block-bytes", "1MB"]
    node = start_node("32MB", socket, tier_paths("deep"))
    at = ["--socket", socket]
    try:
        for i in range(12):
            weft("put", "--key", f"deep{i}", *size, *at, blob(f"deep{i}", 8 << 20, seed=i))
        first = answer("match", "--key", "deep0", *size, "--blocks", "8", *at)
        check(first["present"] == 8, "what left DRAM is not below:", first)
        copy = os.path.join(FOLDER, "deep.copy")
        weft("get", "--key", "deep0", *size, "--blocks", "8", "--output", copy, "--verify", *at)
        check(read(copy) == read(os.path.join(FOLDER, "deep0")), "another chain came back")
        domain = answer("status", *at)["domains"][0]
        below = domain["below"]
        check(below["demoted"] >= 64 and below["promoted"] >= 8 and below["promoted_bytes"] >= 8 << 20, below)
        check(8 <= below["blocks_matched"] <= domain["blocks_matched"] and below["load_us_mean"] > 0, domain)
        check(0 < below["hit_rate"] <= domain["hit_rate"], domain)
        tiers = {tier["name"]: tier for tier in answer("ls", "tiers", *at)["tiers"]}
        lower = [tiers["nvme0"], tiers["cxl0"]]
        check(sum(tier["blocks"] for tier in lower) == below["copies"] >= 64, tiers, below)
        check(sum(tier["read_bytes"] for tier in lower) >= 8 << 20, tiers)
        check(tiers["dram0"]["blocks"] == domain["blocks"], tiers, domain)
        shown = weft("status", *at).stdout.decode()
        check(re.search(r"below DRAM", shown), shown)
        where_it_is(at, first, size, lower)
    finally:
        stop_node(node)


@case
def a_session_is_archived_and_carried_over():
    size, chain = ["--block-bytes", "64KB"], blob("talk", 20 << 16, seed=9)
    file = os.path.join(FOLDER, "talk.weft")
    at = ["--socket", os.path.join(FOLDER, "here.sock")]
    to = ["--socket", os.path.join(FOLDER, "there.sock")]
    node = start_node("32MB", at[1], tier_paths("here")[:1])
    try:
        weft("put", "--key", "talk", *size, *at, chain)
        check("no archives" in weft("session", "ls", *at).stdout.decode())
        golden("session_archive", answer("session", "archive", "talk", "--key", "talk", *size, "--blocks", "20", *at))
        golden("session_ls", answer("session", "ls", *at))
        check("talk" in weft("session", "ls", *at).stdout.decode())
        check("archive" in weft("rm", "--key", "talk", *size, *at, expect=4).stderr.decode())
        weft("session", "archive", "nobody", *at, expect=1)
        weft("session", "export", "nobody", "--output", file, *at, expect=1)
        check(not os.path.exists(file), "an export that failed left a file")
        golden("session_export", answer("session", "export", "talk", "--output", file, *at))
    finally:
        stop_node(node)
    node = start_node("32MB", at[1], tier_paths("here")[:1])  # it is there again
    try:
        again = os.path.join(FOLDER, "again.weft")
        until = time.time() + 10
        while not answer("session", "ls", *at)["archives"] and time.time() < until:
            time.sleep(0.05)
        check("20 blocks" in weft("session", "export", "talk", "--output", again, *at).stdout.decode())
        check(read(again) == read(file), "two exports of one archive differ")
        golden("session_rm", answer("session", "rm", "talk", *at))
        weft("session", "rm", "talk", *at, expect=1)
    finally:
        stop_node(node)
    node = start_node("32MB", to[1], tier_paths("there")[:1])
    try:
        golden("session_import", answer("session", "import", file, *to))
        copy = os.path.join(FOLDER, "talk.copy")
        weft("get", "--key", "talk", *size, "--blocks", "20", "--output", copy, "--verify", *to)
        check(read(copy) == read(chain), "other bytes were imported")
        said = weft("session", "import", file, "--as", "other", *to).stdout.decode()
        check("0 were not here yet" in said, said)
        check({row["name"] for row in answer("session", "ls", *to)["archives"]} == {"talk", "other"})
        good = bytearray(read(file))
        for at_byte, what in ((4, "no exported"), (8, "version"), (16, "header"), (178, "header"), (190, "end"), (400, "block 0"),
                              (len(good) // 2, "block"), (len(good) - 5, "end"), (None, "bytes")):
            bad = good[:-9] if at_byte is None else good[:]
            if at_byte is not None:
                bad[at_byte] ^= 0x55
            with open(copy, "wb") as out:
                out.write(bad)
            said = weft("session", "import", copy, *to, expect=5).stderr.decode()
            check(what in said, at_byte, said)
    finally:
        stop_node(node)
    elsewhere = os.path.join(FOLDER, "elsewhere")
    os.mkdir(elsewhere)
    node = start_node("32MB", to[1], tier_paths("elsewhere")[:1], WEFT_STATE_DIR=elsewhere)
    try:
        check("secret_file" in weft("session", "import", file, *to, expect=4).stderr.decode())
        check(answer("status", *to)["domains"][0]["blocks"] == 0, "a refused import put something")
    finally:
        stop_node(node)


@case
def pages_are_joined():
    weft("put", "--key", "many", "--block-bytes", "4096", blob("many", 300 * 4096))
    blocks = answer("ls", "blocks")["blocks"]
    check(len(blocks) >= 300 and len({block["key"] for block in blocks}) == len(blocks), len(blocks))


@case
def top_says_rates():
    golden("top", answer("top", "--count", "1", "--interval", "0.1"))
    check(b"blocks" in weft("top", "--count", "1", "--interval", "0.1").stdout)


def top_drawn(columns):
    """What `weft top` writes to a terminal of so many columns until q ends it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(WEFT, [WEFT, "top", "--interval", "0.1"],
                  environment(TERM="xterm", LINES="30", COLUMNS=str(columns)))
    seen, until, asked = b"", time.time() + 20, False
    while time.time() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break  # the other end is closed
        if not asked and b"dram0" in seen and b"domain" in seen:
            asked = True
            os.write(terminal, b"q")
    if not asked:
        os.kill(pid, signal.SIGKILL)
    check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen)
    os.close(terminal)
    check(asked and b"domain" in seen and b"default" in seen, seen)
    return seen


@case
def top_draws_what_fits():
    told = {120: {b"clients ", b"quota", b"read GB/s"}, 100: {b"quota", b"read GB/s"}, 80: set(), 40: set()}
    for columns, titles in told.items():
        seen = top_drawn(columns)
        # No words of the table are beyond the edge: ncurses would have wrapped them.
        check({title for title in told[120] if title in seen} == titles, columns, seen)
        check((b"evict/s" in seen) == (columns > 40) and b"hit" in seen, columns, seen)
    line = weft("top", "--count", "1", "--interval", "0.1").stdout.decode()
    check(len(line) <= 80, line)


@case
def regions_are_held_and_released():
    data, copy = blob("region", 1 << 20), os.path.join(FOLDER, "region.copy")
    golden("region", answer("region", "create", "weights", "1MB", "--share", "read", "--file", data,
                            "--background"))
    try:
        opened = answer("region", "open", "weights")
        check(opened["writable"] is False, opened)
        golden("region_ls", answer("region", "ls"))
        weft("region", "dump", "weights", "--file", copy)
        check(read(copy) == read(data), "the dump differs")
        weft("region", "create", "weights", "1MB", "--background", expect=4)
        weft("region", "load", "weights", stdin=b"x", expect=4)
    finally:
        check(answer("region", "release", "weights")["released"] == 1)
    until = time.time() + 10
    while answer("region", "ls")["regions"] and time.time() < until:
        time.sleep(0.05)
    weft("region", "open", "weights", expect=1)
    weft("region", "release", "weights", expect=1)
    weft("region", "create", "scratch", "1MB", "--background")
    weft("region", "load", "scratch", stdin=b"hello")
    check(weft("region", "dump", "scratch").stdout[:6] == b"hello\0", "the load is not there")
    weft("region", "release", "scratch")


@case
def events_say_why_blocks_went():
    size = ["--block-bytes", "4096"]
    stored = answer("put", "--key", "doomed", *size, blob("doomed", 4096))
    weft("rm", "--key", "doomed", *size)
    shape = answer("events")
    check(list(shape) == ["events", "last", "lost"], list(shape))
    golden("explain", answer("explain"))
    found = answer("explain", stored["first_key"][:16])
    check(found["events"] and stored["first_key"].startswith(found["events"][-1]["key"][:16]), found)
    weft("explain", "0123456789abcdef", expect=1)
    there = answer("put", "--key", "still", *size, blob("still", 4096))["first_key"]
    found = answer("explain", there)
    check([block["key"] for block in found["present"]] == [there] and not found["events"], found)
    check(f"{there} is there" in weft("explain", there[:12]).stdout.decode())
    check(weft("events", "--limit", "3").stdout.count(b"\n") <= 3)
    weft("put", "--key", "many", *size, blob("many", 300 * 4096))
    weft("rm", "--key", "many", *size)
    check(len(answer("events")["events"]) == 50 < len(answer("events", "--all")["events"]))
    last = answer("events", "--limit", "1", "--what", "remove")["events"]
    check(last == answer("events", "--all", "--what", "remove")["events"][-1:], last)


@case
def memory_is_lent_and_reclaimed():
    before = answer("status")["pool"]["bytes"]
    lent = answer("lend", "32MB")
    golden("lend", lent)
    check(lent["pool_bytes"] == before + (32 << 20), before, lent)
    back = answer("reclaim", "32MB", "--within-ms", "2000")
    golden("reclaim", back)
    weft("lend", "a lot", expect=2)


# ----------------------------------------------------------------------------------- with nodes of their own


def left_behind():
    return [name for name in os.listdir(FOLDER) if re.fullmatch("weft-[0-9]+-[A-Za-z0-9]{6}", name)]


@case
def bench_local_measures():
    figures = answer("bench", "local", "--block-bytes", "65536", "--blocks", "64", "--rounds", "1", "--pool",
                     "256MB", WEFT_SOCKET="")
    golden("bench_local", {**figures, "redis_get_us_p50": None})
    redis = figures["redis_get_us_p50"]
    check(redis is None or redis > 0, redis)
    check(all(value > 0 for key, value in figures.items() if key != "redis_get_us_p50"), figures)
    check(not left_behind(), "left behind:", left_behind())


@case
def bench_nvme_measures():
    below = os.path.join(FOLDER, "below")
    os.mkdir(below)
    figures = answer("bench", "nvme", "--block-bytes", "65536", "--blocks", "128", "--rounds", "1", "--tier-size",
                     "64MB", "--dir", below, WEFT_SOCKET="")
    yards = [key for key in figures if "fio" in key]
    golden("bench_nvme", {**figures, **dict.fromkeys(yards)})
    check(all(value > 0 for key, value in figures.items() if key not in yards + ["direct"]), figures)
    check(all(figures[key] is None or figures[key] > 0 for key in yards), figures)
    check(figures["verified_bytes"] == 128 * 65536, figures)
    check(figures["first_layer_us_p50"] <= figures["all_layers_us_p50"], figures)
    check(os.listdir(below) == [] and not left_behind(), "left behind:", os.listdir(below), left_behind())
    said = weft("bench", "nvme", "--blocks", "4096", "--block-bytes", "1MB", "--tier-size", "1GB", expect=2)
    check("--tier-size" in said.stderr.decode(), said.stderr)
    said = weft("bench", "nvme", "--dir", os.path.join(FOLDER, "nowhere"), expect=6).stderr.decode()
    check("--dir" in said and said.count("\n") == 1, said)
    check("--socket" in weft("bench", "nvme", "--socket", SOCKET, expect=2).stderr.decode())


@case
def bench_restart_measures():
    below = os.path.join(FOLDER, "restart-below")
    os.mkdir(below)
    figures = answer("bench", "restart", "--blocks", "20480", "--dir", below, WEFT_SOCKET="")
    golden("bench_restart", figures)
    check(all(value > 0 for value in figures.values()), figures)
    for name in "killed", "stopped":
        check(figures[name + "_first_hit_s"] <= figures[name + "_full_index_s"], figures)
        check(figures["seconds_to_full_index"] >= figures[name + "_full_index_s"], figures)
    check(os.listdir(below) == [] and not left_behind(), "left behind:", os.listdir(below), left_behind())


@case
def bench_overlap_measures():
    below = os.path.join(FOLDER, "overlap-below")
    os.mkdir(below)
    figures = answer("bench", "overlap", "--rounds", "2", "--shape", "64,128,3,8,4,320,320", "--dir", below,
                     "--tier-size", "64MB", "--pool", "64MB", WEFT_SOCKET="")
    golden("bench_overlap", figures)
    check(all(value > 0 for key, value in figures.items() if key.startswith("ttft_")), figures)
    check(figures["logits_identical"] and figures["misses"] == 0, figures)
    check(figures["prefetched_in_time"] == figures["runs"] == 2, figures)
    check(os.listdir(below) == [] and not left_behind(), "left behind:", os.listdir(below), left_behind())


@case
def bench_watch_measures():
    figures = answer("bench", "watch", "--records", "300", "--readers", "2", "--pool", "64MB")
    golden("bench_watch", figures)
    check(figures["pipe_seen"] == 1, figures)


def trace_make(name, *words):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as file:
        subprocess.run([sys.executable, os.path.join(HERE, "make_trace.py"), *words], stdout=file, check=True)
    return path


@case
def replay_checks_every_byte():
    trace = trace_make("trace.jsonl", "--requests", "300")
    roomy = answer("replay", "--trace", trace, "--pool", "256MB", "--bytes-per-token", "8", "--clients", "1")
    golden("replay", roomy)
    # With room for all, a hit is what an endless cache would hit.
    seen, ideal, asked = set(), 0, 0
    for line in read(trace).splitlines():
        ids = json.loads(line)["hash_ids"]
        chains = [tuple(ids[: i + 1]) for i in range(len(ids))]
        ideal += next((i for i, chain in enumerate(chains) if chain not in seen), len(chains))
        asked += len(chains)
        seen |= set(chains)
    check((roomy["blocks_hit"], roomy["blocks_requested"]) == (ideal, asked), roomy, ideal, asked)
    tight = answer("replay", "--trace", trace, "--pool", "16MB", "--bytes-per-token", "64", "--clients", "3",
                   "--details")
    check(tight["requests"] == 300 and tight["wrong_bytes"] == 0, tight)
    check(0 < tight["blocks_hit"] < ideal, tight)
    golden("replay_details", tight["details"])
    check(not left_behind(), "left behind:", left_behind())


@case
def replay_hits_what_is_below():
    """A tenth of the room in DRAM and the rest below hits what all of it in DRAM hits."""
    trace = trace_make("below.jsonl", "--requests", "500")
    below = os.path.join(FOLDER, "replay-below")
    os.mkdir(below)
    common = ["replay", "--trace", trace, "--bytes-per-token", "64", "--details"]
    dram = answer(*common, "--pool", "64MB")
    tenth = answer(*common, "--pool", "6.4MB", "--tier-size", "128MB", "--dir", below)
    check(dram["wrong_bytes"] == tenth["wrong_bytes"] == 0, dram, tenth)
    check(tenth["details"]["blocks_from_below"] > 0, tenth)
    check(tenth["hit_rate"] >= dram["hit_rate"] - 0.01, dram, tenth)
    check(os.listdir(below) == [] and not left_behind(), "left behind:", os.listdir(below), left_behind())


@case
def replay_finds_wrong_bytes():
    """A block that says something else than its key promises, planted by its name."""
    trace = trace_make("planted.jsonl", "--requests", "20")
    first = json.loads(read(trace).splitlines()[0])["hash_ids"][0]
    name = (bytes(32) + first.to_bytes(8, "little")).hex()
    weft("put", "--model", "weft-replay@1", "--block-tokens", "512", "--block-bytes", "4096", "--key",
         "hex:" + name, blob("planted", 4096))
    apart = answer("replay", "--trace", trace, "--bytes-per-token", "8")
    check(apart["wrong_bytes"] == 0, "$WEFT_SOCKET's node was loaded without --socket", apart)
    report = answer("replay", "--trace", trace, "--bytes-per-token", "8", "--socket", SOCKET, expect=5)
    check(report["requests"] == 20 and report["wrong_bytes"] > 4000, report)
    weft("rm", "--model", "weft-replay@1", "--block-tokens", "512", "--block-bytes", "4096", "--key",
         "hex:" + name)


@case
def what_is_too_small_gets_a_sentence():
    said = weft("bench", "local", "--blocks", "4096", "--block-bytes", "1MB", "--pool", "64MB", "--rounds", "1",
                expect=4).stderr.decode()
    check("--pool is 64 MiB" in said and "need a pool of 4.7 GiB" in said, said)
    said = weft("bench", "local", "--blocks", "4096", "--block-bytes", "1MB", "--rounds", "1", "--socket", SOCKET,
                expect=4).stderr.decode()
    check("the node's pool is" in said and "need a pool of 4.7 GiB" in said, said)
    shown = weft("bench", "local", "--blocks", "8", "--block-bytes", "64KB", "--rounds", "1").stdout.decode()
    check("a weftd of its own" in shown and "1 round;" in shown and "quotient of the two medians" in shown, shown)
    check("--pool" in weft("bench", "local", "--pool", "1GB", "--socket", SOCKET, expect=2).stderr.decode())
    said = weft("replay", "--trace", trace_make("small.jsonl", "--requests", "9"), "--pool", "4KB",
                expect=3).stderr.decode()
    check("weftd" in said and said.count("\n") == 1, said)
    said = weft("status", "--domain", "nobody", expect=4).stderr.decode()
    check("nobody" in said, said)
    check(not left_behind(), "left behind:", left_behind())


@case
def replay_passes_bad_lines():
    trace = trace_make("bad.jsonl", "--requests", "50", "--bad", "4")
    done = weft("replay", "--trace", trace, "--pool", "64MB", "--bytes-per-token", "8", "--json")
    check(json.loads(done.stdout)["requests"] == 46, done.stdout)
    said = done.stderr.decode()
    check("4 malformed lines were skipped" in said and re.search(r"bad\.jsonl:\d+: ", said), said)
    weft("replay", "--trace", trace, "--pool", "64MB", "--bytes-per-token", "8", "--strict", expect=2)
    weft("replay", "--trace", os.path.join(FOLDER, "none"), expect=6)


@case
def replay_survives_its_node():
    trace = trace_make("long.jsonl", "--requests", "400")
    socket = os.path.join(FOLDER, "mortal.sock")
    node = start_node("64MB", socket)
    run = subprocess.Popen([WEFT, "replay", "--trace", trace, "--socket", socket, "--bytes-per-token", "8",
                            "--clients", "2", "--speed", "6x", "--json", "--details"],
                           env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    node.kill()
    node.wait()
    time.sleep(0.3)
    node = start_node("64MB", socket)
    out, said = run.communicate(timeout=90)
    stop_node(node)
    check(run.returncode == 0, run.returncode, said)
    report = json.loads(out)
    check(report["requests"] == 400 and report["wrong_bytes"] == 0, report)
    check(report["details"]["node_losses"] >= 1 and b"went away" in said, report, said)


@case
def a_signal_leaves_nothing_behind():
    trace = trace_make("slow.jsonl", "--requests", "400")
    run = subprocess.Popen([WEFT, "replay", "--trace", trace, "--pool", "64MB", "--speed", "realtime"],
                           env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.time() + 10
    while not left_behind() and time.time() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    check(left_behind(), "no node of its own was started")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)
    check(run.returncode == 130, run.returncode)
    check(not left_behind(), "left behind:", left_behind())


@case
def what_a_kill_leaves_the_next_start_removes():
    trace = trace_make("killed.jsonl", "--requests", "400")
    run = subprocess.Popen([WEFT, "replay", "--trace", trace, "--pool", "64MB", "--speed", "realtime"],
                           env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.time() + 10
    while not left_behind() and time.time() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    run.kill()
    run.communicate(timeout=20)
    check(len(left_behind()) == 1 and str(run.pid) in left_behind()[0], left_behind())
    live = os.path.join(FOLDER, f"weft-{os.getpid()}-abcdef")
    os.mkdir(live)
    lock = os.path.join(FOLDER, left_behind()[0], "weftd.sock.lock")
    until = time.time() + 20
    while os.path.exists(lock[: -len(".lock")]) and time.time() < until:
        time.sleep(0.05)  # its node ends by itself
    shown = weft("bench", "watch", "--records", "50").stdout.decode()
    check("a weftd of its own" in shown and "1 reader," in shown, shown)
    check(left_behind() == [os.path.basename(live)], "left behind:", left_behind())
    os.rmdir(live)


def main():
    print(f"1..{len(CASES)}")
    node = start_node(tiers=tier_paths("main"), WEFT_POOL_SIZE_MAX="1GB")
    failed = 0
    for number, function in enumerate(CASES, 1):
        name = function.__name__.replace("_", " ")
        try:
            skip = function()
            print(f"ok {number} - {name}" + (f" # SKIP {skip}" if skip else ""), flush=True)
        except (Failed, subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
            failed += 1
            print(f"not ok {number} - {name}", flush=True)
            for line in str(error).splitlines():
                print(f"# {line}", flush=True)
    stop_node(node)
    shutil.rmtree(FOLDER, ignore_errors=True)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
