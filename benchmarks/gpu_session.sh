#!/usr/bin/env bash
# Both GPU benchmarks in one go, on a machine without a network; ends by itself within the minutes given, and a few more.
#   bash benchmarks/gpu_session.sh WHEELS OUTPUT [MINUTES]      # WHEELS: a folder that gpu_wheels.sh filled
set -euo pipefail
wheels=$(realpath "$1") output=$(realpath -m "$2") minutes=${3:-8}
cd "$(dirname "$0")/.."
site=$(mktemp -d) work=$(mktemp -d)
trap 'rm -rf "$site" "$work"' EXIT
mkdir -p "$output"
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
touch "$site/wandb.py" # imported by Axolotl, 20 MB, and never used
export PYTHONPATH="$site:$PWD/tools:$PWD/benchmarks" PYTHONUNBUFFERED=1
python3 -m pip freeze >"$output/versions.txt"
nvidia-smi >"$output/nvidia-smi.txt" || echo "no nvidia-smi" | tee "$output/nvidia-smi.txt"
failed=0
python3 benchmarks/gpu_lora.py --minutes "$(python3 -c "print(0.75 * $minutes)")" --output "$output" --work "$work" \
  ${GPU_LORA_OPTIONS:-} || failed=1
python3 benchmarks/gpu_predict.py --minutes "$(python3 -c "print(0.25 * $minutes)")" --output "$output" --work "$work" \
  ${GPU_PREDICT_OPTIONS:-} || failed=1
tail -n 30 "$work"/*/log.txt "$work"/*.log >"$output/logs.txt" || true
cat "$output"/*.md
exit "$failed"
