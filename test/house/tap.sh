# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# For scripts that speak TAP: `check NAME COMMAND…` is ok when the command succeeds, `refuse` when it
# fails; `skip NAME REASON`; `plan` last.  The script works in a directory of its own, $work.
count=0
broken=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

report() { # name, whether it is as it should be, file with what was said
    count=$((count + 1))
    if [ "$2" = yes ]; then
        echo "ok $count - $1"
    else
        broken=$((broken + 1))
        echo "not ok $count - $1"
        sed "s/^/$1: /" "$3" >&2 # meson shows what went to stderr
    fi
}

check() {
    name=$1
    shift
    if "$@" >"$work/said" 2>&1; then report "$name" yes; else report "$name" no "$work/said"; fi
}

refuse() {
    name=$1
    shift
    if "$@" >"$work/said" 2>&1; then report "$name" no "$work/said"; else report "$name" yes; fi
}

skip() {
    count=$((count + 1))
    echo "ok $count # SKIP $1: $2"
}

plan() {
    echo "1..$count"
    [ "$broken" -eq 0 ]
}
