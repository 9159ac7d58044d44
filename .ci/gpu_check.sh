#!/usr/bin/env bash
# Measures training on a GPU in one command, on a machine with JAX, an NVIDIA GPU and no network.
#
#   bash .ci/gpu_check.sh --prepare                    with network: wheels into .wheels/
#   bash .ci/gpu_check.sh --data FOLDER --out FOLDER   on the machine with the GPU
#   bash .ci/gpu_check.sh --tiny --out FOLDER          anywhere: synthetic images and a few steps
#
# docs/gpu.md describes the results; `python3 .ci/gpu_check.py --help` lists all options.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export KERAS_BACKEND=${KERAS_BACKEND:-jax} PYTHONUNBUFFERED=1
[[ " $* " == *" --prepare "* ]] && exec "$python" .ci/gpu_check.py "$@"

# Missing packages go to a temporary folder. Installed ones stay unchanged, since the machine's JAX was built
# for its driver.
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mapfile -t wheels < <("$python" .ci/gpu_check.py --missing)
if [ ${#wheels[@]} -gt 0 ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "${wheels[@]}"
fi
PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" "$python" .ci/gpu_check.py "$@"
