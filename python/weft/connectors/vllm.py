# SPDX-License-Identifier: Apache-2.0
"""A KV connector for vLLM: blocks go from its paged cache to Weft and back, by themselves.

    --kv-transfer-config '{"kv_connector": "WeftConnector", "kv_connector_module_path": "weft.connectors.vllm",
                           "kv_role": "kv_both", "kv_load_failure_policy": "recompute"}'

A block is named by vLLM's own chained hash (tokens, images, cache_salt, LoRA's name and path) and, when it was computed
with a LoRA adapter, by a digest of that adapter's files.  Its payload is every layer's page in vLLM's logical order;
the shape that this order has, and everything else that says how to read it, is in the format.  Tensors of a shape that
is not known are refused when they are registered.

The scheduler's half looks blocks up in shared memory.  The worker's half loads in a thread, checks every block's
checksum, and reports each block that did not come as one that failed; it saves after the forward pass and before the
step ends, as long as vLLM holds the blocks still.  With `hand_over` each layer is saved when it is computed, and goes
to the node of that name meanwhile.  docs/engines/vllm.md has the recipe.
"""
import concurrent.futures
import dataclasses
import logging
import os
import threading

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole

import weft
from weft.connectors import _identity
from weft.connectors._describe import Describer
from weft.connectors._vllm import DTYPES, HASH_BYTES, check_algorithm, check_hashing, label, refusal, weights_of

logger = logging.getLogger("vllm.weft")

# Forms of a layer's tensor, by what a block's page is in logical order.
PACKED = "HNC"  # (blocks, heads, tokens, K and V side by side): vLLM's from 0.26 on, whatever its KVCacheLayout
SPLIT = "2NHD"  # (2, blocks, tokens, heads, size) or (blocks, 2, tokens, heads, size): before
PUSHED_MAX = 512  # blocks of a request and a step: weft.h's WEFT_BATCH_MAX
CPU = "CPU-"    # and an instruction set: PACKED's shape, but inside of a page K lies transposed, or both lie in tiles

# A shape does not say what lies inside of it: ROCm's and the CPU's backends have shapes of others and orders of their
# own.  These read K and V as the form says.
_BACKENDS = "vllm.v1.attention.backends."
_AS_SHAPED = tuple(_BACKENDS + name for name in ("flash_attn", "flashinfer", "triton_attn", "flex_attention"))


def form_of(shape, blocks, tokens, heads, size):
    """Which form a tensor has, and the dimension its blocks are in.  A shape that fits none is refused, and so is one
    that fits two: nothing is guessed."""
    shape, found = tuple(shape), []
    if shape == (blocks, heads, tokens, 2 * size):
        found.append((PACKED, 0))
    if shape == (2, blocks, tokens, heads, size):
        found.append((SPLIT, 1))
    if shape == (blocks, 2, tokens, heads, size):
        found.append((SPLIT, 0))
    if len(found) != 1:
        raise refusal(f"a KV cache of shape {shape}, with {blocks} blocks of {tokens} tokens, {heads} heads of {size}, "
                      f"is {'more than one' if found else 'none'} of the layouts that Weft knows, ({blocks}, {heads}, "
                      f"{tokens}, {2 * size}), (2, {blocks}, {tokens}, {heads}, {size}) and ({blocks}, 2, {tokens}, "
                      f"{heads}, {size}); use WeftTier with TieringOffloadingSpec, which reads no layout")
    return found[0]


def form_expected(config, shape):
    """The form that this vLLM's tensors have: the scheduler's half sees none."""
    from vllm.platforms import current_platform
    if current_platform.is_cpu():
        from vllm.v1.attention.backends import cpu_attn
        return CPU + cpu_attn._get_attn_isa(config.model_config.dtype, shape.tokens, shape.size,
                                            config.cache_config.cache_dtype)
    try:
        import vllm.v1.kv_cache_layout  # noqa: F401
        return PACKED
    except ImportError:
        return SPLIT


def form_inside(name, layer, form):
    """What a tensor is whose shape is `form`, by the attention backend that reads it."""
    backend = layer.get_attn_backend()
    if backend.__module__ in _AS_SHAPED:
        return form
    if backend.__module__ == _BACKENDS + "cpu_attn" and form == PACKED:
        return CPU + layer.isa
    raise refusal(f"layer '{name}' is of {backend.__module__}.{backend.__name__}, and how that orders K and V inside of "
                  "a block is not known here; choose another --attention-backend, or use WeftTier with "
                  "TieringOffloadingSpec, which keeps whole rows")


@dataclasses.dataclass
class Transfer:
    """Blocks of one request: where in vLLM's cache, and what they are called."""
    request: str
    blocks: list
    names: list
    parent: bytes = b""


@dataclasses.dataclass
class _Push:
    """Blocks that are saved layer by layer, and go to another node meanwhile."""
    transfer: Transfer
    keys: object
    slots: object
    wanted: list    # of them, by number: the others are there
    indices: object  # of these, in vLLM's cache
    begun: bool = False
    goes: bool = False


@dataclasses.dataclass
class WeftMetadata(KVConnectorMetadata):
    loads: list = dataclasses.field(default_factory=list)
    saves: list = dataclasses.field(default_factory=list)


class _Shape:
    """One group of layers of full attention, which is what can be read block by block."""

    def __init__(self, config, kv_config):
        groups, parallel = kv_config.kv_cache_groups, config.parallel_config
        if len(groups) != 1:
            raise refusal(f"the model has {len(groups)} groups of KV caches; the connector has one (start vLLM with "
                          "--disable-hybrid-kv-cache-manager), or use WeftTier with TieringOffloadingSpec")
        for name in ("pipeline", "decode_context", "prefill_context"):
            if getattr(parallel, f"{name}_parallel_size", 1) != 1:
                raise refusal(f"{name.replace('_', ' ')} parallelism of more than 1; use WeftTier with "
                              "TieringOffloadingSpec, which keeps whole rows")
        spec = groups[0].kv_cache_spec
        if type(spec).__name__ != "FullAttentionSpec":
            raise refusal(f"a KV cache of {type(spec).__name__}; the connector reads FullAttentionSpec: use WeftTier "
                          "with TieringOffloadingSpec, which keeps whole rows")
        self.names = list(groups[0].layer_names)
        self.tokens, self.heads, self.size = spec.block_size, spec.num_kv_heads, spec.head_size
        self.dtype, self.blocks = spec.dtype, kv_config.num_blocks
        if getattr(spec, "head_size_v", spec.head_size) != spec.head_size or \
                getattr(spec, "state_content_bytes", None) is not None:
            raise refusal("K and V of other sizes than each other's, or with scales among them; use WeftTier with "
                          "TieringOffloadingSpec, which keeps whole rows")
        hashed = getattr(kv_config, "hash_block_size", None) or self.tokens
        if hashed != self.tokens:
            raise refusal(f"blocks of {self.tokens} tokens that are hashed by {hashed}; use one size, or WeftTier")
        self.page = 2 * self.tokens * self.heads * self.size * torch.empty(0, dtype=self.dtype).element_size()


def format_spec(config, shape, rank, form, weights, salt, layout):
    """The format of one tensor-parallel rank's blocks: all that says what their bytes mean."""
    model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
    facts = {
        "name": model.model, "weights": weights, "form": form, "layout": layout,
        "layers": shape.names, "dtype": str(shape.dtype), "cache_dtype": str(cache.cache_dtype),
        "model_dtype": str(model.dtype), "quantization": str(getattr(model, "quantization", None)),
        "backend": str(getattr(getattr(config, "attention_config", None), "backend", None)),
        "rope": str(getattr(getattr(model, "hf_text_config", None), "rope_parameters", None) or
                    getattr(getattr(model, "hf_text_config", None), "rope_scaling", None)),
    }
    known = DTYPES.get(str(shape.dtype).removeprefix("torch."), "int8")
    return {"model": f"vllm-block:{label(model.model)}@{_identity.fingerprint(facts)}", "layers": len(shape.names),
            "kv_heads": shape.heads, "head_dim": shape.size, "dtype": known, "block_tokens": shape.tokens,
            "tp_rank": rank, "tp_size": parallel.tensor_parallel_size, "salt": salt,
            "block_bytes": shape.page * len(shape.names), "quality": "lossless"}


class _Adapters:
    """Digests of LoRA adapters' files, read by a thread: the scheduler asks again later.  vLLM keeps an adapter's
    weights from its first request on, so files that change after that say nothing of what it computes with."""

    def __init__(self):
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "weft-lora")
        self._known = {}

    @staticmethod
    def _stamp(path):
        try:
            with os.scandir(path) as files:
                return tuple(sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files))
        except OSError:
            return None

    def digest(self, path):
        """Bytes; b"" when its files are not here, or changed since; None: not known yet."""
        stamp = self._stamp(path)
        if stamp is None:
            return b""
        had = self._known.get(path)
        if had is None:
            had = self._known[path] = (stamp, self._pool.submit(_identity.folder_digest, path))
        if had[0] != stamp:
            return b""
        if not had[1].done():
            return None
        return bytes.fromhex(had[1].result() or "") if had[1].exception() is None else b""

    def close(self):
        self._pool.shutdown(cancel_futures=True)


class _Scheduler:
    """What is there, what is to be loaded, what is to be saved."""

    def __init__(self, connector, formats, tokens):
        self._connector, self._formats, self._tokens = connector, formats, tokens
        self._adapters = _Adapters()
        self._describer = Describer(formats[0])  # of one rank, as all have the same blocks
        self._epoch = b""
        self._requests, self._tables, self._saved = {}, {}, {}
        self._matched, self._loads = {}, []

    def names(self, request, first=0, last=None):
        """What the blocks are called; None: it is not known yet, [] when they must not be shared."""
        adapter = b""
        if request.lora_request is not None:
            adapter = self._adapters.digest(request.lora_request.lora_path)
            if adapter is None:
                return None
            if not adapter:
                self._connector.warn("lora", "the adapter '%s' has no files at '%s', or others than when it was "
                                     "first used: nothing tells its weights from others of that name, so its requests "
                                     "are neither looked up nor kept; give a folder of this machine as its path, and a "
                                     "new folder to new weights", request.lora_request.lora_name,
                                     request.lora_request.lora_path)
                return []
        hashes = request.block_hashes[first:last]
        if any(len(each) != HASH_BYTES for each in hashes):
            raise refusal("a block's hash has not the 32 bytes of SHA-256; set --prefix-caching-hash-algo sha256")
        return [bytes(each) + adapter + self._epoch for each in hashes]

    def _describe(self, request, first, names):
        """Say what blocks from number `first` on stand for.  Images, salts and embeddings are in vLLM's hashes and not
        among its tokens, which by themselves would say too much."""
        last, tokens = first + len(names), getattr(request, "all_token_ids", None)
        if any(getattr(request, what, None) for what in ("mm_features", "cache_salt")) or \
                getattr(request, "prompt_embeds", None) is not None:
            tokens = None
        self._describer.say(
            names, [bytes(each) for each in request.block_hashes[first:last]],
            tokens=list(tokens[first * self._tokens:last * self._tokens]) if tokens is not None else None,
            parent=bytes(request.block_hashes[first - 1]) if first else None,
            lora=request.lora_request.lora_name if request.lora_request is not None else None)

    def matched(self, request, computed):
        self._requests[request.request_id] = request
        first, last = computed // self._tokens, (request.num_tokens - 1) // self._tokens
        if not self._connector.loads or last <= first or getattr(request, "skip_reading_prefix_cache", False):
            return 0, False
        names = self.names(request, first, last)
        if names is None:
            return None, False
        there = len(names)
        try:
            for fmt in self._formats:  # a block is there when it is for every rank
                there = min(there, fmt.match(fmt.keys_from_bytes(names[:there]))) if there else 0
        except weft.Error as error:
            self._connector.warn("away", "blocks cannot be looked up (%s); they are computed", error)
            there = 0
        self._matched[request.request_id] = (first, names[:there])
        return there * self._tokens, there > 0

    def allocated(self, request, blocks, external):
        first, names = self._matched.pop(request.request_id, (0, []))
        count = external // self._tokens
        if count > 0:
            table = blocks.get_block_ids()[0]
            self._loads.append(Transfer(request.request_id, list(table[first:first + count]), names[:count]))
            self._describe(request, first, names[:count])

    def meta(self, output):
        made = WeftMetadata(loads=self._loads)
        self._loads = []
        cached = output.scheduled_cached_reqs
        for new in output.scheduled_new_reqs:
            self._tables[new.req_id], self._saved[new.req_id] = list(new.block_ids[0]), 0
            self._save(made, output, new.req_id, new.num_computed_tokens)
        for i, number in enumerate(cached.req_ids):
            more = cached.new_block_ids[i]
            if number in cached.resumed_req_ids:
                self._tables[number], self._saved[number] = list(more[0]) if more else [], 0
            elif more:
                self._tables.setdefault(number, []).extend(more[0])
            self._save(made, output, number, cached.num_computed_tokens[i])
        return made

    def _save(self, made, output, number, computed):
        """The blocks that are full, and whose tokens are certain, when this step is done."""
        request = self._requests.get(number)
        if request is None or not self._connector.saves:
            return
        table, first = self._tables.get(number, []), self._saved.get(number, 0)
        done = (computed + output.num_scheduled_tokens.get(number, 0)) // self._tokens
        last = min(done, len(request.block_hashes), len(table))
        if last <= first:
            return
        names = self.names(request, max(first - 1, 0), last)
        if names is None:
            return  # the next step will
        self._saved[number] = last
        if names:
            parent = names.pop(0) if first else b""
            made.saves.append(Transfer(number, table[first:last], names, parent))
            self._describe(request, first, names)

    def finished(self, request):
        for each in (self._requests, self._tables, self._saved, self._matched):
            each.pop(request.request_id, None)

    def reset(self):
        """Nothing that was stored before is found again: the weights may be others."""
        self._epoch = os.urandom(16)
        return True

    def close(self):
        self._adapters.close()


class _Worker:
    """Copies between vLLM's tensors and Weft's blocks."""

    def __init__(self, connector, fmt, shape, form, readers):
        self._connector, self._format, self._shape, self._form = connector, fmt, shape, form
        self._readers = readers
        self._layers = []
        self._pool = concurrent.futures.ThreadPoolExecutor(connector.threads, "weft-load")
        self._lock = threading.Lock()
        self._done, self._bad = set(), set()
        self._pushes, self._written = [], 0  # of this step, and how many layers of them

    def register(self, caches):
        missing = [name for name in self._shape.names if name not in caches]
        if missing:
            raise refusal(f"vLLM registered no KV cache of layer '{missing[0]}', which its configuration has")
        layers = []
        for name in self._shape.names:
            tensor = caches[name]
            form, dim = form_of(tensor.shape, self._shape.blocks, self._shape.tokens, self._shape.heads, self._shape.size)
            form = form_inside(name, self._readers[name], form)
            if form != self._form:
                mend = f"set \"form\": \"{form}\" in kv_connector_extra_config"
                raise refusal(f"layer '{name}' is of the form {form} where this vLLM is taken to have {self._form}; "
                              f"{mend if form in (PACKED, SPLIT) else 'choose another --attention-backend'}")
            if tensor.element_size() != torch.empty(0, dtype=self._shape.dtype).element_size():
                raise refusal(f"layer '{name}' is of {tensor.dtype} where its configuration says {self._shape.dtype}")
            layers.append((tensor, dim))
        self._layers = layers

    # A page in logical order is (tokens …) of one block, whatever the strides of the tensor are.

    def _gather(self, tensor, dim, blocks):
        pages = tensor.index_select(dim, blocks)
        if dim:
            pages = pages.transpose(0, dim)
        return pages.contiguous().reshape(len(blocks), -1).view(torch.uint8).cpu()

    def _scatter(self, tensor, dim, blocks, pages):
        shape = list(tensor.shape)
        del shape[dim]
        values = pages.view(tensor.dtype).reshape(len(blocks), *shape).to(tensor.device)
        tensor.index_copy_(dim, blocks, values.transpose(0, dim) if dim else values)

    def _indices(self, blocks):
        return torch.tensor(blocks, dtype=torch.int64, device=self._layers[0][0].device)

    def _sync(self):
        if self._layers and self._layers[0][0].is_cuda:
            torch.cuda.synchronize(self._layers[0][0].device)

    def load(self, transfer):
        if not self._layers:
            raise refusal("vLLM registered no KV caches before it loaded into them")
        self._pool.submit(self._load, transfer)

    def _load(self, transfer):
        good = 0
        try:
            good = self._fetch(transfer)
        except weft.Error as error:
            self._connector.warn("load", "blocks could not be loaded (%s); they are computed", error)
        except Exception:  # vLLM waits for an answer whatever happened
            logger.exception("weft: a load of %d blocks failed", len(transfer.blocks))
        with self._lock:
            self._bad.update(transfer.blocks[good:])
            self._done.add(transfer.request)

    def _fetch(self, transfer):
        """How many blocks, from the first, came whole."""
        names, good, page = self._format.keys_from_bytes(transfer.names), 0, self._shape.page
        for at in range(0, len(names), 64):
            with self._format.get(names[at:at + 64], order="block") as pins:
                staging = torch.empty((len(pins), self._format.block_bytes), dtype=torch.uint8)
                held, memory = 0, memoryview(staging.numpy()).cast("B") if len(pins) else None
                try:
                    for held in range(len(pins)):
                        pins.read_into(held, memory, held * self._format.block_bytes)
                    held = len(pins)
                except (weft.MissError, weft.CorruptError) as error:
                    self._connector.warn("load", "a block could not be loaded after all (%s); it is computed", error)
                if held:
                    blocks = self._indices(transfer.blocks[at:at + held])
                    for i, (tensor, dim) in enumerate(self._layers):
                        self._scatter(tensor, dim, blocks, staging[:held, i * page:(i + 1) * page].contiguous())
                    self._sync()
            good += held
            if held < min(64, len(names) - at):
                break
        return good

    def save(self, transfer):
        """After the forward pass, before the step ends: vLLM gives no block away meanwhile."""
        fmt, page = self._format, self._shape.page
        names = fmt.keys_from_bytes(transfer.names)
        parent = fmt.key(transfer.parent) if transfer.parent else None
        for at in range(0, len(names), 64):
            part = names[at:at + 64]
            try:
                slots = fmt.reserve(part, parent=parent)
            except weft.ParentError:  # it went meanwhile, and what follows is found only after it
                return
            with slots:
                wanted = [i for i in range(len(part)) if slots.status(i) == "reserved"]
                if wanted:
                    blocks = self._indices([transfer.blocks[at + i] for i in wanted])
                    for layer, (tensor, dim) in enumerate(self._layers):
                        pages = self._gather(tensor, dim, blocks).numpy()
                        for row, i in enumerate(wanted):
                            with slots[i] as memory:
                                memory[layer * page:(layer + 1) * page] = pages[row].data
            if any(status not in ("stored", "exists") for status in slots.statuses()):
                return
            parent = part[-1]
        if self._connector.hand_over and parent:
            self.hand_over(parent)

    # With hand_over: what a step will have computed is known before it begins.

    def begin(self, transfer):
        """Room for its blocks, which go to the other node as they are written.  What finds none is saved at the end."""
        fmt, node = self._format, self._connector.hand_over
        keys = fmt.keys_from_bytes(transfer.names[:PUSHED_MAX])
        try:
            slots = fmt.reserve(keys, parent=fmt.key(transfer.parent) if transfer.parent else None)
        except weft.Error:
            return
        wanted = [i for i in range(len(keys)) if slots.status(i) == "reserved"]
        push = _Push(transfer, keys, slots, wanted, self._indices([transfer.blocks[i] for i in wanted]))
        self._pushes.append(push)
        try:
            push.begun = push.goes = slots.push(node)
        except weft.Error as error:
            self._connector.warn("push", "blocks do not go to %s while they are computed (%s); it hears of them when they "
                                 "are", node, error)

    def computed(self, name):
        """A layer of all blocks of the step is written in vLLM's cache."""
        if self._pushes and self._written < len(self._layers) and name == self._shape.names[self._written]:
            self._write_layer()

    def _write_layer(self):
        layer, page = self._written, self._shape.page
        tensor, dim = self._layers[layer]
        for push in self._pushes:
            pages = self._gather(tensor, dim, push.indices).numpy() if push.wanted else ()
            for row, i in enumerate(push.wanted):
                with push.slots[i] as memory:
                    memory[layer * page:(layer + 1) * page] = pages[row].data
            push.goes = push.goes and push.slots.written(layer + 1)
        self._written += 1

    def end(self):
        """Publish what was begun; yields what is still to be saved, in its order."""
        pushes = self._pushes
        try:
            while pushes and self._written < len(self._layers):
                self._write_layer()
            for push in pushes:
                told = push.slots.commit()
                if any(status not in ("stored", "exists") for status in told):
                    continue
                if not push.begun:
                    self.hand_over(push.keys[-1])
                done = len(push.keys)
                if done < len(push.transfer.names):
                    yield Transfer(push.transfer.request, push.transfer.blocks[done:], push.transfer.names[done:],
                                   push.transfer.names[done - 1])
        finally:
            for push in pushes:
                push.slots.abort()  # those that were committed are nothing to it
            self._pushes, self._written = [], 0

    def is_begun(self, transfer):
        return any(push.transfer is transfer for push in self._pushes)

    def hand_over(self, tip):
        self._connector.fabric.hand_over(tip, self._connector.hand_over)

    def finished(self):
        with self._lock:
            done, self._done = self._done, set()
        return done

    def failed(self):
        with self._lock:
            bad, self._bad = self._bad, set()
        return bad

    def close(self):
        self._pool.shutdown()


class WeftConnector(KVConnectorBase_V1):
    """Settings, in kv_connector_extra_config: socket, domain, token (weft.connect()); weights ("auto": a digest of the
    model's files; or a text that changes when they do); salt; threads; form; hand_over (a node of the cluster, by name,
    that decodes what this one computes: it has each layer while the next is computed)."""

    _SETTINGS = {"socket": None, "domain": None, "token": None, "weights": "auto", "salt": "", "threads": 2,
                 "form": None, "timeout": 5.0, "hand_over": None}

    def __init__(self, vllm_config, role, kv_cache_config):
        super().__init__(vllm_config, role, kv_cache_config)
        given = dict(vllm_config.kv_transfer_config.kv_connector_extra_config or {})
        unknown = sorted(set(given) - set(self._SETTINGS))
        if unknown:
            raise refusal(f"the connector has no setting '{unknown[0]}'; it has {', '.join(self._SETTINGS)}")
        settings = {**self._SETTINGS, **given}
        cache = vllm_config.cache_config
        if not cache.enable_prefix_caching:
            raise refusal("vLLM names no blocks without prefix caching; leave out --no-enable-prefix-caching")
        check_algorithm(cache.prefix_caching_hash_algo)
        check_hashing()
        which = vllm_config.kv_transfer_config.kv_role
        self.loads, self.saves = which in ("kv_both", "kv_consumer"), which in ("kv_both", "kv_producer")
        self.threads = int(settings["threads"])
        self.hand_over = settings["hand_over"]
        self._warned = set()
        self._half = None
        shape = _Shape(vllm_config, kv_cache_config)
        form = form_expected(vllm_config, shape)
        if settings["form"] not in (None, PACKED, SPLIT, form):
            raise refusal(f"there is no form '{settings['form']}'; there are {PACKED} and {SPLIT}, and of itself this "
                          f"vLLM has {form}")
        form = settings["form"] or form
        weights = weights_of(vllm_config.model_config.model, getattr(vllm_config.model_config, "revision", None),
                             settings["weights"], logger)
        layout = getattr(kv_cache_config, "kv_cache_layout", None) or getattr(cache, "kv_cache_layout", None)
        parallel = vllm_config.parallel_config
        self._fabric = weft.connect(settings["socket"], settings["domain"], settings["token"], settings["timeout"])
        ranks = range(parallel.tensor_parallel_size)
        if role != KVConnectorRole.SCHEDULER:
            ranks = [parallel.rank % parallel.tensor_parallel_size]
        try:
            formats = [self._fabric.format(**format_spec(vllm_config, shape, rank, form, weights, settings["salt"], layout))
                       for rank in ranks]
        except weft.Error:
            self._fabric.close()
            raise
        if role == KVConnectorRole.SCHEDULER:
            self._half = _Scheduler(self, formats, shape.tokens)
        else:
            self._half = _Worker(self, formats[0], shape, form, vllm_config.compilation_config.static_forward_context)

    @property
    def fabric(self):
        return self._fabric

    @property
    def requires_kv_delivery(self):
        return False  # a cache: what is not saved is computed again

    def warn(self, what, sentence, *args):
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("weft: " + sentence, *args)

    # ------------------------------------------------------------------------------------ in the scheduler

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        return self._half.matched(request, num_computed_tokens)

    def update_state_after_alloc(self, request, blocks, num_external_tokens):
        self._half.allocated(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output):
        return self._half.meta(scheduler_output)

    def request_finished(self, request, block_ids):
        self._half.finished(request)
        return False, None

    def reset_cache(self):
        return self._half.reset()

    # --------------------------------------------------------------------------------------- in the worker

    def register_kv_caches(self, kv_caches):
        self._half.register(kv_caches)

    def start_load_kv(self, forward_context, **kwargs):
        metadata = self._get_connector_metadata()
        for transfer in metadata.loads:
            self._half.load(transfer)
        for transfer in metadata.saves if self.hand_over else ():
            self._half.begin(transfer)

    def wait_for_layer_load(self, layer_name):
        return  # loads are asynchronous: what runs now has all of its blocks

    def save_kv_layer(self, layer_name, kv_layer, attn_metadata, **kwargs):
        if not self.hand_over:
            return  # wait_for_save() does, with every layer's blocks at rest
        try:
            self._half.computed(layer_name)
        except weft.Error as error:
            self.warn("push", "a layer could not be saved while the next is computed (%s)", error)

    def wait_for_save(self):
        saves = self._get_connector_metadata().saves
        if self.hand_over:
            saves = [transfer for transfer in saves if not self._half.is_begun(transfer)]
            try:
                saves = [*self._half.end(), *saves]
            except weft.Error as error:
                self.warn("save", "blocks could not be saved (%s); they will be computed again", error)
        for transfer in saves:
            try:
                self._half.save(transfer)
            except weft.Error as error:
                self.warn("save", "blocks could not be saved (%s); they will be computed again", error)

    def get_finished(self, finished_req_ids):
        return None, self._half.finished() or None

    def get_block_ids_with_load_errors(self):
        return self._half.failed()

    def shutdown(self):
        if self._half is not None:
            self._half.close()
            self._half = None
            self._fabric.close()
