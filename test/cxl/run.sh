#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The CXL tier on the drivers of Debian's kernel, in machines that QEMU emulates: run.sh BUILD
#
# CXL memory as a region, as devdax and as a NUMA node; the tier's conformance suite on it; blocks
# of one start found by the next; a device that goes away; two machines on one memory.  It says TAP.
# Kernel and tools are Debian's packages, fetched once.  What QEMU emulates is
# coherent and slow: nothing here shows a missing flush (test/model/cxl_model.c does) or a speed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:-build}" && pwd)
name=cxl
missed="CXL devices were not tried"
packages=(ndctl daxctl libndctl6 libdaxctl1 libcxl1 libiniparser1 libtraceevent1 libtracefs1
    libkeyutils1 libuuid1 libjson-c5)
modules=(cxl_acpi cxl_pci cxl_mem cxl_pmem nd_pmem dax_pmem device_dax kmem nfit)
# shellcheck source=test/guest/machine.sh
. "$here/../guest/machine.sh"

# In software also where the processor could do it: it could not run code on emulated memory.
cxl() { # log, words of the command line, options …
    machine 480 "$1" "$2" -accel tcg,thread=multi -cpu max,-hypervisor -smp 2 "${@:3}"
}

# A second, empty root port: with one alone this QEMU loses data.  A serial number: without it a
# second start cannot use the namespace of the first.
cxl_machine() { # log, words, memory file, label file
    cxl "$1" "$2" -machine q35,cxl=on -m 1G,maxmem=8G,slots=4 \
        -object "memory-backend-file,id=cm,share=on,mem-path=$3,size=512M" \
        -object "memory-backend-file,id=ls,share=on,mem-path=$4,size=1M" \
        -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1 \
        -device cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2 \
        -device cxl-rp,port=1,bus=cxl.1,id=rp1,chassis=0,slot=3 \
        -device cxl-type3,bus=rp0,memdev=cm,lsa=ls,id=mem0,sn=0x1 \
        -M cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G
}

# Without its labels its size must be a multiple of 16 MiB.
nvdimm_machine() { # log, words, memory file
    cxl "$1" "$2" -machine q35,nvdimm=on -m 1G,maxmem=8G,slots=4 \
        -object "memory-backend-file,id=nm,share=on,mem-path=$3,size=258M" \
        -device nvdimm,memdev=nm,id=nv0,label-size=2M
}

# Some of them only: WEFT_TEST_MACHINES="first second cxl nvdimm"
machines=" ${WEFT_TEST_MACHINES:-first second cxl nvdimm} "

guest_prepare
loaded=$work/root/usr/lib/x86_64-linux-gnu # by name: weftd's
guest_image "$here/init" "$build"/test/{test_tier,cxl/cxl_guest} "$build/src/daemon/weftd" "$build/src/cli/weft" \
    "$work"/root/usr/bin/{cxl,ndctl,daxctl} "$loaded"/lib{daxctl,cxl}.so.1

if [[ $machines = *" first "* ]]; then
    cxl_machine "$run/first" weft.scenario=first "$run/cxl" "$run/labels"
    report "$run/first" 4 "first start"
fi
if [[ $machines = *" second "* ]]; then
    cxl_machine "$run/second" weft.scenario=second "$run/cxl" "$run/labels"
    report "$run/second" 7 "second start"
fi

# Two machines on one memory.  Each has labels of its own, as two hosts have namespaces of their own.
if [[ $machines = *" cxl "* ]]; then
    cp "$run/labels" "$run/labels2"
    cxl_machine "$run/a" "weft.scenario=cxl weft.host=1 weft.fresh=1" "$run/cxl" "$run/labels" &
    cxl_machine "$run/b" "weft.scenario=cxl weft.host=2" "$run/cxl" "$run/labels2" &
    wait
    report "$run/a" 2 "CXL, host 1"
    report "$run/b" 2 "CXL, host 2"
fi

# The same at a memory's own speed.  The first makes the namespace that both use.
if [[ $machines = *" nvdimm "* ]]; then
    nvdimm_machine "$run/prepare" "weft.scenario=prepare" "$run/nvdimm"
    report "$run/prepare" 1 "NVDIMM"
    nvdimm_machine "$run/a" "weft.scenario=nvdimm weft.host=1" "$run/nvdimm" &
    nvdimm_machine "$run/b" "weft.scenario=nvdimm weft.host=2" "$run/nvdimm" &
    wait
    report "$run/a" 2 "NVDIMM, host 1"
    report "$run/b" 2 "NVDIMM, host 2"
fi

echo "1..$number"
exit $failed
