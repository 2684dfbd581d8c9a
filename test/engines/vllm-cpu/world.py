# SPDX-License-Identifier: Apache-2.0
"""What tests of a whole vLLM need: a tiny model with weights at random, an adapter for it, engines that start and end."""
import json
import multiprocessing
import os
import pathlib
import random

HERE = str(pathlib.Path(__file__).resolve().parent)
# The processes of engines read these when they import vLLM.  One thread: the tests share a machine with others.
os.environ.update(
    HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_KVCACHE_SPACE="1", OMP_NUM_THREADS="1", VLLM_CPU_OMP_THREADS_BIND="nobind",
    PYTHONPATH=os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["engine"])

BLOCK = 32
BASE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024, "block_size": BLOCK, "seed": 0,
        "prefix_caching_hash_algo": "sha256_cbor", "num_gpu_blocks_override": 256, "disable_log_stats": False}


def make_model(folder, seed=1, spread=0.12, **changes):
    """A Llama of random weights whose next token hangs on all tokens before it, and a tokenizer of single bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    torch.manual_seed(seed)
    config = LlamaConfig(**{
        "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 4096, "initializer_range": spread,
        "tie_word_embeddings": False, "bos_token_id": 256, "eos_token_id": 257, **changes})
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={**{each: i for i, each in enumerate(letters)}, "<s>": 256, "</s>": 257}, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return str(folder)


def make_adapter(folder, seed, layers=4, size=128, rank=4):
    """A LoRA adapter of the model's K and V."""
    import torch
    from safetensors.torch import save_file
    random_numbers, tensors = torch.Generator().manual_seed(seed), {}
    for layer in range(layers):
        for part, out in (("k_proj", 64), ("v_proj", 64)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{part}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, size, generator=random_numbers) * 0.3
            tensors[f"{name}.lora_B.weight"] = torch.randn(out, rank, generator=random_numbers) * 0.3
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"))
    pathlib.Path(folder, "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["k_proj", "v_proj"], "bias": "none",
        "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny", "lora_dropout": 0.0}))
    return str(folder)


def prompt(tokens, seed):
    numbers = random.Random(seed)
    return tuple(numbers.randrange(250) for _ in range(tokens))


def connector(socket, policy="recompute", **extra):
    return {"kv_transfer_config": {
        "kv_connector": "WeftConnector", "kv_connector_module_path": "weft.connectors.vllm", "kv_role": "kv_both",
        "kv_load_failure_policy": policy, "kv_connector_extra_config": {"socket": socket, **extra}}}


def _fork(*words):
    import engine
    engine.main(*words)


class Engine:
    """One vLLM, started and ended."""

    def __init__(self, model, log, variables=None, **settings):
        self._log = log
        self._pipe, theirs = forks.Pipe()
        self._process = forks.Process(target=_fork, args=(theirs, log, {"model": model, **BASE, **settings},
                                                          variables or {}))
        self._process.start()
        theirs.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def _answer(self):
        try:
            good, told = self._pipe.recv() if self._pipe.poll(300) else (False, "the engine does not answer")
        except EOFError:
            good, told = False, "the engine ended"
        if not good:
            raise AssertionError(f"{told}\n{self.said()[-4000:]}")
        return told

    def said(self):
        return pathlib.Path(self._log).read_text(errors="replace")

    def __getattr__(self, name):
        def order(*words):
            self._pipe.send((name, words))
            return self._answer()
        return order

    def ask(self, tokens, salt=None, lora=None, count=12):
        """One prompt: (text, tokens that were not computed)."""
        return self.generate([(tokens, salt, lora)], count)[0][:2]

    def close(self):
        self._pipe.close()
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.close()
