"""``energy-at COMMAND ...`` is ``python -m energy_at.COMMAND ...``; alone it lists the commands.

``eval "$(energy-at completion bash)"``, or ``zsh``, completes commands, choices, keys and paths.
"""

import os
import signal
import sys
from string import Template

from energy_at import __version__
from energy_at.core.rules import one_of

COMMANDS = {
    "train": "train a robust classifier; -m for a sweep",
    "evaluate": "robust accuracy under FGSM, PGD and AutoAttack",
    "analyse": "energies of images under attack",
    "sample": "generate images, with IS and FID",
    "report": "tables, figures and a page about several runs",
    "watch": "follow a training in the terminal or the browser",
    "export": "weights as one safetensors file",
    "dashboard": "set up the workspace of W&B",
    "benchmark": "measure the speed of a training step",
    "doctor": "check this installation",
}
COMPLETION = Template("""\
_energy_at_offer() {  # a folder may have any name: what a shell would run is quoted
  case "$$1" in
    *[!][[:alnum:]_./=,:@%+-]*) [ -n "$$quote" ] || COMPREPLY+=("$$(printf %q "$$1")") ;;
    *) COMPREPLY+=("$$1") ;;
  esac
}
_energy_at() {
  local word="$${COMP_WORDS[COMP_CWORD]#[\\"\\']}" command="$${COMP_WORDS[1]}"
  local head="" before asked found quote="$${COMP_WORDS[COMP_CWORD]%"$$word"}"
  COMPREPLY=()
  if [ "$$COMP_CWORD" -eq 1 ]; then
    for found in $commands; do
      [[ "$$found" == "$$word"* ]] && COMPREPLY+=("$$found")
    done
    [ "$${#COMPREPLY[@]}" -eq 1 ] && COMPREPLY=("$${COMPREPLY[*]} ")
  else
    asked="$$word"
    if [[ "$$word" == *=*[,[]* ]]; then  # -m reg=none,der and callbacks=[default,ema]
      head="$${word%"$${word##*[,[]}"}"
      asked="$${word%%=*}=$${word##*[,[]}"
    fi
    before="$${COMP_WORDS[*]:2:$$((COMP_CWORD - 2))}"
    while IFS= read -r found; do
      [[ -n "$$found" && "$$found" == "$$asked"* ]] || continue
      [ -n "$$head" ] && found="$$head$${found#*=}"
      _energy_at_offer "$$found"
    done <<< "$$(COMP_LINE="energy-at $$before $$asked" \\
      "$python" -m "energy_at.$$command" -sc query=nested 2>/dev/null)"
    if [ "$${#COMPREPLY[@]}" -eq 0 ] && [[ "$$word" == *=* ]]; then  # run=FOLDER
      asked="$${word#*=}"
      for found in "$${asked/#\\~/$$HOME}"*; do
        [ -e "$$found" ] && _energy_at_offer "$${word%%=*}=$$found"
      done
    fi
  fi
}
COMP_WORDBREAKS=$${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _energy_at energy-at
""")
SHELLS = {"bash": "", "zsh": "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"}


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        # What launchers and further GPUs start again is then the command itself.
        os.execv(sys.executable, [sys.executable, "-m", f"energy_at.{name}", *arguments])
    elif name == "completion":
        _print(completion(*arguments[:1]))
    elif name in ("-h", "--help"):
        _print(listing() + "\n")
    elif name == "--version":
        _print(f"energy_at {__version__}\n")
    else:
        sys.exit(f"error: the command {name} must be {one_of(*COMMANDS).broken_by(name)}")


def _print(text: str) -> None:
    """Prints, and ends in one line on a full device, in silence for a reader that has closed."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end
        closed = isinstance(error, BrokenPipeError)
        sys.exit(128 + signal.SIGPIPE if closed else f"error: standard output: {error.strerror}")


def listing() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    usage = "energy-at COMMAND [KEY=VALUE ...], or python -m energy_at.COMMAND [KEY=VALUE ...]"
    return "\n".join([usage, "", *lines, "", "energy-at COMMAND --help prints every key."])


def completion(shell: str = "bash") -> str:
    """A script for the shell; the answers come from Hydra."""
    if shell not in SHELLS:
        sys.exit(f"error: completion {shell} must be one of {', '.join(SHELLS)}")
    script = COMPLETION.substitute(commands=" ".join(COMMANDS), python=sys.executable)
    return SHELLS[shell] + script


if __name__ == "__main__":
    main()
