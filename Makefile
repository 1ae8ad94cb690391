# make demo            try mkiso: one disc made, proved and listed, one printed
# make demo KEEP=1     the same, and leave everything running to click through
# make test            everything: lint, types, contracts, unit, peers, end to end
# make test-unit       the unit tests alone (a few minutes; no other program needed)
# make lint            lint, types and contracts alone
# make coverage        all tests once more, and which lines none of them runs; nearly twice the time
# make oldest          all tests, without lint and types, with the oldest versions of what mkiso needs that pyproject.toml takes
# make bench           measure mkiso beside dcmtk and genisoimage
# make soak            mixed jobs with faults for an hour; MINUTES=5 for less
# make mutants         change in one place at a time what decides whether a disc leaves, and see whether a test notices
# make fuzz            ten minutes of coverage-guided fuzzing for each thing that the receiver reads of a peer; MINUTES=1 for less
# make docs            draw the picture of the rooms anew, and the tables that say what the code says
# make messages        bring the catalogues of translations up to date, and name what is to be translated
# make screenshots     the pictures of the README: runs the demo and Chromium
# make clean           remove what these commands made
# make help            these lines
#
# PYTHON=python3.12 chooses an interpreter; WORKERS=6 how many tests run at once: twice as many as processors, since they wait half of the time.

PYTHON  = python3
WORKERS = 4
MINUTES = 60
VENV    = .venv
BIN     = $(VENV)/bin
PYTEST  = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SOURCES = $(shell find mkiso mkiso_service flows tasks -type f ! -name '*.pyc')

# Where it is set, each process of the tests would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test pytest test-unit lint coverage oldest bench soak mutants fuzz docs messages screenshots clean packages

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

demo: $(VENV)/.installed
	@$(BIN)/mkiso demo $(if $(KEEP),--keep)

test: lint pytest

pytest: $(VENV)/.installed packages
	$(PYTEST)

# Every process of mkiso is traced, too.
coverage: PYTEST += --cov --cov-append --cov-report=
coverage: $(VENV)/.installed packages
	@rm -f .coverage .coverage.*
	$(PYTEST)
	$(BIN)/coverage report --skip-covered --sort=cover

oldest:
	@OLDEST=1 $(MAKE) pytest VENV=.venv-oldest

test-unit: $(VENV)/.installed
	$(PYTEST) -m 'not peer and not end_to_end' --ignore tests/webhook --ignore tests/archive --ignore tests/faults

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed packages
	$(BIN)/python -m bench

soak: $(VENV)/.installed packages
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

mutants: $(VENV)/.installed
	$(BIN)/python -m bench.mutation

fuzz: MINUTES = 10
fuzz: $(VENV)/.installed
	$(BIN)/python -m fuzzing --minutes $(MINUTES)

docs: $(VENV)/.installed
	$(BIN)/python -m documentation.architecture
	$(BIN)/python -m documentation.reference

messages: $(VENV)/.installed
	$(BIN)/python -m documentation.messages

screenshots: $(VENV)/.installed packages
	$(BIN)/python -m documentation.screenshots

# Debian's programs that the tests and the benchmark drive; installed where they are missing.
packages:
	@.ci/packages

clean:
	rm -rf $(VENV) .venv-oldest build *.egg-info demo-data .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Dependencies follow pyproject.toml; a change of a source file alone installs that alone, without the network.
$(VENV)/.dependencies: pyproject.toml .ci/venv
	@.ci/venv $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	@echo "Installing mkiso itself (some seconds) …"
	@rm -rf build
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build
	@touch $@
