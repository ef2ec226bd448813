#!/usr/bin/env bash
# The study at full size on a GPU: benchmark, trainings in order of value with their evaluations, samples.
#
#   bash scripts/gpu_study.sh           run every job whose result is missing; re-run to resume
#   bash scripts/gpu_study.sh --list    print the commands
#   bash scripts/gpu_study.sh --small   the same script at a small size: a minute on a CPU (SMALL=1 too)
#
# It begins with the number of jobs of each kind and the time that they will take: the passes through the network that
# they need, at the pace of a few steps on this machine; after the first job of a kind, at the pace of those that ended.
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
# Thousands of passes, forward and backward, of an image: of a step by method, of the images of a training, of the others
declare -A passes=([fgsm]=2 [rs_fgsm]=2 [n_fgsm]=2 [pgd]=11 [trades]=12 [none]=0 [der]=1 [gradalign]=3)
images=1470 benchmarked=600 evaluated=2700 drawn=1000
if [[ -n ${SMALL:-} ]]; then
  benchmark=(model.width=4 dataset.batch_size=8 device=cpu repeats=1)
  train+=(dataset=digits dataset.subset=100 dataset.val_size=20 model=small model.width=4 trainer.max_epochs=1
    trainer.accelerator=cpu trainer.precision=32-true evaluation.subset=20)
  evaluate=('attacks=[fgsm]' subset=10 device=cpu)
  sample=(n=10 start=noise sampler.steps=2 quality=none judge=none device=cpu)
  scenarios=(fgsm_der) methods=(fgsm:8:der) sampled=fgsm_8_der images=0 benchmarked=0 evaluated=0 drawn=0
fi

declare -A missing=() work=() ended=() work_done=() seconds=() # by module, jobs and passes: without a result; that ran
number=0 total=0 pace=1 failed=()

job() { # WORK RESULT MODULE ARGUMENTS: run pieces of a command until its result exists
  local work_of=$1 result=$2 module=energy_at.$3 status folder=${2%/*} kind=$3 start=$SECONDS && shift 3
  if [[ $MODE == list ]]; then echo "$PYTHON -m $module ${*@Q}"; return; fi
  if [[ $MODE == count ]]; then
    total=$((total + 1))
    [[ -e $result ]] && return
    missing[$kind]=$((${missing[$kind]:-0} + 1)) work[$kind]=$((${work[$kind]:-0} + work_of))
    return
  fi
  number=$((number + 1))
  [[ -e $result ]] && return
  while [[ ! -e $result ]]; do
    if [[ $module == *.train && -e $folder/checkpoints/last.ckpt ]]; then set -- "resume=$folder"; fi
    echo "[$number/$total] \$ $PYTHON -m $module $*" >&2
    timeout --foreground "$PIECE" "$PYTHON" -m "$module" "$@"
    status=$?
    if [[ $status != 0 && $status != 124 ]]; then failed+=("$result"); break; fi
  done
  [[ -e $result ]] && missing[$kind]=$((missing[$kind] - 1)) work[$kind]=$((work[$kind] - work_of))
  seconds[$kind]=$((${seconds[$kind]:-0} + SECONDS - start))
  ended[$kind]=$((${ended[$kind]:-0} + 1)) work_done[$kind]=$((${work_done[$kind]:-0} + work_of))
  echo "[$number/$total] $((SECONDS - start)) s; missing: $(remaining)" >&2
  [[ -e $result ]] && collect
}

measure() { # sets the pace, in passes a second, by a few steps of FGSM-AT + DER, of three passes an image
  local file=$OUT/pace/benchmark.json precision=bf16${SMALL:+ fp32}
  if [[ ! -e $file ]]; then
    echo "measuring the pace of this machine" >&2
    "$PYTHON" -m energy_at.benchmark "${benchmark[@]}" steps=5 repeats=1 'scenarios=[fgsm_der]' 'rows=[full]' \
      "precisions=[${precision##* }]" "out=$OUT/pace" > /dev/null || exit 1
  fi
  pace=$("$PYTHON" - "$file" <<'END'
import json, sys
row = next(row for row in json.load(open(sys.argv[1]))["rows"] if row["row"] == "full")
print(max(1, round(3 * row["images"] / min(row["seconds"]))))
END
  ) || exit 1
}

remaining() { # jobs without a result, with the time that they will take, of which ten seconds are a job's start
  local kind text="" time all=0
  for kind in benchmark train evaluate sample; do
    [[ ${missing[$kind]:-0} == 0 ]] && continue
    time=$((1000 * work[$kind] / pace + 10 * missing[$kind]))
    if [[ ${work_done[$kind]:-0} != 0 ]]; then time=$((work[$kind] * seconds[$kind] / work_done[$kind]))
    elif [[ ${ended[$kind]:-0} != 0 ]]; then time=$((missing[$kind] * seconds[$kind] / ended[$kind])); fi
    text+="${text:+, }${missing[$kind]} $kind (about $((time / 60 + 1)) min)" all=$((all + time))
  done
  echo "${text:-none}${text:+; about $((all / 60 + 1)) min in all}"
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
    job "$benchmarked" "$OUT/benchmark/$scenario/benchmark.json" benchmark "${benchmark[@]}" "scenarios=[$scenario]" "out=$OUT/benchmark/$scenario"
  done
  for method in "${methods[@]}"; do
    IFS=: read -r attack eps reg <<< "$method"
    run=$OUT/${attack}_${eps}_$reg loss=$([[ $attack == trades ]] && echo trades || echo at)
    job "$((images * (passes[$attack] + passes[$reg])))" "$run/results.json" train "${train[@]}" "attack=$attack" "loss=$loss" "threat.eps=$eps/255" "reg=$reg" "hydra.run.dir=$run" &&
      job "$evaluated" "$run/study/evaluation.json" evaluate "run=$run" "${evaluate[@]}" "out=$run/study"
  done
  job "$drawn" "$OUT/samples/samples.json" sample "run=$OUT/$sampled" "${sample[@]}" "out=$OUT/samples"
}

if [[ $MODE == list ]]; then study; exit; fi
MODE=count && study
if [[ ${#missing[@]} -gt 0 ]]; then measure; fi
echo "$total jobs in $OUT; missing: $(remaining)" >&2
MODE=run && study
if [[ ${#failed[@]} -gt 0 ]]; then echo "failed: ${failed[*]}; re-run to try again" >&2; exit 1; fi
