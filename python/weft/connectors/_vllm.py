# SPDX-License-Identifier: Apache-2.0
"""What both of Weft's entries into vLLM share: which hashes name content, and how a dtype is called."""
import os

from weft.connectors import _identity

HASH_BYTES = 32  # of SHA-256

DTYPES = {"bfloat16": "bf16", "float16": "f16", "half": "f16", "float32": "f32", "float": "f32", "fp8": "fp8_e4m3",
          "fp8_e4m3": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2", "int8": "int8"}


def refusal(sentence):
    return ValueError("weft: " + sentence)


def check_algorithm(name):
    if name not in ("sha256", "sha256_cbor"):
        raise refusal(f"vLLM hashes blocks with '{name}', which is no cryptographic hash: two prompts may share one, and "
                      "one would be served the other's KV; set --prefix-caching-hash-algo sha256 or sha256_cbor")


def check_hashing():
    """Refuse hashes that do not name content, as far as vLLM says by itself which they are."""
    from vllm.v1.core import kv_cache_utils
    root = getattr(kv_cache_utils, "NONE_HASH", None)
    if root is not None and len(root) != HASH_BYTES:
        check_algorithm(f"a hash of {len(root)} bytes")
    if os.getenv("PYTHONHASHSEED") is None and not hasattr(kv_cache_utils, "DEFAULT_NONE_HASH_SEED"):
        raise refusal("this vLLM seeds its hashes at random, so nothing would ever be found again; set PYTHONHASHSEED=0 "
                      "on every instance that is to share")


def weights_of(name, revision, given, logger):
    """What the weights are: digest or what the user says; None, with a warning, when nobody knows."""
    known = _identity.weights_digest(name, revision) if given == "auto" else str(given)
    if known is None:
        logger.warning("weft: the weights of '%s' are not files of this machine, so its name alone says what they are; "
                       "set \"weights\" to the full hash of its revision, or a changed model is served the KV of the "
                       "one before", name)
    return known


def label(name):
    """A model's name as a format's may have it."""
    return name.encode("ascii", "backslashreplace").decode()[-300:]
