# SPDX-License-Identifier: Apache-2.0
"""Commands that take minutes: what they say goes to a log, where they are to stderr, and they end when their time does."""
import os
import signal
import subprocess
import sys
import time

EVERY = 15


def say(text):
    print(text, file=sys.stderr, flush=True)


def last_line(path):
    """Of a log, what fits in a terminal's line."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 2000))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip()[:80] for line in reversed(lines) if line.strip() and not line.startswith("WARN")), "")


def follow(name, words, log, seconds, **how):
    """The exit status of a command, 124 when it took longer than it may; all that it started ends with it."""
    begin = told = time.monotonic()
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(map(str, words))}\n".encode())
        file.flush()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                   start_new_session=True, **how)
    status = None
    try:
        while status is None:
            try:
                status = process.wait(1)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                if now - begin > seconds:
                    with open(log, "ab") as file:
                        file.write(f"\ntook more than {seconds} s\n".encode())
                    return 124
                if now - told >= EVERY:
                    told = now
                    say(f"  {name}: {now - begin:.0f} s, {last_line(log)}")
        return status
    finally:
        if status is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
