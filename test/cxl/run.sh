#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The CXL tier on the drivers of Debian's kernel, in machines that QEMU emulates: run.sh BUILD
#
# CXL memory as a region, as devdax and as a NUMA node; the tier's conformance suite on it; blocks
# of one start found by the next; a device that goes away; two machines on one memory.  It says TAP.
# Kernel and tools are Debian's packages, fetched once into BUILD/cxl.  What QEMU emulates is
# coherent and slow: nothing here shows a missing flush (test/model/cxl_model.c does) or a speed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:-build}" && pwd)
work=$build/cxl
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
number=0
failed=0

skip() {
    echo "1..0 # SKIP $*"
    exit 77
}

for need in qemu-system-x86_64:qemu-system-x86 dpkg:dpkg apt-get:apt gzip:gzip; do
    command -v "${need%%:*}" >/dev/null || skip "there is no ${need%%:*} (package ${need##*:}), so CXL devices were not tried"
done
[ "$(uname -m)" = x86_64 ] || skip "this machine is no x86-64, and the machines to emulate are"

# ---- what the machines are made of

fetch() {
    local kernel
    mkdir -p "$work/debs"
    cd "$work/debs"
    kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
    [ -n "$kernel" ] || skip "apt knows no linux-image-amd64; run apt-get update, and CXL devices can be tried"
    for package in "$kernel" busybox-static kmod ndctl daxctl libndctl6 libdaxctl1 libcxl1 \
        libiniparser1 libtraceevent1 libtracefs1 libkmod2 libkeyutils1 libuuid1 libjson-c5; do
        compgen -G "${package}_*.deb" >/dev/null && continue
        apt-get download "$package" >"$run/fetch" 2>&1 ||
            skip "package $package could not be fetched ($(tail -n 1 "$run/fetch")), so CXL devices were not tried"
    done
    echo "$kernel" >"$work/kernel"
    cd "$here"
}

applet() { # name of an applet of kmod, its arguments
    (exec -a "$1" "$work/root/bin/kmod" "${@:2}")
}

unpack() {
    local kernel version module
    kernel=$(cat "$work/kernel")
    version=${kernel#linux-image-}
    rm -rf "$work/root" "$work/modules" "$work/image"
    mkdir -p "$work/root" "$work/modules" "$work/image"
    for package in "$work"/debs/*.deb; do
        case $package in
        */linux-image*) dpkg -x "$package" "$work/modules" ;;
        *) dpkg -x "$package" "$work/root" ;;
        esac
    done
    cp "$work/modules/boot/vmlinuz-$version" "$work/vmlinuz"
    applet depmod -b "$work/modules" "$version"
    for module in cxl_acpi cxl_pci cxl_mem cxl_pmem nd_pmem dax_pmem device_dax kmem nfit; do
        applet modprobe -d "$work/modules" -S "$version" --show-depends "$module"
    done | awk '/^insmod/ {print $2}' | sort -u | while read -r module; do
        install -D "$module" "$work/image${module#"$work/modules"}"
    done
    cp "$work/modules/lib/modules/$version"/modules.{builtin,order}* "$work/image/lib/modules/$version/"
    applet depmod -b "$work/image" "$version"
    rm -rf "$work/modules"
    date >"$work/unpacked"
}

libraries() { # programs: what they load, and what they load by name
    {
        LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu ldd "$@" | awk '$3 ~ /^\// {print $3}'
        ls "$work"/root/usr/lib/x86_64-linux-gnu/lib{daxctl,cxl}.so.1
    } | sort -u
}

initrd() {
    local image=$run/image file
    local -a ours=("$build/test/test_tier" "$build/test/cxl/cxl_guest" "$build/src/daemon/weftd" "$build/src/cli/weft")
    local -a theirs=("$work"/root/usr/bin/{cxl,ndctl,daxctl})
    mkdir -p "$image"/{bin,proc,sys,dev,run,tmp,etc,lib64,lib/x86_64-linux-gnu}
    cp -a "$work/image/." "$image/"
    cp "$work/root/bin/busybox" "$image/bin/"
    for file in $("$image/bin/busybox" --list); do
        [ "$file" = busybox ] || ln -sf busybox "$image/bin/$file"
    done
    cp "${ours[@]}" "${theirs[@]}" "$image/bin/"
    libraries "${ours[@]}" "${theirs[@]}" | xargs -I{} cp -Ln {} "$image/lib/x86_64-linux-gnu/"
    cp -L /lib64/ld-linux-x86-64.so.2 "$image/lib64/"
    cp "$here/init" "$image/init"
    chmod +x "$image/init"
    (cd "$image" && find . | "$work/root/bin/busybox" cpio -o -H newc 2>/dev/null) |
        gzip -1 >"$run/initrd.gz"
    rm -rf "$image"
}

# ---- machines

machine() { # log, words of the command line, options …
    timeout 240 qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-hypervisor -nodefaults \
        -display none -no-reboot -serial stdio -kernel "$work/vmlinuz" -initrd "$run/initrd.gz" \
        -append "console=ttyS0 panic=-1 quiet $2" -smp 2 "${@:3}" >"$1" 2>&1 </dev/null || true
}

# A second, empty root port: with one alone this QEMU loses data.  A serial number: without it a
# second start cannot use the namespace of the first.
cxl_machine() { # log, words, memory file, label file
    machine "$1" "$2" -machine q35,cxl=on -m 1G,maxmem=8G,slots=4 \
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
    machine "$1" "$2" -machine q35,nvdimm=on -m 1G,maxmem=8G,slots=4 \
        -object "memory-backend-file,id=nm,share=on,mem-path=$3,size=258M" \
        -device nvdimm,memdev=nm,id=nv0,label-size=2M
}

# ---- what they said

report() { # log, tests that it must have said, name
    local line said=0
    while read -r line; do
        case $line in
        "T ok "*)
            number=$((number + 1)) said=$((said + 1))
            echo "ok $number - ${line#T ok }"
            ;;
        "T not ok "*)
            number=$((number + 1)) said=$((said + 1)) failed=1
            echo "not ok $number - ${line#T not ok }"
            ;;
        "# "*) echo "$line" ;;
        esac
    done < <(tr -d '\r' <"$1" | grep -a '^T \|^# ' || true)
    while [ "$said" -lt "$2" ]; do
        number=$((number + 1)) said=$((said + 1)) failed=1
        echo "not ok $number - $3: the machine ended before test $said of $2"
        tail -n 15 "$1" | tr -d '\r' | sed 's/^/# /'
    done
}

# Some of them only: WEFT_TEST_MACHINES="first second cxl nvdimm"
machines=" ${WEFT_TEST_MACHINES:-first second cxl nvdimm} "

[ -f "$work/unpacked" ] || { fetch && unpack; }
initrd

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
