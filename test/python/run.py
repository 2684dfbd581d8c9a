#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The package `weft` against nodes of the tests' own: run.py WEFTD [WORD]...  Prints TAP.

PYTHONPATH says where the package is.  With words, only tests run whose names have one of them.
"""
import ctypes
import gc
import os
import sys
import unittest

sys.dont_write_bytecode = True
os.environ["WEFTD"] = os.path.abspath(sys.argv[1])
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

MODULES = ("test_keys", "test_blocks", "test_lifetimes", "test_regions", "test_sessions", "test_weights",
           "test_concurrent", "test_tour", "test_vllm", "test_leaks", "test_no_memory", "test_describe", "test_push",
           "test_push_connector")


class Tap(unittest.TestResult):
    number = 0

    def tell(self, test, good, words="", trace=""):
        self.number += 1
        print(f"{'ok' if good else 'not ok'} {self.number} - {test.id()}{words}", flush=True)
        for line in trace.splitlines():
            print(f"# {line}", flush=True)

    def addSuccess(self, test):
        self.tell(test, True)

    def addSkip(self, test, reason):
        self.tell(test, True, f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, False, trace=self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, False, trace=self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.tell(subtest, False, trace=self._exc_info_to_string(err, test))


def every(suite):
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from every(each)
        else:
            yield each


def lost():
    """What a build with AddressSanitizer says that nobody has a pointer to any more; 0: nothing, or another build.
    Whatever a test holds by then is no leak, so it is asked for when all are done."""
    look = getattr(ctypes.CDLL(None), "__lsan_do_recoverable_leak_check", None)
    gc.collect()
    return look() if look else 0


def main():
    words = sys.argv[2:]
    loaded = unittest.defaultTestLoader.loadTestsFromNames(MODULES)
    chosen = unittest.TestSuite(test for test in every(loaded) if not words or any(w in test.id() for w in words))
    result = Tap()
    chosen.run(result)
    result.number += 1
    print(f"{'not ok' if lost() else 'ok'} {result.number} - no memory was lost", flush=True)
    print(f"1..{result.number}", flush=True)
    return 0 if result.wasSuccessful() and result.number > 1 and not lost() else 1


if __name__ == "__main__":
    sys.exit(main())
