# Everything runs in .venv, made from constraints.txt (the tested freeze). pip installs without
# bytecode; the first import writes it, or each run would spend 5 s on compiling again.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
BIN := .venv/bin
SEEDS := 42,43,44

.PHONY: setup demo test check bench gpu lint faults mutants reports lab clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev,slurm]'
	touch $@

# On the CPU: on a shared machine it leaves the GPUs alone.
demo: setup
	CUDA_VISIBLE_DEVICES= $(BIN)/oelm run 'DEMO-*' --seeds $(SEEDS) --workers 2
	$(BIN)/oelm report compare

test: setup
	$(BIN)/pytest -n auto

check: setup
	$(BIN)/pytest -m slow -n 3 --dist loadfile --no-loadscope-reorder

bench: setup
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	for size in medium study; do for dropout in 0.1 0; do \
	    $(BIN)/oelm bench --size $$size --dropout $$dropout || exit 1; done; done
	for size in medium study; do $(BIN)/oelm bench --size $$size --limits || exit 1; done

# On a GPU node: uses PYTHON as it is, installs nothing. DRY=1 prints the plan.
gpu:
	@$(PYTHON) -m tests.gpu $(if $(DRY),--dry-run)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

faults: setup
	OELM_FAULTS=long $(BIN)/pytest -m 'slow or not slow' tests/faults

# Not in CI: minutes to hours. N=200 SEED=1 LIMIT=300 AREA=stats FILES=3 (tests/mutants/__main__.py)
mutants: setup
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	OMP_NUM_THREADS=1 nice $(BIN)/python -m tests.mutants

reports: demo
	$(BIN)/oelm report compare --keep

lab: setup
	$(BIN)/oelm lab

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
