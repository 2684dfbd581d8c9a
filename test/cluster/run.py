#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many hosts on one machine: run.py BUILD [--all] [WORD]...

The cases are in the modules beside this one; each registers its own with harness.case, or with harness.slow for
those that run with --all alone.  With words, only those cases run whose names have one of them.  Prints TAP and the
seed (WEFT_TEST_SEED gives one).  Where network
namespaces cannot be made it skips all, and says why.
"""
import os
import sys
import time
import traceback

sys.dont_write_bytecode = True  # nothing appears beside the sources

from bed import Failed, why_not
import harness
import alone
import broken
import chaotic
import fabric
import registry
import wires

MODULES = (wires, alone, fabric, registry, broken, chaotic)  # their cases run in this order


def main():
    build, *words = sys.argv[1:]
    every = "--all" in words
    words = [word for word in words if not word.startswith("--")]
    harness.build[0] = os.path.abspath(build)
    missing = why_not()
    if missing:
        print(f"1..0 # SKIP {missing}")
        return 0  # a plan of nothing is what TAP has for it; 77 would be a failure there
    cases = [each for each in harness.CASES if any(word in each.__name__ for word in words)
             or not words and (every or not each.slow)]
    print(f"# WEFT_TEST_SEED={harness.SEED}")
    print(f"1..{len(cases)}", flush=True)
    failed = 0
    for number, function in enumerate(cases, 1):
        name, began = function.__name__.replace("_", " "), time.monotonic()
        try:
            skip = function()
            print(f"ok {number} - {name}" + (f" # SKIP {skip}" if skip else ""))
        except Exception as error:  # whatever it is: the others run
            failed += 1
            print(f"not ok {number} - {name}")
            said = str(error) if isinstance(error, Failed) else traceback.format_exc()
            for line in said.splitlines():
                print(f"# {line}")
        print(f"# {time.monotonic() - began:.1f} s", flush=True)
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
