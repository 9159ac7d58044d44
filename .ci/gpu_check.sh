#!/usr/bin/env bash
# What this lab does on a GPU, in one command: on a machine with JAX, an NVIDIA GPU and no network.
#
#   bash .ci/gpu_check.sh --prepare                    with network: wheels into .wheels/
#   bash .ci/gpu_check.sh --data FOLDER --out FOLDER   on the machine with the GPU
#   bash .ci/gpu_check.sh --tiny --out FOLDER          anywhere: drawn scenes and a few steps
#
# docs/gpu.md says what comes of it; `python3 .ci/gpu_check.py --help` lists all options.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export KERAS_BACKEND=${KERAS_BACKEND:-jax} PYTHONUNBUFFERED=1
[[ " $* " == *" --prepare "* ]] && exec "$python" .ci/gpu_check.py "$@"

# Wheels of what the machine lacks go to a folder for this run alone. What it has already stays as it is:
# its JAX was built for its driver.
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mapfile -t wheels < <("$python" .ci/gpu_check.py --lacking)
if [ ${#wheels[@]} -gt 0 ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "${wheels[@]}"
fi
PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" "$python" .ci/gpu_check.py "$@"
