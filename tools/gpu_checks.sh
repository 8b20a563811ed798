#!/usr/bin/env bash
# What to measure on one GPU, in 12 minutes, in one go:
#
#   tools/gpu_checks.sh OUT [flags of `jxrecon train`: --grow RUN, --data DIR, ...]
#
# 1. the projector's time and bytes a second      OUT/projector.json
# 2. X2CT-GAN's step in bfloat16 beside PyTorch   OUT/x2ct.json
# 3. X2Vision `medium`: images a second, memory   OUT/warm_start.json, OUT/adversarial.json
# 4. training it for six minutes                  OUT/training/metrics.jsonl
#
# All of it, with versions, device and the exit code of each part, is then in OUT/results.json. A part that
# fails or runs out of time does not end the others; the exit code is 0 if none failed. TOY=1 is for the
# script itself: tiny sizes, in three minutes on a CPU. It has not run on a GPU yet.
set -uo pipefail
root=$(dirname "$(dirname "$(realpath "$0")")")
out=${1:?usage: tools/gpu_checks.sh OUT [flags of jxrecon train]}
shift
mkdir -p "$out"
python=${PYTHON:-python}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} XLA_PYTHON_CLIENT_PREALLOCATE=false
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/xla}
toy=(field.shape=[8,8,8] field.spacing_mm=[28.0,30.0,25.0] views.pixels=16 population.train=4
  population.validation=2 schedule.batch_size=2 schedule.steps=4 schedule.log_every=1
  settings.prior.base=[4,4,4] settings.prior.channels=[8,6] settings.prior.w_dim=6
  settings.prior.mapping_layers=2 settings.eval_iterations=1 settings.prior.dtype=bfloat16)
projector=(--sizes 128 128-oblique 256 256-oblique --rounds 5)
x2ct=(--sizes 64 128)
training=(--set population.train=32 --set schedule.save_every=200 --set schedule.evaluate_every=200
  --set schedule.log_every=20)
timed=50 slower=1
if [ -n "${TOY:-}" ]; then
  projector=(--sizes tiny --methods joseph shear_warp --peers --rounds 1)
  x2ct=(--tiny)
  training=("${toy[@]/#/--set=}")
  timed=2 slower=20
fi

declare -A codes
part() { # NAME SECONDS COMMAND...: runs it, for so long at most
  local name=$1 seconds=$(($2 * slower))
  shift 2
  echo "== $name: $*"
  timeout --kill-after=30 "$seconds" "$@" 2>&1 | tee "$out/$name.log"
  codes[$name]=${PIPESTATUS[0]}
}
step() { # NAME FLAGS...: seconds a step of X2Vision
  part "$1" 80 "$python" "$root"/tools/step_costs.py x2vision_hn --size medium "${training[@]}" "${@:2}" \
    --time "$timed" --out "$out/$1.json"
}
part projector 90 "$python" "$root"/tools/bench_drr.py "${projector[@]}" --check --out "$out/projector.json"
part x2ct 100 "$python" "$root"/tools/bench_x2ct.py "${x2ct[@]}" --dtype bfloat16 --out "$out/x2ct.json"
step adversarial --set settings.prior.warm_start_steps=0
step warm_start # the first steps of the training that follows, which finds them compiled
part training 360 "$python" -m jxrecon.train --exp x2vision_hn --size medium --no-evaluate \
  --workdir "$out/training" "${training[@]}" "$@"
[ "${codes[training]}" = 124 ] && codes[training]=0 # stopped in time, as meant, and saved

for name in "${!codes[@]}"; do echo "$name ${codes[$name]}"; done | "$python" "$root"/tools/gpu_results.py "$out"
