#!/bin/sh
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The whole stack (PyTorch 2.8.0+cu128, vllm, OlmOCR, FlashInfer 0.3.1) by site.yml on a host with a GPU and no network, what
# flashinfer_info finds there, and then vllm as the activation starts it, with FlashInfer's sampler forced on without nvcc, and
# with the nvcc found here.
#
#   tests/gpu/mission.sh WHEELS WORK
#
# WHEELS holds the wheels of the committed locks for Python 3.12, FlashInfer's source distribution and its needs, uv and
# ansible-core. poppler must be on PATH. The test PDF goes to tests/unit/stand_in_server.py: there are no model weights here.
set -eu
[ $# -eq 2 ] || { sed -n '5,13p' "$0" >&2; exit 2; }
wheels=$(realpath "$1")
mkdir -p "$2/exports"
work=$(realpath "$2")
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1

python3 -m pip install -q --no-index --no-deps --find-links "$wheels" --target "$work/uv" uv
"$work/uv/bin/uv" venv -q --python 3.12 "$work/control"
"$work/uv/bin/uv" pip install -q --python "$work/control/bin/python" --no-index --find-links "$wheels" \
    ansible-core jmespath packaging uv

"$work/control/bin/python" tests/unit/stand_in_server.py --port 8123 >"$work/server.log" 2>&1 &
trap "kill $!" EXIT
. /etc/os-release
# A host without network gets no system packages.
"$work/control/bin/ansible-playbook" -i inventories/local site.yml -e "{
    \"stack_root\": \"$work/stack\", \"stack_cache\": \"$work/uv-cache\", \"stack_offline\": true,
    \"stack_find_links\": [\"$wheels\"], \"stack_disk_gb\": 1, \"python_env_python\": \"3.12\",
    \"__stack_platforms\": {\"$ID-$VERSION_ID\": {\"manager\": \"apt\", \"packages\": []}},
    \"stack_gpu\": \"required\", \"verify_required\": [\"files\", \"torch\", \"cuda\", \"vllm\", \"olmocr\", \"flashinfer\", \"smoke\"],
    \"fi_method\": \"${FI_METHOD:-pypi}\", \"fi_version\": \"0.3.1\", \"flashinfer_jit_cache_index\": \"\",
    \"flashinfer_export_dir\": \"$work/exports\", \"report_dir\": \"$work/reports\",
    \"verify_server\": \"http://127.0.0.1:8123/v1\"}"

environment=$work/stack/envs/olmocr-optimized
echo '==== flashinfer_info'
"$work/control/bin/ansible" -i inventories/local all -m ocrfleet.gpu_stack.flashinfer_info -a "environment=$environment"

# Each start has caches of its own, so that none is warm by what another one compiled.
start() { # name, then the variables to set after the activation
    name=$1
    shift
    echo "==== $name"
    caches=$work/caches/$name
    (
        set +u # uv's activate asks for OSTYPE, which sh does not set
        . "$environment/bin/activate"
        env "VLLM_CACHE_ROOT=$caches/vllm" "TRITON_CACHE_DIR=$caches/triton" "TORCHINDUCTOR_CACHE_DIR=$caches/inductor" \
            "FLASHINFER_WORKSPACE_BASE=$caches" "$@" timeout 300 python tests/gpu/start_vllm.py "$work/model"
    ) >"$work/$name.log" 2>&1 || echo "ended with exit code $?"
    grep -E '^RESULT|Using FlashInfer|FlashInfer is available|Using Flash Attention|nvcc' "$work/$name.log" | tail -4
}
failed=0
said() { # name, whether it is expected (yes, no), what
    found=no
    grep -qE "$3" "$work/$1.log" && found=yes
    [ "$found" = "$2" ] || { failed=1; echo "FAILED $1: expected '$3' in its log: $2, found: $found"; }
}
start as-activated
said as-activated yes '^RESULT'
said as-activated yes 'FlashInfer is available, but it is not enabled'
said as-activated yes 'Using Flash Attention backend'
start sampler-without-nvcc VLLM_USE_FLASHINFER_SAMPLER=1 CUDA_HOME=/nonexistent "PATH=$environment/bin:/usr/bin:/bin"
said sampler-without-nvcc no '^RESULT'
said sampler-without-nvcc yes "No such file or directory: '/nonexistent/bin/nvcc'"
start sampler-with-nvcc VLLM_USE_FLASHINFER_SAMPLER=1
said sampler-with-nvcc yes '^RESULT'
said sampler-with-nvcc yes 'Using FlashInfer for top-p & top-k sampling'
exit $failed
