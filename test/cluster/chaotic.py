# SPDX-License-Identifier: Apache-2.0
"""chaos.py itself: a short run is clean, and one that was spoiled says so."""
import json
import os
import re
import subprocess
import sys

import harness
from bed import why_not
from harness import SEED, check, slow

MUST_BE_NONE = ("wrong_bytes", "hangs", "lost_archives", "crashes")


def chaos(*words, expect=0):
    done = subprocess.run([sys.executable, "-B", os.path.join(os.path.dirname(__file__), "chaos.py"), harness.build[0],
                           *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    check(done.returncode == expect, "chaos", *words, "ended with", done.returncode, done.stdout, done.stderr)
    if not done.stdout.startswith("{"):
        return done.stdout
    notes = [line for line in done.stderr.splitlines() if re.match(r" *[0-9.]+ s  ", line) and '"hang"' not in line]
    return {**json.loads(done.stdout), "notes": notes[-20:]}


@slow
def the_schedule_is_the_seeds_alone():
    lists = [chaos("--list", "--seed", str(seed), "--minutes", "5") for seed in (SEED, SEED, SEED + 1)]
    check(lists[0] == lists[1] and lists[0] != lists[2], "not by the seed")
    for kind in ("kill", "stop", "part", "one-way", "etcd-kill", "corrupt"):
        check(f"  {kind} " in "".join(chaos("--list", "--seed", str(seed), "--minutes", "5") for seed in range(4)), kind)


@slow
def a_short_run_is_clean():
    missing = why_not(etcd=True)
    if missing:
        return missing
    said = chaos("--minutes", "0.5", "--seed", str(SEED))
    check(said["faults"] > 3 and said["blocks_verified"] > 1000 and said["archives_right"] == said["archives"], said)
    return None


@slow
def what_is_spoiled_is_told():
    missing = why_not(etcd=True)
    if missing:
        return missing
    for what in ("wrong_bytes", "lost_archives", "hangs"):
        said = chaos("--minutes", "0.4", "--seed", "3", "--nodes", "2", "--sabotage", what, expect=1)
        check(said[what] > 0 and not any(said[other] for other in MUST_BE_NONE if other != what), said)
    return None
