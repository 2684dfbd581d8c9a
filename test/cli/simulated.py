# SPDX-License-Identifier: Apache-2.0
"""weft sim: policies over a trace, without a node."""
import csv
import gzip
import json
import os
import re
import xml.etree.ElementTree as xml

from harness import FOLDER, answer, case, check, golden, no_room, read, trace_make, weft


def figures(runs):
    """All that the seed decides: everything but the speed."""
    return [{key: value for key, value in run.items() if key != "blocks_per_second"} for run in runs]


@case
def sim_says_what_a_policy_hits():
    trace = trace_make("sim.jsonl", "--requests", "1500")
    one = answer("sim", "--trace", trace, "--format", "mooncake", "--capacity-blocks", "600", "--policy", "lru",
                 "--hints", "precision=0.8,recall=0.8")
    golden("sim", one)
    check(abs(one["hit_rate"] - one["blocks_hit"] / one["blocks_requested"]) < 1e-6, one)
    check(one["ttft_ms_p50"] <= one["ttft_ms_p95"] <= one["ttft_ms_p99"], one)
    packed = os.path.join(FOLDER, "sim.jsonl.gz")
    with gzip.open(packed, "wb") as file:
        file.write(read(trace))
    common = ["--capacity-blocks", "600", "--policy", "lru", "--hints", "precision=0.8,recall=0.8"]
    check(figures([answer("sim", "--trace", packed, *common)]) == figures([one]), "gzip gives other figures")
    check(answer("sim", "--trace", trace, *common, "--requests", "100")["requests"] == 100, "--requests does nothing")
    for piped in trace, packed:
        done = weft("sim", "--trace", "-", *common, "--json", stdin=read(piped))
        check(figures([json.loads(done.stdout)]) == figures([one]), "stdin gives other figures")
    check("stdin: 1500 requests" in weft("sim", "--trace", "-", *common, stdin=read(trace)).stdout.decode())
    check("stdin has no request" in weft("sim", "--trace", "-", *common, stdin=b"", expect=2).stderr.decode())
    warm = answer("sim", "--trace", trace, *common, "--warmup", "0.5")
    check(warm["requests"] == 750 and warm["hit_rate"] != one["hit_rate"], warm)


@case
def sim_makes_a_cluster_of_nodes():
    trace = trace_make("sim.jsonl", "--requests", "1500")
    common = ["sim", "cluster", "--trace", trace, "--nodes", "4", "--capacity-blocks", "800"]
    one = answer(*common)
    check(one["simulated"] is True and one["nodes"] == 4, one)
    check(one["hit_rate_isolated"] < one["hit_rate_fabric"] <= one["hit_rate_one_big_node"] + 0.02, one)
    check(one["route_us_p50"] > 0 and one["copies_mean"] >= 1, one)
    check("one big node" in weft(*common).stdout.decode())
    for extra, why in (["--policy", "lru"], "no use for --policy"), (["--nodes", "0"], "--nodes is 0"), \
                      (["--link-gbps", "-1"], "--link-gbps is -1"), (["--nodes", "900"], "give 1 to 256"):
        check(why in weft(*common, *extra, expect=2).stderr.decode(), extra)
    why = weft("sim", "cluster", "--trace", trace, "--capacity-blocks", "1k,2k", expect=2).stderr.decode()
    check("cluster takes one" in why, why)
    why = weft("sim", "--trace", trace, "--nodes", "4", expect=2).stderr.decode()
    check("say weft sim cluster" in why, why)


@case
def sim_knows_formats_apart():
    trace = trace_make("sim.jsonl", "--requests", "200")
    short = os.path.join(FOLDER, "short.jsonl")
    with open(short, "w", encoding="utf-8") as file:
        for text in read(trace).splitlines():
            line = json.loads(text)
            file.write(json.dumps({**line, "timestamp": line["timestamp"] / 1e3,
                                   "input_length": 16 * len(line["hash_ids"])}) + "\n")
    common = ["--capacity-blocks", "200", "--policy", "lru"]
    long, found = (answer("sim", "--trace", name, *common) for name in (trace, short))
    check(found["blocks_hit"] == long["blocks_hit"], found)
    check(found["prefill_tokens_saved"] < long["prefill_tokens_saved"] / 20, found)
    check(figures([found]) == figures([answer("sim", "--trace", short, "--format", "qwen", *common)]), found)
    check("blocks of 16 tokens" in weft("sim", "--trace", short, *common).stdout.decode(), "not as qwen")
    for command in ["sim"], ["replay", "--pool", "16MB"]:
        for name, said, is_one in (trace, "qwen", "mooncake"), (short, "mooncake", "qwen"):
            why = weft(*command, "--trace", name, "--format", said, expect=2).stderr.decode()
            check(f"give --format {is_one}" in why, why)


@case
def sim_has_an_objective():
    trace = trace_make("sim.jsonl", "--requests", "1500")
    words = ["sim", "--trace", trace, "--capacity-blocks", "600", "--policy", "lru,weft"]
    plain = figures(answer(*words)["runs"])
    hits, ttft = (figures(answer(*words, "--objective", name)["runs"]) for name in ("hits", "ttft"))
    check(hits == plain, "hits are not what is kept for by default")
    check(ttft[0] == hits[0], "lru goes by costs")
    check(ttft[1] != hits[1], "weft does not go by costs")
    check(figures(answer(*words[:3], "--capacity-blocks", "1k", "--policy", "lru,weft")["runs"])
          == figures(answer(*words[:3], "--capacity-blocks", "1000", "--policy", "lru,weft")["runs"]), "1k is not 1000")
    for policies, told in ("lru,belady", True), ("lru,weft", False):
        for option in ["--objective", "ttft"], ["--hints", "precision=0.9,recall=0.9"]:
            said = weft(*words[:5], "--policy", policies, *option).stderr.decode()
            check((f"{option[0]} changed nothing" in said) == told, said)


@case
def sim_runs_all_policies_under_the_bound():
    trace = trace_make("sim.jsonl", "--requests", "1500")
    sheet, picture = os.path.join(FOLDER, "sim.csv"), os.path.join(FOLDER, "sim.svg")
    words = ["sim", "--trace", trace, "--capacity-blocks", "900,300", "--seed", "7"]
    runs = answer(*words, "--csv", sheet, "--svg", picture)["runs"]
    check(figures(runs) == figures(answer(*words)["runs"]), "another time, other figures")
    full = os.path.join(FOLDER, "sim.full")
    no_room(full, *words, "--svg", full)
    no_room(full, *words[:4], ",".join(map(str, range(300, 310))), "--csv", full)
    no_room(full, "sim", "gen", "--workload", "chat", "--requests", "300", "--output", full)
    check(sorted({run["capacity_blocks"] for run in runs}) == [300, 900], runs)
    names = [run["policy"] for run in runs[: len(runs) // 2]]
    check({"lru", "lru_leaf", "lfuda", "arc", "s3fifo", "sieve", "wtinylfu", "gdsf", "lhd", "belady"} <= set(names), names)
    about = weft("sim", "--help").stdout.decode()
    check(all(name in about for name in names), "--help does not name all of", names)
    for capacity in 300, 900:
        hits = {run["policy"]: run["blocks_hit"] for run in runs if run["capacity_blocks"] == capacity}
        check(max(hits.values()) == hits["belady"] > hits["lru"] > 0, hits)
    ends = {run["policy"]: run["gap_closed"] for run in runs}
    check(ends["belady"] == 1 and ends["lru"] == 0, ends)
    with open(sheet, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    check([int(row["blocks_hit"]) for row in rows] == [run["blocks_hit"] for run in runs], rows)
    drawn = xml.parse(picture).getroot()
    said = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    check(set(names) <= said and "sim.jsonl" in said, said)
    rates = [tuple(run["hit_rate"] for run in runs if run["policy"] == name) for name in names]
    lines = [path for path in drawn.iter("{http://www.w3.org/2000/svg}path") if path.get("stroke-linecap")]
    check(rates[names.index("lru")] == rates[names.index("lru_leaf")], "lru is not lru_leaf here")
    check(len(lines) == len(set(rates)) < len(names), "lines lie on lines:", len(lines), rates)
    # Which engines serve is no matter of hits; whether they can is one of times.
    for replicas, told in ("1", True), ("64", False):
        shown = weft(*words[:5], "--policy", "lru", "--replicas", replicas).stdout.decode()
        check(shown.count("overloaded, by lru: the queue grows") == 2 * told, shown)
    shown = weft(*words).stdout.decode()
    check(all(re.search(rf"^  {name} ", shown, re.M) for name in names), shown)
    check("300 blocks" in shown and "gap closed" in shown and "100.0 %" in shown, shown)


@case
def sim_makes_workloads():
    trace = os.path.join(FOLDER, "gen.jsonl")
    words = ["sim", "gen", "--workload", "agentic", "--requests", "2000", "--seed", "4", "--hints",
             "precision=0.9,recall=0.9"]
    weft(*words, "--output", trace)
    check(weft(*words).stdout == read(trace), "another time, another trace")
    lines = [json.loads(line) for line in read(trace).splitlines()]
    check(len(lines) == 2000 and {line.get("hint") for line in lines} == {"wanted", "done", None}, lines[:2])
    why = weft(*words).stderr.decode()
    check(re.search('too few turns are left that end for such a precision of "wanted": .* 99.* % of them', why), why)
    check("go on" not in why and not weft(*words[:-2]).stderr, why)
    check(weft(*words[:-1], "precision=0.5,recall=0.9").stdout != read(trace), "precision does nothing")
    common = ["--trace", trace, "--policy", "lru,weft", "--capacity-blocks", "300"]
    said = {run["policy"]: run for run in answer("sim", *common, "--hints", "trace")["runs"]}
    silent = {run["policy"]: run for run in answer("sim", *common)["runs"]}
    check(said["lru"]["blocks_hit"] == silent["lru"]["blocks_hit"], "lru heard a hint")
    check(said["weft"]["blocks_hit"] != silent["weft"]["blocks_hit"], "weft heard no hint")


@case
def sim_has_tiers():
    trace = trace_make("sim.jsonl", "--requests", "1500")
    sheet = os.path.join(FOLDER, "tiers.csv")
    words = ["sim", "--trace", trace, "--capacity-blocks", "300", "--policy", "lru,weft", "--model", "llama-3-8b"]
    below = ["--tier", "cxl:200", "--tier", "kind=nvme,name=flash,capacity-blocks=2000,dwpd=50"]
    flat = {run["policy"]: run for run in answer(*words)["runs"]}
    runs = answer(*words, *below, "--csv", sheet)["runs"]
    check(figures(runs) == figures(answer(*words, *below)["runs"]), "another time, other figures")
    for run in runs:
        said = run["below"]
        check([tier["name"] for tier in said["tiers"]] == ["cxl", "flash"], said)
        check(run["blocks_hit"] == said["pool_blocks_hit"] + sum(tier["blocks_hit"] for tier in said["tiers"]), run)
        check(run["blocks_hit"] > flat[run["policy"]]["blocks_hit"], run)
        check(run["ttft_ms_mean"] < flat[run["policy"]]["ttft_ms_mean"], run)
        check(set(run) - {"below"} == set(flat[run["policy"]]), "other keys without tiers")
        check("budget_a_day" in said["tiers"][1] and "budget_a_day" not in said["tiers"][0], said)
        check(sum(tier["blocks_written"] for tier in said["tiers"]) ==
              said["decided"]["admitted"] + said["decided"]["chain"], said)
    with open(sheet, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    check([int(row["flash_blocks_hit"]) for row in rows] ==
          [run["below"]["tiers"][1]["blocks_hit"] for run in runs], rows)
    shown = weft(*words, *below).stdout.decode()
    check("flash: " in shown and "left the pool: " in shown, shown)
    # Two ways to say one tier, and no budget of writes unless one is given.
    short = answer(*words, "--tier", "nvme:2000,read-us=500")["runs"]
    check(figures(short) == figures(answer(*words, "--tier", "kind=nvme,capacity-blocks=2000,read-us=500")["runs"]), short)
    check(all("budget_a_day" not in run["below"]["tiers"][0] for run in short), short)
    check("write budget" not in weft(*words, "--tier", "nvme:2000").stdout.decode(), "a budget of a node")
    tight = [*words, "--tier", "nvme:2000,dwpd=1"]
    said = re.findall(r"the write budget of nvme \(.* a day\) refused (\d+) blocks; dwpd=0 lifts it",
                      weft(*tight).stdout.decode())
    check(said == [str(run["below"]["decided"]["wear"]) for run in answer(*tight)["runs"]] and int(said[0]) > 0, said)


@case
def sim_gives_domains_their_part():
    trace, sheet = os.path.join(FOLDER, "tenants.jsonl"), os.path.join(FOLDER, "tenants.csv")
    gen = ["sim", "gen", "--workload", "chat", "--requests", "3000", "--hints", "precision=0.9,recall=0.9"]
    tenants = ["--tenant", "gold:0.3:2", "--tenant", "free:0.7"]
    weft(*gen, *tenants, "--output", trace)
    lines = [json.loads(line) for line in read(trace).splitlines()]
    part = sum(line["domain"] == "gold" for line in lines) / len(lines)
    check(0.2 < part < 0.4, "gold has", part)
    check({(line["domain"], line["priority"]) for line in lines} == {("gold", 2), ("free", 0)}, lines[:2])
    check(all(("returns_in" in line) == (line.get("hint") == "wanted") for line in lines), lines[:2])
    # Whose they are changes nothing else.
    mine = ("domain", "priority")
    plain = [json.loads(line) for line in weft(*gen).stdout.splitlines()]
    check(plain == [{key: line[key] for key in line if key not in mine} for line in lines], "another trace")
    both = answer("sim", "--trace", trace, "--capacity-blocks", "300", "--share", "gold:weight=2")["runs"]
    check([run["policy"] for run in both] == ["lru_leaf", "weft"], "--share with other policies", both)
    words = ["sim", "--trace", trace, "--policy", "weft", "--capacity-blocks", "300"]
    rates = []
    for shares in ([], ["--share", "gold:floor=50%,deadline-ms=500"],
                   ["--share", "gold:floor=100", "--share", "free:ceiling=30"]):
        run = answer(*words, *shares, "--csv", sheet)
        by = {domain["name"]: domain for domain in run["domains"]}
        check(sum(domain["blocks_hit"] for domain in by.values()) == run["blocks_hit"], run)
        check(sum(domain["requests"] for domain in by.values()) == 3000, run)
        rates.append(by["gold"]["hit_rate"])
        if shares:
            check(by["free"]["blocks_held_mean"] <= (30 if "free:ceiling=30" in shares else 300), by)
            check("blocks_given" in by["gold"], by)
    check(rates[0] < rates[1] and rates[0] < rates[2], "a floor is of no use:", rates)
    check("gold_hit_rate" in read(sheet).decode().splitlines()[0], "no column")
    check("domain gold: TTFT" in weft(*words, *shares).stdout.decode(), "no line of the domain")
    check("gives room" in weft(*words, *shares, "--explain", "5").stdout.decode(), "no word of shares")
    for bad, hint in ((["--share", "gold"], "DOMAIN:"), (["--share", "gold:floor=x"], "floor=x"),
                      (["--share", "silver:weight=1"], "'silver'"), (["--share", "gold:luck=1"], "luck=1"),
                      (["--share", "gold:weight=1", "--share", "gold:weight=2"], "twice"),
                      (["--policy", "arc", "--share", "gold:weight=1"], "arc knows no domains"),
                      (["--share", "gold:floor=60%", "--share", "free:floor=60%"], "add up to 360 blocks"),
                      (["--share", "gold:floor=200", "--share", "free:floor=101"], "the pool has 300")):
        check(hint in weft(*words, *bad, expect=2).stderr.decode(), bad)
    for bad, hint in ((["--tenant", "gold"], "NAME:PART"), (["--tenant", "a:1", "--tenant", "a:2"], "twice")):
        check(hint in weft(*gen, *bad, expect=2).stderr.decode(), bad)


@case
def sim_says_why():
    trace = trace_make("sim.jsonl", "--requests", "1500")
    words = ["sim", "--trace", trace, "--capacity-blocks", "300", "--policy", "weft", "--tier", "nvme:2000"]
    one = answer(*words, "--explain", "40")
    left = [event for event in one["events"] if event["event"] == "evicted"]
    check(len(left) == 1 and left[0]["eviction"] == 40 and left[0]["chance"] <= 1, one)
    check("left the pool, by weft" in left[0]["why"] or "left the pool, by l" in left[0]["why"], left)
    check(one["events"][1]["event"] in ("placed", "refused", "clean"), one)
    # All that happened to that block, and in that request, has it, too.
    place = "request:%d" % left[0]["request"]
    check(left[0] in answer(*words, "--explain", place)["events"], one)
    shown = weft(*words, "--explain", place).stdout.decode()
    check(f"block {left[0]['block']} (number {left[0]['position']} of its chain): left the pool" in shown, shown)
    check("wants it" in shown, shown)
    numbers = {}
    for request, line in enumerate(read(trace).splitlines(), 1):
        ids = json.loads(line)["hash_ids"]
        for i in range(len(ids)):
            numbers.setdefault(tuple(ids[:i + 1]), (len(numbers), request, i + 1))
    (request, place), = [where[1:] for where in numbers.values() if where[0] == left[0]["block"]]
    check(place == left[0]["position"], "another place", left)
    story = answer(*words, "--explain", f"request:{request}/{place}")["events"]
    check({event["block"] for event in story} == {left[0]["block"]} and left[0] in story, story)
    weft(*words, "--explain", "99999999", expect=1)
    # Which order it was, where the guard stood in; and nothing of a model that an order has not.
    flat, rules = words[:5], set()
    for number in range(500, 8000, 500):
        why = answer(*flat, "--policy", "weft", "--explain", str(number))["events"][0]["why"]
        rule = re.match("left the pool, by ([a-z_]+)", why).group(1)
        check(("for the guard of weft has it go by" in why) == (rule != "weft"), why)
        rules.add(rule)
        if len(rules) > 1:
            break
    check("weft" in rules and len(rules) > 1, "the guard never stood in:", rules)
    plain = answer(*flat, "--policy", "lru_leaf", "--explain", "500")["events"][0]
    check(plain["why"] == "left the pool, by lru_leaf" and "age_s" not in plain, plain)
    for bad, hint in (("0", "the Nth"), ("request:0", "the Nth"), ("request:2000", "1500 requests"),
                      ("request:1/999", "no 999"), ("3x", "the Nth")):
        check(hint in weft(*words, "--explain", bad, expect=2).stderr.decode(), bad)
    check("one run" in weft("sim", "--trace", trace, "--explain", "1", expect=2).stderr.decode(), "several runs")


@case
def sim_says_what_found_no_room():
    trace, sheet = os.path.join(FOLDER, "long.jsonl"), os.path.join(FOLDER, "long.csv")
    weft("sim", "gen", "--workload", "agentic", "--requests", "500", "--format", "qwen", "--output", trace)
    words = ["sim", "--trace", trace, "--capacity-blocks", "1500", "--csv", sheet, "--policy"]
    lru, one = answer(*words, "lru,weft")["runs"]
    check(lru["blocks_refused"] == 0 < one["blocks_refused"], lru, one)
    with open(sheet, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    check([int(row["blocks_refused"]) for row in rows] == [0, one["blocks_refused"]], rows)
    shown = weft(*words, "lru,weft").stdout.decode()
    check(f"{one['blocks_refused']} blocks found no room" in shown and "\n" + 13 * " " + " 0 blocks" not in shown, shown)
    lengths = [len(json.loads(line)["hash_ids"]) for line in read(trace).splitlines()]
    # One that a longer request than the pool has no room for, whatever goes; and one by worth.
    for bar in False, True:
        found = 0
        for request in sorted(range(len(lengths)), key=lambda at: -lengths[at])[:200]:
            done = weft(*words, "weft", "--explain", f"request:{request + 1}", "--json", expect=None)
            full = [event for event in json.loads(done.stdout)["events"] if event["event"] == "full"]
            found = next((event for event in full if ("bar" in event) == bar), None)
            if found:
                break
        check(found and found["request"] == request + 1 and 0 < found["blocks"] <= lengths[request], found)
        why = "is worth more than" if bar else "nothing that could go"
        check(why in found["why"] and f"its last {found['blocks']} block" in found["why"], found)
        last, first = (answer(*words, "weft", "--explain", f"request:{request + 1}/{place}")["events"]
                       for place in (lengths[request], lengths[request] - found["blocks"]))
        check(found in last and found not in first, found)


@case
def sim_says_what_is_wrong():
    trace = trace_make("sim-bad.jsonl", "--requests", "60", "--bad", "3")
    done = weft("sim", "--trace", trace, "--policy", "lru", "--capacity-blocks", "100", "--json")
    check(json.loads(done.stdout)["requests"] == 57, done.stdout)
    said = done.stderr.decode()
    check("3 malformed lines were skipped" in said and re.search(r"sim-bad\.jsonl:\d+: ", said), said)
    cut = os.path.join(FOLDER, "cut.gz")
    with open(cut, "wb") as file:
        file.write(gzip.compress(read(trace))[:200])
    empty = os.path.join(FOLDER, "empty.jsonl")
    with open(empty, "wb"):
        pass
    for words, code, hint in (
            ([], 2, "--trace"), (["--trace", "/nowhere"], 6, "/nowhere"), (["--trace", trace, "--strict"], 2, ".jsonl:"),
            (["--trace", cut], 6, "fetch it again"), (["--trace", empty], 2, "no request"),
            (["--trace", trace, "--policy", "lur"], 2, "did you mean 'lru'?"),
            (["--trace", trace, "--policy", "lru,lru"], 2, "twice"), (["--trace", trace, "--policy", ""], 2, "empty"),
            (["--trace", trace, "--policy", "clairvoyance"], 2, "--help"),
            (["--trace", trace, "--capacity-blocks", "many"], 2, "many"),
            (["--trace", trace, "--capacity-blocks", "0"], 2, "'0'"),
            (["--trace", trace, "--capacity-blocks", "5,5"], 2, "twice"),
            (["--trace", trace, "--hints", "precision=0.8"], 2, "both"),
            (["--trace", trace, "--hints", "precision=2,recall=1"], 2, "up to 1"),
            (["--trace", trace, "--hints", "luck=1"], 2, "luck=1"), (["--trace", trace, "--warmup", "1"], 2, "--warmup"),
            (["--trace", trace, "--speed", "fast"], 2, "60x"), (["--trace", trace, "--model", "gpt-0"], 2, "llama-3-8b"),
            (["--trace", trace, "--replicas", "0"], 2, "--replicas"),
            (["--trace", trace, "--objective", "luck"], 2, "ttft"),
            (["--trace", trace, "--tier", "nvm:5"], 2, "nvme"), (["--trace", trace, "--tier", "nvme:0"], 2, "'0'"),
            (["--trace", trace, "--tier", "nvme"], 2, "KIND:BLOCKS"),
            (["--trace", trace, "--tier", "kind=nvme"], 2, "too little"),
            (["--trace", trace, "--tier", "nvme:5", "--tier", "nvme:6"], 2, "twice"),
            (["--trace", trace, "--tier", "kind=nvme,capacity-blocks=5,read-gbps=-1"], 2, "read-gbps=-1"),
            (["--trace", trace, "--stage-blocks", "5"], 2, "--tier"),
            (["--trace", trace, "--svg", "/nowhere/a.svg"], 6, "/nowhere/a.svg"),
            (["gen"], 2, "--workload chat"), (["gen", "gen"], 2, "one word too many"),
            ([trace], 2, f"a trace is given with --trace {trace}"), (["nowhere.jsonl"], 2, "--trace nowhere.jsonl"),
            (["--trace", trace, "--capacity-blocks", "3kk"], 2, "'3kk'"),
            (["--trace", trace, "--capacity-blocks", "3k,3000"], 2, "3000 twice"),
            (["--trace", trace, "--capacity-blocks", "300M"], 2, "'300M'"),
            (["gne"], 2, "did you mean 'gen'?"), (["gen", "--workload", "caht"], 2, "did you mean 'chat'?"),
            (["gen", "--workload", "rag", "--requests", "0"], 2, "--requests"),
            (["gen", "--workload", "rag", "--output", "/nowhere/a"], 6, "/nowhere/a"),
            (["--trace", trace, "--policy", "lru", "--hints", "trace"], 2, "has a hint"),
            (["--trace", FOLDER], 6, "is a directory; name a file"),
            (["--trace", trace, "--requests", "0"], 2, "--requests is 0"),
            (["--trace", trace, "--workload", "rag"], 2, "--workload is for gen"),
            (["gen", "--workload", "rag", "--capacity-blocks", "30"], 2, "no use for --capacity-blocks"),
            (["gen", "--workload", "rag", "--strict"], 2, "no use for --strict"),
            (["--trace", trace, "--tier", "nvme:5,luck=1"], 2, "luck=1"),
            (["--trace", trace, "--tier", "nvme:5x,read-us=50"], 2, "'5x'")):
        said = weft("sim", *words, expect=code).stderr.decode()
        lines = [line for line in said.splitlines() if "malformed" not in line]
        check(len(lines) <= 1 and hint in said and said.startswith("weft sim: "), words, said)
