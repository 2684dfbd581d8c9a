# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the first and only process of an emulated machine (test/guest/machine.sh) begins with: it
# sources this, runs the tests of one scenario, each one line on the console, "T ok NAME", "T skip
# NAME: WHY" or "T not ok NAME", and powers off.
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mkdir -p /dev/shm /run
mount -t tmpfs t /dev/shm
mount -t tmpfs t /run
dmesg -n 1
export PATH=/bin HOME=/run WEFT_SOCKET=/run/weftd.sock WEFT_CONFIG=/dev/null TMPDIR=/dev/shm

word() { # name: its value on the kernel's command line
    sed -n "s/.*weft\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

t() { # name, command …: 0 is good, 77 says why not, anything else is bad
    name=$1
    shift
    "$@" >/run/out 2>&1
    status=$?
    case $status in
    0)
        echo "T ok $name"
        echo "# at second $(cut -d. -f1 /proc/uptime)"
        grep -a '^[a-z]* \|^[a-z]*0 ' /run/out | grep -av RUN | head -n 8 | sed 's/^/# /'
        ;;
    77) echo "T skip $name: $(tail -n 1 /run/out)" ;;
    *)
        echo "T not ok $name (status $status)"
        tail -n 40 /run/out | sed 's/^/# /'
        [ ! -s /run/also ] || tail -n 10 /run/also | sed 's/^/# /'
        ;;
    esac
}

finish() {
    echo "T end"
    poweroff -f
}
