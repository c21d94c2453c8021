# `make` lists what there is. Everything runs in .venv, which the first target makes.

BIN := .venv/bin
JOBS ?= 2
PORT ?= 5000
# stages are `python -m stages.x` and queue workers call `dvc`: both must come from .venv
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TORCH PYTHON
# bytecode is kept even where the shell says not to: each stage imports torch and transformers anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo repro test processors slow bench docs check format ui clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'
	@echo "  TORCH=cpu or TORCH=cuda before any of them chooses the build of torch; docs/howto/setup.md"

env:  ## make or update .venv (the others do this first)
	@sh tools/python.sh tools/setup_env.py

demo: env  ## the whole pipeline on a small task, in two minutes; nothing is downloaded
	@$(BIN)/mht demo

repro: env  ## the whole experiment: only what changed runs again
	@$(BIN)/mht check
	@$(BIN)/dvc repro
	@echo
	@echo "Done. What to look at next:"
	@echo "  reports/benchmark/report.html  the comparison, with plots and samples"
	@echo "  reports/benchmark/table.md     the table alone"
	@echo "  make ui                        every run and curve in MLflow"
	@echo "  source $(BIN)/activate         then edit params.yaml and type dvc repro"

test: env  ## the tests, without network
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

processors: env  ## tests as other processors and two threads round; TESTS=tests/algorithms/test_ppo.py for some
	@ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
	    OPENBLAS_CORETYPE=Nehalem $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(TESTS)
	@ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	    OPENBLAS_CORETYPE=Haswell $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(TESTS)
	@MHT_TEST_THREADS=2 $(BIN)/python -m pytest $(TESTS)

slow: env  ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

bench: env  ## MHT beside its peers: ratios of speed and memory, into bench/results.json
	@$(BIN)/dvc repro -q reward_model sft
	@$(BIN)/python -m bench.run $(ROWS)

docs: env  ## the documentation site, into docs/_build/html; needs no network
	@$(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

check: env  ## ruff, formatting, types, tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

format: env  ## put the code into the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

ui: env  ## MLflow on 127.0.0.1:5000 (PORT=... for another port)
	@$(BIN)/mht ui --port $(PORT)

clean:  ## remove .venv and the tools' caches; models, data and runs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mht stages tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
