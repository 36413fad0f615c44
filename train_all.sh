#!/usr/bin/env bash
# From raw data to a scored, published model. Each step is one command that you can also run by hand.
#
#   uv run bash train_all.sh            # hawks
#   uv run bash train_all.sh TASK       # another recipe: a folder under recipes/, or TASK:VARIANT
#   PROFILE=cpu uv run bash train_all.sh
#
#   --from STEP               only this step and those after it
#   --only STEP               only this step; can be repeated
#   --force                   runs steps although they are up to date
#   --dry-run                 says what would run, and why; writes nothing
#
#   PROFILE=auto|gpu|cpu      auto takes the GPU where there is one; cpu trains the small base in data/samples/base
#   DATA=auto|hub|raw|sample  auto: gpu fetches the data sources of task.yml from the HF Hub, or where it names none takes
#                             data/raw/TASK if that is there; else, and on a cpu, data/samples/TASK
#   SOURCE=FOLDER             takes the raw data from there: outputs/TASK/leaks/clean, masked copies ...
#   AUTO_OOM=1                out of memory, goes on with a smaller batch and the same result: docs/memory.md
#   LEAKS=allow               goes on where training shares articles, persons or ids with the test set
#
# On a GPU machine start it in tmux, so that a lost connection does not stop it, and look at it from anywhere:
#   tmux new -s training 'uv run bash train_all.sh'
#   uv run tools/status.py
#
# Stop it whenever you like; the same command goes on where it stopped, and skips what is done.
set -euo pipefail
cd "$(dirname "$0")"

# Reads the options, refuses a second run of the same task, shows the plan, and starts this script again in its place
# with TASK, PROFILE, DATA, CAPTIONS, PHASES, STEPS and LOG_DIR (libraries write there, steps write to the screen).
if [[ ${RECIPEKIT_RUN:-} != "$$" ]]; then
  python -c 'import recipekit' 2>/dev/null || { echo "error: start it as: uv run bash train_all.sh" >&2; exit 2; }
  exec python tools/plan.py --start "$@"
fi
export AXOLOTL_DO_NOT_TRACK=1 # no telemetry, and no ten seconds' wait for it
started=$SECONDS

step() { # NAME COMMAND: runs it where the step is one of those to do
  [[ " $STEPS " != *" $1 "* ]] || "${@:2}"
}

step download python tools/download.py "$TASK"
case $DATA in
  hub | raw) raw=data/raw/${TASK%%:*} ;; # a variant has its task's data
  sample) raw=data/samples/${TASK%%:*} ;;
  *) raw=$DATA ;;
esac

# Pictures -> words, where a task has some; the captions that lie beside the data are not made again.
step caption python tools/caption.py "$TASK" --source "$raw"
[[ $CAPTIONS == no ]] || raw=data/captioned/${TASK%%:*}

# Raw data -> segments: system, instruction, article untrained, answer trained.
step regenerate python tools/regenerate_segments.py "$TASK" --source "$raw"

# What training shares with the test set would be scored as learned.
step leaks python tools/leaks.py "$TASK" --source "$raw" $([[ ${LEAKS:-stop} != allow ]] || echo --allow-leaks)

# Everything that would fail later, before any GPU time is spent.
step check python tools/check.py "$TASK" --profile "$PROFILE"

# Each phase goes on from the adapter of the phase before it (lora_model_dir); DPO from that phase's merged model.
for phase in $PHASES; do
  case $phase in
    merge_*) step "$phase" python tools/merge.py "$TASK" --phase "${phase#merge_}" --profile "$PROFILE" ;;
    *) step "$phase" python tools/train.py "$TASK" "$phase" --profile "$PROFILE" ;;
  esac
done

# Adapter + base -> outputs/TASK/merged, proven equal on a prompt.
step merge python tools/merge.py "$TASK" --profile "$PROFILE"

# Of conversations: what each phase made of the validation sets of all.
step held_out python tools/held_out.py "$TASK" --profile "$PROFILE"

# What a model has to beat where numbers are estimated: the constant mean, a ridge on TF-IDF ...
step baselines python tools/baselines.py "$TASK"

# The merged model on the test set, then its answers against the gold CSV.
step predict python tools/predict.py "$TASK"
step evaluate python tools/evaluate.py "$TASK"

# Describe it and push it; without a token or a repository, upload says how to enable it.
step card python tools/model_card.py "$TASK"
step upload python tools/upload.py "$TASK"

# The scores, where everything lies, and what to do next.
step summary python tools/summary.py "$TASK" --seconds $((SECONDS - started))
