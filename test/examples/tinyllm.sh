#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tinyllm on real nodes: the same answers with Weft, without it, and when the node goes away half-way.
set -u
. "$(dirname "$0")/../house/tap.sh"
. "$(dirname "$0")/node.sh"
weftd=$1
tinyllm=$2
data=${WEFT_TEST_DATA:-$3}
PATH=$(dirname "$weftd"):$PATH # a private node is looked for beside tinyllm, then here
TMPDIR=$work/tmp
export PATH TMPDIR
mkdir "$TMPDIR"
shape=--shape=64,128,3,8,4,320,320

exits() { # code, command
    wanted=$1
    shift
    "$@" >"$work/out" 2>"$work/err"
    got=$?
    [ $got -eq "$wanted" ] || {
        echo "exit status $got, not $wanted:"
        cat "$work/out" "$work/err"
        return 1
    }
}

nothing_left() { # a private node's directory goes after the node
    [ -z "$(ls -A "$TMPDIR")" ]
}

# ------------------------------------------------------------------------------------------- words

check "--help" exits 0 "$tinyllm" --help
check "--help names the exit statuses" grep -q 'exit status: 0 done' "$work/out"
check "--version" exits 0 "$tinyllm" --version
check "no command" exits 2 "$tinyllm"
check "no such option" exits 2 "$tinyllm" run --frob
check "no such number" exits 2 "$tinyllm" run --tokens many
check "no such model" exits 1 "$tinyllm" run --no-weft --model "$work/none.bin"
check "no such model: it is named" grep -q "none.bin" "$work/err"
check "no such shape" exits 1 "$tinyllm" run --no-weft --shape 64,172,4,7,4,512,512
check "no node" exits 4 "$tinyllm" demo "$shape"
check "no node: what to do" grep -q -e '--start-node' "$work/err"

# ------------------------------------------------------------------------------------ a private node

keys() {
    python3 - "$work/out" <<'END'
import json, sys
with open(sys.argv[1], encoding="utf-8") as lines:
    said = json.load(lines)
assert list(said) == ["ttft_cold_ms", "ttft_warm_ms", "logits_identical", "hit_rate", "dedup_ratio"], said
assert said["logits_identical"] is True, said
assert 0.5 < said["hit_rate"] < 1, said
assert said["dedup_ratio"] > 1.5, said
assert said["ttft_cold_ms"] > 0 and said["ttft_warm_ms"] > 0, said
END
}

check "bench --json starts a node of its own" exits 0 "$tinyllm" bench --json "$shape" --users 4
check "bench --json: the keys, and what they say" keys
check "bench leaves nothing" nothing_left
check "bench" exits 0 "$tinyllm" bench "$shape" --users 2 --turns 2 --block-tokens 8 --threads 1
check "demo --start-node" exits 0 "$tinyllm" demo --start-node "$shape"
check "demo: identical" grep -q 'logits identical: yes' "$work/out"
check "demo leaves nothing" nothing_left

interrupted() {
    "$tinyllm" demo --start-node "$shape" --threads 1 >"$work/out" 2>"$work/err" &
    pid=$!
    # it has begun when its node has a place
    until [ -n "$(ls -A "$TMPDIR")" ] || ! kill -0 $pid 2>/dev/null; do
        sleep 0.02
    done
    sleep 0.2
    kill -TERM $pid
    wait $pid
    [ $? -eq 130 ]
}
check "interrupted: 130" interrupted
check "interrupted: nothing is left" nothing_left

# ------------------------------------------------------------------------------------- a shared node

text() { # file, then arguments
    file=$1
    shift
    "$tinyllm" run "$@" >"$work/$file" 2>"$work/err"
}
prompt="One day a girl went to the sea with her dog and her red ball"

node_start
text alone --no-weft "$shape" --prompt "$prompt"
text first "$shape" --prompt "$prompt"
text again "$shape" --prompt "$prompt"
check "run: the same text without Weft and with it" cmp "$work/alone" "$work/first"
check "run: the same text from KV that another process left" cmp "$work/alone" "$work/again"
check "run: which there was" grep -q 'of which Weft had 48;' "$work/err"
text warm "$shape" --prompt "$prompt" --temperature 1 --seed 1
text other --no-weft "$shape" --prompt "$prompt" --temperature 1 --seed 1
check "run: drawn text, too" cmp "$work/warm" "$work/other"

if [ -f "$data/stories260K.bin" ]; then
    model=--model=$data/stories260K.bin
    tokenizer=--tokenizer=$data/tok512.bin
    text story "$model" "$tokenizer"
    text story_alone --no-weft "$model" "$tokenizer"
    check "the trained model: the same story" cmp "$work/story" "$work/story_alone"
    check "the trained model: the known story" grep -q \
        "^Lily didn't want to help her mom, so she\$" "$work/story"
else
    skip "the trained model's story" "no stories260K.bin in $data; WEFT_TEST_DATA names another place"
fi

# ------------------------------------------------------------------------- a node that has no room

node_kill TERM
node_start WEFT_POOL_SIZE=1MB WEFT_POOL_SIZE_MAX=1MB
check "a pool of 1 MB" exits 0 "$tinyllm" demo --shape 128,128,8,8,8,320,320
check "a pool of 1 MB: identical" grep -q 'logits identical: yes' "$work/out"

# ------------------------------------------------------------------ a node that goes, and comes back

node_kill TERM
node_start
lost() { # whether it comes back
    : >"$work/out"
    "$tinyllm" demo "$shape" >"$work/out" 2>"$work/err" &
    pid=$!
    until grep -q '^with Weft  *9/' "$work/out" || ! kill -0 $pid 2>/dev/null; do
        sleep 0.01
    done
    kill -STOP $pid
    node_kill KILL
    [ "$1" = no ] || node_start
    kill -CONT $pid
    wait $pid && return
    echo "exit status $?:"
    tail -n 3 "$work/out" "$work/err" "$work/node.log"
    return 1
}
check "the node is killed half-way: answered" lost no
check "the node is killed half-way: identical" grep -q 'logits identical: yes' "$work/out"
check "the node is killed half-way: it says so" grep -q 'did without Weft' "$work/err"
node_start
check "the node starts again half-way: answered" lost yes
check "the node starts again half-way: identical" grep -q 'logits identical: yes' "$work/out"
check "the node starts again half-way: used again" grep -q 'user 4 fork.* [1-9][0-9]* from Weft' "$work/out"
node_kill TERM
plan
