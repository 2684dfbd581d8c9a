# SPDX-License-Identifier: Apache-2.0
"""What blocks are called by their engine, said to the node, so that it can tell of them in KV events.

A service to routers and no more: whatever goes wrong here, blocks are stored and loaded all the same.
"""
import time

import weft

_QUIET_S = 30.0  # after a node that tells nobody, has no room, or is away


class Describer:
    """For one format."""

    def __init__(self, fmt):
        self._format = fmt
        self._quiet_until = 0.0

    def say(self, identities, hashes, tokens=None, parent=None, lora=None):
        """Of blocks of one chain: what their keys were made of, the engine's hashes, and what these stand for."""
        if not identities or time.monotonic() < self._quiet_until:
            return
        try:
            taken = self._format.describe(self._format.keys_from_bytes(identities), hashes, tokens=tokens, parent=parent,
                                          lora=lora)
        except (weft.Error, ValueError, TypeError):
            taken = 0
        if not taken:
            self._quiet_until = time.monotonic() + _QUIET_S
