#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The programs run from build/bin, from anywhere, and say one version.
set -u
. "$(dirname "$0")/tap.sh"
build=$1
version=$2
unset LD_LIBRARY_PATH

says_version() { # program
    said=$(cd / && "$build/bin/$1" --version) || return 1
    echo "$said"
    case " $said " in *" $version "*) ;; *) return 1 ;; esac
}

names_the_option() { # program
    said=$(cd / && "$build/bin/$1" --no-such-option 2>&1) && return 1
    echo "$said"
    case $said in *no-such-option*) ;; *) return 1 ;; esac
}

# In one sentence of ours, with what was meant.
suggests() { # program, its mistaken words, what it says
    program=$1 meant=$3
    # shellcheck disable=SC2086 # words
    said=$(cd / && "$build/bin/$program" $2 2>&1) && return 1
    echo "$said"
    [ "$(echo "$said" | wc -l)" -eq 1 ] || return 1
    case $said in "$program"*": "*"$meant"*) ;; *) return 1 ;; esac
}

for program in weft weftd tinyllm; do
    check "$program runs and is $version" says_version $program
    check "$program refuses an option that is none, by name" names_the_option $program
done
check "weft knows what was meant" suggests weft "status --sokcet /x" "did you mean --socket?  See weft status"
check "weftd knows what was meant" suggests weftd "--sokcet /x" "did you mean --socket?"
check "tinyllm knows what was meant" suggests tinyllm "run --sokcet /x" "did you mean --socket?"
check "weft names the option without a value" suggests weft "put --key" "--key needs a value"
check "weftd names the option without a value" suggests weftd "--pool" "--pool needs a value"
check "tinyllm names the option without a value" suggests tinyllm "run --socket" "--socket needs a value"
check "weftd names the option with a value too many" suggests weftd "--json=3" "--json takes no value"
plan
