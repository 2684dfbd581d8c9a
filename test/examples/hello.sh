#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# examples/hello.c, which the README quotes, does what it says.
set -u
. "$(dirname "$0")/../house/tap.sh"
. "$(dirname "$0")/node.sh"
weftd=$1
hello=$2

refuse "no node: it fails" "$hello"
"$hello" 2>"$work/sentence"
check "no node: one sentence says what to do" grep -q "start weftd" "$work/sentence"

node_start WEFT_POOL_SIZE=16MB
check "it runs" "$hello"
"$hello" >"$work/out" 2>&1
check "its block is there" grep -q "a block of 4096 bytes, the first of them 'w'" "$work/out"
check "its region is there" grep -q "a region of 1048576 bytes that says hello" "$work/out"
node_kill TERM
plan
