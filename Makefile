# Everything runs in a virtual environment of its own, made once and made anew when what it needs changes.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
READY = $(VENV)/.ready
# The same with the oldest versions that pyproject.toml allows.
OLDEST = .venv-oldest
# Two threads: what the figures were measured with, and no result depends on the machine's number of cores.
export OMP_NUM_THREADS ?= 2
# On one thread each, so two tests at a time.
PYTEST = -m pytest -q -n 2 --dist worksteal
TEST = OMP_NUM_THREADS=1 $(RUN) $(PYTEST)

.PHONY: demo test slow check types format coverage mutation oldest wheel benchmarks clean

demo: $(READY)  ## fit on real data and show what early exits save
	$(RUN) examples/01_first_steps.py

test: $(READY)  ## quick tests, doctests, README blocks and examples
	$(TEST) -m "not slow" sklearn_jeidnn tests

slow: $(READY)  ## the tests on larger real data as well
	$(TEST) sklearn_jeidnn tests

check: $(READY)  ## formatting, lint, types, benchmarks' regressions, the pages' tables, tests
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy -p sklearn_jeidnn
	$(RUN) benchmarks/check.py
	$(RUN) benchmarks/report.py docs/benchmarks.md --check
	$(MAKE) test
	@echo "check: formatting, lint, types and quick tests passed"

types: $(READY)  ## type hints
	$(RUN) -m mypy -p sklearn_jeidnn

format: $(READY)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

coverage: $(READY)  ## lines and branches that the quick tests run
	$(TEST) -m "not slow" --cov --cov-report=term-missing:skip-covered sklearn_jeidnn tests

mutation: $(READY)  ## small errors put into the code, one by one: how many do the tests notice?
	$(RUN) -m tests.mutation

oldest: $(OLDEST)/.ready  ## quick tests with the oldest versions allowed (Python 3.10 to 3.12)
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(PYTEST) -m "not slow" sklearn_jeidnn tests

wheel: $(READY)  ## build the wheel, install it into a clean environment, run the README's first block there
	rm -rf build
	$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps -w build/wheel .
	$(PYTHON) -m venv build/newcomer
	build/newcomer/bin/pip install --quiet --disable-pip-version-check -c constraints.txt build/wheel/*.whl
	awk '/^```python$$/ {on = 1; next} on && /^```$$/ {exit} on' README.md > build/newcomer/first_block.py
	cd build/newcomer && bin/python first_block.py

benchmarks: $(READY)  ## every figure of docs/benchmarks.md (about twelve hours on two cores)
	$(RUN) benchmarks/main_job.py
	$(RUN) benchmarks/cost_weights.py
	$(RUN) benchmarks/routing_speedup.py promise --threads 1 2
	$(RUN) benchmarks/routing_speedup.py companions
	$(RUN) benchmarks/routing_speedup.py tables
	$(RUN) benchmarks/routing_speedup.py large
	$(RUN) benchmarks/promise.py
	$(RUN) benchmarks/grid_search.py
	$(RUN) benchmarks/coverage.py
	$(RUN) benchmarks/deferral.py
	$(RUN) benchmarks/long_tail.py
	$(RUN) benchmarks/gates_and_calibration.py
	$(RUN) benchmarks/set_speed.py
	$(RUN) benchmarks/gate_descent.py
	$(RUN) benchmarks/exactness.py
	$(RUN) benchmarks/tied_scores.py
	$(RUN) benchmarks/paper_recipe.py
	$(RUN) benchmarks/architectures.py
	$(RUN) benchmarks/exit_heads.py
	$(RUN) benchmarks/trained_networks.py
	$(RUN) benchmarks/tables_as_they_come.py
	$(RUN) benchmarks/images.py
	$(RUN) benchmarks/slow_last_member.py
	$(RUN) benchmarks/out_of_fold_gates.py
	$(RUN) benchmarks/real_networks.py
	$(RUN) benchmarks/run_once.py
	$(RUN) benchmarks/tree_graphs.py
	$(RUN) benchmarks/memory.py
	$(RUN) benchmarks/resume.py
	$(RUN) benchmarks/low_cost_exits.py krkopt --seeds 0 1 2 3 4
	$(RUN) benchmarks/low_cost_exits.py cifar10
	$(RUN) benchmarks/low_cost_exits.py movie_reviews
	$(RUN) benchmarks/low_cost_exits.py letter
	$(RUN) benchmarks/low_cost_exits.py pendigits
	$(RUN) benchmarks/low_cost_exits.py adult
	$(RUN) benchmarks/accuracy_cost_frontier.py cifar10 --seeds 0 1 2 3 4
	$(RUN) benchmarks/accuracy_cost_frontier.py letter --seeds 0 1 2 3 4
	$(RUN) benchmarks/accuracy_cost_frontier.py adult --seeds 0 1 2 3 4
	$(RUN) benchmarks/accuracy_cost_frontier.py pendigits --seeds 0 1 2 3 4
	$(RUN) benchmarks/accuracy_cost_frontier.py krkopt --seeds 0 1 2 3 4
	$(RUN) benchmarks/accuracy_cost_frontier.py movie_reviews --seeds 0 1 2 3 4
	$(RUN) benchmarks/accuracy_cost_frontier.py --figure
	$(RUN) benchmarks/watching.py
	$(RUN) benchmarks/serving.py --export build/served
	$(RUN) benchmarks/report.py docs/benchmarks.md

$(READY): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	touch $(READY)

$(OLDEST)/.ready: pyproject.toml setup.py constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e ".[test]"
	touch $(OLDEST)/.ready

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info .coverage .pytest_cache .ruff_cache .mypy_cache
