# make demo, make demo-emoji: train and test on an embedded benchmark.   make test: the test suite.
# make fuzz, make chaos: changed files and killed trainings and taggings by the hundred.   All set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Large tensors of a training step on a CPU are reused instead of being mapped anew every time (glibc); a quarter faster.
export MALLOC_MMAP_THRESHOLD_ := 1073741824
export MALLOC_TRIM_THRESHOLD_ := 4294967296

.PHONY: demo demo-emoji test lint chaos fuzz clean

demo: $(VENV)/.runtime
	$(BIN)/python train.py --config_file configs/shapes.yml
	$(BIN)/python test.py --config_file configs/shapes.yml

demo-emoji: $(VENV)/.emoji
	$(BIN)/python train.py --config_file configs/emoji.yml
	$(BIN)/python test.py --config_file configs/emoji.yml

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest  # tensors are tiny: a second thread costs more than it gives

chaos: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tools/chaos.py --kills 100
	OMP_NUM_THREADS=1 $(BIN)/python tools/chaos_tagging.py --kills 100

fuzz: $(VENV)/.dev
	FUZZ_CASES=500 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz  # cases of each reader, 12,000 in all

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache

$(VENV)/.runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.emoji: requirements-emoji.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-emoji.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements-emoji.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
