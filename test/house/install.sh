#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is installed is enough to build on: header, pkg-config file, shared and static library.
set -u
. "$(dirname "$0")/tap.sh"
build=$1
prefix=$2
unset LD_LIBRARY_PATH PKG_CONFIG_PATH
root=$work/root
cc=${CC:-cc}

cat >"$work/user.c" <<'END'
#include <stdio.h>
#include <string.h>
#include <weft/weft.h>
int main(void)
{
    uint64_t bytes = 0;
    struct weft *w;
    struct weft_connect_options nowhere = {.socket = "/nonexistent/weftd.sock"};
    if (weft_size_parse("10GB", &bytes) != WEFT_OK || bytes != 10ULL << 30)
        return 1;
    if (weft_connect(&nowhere, &w) != WEFT_E_NODE || !strstr(weft_last_error(), "/nonexistent"))
        return 2;
    puts(weft_version());
    return 0;
}
END

flags() { # pkg-config arguments
    PKG_CONFIG_LIBDIR=$pc:$(pkg-config --variable pc_path pkg-config) \
        pkg-config --define-variable=prefix="$root$prefix" "$@" weft
}

check "it installs" meson install -C "$build" --no-rebuild --destdir "$root"
pc=$(dirname "$(find "$root" -name weft.pc)")
lib=$(dirname "$(find "$root" -name libweft.so)")
check "pkg-config knows it" test -n "$(flags --modversion)"
# shellcheck disable=SC2046 # one word a flag
check "a user builds with the shared library" \
    "$cc" -Wall -Werror "$work/user.c" -o "$work/shared" $(flags --cflags --libs)
check "and runs" env LD_LIBRARY_PATH="$lib" "$work/shared"
# shellcheck disable=SC2046
check "a user builds with the static library" \
    "$cc" -Wall -Werror "$work/user.c" -o "$work/static" $(flags --cflags) "$lib/libweft.a" \
    $(flags --static --libs | sed 's/-lweft//')
check "and runs, alone" "$work/static"
check "no test hook in the header" sh -c "! grep -rq WF_ '$root$prefix/include'"
plan
