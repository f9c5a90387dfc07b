# make study   create the environment, run the whole study, print the path of the report
# make test    install what the tests need, then run them
#
# Variables:
#   PYTHON=python3   interpreter to make the environment with (3.11 or later)
#   TORCH=pinned     the torch of constraints.txt; TORCH=own: the torch that $(PYTHON) already has (e.g. for a GPU);
#                    or any requirement, e.g. TORCH='torch==2.14.1'
#   OUT=reports/study, STORE=data/study.h5   where the study goes

PYTHON ?= python3
VENV ?= .venv
TORCH ?= pinned
OUT ?= reports/study
STORE ?= data/study.h5

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: study test test-full lint types lab clean constraints

study: $(VENV)/.study
	$(BIN)/labbench study --store $(STORE) --output $(OUT)

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not full and not alone"
	$(BIN)/python -m pytest -m "not full and alone"

test-full: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/nbstripout --verify notebooks/*.ipynb

types: $(VENV)/.lint
	$(BIN)/mypy

lab: $(VENV)/.study
	$(BIN)/jupyter lab --notebook-dir=notebooks

$(VENV)/constraints.txt: constraints.txt
ifeq ($(TORCH),own)
	test -x $(BIN)/python || $(PYTHON) -m venv --system-site-packages $(VENV)
	grep -v '^torch==' constraints.txt > $@
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),pinned)
	cp constraints.txt $@
else
	grep -v '^torch==' constraints.txt > $@
	$(PIP) install --constraint $@ '$(TORCH)'
endif
endif

$(VENV)/.study: pyproject.toml $(VENV)/constraints.txt
	$(PIP) install --constraint $(VENV)/constraints.txt --editable '.[runtimes,lora]'
	touch $@

$(VENV)/.test: $(VENV)/.study .ci/apt-packages.txt
	.ci/apt-install
	$(PIP) install --constraint $(VENV)/constraints.txt --editable '.[runtimes,lora,web,test]'
	touch $@

$(VENV)/.lint: $(VENV)/.study
	$(PIP) install --constraint $(VENV)/constraints.txt --editable '.[runtimes,lora,web,test,lint]'
	touch $@

# Versions of the present environment, as the new constraints (torch without its build tag).
constraints: $(VENV)/.test $(VENV)/.lint
	$(PIP) freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' | grep -v ' @ ' > constraints.txt

clean:
	rm -rf $(VENV) reports build *.egg-info
