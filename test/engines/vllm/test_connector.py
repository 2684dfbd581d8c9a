# SPDX-License-Identifier: Apache-2.0
"""WeftConnector as vLLM's scheduler and worker call it: real Requests, real hashes, CPU tensors."""
import pathlib
import tempfile
import time
import types
import unittest
from unittest import mock

import vllm

if getattr(vllm, "WEFT_FAKE", False):
    raise unittest.SkipTest("the fake has no connectors")

import torch
from node import Node
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256_cbor
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request

import weft.vllm
from weft.connectors import vllm as ours

TOKENS, HEADS, SIZE, BLOCKS, LAYERS = 16, 2, 8, 24, ("l0", "l1", "l2")
# What a layer says of who reads it; to import them takes what they are for.
FlashAttentionBackend, CPUAttentionBackend, RocmAttentionBackend = (
    type(name, (), {"__module__": f"vllm.v1.attention.backends.{module}"})
    for name, module in (("FlashAttentionBackend", "flash_attn"), ("CPUAttentionBackend", "cpu_attn"),
                         ("RocmAttentionBackend", "rocm_attn")))
numbers = iter(range(1, 10**6))


def config(extra=None, tp=1, rank=0, algorithm="sha256_cbor", role="kv_both", caching=True, model="tiny", cache_dtype="auto",
           backend=FlashAttentionBackend):
    space = types.SimpleNamespace
    return space(
        kv_transfer_config=space(kv_connector_extra_config=extra, kv_role=role, is_kv_producer=True),
        cache_config=space(enable_prefix_caching=caching, prefix_caching_hash_algo=algorithm, cache_dtype=cache_dtype),
        model_config=space(model=model, revision=None, dtype=torch.float32),
        compilation_config=space(static_forward_context={
            name: space(get_attn_backend=lambda: backend, isa="amx") for name in LAYERS}),
        parallel_config=space(tensor_parallel_size=tp, pipeline_parallel_size=1, decode_context_parallel_size=1,
                              prefill_context_parallel_size=1, rank=rank))


def caches(layers=LAYERS, dtype=torch.float32):
    spec = FullAttentionSpec(block_size=TOKENS, num_kv_heads=HEADS, head_size=SIZE, dtype=dtype)
    return KVCacheConfig(num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(list(layers), spec)])


def request(tokens, salt=None, lora=None):
    kv_cache_utils.init_none_hash(sha256_cbor)
    return Request(request_id=f"r{next(numbers)}", prompt_token_ids=list(tokens), sampling_params=SamplingParams(max_tokens=4),
                   pooling_params=None, cache_salt=salt, lora_request=lora,
                   block_hasher=kv_cache_utils.get_request_block_hasher(TOKENS, sha256_cbor))


def step(new=(), cached=(), scheduled=None):
    """As much of a SchedulerOutput as a connector reads."""
    space = types.SimpleNamespace
    return space(scheduled_new_reqs=[space(req_id=r.request_id, block_ids=(blocks,), num_computed_tokens=done)
                                     for r, blocks, done in new],
                 scheduled_cached_reqs=space(req_ids=[r.request_id for r, _, _ in cached], resumed_req_ids=set(),
                                             new_block_ids=[(more,) if more else None for _, more, _ in cached],
                                             num_computed_tokens=[done for _, _, done in cached]),
                 num_scheduled_tokens=scheduled or {})


def setUpModule():
    """As on a GPU, whatever this vLLM was built for."""
    platform = mock.patch("vllm.platforms.current_platform", types.SimpleNamespace(is_cpu=lambda: False))
    platform.start()
    unittest.addModuleCleanup(platform.stop)


class Engine:
    """A scheduler's and a worker's half, and a paged cache of tensors."""

    def __init__(self, case, layout="BHNC", dtype=torch.float32, **what):
        extra = {"socket": case.node.socket, "weights": case.id(), **what.pop("extra", {})}
        made = config(extra, **what)
        self.scheduler = ours.WeftConnector(made, KVConnectorRole.SCHEDULER, caches(dtype=dtype))
        case.addCleanup(self.scheduler.shutdown)
        self.worker = ours.WeftConnector(made, KVConnectorRole.WORKER, caches(dtype=dtype))
        case.addCleanup(self.worker.shutdown)
        shape = (BLOCKS, HEADS, TOKENS, 2 * SIZE)
        if layout == "BHNC":
            self.kv = {name: torch.zeros(shape, dtype=dtype) for name in LAYERS}
        else:  # BLNHC: blocks outermost, heads inside tokens; the logical view is the same
            whole = torch.zeros((BLOCKS, len(LAYERS), TOKENS, HEADS, 2 * SIZE), dtype=dtype)
            self.kv = {name: whole[:, i].transpose(1, 2) for i, name in enumerate(LAYERS)}
        self.worker.register_kv_caches(self.kv)

    def run(self, metadata):
        self.worker.bind_connector_metadata(metadata)
        self.worker.start_load_kv(None)
        self.worker.wait_for_save()
        self.worker.clear_connector_metadata()

    def prefill(self, made, table, seed):
        """Compute: fill the request's blocks with values of their own, and save them."""
        self.scheduler.get_num_new_matched_tokens(made, 0)
        values = {}
        for layer, tensor in enumerate(self.kv.values()):
            for i, block in enumerate(table):
                values[layer, i] = torch.full((HEADS, TOKENS, 2 * SIZE), seed + 10.0 * i + layer) + torch.arange(2 * SIZE)
                tensor[block] = values[layer, i].to(tensor.dtype)
        self.run(self.scheduler.build_connector_meta(
            step(new=[(made, table, 0)], scheduled={made.request_id: made.num_tokens})))
        return values

    def load(self, made, table):
        """How many tokens were found, which blocks failed."""
        found, later = self.scheduler.get_num_new_matched_tokens(made, 0)
        if not found:
            return found, set()
        assert later
        self.scheduler.update_state_after_alloc(made, types.SimpleNamespace(get_block_ids=lambda: (table,)), found)
        self.run(self.scheduler.build_connector_meta(step()))
        until = time.monotonic() + 20
        while made.request_id not in (self.worker.get_finished(set())[1] or ()):
            assert time.monotonic() < until, "a load was never answered"
            time.sleep(0.002)
        return found, self.worker.get_block_ids_with_load_errors()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.addClassCleanup(cls.node.close)


class Blocks(Case):
    def test_saved_by_one_loaded_by_another_of_another_layout(self):
        one, two = Engine(self), Engine(self, layout="BLNHC")
        prompt = range(100, 100 + 4 * TOKENS + 1)
        values = one.prefill(request(prompt), [3, 7, 1, 9, 2], 1.0)
        found, bad = two.load(request(prompt), [5, 6, 11, 12, 13])
        self.assertEqual((found, bad), (4 * TOKENS, set()))
        for layer, tensor in enumerate(two.kv.values()):
            for i, block in enumerate([5, 6, 11, 12]):
                self.assertTrue(torch.equal(tensor[block], values[layer, i]), (layer, i))
            self.assertFalse(tensor[13].any())

    def test_bf16(self):
        one, two = Engine(self, dtype=torch.bfloat16), Engine(self, dtype=torch.bfloat16)
        values = one.prefill(request(range(33)), [0, 1, 2], 1.0)
        self.assertEqual(two.load(request(range(33)), [4, 5, 6])[0], 32)
        self.assertTrue(torch.equal(two.kv["l1"][5], values[1, 1].to(torch.bfloat16)))

    def test_the_names_are_those_that_weft_makes_of_tokens(self):
        made = request(range(64), salt="s")
        extra = [(("cache_salt", "s"),), None, None, None]
        self.assertEqual(list(weft.vllm.block_hashes(range(64), TOKENS, extra=extra)), [bytes(h) for h in made.block_hashes])

    def test_the_last_token_is_computed(self):
        one = Engine(self)
        one.prefill(request(range(32)), [0, 1], 1.0)
        self.assertEqual(one.load(request(range(32)), [2, 3])[0], 16)

    def test_only_what_is_computed_is_saved(self):
        """vllm#38606: of a prompt that is computed in pieces, what is not computed yet is not there."""
        one, made = Engine(self), request(range(64))
        one.scheduler.get_num_new_matched_tokens(made, 0)
        one.run(one.scheduler.build_connector_meta(step(new=[(made, [0, 1, 2, 3], 0)], scheduled={made.request_id: 40})))
        self.assertEqual(Engine(self).load(request(range(65)), [4, 5, 6, 7, 8])[0], 32)
        one.run(one.scheduler.build_connector_meta(step(cached=[(made, None, 40)], scheduled={made.request_id: 24})))
        self.assertEqual(Engine(self).load(request(range(65)), [4, 5, 6, 7, 8])[0], 64)

    def test_a_block_that_went_is_an_error(self):
        """dynamo: a failed load must not serve what the blocks held before."""
        one, two = Engine(self), Engine(self)
        one.prefill(request(range(65)), [0, 1, 2, 3], 1.0)
        made = request(range(65))
        found, _ = two.scheduler.get_num_new_matched_tokens(made, 0)
        two.scheduler.update_state_after_alloc(made, types.SimpleNamespace(get_block_ids=lambda: ([4, 5, 6, 7],)), found)
        meta = two.scheduler.build_connector_meta(step())
        fmt = two.worker._half._format
        fmt.remove(fmt.key(meta.loads[0].names[2]))
        two.run(meta)
        until = time.monotonic() + 20
        while not two.worker.get_finished(set())[1]:
            self.assertLess(time.monotonic(), until)
        self.assertEqual(two.worker.get_block_ids_with_load_errors(), {6, 7})
        self.assertEqual(two.worker.get_block_ids_with_load_errors(), set())


class Misses(Case):
    def found(self, made, **what):
        engine = Engine(self, **what)
        for _ in range(500):
            found = engine.load(made, list(range(8)))[0]
            if found is not None:
                return found
            time.sleep(0.01)
        return None

    def test_salt_and_adapter(self):
        """vllm#37160 cache_salt, #44250 and #30931 LoRA, #44701 LoRA's name and salt."""
        with tempfile.TemporaryDirectory() as folder:
            weights = pathlib.Path(folder, "adapter_model.safetensors")
            weights.write_bytes(b"one")
            lora = LoRARequest("sql", 1, folder)
            one = Engine(self)
            for made in (request(range(33)), request(range(33), lora=lora), request(range(33), salt="sql")):
                while one.scheduler.get_num_new_matched_tokens(made, 0)[0] is None:
                    time.sleep(0.01)  # its adapter is being read
                self.assertEqual(self.found(made), 0)
                one.prefill(made, [0, 1, 2], 1.0)
                self.assertEqual(self.found(made), 32)
            self.assertEqual(self.found(request(range(33), salt="other")), 0)
            self.assertEqual(self.found(request(range(33), lora=lora, salt="sql")), 0)
            weights.write_bytes(b"trained further")
            self.assertEqual(self.found(request(range(33), lora=lora)), 0)
            # What this engine has loaded is not what lies there now.
            again = request(range(33), lora=lora)
            self.assertEqual(one.scheduler.get_num_new_matched_tokens(again, 0), (0, False))
            one.prefill(again, [4, 5, 6], 2.0)
            self.assertEqual(self.found(request(range(33), lora=lora)), 0)
            self.assertEqual(self.found(request(range(33), lora=LoRARequest("sql", 1, "/not/here"))), 0)

    def test_what_differs_is_a_miss(self):
        Engine(self).prefill(request(range(33)), [0, 1, 2], 1.0)
        self.assertEqual(self.found(request(range(33))), 32)
        for what in ({"model": "other"}, {"dtype": torch.bfloat16}, {"cache_dtype": "fp8"}, {"extra": {"weights": "others"}},
                     {"extra": {"salt": "mine"}}, {"tp": 2}):
            with self.subTest(**what):
                self.assertEqual(self.found(request(range(33)), **what), 0)

    def test_every_rank_must_have_it(self):
        first = Engine(self, tp=2)
        first.prefill(request(range(33)), [0, 1, 2], 1.0)
        self.assertEqual(self.found(request(range(33)), tp=2), 0)
        second = Engine(self, tp=2, rank=1)
        second.prefill(request(range(33)), [0, 1, 2], 1.0)
        self.assertEqual(self.found(request(range(33)), tp=2), 32)

    def test_reset(self):
        one = Engine(self)
        one.prefill(request(range(33)), [0, 1, 2], 1.0)
        self.assertTrue(one.scheduler.reset_cache())
        self.assertEqual(one.load(request(range(33)), [3, 4, 5])[0], 0)


class Refusals(Case):
    def test_layouts(self):
        """LMCache#4463 #4247: vLLM's new layout must not be read as the old, nor one that nobody knows as any."""
        known = {(24, 2, 16, 16): ("HNC", 0), (2, 24, 16, 2, 8): ("2NHD", 1), (24, 2, 16, 2, 8): ("2NHD", 0)}
        for shape, form in known.items():
            self.assertEqual(ours.form_of(shape, BLOCKS, TOKENS, HEADS, SIZE), form)
        for shape in ((24, 16, 2, 16), (24, 2, 16, 8), (2, 24, 2, 16, 8), (24, 2, 2, 16, 8), (24, 16, 2, 2, 8), (24, 512), ()):
            with self.assertRaisesRegex(ValueError, "none of the layouts"):
                ours.form_of(shape, BLOCKS, TOKENS, HEADS, SIZE)
        with self.assertRaisesRegex(ValueError, "more than one"):
            ours.form_of((2, 2, 16, 2, 8), 2, TOKENS, HEADS, SIZE)

    def test_a_tensor_of_the_old_form(self):
        worker = Engine(self).worker
        with self.assertRaisesRegex(ValueError, "of the form 2NHD"):
            worker.register_kv_caches({name: torch.zeros(2, BLOCKS, TOKENS, HEADS, SIZE) for name in LAYERS})
        with self.assertRaisesRegex(ValueError, "no KV cache of layer 'l2'"):
            worker.register_kv_caches({name: torch.zeros(BLOCKS, HEADS, TOKENS, 2 * SIZE) for name in LAYERS[:2]})

    def test_what_lies_inside_of_a_shape(self):
        """The CPU's pages have the shape of a GPU's, and K transposed in them; ROCm's with two heads have it, too."""
        with self.assertRaisesRegex(ValueError, "of the form CPU-amx where this vLLM is taken to have HNC"):
            Engine(self, backend=CPUAttentionBackend)
        with self.assertRaisesRegex(ValueError, "RocmAttentionBackend, and how that orders K and V"):
            Engine(self, backend=RocmAttentionBackend)

    def test_configurations(self):
        for words, what in (("sha256_cbor", {"algorithm": "xxhash"}), ("prefix caching", {"caching": False}),
                            ("no setting 'sockets'", {"extra": {"sockets": 1}}), ("no form", {"extra": {"form": "x"}})):
            with self.subTest(words), self.assertRaisesRegex(ValueError, words):
                Engine(self, **what)
        two = KVCacheConfig(num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=caches().kv_cache_groups * 2)
        with self.assertRaisesRegex(ValueError, "2 groups"):
            ours.WeftConnector(config({"socket": self.node.socket}), KVConnectorRole.WORKER, two)


if __name__ == "__main__":
    unittest.main()
