# What a person types. `make install` makes .venv, which every other target uses; nothing else has to be activated.
# PYTHON is only used to make .venv; the workflow's own settings are in config/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) --show-failed-logs
RESULTS := results/apps_eval.csv results/differences.csv
ABLATIONS := $(patsubst %,results/mini/tables/%.md,goals table2 table3 table4 table5 figure8 follow_ups) results/mini/tables/figure8.svg

.DEFAULT_GOAL := help
.PHONY: help install mini mini-seeds ablations smoke test check unit-test slow-test docker-test slurm-test dvc-test schema dvc record adopt pull constraints clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(VENV)/installed ## make .venv with everything in it

# Torch alone first: pip then takes the build that is at hand (a CPU one, say), and the rest is fitted to it.
$(VENV)/installed: pyproject.toml constraints.txt src/coderl/sandbox/inside/_loop.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; say which: make install PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,workflow,report,hub,lora,gguf,docker,dev]'
	touch $@

mini: install ## the whole pipeline on two cores, and its table
	$(SNAKEMAKE) all
	$(BIN)/coderl show results/apps_eval.csv

mini-seeds: install ## the mini run with three seeds, and intervals over them
	$(SNAKEMAKE) --config 'runs=[mini,mini-seed2,mini-seed3]' -- all
	$(BIN)/coderl show results/apps_eval.csv

ablations: install ## small versions of the paper's tables 2 to 5 and figure 8 over three seeds, and the numbers of docs/results.md
	$(SNAKEMAKE) -- $(ABLATIONS)
	$(BIN)/python workflow/scripts/results_page.py

smoke: install ## every stage in about three minutes; its numbers mean nothing
	$(SNAKEMAKE) --config 'runs=[smoke]' -- all

test: check unit-test ## all checks and all quick tests

unit-test: install
	$(BIN)/pytest

slow-test: install ## the tests that take more than a minute
	$(BIN)/pytest -m slow

docker-test: install ## the Docker backend on a real engine: installs (Debian), starts and stops it; needs root, or DOCKER_HOST
	bash workflow/containers/docker_test.sh

slurm-test: install ## the smoke run through a real Slurm on this machine, a training killed on the way (root, Debian)
	$(BIN)/python tests/slurm/run.py

dvc-test: install ## both engines on one small run, in scratch clones: what reruns, and what does not
	$(BIN)/pytest -m dvc -x -s

check: install ## lint, format, types, imports, and generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/coderl schema | diff workflow/schemas/config.schema.yaml - || { echo 'error: run `make schema`'; exit 1; }
	$(BIN)/python workflow/scripts/config_reference.py --check
	$(BIN)/python workflow/scripts/dvc_stages.py --check
	$(BIN)/python workflow/scripts/results_page.py --check

schema: install ## generate the schema and the reference of config/README.md from the configuration models
	$(BIN)/coderl schema > workflow/schemas/config.schema.yaml
	$(BIN)/python workflow/scripts/config_reference.py

dvc: install ## generate dvc.yaml from the Snakemake rules
	$(BIN)/python workflow/scripts/dvc_stages.py

record: install ## DVC takes over what snakemake has made
	$(BIN)/python workflow/scripts/dvc_sync.py record

adopt: install ## snakemake takes over what dvc has placed
	$(BIN)/python workflow/scripts/dvc_sync.py adopt

pull: install ## dvc pull, then adopt
	$(BIN)/python workflow/scripts/dvc_sync.py pull

constraints: install ## resolve the dependencies anew (needs uv)
	uv pip compile pyproject.toml --universal --all-extras --python-version 3.11 --no-annotate --no-header --upgrade -o constraints.txt

clean: ## remove results, logs and checkpoints, not .venv
	rm -rf results logs work
