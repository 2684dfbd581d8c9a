# SPDX-License-Identifier: Apache-2.0
"""A fake; see vllm/__init__.py."""
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any


def make_offload_key(block_hash, group_idx):
    return block_hash + group_idx.to_bytes(4, "big", signed=False)


class LookupResult(Enum):
    MISS = auto()
    HIT = auto()
    HIT_PENDING = auto()
    RETRY = auto()


class OffloadPolicy(Enum):
    CHUNK_LEVEL = "chunk_level"
    REQUEST_LEVEL = "request_level"


@dataclass
class RequestOffloadingContext:
    policy: OffloadPolicy = OffloadPolicy.CHUNK_LEVEL


@dataclass
class ReqContext:
    req_id: str
    kv_transfer_params: dict[str, Any] | None = None
    _positions: dict = field(default_factory=dict, repr=False, init=False)

    def set_offload_key_position(self, key, end_token):
        self._positions[key] = end_token

    def get_offload_key_position(self, key):
        return self._positions.get(key)


@dataclass(frozen=True)
class OffloadingMetricMetadata:
    documentation: str
    labelnames: tuple = ()


class OffloadingCounterMetadata(OffloadingMetricMetadata):
    pass


class OffloadingGaugeMetadata(OffloadingMetricMetadata):
    pass
