# SPDX-License-Identifier: Apache-2.0
"""A fake; see vllm/__init__.py."""
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TransferJob:
    job_id: int
    keys: Any
    chunk_ids: Any
    is_promotion: bool
    req_context: Any
    submit_time: float = field(default_factory=time.monotonic)


@dataclass
class JobResult:
    job_id: int
    success: bool
    successful_keys: Any = None
    transfer_time: float | None = None
    transfer_bytes: int | None = None


class SecondaryTierManager(ABC):
    medium = None

    def __init__(self, offloading_spec, primary_kv_view, tier_type, backpressure_detector=None):
        self._offloading_spec = offloading_spec
        self._primary_kv_view = primary_kv_view
        self._block_size_bytes = primary_kv_view.strides[0]
        self.tier_type = tier_type
        self.locality = None
        self._bp_detector = backpressure_detector

    @abstractmethod
    def lookup(self, key, req_context):
        pass

    @abstractmethod
    def submit_store(self, job_metadata):
        pass

    @abstractmethod
    def submit_load(self, job_metadata):
        pass

    @abstractmethod
    def get_finished_jobs(self):
        pass

    @abstractmethod
    def on_new_request(self, req_context):
        pass

    @abstractmethod
    def drain_jobs(self):
        pass
