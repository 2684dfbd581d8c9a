# SPDX-License-Identifier: Apache-2.0
"""What commands answer of one node: blocks, lists, regions, events."""
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import time

from harness import FOLDER, WEFT, answer, blob, case, check, environment, golden, no_room, read, start_node, \
    stop_node, weft


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
    shutil.copy(blob("before", 1000, seed=3), copy)
    before = read(copy)
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)) # which this process ignores the signal of
    full = subprocess.run([WEFT, "get", "--key", "kept", "--block-bytes", "50000", "--output", copy], capture_output=True,
                          env=environment(), preexec_fn=small, restore_signals=False)
    check(full.returncode == 6 and b"File too large" in full.stderr and read(copy) == before, full)
    check(not [name for name in os.listdir(FOLDER) if name.startswith("kept.copy.")], "left behind")


@case
def a_request_runs_on_the_only_node():
    path, size = blob("routed", 6 * 4096), ["--key", "routed", "--block-bytes", "4096", "--blocks", "8"]
    weft("put", "--key", "routed", "--block-bytes", "4096", path)
    said = answer("route", *size)
    golden("route", said)
    check((said["action"], said["load_blocks"], said["held_blocks"]) == ("local", 6, 6), said)
    name = said["node"]
    # What it is said to have before it is waited for; a request that is sent waits for nobody, and is waited for.
    busy = answer("route", *size, "--candidate", f"{name}=90000:3:9000")
    check(busy["queue_ms"] > 9000, busy)
    queued = [answer("route", *size, "--sent", "--candidate", f"{name}=0:0:0.001")["queue_ms"] for _ in range(2)]
    check(queued[0] == 0 and answer("route", *size)["queue_ms"] > 0, queued)
    gone = answer("route", *size, "--candidate", "nobody", expect=1)
    check(gone["node"] is None and "no node of that name" in gone["candidates"][0]["why"], gone)
    for wrong in ("x=", "=1", "x=1:", "x=-1", "x=1:2:3:4", "x=nan", "y" * 64):
        weft("route", *size, "--candidate", wrong, expect=2)
    weft("rm", "--key", "routed", "--block-bytes", "4096")


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
    check(part["missing"] == {"block": 40, "why": "absent", "tier": None, "text": "block 40 is not there"}, part)
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
    node = start_node("64MB", socket, WEFT_CONFIG=settings, WEFT_EVENTS="16")
    try:
        said = weft("explain", "--socket", socket).stdout.decode()
        check("no block went since the node began" in said, said)
        for i in range(20):
            weft("put", "--key", f"gone{i}", "--block-bytes", "4096", "--socket", socket, blob("gone", 4096))
            weft("rm", "--key", f"gone{i}", "--block-bytes", "4096", "--socket", socket)
        said = weft("explain", "--socket", socket).stdout.decode()
        of = re.search(r"that is of the last (\d+) events; (\d+) before them are overwritten", said)
        check(of and int(of[1]) + int(of[2]) == 20, said)
        words = ["--key", "wide", "--block-bytes", "1MB", "--socket", socket]
        said = weft("put", *words, blob("wide", 20 << 20), expect=4).stderr.decode()
        check("domain 'default' has a quota of 8 MiB" in said, said)
        said = weft("put", *words, "--partial", os.path.join(FOLDER, "wide"), expect=1).stderr.decode()
        check("domain 'default'" in said and "quota of 8 MiB" in said and "pool" not in said, said)
        refused = answer("explain", "--socket", socket)["not_stored"]
        check(refused["requests"] >= 1 and refused["blocks"] >= 1 and refused["last"], refused)
        check("found no room" in weft("explain", "--socket", socket).stdout.decode())
    finally:
        stop_node(node)


@case
def what_went_by_last_use_is_not_said_to_be_worth_least():
    socket, settings = os.path.join(FOLDER, "lru.sock"), os.path.join(FOLDER, "lru.yaml")
    with open(settings, "w", encoding="utf-8") as file:
        file.write("pool:\n  policy: lru\n")
    node = start_node("8MB", socket, WEFT_CONFIG=settings)
    try:
        for name in ("old", "new"):
            weft("put", "--key", name, "--block-bytes", "1MB", "--socket", socket, blob(name, 6 << 20))
        gone = answer("events", "--what", "evict", "--socket", socket)["events"][0]
        said = weft("explain", gone["key"], "--socket", socket).stdout.decode()
        check("(room): a new block needed its place" in said and "the least recently used of" in said, said)
        check("least worth" not in said, said)
    finally:
        stop_node(node)


@case
def what_another_domain_is_due_is_given_back():
    socket, settings = os.path.join(FOLDER, "due.sock"), os.path.join(FOLDER, "due.yaml")
    with open(settings, "w", encoding="utf-8") as file:
        file.write("domains:\n  - {name: default, share: 3, floor: 8MB}\n"
                   "  - {name: guest, share: 1, priority: low, quota: 32MB}\n")
    node = start_node("32MB", socket, WEFT_CONFIG=settings)
    at, size = ["--socket", socket], ["--block-bytes", "256KB"]
    guest = ["--domain", "guest", *at]
    try:
        weft("put", "--key", "lent", *size, *guest, blob("lent", 24 << 20))
        weft("put", "--key", "own", *size, *at, blob("own", 20 << 20))
        rows = {row["name"]: row for row in answer("ls", "domains", *at)["domains"]}
        check(rows["guest"]["evicted"]["lent"] > 0 and rows["guest"]["evicted"]["reclaim"] == 0, rows)
        check((rows["guest"]["share"], rows["guest"]["priority"], rows["default"]["priority"])
              == (1, "low", "normal"), rows)
        lines = weft("ls", "domains", *at).stdout.decode().splitlines()
        check({"share", "priority", "due_bytes", "floor_bytes"} <= set(lines[0].split()), lines)
        gone = answer("events", "--what", "evict", *at)["events"][-1]
        check((gone["reason"], gone["for"]) == ("lent", "default"), gone)
        said = weft("explain", gone["key"], *at).stdout.decode()
        check("left DRAM (lent)" in said and "went to domain default" in said and "host" not in said, said)
        check("lent, its domain had borrowed" in weft("explain", *at).stdout.decode())
        # A chain that its due has no room for, while others hold theirs.
        before = answer("status", *at)["domains"]
        said = weft("put", "--key", "wide", *size, *guest, blob("wide", 28 << 20), expect=4).stderr.decode()
        check("it is due 6 MiB" in said and "--partial" in said and "pinned" not in said, said)
        after = answer("status", *at)["domains"]
        check([row["evicted"] for row in after] == [row["evicted"] for row in before], "something went for it")
        said = weft("put", "--key", "wide", *size, *guest, "--partial", os.path.join(FOLDER, "wide"),
                    expect=1).stderr.decode()
        check("it is due 6 MiB" in said and "pinned" not in said, said)
        refused = answer("explain", *at)["not_stored"]
        check("is due 6" in refused["last"] and refused["blocks"] > refused["requests"], refused)
        done = weft("reclaim", "30MB", "--within-ms", "300", *at, expect=1).stdout.decode()
        check("floors keep 8 MiB" in done, done)
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
    until = time.time() + 20
    while answer("status")["domains"][0]["below"]["opening"] and time.time() < until:
        time.sleep(0.05)
    golden("status", answer("status"))
    golden("ls_blocks", answer("ls", "blocks"))
    golden("ls_domains", answer("ls", "domains"))
    golden("ls_formats", answer("ls", "formats"))
    check(answer("ls", "engines") == {"engines": []})
    check(weft("ls", "engines").stdout == b"no engines\n")
    check(list(answer("ls", "sessions")) == ["sessions"])
    check(len(answer("ls", "blocks", "--limit", "1")["blocks"]) == 1)
    for words in (["status"], ["ls", "blocks"], ["ls", "sessions"], ["ls", "domains"], ["ls", "regions"]):
        shown = weft(*words).stdout.decode()
        check(shown.strip() and not re.search(r"(?<![\d.,])1 (client|session|block|holder)s", shown), words, shown)


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
        no_room(copy, "region", "dump", "weights", "--file", copy)
        weft("region", "create", "weights", "1MB", "--background", expect=4)
        weft("region", "load", "weights", stdin=b"x", expect=4)
    finally:
        check(answer("region", "release", "weights")["released"] == 1)
    until = time.time() + 10
    while answer("region", "ls")["regions"] and time.time() < until:
        time.sleep(0.05)
    weft("region", "open", "weights", expect=1)
    weft("region", "release", "weights", expect=1)
    # What cannot fit evicts nothing, and is told why.
    weft("put", "--key", "stays", "--block-bytes", "4096", blob("stays", 4096))
    said = weft("region", "create", "huge", "600MB", expect=4).stderr.decode()
    check("600 MiB does not fit the pool of" in said, said)
    check(answer("match", "--key", "stays", "--block-bytes", "4096")["tiers"]["dram"] == 1, "it was evicted")
    weft("rm", "--key", "stays", "--block-bytes", "4096")
    weft("region", "create", "scratch", "1MB", "--background")
    weft("region", "load", "scratch", stdin=b"hello")
    check(weft("region", "dump", "scratch").stdout[:6] == b"hello\0", "the load is not there")
    weft("region", "release", "scratch")


@case
def a_region_is_released_on_its_own_node_alone():
    socket = os.path.join(FOLDER, "other.sock")
    node = start_node("64MB", socket)
    there = ("--socket", socket)
    try:
        weft("region", "create", "both", "1MB", "--background")
        weft("region", "create", "both", "1MB", "--background", *there)
        check(answer("region", "release", "both", *there)["released"] == 1)
        weft("region", "release", "both", *there, expect=1)
        check(len(answer("region", "ls")["regions"]) == 1, "the other node's was released")
        # However its socket is named, and when the node is there no more, too.
        weft("region", "create", "both", "1MB", "--background", *there)
        stop_node(node)
        about = os.path.join(FOLDER, "..", os.path.basename(FOLDER), "other.sock")
        check(answer("region", "release", "both", "--socket", about)["released"] == 1, "by another way")
    finally:
        check(answer("region", "release", "both")["released"] == 1)
        stop_node(node)


@case
def engines_that_are_heard_are_listed():
    socket, settings = os.path.join(FOLDER, "engines.sock"), os.path.join(FOLDER, "engines.yaml")
    with open(settings, "w", encoding="utf-8") as file:
        file.write(f"kv_events:\n  engines:\n    - name: vllm0\n      endpoint: ipc://{FOLDER}/nobody\n")
    node = start_node("64MB", socket, WEFT_CONFIG=settings)
    try:
        golden("ls_engines", answer("ls", "engines", "--socket", socket))
        shown = weft("ls", "engines", "--socket", socket).stdout.decode()
        check("vllm0" in shown and "away" in shown and "hbm_blocks" in shown, shown)
        there = answer("put", "--key", "here", "--block-bytes", "4096", "--socket", socket,
                       blob("here", 4096))["first_key"]
        check(answer("explain", there, "--socket", socket)["engines"] == [])
    finally:
        stop_node(node)


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
    check("64 bytes are less than can be lent" in weft("lend", "64", expect=2).stderr.decode())
    check("--block-bytes is 0" in weft("put", "--key", "a", "--block-bytes", "0", blob("tiny", 10), expect=2).stderr.decode())


@case
def what_is_worth_more_stays():
    """A long chain that is new pushes nothing out that was wanted again; a short one, or one under lru, does."""
    socket = os.path.join(FOLDER, "worth.sock")
    for policy, stored, after in ("weft", 24, 40), ("lru", 40, 24):
        node = start_node("64MB", socket, WEFT_POOL_POLICY=policy)
        try:
            words = ["--block-tokens", "16", "--block-bytes", "1MB", "--partial", "--if-worth", "--socket", socket]

            def put(first, *, of=words, expect=0):
                tokens = ",".join(map(str, range(first, first + 640)))
                return answer("put", "--tokens", tokens, *of, blob("forty", 40 << 20), expect=expect)

            check(put(1)["stored"] == 40)
            check(put(1)["existing"] == 40)
            said = put(10001, expect=1 if stored < 40 else 0)
            check(said["stored"] == stored, policy, said)
            domain = answer("ls", "domains", "--socket", socket)["domains"][0]
            refused = answer("explain", "--socket", socket)["not_stored"]
            check(domain["full_for_worth"] == refused["for_worth"] == domain["full"], domain, refused)
            check(refused["for_worth"] == 40 - stored, "each is counted once", refused)
            check(refused["requests"] == int(stored < 40), refused)
            if stored < 40:
                check("was wanted again before" in refused["last"], refused)
                check("worth more" in weft("explain", "--socket", socket).stdout.decode())
                event = answer("events", "--what", "full", "--socket", socket)["events"][-1]
                check((event["blocks"], event["reason"], event["bytes"]) == (40 - stored, "worth", 1 << 20), event)
                for key in event["key"], event["last"]:
                    told = weft("explain", key, "--socket", socket).stdout.decode()
                    check("not stored: no room for a block of 1 MiB: what would have to go was wanted" in told, told)
                check(event["last"] == said["last_key"][:16] and event["key"] != event["last"], event, said)
            first = ",".join(map(str, range(1, 641)))
            there = answer("match", "--tokens", first, *words[:4], "--socket", socket, expect=int(after < 40))
            check(there["present"] == after, policy, there)
            plain = [word for word in words if word != "--if-worth"]
            if stored < 40:
                tokens = ",".join(map(str, range(30001, 30641)))
                weft("put", "--tokens", ",".join(map(str, range(1, 641))), *words, blob("forty", 40 << 20))
                said = weft("put", "--tokens", tokens, *words, blob("forty", 40 << 20), expect=None).stderr.decode()
                check("worth more (weft explain); without --if-worth it goes" in said, said)
            check(put(20001, of=plain)["stored"] == 40, "not all, and nobody asked for less")
        finally:
            stop_node(node)
