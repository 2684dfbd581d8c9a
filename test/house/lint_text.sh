#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/lint-text finds each fault that it knows, and only those.
set -u
. "$(dirname "$0")/tap.sh"
root=$1
tree=$work/tree

fresh() {
    rm -rf "$tree"
    mkdir -p "$tree/src"
    {
        echo '/* SPDX-License-Identifier: Apache-2.0 */'
        echo '/* strcpy(a, b) in a comment */'
        echo 'const char *s = "atoi(x) in a string";'
        echo 'struct ops { int (*system)(int); };'
        echo 'int call(struct ops *o);'
        echo 'int call(struct ops *o)'
        echo '{'
        echo '    return o->system(my_rand(1));'
        echo '}'
    } >"$tree/src/a.c"
}

lint() {
    "$root/scripts/lint-text" "$tree" >"$work/found" 2>&1
    status=$?
    cat "$work/found"
    return $status
}

finds() { # name, what it says
    check "$1" sh -c "! '$root/scripts/lint-text' '$tree' >'$work/found' 2>&1 && grep -q '$2' '$work/found'"
}

function_of() { # lines in its body
    echo 'int long_one(void);'
    echo 'int long_one(void)'
    echo '{'
    yes '    x++;' | head -n "$1"
    echo '}'
}

fresh
check "a good file passes" lint
echo 'void f(char *a) { strcpy(a, s); }' >>"$tree/src/a.c"
finds "a banned function" 'a.c:10: strcpy() is banned'
fresh
echo "int x; /* $(printf '%0100d' 0) */" >>"$tree/src/a.c"
finds "a line too long" 'a.c:10: .* columns'
fresh
echo 'int y;' >"$tree/src/b.c"
finds "no licence" 'b.c:1: no line'
fresh
printf '#!/bin/sh\necho\n' >"$tree/tool"
finds "no licence in a script" 'tool:1: no line'
fresh
function_of 130 >>"$tree/src/a.c"
finds "a function too long" 'a.c:11: long_one has 133 lines'
fresh
function_of 80 >>"$tree/src/a.c"
check "a function rather long passes" lint
check "a function rather long is remarked on" grep -q 'remark: .*long_one has 83 lines' "$work/found"
fresh
yes '/* */' | head -n 1200 >>"$tree/src/a.c"
finds "a file too long" 'a.c: 1209 lines'
plan
