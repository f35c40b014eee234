# The front door. `make` says what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ENGINE := $(PYTHON) -m lab.engine
# The lab and its tests start thousands of processes. Without bytecode files, each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:
	@echo "socketlab: every way to serve a socket in Python, behind one protocol. README.md says more."
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2} /^## /{printf "\n%s\n", substr($$0, 4)}' Makefile

## Start here
.PHONY: demo test test-distro test-packages engine install
demo: .venv/lab.stamp ## the lab at work: up, check, load, one table, down
	@$(ENGINE) ensure && $(ENGINE) base || [ $$? -eq 3 ]
	@$(BIN)/lab demo

# Seconds for planting faults in changed modules before the tests; empty: none.
MUTANT_SECONDS ?= 60
# Processes that run tests. They wait more than they compute.
WORKERS ?= 6
PYTEST = LAB_REQUIRE_DOCKER=1 $(BIN)/python -m pytest
# With RETRY=1, tests that failed beside others (pytest's exit code 1) run once more, one after the other. pytest then lists
# those that pass as PASSED: they depend on how busy the machine is, which is a fault of theirs.
RETRY ?=
ONCE_MORE = { code=$$?; [ $$code = 1 ] || exit $$code; echo "once more, one after the other:"; \
  $(PYTEST) -rfEp --last-failed --last-failed-no-failures none $(TESTS); }
test: .venv/dev.stamp ## every test, on processes and on containers (TESTS=tests/services/protocol: a part)
	@$(ENGINE) ensure && $(ENGINE) base
	@$(if $(TESTS),,$(if $(MUTANT_SECONDS),$(BIN)/python -m tools.mutants --changed --seconds $(MUTANT_SECONDS)))
	@$(PYTEST) --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder $(TESTS)$(if $(RETRY), || $(ONCE_MORE))

# Builds of Python differ in what they leave to OpenSSL, so the interpreter that most machines have is tried as well.
DISTRO_PYTHON ?= /usr/bin/python3
DISTRO := .venv/distro/bin/python
test-distro: ## the conformance suite, on processes of the distribution's own python3 (MODELS="prefork trio_nursery": these)
	@$(DISTRO_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "test-distro needs a $(DISTRO_PYTHON) of 3.11 or later")'
	@[ -x $(DISTRO) ] || $(DISTRO_PYTHON) -m venv .venv/distro || { rm -rf .venv/distro; exit 2; }
	@$(DISTRO) -m pip install --quiet --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/lab.txt
	@$(DISTRO) -m lab --backend process --project distro check $(MODELS)

SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)
test-packages: ## Debian or Ubuntu: install strace for test, and the distribution's own python3 for test-distro
	@$(SUDO) apt-get update --quiet --quiet && $(SUDO) apt-get install --yes --quiet --quiet --no-install-recommends python3-venv strace

engine: ## root, Debian or Ubuntu: install and start what is missing of Docker
	@$(ENGINE) install
	@$(ENGINE) base

install: .venv/dev.stamp ## .venv, with all that the lab and its tests need

## The lab, piece by piece
.PHONY: up down ps logs shell check doctor
up: .venv/lab.stamp ## start every model; ready when each has answered
	@$(BIN)/lab up

down: .venv/lab.stamp ## take the lab down; nothing is left
	@$(BIN)/lab down

ps: .venv/lab.stamp ## the models, and where they listen
	@$(BIN)/lab ls

logs: .venv/lab.stamp ## what the models have written
	@$(BIN)/lab logs

shell: .venv/lab.stamp ## a shell inside the network: redis-cli, redis-benchmark, nc, curl, openssl, lftp, telnet
	@$(BIN)/lab shell

check: .venv/lab.stamp ## the conformance suite, as a table
	@$(BIN)/lab check

doctor: .venv/lab.stamp ## check this machine, and say how to fix what is missing
	@$(BIN)/lab doctor

## The gallery
.PHONY: tour gallery xray
tour: .venv/lab.stamp ## network modules of the standard library, old and new, against real servers
	@$(ENGINE) ensure && $(ENGINE) base
	@$(BIN)/lab tour --all

xray: .venv/lab.stamp ## record the scenes of docs/models/ again, on an idle machine (MODELS="a b": some of them)
	@$(BIN)/python -m tools.docs.record_xray $(MODELS)
	@$(MAKE) --no-print-directory docs

gallery: .venv/lab.stamp ## record the tour again, for docs/gallery/
	@$(ENGINE) ensure && $(ENGINE) base
	@$(BIN)/python -m tools.docs.record_gallery

## Load
.PHONY: load swarm-demo nogil bench bench-quick bench-hold baseline bench-models bench-parser bench-up
load: .venv/lab.stamp ## every model up, and Locust's web UI on 127.0.0.1:8089
	@$(BIN)/lab up
	@$(BIN)/lab load

swarm-demo: .venv/lab.stamp ## the stack for several machines, on a swarm of this one alone; nothing of it is left
	@$(ENGINE) ensure && $(ENGINE) base
	@$(BIN)/python -m tools.swarm_demo

nogil: .venv/lab.stamp ## threads with the GIL and without it, in turns (the first time builds a Python: 20 min on two cores)
	@$(ENGINE) ensure && $(ENGINE) base
	@$(BIN)/python -m benchmarks.nogil

bench-models: .venv/lab.stamp ## the figures of docs/models/: run it on an idle machine
	@$(ENGINE) ensure && $(ENGINE) base
	@$(BIN)/lab bench $$($(BIN)/python -m tools.docs.measured --models) --quick \
	    --workloads session,pipeline_16,http_ping --rounds 5 --duration 3s
	@$(BIN)/python -m tools.docs.measured

bench: .venv/lab.stamp ## compare all models under each workload, with intervals and verdicts (about ten minutes)
	@$(ENGINE) ensure && $(ENGINE) base || [ $$? -eq 3 ]
	@$(BIN)/lab bench

bench-quick: .venv/lab.stamp ## the same, one kind of work and no sweep
	@$(ENGINE) ensure && $(ENGINE) base || [ $$? -eq 3 ]
	@$(BIN)/lab bench --quick

bench-hold: .venv/lab.stamp ## bench-quick, held to benchmarks/baseline.json: did a model get more expensive than the others?
	@$(ENGINE) ensure && $(ENGINE) base || [ $$? -eq 3 ]
	@$(BIN)/lab bench --quick && $(BIN)/lab compare baseline latest

baseline: .venv/lab.stamp ## update benchmarks/baseline.json; use an idle machine
	@$(ENGINE) ensure && $(ENGINE) base
	@$(BIN)/lab bench --quick --rounds 7
	@$(BIN)/lab bench --show latest --export baseline > results/baseline.json
	@mv results/baseline.json benchmarks/baseline.json

bench-parser: .venv/dev.stamp ## compare our parser with hiredis
	@$(BIN)/python -m benchmarks.parser

bench-up: .venv/dev.stamp ## compare `lab up` with `docker compose up -d`
	@$(BIN)/python -m benchmarks.up

## Break it
.PHONY: faults soak fuzz audit
faults: .venv/lab.stamp ## break every model under load in sixteen ways, and account for every request
	@$(BIN)/lab faults

soak: .venv/lab.stamp ## ten minutes (MINUTES=60) of mixed load and hostile clients: does anything grow?
	@$(ENGINE) ensure && $(ENGINE) base || [ $$? -eq 3 ]
	@$(BIN)/lab soak --duration $(or $(MINUTES),10)m

fuzz: .venv/dev.stamp ## the core (RUNS=1000000), its parser of HTTP beside others (CASES=100000), each model live (INPUTS=10000)
	@mkdir -p results/fuzz/new results/fuzz/http_new
	@$(BIN)/python -m fuzz.campaign -runs=$(or $(RUNS),1000000) -timeout=10 -max_len=200 -dict=fuzz/resp.dict \
	  -artifact_prefix=results/fuzz/ results/fuzz/new fuzz/corpus
	@$(BIN)/python -m fuzz.http_campaign -runs=$(or $(RUNS),1000000) -timeout=10 -max_len=300 -dict=fuzz/http.dict \
	  -artifact_prefix=results/fuzz/ results/fuzz/http_new fuzz/http_corpus
	@$(BIN)/python -m fuzz.http_differential --cases $(or $(CASES),100000)
	@$(BIN)/python -m fuzz.live --inputs $(or $(INPUTS),10000)

audit: ## whether a known vulnerability is in what is locked; asks a public service, and is in no other target
	@[ -x .venv/audit/bin/pip-audit ] || { $(PYTHON) -m venv .venv/audit && \
	  .venv/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit/audit.txt; }
	@for lock in requirements/*.txt; do \
	  echo "$$lock"; .venv/audit/bin/pip-audit --strict --disable-pip --require-hashes -r $$lock || exit; \
	done

## Change it
.PHONY: mutants coverage lint types fmt hooks docs site screenshot lock clean
mutants: .venv/dev.stamp ## plant faults in the code that carries figures: which does no test notice? (MODULES=bench: a part)
	@$(BIN)/python -m tools.mutants $(MODULES)

# Where no engine answers, the tests that need one are left out. pyproject.toml has the floor.
coverage: .venv/dev.stamp ## which lines the tests run, in all processes (TESTS=tests/services/protocol: a part); results/coverage/html
	@rm -rf results/coverage && mkdir -p results/coverage
	@set --; docker version >/dev/null 2>&1 && export LAB_REQUIRE_DOCKER=1 || set -- -m "not docker"; \
	  $(BIN)/python -m coverage run -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder "$$@" $(TESTS)
	@# A process that was killed as it began to write leaves an empty file.
	@find results/coverage -name "data.*" -empty -delete
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage html --quiet --directory results/coverage/html
	@$(BIN)/python -m coverage report $(if $(TESTS),--fail-under 0)

lint: .venv/dev.stamp ## style, spelling, imports between layers, and the CI workflow
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/codespell
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/zizmor --offline --quiet .github

types: .venv/dev.stamp ## types, in strict mode
	@$(BIN)/mypy

hooks: .venv/dev.stamp ## run lint and types before each commit (git hook, by pre-commit)
	@$(BIN)/pre-commit install

fmt: .venv/dev.stamp ## format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: .venv/lab.stamp ## write the generated parts of docs/: tables, code, figures, recordings
	@$(BIN)/python -m tools.docs.models_page
	@$(BIN)/python -m tools.docs.scenes
	@$(BIN)/python -m tools.docs.gallery_page
	@$(BIN)/python -m tools.docs.commands
	@$(BIN)/python -m tools.docs.http_servers

site: .venv/lab.stamp .venv/docs.stamp ## the documentation as a static site: results/site, which needs no network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m tools.docs.site

screenshot: .venv/lab.stamp ## update docs/load.png: Locust's web UI in a real browser (builds an image of 0.9 GB once)
	@$(ENGINE) ensure && $(ENGINE) base
	@$(BIN)/python -m tools.screenshot

# The extras that models need, which are all but these two; and what one of them asks for.
PROJECT = import sys, tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
MODEL_EXTRAS = $(shell $(PYTHON) -c '$(PROJECT); print(*sorted({*extras} - {"dev", "parquet"}))')
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)
lock: .venv/dev.stamp ## lock what is installed, with hashes (UPGRADE=--upgrade: newer)
	$(COMPILE) pyproject.toml $(MODEL_EXTRAS:%=--extra %) -o requirements/lab.txt
	$(COMPILE) pyproject.toml --all-extras -c requirements/lab.txt -o requirements/dev.txt
	@# A model's image gets the extra and nothing else: the project's other dependencies have no place there.
	for extra in $(MODEL_EXTRAS); do \
	  $(PYTHON) -c '$(PROJECT); print(*extras[sys.argv[1]], sep="\n")' $$extra | \
	  $(COMPILE) - -c requirements/lab.txt -o requirements/$$extra.txt || exit; \
	done
	@# Servers that run beside the models, each alone in its image.
	for wanted in requirements/servers/*.in; do \
	  $(subst --python-version 3.11,--python-version 3.13,$(COMPILE)) $$wanted -c requirements/lab.txt \
	    -o $${wanted%.in}.txt || exit; \
	done
	@# In a separate environment: the checker must not be part of what it checks.
	echo pip-audit | $(COMPILE) - -o requirements/audit/audit.txt
	echo mkdocs-material | $(COMPILE) - -o requirements/docs/docs.txt

clean: .venv/lab.stamp ## remove what this lab has left, and .venv (ALL=1: every lab of this machine, and the images; YES=1: unasked)
	@$(BIN)/lab clean $(if $(ALL),--all) $(if $(YES),--yes)
	rm -rf .venv

# What runs the lab; then what tests and changes it. Nothing is compiled beforehand: most of it is never imported.
# Where packages come from is a person's own affair; settings that would put them elsewhere are left out.
PIP_MOVES = TARGET PREFIX ROOT DRY_RUN REQUIRE_HASHES NO_BUILD_ISOLATION CONSTRAINT
PIP = env $(PIP_MOVES:%=-u PIP_%) PIP_USER=0 $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile
.venv/lab.stamp: requirements/lab.txt pyproject.toml
	@echo "installing what the lab needs into .venv ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "socketlab needs Python 3.11 or later; name one: make PYTHON=python3.13 ...")'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	@$(PIP) --require-hashes -r requirements/lab.txt
	@# A plain path entry: an import finder would cost each start of `lab` 10 ms.
	@$(PIP) --no-deps --config-settings editable_mode=compat --editable .
	@touch $@

.venv/dev.stamp: .venv/lab.stamp requirements/dev.txt
	@echo "installing what its tests need into .venv ..."
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

.venv/docs.stamp: .venv/lab.stamp requirements/docs/docs.txt
	@[ -x .venv/docs/bin/python ] || $(PYTHON) -m venv .venv/docs
	@.venv/docs/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r requirements/docs/docs.txt
	@touch $@
