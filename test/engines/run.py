#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Weft inside real engines: run.py [--json] [--fake] [--build BUILD] [NAME]...  (make test-engines)

Each folder test/engines/NAME has requirements.txt, test_*.py, and perhaps fake/, a stand-in that has the engine's
published interface and no more.  Each engine gets a venv of its own in BUILD/engines/NAME with the release that
versions.txt pins; where that cannot be installed or imported, its fake takes its place, and the table says so.  --fake
takes fakes only, and Python as it is: what needs no download.  The exit status is 1 when a test failed.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OURS = r"ran (\d+) failed (\d+) skipped (\d+)"

RUNNER = """
import sys, unittest
suite = unittest.defaultTestLoader.discover(sys.argv[1], "test_*.py")
result = unittest.TextTestRunner(verbosity=1, buffer=True).run(suite)
bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
print(f"ran {result.testsRun} failed {bad} skipped {len(result.skipped)}")
"""


def versions():
    rows = [line.split() for line in (HERE / "versions.txt").read_text().splitlines() if line and line[0] != "#"]
    return {row[0]: (row[1], row[2] if len(row) > 2 else "") for row in rows}


def quiet(words, log, **how):
    """Whether a command succeeds; what it says goes to the log."""
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False, **how).returncode == 0


def venv_of(name, build, log):
    """The Python of the engine's venv, made when it is not there; None when that cannot be."""
    folder = build / "engines" / name
    python, stamp = folder / "bin" / "python", folder / "weft-installed"
    version, how = versions()[name]
    requirements = HERE / name / "requirements.txt"
    wanted = f"{version} {how}\n{requirements.read_text()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    words = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    alone = ["--no-deps"] if how == "alone" else []
    if quiet([sys.executable, "-m", "venv", folder], log) and quiet([*words, "-r", requirements], log) and \
            (how == "inside" or quiet([*words, *alone, f"{name}=={version}"], log)):
        stamp.write_text(wanted)
        return python
    return None


def run(name, python, fake, build, log):
    paths = [build / "python", ROOT / "test" / "python"] + ([HERE / name / "fake"] if fake else [])
    environment = {**os.environ, "WEFTD": str(build / "bin" / "weftd"), "PYTHONDONTWRITEBYTECODE": "1",
                   "PYTHONPATH": os.pathsep.join(map(str, paths)), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONHASHSEED", None)
    try:
        done = subprocess.run([python, "-W", "ignore", "-c", RUNNER, HERE / name], env=environment, timeout=900,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=HERE / name)
        text = done.stdout
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace") + "\ntook more than 900 s\n"
    with open(log, "a", encoding="utf-8") as file:
        file.write(text)
    found = re.findall(OURS, text)
    if not found:
        return {"tests": 0, "failed": 1, "skipped": 0, "said": text[-2000:]}
    ran, failed, skipped = map(int, found[-1])
    return {"tests": ran, "failed": failed, "skipped": skipped, "said": text[-4000:] if failed else ""}


def one(name, build, only_fake):
    log = build / "engines" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    has_fake = (HERE / name / "fake").is_dir()
    python = None if only_fake else venv_of(name, build, log)
    fake = python is None
    row = {"engine": name, "version": versions()[name][0], "what": "fake" if fake else "real", "tests": 0, "failed": 0,
           "skipped": 0, "said": ""}
    if fake and not has_fake:
        row.update(what="absent", said=f"{name} could not be installed, and has no fake; {log} says why")
    else:
        row.update(run(name, python or sys.executable, fake, build, log))
    row["passed"] = row["tests"] - row["failed"] - row["skipped"]
    return row


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--fake", action="store_true")
    arguments.add_argument("--build", default=str(ROOT / "build"), type=lambda text: pathlib.Path(text).resolve())
    arguments.add_argument("names", nargs="*")
    given = arguments.parse_args()
    build = pathlib.Path(given.build).resolve()
    there = sorted(path.name for path in HERE.iterdir() if (path / "requirements.txt").is_file())
    if given.fake:
        there = [name for name in there if (HERE / name / "fake").is_dir()]
    unknown = [name for name in given.names if name not in there]
    if unknown:
        sys.exit(f"run.py: there is no engine '{unknown[0]}'; there are {', '.join(there)}")
    rows = [one(name, build, given.fake) for name in given.names or there]
    if given.json:
        print(json.dumps({"engines": rows}, indent=1))
    else:
        print(f"{'engine':14}{'version':12}{'what':8}{'passed':>8}{'failed':>8}{'skipped':>9}")
        for row in rows:
            print(f"{row['engine']:14}{row['version']:12}{row['what']:8}{row['passed']:>8}{row['failed']:>8}{row['skipped']:>9}")
            if row["said"]:
                print(row["said"], file=sys.stderr)
    return 1 if any(row["failed"] or row["what"] == "absent" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
