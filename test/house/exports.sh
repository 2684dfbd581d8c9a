#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What libweft.so exports is what weft.h declares: no more (hidden helpers), no less (a promise unkept).
set -u
. "$(dirname "$0")/tap.sh"
root=$1
library=$2

nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/has"
tr '\n' ' ' <"$root/include/weft/weft.h" | grep -oE 'WEFT_API [^;(]*\(' |
    sed 's/ *($//; s/.*[ *]//' | grep -v __attribute__ | sort -u >"$work/says"
nm -D --defined-only --with-symbol-versions "$library" | awk '$2 != "A" { print $3 }' |
    grep -v '@@WEFT_0\.' >"$work/unversioned"

check "weft.h declares functions" test -s "$work/says"
check "exported and declared are the same" diff -u "$work/says" "$work/has"
refuse "a symbol too many is seen" \
    sh -c "echo wf_fail | sort - '$work/says' | diff -u - '$work/has'"
check "every symbol has a version" test ! -s "$work/unversioned"
plan
