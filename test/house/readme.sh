#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The README's example compiles as it stands there, and what the README points to is there.
# shellcheck disable=SC2016 # backquotes are the README's, not the shell's
set -u
. "$(dirname "$0")/tap.sh"
root=$1

# The example's first block of C: the macro before main(), the rest inside it.
sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '1d;$d' >"$work/quoted"
{
    echo '#include <weft/weft.h>'
    echo '#include <stdio.h>'
    echo '#include <stdlib.h>'
    echo 'void attend(uint32_t layer, const void *k, const void *v);'
    echo 'void write_kv(void *k, void *v);'
    sed -n '1p' "$work/quoted"
    echo 'int main(void) { static uint32_t tokens[6000]; size_t count = 6000;'
    sed '1d' "$work/quoted"
    echo 'return 0; }'
} >"$work/example.c"
compile() {
    cc -std=c11 -Wall -Wextra -Werror -I "$root/include" -fsyntax-only "$1"
}
check "the example compiles without a warning" compile "$work/example.c"
sed 's/weft_match(s, tokens, count, &m)/weft_match(s, tokens)/' "$work/example.c" >"$work/broken.c"
refuse "a call that is not in the header is seen" compile "$work/broken.c"

# Links into the tree.
missing=
sed -n 's/[^(]*](\([^)#:]*\)[)#]/\n\1\n/gp' "$root/README.md" | grep '/' >"$work/links"
while read -r link; do
    [ -e "$root/$link" ] || missing="$missing $link"
done <"$work/links"
check "it links to files" test -s "$work/links"
check "every file that it links to is there" test -z "$missing"

# Manual pages by name.
missing=
sed -n 's/[^`]*`man \([^`]*\)`/\n\1\n/gp' "$root/README.md" | grep -E '^(3 )?weft' |
    sed 's/^3 //' >"$work/pages"
while read -r page; do
    ls "$root/docs/man/$page".[1-9] >/dev/null 2>&1 || missing="$missing $page"
done <"$work/pages"
check "it names manual pages" test -s "$work/pages"
check "every manual page that it names is there" test -z "$missing"
plan
