# SPDX-License-Identifier: Apache-2.0
"""llama.cpp by way of llama-cpp-python: sequences that are found again by their prefix, block by block.

    from llama_cpp import Llama
    from weft.connectors.llamacpp import attach

    llama = Llama("model.gguf", n_ctx=4096)
    kept = attach(fabric, llama)            # from here on every eval() of it looks first, and puts what is new
    llama.create_chat_completion(...)
    print(kept.loaded_tokens, kept.stored_blocks, kept.why)

llama.cpp saves a sequence whole.  To save a block, its cells are given to a second sequence as well, which is saved
and let go; to load one, it is restored as that second sequence and its cells are given to the first.  So the
context needs two sequences in one buffer (n_seq_max 2, kv_unified); attach() makes a new one of the same parameters
when the Llama's is not so.  What is in a block is llama.cpp's own format, of exactly one size, and is believed only
with the same library, file, cache types and rope.  After each load llama.cpp is asked what it holds; when that is
anything but what was to be loaded, the tokens are computed.
"""
import ctypes
import glob
import os
import re
import threading

import llama_cpp
import numpy
from llama_cpp import _internals

from .. import Error, InvalidError, MissError
from .._weights import _digest as file_digest
from ._identity import fingerprint

__all__ = ["LlamaBlocks", "attach"]

MAIN, SCRATCH = 0, 1
# All of a context's parameters that decide what a token's KV is; what is not here is speed.
PARAMETERS = ("rope_scaling_type", "pooling_type", "attention_type", "flash_attn_type", "rope_freq_base",
              "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow",
              "yarn_orig_ctx", "type_k", "type_v", "embeddings")
_known = {}  # (path, size, time, inode): digest
_lock = threading.Lock()


def _digest_of(path):
    """Digest of a whole file; computed once as long as the file is the same."""
    path = os.path.realpath(path)
    stat = os.stat(path)
    mark = (path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    with _lock:
        if mark in _known:
            return _known[mark]
    digest = file_digest(path, stat.st_size)
    with _lock:
        _known[mark] = digest
    return digest


def _files(path):
    """A GGUF file, or all the parts of one that is split."""
    split = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", path)
    if not split:
        return [path]
    return sorted(glob.glob(f"{glob.escape(split[1])}-[0-9][0-9][0-9][0-9][0-9]-of-{split[2]}.gguf"))


def facts(llama):
    """A text that says what the KV of this Llama is of."""
    parameters = llama.context_params
    told = {
        "files": [_digest_of(each) for each in _files(llama.model_path)],
        "library": llama_cpp.__version__,
        "state": llama_cpp.LLAMA_STATE_SEQ_VERSION,
        "parameters": {name: repr(getattr(parameters, name)) for name in PARAMETERS},
        "overrides": repr(sorted((llama.kv_overrides or {}).items(), key=str)),
        "lora": [_digest_of(llama.lora_path), repr(float(llama.lora_scale))] if llama.lora_path else None,
        "lora_base": _digest_of(llama.lora_base) if getattr(llama, "lora_base", None) else None,
    }
    scaling = [value for key, value in llama.metadata.items() if key.endswith("rope.scaling.type")]
    if "longrope" in scaling:
        told["n_ctx"] = llama.n_ctx()  # which of two ropes is used hangs on it
    return fingerprint(told)


def _refuse(llama):
    """A sentence for a model whose sequences have no blocks."""
    model = llama._model.model
    if llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model):
        raise InvalidError("the model is recurrent or hybrid: its state is of the whole sequence, and has no blocks")
    if llama_cpp.llama_model_has_encoder(model):
        raise InvalidError("the model has an encoder, on whose input its KV depends; Weft keeps that of decoders only")
    if llama_cpp.llama_model_n_swa(model) > 0:
        raise InvalidError("the model attends to a sliding window, whose old blocks llama.cpp forgets")
    if llama_cpp.llama_model_rope_type(model) not in (-1, 0, 2):
        raise InvalidError("the model's positions have several dimensions (images); Weft keeps those of text only")
    if llama.context_params.embeddings:
        raise InvalidError("this Llama makes embeddings; there is nothing to go on with")


def _unify(llama):
    """Two sequences in one buffer."""
    parameters = llama.context_params
    if parameters.n_seq_max >= 2 and parameters.kv_unified:
        return
    if llama.n_tokens:
        raise InvalidError(f"the Llama has {llama.n_tokens} tokens already and no room for a second sequence; attach "
                           "Weft before it is used")
    parameters.n_seq_max, parameters.kv_unified = max(2, parameters.n_seq_max), True
    llama._ctx.close()
    llama._ctx = llama._stack.enter_context(_Closing(
        _internals.LlamaContext(model=llama._model, params=parameters, verbose=llama.verbose)))
    if llama._lora_adapter is not None:
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(llama._lora_adapter)
        if llama_cpp.llama_set_adapters_lora(llama._ctx.ctx, adapters, 1, (ctypes.c_float * 1)(llama.lora_scale)):
            raise InvalidError(f"llama.cpp does not take {llama.lora_path} in a context of two sequences")


class _Closing:
    def __init__(self, thing):
        self.thing = thing

    def __enter__(self):
        return self.thing

    def __exit__(self, *_):
        self.thing.close()


def attach(fabric, llama, *, block_tokens=16, salt=b"", store=True):
    """Have `llama` look for prefixes in Weft and put there what it computes.  Once a Llama; detach() ends it."""
    if "eval" in vars(llama):
        raise InvalidError("something is attached to this Llama already; detach it first")
    return LlamaBlocks(fabric, llama, block_tokens, salt, store)


class LlamaBlocks:
    """What attach() answers: counts, and `why`, None or a sentence that says why Weft is not used just now."""

    def __init__(self, fabric, llama, block_tokens, salt, store):
        _refuse(llama)
        _unify(llama)
        self._llama, self._store, self._size = llama, store, block_tokens
        self.loaded_tokens = self.stored_blocks = 0
        self.why = None
        self._seen = []     # the tokens of the main sequence that went through here, from 0 on
        self._keys = None   # of their full blocks
        self._kept = 0      # blocks that need not be put any more
        model = llama._model.model
        self._format = fabric.format(
            f"llama.cpp@{facts(llama)[:40]}", block_bytes=self._block_bytes(), block_tokens=block_tokens, salt=salt,
            layers=llama_cpp.llama_model_n_layer(model), kv_heads=max(1, llama_cpp.llama_model_n_head_kv(model)),
            head_dim=max(1, llama_cpp.llama_model_n_embd(model) // max(1, llama_cpp.llama_model_n_head(model))),
            dtype="f16", quality="lossless")  # it is llama.cpp's own bytes: the identity has its types of K and V
        self._eval = llama.eval
        llama.eval = self.eval

    def detach(self):
        """The Llama is as it was; what was put stays."""
        if vars(self._llama).get("eval") == self.eval:
            del self._llama.eval

    # --------------------------------------------------------------------------------- llama.cpp's side

    @property
    def _ctx(self):
        return self._llama._ctx.ctx

    @property
    def _memory(self):
        return llama_cpp.llama_get_memory(self._ctx)

    def _drop_scratch(self):
        llama_cpp.llama_memory_seq_rm(self._memory, SCRATCH, -1, -1)

    def _saved_bytes(self, first, last):
        """What tokens first..last take as a sequence of their own, which the scratch sequence is after this."""
        self._drop_scratch()
        llama_cpp.llama_memory_seq_cp(self._memory, MAIN, SCRATCH, first, last)
        return llama_cpp.llama_state_seq_get_size(self._ctx, SCRATCH)

    def _block_bytes(self):
        """By two tokens that are computed for it: a head, and so much a token."""
        if self._llama.n_tokens:
            raise InvalidError(f"the Llama has {self._llama.n_tokens} tokens already; attach Weft before it is used")
        token = max(0, self._llama.token_bos())
        self._llama.eval([token, token])
        try:
            one, two = self._saved_bytes(0, 1), self._saved_bytes(0, 2)
        finally:
            self._drop_scratch()
            llama_cpp.llama_memory_clear(self._memory, True)
            self._llama.reset()
        if not 0 < one < two:
            raise InvalidError(f"llama.cpp says that a token takes {one} bytes and two {two}, which cannot be blocks")
        return one + (two - one) * (self._size - 1)

    def _save(self, block, view):
        """Write a block where it is to lie; the bytes that llama.cpp wrote."""
        try:
            size = self._saved_bytes(block * self._size, (block + 1) * self._size)
            if size != len(view):
                raise InvalidError(f"llama.cpp saves block {block} in {size} bytes, and not in {len(view)} as others")
            to = (ctypes.c_uint8 * size).from_buffer(view)
            return llama_cpp.llama_state_seq_get_data(self._ctx, to, size, SCRATCH)
        finally:
            self._drop_scratch()

    def _restore(self, block, view):
        """Whether the main sequence ends with this block now."""
        data = numpy.frombuffer(view, dtype=numpy.uint8)
        source = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        try:
            if llama_cpp.llama_state_seq_set_data(self._ctx, source, len(data), SCRATCH) != len(data):
                return False
            if self._span(SCRATCH) != (block * self._size, (block + 1) * self._size - 1):
                return False  # it says that it did, and did not
            llama_cpp.llama_memory_seq_cp(self._memory, SCRATCH, MAIN, -1, -1)
        finally:
            self._drop_scratch()
        return self._span(MAIN) == (0, (block + 1) * self._size - 1)

    def _span(self, sequence):
        return (llama_cpp.llama_memory_seq_pos_min(self._memory, sequence),
                llama_cpp.llama_memory_seq_pos_max(self._memory, sequence))

    # ------------------------------------------------------------------------------------------- passes

    def eval(self, tokens):
        """As Llama.eval, which it stands for."""
        llama, tokens = self._llama, list(tokens)
        self._follow(llama.n_tokens)
        if self.why is None and len(tokens) > 1 and not llama._logits_all:
            try:
                tokens = tokens[self._load(tokens):]
            except Error as error:
                self.why = str(error)
        self._eval(tokens)
        if self.why is not None:
            return
        self._seen += tokens
        if self._store and len(self._seen) // self._size > self._kept:
            try:
                self._put(len(self._seen) // self._size)
            except Error as error:
                self.why = str(error)

    def _follow(self, count):
        """The Llama goes on from its first `count` tokens: forget what came after; they must be those we saw."""
        if count == 0:
            self.why = None
        if len(self._seen) > count:
            self._seen = self._seen[:count]
            blocks = count // self._size
            self._keys = self._keys[:blocks] if self._keys else None
            self._kept = min(self._kept, blocks)
        if self.why is None and self._seen != self._llama.input_ids[:count].tolist():
            self.why = f"the Llama has {count} tokens, of which Weft saw {len(self._seen)} (a loaded state, an image)"

    def _extend(self, tokens):
        """Keys of the full blocks of `tokens`, which begin where the keys that we have end."""
        return self._format.keys(tokens, parent=self._keys[-1] if self._keys else None)

    def _load(self, tokens):
        """How many of `tokens`, from the first on, are in the context now."""
        have, first = len(self._seen), len(self._keys) if self._keys else 0
        last = (have + len(tokens) - 1) // self._size  # one token at least is computed: its logits are wanted
        if last <= have // self._size:
            return 0
        rest = self._seen[first * self._size:] + tokens
        keys = self._extend(rest[:(last - first) * self._size])
        begin = have // self._size  # a block of which we have a part is loaded whole
        if begin != first:
            return 0
        with self._format.get(keys) as pins:
            if not len(pins):
                return 0
            return self._take(pins, keys, begin, have, tokens)

    def _take(self, pins, keys, begin, have, tokens):
        llama, size = self._llama, self._size
        llama._ctx.kv_cache_seq_rm(-1, begin * size, -1)
        blocks = 0
        for i in range(len(pins)):
            try:
                pins.wait_block(i)
                with pins[i] as view:
                    good = self._restore(begin + i, view)
            except MissError:
                good = False
            if not good:
                break
            blocks += 1
        upto = (begin + blocks) * size
        llama._ctx.kv_cache_seq_rm(-1, upto, -1)
        whole = self._seen + tokens
        if upto < have:  # the part of a block that was here is gone, and must be computed again
            llama.n_tokens = begin * size
            self._seen = whole[:begin * size]
            self._eval(whole[begin * size:have])
            self._seen = whole[:have]
            return 0
        llama.input_ids[have:upto] = tokens[:upto - have]
        llama.n_tokens = upto
        self._seen = whole[:upto]
        self._keys = keys[:blocks] if self._keys is None else self._keys + keys[:blocks]
        self._kept = max(self._kept, begin + blocks)
        self.loaded_tokens += upto - have
        return upto - have

    def _put(self, blocks):
        if self._span(MAIN) != (0, len(self._seen) - 1):
            self.why = f"llama.cpp holds positions {self._span(MAIN)} of {len(self._seen)} tokens"
            return
        first, had = self._kept, len(self._keys) if self._keys else 0
        self._kept = blocks
        more = self._extend(self._seen[had * self._size:blocks * self._size])
        self._keys = more if self._keys is None else self._keys + more
        parent = self._keys[first - 1] if first else None
        with self._format.reserve(self._keys[first:blocks], parent=parent) as slots:
            for i in range(len(slots)):
                if slots.status(i) == "reserved":
                    with slots[i] as view:
                        wrote = self._save(first + i, view)
                    if wrote != self._format.block_bytes:
                        raise InvalidError(f"llama.cpp wrote {wrote} bytes of block {first + i}")
        self.stored_blocks += slots.statuses().count("stored")
