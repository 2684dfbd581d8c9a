# SPDX-License-Identifier: Apache-2.0
"""WeftCache in the real Transformers, with Llamas of random weights made on the spot.

Equal logits are asked for bit by bit wherever the same products are computed: cold against without Weft, and warm
against a DynamicCache that is filled in the same two parts.
"""
import copy
import unittest

import torch
import transformers
from node import Case, Node
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

import weft
from weft.connectors.transformers import WeftCache

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
SIZES = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 1024}


def llama(seed=1, dtype=torch.float32, **changes):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).to(dtype).eval()


def prompt(count, seed=5, rows=1):
    return torch.randint(1, 97, (rows, count), generator=torch.Generator().manual_seed(seed))


def generate(model, ids, cache=None, new=20, **how):
    mask = how.pop("attention_mask", torch.ones_like(ids))
    return model.generate(ids, past_key_values=cache, max_new_tokens=new, attention_mask=mask,
                          **{"do_sample": False, "pad_token_id": 0, "eos_token_id": None, **how})


class Transformers(Case):
    def setUp(self):
        super().setUp()
        self.salt = self.id()
        self.model = llama()

    def cache(self, model=None, **how):
        return WeftCache(self.fabric, model or self.model, **{"salt": self.salt, **how})

    def fill(self, ids, model=None, **how):
        """Put the blocks of `ids`; the text that came out."""
        cache = self.cache(model, **how)
        out = generate(model or self.model, ids, cache)
        self.assertIsNone(cache.why)
        self.assertEqual(cache.loaded_tokens, 0)
        self.assertGreaterEqual(cache.stored_blocks, ids.shape[1] // 16)
        return out

    def misses(self, ids, model=None, **how):
        cache = self.cache(model, **how)
        ours = generate(model or self.model, ids, cache, new=4)
        self.assertEqual(cache.loaded_tokens, 0)
        self.assertTrue(torch.equal(ours, generate(model or self.model, ids, new=4)))

    def hits(self, ids, tokens, model=None, **how):
        cache = self.cache(model, **how)
        ours = generate(model or self.model, ids, cache)
        self.assertIsNone(cache.why)
        self.assertEqual(cache.loaded_tokens, tokens)
        self.assertTrue(torch.equal(ours, generate(model or self.model, ids)))
        return cache

    # ------------------------------------------------------------------------------------ same answers

    def test_text_and_logits(self):
        ids = prompt(200)
        plain = generate(self.model, ids, output_logits=True, return_dict_in_generate=True)
        for loaded in (0, 192):
            cache = self.cache()
            ours = generate(self.model, ids, cache, output_logits=True, return_dict_in_generate=True)
            self.assertEqual(cache.loaded_tokens, loaded)
            self.assertTrue(torch.equal(plain.sequences, ours.sequences))
            if not loaded:
                for one, other in zip(plain.logits, ours.logits):
                    self.assertTrue(torch.equal(one, other))
            else:
                torch.testing.assert_close(torch.stack(plain.logits), torch.stack(ours.logits), rtol=1e-4, atol=1e-5)

    def test_warm_is_what_two_parts_are(self):
        ids = prompt(150)
        with torch.no_grad():
            before = DynamicCache(config=self.model.config)
            self.model(ids[:, :144], past_key_values=before)
            for layer in before.layers:  # what attention had: Weft stores and gives back the same bits
                layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
            parts = self.model(ids[:, 144:], past_key_values=before, logits_to_keep=1).logits
            first = self.cache()
            self.model(ids[:, :144], past_key_values=first, logits_to_keep=1)
            self.assertEqual(first.stored_blocks, 9)
            warm = self.cache()
            ours = self.model(ids, past_key_values=warm, logits_to_keep=1).logits
        self.assertEqual(warm.loaded_tokens, 144)
        self.assertTrue(torch.equal(ours, parts))
        for one, other in zip(before.layers, warm.layers):
            self.assertTrue(torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values))

    def test_longest_prefix(self):
        ids = prompt(100)
        self.fill(ids)
        other = ids.clone()
        other[0, 70] = 96 if ids[0, 70] != 96 else 95
        self.hits(other, 64)
        self.hits(ids[:, :64], 48)  # one token at least is computed
        self.hits(ids[:, :65], 64)

    def test_what_was_generated_is_found(self):
        out = self.fill(prompt(60))
        self.assertEqual(out.shape[1], 80)
        self.hits(torch.cat([out, prompt(9, 8)], 1), 64)  # the 80th token's KV was never computed

    def test_a_conversation_in_one_cache(self):
        ids, more = prompt(50), prompt(30, 6)
        cache, plain = self.cache(), DynamicCache(config=self.model.config)
        for _ in range(2):
            ours, theirs = generate(self.model, ids, cache), generate(self.model, ids, plain)
            self.assertTrue(torch.equal(ours, theirs))
            ids = torch.cat([ours, more], 1)
        self.assertIsNone(cache.why)
        self.hits(ids, 112)

    def test_a_prompt_in_pieces(self):
        ids = prompt(300)
        self.fill(ids)
        cache = self.hits_in_pieces(ids)
        self.assertGreaterEqual(cache.loaded_tokens, 200)

    def hits_in_pieces(self, ids):
        cache = self.cache()
        ours = generate(self.model, ids, cache, prefill_chunk_size=64)
        self.assertTrue(torch.equal(ours, generate(self.model, ids)))
        return cache

    def test_batches_and_beams(self):
        ids = prompt(90, rows=3)
        self.fill(ids[1:2])
        cache = self.cache()
        self.assertTrue(torch.equal(generate(self.model, ids, cache), generate(self.model, ids)))
        self.assertEqual((cache.loaded_tokens, cache.why), (0, None))  # the first row had none
        self.hits(ids, 80)
        for how in ({"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}):
            cache = self.cache()
            self.assertTrue(torch.equal(generate(self.model, ids, cache, **how), generate(self.model, ids, **how)))
            self.assertEqual((cache.loaded_tokens, cache.why), (80, None))

    def test_beams_put_what_they_mean(self):
        """Beams are reordered under the tokens: what is put under a beam's tokens must be its own KV."""
        ids = prompt(30)
        out = generate(self.model, ids, self.cache(), new=60, num_beams=4)
        cache = self.cache()
        whole = torch.cat([out, prompt(7, 3)], 1)
        with torch.no_grad():
            ours = self.model(whole, past_key_values=cache, logits_to_keep=1).logits
            plain = self.model(whole, logits_to_keep=1).logits
        self.assertGreaterEqual(cache.loaded_tokens, 64)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)

    def test_candidates_that_are_taken_back(self):
        ids = prompt(24).repeat(1, 4)  # repeats, so that prompt lookup proposes
        how = {"prompt_lookup_num_tokens": 5}
        plain = generate(self.model, ids, new=40)
        for _ in range(2):
            cache = self.cache()
            self.assertTrue(torch.equal(generate(self.model, ids, cache, new=40, **how), plain))
            self.assertIsNone(cache.why)
        self.hits(torch.cat([plain, prompt(3)], 1), 128)

    def test_bf16(self):
        model = llama(dtype=torch.bfloat16)
        ids = prompt(100)
        self.fill(ids, model)
        cache = self.cache(model)
        generate(model, ids, cache)
        self.assertEqual(cache.loaded_tokens, 96)
        self.misses(ids)  # the same seed's in f32

    # --------------------------------------------------------------------------------- what is a miss

    def test_other_weights_of_the_same_shape(self):
        """sglang#24758: pages were reused across weights."""
        ids = prompt(100)
        self.fill(ids)
        self.misses(ids, llama(seed=2))
        self.hits(ids, 96, llama())  # loaded again, the same: no name, no path, no object is in it

    def test_weights_changed_in_place(self):
        ids = prompt(100)
        self.fill(ids)
        with torch.no_grad():
            self.model.model.layers[1].self_attn.k_proj.weight[0, 0] += 1
        self.misses(ids)
        with torch.no_grad():
            self.model.model.layers[1].self_attn.k_proj.weight[0, 0] -= 1
        self.model.load_state_dict(llama(seed=3).state_dict())
        self.misses(ids)
        self.model.load_state_dict(llama().state_dict())
        self.hits(ids, 96)

    def test_weights_changed_behind_the_counters(self):
        ids = prompt(100)
        self.fill(ids)
        for parameter in self.model.parameters():
            parameter.data.mul_(1.01)
        self.misses(ids)

    def test_weights_changed_in_a_sequence(self):
        ids = prompt(100)
        cache = self.cache()
        out = generate(self.model, ids, cache)
        with torch.no_grad():
            self.model.lm_head.weight.mul_(1.5)
        generate(self.model, torch.cat([out, ids], 1), cache)
        self.assertIn("changed", cache.why)

    def test_salt_blocks_revision_and_word(self):
        ids = prompt(100)
        self.fill(ids)
        self.misses(ids, salt="another")
        self.misses(ids, block_tokens=32)
        self.misses(ids, revision="b3")
        self.misses(ids, identity="mine")
        self.hits(ids, 96, identity="mine")

    def test_rope_norm_and_attention(self):
        ids = prompt(100)
        self.fill(ids)
        for changes in ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"rms_norm_eps": 1e-3},
                        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
                        {"attn_implementation": "eager"}):
            with self.subTest(changes):
                self.misses(ids, llama(**changes))

    def test_an_adapter(self):
        try:
            import peft
        except ImportError:
            self.skipTest("peft is not installed")
        ids = prompt(100)
        self.fill(ids)

        def adapted(seed, name="default"):
            torch.manual_seed(seed)
            config = peft.LoraConfig(r=4, target_modules=["k_proj", "v_proj"], init_lora_weights=False)
            return peft.get_peft_model(copy.deepcopy(self.model), config, adapter_name=name).eval()

        one, two = adapted(1), adapted(2)
        self.misses(ids, one)
        self.hits(ids, 96, one)
        self.misses(ids, two)  # of the same name
        self.hits(ids, 96, adapted(1, "renamed"))
        with one.disable_adapter():
            self.hits(ids, 96, one)  # the model's own
        merged = adapted(1)
        merged.merge_adapter()
        self.misses(ids, merged)
        one.add_adapter("more", peft.LoraConfig(r=4, target_modules=["k_proj"], init_lora_weights=False))
        self.hits(ids, 96, one)
        one.set_adapter("more")
        self.misses(ids, one)

    # ------------------------------------------------------------------------------- what is not for Weft

    def test_refused(self):
        def refuse(words, model):
            self.refused(weft.InvalidError, words, WeftCache, self.fabric, model)
        small = {key: value for key, value in SIZES.items() if key != "num_hidden_layers"}
        refuse("SlidingWindow", transformers.MistralForCausalLM(transformers.MistralConfig(
            **small, num_hidden_layers=2, sliding_window=32)))
        refuse("encoder-decoder", transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=97, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)))
        refuse("dynamic", llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}))
        refuse("float64", llama(dtype=torch.float64))
        with torch.device("meta"):
            refuse("meta", LlamaForCausalLM(LlamaConfig(**SIZES)))

    def ends(self, words, call):
        """Weft steps aside with these words, and the answer is the same."""
        cache = self.cache()
        self.assertTrue(torch.equal(call(cache), call(None)))
        self.assertIn(words, cache.why)
        self.assertEqual((cache.loaded_tokens, cache.stored_blocks), (0, 0))

    def test_ends(self):
        ids = prompt(100, rows=2)
        self.fill(ids)
        mask = torch.ones_like(ids)
        mask[0, :20] = 0
        self.ends("padded", lambda cache: generate(self.model, ids, cache, attention_mask=mask))
        self.ends("inputs_embeds", lambda cache: self.model.generate(
            inputs_embeds=self.model.model.embed_tokens(ids), past_key_values=cache, max_new_tokens=4, do_sample=False,
            pad_token_id=0))
        self.ends("positions", lambda cache: self.model(
            ids, past_key_values=cache, position_ids=torch.arange(100)[None] + 3, logits_to_keep=1).logits)
        self.model.train()
        self.ends("training", lambda cache: self.model(ids, past_key_values=cache, logits_to_keep=1).logits)

    def test_all_logits_wanted(self):
        ids = prompt(100)
        self.fill(ids)
        cache = self.cache()
        with torch.no_grad():
            self.assertEqual(self.model(ids, past_key_values=cache).logits.shape[1], 100)
            self.assertEqual(cache.loaded_tokens, 0)
            cache = self.cache()
            there = cache.load(ids)
            self.assertEqual(there, 96)
            self.assertEqual(self.model(ids[:, there:], past_key_values=cache).logits.shape[1], 4)

    def test_a_cache_of_another_model(self):
        ids, other = prompt(100), llama(seed=2)
        self.cache(other)  # so that the other one has hooks, too
        cache = self.cache()
        generate(other, ids, cache)
        self.assertIn("another model", cache.why)
        self.misses(ids)
        self.misses(ids, other)

    def test_tokens_that_no_hook_saw(self):
        ids = prompt(64)
        cache = self.cache()
        with torch.no_grad():
            self.model.model(ids[:, :32], past_key_values=cache)
            self.model(ids[:, 32:], past_key_values=cache, logits_to_keep=1)
        self.assertIn("of which Weft saw 0", cache.why)
        self.misses(ids)

    def test_the_node_goes_away(self):
        node = Node()
        self.addCleanup(node.close)
        fabric = node.connect(timeout=1.0)
        self.addCleanup(fabric.close)
        ids = prompt(100)
        generate(self.model, ids, WeftCache(fabric, self.model))
        cache = WeftCache(fabric, self.model)
        node.kill()
        self.assertTrue(torch.equal(generate(self.model, ids, cache), generate(self.model, ids)))
        self.assertIsNotNone(cache.why)


if __name__ == "__main__":
    unittest.main()
