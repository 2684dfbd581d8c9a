# SPDX-License-Identifier: Apache-2.0
"""What all cases of run.py share: the programs, how cases are registered, beds whose logs are shown on failure."""
import contextlib
import os
import random

from bed import Bed, EndedEarly, Failed, check, until

__all__ = ["CASES", "EndedEarly", "Failed", "a_bed", "case", "check", "knows", "slow", "until", "SEED", "blob"]

CASES = []
SEED = int(os.environ.get("WEFT_TEST_SEED", "0"), 0) or random.SystemRandom().randrange(1, 1 << 32)
build = [None]  # the build directory, which run.py sets


def case(function):
    """For every run."""
    CASES.append(function)
    function.slow = False
    return function


def slow(function):
    """For `make cluster-test` alone."""
    CASES.append(function)
    function.slow = True
    return function


@contextlib.contextmanager
def a_bed(hosts, **how):
    """A bed whose logs are said when what is done in it fails."""
    bed = Bed(hosts, build[0], **{"seed": SEED, **how})
    with bed:
        try:
            yield bed
        except Exception as error:
            raise Failed(f"{type(error).__name__}: {error}\n{bed.logs()}") from error


def knows(setting):
    return Bed("", build[0]).knows(setting)


def blob(bed, name, size, seed=1):
    """A file of random bytes in the bed's folder."""
    path = os.path.join(bed.folder, name)
    with open(path, "wb") as file:
        file.write(random.Random(seed).randbytes(size))
    return path
