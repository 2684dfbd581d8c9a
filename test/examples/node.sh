# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # $work and $weftd are the script's
# A weftd for a test: `node_start [NAME=VALUE…]`, then $node_pid and $WEFT_SOCKET; `node_kill SIGNAL`.
# $weftd names the program.  Needs tap.sh, whose $work it uses, and stops the node with it.
node_pid=
WEFT_CONFIG=/dev/null
WEFT_HTTP_LISTEN=off
WEFT_SOCKET=$work/weftd.sock
export WEFT_CONFIG WEFT_HTTP_LISTEN WEFT_SOCKET
unset WEFT_DOMAIN WEFT_TOKEN

node_start() {
    : >"$work/node.log"
    env "$@" "$weftd" >>"$work/node.log" 2>&1 &
    node_pid=$!
    node_wait
}

# Until it serves, which this line is its last act before, or has died; the socket may be one that a
# killed node left.  How long that may take is for whoever runs the test to say.
node_wait() {
    until grep -q "weftd: version" "$work/node.log"; do
        kill -0 "$node_pid" 2>/dev/null || break
        sleep 0.05
    done
}

node_kill() {
    [ -z "$node_pid" ] && return
    kill "-$1" "$node_pid" 2>/dev/null
    wait "$node_pid" 2>/dev/null
    node_pid=
}

trap 'node_kill KILL; rm -rf "$work"' EXIT
