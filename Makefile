# make sweep: set up and run the default sweep.  make test: set up and run the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STORE := sqlite:///$(CURDIR)/runs/mlflow.db
ARGS ?=

.PHONY: sweep test lint ui setup clean

sweep: $(STAMP)
	$(BIN)/python scripts/sweep.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The UI of the default tracking store, on loopback only. MLflow's front page does not show the runs, so their address comes first.
ui: $(STAMP)
	@mkdir -p runs
	@$(BIN)/python -c 'import sys; from idm_ray.sweep.tracking.ui import server, stored_page; \
	  print("\nin a few seconds open ", stored_page(sys.argv[1]), "\n", flush=True); server(sys.argv[1]).run()' $(STORE)

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
