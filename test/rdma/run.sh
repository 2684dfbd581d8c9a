#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The ucx transport over real verbs, which Debian's kernel has in software (rdma_rxe), in machines
# that QEMU emulates: run.sh BUILD
#
# Machine "lo": rxe on the loopback device; the verbs by themselves, the transport's own test, the
# conformance suite of transports, and two nodes that share a block.  Machines "pair": two, with a
# network between them; reads and writes of exposed memory over a good network, over one that loses
# packets, after a withdrawal, and while the network goes.  It says TAP.  UCX may use nothing but verbs in
# there, and the device's own counters must have grown by what was sent.  Nothing here shows a speed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:-build}" && pwd)
name=rdma
missed="RDMA verbs were not tried"
packages=(iproute2 libbpf1 libelf1 libmnl0 libbsd0 libmd0 libcap2 libxtables12 libnuma1 libselinux1
    ibverbs-utils libibverbs1 ibverbs-providers librdmacm1 libnl-3-200 libnl-route-3-200 libucx0)
modules=(crc32_generic ib_uverbs rdma_ucm rdma_rxe sch_netem virtio_pci virtio_net)
# shellcheck source=test/guest/machine.sh
. "$here/../guest/machine.sh"

[ -x "$build/test/test_net_ucx" ] ||
    skip "this build has no ucx transport (package libucx-dev), so $missed"

rdma() { # seconds, log, words of the command line, options …
    machine "$1" "$2" "$3" -accel tcg,thread=multi -cpu max,-hypervisor -machine q35 -m 1G "${@:4}"
}

# A network of two: what one sends the other gets, as datagrams between sockets of this run's.
pair_machine() { # number, the other's, words of the command line
    rdma 900 "$run/pair$1" "weft.scenario=pair weft.host=$1 $3" -smp 1 \
        -netdev "dgram,id=n,local.type=unix,local.path=$run/net$1,remote.type=unix,remote.path=$run/net$2" \
        -device "virtio-net-pci,netdev=n,mac=52:54:00:00:00:0$1"
}

guest_prepare
system=$work/root/usr/lib/x86_64-linux-gnu
image=$run/image/lib/x86_64-linux-gnu
mkdir -p "$run/image/etc/libibverbs.d" "$image"/{ucx,libibverbs}
echo "driver rxe" >"$run/image/etc/libibverbs.d/rxe.driver" # by name: libibverbs's, and UCX's
cp -L "$system"/libibverbs/librxe-* "$image/libibverbs/"
cp -L "$system"/ucx/libuct_ib.so.0 "$image/ucx/"
libraries "$system/ucx/libuct_ib.so.0" | xargs -I{} cp -Ln {} "$image/"
guest_image "$here/init" "$build"/test/{test_net,test_net_ucx,rdma/rdma_guest} "$build/src/daemon/weftd" \
    "$build/src/cli/weft" "$work"/root/usr/bin/{rdma,ibv_devinfo,ibv_rc_pingpong} "$work/root/sbin/tc" \
    "$system"/libuc{p,t,s,m}.so.0

# Some of them only: WEFT_TEST_MACHINES="lo pair"
machines=" ${WEFT_TEST_MACHINES:-lo pair} "
if [[ $machines = *" lo "* ]]; then
    rdma 1500 "$run/lo" weft.scenario=lo -smp 2
    report "$run/lo" 5 "rxe on the loopback device"
fi
if [[ $machines = *" pair "* ]]; then
    pair_machine 1 2 "" &
    pair_machine 2 1 "" &
    wait
    report "$run/pair1" 2 "the host that has exposed memory"
    report "$run/pair2" 6 "the host that reads and writes it"
fi

echo "1..$number"
exit $failed
