#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a synthetic trace in Mooncake's format: make_trace.py [--seed N] [--requests N] [--bad N] > FILE

Conversations grow turn by turn and share a few system prompts, so the trace has prefixes to hit; equal
seeds give equal bytes.  --bad spoils that many lines.
"""
import argparse
import json
import random
import sys

BLOCK_TOKENS = 512


def requests(rng, count):
    next_id = 0

    def fresh(blocks):
        nonlocal next_id
        next_id += blocks
        return list(range(next_id - blocks, next_id))

    prompts = [fresh(rng.randint(1, 6)) for _ in range(5)]
    talks = []
    now_ms = 0
    for _ in range(count):
        now_ms += int(rng.expovariate(1 / 40))
        if talks and rng.random() < 0.6:
            talk = rng.choice(talks)
            talk += fresh(rng.randint(1, 4))
        else:
            talk = list(rng.choice(prompts)) + fresh(rng.randint(1, 12))
            talks.append(talk)
            del talks[:-60]
        yield {
            "timestamp": now_ms,
            "input_length": len(talk) * BLOCK_TOKENS - rng.randint(0, BLOCK_TOKENS - 1),
            "output_length": rng.randint(1, 800),
            "hash_ids": list(talk),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--bad", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    lines = [json.dumps(request) for request in requests(rng, options.requests)]
    for number in rng.sample(range(len(lines)), options.bad):
        lines[number] = lines[number][: len(lines[number]) // 2]
    sys.stdout.write("".join(line + "\n" for line in lines))


if __name__ == "__main__":
    main()
