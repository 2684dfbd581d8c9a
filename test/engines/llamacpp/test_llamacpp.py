# SPDX-License-Identifier: Apache-2.0
"""Sequences of the real llama.cpp, by way of llama-cpp-python, with models made on the spot."""
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
from unittest import mock

import llama_cpp
import numpy as np
from node import Case, Node

import weft
from weft.connectors import llamacpp
from weft.connectors.llamacpp import attach

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "examples"))
from llamacpp_chat import make_model  # noqa: E402

SMALL = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 1, "hidden": 96, "context": 1024}
folder = None


def setUpModule():
    global folder
    folder = tempfile.mkdtemp(prefix="weft-llamacpp-")
    unittest.addModuleCleanup(shutil.rmtree, folder)
    make_model(model(), seed=1, **SMALL)
    make_model(model("other"), seed=2, **SMALL)


def model(name="model"):
    return os.path.join(folder, name + ".gguf")


def make_lora(path, seed):
    import gguf
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for name, out in (("attn_k", 32), ("attn_v", 32)):
        writer.add_tensor(f"blk.0.{name}.weight.lora_a", random.standard_normal((4, 64)).astype(np.float32))
        writer.add_tensor(f"blk.0.{name}.weight.lora_b", random.standard_normal((out, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def prompt(count, seed=5):
    return np.random.default_rng(seed).integers(3, 500, count).tolist()


class LlamaCpp(Case):
    def llama(self, path=None, **how):
        llama = llama_cpp.Llama(path or model(), verbose=False, **{"n_ctx": 512, "n_batch": 128, "n_threads": 1, **how})
        self.addCleanup(llama.close)
        return llama

    def both(self, path=None, fabric=None, salt=None, attached=None, **how):
        llama = self.llama(path, **how)
        return llama, attach(fabric or self.fabric, llama, salt=salt or self.id(), **(attached or {}))

    @staticmethod
    def text(llama, tokens, new=20):
        """The tokens that follow, and the logits of the first."""
        out, logits = [], None
        for token in llama.generate(tokens, temp=0.0):
            if not out:
                logits = np.ctypeslib.as_array(llama._ctx.get_logits(), shape=(llama.n_vocab(),)).copy()
            out.append(token)
            if len(out) == new:
                return out, logits

    def check(self, tokens, loaded, path=None, salt=None, attached=None, **how):
        """As without Weft, bit by bit, and so many tokens came out of Weft."""
        llama, kept = self.both(path, salt=salt, attached=attached, **how)
        ours, logits = self.text(llama, tokens)
        theirs, plain = self.text(self.llama(path, **how), tokens)
        self.assertIsNone(kept.why)
        self.assertEqual(kept.loaded_tokens, loaded)
        self.assertEqual(ours, theirs)
        if loaded:
            np.testing.assert_allclose(logits, plain, rtol=1e-3, atol=1e-3)
        else:
            np.testing.assert_array_equal(logits, plain)
        return kept

    # ------------------------------------------------------------------------------------ same answers

    def test_text_and_logits(self):
        tokens = prompt(200)
        self.assertEqual(self.check(tokens, 0).stored_blocks, 13)  # 219 tokens were computed
        self.check(tokens, 192)
        self.check(tokens[:128], 112)  # one at least is computed
        self.check(tokens[:100] + prompt(60, 9), 96)

    def test_blocks_are_the_bits_that_were_saved(self):
        tokens = prompt(128)
        llama, kept = self.both()
        llama.eval(tokens)
        again, found = self.both()
        again.eval(tokens + [7])
        self.assertEqual(found.loaded_tokens, 128)
        for block in range(8):
            views = []
            for each in (kept, found):
                data = bytearray(each._format.block_bytes)
                with memoryview(data) as view:
                    each._save(block, view)
                views.append(bytes(data))
            self.assertEqual(views[0], views[1])

    def test_caches_of_other_types(self):
        tokens = prompt(100)
        for how in ({"type_k": 0, "type_v": 0}, {"flash_attn": True}, {"flash_attn": True, "type_k": 8, "type_v": 8},
                    {"type_k": 8}):
            with self.subTest(how):
                self.check(tokens, 0, **how)
                self.check(tokens, 96, **how)

    def test_a_conversation(self):
        """The context's own prefix goes first; what it does not have is looked up from there on."""
        tokens = prompt(100)
        self.check(tokens + prompt(100, 6), 0)
        llama, kept = self.both()
        self.text(llama, tokens[:40], 3)  # 32 out of Weft; then 42 in the context
        self.assertEqual(kept.loaded_tokens, 32)
        out, _ = self.text(llama, tokens + prompt(100, 6))
        self.assertEqual(kept.loaded_tokens, 32 + 192 - 40)  # a block of which a part was here is loaded whole
        self.assertEqual(out, self.text(self.llama(), tokens + prompt(100, 6))[0])
        out, _ = self.text(llama, tokens[:50] + prompt(30, 7))
        self.assertEqual(out, self.text(self.llama(), tokens[:50] + prompt(30, 7))[0])
        self.assertIsNone(kept.why)

    def test_no_part_of_a_block_is_lost(self):
        """A block of which the context had a part, and which then can not be had."""
        tokens = prompt(100)
        self.check(tokens, 0)
        llama, kept = self.both()
        llama.eval(tokens[:40])
        with mock.patch.object(kept, "_restore", return_value=False):
            llama.eval(tokens[40:])
        self.assertEqual((llama.n_tokens, kept.loaded_tokens, kept.why), (100, 32, None))
        plain = self.llama()
        plain.eval(tokens)
        for each in (llama, plain):
            self.assertEqual(each.input_ids[:100].tolist(), tokens)
        one, other = (np.ctypeslib.as_array(each._ctx.get_logits(), shape=(each.n_vocab(),)) for each in (llama, plain))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)

    def test_the_proxy_reads_its_files(self):
        """What the fake llama-server writes is what llama.cpp writes."""
        import ctypes

        from weft.llamacpp_proxy import file_tokens
        tokens = prompt(70)
        llama = self.llama()
        llama.eval(tokens)
        path = os.path.join(folder, "slot.bin")
        words = (ctypes.c_int32 * 70)(*tokens)
        self.assertGreater(llama_cpp.llama_state_seq_save_file(llama._ctx.ctx, path.encode(), 0, words, 70), 0)
        with open(path, "rb") as file:
            self.assertEqual(file_tokens(file.read()), tokens)

    def test_detach(self):
        llama, kept = self.both()
        self.refused(weft.InvalidError, "attached", attach, self.fabric, llama)
        kept.detach()
        self.text(llama, prompt(50))
        self.assertEqual(kept.stored_blocks, 0)

    # --------------------------------------------------------------------------------- what is a miss

    def test_other_weights_of_the_same_shape(self):
        tokens = prompt(100)
        self.check(tokens, 0)
        self.check(tokens, 0, model("other"))
        copy = os.path.join(folder, "copy.gguf")
        shutil.copy(model(), copy)
        self.check(tokens, 96, copy)  # the file is known by its content
        shutil.copy(model("other"), copy)
        self.check(tokens, 96, copy)  # which is another one now, and its blocks are there since above

    def test_what_else_makes_kv(self):
        tokens = prompt(100)
        self.check(tokens, 0)
        self.check(tokens, 0, salt="another")
        self.check(tokens, 0, attached={"block_tokens": 32})
        for how in ({"rope_freq_base": 5e5}, {"rope_freq_scale": 0.5}, {"type_k": 0}, {"flash_attn": True},
                    {"kv_overrides": {"llama.attention.layer_norm_rms_epsilon": 1e-3}}):
            with self.subTest(how):
                self.check(tokens, 0, **how)
        self.check(tokens, 96, n_ctx=1024, n_batch=64)

    def test_an_adapter(self):
        tokens = prompt(100)
        self.check(tokens, 0)
        paths = [os.path.join(folder, f"lora{seed}.gguf") for seed in (1, 2)]
        for seed, path in enumerate(paths):
            make_lora(path, seed)
        self.check(tokens, 0, lora_path=paths[0])
        self.check(tokens, 96, lora_path=paths[0])
        self.check(tokens, 0, lora_path=paths[0], lora_scale=0.5)
        self.check(tokens, 0, lora_path=paths[1])

    def test_another_library(self):
        tokens = prompt(100)
        self.check(tokens, 0)
        with mock.patch.object(llama_cpp, "LLAMA_STATE_SEQ_VERSION", 99):
            self.check(tokens, 0)

    def test_a_restore_that_does_nothing(self):
        """llama.cpp#26676: a restore said that it had restored."""
        tokens = prompt(100)
        self.check(tokens, 0)
        with mock.patch.object(llama_cpp, "llama_state_seq_set_data", lambda ctx, source, size, sequence: size):
            self.check(tokens, 0)
        with mock.patch.object(llama_cpp, "llama_state_seq_set_data", lambda ctx, source, size, sequence: 0):
            self.check(tokens, 0)

    def test_another_process_after_a_restart(self):
        """llama.cpp#17107, #24004: what was computed outlives the process."""
        import subprocess
        tokens = prompt(100)
        script = (f"import sys; sys.path[:0] = {sys.path!r}\n"
                  "import llama_cpp, weft\nfrom weft.connectors.llamacpp import attach\n"
                  f"llama = llama_cpp.Llama({model()!r}, n_ctx=512, n_batch=128, n_threads=1, verbose=False)\n"
                  f"kept = attach(weft.connect({self.node.socket!r}), llama, salt={self.id()!r})\n"
                  f"llama.eval({tokens!r})\nprint(kept.stored_blocks, kept.why)\n")
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
        self.assertEqual(out.stdout.strip(), "6 None", out.stderr)
        self.check(tokens, 96)

    # ------------------------------------------------------------------------------- what is not for Weft

    def test_a_state_that_was_loaded(self):
        """Whose KV it is we do not know: it is not put, and nothing is loaded behind it."""
        tokens = prompt(100)
        llama, kept = self.both()
        llama.eval(tokens[:50])
        state = llama.save_state()
        llama.reset()
        llama.eval(prompt(20, 8))
        stored = kept.stored_blocks
        llama.load_state(state)
        llama.eval(tokens[50:])
        self.assertEqual(kept.stored_blocks, stored)
        self.assertIn("of which Weft saw", kept.why)
        llama.reset()
        llama.eval(prompt(20, 8))
        self.assertIsNone(kept.why)

    def test_all_logits(self):
        tokens = prompt(100)
        self.check(tokens, 0)
        self.check(tokens, 0, logits_all=True)

    def test_late(self):
        llama = self.llama()
        llama.eval(prompt(5))
        self.refused(weft.InvalidError, "before it is used", attach, self.fabric, llama)

    def test_refused(self):
        for name, answer, words in (("llama_model_n_swa", 128, "window"), ("llama_model_is_hybrid", True, "hybrid"),
                                    ("llama_model_is_recurrent", True, "recurrent"),
                                    ("llama_model_has_encoder", True, "encoder"),
                                    ("llama_model_rope_type", 8, "dimensions")):
            with mock.patch.object(llamacpp.llama_cpp, name, lambda model, answer=answer: answer):
                self.refused(weft.InvalidError, words, attach, self.fabric, self.llama())
        self.refused(weft.InvalidError, "embeddings", attach, self.fabric, self.llama(embedding=True))

    def test_the_node_goes_away(self):
        node = Node()
        self.addCleanup(node.close)
        fabric = node.connect(timeout=1.0)
        self.addCleanup(fabric.close)
        llama, kept = self.both(fabric=fabric)
        tokens = prompt(100)
        llama.eval(tokens[:50])
        node.kill()
        out, _ = self.text(llama, tokens)
        self.assertEqual(out, self.text(self.llama(), tokens)[0])
        self.assertIsNotNone(kept.why)


if __name__ == "__main__":
    unittest.main()
