#!/usr/bin/env bash
# The study at full size on a GPU: benchmark, trainings in order of value with their evaluations, samples.
#
#   bash scripts/gpu_study.sh           run every job whose result is missing; re-run to resume
#   bash scripts/gpu_study.sh --list    print the commands
#   bash scripts/gpu_study.sh --small   the same script at a small size: a minute on a CPU (SMALL=1 too)
#
# It begins with the number of jobs of each kind; after the first job of a kind it knows how long the others will take.
# A piece of a job lasts at most PIECE seconds: trainings, evaluations and samplings resume where the last piece ended.
# The numbers of all finished jobs are in $OUT/study.json. ROOT is the folder of CIFAR-10 (downloaded if missing).
set -uo pipefail
MODE=run
for argument in "$@"; do
  case $argument in
    --list) MODE=list ;;
    --small) SMALL=1 ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: $argument must be --list, --small or --help" >&2; exit 1 ;;
  esac
done
OUT=${OUT:-study${SMALL:+_small}} ROOT=${ROOT:-data} PYTHON=${PYTHON:-python} PIECE=${PIECE:-540}
benchmark=(model.width=64 dataset.batch_size=128 steps=50)
train=(experiment=co dataset=cifar10 "dataset.root=$ROOT" trainer.precision=bf16-mixed logger=csv)
evaluate=('attacks=[fgsm,pgd,autoattack]' subset=1000 subset_seed=null)
sample=(n=10000 start=local_pca sampler.steps=100)
scenarios=(fgsm_der fgsm_der_inactive trades fgsm rs_fgsm_der n_fgsm_der gradalign pgd trades_der evaluation sampling scaling)
methods=(fgsm:8:none fgsm:8:der fgsm:16:none fgsm:16:der rs_fgsm:16:none rs_fgsm:16:der n_fgsm:16:none n_fgsm:16:der
  rs_fgsm:8:none rs_fgsm:8:der n_fgsm:8:none n_fgsm:8:der fgsm:8:gradalign fgsm:16:gradalign
  pgd:8:none pgd:8:der trades:8:none trades:8:der)
sampled=pgd_8_none
if [[ -n ${SMALL:-} ]]; then
  benchmark=(model.width=4 dataset.batch_size=8 device=cpu repeats=1)
  train+=(dataset=digits dataset.subset=100 dataset.val_size=20 model=small model.width=4 trainer.max_epochs=1
    trainer.accelerator=cpu trainer.precision=32-true evaluation.subset=20)
  evaluate=('attacks=[fgsm]' subset=10 device=cpu)
  sample=(n=10 start=noise sampler.steps=2 quality=none judge=none device=cpu)
  scenarios=(fgsm_der) methods=(fgsm:8:der) sampled=fgsm_8_der
fi

declare -A missing=() seconds=() ended=() # jobs by module: without a result; duration and number of those that ran
number=0 total=0 failed=()

job() { # RESULT MODULE ARGUMENTS: run pieces of a command until its result exists
  local result=$1 module=energy_at.$2 status folder=${1%/*} kind=$2 start=$SECONDS && shift 2
  case $MODE in
    list) echo "$PYTHON -m $module ${*@Q}"; return ;;
    count) total=$((total + 1)); [[ -e $result ]] || missing[$kind]=$((${missing[$kind]:-0} + 1)); return ;;
  esac
  number=$((number + 1))
  [[ -e $result ]] && return
  while [[ ! -e $result ]]; do
    if [[ $module == *.train && -e $folder/checkpoints/last.ckpt ]]; then set -- "resume=$folder"; fi
    echo "[$number/$total] \$ $PYTHON -m $module $*" >&2
    timeout --foreground "$PIECE" "$PYTHON" -m "$module" "$@"
    status=$?
    if [[ $status != 0 && $status != 124 ]]; then failed+=("$result"); break; fi
  done
  [[ -e $result ]] && missing[$kind]=$((missing[$kind] - 1))
  seconds[$kind]=$((${seconds[$kind]:-0} + SECONDS - start))
  ended[$kind]=$((${ended[$kind]:-0} + 1))
  echo "[$number/$total] $((SECONDS - start)) s; missing: $(remaining)" >&2
  [[ -e $result ]] && collect
}

remaining() { # jobs without a result, with the time that they take at the pace so far
  local kind text=""
  for kind in "${!missing[@]}"; do
    [[ ${missing[$kind]} == 0 ]] && continue
    text+="${text:+, }${missing[$kind]} $kind"
    [[ ${ended[$kind]:-0} == 0 ]] || text+=" (about $((missing[$kind] * seconds[$kind] / ended[$kind] / 60 + 1)) min)"
  done
  echo "${text:-none}"
}

collect() { # the results of all finished jobs in one small file
  "$PYTHON" - "$OUT" <<'END'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
kinds = ("benchmark/*/benchmark.json", "*/results.json", "*/study/evaluation.json", "samples/samples.json")
found = {str(path.parent.relative_to(out)): json.loads(path.read_text()) for kind in kinds for path in sorted(out.glob(kind))}
(out / "study.json").write_text(json.dumps(found) + "\n")
END
}

study() {
  local scenario method attack eps reg run loss
  for scenario in "${scenarios[@]}"; do
    job "$OUT/benchmark/$scenario/benchmark.json" benchmark "${benchmark[@]}" "scenarios=[$scenario]" "out=$OUT/benchmark/$scenario"
  done
  for method in "${methods[@]}"; do
    IFS=: read -r attack eps reg <<< "$method"
    run=$OUT/${attack}_${eps}_$reg loss=$([[ $attack == trades ]] && echo trades || echo at)
    job "$run/results.json" train "${train[@]}" "attack=$attack" "loss=$loss" "threat.eps=$eps/255" "reg=$reg" "hydra.run.dir=$run" &&
      job "$run/study/evaluation.json" evaluate "run=$run" "${evaluate[@]}" "out=$run/study"
  done
  job "$OUT/samples/samples.json" sample "run=$OUT/$sampled" "${sample[@]}" "out=$OUT/samples"
}

if [[ $MODE == list ]]; then study; exit; fi
MODE=count && study
echo "$total jobs in $OUT; missing: $(remaining)" >&2
MODE=run && study
if [[ ${#failed[@]} -gt 0 ]]; then echo "failed: ${failed[*]}; re-run to try again" >&2; exit 1; fi
