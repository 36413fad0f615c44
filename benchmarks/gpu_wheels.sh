#!/usr/bin/env bash
# Collects, on a machine with a network, the wheels that benchmarks/gpu_session.sh installs on one without.
#   bash benchmarks/gpu_wheels.sh FOLDER [PYTHON_VERSION]      # for x86-64 Linux; 3.12 unless another is named
set -euo pipefail
folder=$1 python=${2:-3.12}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
platforms=()
for glibc in 2_34 2_31 2_28 2_27 2_24 2_17 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
download=(python3 -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version "$python"
  "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$folder")
grep -v '^#' "$here/gpu_wheels.txt" | while read -r package; do
  # Some are published as source alone; these are pure Python, DeepSpeed without its compiled parts, too.
  "${download[@]}" "$package" 2>"$folder/pip.log" ||
    DS_BUILD_OPS=0 python3 -m pip wheel -q --no-deps -w "$folder" "$package" 2>>"$folder/pip.log" ||
    { cat "$folder/pip.log"; exit 1; }
done
rm "$folder/pip.log"
# bitsandbytes is imported, and never used: 4 MB of CUDA 13's library instead of 43 MB of every version's.
python3 - "$folder" <<'PYTHON'
import re
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

[path] = Path(sys.argv[1]).glob("bitsandbytes-*.whl")
less = path.with_suffix(".tmp")
with ZipFile(path) as old, ZipFile(less, "w", ZIP_DEFLATED) as new:
    for name in old.namelist():
        if not re.search(r"_(cuda(?!130)|rocm|xpu)\d+\.so$", name):
            new.writestr(name, old.read(name))
less.replace(path)
PYTHON
du -sh "$folder"
