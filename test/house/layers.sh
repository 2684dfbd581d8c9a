#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/layers lets the tree pass, and catches a foreign #include of each kind.
set -u
. "$(dirname "$0")/tap.sh"
root=$1
tree=$work/tree

fresh() {
    rm -rf "$tree"
    mkdir -p "$tree/src/base" "$tree/src/sys" "$tree/src/core" "$tree/examples/tiny" "$tree/include/weft"
    printf 'base:\nsys: base\ncore: base\nexamples: public\n' >"$tree/src/LAYERS"
    printf '#include <stdio.h>\n#include "weft/weft.h"\n#include "base/a.h"\n' >"$tree/src/sys/s.c"
    printf '#include "base/b.h"\n#include "b.h"\n' >"$tree/src/base/a.c"
    printf '#include "weft/weft.h"\n#include "tiny.h"\n' >"$tree/examples/tiny/tiny.c"
}

breaks() { # name, file, include
    fresh
    printf '%s\n' "$3" >>"$tree/$2"
    refuse "$1" "$root/scripts/layers" "$tree"
}

check "this tree keeps its law" "$root/scripts/layers" "$root"
fresh
check "a good tree passes" "$root/scripts/layers" "$tree"
breaks "a lower layer reaches up" src/base/a.c '#include "sys/s.h"'
breaks "siblings see each other" src/core/c.c '  #  include "sys/s.h"'
breaks "a path with dots" src/core/c.c '#include "../sys/s.h"'
breaks "an example sees the inside" examples/tiny/tiny.c '#include "base/a.h"'
breaks "an example by a path with dots" examples/tiny/tiny.c '#include "../../src/base/a.h"'
fresh
mkdir "$tree/src/stray"
refuse "a directory that is no layer" "$root/scripts/layers" "$tree"
fresh
echo 'core: nowhere' >>"$tree/src/LAYERS"
refuse "a law that names no layer" "$root/scripts/layers" "$tree"
plan
