#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU: builds for it, runs the suite on `cuda`, compute-sanitizer on a smoke set,
# and the benchmarks against native torch. Needs the python, torch (2.11 or later, CUDA), nvcc, ninja, pybind11 and pytest
# that are there, and no network.
#
#   benchmarks/gpu_run.sh [OUT]     OUT (default: $OUT, else gpu_results): logs and CSV, written stage by stage, so that a
#                                   run that is cut short still leaves what it got to
#
# Every stage has its own time limit; together they stay under 9 minutes. A failing stage does not stop the later ones;
# the exit status says whether any failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-${OUT:-gpu_results}}
mkdir -p "$out"
python=${PYTHON:-python3}
failed=0

stage() { # name, seconds, command...
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local status=$?
  [ "$status" -eq 0 ] || failed=1
  printf '%-12s exit %3d  %4d s  %s\n' "$name" "$status" $((SECONDS - start)) "$(tail -n 1 "$out/$name.log")" |
    tee -a "$out/summary.txt"
}

export D2LKERNELS_CUDA=1 PYTHONUNBUFFERED=1 D2LKERNELS_DOWNLOAD=0
workers=()
"$python" -c "import xdist" 2>/dev/null && workers=(-n 4)
bench() { # name, seconds, arguments of run.py: rows are saved as they come
  stage "$1" "$2" "$python" benchmarks/run.py "${@:3}" --device cuda --threads all --quick --out "$out"
}

stage gpu 10 nvidia-smi
stage build 140 "$python" setup.py build_ext --inplace
stage info 15 "$python" -m d2lkernels info
stage suite 110 "$python" -m pytest -q --maxfail=20 "${workers[@]}" tests --ignore tests/cuda_emulation -k cuda \
  -p no:cacheprovider --outcomes "$out/outcomes.json"
for tool in memcheck racecheck initcheck synccheck; do
  stage "$tool" 20 compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" benchmarks/sanitizer_smoke.py
done
bench ops 70 ops --filter 'lenet|alexnet|vgg11|nin|resnet|densenet.conv[2-6]|googlenet.conv[2-9] '
bench models 65 models --filter 'lenet.b256|alexnet|vgg11|resnet18|densenet'
bench compile 45 models --compile --dtype tf32 --filter '(lenet.b256|resnet18).* train_step'
cat "$out/summary.txt"
"$python" benchmarks/report.py --print --results "$out"
exit "$failed"
