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

for program in weft weftd tinyllm; do
    check "$program runs and is $version" says_version $program
    check "$program refuses an option that is none, by name" names_the_option $program
done
plan
