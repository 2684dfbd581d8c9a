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

for program in weft weftd tinyllm; do
    check "$program runs and is $version" says_version $program
    refuse "$program refuses an option that is none" sh -c "cd / && '$build/bin/$program' --no-such-option"
    check "$program names the option" grep -q -e no-such-option "$work/said"
done
plan
