#!/usr/bin/env bash
# Runs inside a SageMaker training job, from the unpacked code: bash tools/sagemaker_entry.sh TASK PHASE PROFILE
#
#   /opt/ml/input/data/train      the phase's data              -> data/train/
#   /opt/ml/input/data/previous   model.tar.gz of the phase     -> outputs/<task>/<phase before>/
#                                 that it goes on from
#   /opt/ml/checkpoints           kept in S3 as training goes   <- outputs/<task>/
#   /opt/ml/model                 becomes model.tar.gz          <- outputs.tar: the phase, its record, what saved memory
#   /opt/ml/output/data           becomes output.tar.gz         <- logs, mlflow.db
#   /opt/ml/output/failure        becomes the FailureReason     <- the error lines
set -uo pipefail
cd "$(dirname "$0")/.."

ml=${ML_ROOT:-/opt/ml} # another folder for a trial without SageMaker
task=$1 phase=$2 profile=$3
outputs=outputs/${task/:/_}
screen=$(mktemp)

train() {
  set -euo pipefail
  if command -v nvidia-smi; then nvidia-smi; fi
  mkdir -p data/train outputs "$ml/checkpoints" "$ml/model" "$ml/output/data"

  # Copies with one time of change for ever: by that, large files are known, and a restarted job must know its own.
  find "$ml/input/data/train" -type f -exec cp {} data/train/ ';'
  touch -d @0 data/train/*

  ln -sfn "$ml/checkpoints" "$outputs" # all of it, as training removes and makes anew the folder of its phase
  if [[ -d $ml/input/data/previous ]]; then
    tar xzOf "$ml/input/data/previous/model.tar.gz" --wildcards '*outputs.tar' | tar xf -
  fi

  command -v uv >/dev/null || python3 -m pip install --quiet uv
  uv sync --quiet --no-dev --extra cloud
  if [[ -n ${HF_SECRET_ARN:-} ]]; then
    HF_TOKEN=$(uv run --no-sync python tools/sagemaker_secret.py "$HF_SECRET_ARN")
    export HF_TOKEN
  fi

  LOG_DIR=logs uv run --no-sync python tools/train.py "$task" "$phase" --profile "$profile"
  results=("$outputs/$phase" "$outputs/state/$phase.json")
  less=$outputs/$phase.$profile.oom.yml # what saved memory, with AUTO_OOM=1
  [[ ! -f $less ]] || results+=("$less")
  tar --format=posix --exclude='checkpoint-*' -cf "$ml/model/outputs.tar" "${results[@]}"
}

mkdir -p logs
tail -n +1 -F "logs/$phase.log" 2>/dev/null & # the trainer's own output, into the job's log
trap 'kill "$!"' EXIT
(train) 2>&1 | tee "$screen"
code=${PIPESTATUS[0]}
if [[ $code != 0 ]]; then
  { grep '^error: ' "$screen" || tail -n 5 "$screen"; } | head -c 1000 >"$ml/output/failure"
fi
cp -r logs mlflow.db "$ml/output/data/" 2>/dev/null
exit "$code"
