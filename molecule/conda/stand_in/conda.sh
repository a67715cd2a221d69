# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# A stand-in for conda's shell function: activate and deactivate, everything else goes to the program.
conda() {
    case ${1-} in
    activate)
        _conda_prefix=$("@PREFIX@/bin/conda" locate "${2:-base}") || return 1
        export CONDA_PREFIX=$_conda_prefix CONDA_DEFAULT_ENV=${2:-base} PATH=$_conda_prefix/bin:$PATH
        for _conda_script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do
            [ ! -e "$_conda_script" ] || . "$_conda_script"
        done
        ;;
    deactivate) PATH=${PATH#"$CONDA_PREFIX/bin:"} && unset CONDA_PREFIX CONDA_DEFAULT_ENV ;;
    *) "@PREFIX@/bin/conda" "$@" ;;
    esac
}
