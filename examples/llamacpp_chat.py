#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same prompt in two Llamas of llama-cpp-python: the second finds the KV of the first in Weft.

llamacpp_chat.py [--json] [--tokens N] [--new N] [--model FILE.gguf]   Without a file a small model of random weights is
made on the spot.  `identical` says whether the text and the logits of its first token are the same without Weft, cold
and warm.
"""
import argparse
import json
import os
import tempfile
import time

import private_node

PIP = "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install llama-cpp-python gguf   (it builds llama.cpp: minutes)"
VOCABULARY = 512


def make_model(path, seed=3, layers=8, width=512, heads=8, kv_heads=2, hidden=1536, context=4096):
    """A Llama of random weights as GGUF."""
    gguf, np = private_node.need("gguf", PIP), private_node.need("numpy", PIP)
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    pieces += [f"\u2581w{i}" for i in range(VOCABULARY - len(pieces))]
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def add(name, *shape, scale=None):
        scale = scale or 1.0 / shape[-1] ** 0.5
        writer.add_tensor(name, (random.standard_normal(shape) * scale).astype(np.float32))

    add("token_embd.weight", VOCABULARY, width, scale=1.0)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    add("output.weight", VOCABULARY, width)
    for i in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(width, np.float32))
        add(f"blk.{i}.attn_q.weight", width, width)
        add(f"blk.{i}.attn_k.weight", width // heads * kv_heads, width)
        add(f"blk.{i}.attn_v.weight", width // heads * kv_heads, width)
        add(f"blk.{i}.attn_output.weight", width, width)
        add(f"blk.{i}.ffn_gate.weight", hidden, width)
        add(f"blk.{i}.ffn_up.weight", hidden, width)
        add(f"blk.{i}.ffn_down.weight", width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--tokens", type=int, default=1500, help="of the prompt (1500)")
    parser.add_argument("--new", type=int, default=16, help="to generate (16)")
    parser.add_argument("--model", help="a GGUF file")
    args = parser.parse_args()
    llama_cpp = private_node.need("llama_cpp", PIP)
    np = private_node.need("numpy", PIP)
    with tempfile.TemporaryDirectory(prefix="weft-llama-") as folder, private_node.connect() as fabric:
        from weft.connectors.llamacpp import attach
        path = args.model or os.path.join(folder, "random.gguf")
        if not args.model:
            make_model(path)
        salt = str(time.time_ns())  # that the first run is cold on a node that has seen this before

        def run(weft):
            """Milliseconds to the first token, its logits, the text, and tokens out of Weft: in a Llama of its own."""
            llama = llama_cpp.Llama(path, n_ctx=args.tokens + args.new + 32, n_batch=512, verbose=False)
            kept = attach(fabric, llama, salt=salt) if weft else None
            prompt = np.random.default_rng(5).integers(3, llama.n_vocab(), args.tokens).tolist()
            llama.eval([1, 1])  # what is allocated at first use is not what is to be shown
            llama.reset()
            begin = time.perf_counter()
            tokens, logits = [], None
            for token in llama.generate(prompt, temp=0.0):
                if not tokens:
                    first = (time.perf_counter() - begin) * 1e3
                    logits = np.ctypeslib.as_array(llama._ctx.get_logits(), shape=(llama.n_vocab(),)).copy()
                tokens.append(token)
                if len(tokens) == args.new:
                    break
            llama.close()
            return first, logits, tokens, kept.loaded_tokens if kept else 0

        plain, cold, warm = run(False), run(True), run(True)
    result = {
        "ttft_plain_ms": round(plain[0], 1),
        "ttft_cold_ms": round(cold[0], 1),
        "ttft_warm_ms": round(warm[0], 1),
        "identical": bool(plain[2] == cold[2] == warm[2] and np.array_equal(plain[1], cold[1])
                          and np.array_equal(plain[1], warm[1])),
        "prompt_tokens": args.tokens,
        "loaded_tokens": warm[3],
        "same_text": plain[2] == cold[2] == warm[2],
        "max_logit_difference": float(np.abs(plain[1] - warm[1]).max()),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"without Weft  {plain[0]:8.1f} ms to the first token of a prompt of {args.tokens}\n"
          f"cold          {cold[0]:8.1f} ms, which puts the blocks too\n"
          f"warm          {warm[0]:8.1f} ms, {warm[3]} tokens out of Weft\n"
          f"text and logits are {'identical' if result['identical'] else 'NOT IDENTICAL'} (logits at most "
          f"{result['max_logit_difference']:.1e} apart)")


if __name__ == "__main__":
    main()
