# SPDX-License-Identifier: Apache-2.0
"""What commands answer of nodes with tiers below DRAM."""
import json
import os
import re
import subprocess
import time

from harness import (FOLDER, WEFT, WEFTD, answer, blob, case, check, environment, golden, read, start_node, stop_node,
                     tier_paths, tiers_open, until, weft)


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
    done = subprocess.run([WEFTD, "--check-config", "--socket", os.path.join(FOLDER, "another.sock"), "--pool", "16MB", "--tier",
                           tier_paths("main")[0], "--tier", tier_paths("main")[1]], env=environment(WEFT_STATE_DIR=FOLDER),
                          capture_output=True, check=False)
    said = done.stderr.decode()
    check(done.returncode == 0 and re.search(r"main.nvme' is in use by a running node, pid \d+;", said), done)
    check("main.cxl' is in use by a running node;" in said, said)
    kept = {name: tiers[name]["reserve_bytes"] / tiers[name]["capacity_bytes"] for name in tiers}
    check(kept["dram0"] == 0 and 0.2 < kept["nvme0"] < 0.21, kept)
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
    check("and stayed on" in shown and "not used" not in shown, shown)
    down = next(block for block in below if not block["in_dram"])
    shown = weft("explain", down["key"], *at).stdout.decode()
    check(f"{down['key']} is there, below DRAM on {down['tiers'][0]}" in shown, shown)
    shown = weft("explain", *at).stdout.decode()
    check("a get brings it up" in shown and "enlarge the pool" not in shown, shown)
    shown = weft("events", "--what", "evict", *at).stdout.decode()
    check(" stays_on nvme0" in shown and re.search(r"  why lru_leaf \(candidates \d+\)$", shown, re.M), shown)


@case
def what_leaves_dram_is_below_and_comes_back():
    socket, size = os.path.join(FOLDER, "deep.sock"), ["--block-bytes", "1MB"]
    node = start_node("32MB", socket, tier_paths("deep"), WEFT_POOL_POLICY="lru")  # deep0 leaves first
    at = ["--socket", socket]
    try:
        for i in range(12):
            weft("put", "--key", f"deep{i}", *size, *at, blob(f"deep{i}", 8 << 20, seed=i))
        first = answer("match", "--key", "deep0", *size, "--blocks", "8", *at)
        check(first["present"] == 8, "what left DRAM is not below:", first)
        copy = os.path.join(FOLDER, "deep.copy")
        weft("get", "--key", "deep0", *size, "--blocks", "8", "--output", copy, "--verify", *at)
        check(read(copy) == read(os.path.join(FOLDER, "deep0")), "another chain came back")
        until, tiers, domain, told = time.time() + 20, None, None, None
        while tiers is None or (told != domain["below"]["copies"] and time.time() < until):  # some may be on their way
            domain = answer("status", *at)["domains"][0]
            tiers = {tier["name"]: tier for tier in answer("ls", "tiers", *at)["tiers"]}
            told = tiers["nvme0"]["blocks"] + tiers["cxl0"]["blocks"]
        below = domain["below"]
        check(below["left_dram"] >= 64 and below["promoted"] >= 8 and below["promoted_bytes"] >= 8 << 20, below)
        check(below["load_us_mean"] > 0, domain)
        check(domain["blocks_asked"] == below["blocks_matched"] == 0, "a look counts as a match:", domain)
        lower = [tiers["nvme0"], tiers["cxl0"]]
        check(sum(tier["blocks"] for tier in lower) == below["copies"] >= 64, tiers, below)
        check(sum(tier["read_bytes"] for tier in lower) >= 8 << 20, tiers)
        check(tiers["dram0"]["blocks"] == domain["blocks"], tiers, domain)
        shown = weft("status", *at).stdout.decode()
        check(re.search(r"below DRAM", shown), shown)
        where_it_is(at, first, size, lower)
        said = weft("put", "--key", "long", *size, *at, blob("long", 40 << 20), expect=4).stderr.decode()
        check("must fit in DRAM as a whole" in said and "--partial stores" in said, said)
        check(answer("match", "--key", "long", *size, *at, expect=1)["present"] == 0, "what was refused is there")
        said = weft("put", "--key", "long", *size, *at, "--partial", os.path.join(FOLDER, "long"), expect=1).stderr.decode()
        check("must fit in DRAM as a whole" in said and "40 MiB, and the DRAM pool has 32 MiB" in said, said)
    finally:
        stop_node(node)


@case
def a_tier_that_is_still_being_opened_is_waited_for():
    socket, size = os.path.join(FOLDER, "slow.sock"), ["--block-bytes", "64KB", "--socket", os.path.join(FOLDER, "slow.sock")]
    hold, tiers = os.path.join(FOLDER, "slow.hold"), tier_paths("slow")[:1]
    node = start_node("32MB", socket, tiers)
    key = answer("put", "--key", "slow", *size, blob("slow", 8 << 16))["last_key"]
    stop_node(node)
    with open(hold, "w", encoding="utf-8") as file:
        file.write("1500")  # what is read of the medium takes so many milliseconds
    node = start_node("32MB", socket, tiers, WEFT_NVME_HOLD=hold)
    try:
        found = answer("match", "--key", "slow", *size, "--blocks", "8", expect=1)
        check(found["present"] == 0 and found["opening"] == ["nvme0"], found)
        tier = answer("ls", "tiers", "--socket", socket)["tiers"][1]
        check(tier["state"] == "opening" and tier["reason"], tier)
        said = weft("match", "--key", "slow", *size, "--blocks", "8", expect=1).stdout.decode()
        check("tier nvme0 is still being opened" in said, said)
        copy = os.path.join(FOLDER, "slow.copy")
        getter = subprocess.Popen([WEFT, "get", "--key", "slow", *size, "--blocks", "8", "--output", copy],
                                  env=environment(), stderr=subprocess.PIPE)
        time.sleep(0.2)
        os.unlink(hold)
        done = weft("explain", key[:8], "--socket", socket)
        check(b"is there, " in done.stdout and b"nvme0" in done.stdout and b"waiting" in done.stderr, done)
        said = getter.communicate(timeout=30)[1]
        check(getter.returncode == 0 and b"tier nvme0 is still being opened" in said, said)
        check(read(copy) == read(os.path.join(FOLDER, "slow")), "other bytes came")
        check(answer("match", "--key", "slow", *size, "--blocks", "9", expect=1)["opening"] == [], "open by now")
    finally:
        stop_node(node)


@case
def a_tier_that_does_not_answer_is_named():
    socket, size = os.path.join(FOLDER, "away.sock"), ["--block-bytes", "64KB", "--socket", os.path.join(FOLDER, "away.sock")]
    hold, copy = os.path.join(FOLDER, "away.hold"), os.path.join(FOLDER, "away.copy")
    settings = os.path.join(FOLDER, "away.yaml")
    with open(settings, "w", encoding="utf-8") as file:
        file.write(f"tiers:\n  - {{name: nvme0, kind: nvme, path: {FOLDER}/away.nvme, size: 64MB, timeout: 300ms}}\n")
    node = start_node("8MB", socket, WEFT_CONFIG=settings, WEFT_NVME_HOLD=hold, WEFT_POOL_POLICY="lru")
    try:
        for i in range(3):
            weft("put", "--key", f"away{i}", *size, blob("away", 6 << 20, seed=i))
        with open(hold, "w", encoding="utf-8") as file:
            file.write("2000")
        done = weft("get", "--key", "away0", *size, "--blocks", "96", "--output", copy, expect=1)
        check(b"block 0 is on tier nvme0, which is stalled: " in done.stderr or
              b"block 0 could not be read from tier nvme0: timeout" in done.stderr, done.stderr)
        part = answer("get", "--key", "away0", *size, "--blocks", "96", "--output", copy, expect=1)["missing"]
        check(part["tier"] == "nvme0" and part["why"] in ("tier", "timeout"), part)
    finally:
        os.unlink(hold)
        stop_node(node)


def settled(socket):
    until = time.time() + 30
    while time.time() < until:
        if all(tier["state"] != "opening" for tier in answer("ls", "tiers", "--socket", socket)["tiers"]):
            return
        time.sleep(0.05)


@case
def a_tier_s_file_is_its_owner_s_alone():
    path, socket = os.path.join(FOLDER, "open.nvme"), os.path.join(FOLDER, "open.sock")
    for empty in (True, False):
        if empty:
            open(path, "w").close()
        os.chmod(path, 0o644)
        node = start_node("16MB", socket, [f"nvme:{path}:16MB"])
        settled(socket)
        row = answer("ls", "tiers", "--socket", socket)["tiers"][1]
        stop_node(node)
        said = node.stderr.read().decode()
        check(row["state"] == "ok", row)
        check(os.stat(path).st_mode & 0o777 == (0o600 if empty else 0o644), oct(os.stat(path).st_mode))
        check(("mode 0644" in said and "chmod 600" in said) == (not empty), said)


@case
def a_budget_of_writes_is_seen():
    socket = os.path.join(FOLDER, "budget.sock")
    path = os.path.join(FOLDER, "budget.nvme")
    node = start_node("16MB", socket, [f"nvme:{path}:16MB,dwpd=1"])
    try:
        settled(socket)
        pool, tier = answer("ls", "tiers", "--socket", socket)["tiers"]
        check(pool["write_budget_bytes"] is None and pool["write_budget_day_bytes"] is None, pool)
        check(8 << 20 < tier["write_budget_day_bytes"] <= 16 << 20, tier)
        check(0 <= tier["write_budget_bytes"] < 1 << 20, tier)
        size = ["--key", "owed", "--block-bytes", "1MB", "--socket", socket]
        weft("put", *size, blob("owed", 4 << 20))
        hinted = ["session", "hint", "talk", *size, "--blocks", "4"]
        weft(*hinted, "--state", "waiting", "--returns-in", "900", "--for", "0.2")
        tier = answer("ls", "tiers", "--socket", socket)["tiers"][1]
        check(tier["blocks"] == 0 and tier["write_budget_bytes"] >= 0, "a hint passed the budget", tier)
        check(answer("demote", *size, "--blocks", "4")["demoted"] == 4)
        tier = answer("ls", "tiers", "--socket", socket)["tiers"][1]
        check(tier["blocks"] == 4 and tier["write_budget_bytes"] < -(3 << 20), tier)
        for stop in (lambda: (node.kill(), node.wait()), lambda: stop_node(node)):
            stop()
            node = start_node("16MB", socket, [f"nvme:{path}:16MB,dwpd=1"])
            settled(socket)
            tier = answer("ls", "tiers", "--socket", socket)["tiers"][1]
            check(-(24 << 20) < tier["write_budget_bytes"] < -(3 << 20), "a start pays no debts", tier)
    finally:
        stop_node(node)


@case
def a_chain_is_moved_and_a_session_waits_by_hand():
    socket, size = os.path.join(FOLDER, "hand.sock"), ["--block-bytes", "64KB", "--socket", os.path.join(FOLDER, "hand.sock")]
    key = ["--key", "hand", *size, "--blocks", "40"]
    node = start_node("32MB", socket, tier_paths("hand")[:1])
    try:
        weft("put", "--key", "hand", *size, blob("hand", 40 << 16))
        weft("demote", *key[:-1], "0", expect=2)
        golden("demote", answer("demote", *key))
        check("0 blocks left DRAM; of 40 that are there, 0 are in DRAM" in weft("demote", *key).stdout.decode())
        check(answer("demote", *key[:-1], "41", expect=1)["present"] == 40)
        shown = weft("demote", *key[:-1], "41", expect=1).stdout.decode()
        check("of 40 that are there, 0 are in DRAM, 1 of 41 is not there" in shown, shown)
        weft("demote", *key, "--wait", "-1", expect=2)
        weft("demote", *key, "--wait", "3601", expect=2)
        golden("prefetch", answer("prefetch", *key, "--by", "30000"))
        shown = weft("prefetch", *key[:-1], "41", expect=1).stdout.decode()
        check("40 of 41 blocks are in DRAM, 1 is not there" in shown, shown)
        weft("prefetch", *key, "--by", "3600001", expect=2)
        holder = subprocess.Popen([WEFT, "session", "hint", "talk", *key, "--state", "decoding", "--json"],
                                  env=environment(), stdout=subprocess.PIPE)
        golden("session_hint", json.loads(holder.stdout.readline()))
        asked = [row["blocks_asked"] for row in answer("status", "--socket", socket)["domains"]]
        for blocks in ("40", "30"):
            held = weft("demote", *key[:-1], blocks, "--wait", "3000", "--json", expect=1, timeout=60)
            done = json.loads(held.stdout)
            check(done["in_dram"] == int(blocks), "a chain that is decoded left DRAM:", done)
            check([(by["name"], by["state"], by["pid"], by["blocks"]) for by in done["held_by"]]
                  == [("talk", "decoding", holder.pid, int(blocks))], done)
            check(f"'talk', of process {holder.pid} is decoding and holds {blocks} blocks" in held.stderr.decode(), held.stderr)
        check([row["blocks_asked"] for row in answer("status", "--socket", socket)["domains"]] == asked,
              "looks are counted", asked)
        row = answer("ls", "sessions", "--socket", socket)["sessions"][0]
        check((row["name"], row["state"], row["blocks"], row["in_dram"]) == ("talk", "decoding", 40, 40), row)
        holder.kill()
        holder.wait()
        until = time.time() + 20
        while answer("ls", "sessions", "--socket", socket)["sessions"] and time.time() < until:
            time.sleep(0.05)
        check(answer("demote", *key)["in_dram"] == 0)
        shown = weft("session", "hint", "talk", *key, "--state", "waiting", "--returns-in", "9", "--for", "0.1").stdout.decode()
        check(re.search(r"session \d+, 'talk', is waiting on 40 blocks, back in 9 s$", shown, re.M), shown)
        weft("session", "hint", "talk", "--socket", socket, expect=2)
        weft("session", "hint", "talk", *key, "--returns-in", "-1", expect=2)
        weft("session", "hint", "talk", *key[:-1], "41", expect=1)
    finally:
        stop_node(node)


@case
def a_chain_larger_than_its_tier_loses_nothing():
    socket, tier = os.path.join(FOLDER, "larger.sock"), os.path.join(FOLDER, "larger.nvme")
    node = start_node("128MB", socket, [f"nvme:{tier}:64MB"])
    chain = ("--key", "larger", "--block-bytes", "1MiB")
    at = ("--socket", socket)
    try:
        tiers_open(socket)
        weft("put", *chain, blob("larger", 90 << 20), *at)
        for _ in range(2):
            done = weft("demote", *chain, "--blocks", "90", "--wait", "1", *at, expect=1)
            check("has room for more of it" in done.stderr.decode(), done)
            there = answer("match", *chain, "--blocks", "90", *at)
            check(there["present"] == 90 and there["tiers"]["nvme"] >= 8, there)
        check(not answer("events", "--what", "let_go", *at)["events"], "its end was let go")
    finally:
        stop_node(node)
        os.unlink(tier)


@case
def a_chain_larger_than_its_tier_goes_down_two():
    """Its own blocks move further down for it: all of it leaves DRAM, and none of it is lost."""
    socket, tiers = os.path.join(FOLDER, "two.sock"), [os.path.join(FOLDER, name) for name in ("two.first", "two.second")]
    node = start_node("128MB", socket, [f"nvme:{tiers[0]}:64MB", f"nvme:{tiers[1]}:256MB"])
    chain = ("--key", "two", "--block-bytes", "1MiB", "--blocks", "90", "--socket", socket)
    whole, back = blob("two", 90 << 20), os.path.join(FOLDER, "two.back")
    try:
        tiers_open(socket)
        weft("put", *chain[:4], whole, *chain[6:])
        done = answer("demote", *chain, "--wait", "30", timeout=60)
        check((done["present"], done["in_dram"]) == (90, 0), done)
        let_go = [event for event in answer("events", "--what", "let_go", "--socket", socket)["events"]
                  if event["reason"] != "spare"]  # that is one copy of two
        check(not let_go, "some of it was let go", let_go)
        weft("get", *chain, "--output", back, timeout=60)
        check(read(back) == read(whole), "other bytes came back")
    finally:
        stop_node(node)
        for tier in tiers:
            os.unlink(tier)


@case
def a_prefetch_waits_for_room_that_is_made():
    """What is cold and on no tier yet is written below for it, within the time that was given."""
    socket = os.path.join(FOLDER, "rest.sock")
    of = ["--block-bytes", "256KiB", "--socket", socket]
    node = start_node("32MB", socket, tier_paths("rest")[:1])
    try:
        small = ["--block-bytes", "16KiB", "--socket", socket]
        weft("put", "--key", "small", *small, blob("rest-small", 1500 << 14, seed=4))
        weft("demote", "--key", "small", "--blocks", "1500", *small)
        weft("put", "--key", "smaller", *small, blob("rest-smaller", 1300 << 14, seed=5))
        whole = answer("prefetch", "--key", "small", "--blocks", "1500", "--by", "60000", *small)
        check(whole["coming"] == whole["in_dram"] == 1500, "its rest is in two batches", whole)
        for key in "small", "smaller":
            weft("rm", "--key", key, *small)
        weft("put", "--key", "A", *of, blob("rest-a", 96 << 18))
        weft("demote", "--key", "A", "--blocks", "96", *of)
        weft("put", "--key", "B", *of, blob("rest-b", 64 << 18, seed=2))
        first = answer("prefetch", "--key", "A", "--blocks", "96", "--by", "60000", *of)
        check((first["in_dram"], first["late"], first["no_room"]) == (96, 0, 0), first)
        there = answer("match", "--key", "B", "--blocks", "64", *of)
        check(there["present"] == 64, "what made room is below", there)
        held = subprocess.Popen([WEFT, "session", "hint", "user", "--key", "A", "--blocks", "96", *of, "--state", "decoding",
                                 "--json"], env=environment(), stdout=subprocess.PIPE)
        held.stdout.readline()
        weft("put", "--key", "C", *of, blob("rest-c", 32 << 18, seed=3))
        more = subprocess.Popen([WEFT, "session", "hint", "other", "--key", "C", "--blocks", "32", *of, "--state", "decoding",
                                 "--json"], env=environment(), stdout=subprocess.PIPE)
        more.stdout.readline()
        began = time.time()
        none = answer("prefetch", "--key", "B", "--blocks", "64", "--by", "100000", *of, expect=1)
        check(none["no_room"] > 0 and none["late"] == 0 and time.time() - began < 90, none)
        check(none["no_room"] + none["in_dram"] == 64, none)
        said = weft("prefetch", "--key", "B", "--blocks", "64", *of, expect=1).stdout.decode()
        check(f"no room for {none['no_room']}: what would have to go is in use" in said, said)
        for holder in held, more:
            holder.kill()
            holder.wait()
    finally:
        stop_node(node)


@case
def memory_below_the_pool_is_a_tier_that_forgets():
    socket, size = os.path.join(FOLDER, "memory.sock"), ["--block-bytes", "1MB"]
    node = start_node("32MB", socket, ("dram:96MB",))
    at = ["--socket", socket]
    try:
        for i in range(8):
            weft("put", "--key", f"memory{i}", *size, *at, blob(f"memory{i}", 8 << 20, seed=i))
        for i in range(8):
            copy = os.path.join(FOLDER, "memory.copy")
            weft("get", "--key", f"memory{i}", *size, "--blocks", "8", "--output", copy, "--verify", *at)
            check(read(copy) == read(os.path.join(FOLDER, f"memory{i}")), "another chain came back")
        tier = next(tier for tier in answer("ls", "tiers", *at)["tiers"] if tier["name"] == "dram1")
        check((tier["kind"], tier["durable"], tier["emulated"]) == ("dram", False, False), tier)
        check(tier["capacity_bytes"] == 96 << 20 and tier["read_bytes"] >= 32 << 20 and tier["errors"] == 0, tier)
        said = weft("session", "archive", "a", "--key", "memory0", *size, "--blocks", "8", *at, expect=2)
        check("no tier that may hold archives" in said.stderr.decode(), said.stderr)
        check("dram1" in weft("doctor", *at).stdout.decode())
    finally:
        stop_node(node)
    said = node.stderr.read().decode()
    check("flush" not in said, said)


@case
def of_what_a_tier_lets_go_of_no_age_is_told():
    socket, size = os.path.join(FOLDER, "cold.sock"), ["--block-bytes", "1MB"]
    node = start_node("16MB", socket, ("dram:16MB",), WEFT_POOL_POLICY="lru")
    at = ["--socket", socket]
    try:
        for i in range(8):
            weft("put", "--key", f"cold{i}", *size, *at, blob("cold", 8 << 20, seed=i))
        until, reasons = time.time() + 20, {}
        while "cold" not in reasons and time.time() < until:
            reasons = {each["reason"]: each for each in answer("explain", *at)["reasons"]}
        check("cold" in reasons and reasons["cold"]["age_ms_p50"] is None, reasons)
        check(reasons["below"]["age_ms_p50"] is not None, reasons)
        told = weft("explain", *at).stdout.decode().splitlines()
        after = {line.split(": ")[1].split(",")[0]: told[i + 1] for i, line in enumerate(told) if line[0] != " "}
        check("unused for" not in after["cold"] and "unused for" in after["below"], told)
    finally:
        stop_node(node)


@case
def a_block_that_no_tier_takes_is_not_tried():
    socket, size = os.path.join(FOLDER, "large.sock"), ["--block-bytes", "1MB"]
    node = start_node("16MB", socket, (f"nvme:{os.path.join(FOLDER, 'large')}.nvme:3MB",))
    at = ["--socket", socket]
    try:
        for i in range(4):
            weft("put", "--key", f"large{i}", *size, *at, blob(f"large{i}", 8 << 20, seed=i))
        gone = next(event for event in answer("events", "--what", "evict", *at)["events"])
        said = weft("explain", gone["key"], *at).stdout.decode()
        check("larger than any tier takes" in said, said)
        why = gone["why"]  # of blocks that were all put just now, and never wanted again
        check(why["rule"] == "weft" and why["hint"] is None and 0 <= why["chance"] <= 1, why)
        check(why["turn"] == 1 and 0 <= why["age_s"] < 60 and 1 <= why["candidates"] <= 4, why)
        check(re.search(r"the least valuable of \d ends? of chains: .* no hint", said) and "(turn 1)" in said, said)
        shown = weft("events", "--what", "evict", *at).stdout.decode()
        check(re.search(r"  why weft \(value \S+, chance \S+, age_s \S+, turn 1, candidates \d\)$", shown, re.M), shown)
        tier = next(tier for tier in answer("ls", "tiers", *at)["tiers"] if tier["name"] == "nvme0")
        check(tier["errors"] == 0 and tier["blocks"] == 0 and tier["state"] == "ok", tier)
        said = weft("session", "archive", "a", "--key", "large3", *size, "--blocks", "8", *at, expect=2).stderr.decode()
        check("larger than tier nvme0 takes" in said, said)
    finally:
        stop_node(node)
    said = node.stderr.read().decode()
    check("does not fit a segment" not in said, said)


@case
def what_a_tier_refuses_is_told_with_its_figures():
    socket, size = os.path.join(FOLDER, "worn.sock"), ["--block-bytes", "1MB"]
    node = start_node("16MB", socket, (f"nvme:{os.path.join(FOLDER, 'worn')}.nvme:256MB,dwpd=0.001",))
    at = ["--socket", socket]
    try:
        for i in range(4):
            weft("put", "--key", f"worn{i}", *size, *at, blob(f"worn{i}", 8 << 20, seed=i))
        gone = next(event for event in answer("events", "--what", "evict", *at)["events"])
        check(gone["not_below"] == "wear", gone)
        figures = gone["refusal"]
        check(figures["rule"] == "wear" and figures["wear_s"] is None, figures)
        check(0 < figures["chance"] <= 1 and figures["rate"] > 0 and figures["saved_s"] > 0, figures)
        check(0 < figures["hits"] <= figures["chance"], figures)
        said = weft("explain", gone["key"], *at).stdout.decode()
        check(re.search(r"not written below: the device may be written no more for now \(dwpd\).*: \d+ % chance of "
                        r"another use, \S+ hits expected .*, more writes than are left", said), said)
        shown = weft("events", "--what", "evict", *at).stdout.decode()
        check(re.search(r"  refusal wear \(chance \S+, rate", shown), shown)
        reasons = {each["reason"]: each for each in answer("explain", *at)["reasons"]}
        check("data sheet" in reasons["wear"]["mend"], reasons)
        tier = next(tier for tier in answer("ls", "tiers", *at)["tiers"] if tier["name"] == "nvme0")
        check(tier["blocks"] == 0, tier)
    finally:
        stop_node(node)
    said = node.stderr.read().decode()
    check(said.count("no such block is written there; raise dwpd") == 1, said)


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
        shown = weft("session", "ls", *at).stdout.decode()
        check(re.search(r"\btalk\b.* \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \d+ s ago ", shown), shown)
        check("created_ms" not in shown, shown)
        check("archive" in weft("rm", "--key", "talk", *size, *at, expect=4).stderr.decode())
        weft("session", "archive", "nobody", *at, expect=1)
        said = weft("session", "export", "nobody", "--output", file, *at, expect=1).stderr.decode()
        check("there is no archive 'nobody' in this domain" in said, said)
        check(not os.path.exists(file), "an export that failed left a file")
        pipe = os.path.join(FOLDER, "pipe")
        os.mkfifo(pipe)
        for none in ("-", pipe):
            said = weft("session", "export", "talk", "--output", none, *at, expect=2).stderr.decode()
            check("is no file" in said, said)
        check(not os.path.exists("-") and not os.path.isfile(pipe), "what is no file was replaced")
        golden("session_export", answer("session", "export", "talk", "--output", file, *at))
    finally:
        stop_node(node)
    node = start_node("32MB", at[1], tier_paths("here")[:1])  # it is there again
    try:
        again = os.path.join(FOLDER, "again.weft")
        until = time.time() + 10
        while answer("match", "--key", "talk", *size, "--blocks", "20", *at, expect=None)["opening"] and time.time() < until:
            time.sleep(0.05)
        check("20 blocks" in weft("session", "export", "talk", "--output", again, *at).stdout.decode())
        check(read(again) == read(file), "two exports of one archive differ")
        golden("session_rm", answer("session", "rm", "talk", *at))
        said = answer("events", "--what", "archive_removed", *at)["events"]
        check(len(said) == 1 and "archive talk is none any more: its 20 blocks, 1.2 MiB, are" in said[0]["text"] and
              "tier nvme0" in said[0]["text"], said)
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
        check("0 put now, 20 here before" in said, said)
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
def an_archive_says_where_its_blocks_are():
    """Blocks that are durable on one tier stay there, and the manifest goes to another."""
    size, chain = ["--block-bytes", "64KB"], blob("apart", 4 << 16, seed=10)
    at = ["--socket", os.path.join(FOLDER, "apart.sock")]
    tiers = [f"nvme:{FOLDER}/apart0:64MB,admit=never", f"nvme:{FOLDER}/apart1:64MB,admit=always"]
    node = start_node("32MB", at[1], tiers)
    try:
        weft("put", "--key", "apart", *size, *at, chain)
    finally:
        stop_node(node)  # which writes them to the one tier that takes them
    node = start_node("32MB", at[1], tiers)
    try:
        until, below, opening = time.time() + 20, [], []
        while (len(below) < 4 or opening) and time.time() < until:
            below = answer("ls", "blocks", "--tier", "nvme1", *at)["below"]
            opening = answer("session", "ls", *at)["opening"]
        chained = ["--key", "apart", *size, "--blocks", "4", *at]
        said = answer("session", "archive", "a", *chained)
        # The manifest is where it is nearest as measured, which a busy machine may take for the other.
        apart = said["tier"] == "nvme0"
        names = ["nvme0", "nvme1"] if apart else ["nvme1"]
        check((said["tiers"], said["written"]) == (names, 0), said)
        row = answer("session", "ls", *at)["archives"][0]
        check((row["tier"], row["tiers"]) == (said["tier"], names), row)
        check(f" {', '.join(names)} " in weft("session", "ls", *at).stdout.decode(), row)
        story = weft("events", *at).stdout.decode()
        check(f"archive a: 4 blocks, {row['bytes'] >> 10} KiB, are durable on {', '.join(names)}" in story, story)
        shown = weft("session", "archive", "a", *chained).stdout.decode()
        check(re.search(r"durable on (nvme0, )?nvme1; 0 written now", shown), shown)
        shown = weft("explain", below[0]["key"], *at).stdout.decode()
        check("below DRAM on nvme1, archived" in shown, shown)
    finally:
        stop_node(node)


@case
def a_failed_tier_is_no_empty_one():
    """Made with more than the configuration has now, so it is not opened; its archive is still there."""
    size, chain = ["--block-bytes", "64KB"], blob("lost", 10 << 16, seed=11)
    at, path = ["--socket", os.path.join(FOLDER, "failed.sock")], os.path.join(FOLDER, "failed.nvme")
    key = ["--key", "lost", *size, "--blocks", "10"]
    node = start_node("32MB", at[1], [f"nvme:{path}:64MB"])
    try:
        stored = answer("put", *key[:2], *size, *at, chain)
        said = weft("session", "archive", "a", *key[:-1], "40", *at, expect=1).stderr.decode()
        check("10 of 40 blocks are there; put the others first, or say --blocks 10" in said, said)
        weft("session", "archive", "a", *key, *at)
        check(answer("session", "ls", *at)["failed_tiers"] == [], "a tier failed")
    finally:
        stop_node(node)
    node = start_node("32MB", at[1], [f"nvme:{path}:32MB"])
    note = "tier nvme0 is failed: "
    text = blob("text.nvme", 100)
    for tier, why in ((f"nvme:{path}:32MB", "cannot shrink"), (f"nvme:{text}:32MB", "holds something else"),
                      (f"cxl:file-emulation:{text}:32MB", "holds something else"), (f"nvme:{path}:64MB", None),
                      (f"nvme:{path}.new:64MB", None)):
        done = subprocess.run([WEFTD, "--socket", at[1] + "2", "--check-config", "--pool", "32MB", "--tier", tier],
                              env=environment(WEFT_STATE_DIR=FOLDER), capture_output=True, check=False)
        check(done.returncode == 0 and (b"with a tier that is failed" in done.stdout) == (why is not None), tier, done)
        check((why or "").encode() in done.stderr and (b"cannot be opened" in done.stderr) == (why is not None), tier, done)
    try:
        until = time.time() + 20
        while not answer("match", *key, *at, expect=1)["failed_tiers"] and time.time() < until:
            time.sleep(0.05)
        for words in (["session", "ls"], ["get", *key, "--output", os.path.join(FOLDER, "never")],
                      ["session", "export", "a", "--output", os.path.join(FOLDER, "never")], ["session", "rm", "a"],
                      ["session", "archive", "b", *key], ["match", *key],
                      ["explain", stored["first_key"]], ["explain"], ["ls", "blocks", "--below"],
                      ["ls", "blocks", "--tier", "nvme0"]):
            done = weft(*words, *at, expect=1)
            said = done.stderr.decode()
            check(note in said and "cannot shrink" in said and "what it holds is not known" in said, words, said)
            check(b"never stored" not in done.stdout and "no such block of 65536 bytes;" not in said, words, done)
        said = weft("rm", *key[:2], *size, *at, expect=4).stderr.decode()
        check("may be part of an archive" in said, said)
        for words in (["session", "ls"], ["match", *key], ["explain", stored["first_key"]], ["explain"]):
            failed = answer(*words, *at, expect=1)["failed_tiers"]
            check([row["tier"] for row in failed] == ["nvme0"] and "cannot shrink" in failed[0]["reason"], words, failed)
        shown = weft("events", "--what", "tier_failed", *at).stdout.decode().strip()
        check(shown.endswith((" …", "path")), shown)
        weft("ls", "blocks", *at)
        said = weft("ls", "blocks", "--tier", "nvme7", *at, expect=1).stderr.decode()
        check("there is no tier 'nvme7'" in said and "tier=" not in said and "no answer" not in said, said)
    finally:
        stop_node(node)
    node = start_node("32MB", at[1], [f"nvme:{path}:64MB"])  # nothing was lost
    try:
        until = time.time() + 20
        while answer("match", *key, *at, expect=None)["opening"] and time.time() < until:
            time.sleep(0.05)
        check([row["name"] for row in answer("session", "ls", *at)["archives"]] == ["a"])
    finally:
        stop_node(node)


@case
def blocks_of_another_secret_are_named_as_what_fills_a_tier():
    at, size = ["--socket", os.path.join(FOLDER, "foreign.sock")], ["--block-bytes", "1MB"]
    tier, other = f"nvme:{os.path.join(FOLDER, 'foreign.nvme')}:64MB", os.path.join(FOLDER, "foreign.state")
    node = start_node("16MB", at[1], [tier])
    try:
        for i in range(5):
            key = ["--key", f"foreign{i}", *size, *at]
            weft("put", *key, blob("foreign", 8 << 20, seed=i))
            weft("demote", *key, "--blocks", "8")
    finally:
        stop_node(node)
    node = start_node("16MB", at[1], [tier], WEFT_STATE_DIR=other)
    try:
        until, row = time.time() + 20, {}
        while row.get("state") != "ok" and time.time() < until:
            row = answer("ls", "tiers", *at)["tiers"][1]
        check(row["left_alone"] == 40 and row["foreign_bytes"] >= 40 << 20, row)
        key = ["--key", "mine", *size, *at]
        weft("put", *key, blob("mine", 14 << 20, seed=7))
        said = weft("session", "archive", "a", *key, "--blocks", "14", expect=4).stderr.decode()
        check("40 MiB of blocks there belong to domains that this node does not have" in said and
              "the archive needs " in said, said)
    finally:
        stop_node(node)


@case
def a_damaged_archive_is_named():
    size, data = ["--block-bytes", "64KB"], blob("hurt", 10 << 16, seed=12)
    at, path = ["--socket", os.path.join(FOLDER, "hurt.sock")], os.path.join(FOLDER, "hurt.nvme")
    node = start_node("32MB", at[1], [f"nvme:{path}:64MB"])
    try:
        weft("put", "--key", "hurt", *size, *at, data)
        weft("session", "archive", "hurt", "--key", "hurt", *size, "--blocks", "10", *at)
    finally:
        stop_node(node)
    block = read(data)[7 << 16:8 << 16]
    with open(path, "r+b") as file:
        place = file.read().find(block)
        check(place > 0, "the block is not where it was written")
        file.seek(place + 1000)
        file.write(b"damage")
    node = start_node("32MB", at[1], [f"nvme:{path}:64MB"])
    try:
        until = time.time() + 20
        while answer("match", "--key", "hurt", *size, *at, expect=None)["opening"] and time.time() < until:
            time.sleep(0.05)
        said = weft("session", "export", "hurt", "--output", os.path.join(FOLDER, "never"), *at, expect=5).stderr.decode()
        check("archive 'hurt' is damaged" in said, said)
        check("block 7 of 10" in said or "not all of its blocks" in said, said)
    finally:
        stop_node(node)


@case
def a_stop_without_room_for_all_keeps_beginnings():
    """What is written ahead of need are ends of chains, and a stop that went on with that lost what it wrote itself."""
    socket, tiers = os.path.join(FOLDER, "stop.sock"), ["nvme:" + os.path.join(FOLDER, "stop.nvme") + ":16MB"]
    at, chain = ["--socket", socket], ["--key", "long", "--block-bytes", "256KiB"]
    node = start_node("32MB", socket, tiers)
    tiers_open(socket)
    weft("put", *chain, blob("stop.blocks", 30 << 20), *at)
    until("some are written ahead", lambda: answer("ls", "tiers", *at)["tiers"][1]["blocks"] > 0)
    stop_node(node)
    node = start_node("32MB", socket, tiers)
    tiers_open(socket)
    there = answer("match", *chain, "--blocks", "120", *at, expect=None)["present"]
    check(there >= 16, "of a chain of 120 blocks are found again:", there)
    stop_node(node)
