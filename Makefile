# Everything runs in a virtual environment of its own, made once and made anew when what it needs changes.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
READY = $(VENV)/.ready
# Two threads: what the figures were measured with, and no result depends on the machine's number of cores.
export OMP_NUM_THREADS ?= 2
# On one thread each, so two files at a time.
TEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadfile

.PHONY: demo test slow check format benchmarks clean

demo: $(READY)  ## fit on real data and show what early exits save
	$(RUN) examples/01_first_steps.py

test: $(READY)  ## quick tests, doctests, README blocks and examples
	$(TEST) -m "not slow" sklearn_jeidnn tests

slow: $(READY)  ## the tests on larger real data as well
	$(TEST) sklearn_jeidnn tests

check: $(READY)  ## formatting, lint, tests
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(MAKE) test

format: $(READY)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

benchmarks: $(READY)  ## every figure of the README (about twelve hours on two cores)
	$(RUN) benchmarks/main_job.py
	$(RUN) benchmarks/cost_weights.py
	$(RUN) benchmarks/routing_speedup.py promise --threads 1 2
	$(RUN) benchmarks/routing_speedup.py companions
	$(RUN) benchmarks/routing_speedup.py tables
	$(RUN) benchmarks/routing_speedup.py large
	$(RUN) benchmarks/grid_search.py
	$(RUN) benchmarks/coverage.py
	$(RUN) benchmarks/gates_and_calibration.py
	$(RUN) benchmarks/set_speed.py
	$(RUN) benchmarks/exactness.py
	$(RUN) benchmarks/paper_recipe.py
	$(RUN) benchmarks/architectures.py
	$(RUN) benchmarks/exit_heads.py
	$(RUN) benchmarks/run_once.py
	$(RUN) benchmarks/memory.py
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

$(READY): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
