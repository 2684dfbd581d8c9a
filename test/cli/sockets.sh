#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Which node a client finds when nobody names one, whom it trusts there, and whom the node lets in.
set -u
. "$(dirname "$0")/../house/tap.sh"
. "$(dirname "$0")/../examples/node.sh"
weftd=$(realpath "$1")
weft=$(realpath "$2")

configured() { # domain's field: the node's configuration has it
    printf 'domains:\n  - name: default\n    %s\n' "$1" >"$work/weftd.yaml"
    node_start WEFT_CONFIG="$work/weftd.yaml" WEFT_POOL_SIZE=16MB
}

# `allow` adds users; it does not shut out the node's own.
configured "allow: [nobody]"
check "the node's own user is let in beside those of allow" "$weft" status
node_kill TERM

configured "token: sesame"
refuse "a domain's token is asked for" "$weft" status
"$weft" status >"$work/out" 2>&1
check "without one it says so" grep -q "asks for its token" "$work/out"
"$weft" status --token wrong >"$work/out" 2>&1
check "a wrong one is called wrong" grep -q "is not that of domain" "$work/out"
check "the right one is let in" "$weft" status --token sesame
node_kill TERM

node_start WEFT_POOL_SIZE=900GB
check "what is odd about the configuration is logged at start" grep -q "warn.*config" "$work/node.log"
"$weftd" >"$work/out" 2>&1
check "a second node on one socket says nothing but that" test "$(wc -l <"$work/out")" = 1
check "and what to do" grep -q "already running on .*; stop it, or choose another" "$work/out"
check "and who said where" grep -q "the path is from: env WEFT_SOCKET" "$work/out"
node_kill TERM

# Without a name: this user's, else the host's.  In a mount namespace /run is our own.
cat >"$work/host.sh" <<'END'
mount -t tmpfs none /run && mkdir /run/weft || exit 1
WEFT_SOCKET=/run/weft/weftd.sock WEFT_POOL_SIZE=16MB "$1" 2>"$3/host.log" &
node=$!
until grep -q "weftd: version" "$3/host.log" || ! kill -0 $node; do
    sleep 0.05
done
unset WEFT_SOCKET
XDG_RUNTIME_DIR="$3/nowhere" "$2" status
found=$?
kill $node
wait $node
exit $found
END
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    check "without a node of one's own, the host's is found" \
        unshare -m sh "$work/host.sh" "$weftd" "$weft" "$work"
else
    skip "without a node of one's own, the host's is found" "needs root and mount namespaces"
fi
(
    unset WEFT_SOCKET
    XDG_RUNTIME_DIR=$work/nowhere "$weft" status >"$work/out" 2>&1
)
if [ -S /run/weft/weftd.sock ]; then
    skip "where it looked is said" "this host has a node"
else
    check "where it looked is said" grep -q "no node at .*nowhere.*, nor at /run/weft/weftd.sock" "$work/out"
fi

# Somebody else's node where ours would be.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 711 "$work"
    mkdir "$work/weft"
    chown 61001 "$work/weft"
    : >"$work/node.log" # else node_wait finds what the last one said
    chown 61001 "$work/node.log"
    setpriv --reuid=61001 --clear-groups env WEFT_SOCKET="$work/weft/weftd.sock" WEFT_SOCKET_MODE=0666 \
        WEFT_POOL_SIZE=16MB "$weftd" --set domain.default.allow=any 2>"$work/node.log" &
    node_pid=$!
    node_wait
    (
        unset WEFT_SOCKET
        XDG_RUNTIME_DIR=$work setpriv --reuid=61002 --clear-groups "$weft" status >"$work/out" 2>&1
    )
    check "a stranger's node in our place is not trusted" grep -q "runs as user 61001" "$work/out"
    check "unless it is named" setpriv --reuid=61002 --clear-groups "$weft" status --socket "$work/weft/weftd.sock"
    node_kill TERM

    # What a user may write does not depend on where the node is started.
    mkdir -m 700 "$work/own"
    chown 61002 "$work/own"
    checked() { # STATE_DIR
        (cd / && setpriv --reuid=61002 --clear-groups env WEFT_SOCKET="$work/own/node.sock" \
            "$weftd" --check-config --set state_dir="$1" --tier "nvme:$work/own/nvme0:64MB")
    }
    check "a user's own state directory can be made" checked "$work/own/a/b"
    checked "$work/foreign" >"$work/out" 2>&1
    check "another's cannot" grep -q "because '$work' is not writable" "$work/out"
else
    skip "a stranger's node in our place is not trusted" "needs root and setpriv"
fi
plan
