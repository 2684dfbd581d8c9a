#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Raw memory from the host's pool: allocated, used in place, given back."""
import weft

fabric = weft.connect()  # this machine's node, or $WEFT_SOCKET
block = fabric.allocate(size="10MB", latency="low")
memory = memoryview(block)  # NumPy and torch take it as it is
memory[:5] = b"hello"
print(f"a region of {block.size / 2**20:.1f} MiB that says {bytes(memory[:5]).decode()}")
del memory  # what is viewed stays mapped
fabric.release(block)
fabric.close()
