# SPDX-License-Identifier: Apache-2.0
"""A secondary tier for vLLM's KV offloading: rows of its CPU cache go to Weft and come back.

    "kv_connector_extra_config": {
        "spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": 8000000000,
        "secondary_tiers": [{"type": "WeftTier", "module_path": "weft.connectors.vllm_tier"}]}

vLLM names a chunk by its own chained hash, in which tokens, LoRA, images and cache_salt are; that hash and the index of
the group of layers are the identity that Weft's key is made of.  A row is an opaque payload, and everything that says
how to read it is in the format that the key hangs on: another model, dtype, block size, parallelism, layout or set of
weights has other keys, and is a miss.

All methods run in vLLM's scheduler and never wait: a lookup reads shared memory, copies are made by threads of the
tier's own without the GIL.  A node that is away is a tier that has nothing: lookups miss, jobs fail, and vLLM computes.
docs/engines/vllm.md has the recipe.
"""
import collections
import logging
import threading
import time

from vllm.v1.kv_offload.base import (LookupResult, OffloadingCounterMetadata, OffloadingGaugeMetadata,
                                     RequestOffloadingContext)
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager

import weft
from weft.connectors import _identity
from weft.connectors._describe import Describer
from weft.connectors._vllm import DTYPES, HASH_BYTES, check_hashing, label, refusal, weights_of

logger = logging.getLogger("vllm.weft")

KEY_BYTES = HASH_BYTES + 4  # and the group's index, u32be

_METRICS = {
    "weft_hits": "Chunks that a lookup found in Weft.",
    "weft_misses": "Chunks that a lookup did not find in Weft.",
    "weft_stored": "Chunks that were stored in Weft, or were there.",
    "weft_not_stored": "Chunks that Weft had no room for, or that were dropped because it was behind.",
    "weft_loaded": "Chunks that were loaded from Weft.",
    "weft_load_failures": "Chunks that could not be loaded from Weft after all, and were computed.",
}
_FAILED_MAX = 4096
_QUEUED = "vllm:weft_queued_jobs"


def facts_of(config):
    """What says how a row of bytes is to be read, of an OffloadingConfig."""
    parallel = config.parallel
    return {
        "groups": [[group.group_id, group.tokens_per_block, list(group.layer_names)] for group in config.groups],
        "dtype": config.model.dtype,
        "tokens_per_hash": config.cache.tokens_per_hash,
        "blocks_per_chunk": config.cache.blocks_per_chunk,
        "worker_bytes_per_block": config.worker_kv_bytes_per_block,
        "parallel": [parallel.world_size, parallel.tp_size, parallel.pp_size, parallel.pcp_size, parallel.dcp_size],
        "replicated": config.replicated_layout,
        "canonical": config.canonical_layout,
        "layout": config.kv_cache_layout,
    }


class _Jobs:
    """Threads that work off loads first, then stores; the oldest first."""

    def __init__(self, threads, work):
        self._work = work
        self._changed = threading.Condition()
        self._loads, self._stores = collections.deque(), collections.deque()
        self._running, self._closed = 0, False
        self._threads = [threading.Thread(target=self._run, name=f"weft-tier-{i}", daemon=True)
                         for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def put(self, job):
        with self._changed:
            (self._loads if job.loads else self._stores).append(job)
            self._changed.notify()

    def count(self):
        return len(self._loads) + len(self._stores) + self._running

    def stores(self):
        return len(self._stores)

    def _run(self):
        while True:
            with self._changed:
                while not (self._loads or self._stores or self._closed):
                    self._changed.wait()
                if not (self._loads or self._stores):
                    return
                job = (self._loads or self._stores).popleft()
                self._running += 1
            try:
                self._work(job)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

    def wait_idle(self):
        with self._changed:
            while self._loads or self._stores or self._running:
                self._changed.wait()

    def close(self):
        """What has not begun is answered; what has, is finished."""
        with self._changed:
            self._closed = True
            left = [*self._loads, *self._stores]
            self._loads.clear()
            self._stores.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        return left


class _Job:
    """One transfer: `parts` are runs of (parent's key or None, identities, rows), each a chain."""

    def __init__(self, number, loads, keys, rows, parts=None):
        self.number, self.loads, self.keys, self.rows, self.parts = number, loads, keys, rows, parts


class _Link:
    """A connection and its format, made again by whoever needs it when the node came back."""

    def __init__(self, where, timeout, spec):
        self._where, self._timeout, self._spec = where, timeout, spec
        self.fabric = weft.connect(timeout=timeout, **where)
        self.format = self.fabric.format(**spec)

    def close(self):
        self.format.close()
        self.fabric.close()


class WeftTier(SecondaryTierManager):
    """Weft below vLLM's CPU cache.

    socket, domain, token: where and who, as in weft.connect().
    weights: what the weights are: "auto" (a digest of the files that the model's name stands for), or any text that
        changes when they do, such as a revision's full hash.
    adapters: folders of LoRA adapters that may be asked for.  vLLM's hash has an adapter's name and path; what lies
        there goes into the format by this.
    threads: how many copy.
    queued_stores_max: more than so many store jobs are not kept waiting but dropped.
    """

    def __init__(self, offloading_spec, primary_kv_view, tier_type, backpressure_detector=None, *, socket=None,
                 domain=None, token=None, weights="auto", adapters=(), salt="", threads=4, queued_stores_max=256,
                 timeout=5.0, locality=None, **unknown):
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        if unknown:
            raise refusal(f"the tier has no setting '{sorted(unknown)[0]}'; it has socket, domain, token, weights, "
                               "adapters, salt, threads, queued_stores_max, timeout")
        if locality is not None:
            raise refusal("the tier has no locality to set: Weft says itself where a block is")
        check_hashing()
        config = offloading_spec.config
        self._row = self._block_size_bytes
        self._flat = primary_kv_view.cast("B")
        if self._flat.readonly:
            raise refusal("the primary tier's memory is read-only, so nothing could be loaded into it")
        spec = self._format_spec(config, weights, adapters, salt)
        where = {"socket": socket, "domain": domain, "token": token}
        # Lookups have a connection of their own, which does not wait for a node that hangs.
        self._link = _Link(where, timeout, spec)
        self._probe = _Link(where, min(timeout, 0.1), spec)
        self._describer = Describer(self._link.format)
        self._away_until = 0.0
        self._positions = {}  # request: {(group, end token): identity}
        self._failed = {}  # identity: not to be found before this time
        self._lock = threading.Lock()  # of _failed and _counts
        self._chunk_tokens = {group.group_id: group.tokens_per_block * config.cache.blocks_per_chunk
                              for group in config.groups}
        self._chained = {group.group_id for group in config.groups if group.sliding_window_size_in_chunks is None}
        self._finished = collections.deque()
        self._counts = collections.Counter()
        self._warned = set()
        self._queued_stores_max = queued_stores_max
        self._closed = False
        self._jobs = _Jobs(threads, self._work)
        logger.info("weft: tier '%s' keeps rows of %d bytes as format %s", tier_type, self._row, spec["model"])

    def _format_spec(self, config, weights, adapters, salt):
        name = config.model.name
        known = weights_of(name, None, weights, logger)
        facts = facts_of(config)
        facts["row"] = self._row
        facts["weights"] = known
        facts["adapters"] = {}
        for folder in adapters:
            digest = _identity.folder_digest(folder)
            if digest is None:
                raise refusal(f"the adapter folder '{folder}' has no files of weights; give folders that have, or "
                                   "leave it out")
            facts["adapters"][str(folder)] = digest
        layers = sum(len(group.layer_names) for group in config.groups)
        return {"model": f"vllm-row:{label(name)}@{_identity.fingerprint({'name': name, **facts})}",
                "layers": min(max(layers, 1), 1024), "kv_heads": 1, "head_dim": 1,
                "dtype": DTYPES.get(config.model.dtype, "int8"),
                "block_tokens": config.groups[0].tokens_per_block * config.cache.blocks_per_chunk,
                "salt": salt, "block_bytes": self._row, "quality": "lossless"}

    # ------------------------------------------------------------------------------------ in the scheduler

    def _warn(self, what, sentence, *args):
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("weft: " + sentence, *args)

    def _away(self, error):
        """Do without the node for a second."""
        self._away_until = time.monotonic() + 1.0
        self._warn("away", "the node does not answer (%s); lookups miss until it does", error)

    def lookup(self, key, req_context):
        if len(key) != KEY_BYTES:
            self._warn("hash", "a block's name has %d bytes where a SHA-256 and a group's index have %d: not looked up "
                       "nor stored; set --prefix-caching-hash-algo sha256 or sha256_cbor", len(key), KEY_BYTES)
            return LookupResult.MISS
        key = bytes(key)
        self._note(key, req_context)
        if self._closed or (self._away_until and time.monotonic() < self._away_until):
            return LookupResult.MISS
        if self._failed and self._failed_lately(key):
            return LookupResult.MISS
        try:
            there = self._probe.format.match(self._probe.format.key(key)) == 1
        except weft.Error as error:
            self._away(error)
            return LookupResult.MISS
        if self._away_until:
            self._away_until = 0.0
            self._warned.discard("away")
        self._count("weft_hits" if there else "weft_misses", 1)
        return LookupResult.HIT if there else LookupResult.MISS

    def _count(self, name, count):
        with self._lock:
            self._counts[name] += count

    def _failed_lately(self, key):
        """So that a chunk whose load failed is computed, and not tried again at once and for ever."""
        now = time.monotonic()
        with self._lock:
            if len(self._failed) > _FAILED_MAX:
                self._failed = {each: until for each, until in self._failed.items() if until > now}
            return self._failed.get(key, 0.0) > now

    def _note(self, key, req_context):
        """Remember where in its request a chunk is: its parent is the one before."""
        end = req_context.get_offload_key_position(key)
        if end is not None:
            group = int.from_bytes(key[HASH_BYTES:], "big")
            self._positions.setdefault(req_context.req_id, {})[group, end] = key

    def _parts(self, keys, rows, req_context):
        """Runs of chunks that follow each other, with the chunk before each, as far as it is known."""
        known = self._positions.get(req_context.req_id, {})
        placed, loose = [], []
        for key, row in zip(keys, rows):
            group, end = int.from_bytes(key[HASH_BYTES:], "big"), req_context.get_offload_key_position(key)
            if end is None or group not in self._chained:
                loose.append((None, [key], [row]))
            else:
                placed.append((group, end, key, row))
        placed.sort()
        parts, last = [], None
        for group, end, key, row in placed:
            if last == (group, end - self._chunk_tokens.get(group, 0)):
                parts[-1][1].append(key)
                parts[-1][2].append(row)
            else:
                parts.append((known.get((group, end - self._chunk_tokens.get(group, 0))), [key], [row]))
            last = (group, end)
        return parts + loose

    def submit_store(self, job_metadata):
        keys = [bytes(key) for key in job_metadata.keys]
        rows = [int(row) for row in job_metadata.chunk_ids]
        if any(len(key) != KEY_BYTES for key in keys) or self._closed or \
                self._jobs.stores() >= self._queued_stores_max:
            self._count("weft_not_stored", len(keys))
            self._finished.append(JobResult(job_id=job_metadata.job_id, success=False))
            return
        self._check(keys, rows)
        for key in keys:
            self._note(key, job_metadata.req_context)
        self._jobs.put(_Job(job_metadata.job_id, False, keys, rows,
                            self._parts(keys, rows, job_metadata.req_context)))

    def submit_load(self, job_metadata):
        keys = [bytes(key) for key in job_metadata.keys]
        rows = [int(row) for row in job_metadata.chunk_ids]
        if self._closed:
            self._finished.append(JobResult(job_id=job_metadata.job_id, success=False))
            return
        self._check(keys, rows)
        self._jobs.put(_Job(job_metadata.job_id, True, keys, rows))

    def _check(self, keys, rows):
        count = len(self._flat) // self._row
        if len(keys) != len(rows) or any(not 0 <= row < count for row in rows):
            raise refusal(f"a job of {len(keys)} keys for {len(rows)} rows of 0 to {count - 1}, the primary tier's")

    def get_finished_jobs(self):
        results = []
        while self._finished:
            results.append(self._finished.popleft())
        return results

    def has_pending_work(self):
        return bool(self._jobs.count() or self._finished)

    def on_new_request(self, req_context):
        return RequestOffloadingContext()

    def on_request_finished(self, req_context):
        self._positions.pop(req_context.req_id, None)

    def drain_jobs(self):
        self._jobs.wait_idle()

    def shutdown(self):
        if self._closed:
            return
        self._closed = True
        for job in self._jobs.close():
            self._finished.append(JobResult(job_id=job.number, success=False))
        self._link.close()
        self._probe.close()
        self._flat.release()

    # ------------------------------------------------------------------------------------------ in threads

    def _work(self, job):
        begun = time.monotonic()
        good = []
        try:
            good = self._load(job) if job.loads else self._store(job)
        except weft.NodeError as error:
            self._away(error)
        except weft.Error as error:
            self._warn(type(error), "%s", error)
        except Exception:  # a job must be answered whatever happened, or vLLM holds its rows for ever
            logger.exception("weft: a %s of %d chunks failed", "load" if job.loads else "store", len(job.keys))
        missing = len(job.keys) - len(good)
        if job.loads:
            self._count("weft_loaded", len(good))
            self._count("weft_load_failures", missing)
            until, had = time.monotonic() + 1.0, set(good)
            with self._lock:
                self._failed.update((key, until) for key in job.keys if key not in had)
        else:
            self._count("weft_stored", len(good))
            self._count("weft_not_stored", missing)
        self._finished.append(JobResult(
            job_id=job.number, success=not missing,
            successful_keys=tuple(good) if job.loads and missing and good else None,
            transfer_time=time.monotonic() - begun, transfer_bytes=len(good) * self._row))

    def _store(self, job):
        good = []
        for parent, keys, rows in job.parts:
            if keys[0][HASH_BYTES:] == bytes(4):  # one group of layers; tokens are the engine's own events' to say
                self._describer.say(keys, [key[:HASH_BYTES] for key in keys], parent=parent and parent[:HASH_BYTES])
            names = self._link.format.keys_from_bytes(keys)
            before = self._link.format.key(parent) if parent else None
            if before is not None and not self._link.format.match(before):
                before = None
            good += self._store_chain(names, before, keys, rows)
        return good

    def _store_chain(self, names, before, keys, rows):
        good = []
        for at in range(0, len(keys), weft.BATCH_MAX):
            part = slice(at, at + weft.BATCH_MAX)
            try:
                slots = self._link.format.reserve(names[part], parent=before)
            except weft.ParentError:  # it went meanwhile: begin a chain of its own
                slots = self._link.format.reserve(names[part])
            with slots:
                for i, row in enumerate(rows[part]):
                    if slots.status(i) == "reserved":
                        slots.write(i, self._flat[row * self._row:(row + 1) * self._row])
            good += [key for key, status in zip(keys[part], slots.statuses()) if status in ("stored", "exists")]
            if len(good) < at + len(keys[part]):
                break  # no room: what follows would have no parent
            before = names[at + len(keys[part]) - 1]
        return good

    def _load(self, job):
        names = self._link.format.keys_from_bytes(job.keys)
        good, at = [], 0
        while at < len(names):
            with self._link.format.get(names[at:at + weft.BATCH_MAX], order="block") as pins:
                for i in range(len(pins)):
                    try:
                        pins.read_into(i, self._flat, job.rows[at + i] * self._row)
                        good.append(job.keys[at + i])
                    except (weft.MissError, weft.CorruptError) as error:
                        self._warn(type(error), "a chunk could not be loaded after all (%s); it is computed", error)
                held = len(pins)
            at += held if held == min(weft.BATCH_MAX, len(names) - at) else held + 1
        return good

    # -------------------------------------------------------------------------------------------- metrics

    @classmethod
    def build_metric_definitions(cls, extra_config):
        metrics = {f"vllm:{name}": OffloadingCounterMetadata(documentation=words) for name, words in _METRICS.items()}
        metrics[_QUEUED] = OffloadingGaugeMetadata(documentation="Jobs of the Weft tier that are not finished.")
        return metrics

    def get_stats(self):
        from vllm.distributed.kv_transfer.kv_connector.v1.offloading.metrics import OffloadingConnectorStats
        stats = OffloadingConnectorStats()
        with self._lock:
            counts, self._counts = self._counts, collections.Counter()
        for name, count in counts.items():
            if count:
                stats.increase_counter(f"vllm:{name}", count)
        stats.set_gauge(_QUEUED, self._jobs.count())
        return stats
