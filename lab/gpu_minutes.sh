#!/usr/bin/env bash
# Train on a GPU that is lent for minutes and has no network; it goes on from the last weights if a start fails.
#
#   bash lab/gpu_minutes.sh SECONDS OUT WHEELS PHOTOS.tar... -- NAME=MODEL.yaml... [options of gpu_minutes.py]
#
# SECONDS counts from now, preparation included. WHEELS is a folder of wheels that are missing there (compressai,
# pytorch-msssim), PHOTOS what `gpu_minutes.py pack` made. OUT gets weights every minute, log.csv and
# train.log, and the compiled kernels as triton.tgz; if WHEELS has this file, nothing is compiled again.
set -uo pipefail
start=$(date +%s)
until=$((start + $1)) out=$2 wheels=$3
shift 3
photos=()
while [ "$1" != -- ]; do photos+=("$1"); shift; done
shift
mkdir -p "$out"
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --target "$site/packages" "$wheels"/*.whl || exit
export PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd):$site/packages PYTHONUNBUFFERED=1 TRITON_CACHE_DIR=$site/triton
mkdir -p "$TRITON_CACHE_DIR"
if [ -e "$wheels/triton.tgz" ]; then tar xzf "$wheels/triton.tgz" -C "$TRITON_CACHE_DIR"; fi
again=()
for extra in "" "" --eager; do
  python3 -X faulthandler "$(dirname "$0")/gpu_minutes.py" train "$@" --photos "${photos[@]}" -o "$out" \
    --since "$start" --until $((until - 8)) $extra "${again[@]}" 2>&1 | tee -a "$out/train.log" && break
  [ "$(date +%s)" -gt $((until - 30)) ] && break
  saved=("$out"/*.safetensors)
  if [ -e "${saved[0]}" ]; then again=(--checkpoint "${saved[@]}"); fi
done
tar czf "$out/triton.tgz" -C "$TRITON_CACHE_DIR" .
