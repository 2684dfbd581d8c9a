# SPDX-License-Identifier: Apache-2.0
"""What the weights behind a model's name are, for the formats of connectors.

A name says nothing about weights: a folder is trained further in place, a revision moves.  So what is loaded goes
into the identity, and blocks of other weights are a miss.
"""
import hashlib
import json
import os
import pathlib

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_PIECES, _PIECE = 64, 64 * 1024


def _sample(hasher, path):
    """Size, and up to 64 evenly spaced pieces of 64 KiB: further training changes all of them."""
    size = path.stat().st_size
    hasher.update(f"{path.name}\0{size}\0".encode())
    with open(path, "rb") as file:
        if size <= _PIECES * _PIECE:
            hasher.update(file.read())
            return
        for i in range(_PIECES):
            file.seek((size - _PIECE) * i // (_PIECES - 1))
            hasher.update(file.read(_PIECE))


def folder_digest(folder):
    """Hex digest of a folder with weights: its .json files whole, 4 MB of each file of weights.  None: it has none."""
    folder = pathlib.Path(folder)
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.is_file() else []
    weights = [path for path in files if path.suffix in _SUFFIXES and path.is_file()]
    if not weights:
        return None
    hasher = hashlib.sha256(b"weft-weights-1\0")
    for path in files:
        if path.suffix == ".json" and path.is_file():
            data = path.read_bytes()
            hasher.update(f"{path.name}\0{len(data)}\0".encode() + data)
    for path in weights:
        _sample(hasher, path)
    return hasher.hexdigest()


def weights_digest(name, revision=None):
    """Digest of the weights that `name` stands for: a local folder or file, or what Hugging Face's cache has of that
    revision.  None: they are not on this machine."""
    if os.path.exists(name):
        return folder_digest(name)
    try:
        from huggingface_hub import snapshot_download
        return folder_digest(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # not installed, not there, not a name of a repository: all mean that we do not know
        return None


def fingerprint(facts):
    """Hex digest of a mapping of names to numbers, texts, lists and mappings; equal facts, equal digest."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(b"weft-facts-1\0" + text.encode()).hexdigest()
