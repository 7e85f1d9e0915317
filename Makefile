# Everything is installed into .venv, in the versions of constraints.txt. `make help` lists what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Processes that run tests: as many as there are cores, at most four (each holds about 1 GB).
JOBS   ?= auto

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Where the results of `make gpu` go, and a folder of wheels that were brought along for it.
OUT    ?= runs/gpu
WHEELS ?=

.PHONY: help demo demo-text test quick extras check gpu format clean

help:
	@echo "make demo       install, then distil, compare, export and report on handwritten digits"
	@echo "make demo-text  the same on texts"
	@echo "make test       install, then run all tests"
	@echo "make quick      only the fast tests; ARGS='-k logits' chooses"
	@echo "make extras     install ray, bitsandbytes and deepspeed too, and run the tests that need them (minutes)"
	@echo "make check      lint, types, and which module may import which"
	@echo "make gpu        what has to hold on a GPU, and how fast it is, in at most 8 minutes; ARGS=--small tries it on a processor"
	@echo "make format     put right what the linter can put right by itself"
	@echo "make clean      remove .venv and the tools' caches (runs/ stays)"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter of .venv; JOBS=1 runs the tests in one process"

demo: $(VENV)/onnx
	$(BIN)/stilla demo

demo-text: $(VENV)/onnx
	$(BIN)/stilla demo text

# One thread each: more only make tiny models slower.
test quick: export OMP_NUM_THREADS ?= 1
TESTS = $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/dev
	$(TESTS) $(ARGS)

quick: $(VENV)/dev
	$(TESTS) -m "not slow" $(ARGS)

extras: export OMP_NUM_THREADS ?= 1
extras: $(VENV)/dev $(VENV)/ray $(VENV)/4bit $(VENV)/deepspeed
	$(BIN)/python -m pytest tests/teachers/test_spread.py tests/tasks/language/test_causal_lm.py tests/equivalence/test_sharded.py \
		tests/test_launch.py -k "workers or four_bits or deepspeed" $(ARGS)

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Installs nothing from a registry: Python with its packages is .venv where there is one, else $(PYTHON) as it is.
GPU_PYTHON = $(or $(wildcard $(BIN)/python),$(PYTHON))
gpu: export HF_HUB_OFFLINE = 1
gpu: export TOKENIZERS_PARALLELISM = false
gpu:
	@mkdir -p $(OUT)/packages
	$(if $(WHEELS),$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(OUT)/packages $(WHEELS)/*.whl)
	PYTHONPATH=src:$(OUT)/packages:$$PYTHONPATH $(GPU_PYTHON) -m benchmarks.gpu --out $(OUT) $(ARGS)

format: $(VENV)/dev
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# What is installed is marked by a file, so that it happens once, and again when the requirements change.
$(VENV)/onnx $(VENV)/dev $(VENV)/ray $(VENV)/4bit $(VENV)/deepspeed: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$(@F)]'
	@touch $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and \
	$(PYTHON) is %d.%d. Choose another: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }
