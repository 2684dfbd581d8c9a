# SPDX-License-Identifier: Apache-2.0
"""Weft below LMCache, in both of its modes.

The multiprocess server (`lmcache server`), as a native plugin:

    --l2-adapter '{"type": "native_plugin", "module_path": "weft.connectors.lmcache", "class_name": "WeftNative",
                   "adapter_params": {"model": "meta-llama/Llama-3.1-8B-Instruct", "dtype": "bf16"}}'

In the engine's process, as a remote connector:

    remote_storage_plugins: ["weft"]
    extra_config:
      remote_storage_plugin.weft.module_path: weft.connectors.lmcache
      remote_storage_plugin.weft.class_name: WeftConnectorAdapter

LMCache's names for chunks leave out what the weights are, and the server's the KV's dtype too, so both are said here and
part of every key.  A chunk comes back when its whole name, its metadata and its length are what was stored, and its
checksum holds; whatever differs is a miss.  docs/engines/lmcache.md has the recipe.
"""
import hashlib

import weft
from weft.connectors import _identity


def _refusal(sentence):
    return ValueError("weft: " + sentence)


def _joined(*fields):
    """Digest of (tag, text) pairs: each with its length, so that no two lists share bytes."""
    hasher = hashlib.sha256(b"weft-lmcache-1\0")
    for tag, value in fields:
        data = value if isinstance(value, bytes) else str(value).encode()
        hasher.update(f"{tag}\0{len(data)}\0".encode() + data)
    return hasher.hexdigest()


def _weights(weights, model, revision=None):
    """What the weights are, or a refusal."""
    if weights is None or weights == "auto":
        digest = _identity.weights_digest(model, revision) if model else None
        if digest is None:
            raise _refusal(f"the files of the model '{model}' are not on this machine, so nothing says which weights "
                           "they are; give \"weights\": a text that changes when they do, such as the revision's full "
                           "hash")
        return digest
    if not isinstance(weights, str) or not weights:
        raise _refusal("\"weights\" is a text that changes when the weights do")
    return weights


class WeftNative:
    """What LMCache's `native_plugin` asks for: batches of chunks, told of by an eventfd.

    model: the model's folder, or its name in Hugging Face's cache: its weights' digest becomes part of every key; or
    weights: a text that changes when they do, such as a revision's full hash.
    dtype: of the KV cache ("bf16", "fp8_e4m3" …); LMCache's name of a chunk does not have it.
    salt: shared only with who gives the same.
    socket, domain, token, timeout: where and who, as in weft.connect().
    workers: how many threads copy.
    """

    def __init__(self, *, model=None, weights=None, dtype=None, salt="", socket=None, domain=None, token=None,
                 timeout=5.0, workers=4, **unknown):
        if unknown:
            raise _refusal(f"WeftNative has no setting '{sorted(unknown)[0]}'; it has model, weights, dtype, salt, "
                           "socket, domain, token, timeout, workers")
        if model is None and weights is None:
            raise _refusal("LMCache's names of chunks do not say which weights made them; give in adapter_params "
                           "\"model\" (its folder or name) or \"weights\" (a text that changes when they do)")
        if not dtype:
            raise _refusal("LMCache's names of chunks leave out the KV cache's dtype; give in adapter_params \"dtype\", "
                           "such as \"bf16\"")
        self._identity = _joined(("weights", _weights(weights, model)), ("dtype", dtype), ("salt", salt))
        self._fabric = weft.connect(socket=socket, domain=domain, token=token, timeout=timeout)
        try:
            self._connector = self._fabric.connector("lmcache-native@" + self._identity, workers=workers)
        except BaseException:
            self._fabric.close()
            raise
        for name in ("event_fd", "submit_batch_get", "submit_batch_set", "submit_batch_exists", "submit_batch_delete",
                     "drain_completions"):
            setattr(self, name, getattr(self._connector, name))

    def close(self):
        self._connector.close()
        self._fabric.close()


# What follows needs LMCache itself; WeftNative is duck-typed and does not.
try:
    from lmcache.v1.storage_backend.connector import ConnectorAdapter
    from lmcache.v1.storage_backend.connector.base_connector import RemoteConnector
except ImportError:
    pass
else:
    import asyncio
    import concurrent.futures
    import json
    import logging

    import torch
    from lmcache.v1.memory_management import MemoryFormat

    _logger = logging.getLogger("lmcache.weft")
    _SETTINGS = ("weights", "revision", "salt", "socket", "domain", "token", "timeout", "threads")

    def name_of(key):
        """All that a CacheEngineKey says, each field tagged and with its length; LMCache's own text joins some of
        them with '@' and '%', which may be in them."""
        fields = [("model", key.model_name), ("world", key.world_size), ("worker", key.worker_id),
                  ("hash", key.chunk_hash_hex), ("dtype", key.dtype)]
        if hasattr(key, "layer_id"):
            fields.append(("layer", key.layer_id))
        for setting, value in sorted((key.request_configs or {}).items()):
            if setting.startswith("lmcache.tag.") or setting in ("lmcache.cache_salt", "cache_salt"):
                fields.append(("request." + setting, value))
        texts = [(tag, str(value)) for tag, value in fields]
        return "".join(f"{tag}={len(value.encode())}:{value};" for tag, value in texts)

    def meta_of(memory_obj):
        """How the bytes are to be read."""
        groups = zip(memory_obj.get_shapes(), memory_obj.get_dtypes(), strict=True)
        return json.dumps({"format": memory_obj.get_memory_format().name,
                           "groups": [[list(shape), str(dtype)] for shape, dtype in groups]}, separators=(",", ":"))

    def read_meta(meta):
        """(shapes, dtypes, format) of a meta, or None: it says nothing that this LMCache knows."""
        try:
            said = json.loads(meta)
            shapes = [torch.Size(int(n) for n in shape) for shape, _ in said["groups"]]
            dtypes = [getattr(torch, name.removeprefix("torch.")) for _, name in said["groups"]]
            good = shapes and all(isinstance(dtype, torch.dtype) for dtype in dtypes)
            return (shapes, dtypes, MemoryFormat[said["format"]]) if good else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    class WeftConnector(RemoteConnector):
        """Chunks of one engine.  All that waits or copies does so in threads of its own, never in LMCache's loop."""

        def __init__(self, loop, local_cpu_backend, config, metadata, plugin_name="weft"):
            super().__init__(config, metadata)
            given = {}
            for name, value in (config.extra_config or {}).items():
                before = f"remote_storage_plugin.{plugin_name}."
                if name.startswith(before) and name[len(before):] not in ("module_path", "class_name"):
                    given[name[len(before):]] = value
            unknown = sorted(set(given) - set(_SETTINGS))
            if unknown:
                raise _refusal(f"the plugin has no setting '{unknown[0]}'; it has {', '.join(_SETTINGS)}")
            self._layerwise = bool(getattr(config, "use_layerwise", False))
            self._expected = (self.meta_shapes, self.meta_dtypes)
            identity = _joined(
                ("weights", _weights(given.get("weights"), metadata.model_name, given.get("revision"))),
                ("salt", given.get("salt", "")), ("chunk", metadata.chunk_size), ("mla", metadata.use_mla),
                ("shapes", [list(shape) for shape in self.meta_shapes]), ("dtypes", self.meta_dtypes),
                ("layerwise", self._layerwise), ("serde", getattr(config, "remote_serde", None)),
                ("hash", getattr(config, "pre_caching_hash_algorithm", None)))
            self._local = local_cpu_backend
            self._told = None
            threads = int(given.get("threads", 4))
            self._fabric = weft.connect(socket=given.get("socket"), domain=given.get("domain"),
                                        token=given.get("token"), timeout=float(given.get("timeout", 5.0)))
            try:
                self._values = self._fabric.connector("lmcache@" + identity, workers=1)
            except BaseException:
                self._fabric.close()
                raise
            self._threads = concurrent.futures.ThreadPoolExecutor(threads, "weft-lmcache")

        # ---- what all calls do

        def _say(self, error):
            """A node that is away is said once, not for every chunk."""
            text = str(error)
            if text != self._told:
                _logger.warning("weft: %s; until then chunks are computed", text)
            self._told = text

        def _try(self, call, names, otherwise):
            try:
                result = call(names)
                self._told = None
                return result
            except weft.Error as error:
                self._say(error)
                return otherwise

        async def _run(self, call, *args):
            return await asyncio.wrap_future(self._threads.submit(call, *args))

        # ---- is it there

        def exists_sync(self, key):
            return self._try(self._values.exists, [name_of(key)], [False])[0]

        async def exists(self, key):
            return await self._run(self.exists_sync, key)

        def support_batched_contains(self):
            return True

        def batched_contains(self, keys):
            there = self._try(self._values.exists, [name_of(key) for key in keys], [])
            return there.index(False) if False in there else len(there)

        async def batched_async_contains(self, lookup_id, keys, pin=False):
            return await self._run(self.batched_contains, keys)

        # ---- get

        def _get(self, keys):
            """A MemoryObj of each, or None."""
            names = [name_of(key) for key in keys]
            found, at = [None] * len(keys), []
            looks = self._try(self._values.look, names, [None] * len(keys))
            for i, look in enumerate(looks):
                how = read_meta(look[1]) if look else None
                if how is None:
                    continue
                memory = self._local.allocate(*how)
                if memory is None:
                    break
                found[i] = memory
                if len(memory.byte_array) == look[0] and meta_of(memory).encode() == look[1]:
                    at.append(i)
            there = []
            try:
                there = self._values.get([names[i] for i in at], [found[i].byte_array for i in at],
                                         [looks[i][1] for i in at])
            except weft.Error as error:
                self._say(error)
            good = {i for i, is_there in zip(at, there) if is_there}
            for i, memory in enumerate(found):
                if memory is not None and i not in good:
                    memory.ref_count_down()
                    found[i] = None
            return found

        async def _got(self, keys):
            """What was loaded for somebody who does not wait any more is given back."""
            future = self._threads.submit(self._get, keys)
            try:
                return await asyncio.shield(asyncio.wrap_future(future))
            except asyncio.CancelledError:
                def give_back(done):
                    for memory in [] if done.cancelled() or done.exception() else done.result():
                        if memory is not None:
                            memory.ref_count_down()
                future.add_done_callback(give_back)
                raise

        async def get(self, key):
            return (await self._got([key]))[0]

        def support_batched_get(self):
            return True

        async def batched_get(self, keys):
            return await self._got(keys)

        async def batched_get_non_blocking(self, lookup_id, keys):
            """The leading run of what is there."""
            found = await self._got(keys)
            end = found.index(None) if None in found else len(found)
            for memory in found[end:]:
                if memory is not None:
                    memory.ref_count_down()
            return found[:end]

        # ---- put, remove

        def _put(self, keys, memory_objs):
            stored = self._values.put([name_of(key) for key in keys], [memory.byte_array for memory in memory_objs],
                                      [meta_of(memory) for memory in memory_objs])
            if not all(stored):
                _logger.debug("weft: %d of %d chunks were not stored: no room", stored.count(False), len(stored))

        async def put(self, key, memory_obj):
            await self.batched_put([key], [memory_obj])

        def support_batched_put(self):
            return False  # LMCache's wrapper gives references back for put() alone

        async def batched_put(self, keys, memory_objs):
            # Who cancels must not free what a thread still reads.
            future = self._threads.submit(self._put, keys, memory_objs)
            for memory in memory_objs:
                memory.ref_count_up()

            def let_go(_):
                for memory in memory_objs:
                    memory.ref_count_down()
            future.add_done_callback(let_go)
            try:
                await asyncio.wrap_future(future)
            except weft.Error as error:
                self._say(error)
                raise

        def remove_sync(self, key):
            return self._try(self._values.remove, [name_of(key)], [False])[0]

        # ---- the rest

        async def list(self):
            """None: names are digests in Weft, which keeps no list of them."""
            return []

        def support_ping(self):
            return True

        async def ping(self):
            try:
                await self._run(self._fabric.query, "status")
                return 0
            except weft.Error as error:
                self._say(error)
                return 1

        async def close(self):
            await asyncio.to_thread(self._threads.shutdown)
            self._values.close()
            self._fabric.close()

    class WeftConnectorAdapter(ConnectorAdapter):
        """Makes a WeftConnector for `plugin://weft`, or `plugin://weft.anything`."""

        def __init__(self):
            super().__init__("plugin://weft")

        def can_parse(self, url):
            return url == self.schema or url.startswith(self.schema + ".")

        def create_connector(self, context):
            return WeftConnector(context.loop, context.local_cpu_backend, context.config, context.metadata,
                                 context.plugin_name or "weft")
