# SPDX-License-Identifier: Apache-2.0
"""Weft below SGLang's HiCache, as a dynamic storage backend:

    --enable-hierarchical-cache --hicache-storage-backend dynamic --hicache-storage-backend-extra-config
      '{"backend_name": "weft", "module_path": "weft.connectors.sglang", "class_name": "WeftHiCache", "interface_v1": 1}'

SGLang names a page by a chained SHA-256 of its tokens, in which cache_salt and adapters are, and by nothing else.  What
the page's bytes mean is in the format that Weft's key hangs on: model and weights, dtype, heads, layers and the part of
them that this rank has, page size, and the order of the bytes.  Anything else has other keys, and is a miss.

With interface_v1 pages are stored in Weft's own order, whatever the host pool's layout is, so that servers with different
layouts share.  On the plain path SGLang hands over bytes in its layout's order, and only the same layout finds them.

A node that is away is a storage that has nothing.  Nothing here ever answers None where SGLang waits for a list.
docs/engines/sglang.md has the recipe.
"""
import logging
import threading

import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheStorage

import weft
from weft.connectors import _identity
from weft.connectors._describe import Describer

logger = logging.getLogger("sglang.weft")

_DTYPES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32", torch.float8_e4m3fn: "fp8_e4m3",
           torch.float8_e5m2: "fp8_e5m2"}
_NAMES = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "f16", "f16": "f16", "float16": "f16", "half": "f16",
          "f32": "f32", "float32": "f32", "fp8_e4m3": "fp8_e4m3", "float8_e4m3fn": "fp8_e4m3",
          "fp8_e5m2": "fp8_e5m2", "float8_e5m2": "fp8_e5m2"}
_SETTINGS = ("weights", "revision", "kv_dtype", "salt", "socket", "domain", "token", "timeout")
_OF_SGLANG = ("backend_name", "module_path", "class_name", "interface_v1", "prefetch_threshold",
              "prefetch_timeout_base", "prefetch_timeout_per_ki_token", "hicache_storage_pass_prefix_keys")

# Of a pool's whole buffer, per layout: its shape, from (tokens, pages, page, layers, heads, dim).
_MHA = {
    "layer_first": lambda t, n, p, l, h, d: (2, l, t, h, d),
    "page_first": lambda t, n, p, l, h, d: (2, t, l, h, d),
    "page_first_direct": lambda t, n, p, l, h, d: (2, n, l, p, h, d),
    "page_head": lambda t, n, p, l, h, d: (2, n, h, p, l, d),
}
_MLA = {
    "layer_first": lambda t, n, p, l, h, d: (l, t, 1, d),
    "page_first": lambda t, n, p, l, h, d: (t, l, 1, d),
    "page_first_direct": lambda t, n, p, l, h, d: (n, l, p, 1, d),
}


def _refusal(sentence):
    return ValueError("weft: " + sentence)


class _Layout:
    """How a host pool lies in memory: known and checked, or refused."""

    def __init__(self, pool):
        kind = type(pool).__name__
        self.mla = kind == "MLATokenToKVPoolHost"
        if not self.mla and kind != "MHATokenToKVPoolHost":
            raise _refusal(f"host pools of class {kind} hold more than K and V pages, which this backend cannot store "
                           "whole; it stores MHATokenToKVPoolHost and MLATokenToKVPoolHost")
        known = _MLA if self.mla else _MHA
        if pool.layout not in known:
            raise _refusal(f"the host layout '{pool.layout}' is not known; set --hicache-mem-layout to one of "
                           f"{', '.join(known)}")
        if getattr(pool, "dcp_size", 1) != 1:
            raise _refusal("decode context parallelism spreads a page over ranks, which this backend does not store; "
                           "turn it off, or HiCache's storage")
        self.name, self.page, self.layers = pool.layout, pool.page_size, pool.layer_num
        self.heads = 1 if self.mla else pool.head_num
        self.dim = pool.kv_cache_dim if self.mla else pool.head_dim
        if not self.mla and getattr(pool, "v_head_dim", pool.head_dim) != pool.head_dim:
            raise _refusal(f"K has {pool.head_dim} elements a head and V {pool.v_head_dim}; this backend stores models "
                           "where they are alike")
        buffer = pool.kv_buffer
        want = known[self.name](pool.size, pool.size // self.page, self.page, self.layers, self.heads, self.dim)
        if tuple(buffer.shape) != want or buffer.dtype != pool.dtype or not buffer.is_contiguous() or buffer.is_cuda:
            raise _refusal(f"a host pool of layout {self.name} should be a contiguous {want} of {pool.dtype} in host "
                           f"memory and is {tuple(buffer.shape)} of {buffer.dtype}; this SGLang lays it out in a way "
                           "that is not known here")
        self.buffer = buffer.view(torch.uint8)  # the last dimension in bytes
        self.tokens = pool.size
        self.bytes = buffer.element_size() * (1 if self.mla else 2) * self.layers * self.page * self.heads * self.dim

    def shape(self):
        """Of a page in Weft's order, in bytes: (layers, K and V, tokens, heads, dim), of MLA (layers, tokens, dim)."""
        wide = self.dim * self.bytes // ((1 if self.mla else 2) * self.layers * self.page * self.heads * self.dim)
        return (self.layers, self.page, wide) if self.mla else (self.layers, 2, self.page, self.heads, wide)

    def view(self, index):
        """The page that begins at token `index`, as a view in Weft's order."""
        if index % self.page or not 0 <= index <= self.tokens - self.page:
            raise _refusal(f"a page begins at token {index} of a host pool of {self.tokens}, which is no page of "
                           f"{self.page}")
        at, end, number = index, index + self.page, index // self.page
        if self.mla:
            page = {"layer_first": lambda b: b[:, at:end], "page_first": lambda b: b[at:end].transpose(0, 1),
                    "page_first_direct": lambda b: b[number]}[self.name](self.buffer)
            return page.squeeze(2)
        return {"layer_first": lambda b: b[:, :, at:end].transpose(0, 1),
                "page_first": lambda b: b[:, at:end].permute(2, 0, 1, 3, 4),
                "page_first_direct": lambda b: b[:, number].transpose(0, 1),
                "page_head": lambda b: b[:, number].permute(3, 0, 2, 1, 4)}[self.name](self.buffer)


class WeftHiCache(HiCacheStorage):
    """Pages of one rank.

    In the backend's extra config: weights ("auto", the default: a digest of the model's files; or a text that changes
    when they do), revision, kv_dtype (needed where the host pool does not say it), salt, socket, domain, token, timeout.
    """

    def __init__(self, storage_config, kwargs=None):
        given = {name: value for name, value in (storage_config.extra_config or {}).items() if name not in _OF_SGLANG}
        unknown = sorted(set(given) - set(_SETTINGS))
        if unknown:
            raise _refusal(f"the backend has no setting '{unknown[0]}'; it has {', '.join(_SETTINGS)}")
        if not storage_config.model_name:
            raise _refusal("SGLang gave no model name, so nothing says what the pages are of")
        self._config, self._given = storage_config, given
        self._weights = given.get("weights", "auto")
        if self._weights == "auto":
            self._weights = _identity.weights_digest(storage_config.model_name, given.get("revision"))
        if not self._weights or not isinstance(self._weights, str):
            raise _refusal(f"the files of the model '{storage_config.model_name}' are not on this machine, so nothing "
                           "says which weights they are; give \"weights\": a text that changes when they do")
        self._fabric = weft.connect(socket=given.get("socket"), domain=given.get("domain"), token=given.get("token"),
                                    timeout=float(given.get("timeout", 5.0)))
        self._layout, self._formats, self._told = None, {}, None
        self._describers = {}
        ranks = [getattr(storage_config, name, 0) for name in ("tp_rank", "pp_rank", "attn_cp_rank")]
        self._describes = not any(ranks)  # one rank, as all have the same pages
        self._local = threading.local()
        self._counts = {"hits": 0, "misses": 0, "stored": 0, "not_stored": 0}

    # ---- what pages are

    def register_mem_pool_host(self, mem_pool_host):
        """Checks the pool's layout, and refuses what it does not know before anything is read or written."""
        layout = _Layout(mem_pool_host)
        dtype = _DTYPES.get(mem_pool_host.dtype)
        said = self._given.get("kv_dtype")
        if said is not None and said not in _NAMES:
            raise _refusal(f"kv_dtype '{said}' is none of {', '.join(sorted(set(_NAMES.values())))}")
        if dtype is None and said is None:
            raise _refusal(f"the host pool holds {mem_pool_host.dtype}, which says how wide an element is and not what "
                           "it is; give \"kv_dtype\" in the backend's extra config, such as \"fp8_e5m2\"")
        if dtype is not None and said is not None and _NAMES[said] != dtype:
            raise _refusal(f"kv_dtype says {said} and the host pool holds {dtype}")
        super().register_mem_pool_host(mem_pool_host)
        self._dtype, self._stored = dtype or _NAMES[said], str(mem_pool_host.dtype)
        self._layers = [getattr(mem_pool_host, "start_layer", 0), getattr(mem_pool_host, "end_layer", layout.layers)]
        self._layout = layout
        self._formats, self._describers = {}, {}

    def _format(self, order):
        """The format of pages whose bytes are in this order."""
        if self._layout is None:
            raise RuntimeError("weft: no host pool was registered, so nothing says what a page is; this is SGLang's "
                               "register_mem_pool_host()")
        fmt = self._formats.get(order)
        if fmt is None:
            config, layout = self._config, self._layout
            replicated = bool(config.is_mla_model)  # every rank has the same pages, whatever the parallelism
            facts = _identity.fingerprint({
                "order": order, "mla": layout.mla, "stored": self._stored, "layers": self._layers,
                "pp": [config.pp_rank, config.pp_size], "cp": [config.attn_cp_rank, config.attn_cp_size],
                "salt": self._given.get("salt", "")})
            fmt = self._formats[order] = self._fabric.format(
                f"{config.model_name}@{self._weights}", layers=layout.layers, kv_heads=layout.heads,
                head_dim=layout.dim, dtype=self._dtype, block_tokens=layout.page,
                tp_rank=0 if replicated else config.tp_rank, tp_size=1 if replicated else config.tp_size,
                salt="sglang:" + facts, block_bytes=0 if order == "weft" and not layout.mla else layout.bytes)
        return fmt

    def _describe(self, fmt, keys, before):
        """Say what SGLang's KV events call the pages: the first 8 bytes of their hash.  Tokens are those events' to say."""
        try:
            hashes = [bytes.fromhex(key[:16]) for key in keys]
            parent = bytes.fromhex(before[-1][:16]) if before else None
        except ValueError:
            return
        if self._describes and all(len(each) == 8 for each in [*hashes, parent or hashes[0]]):
            self._describers.setdefault(fmt, Describer(fmt)).say([key.encode() for key in keys], hashes, parent=parent)

    @staticmethod
    def _keys(fmt, keys):
        return fmt.keys_from_bytes([key.encode() for key in keys])

    def _say(self, error):
        """A node that is away is said once, not for every page."""
        if str(error) != self._told:
            logger.warning("weft: %s; until then pages are computed", error)
        self._told = str(error)

    # ---- the two ways in and out

    def _put(self, order, keys, write, extra_info=None):
        """Store pages; write(i, memory) fills the i-th.  [bool] of each."""
        try:
            fmt = self._format(order)
            named = self._keys(fmt, keys)
            before = getattr(extra_info, "prefix_keys", None)
            parent = fmt.key(before[-1].encode()) if before else None
            self._describe(fmt, keys, before)
            done = []
            for at in range(0, len(keys), weft.BATCH_MAX):
                part = named[at:at + weft.BATCH_MAX]
                try:
                    slots = fmt.reserve(part, parent=parent)
                except weft.ParentError:  # what is before it is on no tier of Weft's; it is of use all the same
                    slots = fmt.reserve(part)
                with slots:
                    for i in range(len(part)):
                        if slots.status(i) == "reserved":
                            memory = slots[i]
                            write(at + i, memory)
                            memory.release()
                    done += [status in ("stored", "exists") for status in slots.commit()]
                parent = named[at + len(part) - 1]
            self._told = None
        except weft.Error as error:
            self._say(error)
            done = [False] * len(keys)
        self._counts["stored"] += sum(done)
        self._counts["not_stored"] += len(done) - sum(done)
        return done

    def _get(self, order, keys, read):
        """Hand the leading run of pages that is there to read(i, bytes).  [bool] of each."""
        done = [False] * len(keys)
        try:
            fmt = self._format(order)
            with fmt.get(self._keys(fmt, keys), order="block") as pins:
                room = getattr(self._local, "room", None)
                if room is None or len(room) != fmt.block_bytes:
                    room = self._local.room = bytearray(fmt.block_bytes)
                for i in range(len(pins)):
                    pins.read_into(i, room)  # verified: nothing of a damaged page reaches the pool
                    read(i, room)
                    done[i] = True
            self._told = None
        except (weft.MissError, weft.CorruptError):
            pass
        except weft.Error as error:
            self._say(error)
        self._counts["hits"] += sum(done)
        self._counts["misses"] += len(done) - sum(done)
        return done

    def _there(self, order, keys):
        """How many, from the first, are there."""
        try:
            fmt = self._format(order)
            count = 0
            for key in self._keys(fmt, keys):  # each: a chain may have begun anew behind a gap
                if not fmt.match(key):
                    break
                count += 1
            self._told = None
            return count
        except weft.Error as error:
            self._say(error)
            return 0

    # ---- interface_v1: host memory to pool, and back

    def _starts(self, keys, host_indices):
        page = self._layout.page if self._layout else 0
        if self._layout is None:
            self._format("weft")  # says what is missing
        if len(host_indices) != len(keys) * page:
            raise _refusal(f"{len(host_indices)} host indices for {len(keys)} pages of {page} tokens")
        return [int(index) for index in host_indices[::page]]

    def batch_set_v1(self, keys, host_indices, extra_info=None):
        starts, layout = self._starts(keys, host_indices), self._layout

        def write(i, memory):
            torch.frombuffer(memory, dtype=torch.uint8).view(layout.shape()).copy_(layout.view(starts[i]))
        return self._put("weft", keys, write, extra_info)

    def batch_get_v1(self, keys, host_indices, extra_info=None):
        starts, layout = self._starts(keys, host_indices), self._layout

        def read(i, room):
            layout.view(starts[i]).copy_(torch.frombuffer(room, dtype=torch.uint8).view(layout.shape()))
        return self._get("weft", keys, read)

    # ---- the plain path: bytes as SGLang hands them over

    def _interface_v1(self):
        return bool((self._config.extra_config or {}).get("interface_v1", 0))

    def _plain(self):
        if self._layout is None:
            self._format("weft")
        return "sglang." + self._layout.name

    @staticmethod
    def _flat(tensor, bytes_wanted):
        flat = tensor.contiguous().view(-1).view(torch.uint8) if isinstance(tensor, torch.Tensor) else None
        return flat if flat is not None and flat.numel() == bytes_wanted else None

    def batch_set(self, keys, values=None, target_locations=None, target_sizes=None):
        order = self._plain()
        flats = [self._flat(value, self._layout.bytes) for value in values or []]
        if len(flats) != len(keys) or any(flat is None for flat in flats):
            raise _refusal(f"{len(keys)} pages of {self._layout.bytes} bytes were announced and others came")

        def write(i, memory):
            torch.frombuffer(memory, dtype=torch.uint8).copy_(flats[i])
        return all(self._put(order, keys, write))

    def batch_get(self, keys, target_locations=None, target_sizes=None):
        order, targets, found = self._plain(), target_locations or [None] * len(keys), [None] * len(keys)

        def read(i, room):
            target = targets[i]
            if target is None:
                target = torch.empty(len(room), dtype=torch.uint8).view(self.mem_pool_host.dtype)
            flat = target.view(-1).view(torch.uint8)
            if flat.numel() == len(room):
                flat.copy_(torch.frombuffer(room, dtype=torch.uint8))
                found[i] = target
        self._get(order, keys, read)
        return found

    def set(self, key, value=None, target_location=None, target_sizes=None):
        return self.batch_set([key], [value])

    def get(self, key, target_location=None, target_sizes=None):
        return self.batch_get([key], [target_location])[0]

    # ---- is it there

    def exists(self, key):
        return self.batch_exists([key]) == 1

    def batch_exists(self, keys, extra_info=None):
        return self._there("weft" if self._interface_v1() else self._plain(), keys)

    # ---- the rest

    def clear(self):
        """Weft evicts by itself, and other servers may use what is there: nothing is dropped."""

    def get_stats(self):
        return None

    def counts(self):
        """Pages since the start: hits, misses, stored, not_stored."""
        return dict(self._counts)

    def close(self):
        for fmt in self._formats.values():
            fmt.close()
        self._fabric.close()
