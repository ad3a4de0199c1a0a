#!/usr/bin/env bash
# Check what runs on a GPU on a machine without a network: installs carried wheels, then runs gpu_check.py.
#
#   bash lab/gpu_check.sh SECONDS OUT WHEELS [options of gpu_check.py]
#
# WHEELS is a folder of wheels that are missing there (beartype, compressai, einops, pytorch-msssim); pytest and xdist,
# numba, scikit-image, torch_geometric and triton are taken to be there. OUT gets gpu_check.json, whole at any moment,
# tests.log and tests.xml.
set -uo pipefail
seconds=$1 out=$2 wheels=$3
shift 3
mkdir -p "$out"
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl || exit
export PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd):$site PYTHONUNBUFFERED=1
python3 "$(dirname "$0")/gpu_check.py" -o "$out" --seconds "$seconds" "$@" 2>&1 | tee "$out/gpu_check.log"
