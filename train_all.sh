#!/usr/bin/env bash
# From raw data to a scored, published model. Each step is one command that you can also run by hand.
#
#   uv run bash train_all.sh            # hawks
#   uv run bash train_all.sh TASK       # another recipe: a folder under recipes/, or TASK:VARIANT
#   PROFILE=cpu uv run bash train_all.sh
#
#   PROFILE=auto|gpu|cpu      auto takes the GPU where there is one; cpu trains the small base in data/samples/base
#   DATA=auto|hub|raw|sample  auto: gpu fetches the data sources of task.yml from the HF Hub, cpu takes data/samples/TASK;
#                             without these, and with raw, data/raw/TASK is taken as it is
#   SOURCE=FOLDER             takes the raw data from there: outputs/TASK/leaks/clean, masked copies ...
#   AUTO_OOM=1                out of memory, goes on with a smaller batch and the same result: docs/memory.md
#   LEAKS=allow               goes on where training shares articles, persons or ids with the test set
#
# On a GPU machine start it in tmux, so that a lost connection does not stop it:
#   tmux new -s training 'uv run bash train_all.sh'
#
# Stop it whenever you like; the same command goes on where it stopped, and skips what is done.
set -euo pipefail
cd "$(dirname "$0")"

TASK=${1:-hawks}
export LOG_DIR=${LOG_DIR:-logs/$(date +%Y%m%d_%H%M%S)} # libraries write there, steps write to the screen
export AXOLOTL_DO_NOT_TRACK=1                          # no telemetry, and no ten seconds' wait for it
started=$SECONDS

python -c 'import recipekit' 2>/dev/null || { echo "error: start it as: uv run bash train_all.sh $TASK" >&2; exit 2; }
mkdir -p "$LOG_DIR"

# What will be done, on which profile and data, and how long it takes.
plan=$(python tools/plan.py "$TASK" --profile "${PROFILE:-auto}" --data "${SOURCE:-${DATA:-auto}}")
read -r PROFILE KIND CAPTIONS DATA <<<"$plan"

# Pictures -> words, where a task has some; the captions that lie beside the data are not made again.
[[ $DATA != hub ]] || python tools/download.py "$TASK"
case $DATA in
  hub | raw) raw=data/raw/${TASK%%:*} ;; # a variant has its task's data
  sample) raw=data/samples/${TASK%%:*} ;;
  *) raw=$DATA ;;
esac
if [[ $CAPTIONS == yes ]]; then
  python tools/caption.py "$TASK" --source "$raw"
  raw=data/captioned/${TASK%%:*}
fi

# Raw data -> segments: system, instruction, article untrained, answer trained.
python tools/regenerate_segments.py "$TASK" --source "$raw"

# What training shares with the test set would be scored as learned.
python tools/leaks.py "$TASK" --source "$raw" $([[ ${LEAKS:-stop} != allow ]] || echo --allow-leaks)

# Everything that would fail later, before any GPU time is spent.
python tools/check.py "$TASK" --profile "$PROFILE"

# Each phase goes on from the adapter of the phase before it (lora_model_dir).
for phase in $(python -c "from recipekit.task import load_task; print(*load_task('$TASK').phases)"); do
  python tools/train.py "$TASK" "$phase" --profile "$PROFILE"
done

# Adapter + base -> outputs/TASK/merged, proven equal on a prompt.
python tools/merge.py "$TASK" --profile "$PROFILE"

# What a model has to beat where numbers are estimated: the constant mean, a ridge on TF-IDF ...
[[ $KIND == extraction ]] || python tools/baselines.py "$TASK"

# The merged model on the test set, then its answers against the gold CSV.
python tools/predict.py "$TASK"
python tools/evaluate.py "$TASK"

# Describe it and push it; without a token or a repository, upload says how to enable it.
python tools/model_card.py "$TASK"
python tools/upload.py "$TASK"

# The scores, where everything lies, and what to do next.
python tools/summary.py "$TASK" --seconds $((SECONDS - started))
