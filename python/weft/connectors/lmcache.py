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
        identity = _joined(("weights", _weights(weights, model)), ("dtype", dtype), ("salt", salt))
        self._fabric = weft.connect(socket=socket, domain=domain, token=token, timeout=timeout)
        try:
            self._connector = self._fabric.connector("lmcache-native@" + identity, workers=workers)
        except BaseException:
            self._fabric.close()
            raise
        for name in ("event_fd", "submit_batch_get", "submit_batch_set", "submit_batch_exists", "submit_batch_delete",
                     "drain_completions"):
            setattr(self, name, getattr(self._connector, name))

    def close(self):
        self._connector.close()
        self._fabric.close()
