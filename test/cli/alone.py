# SPDX-License-Identifier: Apache-2.0
"""What the programs say without a node: help, mistakes, configuration, manual pages."""
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from socket import create_server

from harness import (FOLDER, ROOT, WEFT, WEFTD, answer, blob, case, check, environment, golden, read, start_node,
                     stop_node, weft)


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
                        (["ls", "block"], "'blocks'"), (["bench", "locla"], "'local'"), (["drain"], "'weft fabric drain'"),
                        (["help", "gte"], "'get'"),
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
                  ["top", "--interval", "0"], ["explain", "--key", "XYZ"], ["bench", "local", "--blocks", "0"]):
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
    # What is cut in a sentence, or no text at all, is told all the same.
    for word in (b"\xff\xfe", ("x" + 40 * "\u00e9").encode()):
        done = subprocess.run([WEFT, "fabric", "limit", word, "a", "1MB", "--json"], env=environment(), timeout=60,
                              capture_output=True, check=False)
        check(done.returncode == 2 and "none of link" in json.loads(done.stdout)["error"], done)
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


def sysfs_of_another_machine():
    """A region with a device in it, one without, and a NUMA node without processors."""
    root = os.path.join(FOLDER, "sysfs")
    files = {"bus/dax/devices/dax0.0/size": "534773760", "bus/dax/devices/dax0.0/align": "2097152",
             "bus/dax/devices/dax0.0/resource": "0x3d0200000", "bus/dax/devices/dax0.0/target_node": "1",
             "bus/cxl/devices/region0/resource": "0x3d0000000", "bus/cxl/devices/region0/size": "0x20000000",
             "bus/cxl/devices/region0/interleave_ways": "2",
             "bus/cxl/devices/region3/resource": "0x4d0000000", "bus/cxl/devices/region3/size": "0x20000000",
             "devices/system/node/node1/access0/initiators/read_latency": "250",
             "devices/system/node/node1/access0/initiators/read_bandwidth": "28000",
             "devices/system/node/node0/cpulist": "0-3", "devices/system/node/node2/cpulist": "",
             "devices/system/node/node2/meminfo": "Node 2 MemTotal:       1048576 kB"}
    for path, text in files.items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "w", encoding="ascii") as file:
            file.write(text + "\n")
    os.symlink("../../../../bus/dax/drivers/device_dax", os.path.join(root, "bus/dax/devices/dax0.0/driver"))
    return root


def doctor(*words):
    done = subprocess.run([WEFT, "doctor", *words], env=environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    check(done.returncode in (0, 1), words, done.returncode, done.stderr)
    return done.stdout.decode()


@case
def doctor_finds_memory_beyond_dram():
    """Whether a node answers or not; and what another machine has, from a copy of its /sys."""
    nowhere = os.path.join(FOLDER, "nowhere.sock")
    alone = json.loads(doctor("--json", "--socket", nowhere))["memory"]
    check(alone == json.loads(doctor("--json"))["memory"], alone)
    empty = os.path.join(FOLDER, "empty")
    os.mkdir(empty)
    none = doctor("--sysfs", empty)
    check(re.search("^memory beyond DRAM .*: none found$", none, re.M), none)
    root = sysfs_of_another_machine()
    for how in ([], ["--socket", nowhere]):
        report = json.loads(doctor("--json", "--sysfs", root, *how))
        found = report["memory"]
        check([(row["name"], row["bytes"], row["has_device"]) for row in found["regions"]] ==
              [("region0", 1 << 29, True), ("region3", 1 << 29, False)], found)
        check([(row["path"], row["kind"], row["bytes"], row["numa_node"], row["region"], row["read_latency_ns"],
                row["read_mbps"], row["tier"]) for row in found["devices"]] ==
              [("/dev/dax0.0", "dax", 534773760, 1, "region0", 250, 28000, None),
               ("node:2", "node", 1 << 30, 2, None, 0, 0, None)], found)
        check("region3 has no device in devdax mode" in
              [finding["value"] for finding in report["findings"] if finding["name"] == "cxl_region"], report)
    shown = doctor("--sysfs", root)
    check(re.search(r"^/dev/dax0\.0 +dax +510\S* ?MiB +1 +250 +- +28000 +- +region0 +-$", shown, re.M), shown)


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
    check(shown.startswith("# what weftd would start with now") and "weft ls domains" in shown, shown)
    check(re.search(r"^profiles +`profiles` in state_dir +default", shown, re.M), shown)
    check(re.search(r"^tier\.kv\.size +67108864 +\S*good\.yaml:4$", shown, re.M), shown)
    verbs = re.search(r"usage: weft config \[options\] (\S+)", weft("config", "--help").stdout.decode())[1].split("|")
    for verb in verbs:
        weft("config", verb)


@case
def a_pool_that_the_host_does_not_have_is_no_small_thing():
    told = subprocess.run([WEFTD, "--socket", os.path.join(FOLDER, "vast.sock"), "--pool", "60TB", "--check-config"],
                          env=environment(WEFT_STATE_DIR=FOLDER), check=False, capture_output=True)
    check(told.returncode == 0 and b"and be killed when its pool fills" in told.stdout, told)
    check(b"pool.size 60 TiB is more than this" in told.stderr and b"note:" not in told.stderr, told)


@case
def an_objective_that_counts_for_nothing_is_named():
    for policy in ("lru", "weft"):
        told = subprocess.run([WEFTD, "--set", "pool.objective=ttft", "--set", f"pool.policy={policy}", "--check-config"],
                              env=environment(WEFT_STATE_DIR=FOLDER), check=False, capture_output=True)
        check(told.returncode == 0 and (b"'ttft' has no effect" in told.stdout + told.stderr) == (policy == "lru"), told)


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
    for variables, said in (({}, "there are no credentials in the environment or in files"),
                            ({"AWS_EC2_METADATA_DISABLED": "true"}, "there are no credentials for an object store"),
                            ({"AWS_ACCESS_KEY_ID": "a"}, "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"),
                            ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, None)):
        clean = {key: value for key, value in environment(WEFT_STATE_DIR=FOLDER, HOME=FOLDER).items()
                 if not key.startswith("AWS_")}
        done = subprocess.run([WEFTD, "--tier", "s3://kv-cache/n1", "--check-config"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, env={**clean, **variables})
        check(done.returncode == 0 and (said or "") in done.stderr.decode(), variables, done)
        check(said or b"tier 's3'" not in done.stderr, variables, done)
    for words, hint in ((["--tier", "floppy:/x"], "write nvme:PATH:SIZE"),
                        (["--tier", f"nvme:{path}"], "set size, like 100GB"),
                        (["--tier", f"nvme:{path}:100"], "is the least"),
                        (["--tier", f"nvme:{path}:64XB"], "'64XB' is no size"),
                        (["--tier", "s3://kv-cache"] * 9, "9 times"),
                        (["--tier", "nvme:" + "x" * 300 + ":1GB"], "write nvme:PATH:SIZE")):
        said = weftd(*words, expect=2).stderr.decode()
        check(hint in said, words, said)
    check(not os.path.exists(path), "a check made", path)


@case
def a_start_does_what_the_check_says():
    path, socket = os.path.join(FOLDER, "checked.tier"), os.path.join(FOLDER, "checked.sock")
    for tier, starts, hint in ((f"nvme:{path}", False, "set size"), (f"nvme:{path}:100", False, "is the least"),
                               (f"cxl:file-emulation:{path}", False, "set size"),
                               (f"nvme:{FOLDER}/no/such/place:64MB", True, "cannot be made"),
                               ("cxl:/dev/dax99.9", True, "may not use"), (f"nvme:{path}:9000TB", True, "room for")):
        words = [WEFTD, "--socket", socket, "--pool", "16MB", "--http", "off", "--tier", tier]
        told = subprocess.run([*words, "--check-config"], env=environment(WEFT_STATE_DIR=FOLDER), check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said = told.stderr.decode()
        check(told.returncode == (0 if starts else 2) and hint in said, tier, told.returncode, said)
        check(b"would start, with a tier that is failed" in told.stdout or not starts, told.stdout)
        if starts:
            node = start_node("16MB", socket, [tier])
            check(answer("ls", "tiers", "--socket", socket)["tiers"][1]["state"] == "failed", tier)
            stop_node(node)
            said = node.stderr.read().decode()
            check(len(re.findall(r"ERROR|error", said)) <= 1, said)
        else:
            node = subprocess.run(words, env=environment(WEFT_STATE_DIR=FOLDER), check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
            refused = [line for line in node.stderr.decode().splitlines() if line.startswith("weftd: ")]
            check(node.returncode == 2 and len(refused) == 1 and refused[0] in said, tier, node.stderr)
            check(not os.path.exists(socket), "a socket was left")
        check(not os.path.exists(path), tier, "left a file")


@case
def a_long_question_is_answered_over_http_at_once():
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = os.path.join(FOLDER, "asked.sock")
    node = start_node("64MB", place, http=f"127.0.0.1:{port}")
    tokens = list(range(100000, 230000))  # 1 MiB of text
    weft("put", "--model", "asked", "--tokens", ",".join(map(str, tokens[:48])), "--block-tokens", "16", "--dtype", "bf16",
         "--socket", place, blob("asked", 192))

    def ask(**question):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        line.request("POST", "/v1/route", json.dumps(question), {"Content-Type": "application/json"})
        said = line.getresponse()
        text = json.loads(said.read())
        line.close()
        return said.status, text

    status, said = ask(model="asked", tokens=tokens[:64], ask=True)
    check((status, said["held_blocks"], said["hit_tokens"], said["stride"]) == (200, 3, 48, 1), status, said)
    keys = [row["key"] for row in answer("ls", "blocks", "--socket", place)["blocks"]]
    status, said = ask(keys=keys[:1], ask=True)
    check((status, said["held_blocks"], said["candidates"][0]["node"]) == (200, 1, said["node"]), status, said)
    # A queue that takes 1e306 s is no number of ms.
    status, said = ask(keys=keys[:1], ask=True,
                       candidates=[{"node": said["node"], "queued_tokens": 1e6, "tokens_s": 1e-300}])
    check(status == 200 and said["queue_ms"] is None and said["ttft_ms"] is None, status, said)
    # Ten pieces a second would be ten seconds.
    begin = time.monotonic()
    status, said = ask(model="asked", tokens=tokens, ask=True)
    check(status == 200 and said["stride"] == 8 and time.monotonic() - begin < 5, status, said, time.monotonic() - begin)
    for question, code, hint in (({"model": "none", "tokens": [1]}, 404, 'model is "none": no client has opened'),
                                 ({"model": "asked", "tokens": [1.5]}, 400, "whole numbers"),
                                 ({"model": "asked", "tokens": 7}, 400, "give a list"),
                                 ({"tokens": [1]}, 400, "without `format` or `model`"),
                                 ({"keys": ["00"]}, 400, "64 hex digits"), ({"keys": [], "block_tokens": 0}, 400, "at least 1"),
                                 ({"keys": [], "tokens": []}, 400, "one of both"), ({"kys": []}, 400, '"kys": there is no'),
                                 ({"keys": [], "candidates": [{}]}, 400, "its name"),
                                 ({"keys": [], "candidates": [{"node": "a", "queued_tokens": -5}]}, 400,
                                  "queued_tokens is -5: give a number"),
                                 ({"keys": [], 39 * "k" + 40 * "\u00e9": 1}, 400, "there is no such member"),
                                 ({"keys": [], "domain": "other"}, 404, 'domain is "other": there is none')):
        status, said = ask(**question)
        check(status == code and hint in said["error"], question, status, said)
    stop_node(node)


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
def every_kind_of_event_can_be_asked_for():
    folder, told = os.path.join(ROOT, "src", "daemon"), set()
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            text = file.read()
        told |= set(re.findall(r'wf_telemetry_event\(\s*[^",]+,\s*[^",]+,\s*"([a-z_]+)"', text))
        for line in re.findall(r"\.what = ([^,;]+)", text) if name.endswith(".c") else ():
            told |= set(re.findall(r'"([a-z_]+)"', line))
    known = re.search(r"--what (\S+)", weft("events", "--help").stdout.decode())[1].split("|")
    check(len(told) > 20 and told == set(known), "told and not known, or known and not told:", told ^ set(known))


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
    for page in there:
        for name, section in re.findall(r"^\.Xr (weft\S*) ([0-9])", read(os.path.join(folder, page)).decode(), re.M):
            check(f"{name}.{section}" in there, page, "refers to", f"{name}({section}), which is no page")
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
