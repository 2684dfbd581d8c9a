#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/deps against machines made of a few fake programs: what it installs, says and refuses.
set -u
. "$(dirname "$0")/tap.sh"
root=$1
bin=$work/bin

program() { # name, body
    printf '#!/bin/sh\n%s\n' "$2" >"$bin/$1"
    chmod +x "$bin/$1"
}

machine() { # uid; packages that dpkg has
    rm -rf "$bin"
    mkdir "$bin"
    : >"$work/apt"
    for tool in sh cat mktemp rm; do
        ln -s "$(command -v $tool)" "$bin/$tool"
    done
    program id "echo $1"
    program dpkg-query "case ' $2 ' in *\" \$4 \"*) printf installed ;; *) exit 1 ;; esac"
    program pkg-config 'exit 1'
    program cc 'exit 1'
    program apt-get "echo \"\$DEBIAN_FRONTEND \$*\" >>'$work/apt'"
}

deps() {
    PATH=$bin "$root/scripts/deps" "$@"
}

asked_for() { # pattern
    grep -qE -e "$1" "$work/apt"
}

machine 0 'shellcheck mandoc flake8 clang-format-14 clang-tidy-14'
check "all there: success" deps lint
check "all there: apt-get is not asked" test ! -s "$work/apt"

machine 0 'mandoc flake8 clang-format-14'
check "root: success" deps lint
check "root: the missing, and only those" \
    asked_for '^noninteractive install .*--no-install-recommends clang-tidy-14 shellcheck$'

machine 1000 'mandoc flake8 clang-format-14 clang-tidy-14'
refuse "not root: refused" deps lint
deps lint 2>"$work/said.txt"
check "not root: the exact line" \
    grep -q 'sudo apt-get install --no-install-recommends shellcheck$' "$work/said.txt"
check "not root: apt-get is not asked" test ! -s "$work/apt"

machine 0 ''
program apt-get "echo \"\$*\" >>'$work/apt'; case \"\$*\" in *install*) test -e '$work/lists' ;; *) : >'$work/lists' ;; esac"
check "no package lists yet: they are fetched" deps lint
check "no package lists yet: in that order" sh -c "sed -n 2p '$work/apt' | grep -q update"

machine 0 ''
program apt-get 'echo "E: no network"; exit 100'
refuse "apt-get fails: so does it" deps lint

machine 0 'make gcc libc6-dev'
rm "$bin/apt-get"
check "no apt-get: goes on" deps lint
refuse "an unknown group" deps lunch
plan
