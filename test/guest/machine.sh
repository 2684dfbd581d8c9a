# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154,SC2034,SC2164
#
# Machines that QEMU emulates, booted from Debian's kernel: sourced by test/cxl/run.sh and
# test/rdma/run.sh, which say before it
#
#   build     where the programs are
#   name      of the test: its files are in BUILD/NAME, what both need in BUILD/guest
#   missed    what was not tried where something is missing ("CXL devices were not tried")
#   packages  Debian's, besides the kernel, busybox-static and kmod
#   modules   of the kernel, with what they need
#
# and call, in order, guest_prepare, guest_image (what is in the machines), machine (starts one) and
# report (what it said).  What runs in the machines first is test/guest/init.sh.  All of it says
# TAP; `number` and `failed` count.  Nothing of it needs root.
work=$build/$name
debs=$build/guest
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
number=0
failed=0

skip() {
    echo "1..0 # SKIP $*"
    exit 77
}

for need in qemu-system-x86_64:qemu-system-x86 dpkg:dpkg apt-get:apt gzip:gzip; do
    command -v "${need%%:*}" >/dev/null || skip "there is no ${need%%:*} (package ${need##*:}), so $missed"
done
[ "$(uname -m)" = x86_64 ] || skip "this machine is no x86-64, and the machines to emulate are, so $missed"

# ---- what the machines are made of

package_fetch() { # into the folder we are in, unless it is there
    compgen -G "${1}_*.deb" >/dev/null && return
    apt-get download "$1" >"$run/fetch" 2>&1 ||
        skip "package $1 could not be fetched ($(tail -n 1 "$run/fetch")), so $missed"
}

applet() { # name of an applet of kmod, its arguments
    (exec -a "$1" "$work/root/bin/kmod" "${@:2}")
}

modules_unpack() { # those of the kernel's that are wanted
    local version=$1 module
    for module in "${modules[@]}"; do
        applet modprobe -d "$run/kernel" -S "$version" --show-depends "$module"
    done | awk '/^insmod/ {print $2}' | sort -u | while read -r module; do
        install -D "$module" "$work/image${module#"$run/kernel"}"
    done
    cp "$run/kernel/lib/modules/$version"/modules.{builtin,order}* "$work/image/lib/modules/$version/"
    applet depmod -b "$work/image" "$version"
}

# What is fetched and unpacked stays; what it was made from is in `made`, and made anew when that
# has changed.
guest_prepare() {
    local kernel version package
    [ "$(cat "$work/made" 2>/dev/null)" = "${packages[*]} ${modules[*]}" ] && return
    kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
    [ -n "$kernel" ] || skip "apt knows no linux-image-amd64 (apt-get update mends that), so $missed"
    version=${kernel#linux-image-}
    mkdir -p "$debs"
    rm -rf "$work"
    mkdir -p "$work/root" "$work/image" "$run/kernel"
    pushd "$debs" >/dev/null
    for package in "$kernel" busybox-static kmod libkmod2 "${packages[@]}"; do
        package_fetch "$package"
        if [ "$package" = "$kernel" ]; then
            dpkg -x "$package"_*.deb "$run/kernel"
        else
            dpkg -x "$package"_*.deb "$work/root"
        fi
    done
    popd >/dev/null
    cp "$run/kernel/boot/vmlinuz-$version" "$work/vmlinuz"
    applet depmod -b "$run/kernel" "$version"
    modules_unpack "$version"
    rm -rf "$run/kernel"
    echo "${packages[*]} ${modules[*]}" >"$work/made"
}

libraries() { # programs: what they load
    LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu ldd "$@" |
        awk '$3 ~ /^\// {print $3}' | sort -u
}

# The machines' first file system: the modules, busybox, these programs with what they load, and
# `init` of this test.  What the caller put into $run/image before it is in it, too.
guest_image() { # init, programs and libraries …
    local image=$run/image applet program
    local -a programs=("${@:2}")
    mkdir -p "$image"/{bin,proc,sys,dev,run,tmp,etc,lib64,lib/x86_64-linux-gnu}
    ln -s . "$image/usr"
    cp -a "$work/image/." "$image/"
    cp "$work/root/bin/busybox" "$image/bin/"
    for applet in $("$image/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$image/bin/$applet"
    done
    for program in "${programs[@]}"; do
        case $program in
        *.so.*) cp -L "$program" "$image/lib/x86_64-linux-gnu/" ;;
        *)
            rm -f "$image/bin/$(basename "$program")" # busybox may have one of that name
            cp "$program" "$image/bin/"
            ;;
        esac
    done
    libraries "${programs[@]}" | xargs -I{} cp -Ln {} "$image/lib/x86_64-linux-gnu/"
    cp -L /lib64/ld-linux-x86-64.so.2 "$image/lib64/"
    cp "$(dirname "${BASH_SOURCE[0]}")/init.sh" "$image/lib/init.sh"
    cp "$1" "$image/init"
    chmod +x "$image/init"
    (cd "$image" && find . | "$work/root/bin/busybox" cpio -o -H newc 2>/dev/null) |
        gzip -1 >"$run/initrd.gz"
    rm -rf "$image"
}

# ---- machines

machine() { # seconds, log, words of the command line, options … (how to emulate it among them)
    timeout "$1" qemu-system-x86_64 -nodefaults \
        -display none -no-reboot -serial stdio -kernel "$work/vmlinuz" -initrd "$run/initrd.gz" \
        -append "console=ttyS0 panic=-1 quiet $3" "${@:4}" >"$2" 2>&1 </dev/null || true
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
        "T skip "*)
            number=$((number + 1)) said=$((said + 1))
            line=${line#T skip }
            echo "ok $number - ${line%%: *} # SKIP ${line#*: }"
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
