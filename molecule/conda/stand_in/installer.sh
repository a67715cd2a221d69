#!/bin/sh
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# A stand-in for Miniforge's installer: same options, same refusal of a folder that is there, a base environment with conda.
set -eu
prefix=$HOME/miniforge3
while getopts bfp: option; do
    case $option in
    p) prefix=$OPTARG ;;
    *) ;;
    esac
done
if [ -e "$prefix" ]; then
    echo "ERROR: File or directory already exists: '$prefix'" >&2
    exit 1
fi
python3 -m venv --without-pip "$prefix"
site=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
tail -n +"$(($(grep -an '^__PAYLOAD__$' "$0" | cut -d: -f1) + 1))" "$0" | tar -xz -C "$site"
mkdir -p "$prefix/conda-meta" "$prefix/condabin" "$prefix/etc/profile.d" "$prefix/envs" "$prefix/pkgs"
{
    echo "#!$prefix/bin/python"
    cat "$site/engine.py"
} >"$prefix/bin/conda"
chmod 755 "$prefix/bin/conda"
sed "s|@PREFIX@|$prefix|" "$site/conda.sh" >"$prefix/etc/profile.d/conda.sh"
# Everything that is looked at is there already when the test kills this.
[ ! -e /var/tmp/be-slow ] || sleep 600
touch "$prefix/conda-meta/history"
exit 0
__PAYLOAD__
