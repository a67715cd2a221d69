#!/bin/sh
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Benchmark FlashInfer at kernel and server level on a host with an NVIDIA GPU, without network.
#
#   tests/gpu/benchmark.sh ENV_PYTHON OUT_FOLDER [kernels|server|all]
#
# ENV_PYTHON is bin/python of an environment with PyTorch, vllm and FlashInfer; nothing in it is changed. OUT_FOLDER gets
# results.json, results.md, the logs, and the compiled kernels (cache/), so that a second call finds them warm.
# Kernels take about 7 minutes cold, each pair of servers about 4; BENCHMARK_SECONDS bounds the server level (default 480),
# BENCHMARK_STARTS the pairs of both levels (5), and BENCHMARK_CANDIDATES names those of the server level (sampler attention).
# Everything runs in this call; it ends by itself. Needs 76 GiB of GPU memory for the two engines of the server level.
set -eu
[ $# -ge 2 ] || { sed -n '5,13p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$here/collections" PYTHONDONTWRITEBYTECODE=1
exec "$1" "$here/tests/gpu/benchmark.py" "$@"
