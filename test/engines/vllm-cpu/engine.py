# SPDX-License-Identifier: Apache-2.0
"""vLLM in a process of its own: what `Engine` starts, and what it is told to do.

The processes are forks of one that has imported vLLM, which is most of what a start takes.
"""
import collections
import json
import os
import signal
import traceback

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


class Orders:
    def __init__(self, settings):
        self.llm = LLM(**settings)

    def generate(self, prompts, max_tokens):
        """Each prompt is (tokens, cache_salt, (name, number, path) of an adapter); all of them at once.  Gives (text as
        tokens, how many tokens of the prompt were not computed, how sure each token was)."""
        sampling = SamplingParams(temperature=0, max_tokens=max_tokens, logprobs=2, ignore_eos=True)
        asked = [{"prompt_token_ids": list(tokens), **({"cache_salt": salt} if salt else {})} for tokens, salt, _ in prompts]
        adapters = [LoRARequest(*lora) if lora else None for _, _, lora in prompts]
        told = []
        for output in self.llm.generate(asked, sampling, lora_request=adapters, use_tqdm=False):
            made = output.outputs[0]
            margins = []
            for step in made.logprobs:
                best = sorted((each.logprob for each in step.values()), reverse=True)
                margins.append(best[0] - best[1])
            told.append((tuple(made.token_ids), output.num_cached_tokens, min(margins)))
        return told

    def metrics(self):
        counted = collections.Counter()
        for metric in self.llm.get_metrics():
            counted[metric.name] += getattr(metric, "value", 0)
        return counted

    def forget(self):
        """Drop vLLM's own prefix cache: what is found next is found in Weft."""
        return self.llm.reset_prefix_cache()

    def kill_at_load(self, number):
        """The next load finds its node killed after the lookup, before the first byte."""
        from weft.connectors import vllm as ours
        load = ours._Worker._load

        def killed(worker, transfer):
            ours._Worker._load = load
            os.kill(number, signal.SIGKILL)
            return load(worker, transfer)

        ours._Worker._load = killed


def main(pipe, log, settings, variables):
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(variables)
    print(json.dumps(settings), flush=True)
    try:
        orders = Orders(settings)
        pipe.send((True, None))
        while True:
            name, words = pipe.recv()
            pipe.send((True, getattr(orders, name)(*words)))
    except EOFError:
        orders.llm.llm_engine.engine_core.shutdown()
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    os._exit(0)
