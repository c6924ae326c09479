# Everything a contributor does. Each target does the set-up it needs; stamps in .venv remember what is done.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-matrix test-properties test-all test-frameworks test-peers test-gpu chaos fuzz audit borders lint types dist schema lock clean

# Machines that write no bytecode would compile all of src/ and tests/ again in each of the hundreds of processes below.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

.venv/made.stamp: scripts/make_venv.sh
	@scripts/make_venv.sh && touch $@

.venv/packages.stamp: .venv/made.stamp requirements/dev.txt
	@scripts/install_packages.sh && touch $@

.venv/lakemill.stamp: .venv/packages.stamp pyproject.toml
	@.venv/bin/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e . && touch $@

.venv/java.stamp: .venv/lakemill.stamp
	@scripts/ensure_java.sh
	@.venv/bin/python -m lakemill.engines.spark.delta_jars && touch $@

setup: .venv/java.stamp ## .venv with the pinned packages, Java 17, Delta's jars
	@:

demo: .venv/lakemill.stamp ## images to predictions, on handwritten digits, into ./lake; needs no Java
	@.venv/bin/lakemill demo

.venv/browser.stamp: .venv/java.stamp
	@scripts/ensure_browser.sh && touch $@

.venv/classes.stamp: .venv/java.stamp
	@echo "Preparing a faster start of Spark, once (its own words: .venv/classes.log)"
	@.venv/bin/python -m lakemill.predict.class_archive >.venv/classes.log 2>&1 || echo "Java made no archive of its classes: Spark starts as slowly as ever"
	@touch $@

test: setup .venv/browser.stamp .venv/classes.stamp ## the tests, also on a small Spark cluster and in a browser
	@$(PYTEST)

test-unit: .venv/lakemill.stamp ## what needs neither Java nor a process of its own: the tests to run while writing
	@$(PYTEST) tests/unit

test-matrix: setup .venv/classes.stamp ## what both engines mean alike, on Spark too
	@$(PYTEST) -m matrix

test-properties: .venv/lakemill.stamp ## whatever happens to tables, jobs and checkpoints, 40 times (LAKEMILL_EXAMPLES=200 for more)
	@LAKEMILL_EXAMPLES=$${LAKEMILL_EXAMPLES:-40} $(PYTEST) $(PROPERTIES)

PROPERTIES := tests/local/test_upsert_events.py tests/local/test_progress_events.py tests/both/predict/test_ownership_events.py

test-all: ## all tests: the same, the matrix, properties, frameworks, peers, 20 kills
	@$(MAKE) --no-print-directory test test-matrix test-properties test-frameworks test-peers
	@$(MAKE) --no-print-directory chaos KILLS=20

.venv-frameworks/made.stamp: .venv/lakemill.stamp requirements/frameworks.in
	@scripts/make_frameworks_venv.sh && touch $@

test-frameworks: setup .venv-frameworks/made.stamp ## tests with PyTorch and TensorFlow, in an environment of their own (7 GB)
	@ls tests/frameworks/test_*.py | xargs -n 1 -P 2 .venv-frameworks/bin/python -m pytest -q  # a process each: torch and TensorFlow do not stand each other

.venv-mds/made.stamp: .venv-frameworks/made.stamp requirements/mds.in requirements/petastorm.in
	@scripts/make_peers_venvs.sh && touch $@

test-peers: setup .venv-mds/made.stamp ## what petastorm and MosaicML Streaming read of ours, each in an environment of its own
	@.venv/bin/python -m pytest tests/peers/test_petastorm.py
	@.venv-mds/bin/python -m pytest tests/peers/test_mds.py

test-gpu: setup .venv-frameworks/made.stamp ## what needs a GPU, on a machine that has one
	@.venv-frameworks/bin/python -m pytest tests/gpu

KILLS := 100
chaos: setup .venv/classes.stamp ## kill a running job at 100 random times (KILLS=20 for fewer), and count what is lost or doubled
	@.venv/bin/python -m tests.chaos.random_kills --kills $(KILLS)

FUZZ := 2000
fuzz: .venv/lakemill.stamp ## mutated images, model folders, jobs' YAML and paths through all that reads them (FUZZ=100000 for more)
	@.venv/bin/python -m tests.fuzz.images --count $(FUZZ)
	@.venv/bin/python -m tests.fuzz.run_texts --count $(FUZZ)

audit: .venv/made.stamp ## known vulnerabilities of the pinned packages, and a bill of materials (dist/lakemill.cdx.json)
	@scripts/audit.sh

borders: setup ## what imports what, and what the wheel holds
	@.venv/bin/python -m pytest -q tests/unit/test_borders.py tests/unit/test_wheel.py

lint: setup ## ruff
	@.venv/bin/ruff check && .venv/bin/ruff format --check --quiet

types: setup ## mypy, strict
	@.venv/bin/mypy

dist: setup ## dist/lakemill-*.whl, and dist/lakemill.zip for spark-submit --py-files
	@scripts/build_dist.sh .venv/bin/python dist && ls dist

schema: setup ## docs/schema/*.json, from the configuration's classes
	@for job in predict ingest transform; do .venv/bin/lakemill schema $$job >docs/schema/$$job.json; done

lock: ## pin the packages again (needs uv)
	uv pip compile pyproject.toml -q --extra all --extra dev $(LOCK) -o requirements/dev.txt
	uv pip compile requirements/executor.in -q -c requirements/dev.txt $(LOCK) -o requirements/executor.txt

LOCK := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

clean: ## remove what was built; .venv and ./lake stay
	@rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse metastore_db derby.log
	@find src udfs jobs tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
