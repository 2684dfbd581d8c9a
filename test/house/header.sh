#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# include/weft/weft.h compiles alone, as C11 and as C++17, with every compiler that is here.
set -u
. "$(dirname "$0")/tap.sh"
root=$1
# No -Wshadow: like stat(2), weft_pin() and weft_match() share a name with a struct, and g++ says so.
warnings='-pedantic -Wall -Wextra -Wconversion -Wundef -Werror'

compile() { # compiler, language, standard, file
    # shellcheck disable=SC2086 # one word a flag
    "$1" -x "$2" -std="$3" $warnings -I "$root/include" -fsyntax-only "$4"
}

each() { # language, standard, compilers
    language=$1
    standard=$2
    shift 2
    for compiler; do
        if ! command -v "$compiler" >/dev/null; then
            skip "$standard with $compiler" "there is no $compiler"
            continue
        fi
        check "$standard with $compiler" compile "$compiler" "$language" "$standard" "$work/alone"
        refuse "$standard with $compiler sees a fault" \
            compile "$compiler" "$language" "$standard" "$work/faulty"
    done
}

printf '#include <weft/weft.h>\n#include <weft/weft.h>\n' >"$work/alone"
cat >>"$work/alone" <<'END'
const void *first_k(const struct weft_pins *pins);
const void *first_k(const struct weft_pins *pins) { return weft_k(pins, 0, 0); }
END
{
    cat "$work/alone"
    echo 'int size(struct weft *w); int size(struct weft *w) { return (int)sizeof *w; }'
} >"$work/faulty" # the handles are opaque: nobody knows their size
each c c11 gcc clang-14
each c++ c++17 g++ clang++-14
plan
