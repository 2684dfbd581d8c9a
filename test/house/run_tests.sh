#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/run-tests counts what a project of every kind of result gives.
set -u
. "$(dirname "$0")/tap.sh"
root=$1
tree=$work/project

mkdir "$tree"
cat >"$tree/meson.build" <<'END'
project('counted')
sh = find_program('sh')
t = 'printf "ok 1 - a\nnot ok 2 - b\n# for b reasons\nok 3 # SKIP c\n1..3\n"'
test('tap-good', sh, args: ['-c', 'printf "1..2\nok 1 - a\nok 2 # SKIP b\n"'], protocol: 'tap', suite: 'good')
test('plain-good', sh, args: ['-c', 'exit 0'], suite: 'good')
test('plain-skip', sh, args: ['-c', 'echo no such device; exit 77'], suite: 'good')
test('all-skip', sh, args: ['-c', 'echo "1..0 # SKIP no such device"'], protocol: 'tap', suite: 'good')
test('tap-bad', sh, args: ['-c', t], protocol: 'tap', suite: 'bad')
test('plain-bad', sh, args: ['-c', 'echo these are last words; exit 3'], suite: 'bad')
test('dies', sh, args: ['-c', 'printf "1..2\nok 1 - a\n"; kill -9 $$'], protocol: 'tap', suite: 'died')
test('long', sh, args: ['-c', 'exit 1'], suite: 'soak')
tap = find_program('@TAP@')
test('cmocka-skip', tap, args: ['printf', '1..1\nsome words\nnot ok 1 # SKIP a\n'], protocol: 'tap', suite: 'cmocka')
test('cmocka-fail', tap, args: ['sh', '-c', 'printf "1..1\nnot ok 1 - a\n"; exit 1'], protocol: 'tap', suite: 'cmocka')
END
sed -i "s|@TAP@|$root/test/tap|" "$tree/meson.build"
unset MAKEFLAGS MESON_TESTTHREADS
meson setup "$tree/build" "$tree" >"$work/setup" 2>&1 || cat "$work/setup"

closes_with() { # line, expected status, arguments
    line=$1
    expected=$2
    shift 2
    "$root/scripts/run-tests" "$tree/build" "$@" >"$work/output" 2>&1
    status=$?
    cat "$work/output"
    [ "$(tail -n 1 "$work/output")" = "$line" ] && [ "$status" -eq "$expected" ]
}

check "all good" closes_with '2 passed, 0 failed, 3 skipped' 0 --suite good
check "failures" closes_with '1 passed, 2 failed, 1 skipped' 1 --suite bad
check "failures: their output is shown" grep -q 'these are last words' "$work/output"
check "failures: they are named" grep -q '^FAILED  tap-bad: not ok 2 - b' "$work/output"
check "failures: and why" sh -c "grep -A1 '^FAILED  tap-bad: not ok 2 - b' '$work/output' | grep -q 'for b reasons'"
check "killed half-way" closes_with '1 passed, 1 failed, 0 skipped' 1 --suite died
check "the default leaves long suites out" closes_with '4 passed, 4 failed, 5 skipped' 1
check "a long suite when asked" closes_with '0 passed, 1 failed, 0 skipped' 1 --suite soak
check "cmocka's skips" closes_with '0 passed, 1 failed, 1 skipped' 1 --suite cmocka
refuse "cmocka's words are no TAP error" grep -q 'Unknown TAP' "$work/output"

# A sanitized build has the time that its sanitizer takes.
tree=$work/slow
mkdir "$tree"
cat >"$tree/meson.build" <<'END'
project('slow', 'c')
test('takes its time', find_program('sh'), args: ['-c', 'sleep 2'], timeout: 1)
END
meson setup "$tree/build" "$tree" -Db_lundef=false >"$work/setup" 2>&1 || cat "$work/setup"
check "too slow" closes_with '0 passed, 1 failed, 0 skipped' 1
check "not too slow when it is told" closes_with '1 passed, 0 failed, 0 skipped' 0 --slower 8
meson configure "$tree/build" -Db_sanitize=thread >"$work/setup" 2>&1 || cat "$work/setup"
check "not too slow for a sanitizer" closes_with '1 passed, 0 failed, 0 skipped' 0
tree=$work/project

check "nothing found is a failure" closes_with '0 passed, 1 failed, 0 skipped' 1 --suite none
plan
