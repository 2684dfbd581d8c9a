# SPDX-License-Identifier: Apache-2.0
"""What tests of the tier need: OffloadingConfigs, names of chunks, and a driver of jobs."""
import array
import itertools
import time
import types

from vllm.v1.kv_offload import base, config
from vllm.v1.kv_offload.tiering.base import TransferJob

ROW = 8192
numbers = itertools.count()


def offloading_config(model="tiny", dtype="bfloat16", tokens=16, chunk=1, layers=("l0", "l1"), tp=1, pp=1, layout=None,
                      row=ROW, window=None, extra=None, groups=1):
    made = tuple(config.OffloadingGroupConfig(tokens, tuple(layers), i, window) for i in range(groups))
    return config.OffloadingConfig(
        groups=made, worker_kv_bytes_per_block=row // chunk, enable_kv_cache_events=False,
        extra_config={"cpu_bytes_to_use": row * 16, **(extra or {})}, engine_id=f"weft-test-{next(numbers)}-{time.time_ns()}",
        model=config.OffloadingModelConfig(model, dtype), cache=config.OffloadingCacheConfig(tokens, chunk),
        parallel=config.OffloadingParallelConfig(0, tp * pp, tp, pp, 1, 1, 0, 1, None, False),
        kv_cache_layout=layout)


def spec_of(offloading):
    """As much of an OffloadingSpec as a tier reads."""
    return types.SimpleNamespace(config=offloading, extra_config=offloading.extra_config,
                                 blocks_per_chunk=offloading.cache.blocks_per_chunk,
                                 kv_events_config=types.SimpleNamespace(enable_kv_cache_events=False))


def name(number, group=0):
    """A chunk's name: SHA-256 and the group's index."""
    return base.make_offload_key(number.to_bytes(32, "big"), group)


def request(keys=(), tokens=16, first=0):
    made = base.ReqContext(req_id=f"r{next(numbers)}")
    for i, key in enumerate(keys):
        made.set_offload_key_position(key, (first + i + 1) * tokens)
    return made


def job(keys, rows, loads, context):
    return TransferJob(job_id=next(numbers), keys=keys, chunk_ids=array.array("i", rows),
                       is_promotion=loads, req_context=context)


def outcome(tier, number, seconds=20):
    """The result of one job."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for result in tier.get_finished_jobs():
            assert result.job_id == number, "a job that nobody waits for"
            return result
        time.sleep(0.001)
    raise AssertionError("a job was never answered")
