#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `weft` answers, against a node of the test's own: run.py WEFT WEFTD SOURCE_ROOT [WORD]...

The cases are in the modules beside this one; each registers its own with harness.case.  With words, only those
cases run whose names have one of them.  Prints TAP.
"""
import shutil
import sys

sys.dont_write_bytecode = True  # nothing appears beside the sources

from harness import CASES, FOLDER, kill_nodes, start_node, stop_node, tier_paths, tiers_open
import alone
import node
import below
import cluster
import codec
import exported
import own
import sessions
import simulated

MODULES = (alone, node, below, exported, own, sessions, simulated, codec, cluster)  # their cases run in this order


def main():
    words = sys.argv[4:]
    cases = [each for each in CASES if not words or any(word in each.__name__ for word in words)]
    print(f"1..{len(cases)}")
    running = start_node(tiers=tier_paths("main"), WEFT_POOL_SIZE_MAX="1GB")
    tiers_open()
    failed = 0
    for number, function in enumerate(cases, 1):
        name = function.__name__.replace("_", " ")
        try:
            skip = function()
            print(f"ok {number} - {name}" + (f" # SKIP {skip}" if skip else ""), flush=True)
        except Exception as error:  # whatever it is: the others run, and the node ends
            failed += 1
            print(f"not ok {number} - {name}", flush=True)
            for line in str(error).splitlines():
                print(f"# {line}", flush=True)
        kill_nodes(but=running)  # of a case that failed half-way: the next may start nodes of the same names
    stop_node(running)
    kill_nodes()
    shutil.rmtree(FOLDER, ignore_errors=True)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
