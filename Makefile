# Every target makes .venv from pyproject.toml if it is not there yet, and uses it again if it is.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
DEMO := runs/demo
SEED ?= 0
TRAIN := $(PY) -m energy_at.train experiment=demo seed=$(SEED)
STAMP := $(VENV)/.installed
CPU_INDEX := https://download.pytorch.org/whl/cpu
PINNED := $(if $(LOCKED),-c requirements.lock)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-faults gpu lint docs lock clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## Set up .venv; CPU=1 takes PyTorch for the CPU, LOCKED=1 the versions of requirements.lock

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "energy_at needs Python >= 3.11: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(if $(CPU),$(PY) -m pip install --quiet $(PINNED) --index-url $(CPU_INDEX) torch torchvision)
	$(PY) -m pip install --quiet $(PINNED) -e ".[dev]"
	touch $@

demo: install ## Catastrophic overfitting without DER and training with it, on embedded images (< 4 min)
	rm -rf $(DEMO)
	@$(PY) scripts/demo_verdict.py
	@echo "Two trainings side by side, one core each; the bar is that of the one with DER."
	@export OMP_NUM_THREADS=1; \
	$(TRAIN) reg=none hydra.run.dir=$(DEMO)/fgsm_at trainer.enable_progress_bar=false >/dev/null & \
	plain=$$!; \
	$(TRAIN) reg=der reg.ramp=2 hydra.run.dir=$(DEMO)/fgsm_at_der || { kill $$plain; exit 1; }; \
	wait $$plain
	$(PY) -m energy_at.report 'runs=[$(DEMO)/fgsm_at,$(DEMO)/fgsm_at_der]' out=$(DEMO)
	@$(PY) scripts/demo_verdict.py $(DEMO)/fgsm_at $(DEMO)/fgsm_at_der

test: install ## Run the tests, one process a core (< 8 min on two cores)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n auto --maxprocesses 8 --dist loadgroup

test-slow: install ## Run the tests that take minutes
	$(PY) -m pytest -m slow

test-faults: install ## Kill commands and fill their disk at any write; the table goes to docs/faults.md
	OMP_NUM_THREADS=1 FAULTS_TABLE=$(CURDIR)/docs/faults.md $(PY) -m pytest -m slow tests/test_faults.py

gpu: install ## Run the benchmark and the study at full size; re-run to resume
	PYTHON=$(PY) bash scripts/gpu_study.sh

lint: install ## Check style, types, layers, the words of the prose and the configuration reference
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) scripts/check_language.py
	$(PY) scripts/configuration_reference.py --check

# Not --quiet, which hides the warnings from --strict too.
docs: install ## Build the documentation site in site/; a broken link or a missing docstring fails
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

lock: install ## Write requirements.lock from pyproject.toml
	$(PY) -m pip install --quiet uv
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--quiet --upgrade -o requirements.lock

clean: ## Remove .venv and caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
