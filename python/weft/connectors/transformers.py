# SPDX-License-Identifier: Apache-2.0
"""Hugging Face Transformers: a Cache whose blocks other processes, and later runs, find again.

    from weft.connectors.transformers import WeftCache

    cache = WeftCache(fabric, model)
    out = model.generate(**inputs, past_key_values=cache)
    print(cache.loaded_tokens, cache.stored_blocks)

One cache a sequence (or a batch of them), as with DynamicCache, which it is.  Before each forward pass over
several tokens, the longest prefix that Weft has is put into the cache and only the rest is computed; after each
pass the full blocks that are new are put.  A hook on the model sees the tokens that go in: it is they that name
the blocks, never what the caller says of them.

Whatever makes KV other than the same tokens would give elsewhere is in the identity (weights, configuration,
adapters, dtype, rope, attention implementation) or ends the sequence's use of Weft: `cache.why` has the sentence then,
and generation goes on as without.  So does it when the node goes away.
"""
import logging
import warnings

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from .. import Error, InvalidError, MissError
from . import _model_facts
from ._model_facts import forget

__all__ = ["WeftCache", "forget"]

_log = logging.getLogger("weft")
DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
ROPES = ("default", "linear", "llama3", "yarn")  # the others turn K by the length of the whole prompt
# What forward() may be given beside tokens.  All else may change what a token's KV is.
HARMLESS = {"input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep",
            "return_dict", "cache_position", "output_attentions", "output_hidden_states", "is_first_iteration"}


def _shape(model):
    """What the format needs to know, or a sentence why Weft has no format for such a model."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise InvalidError("an encoder-decoder model's KV depends on the encoder's input; Weft keeps only decoders'")
    text = config.get_text_config(decoder=True)
    layers = DynamicCache(config=text).layers
    odd = sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer})
    if odd:
        raise InvalidError(f"the model has layers whose cache is {', '.join(odd)}; Weft keeps full attention alone (no "
                           "sliding windows, recurrent states or shared layers): give generate() a DynamicCache")
    heads = getattr(text, "num_attention_heads", None)
    if not heads or not getattr(text, "num_hidden_layers", None):
        raise InvalidError(f"{type(text).__name__} does not say how many heads and layers it has; use a DynamicCache")
    if getattr(text, "kv_lora_rank", None):
        raise InvalidError("the model keeps K and V of different sizes (multi-head latent attention), which Weft does "
                           "not keep: give generate() a DynamicCache")
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kinds = [each for each in rope.values() if isinstance(each, dict)] or [rope]
    for each in kinds:
        kind = each.get("rope_type", each.get("type", "default"))
        if kind not in ROPES:
            raise InvalidError(f"rope of type '{kind}' turns keys by the length of the prompt, so a prefix has no KV "
                               "of its own; give generate() a DynamicCache")
    if model.dtype not in DTYPES:
        raise InvalidError(f"the model is {model.dtype}; Weft keeps KV of {', '.join(DTYPES.values())}")
    return {
        "layers": text.num_hidden_layers,
        "kv_heads": getattr(text, "num_key_value_heads", None) or heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // heads,
        "dtype": DTYPES[model.dtype],
        "rope_theta": float(kinds[0].get("rope_theta") or getattr(text, "rope_theta", None) or 0.0),
        "rope_scaling": None if kinds == [rope] and rope.get("rope_type", "default") == "default" else str(rope)[:200],
    }


def _before(module, args, kwargs):
    cache = kwargs.get("past_key_values")
    return cache._before(module, args, kwargs) if isinstance(cache, WeftCache) else None


def _after(module, args, kwargs, _):
    cache = kwargs.get("past_key_values")
    if isinstance(cache, WeftCache):
        cache._after()


def _hook(model):
    if _before not in model._forward_pre_hooks.values():  # a copy of a model has its hooks
        model.register_forward_pre_hook(_before, with_kwargs=True)
        model.register_forward_hook(_after, with_kwargs=True)


class WeftCache(DynamicCache):
    """A DynamicCache that finds prefixes in Weft, and puts there what it computes.

    fabric        of weft.connect()
    model         the model that generate() is called on; PEFT's wrappers are understood
    block_tokens  tokens of a block; who shares must agree
    salt          blocks of another salt are a miss
    revision      of the code and weights, when the model's own is not to be believed
    identity      instead of the digest of the weights in memory: your word that equal names are equal weights
    store         False: only look

    loaded_tokens and stored_blocks count; `why` is None, or a sentence that says why Weft is not used.
    """

    def __init__(self, fabric, model, *, block_tokens=16, salt=b"", revision=None, identity=None, store=True,
                 quality="default"):
        self._model = _model_facts.plain(model)
        self._how = {"block_tokens": block_tokens, "salt": salt, "quality": quality}
        self._fabric, self._revision, self._given, self._store = fabric, revision, identity, store
        shape = _shape(self._model)
        self._heads, self._dim = shape["kv_heads"], shape["head_dim"]
        super().__init__(config=self._model.config.get_text_config(decoder=True))
        self.loaded_tokens = self.stored_blocks = 0
        self._formats = {}
        self._start()
        self._format = self._identify(shape)
        _hook(self._model)

    # ---------------------------------------------------------------------------------------- identity

    def _identify(self, shape=None):
        """The format for what the model is now."""
        shape = shape or _shape(self._model)
        self._dtype = self._model.dtype  # which Transformers looks for each time
        known = (_model_facts.facts(self._model, self._revision, self._given), _model_facts.adapter(self._model),
                 tuple(sorted(shape.items())))
        if known not in self._formats:
            name = f"transformers/{self._model.config.model_type}@{known[0][:40]}"
            self._formats[known] = self._fabric.format(name, adapter=known[1], **shape, **self._how)
        return self._formats[known]

    def _start(self):
        self.why = None
        self._rows = None  # the tokens of each sequence of the batch, as far as their KV is here
        self._keys = None  # of their full blocks
        self._kept = 0     # blocks of each that need not be put any more
        self._coming = None

    def _end(self, why):
        """No more of Weft for this sequence; what is computed stays right."""
        if self.why is None:
            self.why = why
            _log.info("weft: %s", why)
        self._coming = None

    # ------------------------------------------------------------------------------------------ passes

    def _before(self, module, args, kwargs):
        if self.why is not None:
            return None
        try:
            return self._prepare(module, args, kwargs)
        except Error as error:
            self._end(str(error))
            return None

    def _prepare(self, module, args, kwargs):
        self._coming = None
        ids = args[0] if args else kwargs.get("input_ids")
        past = self.get_seq_length()
        odd = [key for key, value in kwargs.items() if key not in HARMLESS and value is not None]
        if module is not self._model:
            return self._end("this cache was made for another model")
        if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or len(args) > 1 or odd:
            return self._end(f"the model was given {', '.join(odd) or 'no plain input_ids'}, so tokens do not say what "
                             "its KV is")
        if module.training:
            return self._end("the model is in training mode; call model.eval()")
        if kwargs.get("use_cache") is False:
            return self._end("the model was told not to use its cache")
        have = len(self._rows[0]) if self._rows else 0
        if past != have:
            return self._end(f"the cache holds {past} tokens, of which Weft saw {have}")
        if not _is_plain(ids, past, kwargs):
            return self._end("the sequence is padded, masked, or at positions of its own")
        rows = ids.tolist()
        if self._rows is None:
            self._rows, self._keys, self._kept = [[] for _ in rows], [None] * len(rows), 0
            self._format = self._identify()
        elif len(rows) != len(self._rows):
            return self._end(f"the batch had {len(self._rows)} sequences, and has {len(rows)}")
        elif len(rows[0]) > 1 and self._identify() is not self._format:
            return self._end("the model's weights or adapters were changed in the midst of a sequence")
        loaded = 0
        keep = _wanted(kwargs)
        if keep and len(rows[0]) > keep and past % self._format.block_tokens == 0:
            loaded = self._load(rows, past, len(rows[0]) - keep)
        self._coming = [row[loaded:] for row in rows]
        if not loaded:
            return None
        kwargs = dict(kwargs)
        ids = ids[:, loaded:]
        for name in ("position_ids", "cache_position"):
            if kwargs.get(name) is not None:
                kwargs[name] = kwargs[name][..., loaded:]
        if args:
            return (ids,), kwargs
        kwargs["input_ids"] = ids
        return args, kwargs

    def _after(self):
        coming, self._coming = self._coming, None
        if self.why is not None or coming is None:
            return
        have = len(self._rows[0]) + len(coming[0])
        if any(layer.get_seq_length() != have for layer in self.layers):
            self._end(f"not every layer of the cache holds the {have} tokens that went in")
            return
        for row, more in zip(self._rows, coming):
            row.extend(more)
        if not self._store or have // self._format.block_tokens <= self._kept:
            return
        try:
            self._put(have // self._format.block_tokens)
        except Error as error:
            self._end(str(error))

    # ------------------------------------------------------------------------------------------ blocks

    def _extend(self, row, tokens):
        """Keys of the full blocks of `tokens`, which come after all that the row has keys of."""
        before = self._keys[row]
        return self._format.keys(tokens, parent=before[-1] if before else None)

    def _load(self, rows, past, most):
        """Tokens, up to `most`, whose KV is in the cache now."""
        size = self._format.block_tokens
        if past // size != (len(self._keys[0]) if self._keys[0] else 0) or most < size:
            return 0
        keys = [self._extend(i, row[:most // size * size]) for i, row in enumerate(rows)]
        held = []
        try:
            for each in keys:
                pins = self._format.get(each)
                held.append(pins)
            blocks = min(_ready(pins) for pins in held)
            if not blocks:
                return 0
            self._copy_in(held, blocks)
        finally:
            for pins in held:
                pins.release()
        for i, row in enumerate(rows):
            self._rows[i].extend(row[:blocks * size])
            self._keys[i] = keys[i][:blocks] if self._keys[i] is None else self._keys[i] + keys[i][:blocks]
        self._kept = max(self._kept, past // size + blocks)
        self.loaded_tokens += blocks * size
        return blocks * size

    def _copy_in(self, held, blocks):
        """Of each layer one tensor, written by one copy from where the blocks lie."""
        shape = (len(held), self._heads, blocks * self._format.block_tokens, self._dim)
        done = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: that what lies there cannot be written is meant so
            for number in range(len(self.layers)):
                done.append([self._one(held, half, number, blocks, shape) for half in ("k", "v")])
        for layer, pair in zip(self.layers, done):
            place = self._place(layer, len(done))
            layer.update(*(each.to(place, non_blocking=False) for each in pair))

    def _one(self, held, half, number, blocks, shape):
        whole = torch.empty(shape, dtype=self._dtype)
        for row, pins in enumerate(held):
            parts = [self._view(getattr(pins, half)(block, number)) for block in range(blocks)]
            torch.cat(parts, dim=1, out=whole[row])
        return whole

    def _place(self, layer, count):
        """The device of a layer's KV: where it is, or where the model's layer of that number has its weights."""
        if layer.is_initialized:
            return layer.keys.device
        number = self.layers.index(layer)
        placed = getattr(self._model, "hf_device_map", None)
        if placed and len(set(placed.values())) > 1:
            for module in self._model.modules():
                if isinstance(module, torch.nn.ModuleList) and len(module) == count:
                    return next(module[number].parameters()).device
        return self._model.device

    def _view(self, memory):
        """[heads][tokens][dim] of where a block's K or V of one layer lies: not copied."""
        flat = torch.frombuffer(memory, dtype=self._dtype)
        return flat.view(self._format.block_tokens, self._heads, self._dim).transpose(0, 1)

    def _put(self, blocks):
        size, first = self._format.block_tokens, self._kept
        self._kept = blocks
        for i, row in enumerate(self._rows):
            had = len(self._keys[i]) if self._keys[i] else 0
            more = self._extend(i, row[had * size:blocks * size])
            self._keys[i] = more if self._keys[i] is None else self._keys[i] + more
            self._put_row(i, first, blocks)

    def _put_row(self, row, first, blocks):
        size, keys = self._format.block_tokens, self._keys[row]
        expected = (self._heads, blocks * size, self._dim)
        for layer in self.layers:
            for each in (layer.keys, layer.values):
                if (each.shape[1], each.shape[3]) != (expected[0], expected[2]) or each.dtype != self._dtype:
                    raise InvalidError(f"the cache holds {tuple(each.shape)} {each.dtype}, and Weft expected "
                                       f"{expected[0]} heads of {expected[2]} in {self._dtype}")
        parent = keys[first - 1] if first else None
        with torch.no_grad(), self._format.reserve(keys[first:blocks], parent=parent) as slots:
            for block in range(len(slots)):
                if slots.status(block) != "reserved":
                    continue
                at = (first + block) * size
                for number, layer in enumerate(self.layers):
                    self._view(slots.k(block, number)).copy_(layer.keys[row, :, at:at + size])
                    self._view(slots.v(block, number)).copy_(layer.values[row, :, at:at + size])
        self.stored_blocks += slots.statuses().count("stored")

    # ------------------------------------------------------------------------- what else changes a cache

    def load(self, input_ids):
        """Tokens of `input_ids` whose KV is in the cache now; go on with model(input_ids[:, that:],
        past_key_values=cache).  generate() does this by itself."""
        if self.why is not None or self.get_seq_length():
            return 0
        rows = input_ids.tolist()
        try:
            self._rows, self._keys, self._kept = [[] for _ in rows], [None] * len(rows), 0
            self._format = self._identify()
            return self._load(rows, 0, len(rows[0]) - 1)
        except Error as error:
            self._end(str(error))
            return 0

    def reset(self):
        super().reset()
        self._start()

    def _choose(self, rows):
        if self._rows is not None:
            self._rows = [list(self._rows[i]) for i in rows]
            self._keys = [self._keys[i] for i in rows]

    def reorder_cache(self, beam_idx):
        super().reorder_cache(beam_idx)
        self._choose(beam_idx.tolist())

    def batch_select_indices(self, indices):
        super().batch_select_indices(indices)
        if self._rows is not None:
            self._choose(torch.arange(len(self._rows))[indices.cpu()].reshape(-1).tolist())

    def batch_repeat_interleave(self, repeats):
        super().batch_repeat_interleave(repeats)
        if self._rows is not None:
            self._choose([i for i in range(len(self._rows)) for _ in range(repeats)])

    def crop(self, tokens_to_remove):
        super().crop(tokens_to_remove)
        have = self.get_seq_length()
        if self._rows is not None and have < len(self._rows[0]):
            blocks = have // self._format.block_tokens
            self._rows = [row[:have] for row in self._rows]
            self._keys = [keys[:blocks] if keys else None for keys in self._keys]
            self._kept = min(self._kept, blocks)


def _ready(pins):
    """Blocks from the first on that can be read now; waits for what is on its way."""
    for block in range(len(pins)):
        try:
            pins.wait_block(block)
        except MissError:
            return block
    return len(pins)


def _wanted(kwargs):
    """Logits, counted from the last token, that the caller wants; 0: all, or others: nothing may be skipped."""
    if kwargs.get("output_attentions") or kwargs.get("output_hidden_states"):
        return 0
    keep = kwargs.get("logits_to_keep")
    return keep if isinstance(keep, int) and keep > 0 else 0


def _is_plain(ids, past, kwargs):
    """Tokens follow each other from 0 on, all of them seen, in every sequence of the batch."""
    count = ids.shape[1]
    mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
    if mask is not None and (mask.dim() != 2 or mask.shape[1] != past + count or not bool((mask == 1).all())):
        return False
    if positions is None:
        return True
    right = torch.arange(past, past + count, device=positions.device)
    return positions.dim() == 2 and positions.shape[1] == count and bool((positions == right).all())
