#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same prompt twice through Transformers' generate(), the second time with its KV out of Weft.

transformers_chat.py [--json] [--tokens N] [--new N]   A small Llama of random weights is made on the spot.  `identical`
says whether the text is the same without Weft, cold and warm; max_logit_difference how far the logits of its first
token are apart: a prefill in two parts is other products of matrices than one in a whole, and may round otherwise.
"""
import argparse
import json
import time

import private_node

PIP = "pip install 'transformers>=5.20' torch --extra-index-url https://download.pytorch.org/whl/cpu"


def small_llama(torch, transformers):
    torch.manual_seed(7)
    config = transformers.LlamaConfig(vocab_size=2048, hidden_size=512, intermediate_size=1536, num_hidden_layers=6,
                                      num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=4096)
    return transformers.LlamaForCausalLM(config).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--tokens", type=int, default=1500, help="of the prompt (1500)")
    parser.add_argument("--new", type=int, default=32, help="to generate (32)")
    args = parser.parse_args()
    torch = private_node.need("torch", PIP)
    transformers = private_node.need("transformers", PIP)
    transformers.logging.set_verbosity_error()
    with private_node.connect() as fabric:
        from weft.connectors.transformers import WeftCache
        model = small_llama(torch, transformers)
        prompt = torch.randint(1, 2048, (1, args.tokens), generator=torch.Generator().manual_seed(11))
        how = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "attention_mask": torch.ones_like(prompt)}

        def first(cache):
            """Milliseconds to the first token, and its logits."""
            begin = time.perf_counter()
            out = model.generate(prompt, past_key_values=cache, max_new_tokens=1, output_logits=True,
                                 return_dict_in_generate=True, **how)
            return (time.perf_counter() - begin) * 1e3, out.logits[0]

        def whole(cache):
            return model.generate(prompt, past_key_values=cache, max_new_tokens=args.new, **how)

        first(None)  # what is loaded and allocated at first use is not what is to be shown
        salt = str(time.time_ns())  # that the first run is cold on a node that has seen this before
        plain_ms, plain = first(None)
        text = whole(None)
        cold_ms, cold = first(WeftCache(fabric, model, salt=salt))
        warm_cache = WeftCache(fabric, model, salt=salt)
        warm_ms, warm = first(warm_cache)
        warm_text = whole(WeftCache(fabric, model, salt=salt))
        cold_text = whole(WeftCache(fabric, model, salt=salt + "c"))
    result = {
        "ttft_plain_ms": round(plain_ms, 1),
        "ttft_cold_ms": round(cold_ms, 1),
        "ttft_warm_ms": round(warm_ms, 1),
        "identical": bool(torch.equal(text, warm_text) and torch.equal(text, cold_text)),
        "prompt_tokens": args.tokens,
        "loaded_tokens": warm_cache.loaded_tokens,
        "max_logit_difference": float((warm - plain).abs().max()),
        "cold_logits_equal": bool(torch.equal(cold, plain)),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"without Weft  {plain_ms:8.1f} ms to the first token of a prompt of {args.tokens}\n"
          f"cold          {cold_ms:8.1f} ms, which puts the blocks too\n"
          f"warm          {warm_ms:8.1f} ms, {warm_cache.loaded_tokens} tokens out of Weft\n"
          f"the text is {'identical' if result['identical'] else 'NOT IDENTICAL'}; the first logits are at most "
          f"{result['max_logit_difference']:.1e} apart")


if __name__ == "__main__":
    main()
