# Every target works from a fresh clone: it makes its own .venv if there is none, with uv when that is
# installed and with pip otherwise.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo docs test test-slow test-properties lint format bench notebooks pretrained clean

demo: $(READY)  ## simulate noisy phase maps, refine them, report
	mkdir -p demo-output
	$(BIN)/refinejax simulate metalens --count 64 --size 64 --noise field,sinusoid,grain,dead \
		--error 0.05 --seed 1 --output demo-output/maps.npz
	$(BIN)/refinejax metalens demo-output/maps.npz --output demo-output/refined.npz \
		--report demo-output/report

test: $(READY)  ## everything but the tests marked slow
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not notebook"

PART ?= tests

# Nightly: about two hours on two cores, most of it the laws of every pair of refiner and problem.
# In parts: make test-slow PART=tests/batch
test-slow: $(READY)  ## the tests marked slow, of PART
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow $(PART)

# Nightly, about five minutes.
test-properties: $(READY)  ## 2,000 drawn fits, others each time
	$(BIN)/python -m pytest -n 2 --dist loadgroup --hypothesis-profile nightly tests/properties

lint: $(READY)  ## style, format, types, layers, fresh tables, docstrings of public names
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks.tables --check
	$(BIN)/python docs/check_docstrings.py

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

notebooks: $(READY)  ## run them all, the README and the code of the docs; outputs go to docs/_executed
	EXECUTED_NOTEBOOKS=docs/_executed $(BIN)/python -m pytest -n 0 -m notebook

docs: $(READY)  ## the site in docs/_build/html; notebooks are executed unless `make notebooks` has done so
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: .venv/.bench  ## all benchmarks in full, then the tables of the documentation
	$(BIN)/python -m benchmarks run --results benchmarks/results
	$(BIN)/python -m benchmarks.meta._picture
	$(BIN)/python -m benchmarks.tables

METALENS := refinejax/apps/metalens
# kind of training, configuration, folder of models
PRETRAINED := predictor:$(METALENS)/configs/metalens_predictor:$(METALENS)/pretrained \
	refiner:$(METALENS)/configs/metalens_update:$(METALENS)/pretrained \
	refiner:refinejax/configs/damped_sine_damping:refinejax/_pretrained

pretrained: $(READY)  ## train the models that come with the package
	for model in $(PRETRAINED); do \
		set -- $$(echo $$model | tr : ' '); kind=$$1; config=$$2; folder=$$3; \
		name=$$(basename $$config); \
		$(BIN)/refinejax train $$kind --config $$config.toml --output training/$$name \
		&& rm -rf $$folder/$$name \
		&& cp -r training/$$name/model $$folder/$$name || exit 1; \
	done

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12")'
	@if command -v uv > /dev/null; then \
		test -d .venv || uv venv --python $(PYTHON) .venv; \
		uv pip install --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
		test -d .venv || $(PYTHON) -m venv .venv; \
		$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	@touch $@

clean:
	rm -rf .venv demo-output docs/_build docs/_executed docs/api training .pytest_cache .ruff_cache .import_linter_cache
