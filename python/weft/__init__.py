# SPDX-License-Identifier: Apache-2.0
"""Weft: a memory fabric for LLM inference.

    import weft

    with weft.connect() as fabric:
        fmt = fabric.format("llama-3-8b@1", layers=32, kv_heads=8, head_dim=128)
        keys = fmt.keys(tokens)
        with fmt.get(keys) as pins:              # the longest prefix that is there, held
            for block in range(len(pins)):
                use(pins[block])                 # where it lies: no copy
        fmt.put(keys, blocks)                    # copies and publishes

A committed block never changes.  A view of memory (a memoryview, and whatever was made of it) keeps
that memory as it is: a block is let go of when its Pins were released *and* the last view of it is
gone.  Every refusal is a weft.Error, whose text is one sentence that says what to do instead.

Any thread may use any object; calls that may wait release the GIL.  After fork() the child connects
anew.  docs/PYTHON.md is a tour of five minutes.
"""
from ._weft import (BATCH_MAX, Archived, BusyError, CorruptError, DeniedError, Error, Fabric, ForkedError, Format,
                    FullError, HostError, InvalidError, Keys, LimitError, Location, Match, MissError, NoMemoryError,
                    NodeError, NotFoundError, ParentError, Pins, ProtocolError, QuotaError, Region, Session, Slots,
                    TimedOutError, connect, size_parse, version)
from ._weights import Tensor, Weights, load

__version__ = version()

__all__ = [
    "BATCH_MAX", "Archived", "BusyError", "CorruptError", "DeniedError", "Error", "Fabric", "ForkedError", "Format",
    "FullError", "HostError", "InvalidError", "Keys", "LimitError", "Location", "Match", "MissError", "NoMemoryError",
    "NodeError", "NotFoundError", "ParentError", "Pins", "ProtocolError", "QuotaError", "Region", "Session", "Slots",
    "Tensor", "TimedOutError", "Weights", "connect", "load", "size_parse", "version",
]
