# SPDX-License-Identifier: Apache-2.0
"""What a torch model is at this moment, as a text of its own: whatever makes its KV other than another model's.

Weights are hashed where they lie, once, and hashed again when they are others: before each use the addresses and
version counters of all tensors and 16 numbers of each are compared.  Optimizers, load_state_dict() and merged adapters
show in these; a change of single numbers through `.data` may not, so say forget(model) after one.
"""
import hashlib
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import torch
import transformers

from .. import InvalidError
from ._identity import fingerprint

SAMPLES = 16
NO_FACT = ("_name_or_path", "transformers_version", "torch_dtype", "use_cache", "output_attentions",
           "output_hidden_states", "return_dict", "architectures")
_known = weakref.WeakKeyDictionary()  # model: {group of tensors: (its state, its digest)}
_lock = threading.Lock()


def forget(model):
    """Hash the weights of `model` anew when they are asked for next."""
    with _lock:
        _known.pop(plain(model), None)


def plain(model):
    """The Transformers model inside of what PEFT made of it."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


def _tuners(model):
    """PEFT's layers: (name, module)."""
    return [(name, module) for name, module in model.named_modules()
            if hasattr(module, "adapter_layer_names") and hasattr(module, "active_adapters")]


def _groups(model, tuners):
    """Tensors by the adapter that they are of; "" has the model's own, under the names they have without PEFT."""
    where = {}
    for name, module in tuners:
        for kind in (*module.adapter_layer_names, *getattr(module, "other_param_names", ())):
            where[f"{name}.{kind}" if name else kind] = True
    groups = {"": []}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        parts = name.split(".")
        adapter = ""
        for i in range(len(parts) - 1, 0, -1):
            if ".".join(parts[:i]) in where:
                adapter = parts[i]
                break
        groups.setdefault(adapter, []).append((name.replace(".base_layer.", "."), tensor.detach()))
    return groups


def _state(tensors):
    """Differs when the tensors were changed; cheap."""
    marks, samples = [], []
    for name, tensor in tensors:
        if tensor.is_meta:
            raise InvalidError(f"the tensor '{name}' is on the meta device, so its weights cannot be told from others; "
                               "load the model whole, or give WeftCache(identity=...) that names them")
        marks.append((name, tensor.data_ptr(), tensor._version, tuple(tensor.shape)))
        count = tensor.numel()
        if count and tensor.is_contiguous():
            step = max(1, count // SAMPLES)
            samples.append(tensor.view(-1)[::step][:SAMPLES].to(torch.float64))
    numbers = [torch.cat([each for each in samples if each.device == device]).cpu()
               for device in sorted({each.device for each in samples}, key=str)]
    return marks, b"".join(each.numpy().tobytes() for each in numbers)


def _hash(named):
    name, tensor = named
    data = tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    hasher = hashlib.sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    hasher.update(data)  # without the GIL
    return hasher.digest()


def _digest(model, group, tensors):
    state = _state(tensors)
    with _lock:
        known = _known.setdefault(model, {}).get(group)
    if known and known[0] == state:
        return known[1]
    with ThreadPoolExecutor() as pool:
        digest = hashlib.sha256(b"".join(pool.map(_hash, sorted(tensors, key=lambda each: each[0])))).hexdigest()
    with _lock:
        _known.setdefault(model, {})[group] = (state, digest)
    return digest


def adapter(model):
    """What PEFT's active adapters make of the model; b"" when none is active.  Their names say nothing."""
    model = plain(model)
    tuners = _tuners(model)
    if not tuners:
        return b""
    groups = _groups(model, tuners)
    facts, used = {}, set()
    for name, module in tuners:
        merged = list(getattr(module, "merged_adapters", ()))
        if merged:
            facts[name] = ["merged", merged]  # their weights are in the model's own now
            used.update(merged)
        elif not getattr(module, "disable_adapters", False):
            active = [each for each in module.active_adapters
                      if any(each in getattr(module, kind, ()) for kind in module.adapter_layer_names)]
            if active:
                scaling = getattr(module, "scaling", {})
                facts[name] = [[each, str(scaling.get(each))] for each in active]
                used.update(active)
    if not facts:
        return b""
    # Names are a user's own: the same adapter under another name is the same.
    digests = {each: _digest(model, each, [(name.replace(f".{each}.", ".*.").removesuffix(f".{each}"), tensor)
                                           for name, tensor in groups.get(each, [])]) for each in sorted(used)}
    if any(getattr(config, "is_prompt_learning", False) for config in getattr(model, "peft_config", {}).values()):
        raise InvalidError("a PEFT adapter that learns prompts changes KV outside of the tokens; Weft cannot be used "
                           "with it")
    return fingerprint(_unnamed(facts, digests)).encode()


def _unnamed(facts, digests):
    if isinstance(facts, dict):
        return {key: _unnamed(value, digests) for key, value in facts.items()}
    if isinstance(facts, list):
        return [_unnamed(value, digests) for value in facts]
    return digests.get(facts, facts)


def _text_config(model):
    config = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def facts(model, revision=None, identity=None):
    """A text that says which model this is: configuration, weights, code."""
    model = plain(model)
    config = {key: value for key, value in model.config.to_dict().items() if key not in NO_FACT}
    if identity is None:
        weights = _digest(model, "", _groups(model, _tuners(model))[""])
    else:
        weights = "given:" + (identity if isinstance(identity, str) else bytes(identity).hex())
    kind = type(model)
    told = {
        "config": _plain(config),
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "attention": str(getattr(_text_config(model), "_attn_implementation", None)),
        "code": ".".join(transformers.__version__.split(".")[:2]),
        "revision": revision or getattr(model.config, "_commit_hash", None) or "",
        "weights": weights,
    }
    return fingerprint(told)


def _plain(value):
    """As JSON knows it."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    return repr(value)  # floats too: there is NaN, and a config may have anything
