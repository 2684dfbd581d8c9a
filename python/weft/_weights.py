# SPDX-License-Identifier: Apache-2.0
"""Weights once a host: a safetensors or GGUF file in one region that every process maps.

The region, of a name that tells the content, looks like this:

    0      magic "weftwgt1", state (0: being filled, 1: whole), kind, then little-endian u64: bytes of
           the file's head, offset and bytes of its data in the region, bytes of the file
    4096   the file's head as it is: all before the tensors' data
    ...    the data, from a multiple of 4096 on

Who loads holds a second region, NAME.loading, from before the first byte to after the last one.  The
node frees it when its holder goes, however that ends, so a loader that dies half-way leaves a region
with state 0 that nobody uses and that is gone when its last holder lets go.  What is read from a file
or a region is believed only as far as it fits.
"""
import hashlib
import json
import math
import mmap
import os
import struct
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ._weft import BusyError, InvalidError, NotFoundError, TimedOutError

PAGE = 4096
HEAD = struct.Struct("<8sBB6xQQQQ")
MAGIC = b"weftwgt1"
KINDS = ("safetensors", "gguf")
HEAD_MAX = 100 << 20  # as safetensors itself has it; no GGUF head comes near
PIECE = 64 << 20
NAME_MAX = 55  # of a region, 63, less ".loading"

SAFETENSORS = {  # name there: dtype here, bytes of an element
    "F64": ("f64", 8), "F32": ("f32", 4), "F16": ("f16", 2), "BF16": ("bf16", 2), "F8_E4M3": ("fp8_e4m3", 1),
    "F8_E5M2": ("fp8_e5m2", 1), "I64": ("i64", 8), "I32": ("i32", 4), "I16": ("i16", 2), "I8": ("i8", 1),
    "U64": ("u64", 8), "U32": ("u32", 4), "U16": ("u16", 2), "U8": ("u8", 1), "BOOL": ("bool", 1),
}
GGUF = {  # type number there: dtype here, elements of a block, bytes of a block
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 15: ("q8_k", 256, 292), 16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50), 20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136), 24: ("i8", 1, 1), 25: ("i16", 1, 2),
    26: ("i32", 1, 4), 27: ("i64", 1, 8), 28: ("f64", 1, 8), 29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2),
    34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66),
}
NUMPY = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "i1", "u64": "<u8",
         "u32": "<u4", "u16": "<u2", "u8": "u1", "bool": "?", "bf16": "<u2", "fp8_e4m3": "u1", "fp8_e5m2": "u1"}
TORCH = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
         "i16": "int16", "i8": "int8", "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
         "bool": "bool", "fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}


class Tensor:
    """One tensor where it lies: read-only, of `dtype` ("bf16", "q4_k" ...) and `shape`, outermost first.

    It has the buffer of its bytes: memoryview(tensor) and tensor.data copy nothing.
    """

    __slots__ = ("name", "dtype", "shape", "data")

    def __init__(self, name, dtype, shape, data):
        self.name, self.dtype, self.shape, self.data = name, dtype, shape, data

    def __repr__(self):
        return f"<weft.Tensor {self.name} {self.dtype} {list(self.shape)}>"

    @property
    def nbytes(self):
        return self.data.nbytes

    def _known(self, names, whose):
        if self.dtype not in names:
            raise InvalidError(f"tensor '{self.name}' is {self.dtype}, which {whose} has no type for; use .data")
        return names[self.dtype]

    def numpy(self):
        """As a NumPy array, not copied.  NumPy has no bf16 and no fp8: these come as uint16 and uint8 of the same
        bits."""
        dtype = self._known(NUMPY, "NumPy")
        import numpy
        return numpy.frombuffer(self.data, dtype=dtype).reshape(self.shape)

    def torch(self):
        """As a torch tensor, not copied.  It must not be written: the memory is mapped read-only."""
        name = self._known(TORCH, "torch")
        import warnings

        import torch
        dtype = getattr(torch, name)
        if self.data.nbytes == 0:
            return torch.empty(self.shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not writable is said above
            return torch.frombuffer(self.data, dtype=dtype).reshape(self.shape)


class Weights(Mapping):
    """The tensors of a file by name.  `metadata` is the file's own; `loaded` says whether this process copied it in.

    Use it in `with`, or release() it; tensors that are still in use keep the memory.
    """

    def __init__(self, region, name, loaded, tensors, metadata, size):
        self._region, self._tensors = region, tensors
        self.name, self.loaded, self.metadata, self.size = name, loaded, metadata, size

    def __getitem__(self, name):
        return self._tensors[name]

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self):
        return len(self._tensors)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def __repr__(self):
        return f"<weft.Weights {self.name}: {len(self)} tensors, {self.size} bytes>"

    def release(self):
        """Let go of the memory; what is still viewed stays mapped."""
        self._tensors = {}
        self._region.release()


# ---------------------------------------------------------------------------------------- safetensors


def _count(value, what, where):
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise InvalidError(f"{where}: {what} is {str(value)[:40]}, which is no size")
    return value


def _elements(shape, where):
    if not isinstance(shape, list) or len(shape) > 32:
        raise InvalidError(f"{where}: its shape is no list of up to 32 sizes")
    total = math.prod(_count(size, "a size", where) for size in shape)
    return _count(total, "the number of elements", where)


def _unique(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidError("the safetensors header names something twice")
    return found


def _parse_safetensors(head, data_bytes):
    try:
        header = json.loads(bytes(head[8:]), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidError):
            raise
        raise InvalidError(f"the safetensors header is no JSON: {str(error)[:120]}") from None
    if not isinstance(header, dict):
        raise InvalidError("the safetensors header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise InvalidError("the safetensors header's __metadata__ is no object")
    tensors = {}
    spans = []
    for name, entry in header.items():
        where = f"tensor '{name[:80]}'"
        if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
            raise InvalidError(f"{where}: no dtype is given")
        if entry["dtype"] not in SAFETENSORS:
            raise InvalidError(f"{where}: there is no dtype '{entry['dtype'][:20]}' that Weft knows")
        dtype, width = SAFETENSORS[entry["dtype"]]
        elements = _elements(entry.get("shape"), where)
        offsets = entry.get("data_offsets")
        if not isinstance(offsets, list) or len(offsets) != 2:
            raise InvalidError(f"{where}: data_offsets are not two numbers")
        begin, end = (_count(offset, "an offset", where) for offset in offsets)
        if not begin <= end <= data_bytes or end - begin != elements * width:
            raise InvalidError(f"{where}: {elements} elements of {width} bytes are said to lie from {begin} to {end}, "
                               f"in {data_bytes} bytes of data")
        tensors[name] = (dtype, tuple(entry["shape"]), begin, end)
        spans.append((begin, end))
    spans.sort()
    for (_, end), (begin, _) in zip(spans, spans[1:]):
        if begin < end:
            raise InvalidError(f"the safetensors header lays two tensors over each other at byte {begin}")
    return tensors, metadata


# ----------------------------------------------------------------------------------------------- GGUF


class _Reader:
    """Reads a GGUF head; whatever goes beyond its end is a sentence."""

    SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}

    def __init__(self, data, limit):
        self.data, self.limit, self.at = data, min(len(data), limit), 0

    def take(self, count):
        if count > self.limit - self.at:
            raise InvalidError(f"the GGUF head asks for {count} bytes at {self.at}, and ends at {self.limit}")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self):
        return bytes(self.take(self.number("<Q"))).decode("utf-8", "replace")

    def value(self, kind, deep=0):
        if kind in self.SCALARS:
            value = self.number(self.SCALARS[kind])
            return bool(value) if kind == 7 else value
        if kind == 8:
            return self.text()
        if kind != 9 or deep > 3:
            raise InvalidError(f"the GGUF head has a value of type {kind} at byte {self.at}, which there is none of")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in self.SCALARS and inner != 7:
            width = struct.calcsize(self.SCALARS[inner])
            if count > self.limit // width:
                raise InvalidError(f"the GGUF head has an array of {count} values, and ends at {self.limit}")
            return list(struct.unpack(f"<{count}{self.SCALARS[inner][1]}", self.take(count * width)))
        if count > self.limit - self.at:  # each takes a byte at least
            raise InvalidError(f"the GGUF head has an array of {count} values, and ends at {self.limit}")
        return [self.value(inner, deep + 1) for _ in range(count)]


def _gguf_head(data, limit):
    """(tensors as said, metadata, where the data begins), by what stands in the first `limit` bytes."""
    reader = _Reader(data, limit)
    if bytes(reader.take(4)) != b"GGUF":
        raise InvalidError("this is no GGUF file: it does not begin with GGUF")
    version = reader.number("<I")
    if version not in (2, 3):
        raise InvalidError(f"a GGUF file of version {version}; 2 and 3 are known, of little-endian machines")
    tensor_count, value_count = reader.number("<Q"), reader.number("<Q")
    metadata, said = {}, []
    for _ in range(value_count):  # each takes bytes, so that the head's end bounds it
        name = reader.text()
        metadata[name] = reader.value(reader.number("<I"))
    for _ in range(tensor_count):
        name, count = reader.text(), reader.number("<I")
        if count > 8:
            raise InvalidError(f"tensor '{name[:80]}': {count} dimensions; 8 are the most")
        sizes = [reader.number("<Q") for _ in range(count)]
        said.append((name, sizes, reader.number("<I"), reader.number("<Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise InvalidError(f"the GGUF head asks for an alignment of {str(alignment)[:40]}; a power of two was expected")
    return said, metadata, (reader.at + alignment - 1) // alignment * alignment, alignment


def _parse_gguf(head, data_bytes):
    said, metadata, _, alignment = _gguf_head(head, len(head))
    tensors = {}
    for name, sizes, kind, begin in said:
        where = f"tensor '{name[:80]}'"
        if kind not in GGUF:
            raise InvalidError(f"{where}: there is no GGUF type {kind} that Weft knows")
        if name in tensors:
            raise InvalidError(f"{where}: the GGUF head names it twice")
        dtype, block, width = GGUF[kind]
        elements = _elements(sizes, where)
        if (sizes[0] if sizes else 1) % block:
            raise InvalidError(f"{where}: a row of {sizes[0] if sizes else 1} is not of whole {dtype} blocks of {block}")
        end = begin + elements // block * width
        if begin % alignment or end > data_bytes:
            raise InvalidError(f"{where}: said to lie from {begin} to {end}, in {data_bytes} bytes of data aligned to "
                               f"{alignment}")
        tensors[name] = (dtype, tuple(reversed(sizes)), begin, end)
    return tensors, metadata


# ---------------------------------------------------------------------------------------------- files


def _look(file, size, path):
    """(kind, bytes before the data) of a file."""
    if size < 8:
        raise InvalidError(f"{path}: {size} bytes are no weights; give a safetensors or GGUF file")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        if view[:4] == b"GGUF":
            begin = _gguf_head(view, HEAD_MAX)[2]
            return 1, min(begin, size)  # without tensors nothing follows, the padding neither
        length = int.from_bytes(view[:8], "little")
        if length > min(HEAD_MAX, size - 8) or view[8:9] != b"{":
            raise InvalidError(f"{path}: neither a GGUF file nor a safetensors file whose header fits in it")
        return 0, 8 + length


def _digest(path, size):
    """Of a file's content, by pieces, in threads: hashing is what a second process has to wait for."""
    def piece(at):
        with open(path, "rb", buffering=0) as file:
            file.seek(at)
            total, left = hashlib.sha256(), min(PIECE, size - at)
            while left:
                part = file.read(min(left, 1 << 20))
                if not part:
                    raise InvalidError(f"{path}: it became shorter while it was read")
                total.update(part)
                left -= len(part)
            return total.digest()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        pieces = b"".join(pool.map(piece, range(0, size, PIECE)))
    return hashlib.sha256(struct.pack("<Q", size) + pieces).hexdigest()[:40]


def _copy(file, at, view, path):
    file.seek(at)
    done = 0
    while done < len(view):
        got = file.readinto(view[done:done + PIECE])
        if not got:
            raise InvalidError(f"{path}: it became shorter while it was read")
        done += got


def _same(before, file):
    after = os.fstat(file.fileno())
    return (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


def _open_whole(fabric, name, head, path):
    """The region when it is there and whole; None when there is none or it is not whole."""
    try:
        region = fabric.open(name)
    except NotFoundError:
        return None
    try:
        if region.size < PAGE:
            raise InvalidError(f"the region '{name}' holds no weights; give another name")
        magic, state, *rest = HEAD.unpack(bytes(region.view(0, HEAD.size)))
        if magic == bytes(8) and state == 0:
            region.release()
            return None
        if magic != MAGIC:
            raise InvalidError(f"the region '{name}' holds no weights; give another name")
        if state != 1:
            region.release()
            return None
        kind, head_bytes, data_at, data_bytes, file_bytes = rest
        if (kind, head_bytes, file_bytes) != (head[0], head[1], head[2]):
            raise InvalidError(f"the region '{name}' holds another file than {path}: {file_bytes} bytes, not {head[2]}; "
                               "give another name")
        if head_bytes > HEAD_MAX + PAGE or PAGE + head_bytes > data_at or data_at + data_bytes > region.size:
            raise InvalidError(f"the region '{name}' says of itself what cannot be; give another name")
        return region
    except BaseException:
        region.release()
        raise


def _fill(fabric, name, path, file, head, latency):
    kind, head_bytes, file_bytes = head
    data_at = (PAGE + head_bytes + PAGE - 1) // PAGE * PAGE
    data_bytes = file_bytes - head_bytes
    region = fabric.allocate(data_at + data_bytes, share="read", name=name, latency=latency)
    try:
        before = os.fstat(file.fileno())
        _copy(file, 0, region.view(PAGE, head_bytes), path)
        _copy(file, head_bytes, region.view(data_at, data_bytes), path)
        if before.st_size != file_bytes or not _same(before, file):
            raise InvalidError(f"{path}: it was changed while it was read; load it again")
        tell = region.view(0, HEAD.size)
        tell[:] = HEAD.pack(MAGIC, 0, kind, head_bytes, data_at, data_bytes, file_bytes)
        tell[8] = 1  # whole, after all else
        return region
    except BaseException:
        region.release()
        raise


def _weights(region, name, loaded, path):
    try:
        _, _, kind, head_bytes, data_at, data_bytes, file_bytes = HEAD.unpack(bytes(region.view(0, HEAD.size)))
        head = bytes(region.view(PAGE, head_bytes))
        parse = _parse_gguf if KINDS[kind] == "gguf" else _parse_safetensors
        said, metadata = parse(head, data_bytes)
        data = region.view(data_at, data_bytes, False)
        tensors = {each: Tensor(each, dtype, shape, data[begin:end])
                   for each, (dtype, shape, begin, end) in said.items()}
        return Weights(region, name, loaded, tensors, metadata, file_bytes)
    except InvalidError as error:
        region.release()
        raise InvalidError(f"{path}: {error}") from None


def load(fabric, path, name=None, latency="normal", timeout=600.0):
    """Have `path`, a safetensors or GGUF file, in memory once a host; a mapping of names to tensors.

    The first process that asks copies the file into a region that others map read-only; who asks meanwhile waits,
    up to `timeout` seconds, and goes on by itself when the loader dies.  Without `name` the region is named by a
    digest of the content, which every process computes; with one that is saved, and whoever gives the same name
    says that it is the same file.
    """
    path = os.fspath(path)
    if name is not None and not 1 <= len(os.fsencode(name)) <= NAME_MAX:
        raise InvalidError(f"the name '{name[:32]}' has {len(os.fsencode(name))} bytes; give 1 to {NAME_MAX}")
    until = time.monotonic() + timeout
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            head = (*_look(file, size, path), size)
            _check(file, head)
        except InvalidError as error:
            text = str(error)
            raise InvalidError(text if text.startswith(path) else f"{path}: {text}") from None
        if name is None:
            name = "weights-" + _digest(path, size)
        nap = 0.005
        while True:
            region = _open_whole(fabric, name, head, path)
            if region:
                return _weights(region, name, False, path)
            region = _load_alone(fabric, name, path, file, head, latency)
            if region:
                return _weights(region, name, True, path)
            if time.monotonic() > until:
                raise TimedOutError(f"'{name}' was still being loaded by another process after {timeout:g} s")
            time.sleep(nap)
            nap = min(nap * 1.5, 0.1)


def _check(file, head):
    """Refuse a file before anything is allocated for it."""
    kind, head_bytes, size = head
    file.seek(0)
    first = file.read(head_bytes)
    while len(first) < head_bytes:
        part = file.read(head_bytes - len(first))
        if not part:
            raise InvalidError("it became shorter while it was read")
        first += part
    (_parse_gguf if kind == 1 else _parse_safetensors)(first, size - head_bytes)


def _load_alone(fabric, name, path, file, head, latency):
    """Load it, if nobody else does; None: look again."""
    try:
        lock = fabric.allocate(PAGE, share="read", name=name + ".loading")
    except BusyError:
        return None
    with lock:
        try:
            return _fill(fabric, name, path, file, head, latency)
        except BusyError:  # there is one: whole by now, or half of one that others are about to let go of
            return None
