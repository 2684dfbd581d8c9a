# SPDX-License-Identifier: Apache-2.0
"""Commands that start nodes of their own: bench and replay."""
import json
import os
import re
import signal
import subprocess
import time

from harness import (FOLDER, SOCKET, WEFT, answer, blob, case, check, environment, golden, left_behind, read,
                     start_node, stop_node, trace_make, until, weft)


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
def hints_of_a_trace_without_any_are_refused():
    trace = os.path.join(FOLDER, "unsaid.jsonl")
    weft("sim", "gen", "--workload", "chat", "--requests", "30", "--seed", "3", "--output", trace)
    for command in ["replay"], ["sim", "--capacity-blocks", "100"]:
        said = weft(*command, "--trace", trace, "--hints", "trace", expect=2).stderr.decode()
        check(re.search(r"--hints trace: no line of \S*unsaid.jsonl has a hint; leave it out", said), said)
    with open(trace, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    lines[20]["hint"] = "done"
    with open(trace, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    words = ["replay", "--trace", trace, "--hints", "trace", "--bytes-per-token", "8"]
    check(answer(*words)["wrong_bytes"] == 0)
    weft(*words, "--requests", "10", expect=2)


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
    figures = answer("bench", "restart", "--blocks", "20500", "--dir", below, WEFT_SOCKET="")
    golden("bench_restart", figures)
    check(figures["blocks"] == 20500, "not all that was asked for:", figures)
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


@case
def bench_hand_over_measures():
    figures = answer("bench", "hand-over", "--rounds", "1", "--blocks", "8", "--block-bytes", "128KiB",
                     "--layers", "4", "--layer-ms", "20", WEFT_SOCKET="")
    check(figures.pop("network") in ("veth, held down", "unix"))
    for key in "link_mbit", "chain_on_link_ms", "layer_on_link_ms":
        value = figures.pop(key)
        check(value is None or value > 0, key, value)
    for key in "push_ms", "hand_over_ms", "fetch_ms":
        check(figures.pop(key) > 0, key)
    check(figures.pop("lost") <= 3 * 2, "sent again more often than is tried")
    check(figures == {"blocks": 8, "block_bytes": 128 << 10, "layers": 4, "layer_ms": 20, "push_fails": 0,
                      "wrong_bytes": 0}, figures)
    check(not left_behind(), "left behind:", left_behind())
    check("evenly" in weft("bench", "hand-over", "--layers", "3", expect=2).stderr.decode())
    check("no effect on net, but on hand-over" in weft("bench", "net", "--mbit", "1", expect=2).stderr.decode())


@case
def bench_net_measures():
    done = weft("bench", "net", "--nodes", "2", "--rounds", "1", "--seconds", "1", "--json")
    figures, parts = json.loads(done.stdout), re.findall(r"^bench net: (TCP|UCX)", done.stderr.decode(), re.M)
    check(parts == ["TCP", "UCX", "UCX"], done.stderr)  # nobody waits for minutes and hears nothing
    check(figures.pop("network") in ("veth", "loopback"))
    check(figures.pop("block_bytes") == 1 << 20)
    for name in "ucx", "ucx_shm":
        missing, test = figures.pop(name + "_missing", None), figures.pop(name + "_perftest_test", None)
        check((missing is None) == (test in ("ucp_get", "tag_bw", "ucp_am_bw")), name, missing, test)
        like = figures.pop(name + "_perftest_like_test")
        check(like is None if missing else like.startswith("ucp_am_bw") and "SEG_SIZE=" in like, name, like)
        for key in ("get_gbps", "hot_gbps", "perftest_gbps", "perftest_get_gbps", "of_perftest",
                    "perftest_like_gbps", "of_perftest_like"):
            value = figures.pop(f"{name}_{key}")
            check(value is None if missing else value > 0, name, key, value)
    for key in "get_gbps", "put_gbps", "get_64k_us_p50", "get_64k_us_p99", "ping_us_p50":
        check(figures.pop(key) > 0, key)
    for key in "iperf_gbps", "get_of_iperf", "put_of_iperf":
        value = figures.pop(key)
        check(value is None or value > 0, key, value)
    check(not figures, "more than is documented:", figures)
    check("2 nodes" in weft("bench", "net", "--nodes", "3", expect=2).stderr.decode())
    check("--socket" in weft("bench", "net", "--socket", SOCKET, expect=2).stderr.decode())


@case
def bench_resp_measures():
    figures = answer("bench", "resp", "--rounds", "1", WEFT_SOCKET="")
    sizes, ways = ["64KiB", "1MiB", "16MiB"], ["one", "pipelined"]
    for who in "redis", "weft", "limit":
        for what in "set", "get":
            found = figures.pop(f"{who}_{what}_gbps")
            check(list(found) == sizes, who, what, found)
            check(all(value is None and who == "redis" or value > 0 for value in found.values()), who, what, found)
            if who != "limit":
                found = figures.pop(f"{who}_{what}_ops_per_s")
                check(list(found) == ways, who, what, found)
                check(all(value is None and who == "redis" or value > 0 for value in found.values()), who, what, found)
    check(not figures, "more than is documented:", figures)
    check("--socket" in weft("bench", "resp", "--socket", SOCKET, expect=2).stderr.decode())
    check(not left_behind(), "left behind:", left_behind())


@case
def replay_checks_every_byte():
    trace = trace_make("trace.jsonl", "--requests", "300")
    roomy = answer("replay", "--trace", trace, "--pool", "256MB", "--bytes-per-token", "8", "--clients", "1")
    golden("replay", roomy)
    common = ["replay", "--trace", trace, "--bytes-per-token", "8"]
    check(answer(*common, "--policy", "lru", WEFT_POOL_POLICY="weft")["policy"] == "lru", "--policy does not count")
    check("which lets blocks go by lru" in weft(*common, "--policy", "lru").stdout.decode())
    # What goes by ages says what full speed makes of them: the trace is hours long here.
    slow = os.path.join(FOLDER, "slow.jsonl")
    with open(slow, "w", encoding="utf-8") as file:
        for text in read(trace).splitlines():
            line = json.loads(text)
            file.write(json.dumps({**line, "timestamp": 1000 * line["timestamp"]}) + "\n")
    for words, told in ([], True), (["--policy", "lru"], False), (["--speed", "1000000x"], False):
        shown = weft("replay", "--trace", slow, "--pool", "16MB", "--bytes-per-token", "8", *words).stdout.decode()
        check(("saw another trace; --speed 60x" in shown) == told, words, shown)
    check("--pool is 50 bytes; give 1 MiB or more" in weft(*common, "--pool", "50", expect=2).stderr.decode())
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
    weft("replay", "--trace", trace_make("small.jsonl", "--requests", "9"), "--capacity-blocks", "0", expect=2)
    said = weft("replay", "--trace", trace_make("small.jsonl", "--requests", "9"), "--pool", "4KB",
                expect=2).stderr.decode()
    check("--pool is 4096 bytes" in said and said.count("\n") == 1, said)
    said = weft("replay", "--trace", trace_make("small.jsonl", "--requests", "9"), "--pool", "16MB", "--tier-size",
                "100", expect=2).stderr.decode()
    check("--tier-size is 100 B" in said and "2 MiB at the least" in said, said)
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
    end = time.time() + 10
    while not left_behind() and time.time() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    check(left_behind(), "no node of its own was started")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)
    check(run.returncode == 130, run.returncode)
    check(not left_behind(), "left behind:", left_behind())


def wait_opened(socket):
    end = time.time() + 60
    while time.time() < end and "opening" in weft("ls", "tiers", "--socket", socket).stdout.decode():
        time.sleep(0.05)


@case
def hosts_share_a_device():
    """Two nodes on one file, which emulates the device; one dies and the other takes over what it had."""
    device, secret = os.path.join(FOLDER, "device"), os.path.join(FOLDER, "secret")
    with open(secret, "w", encoding="ascii") as file:
        file.write("0123456789abcdef" * 4)
    os.chmod(secret, 0o600)
    config = os.path.join(FOLDER, "shared.yaml")
    with open(config, "w", encoding="ascii") as file:
        file.write(f"domains:\n  - {{name: default, secret_file: {secret}}}\n"
                   f"tiers:\n  - {{name: cxl0, kind: cxl, path: 'file-emulation:{device}', size: 32MB, shared: true, "
                   "host: 1, admit: always}\n")
    sockets = [os.path.join(FOLDER, f"host{number}.sock") for number in (1, 2)]
    nodes = []
    for number, socket in enumerate(sockets, 1):
        with open(config, encoding="ascii") as file:
            text = file.read().replace("host: 1,", f"host: {number},")
        with open(f"{config}{number}", "w", encoding="ascii") as file:
            file.write(text)
        state = os.path.join(FOLDER, f"state{number}")
        nodes.append(start_node("16MB", socket, WEFT_CONFIG=f"{config}{number}", WEFT_STATE_DIR=state))
        wait_opened(socket)
    one, two = (("--socket", socket) for socket in sockets)
    chain = ("--key", "shared", "--block-bytes", "65536")
    data = blob("shared", 4 * 65536)
    weft("put", *chain, data, *one)
    stop_node(nodes[0])
    nodes[0] = start_node("16MB", sockets[0], WEFT_CONFIG=f"{config}1", WEFT_STATE_DIR=os.path.join(FOLDER, "state1"))
    wait_opened(sockets[0])  # or the device would never hear of it
    nodes[0].kill()
    nodes[0].wait()
    back = os.path.join(FOLDER, "shared.back")
    until("host 2 has heard of it",
          lambda: answer("match", *chain, "--blocks", "4", *two, expect=None)["present"] == 4)
    weft("get", *chain, "--blocks", "4", "--verify", "--output", back, *two)
    check(read(back) == read(data), "other bytes")
    here, shown, end = r"^cxl0-hosts: host 1 has \d+ extents, \d+ MiB; here", "", time.time() + 60
    while time.time() < end and not re.search(here, shown, re.M):  # as it was when the tier last looked
        shown = weft("ls", "tiers", *two).stdout.decode()
        time.sleep(0.05)
    check(re.search(r"^cxl0-hosts +cxl +ok .* 4 .* yes ", shown, re.M), shown)
    check(re.search(here, shown, re.M), shown)
    check("cxl0-hosts: host 2 (this node) has " in shown, shown)
    said = weft("tier", "fence", "cxl0", "--host", "2", *two, expect=2).stderr.decode()
    check("is this node itself" in said, said)
    weft("tier", "fence", "nvme0", "--host", "1", *two, expect=1)
    weft("tier", "fence", "cxl0", *two, expect=2)
    golden("tier_fence", answer("tier", "fence", "cxl0", "--host", "1", "--force", *two))
    end = time.time() + 20
    while time.time() < end and "host 1 has 0 extents, 0 B; fenced" not in shown:
        shown = weft("ls", "tiers", *two).stdout.decode()
        time.sleep(0.1)
    check(re.search(r"^cxl0-hosts: host 1 has 0 extents, 0 B; fenced$", shown, re.M), shown)
    check(re.search(r"^cxl0 +cxl +ok .* 4 .* yes ", shown, re.M), shown)
    check("host 1 of tier cxl0 was declared dead" in weft("events", *two).stdout.decode())
    stop_node(nodes[1])
    os.unlink(device)


def children(pid):
    """The process numbers of what `pid` has started and not yet waited for."""
    return [int(word) for word in read(f"/proc/{pid}/task/{pid}/children").split()]


def runs(pid):
    """Whether there is such a process that is more than a status which nobody has read."""
    try:
        return read(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


@case
def what_a_kill_leaves_the_next_start_removes():
    trace = trace_make("killed.jsonl", "--requests", "400")
    run = subprocess.Popen([WEFT, "replay", "--trace", trace, "--pool", "64MB", "--speed", "realtime"],
                           env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.time() + 10
    while not left_behind() and time.time() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    started = children(run.pid)
    check(started, "it started no node")
    run.kill()
    run.communicate(timeout=20)
    end = time.time() + 60
    while any(runs(pid) for pid in started) and time.time() < end:
        time.sleep(0.05)  # its node ends by itself, and holds its lock until then
    check(not any(runs(pid) for pid in started), "the node of a command that was killed goes on")
    check(len(left_behind()) == 1 and str(run.pid) in left_behind()[0], left_behind())
    live = os.path.join(FOLDER, f"weft-{os.getpid()}-abcdef")
    os.mkdir(live)
    shown = weft("bench", "watch", "--records", "50").stdout.decode()
    check("a weftd of its own" in shown and "1 reader," in shown, shown)
    check(left_behind() == [os.path.basename(live)], "left behind:", left_behind())
    os.rmdir(live)


def replay_on_time(*words):
    """A replay that kept the trace's time; None on a machine that is too busy for that."""
    for _ in range(3):
        said = answer("replay", *words, "--details")
        check(said["wrong_bytes"] == 0, said)
        check(said["details"]["hint_failures"] == 0, said)
        if said["details"]["late_us_max"] < 300000:
            return said
    return None


@case
def a_node_hits_what_sim_says():
    """The same trace has the same hit rate on a node and in the simulator, in the same time."""
    trace = os.path.join(FOLDER, "parity.jsonl")
    weft("sim", "gen", "--workload", "chat", "--requests", "700", "--seed", "3", "--hints",
         "precision=0.9,recall=0.9", "--output", trace)
    common = ["--trace", trace, "--capacity-blocks"]
    for blocks in "300", "700":
        simulated = answer("sim", *common, blocks, "--policy", "lru_leaf")
        replayed = answer("replay", *common, blocks, "--policy", "lru", "--bytes-per-token", "8")
        check(simulated["blocks_hit"] == replayed["blocks_hit"], blocks, simulated, replayed)
        check(0 < simulated["hit_rate"] < 0.6, "there is nothing to be decided", simulated)
    # All of it in less than a second, so that no age crosses the border of a bucket: what a block is
    # worth does not hang on a millisecond more or less then.
    for blocks, more in ("500", []), ("500", ["--hints", "trace"]), ("700", ["--hints", "trace"]):
        timed = [*common, blocks, "--speed", "500x", "--policy", "weft", *more]
        replayed = replay_on_time(*timed, "--bytes-per-token", "8")
        if not replayed:
            return "the machine is too busy to keep a trace's time"
        simulated = answer("sim", *timed)
        check(abs(simulated["hit_rate"] - replayed["hit_rate"]) < 0.005, blocks, simulated, replayed)
        check(replayed["details"]["blocks_full"] > 0, "nothing was worth more than a long request", replayed)
    check(not left_behind(), "left behind:", left_behind())
