# SPDX-License-Identifier: Apache-2.0
"""A FAKE of vLLM: the interface of 0.33.0 that WeftTier is written to, and nothing behind it.  It is here so that the
tier's tests run where vLLM cannot be installed; the same tests run against the real package in `make test-engines`,
and test_fake.py holds this one to it there."""
WEFT_FAKE = True
