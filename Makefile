# Every target makes its own environment in .venv where there is none.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: demo test docs notebooks

.venv/.installed: settings.ini setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[docs]'
	touch $@

demo: .venv/.installed  ## Pretrain on the packaged videos and draw what was learned, in at most ten minutes on two cores
	OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore::FutureWarning $(BIN)/prp-demo demo

test: .venv/.docs  ## Notebooks clean and in step with the library, then their examples, then the tests
	$(BIN)/python tests/in_step.py
	OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore $(BIN)/nbdev-test --n-workers 2 --timing
	OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 25

docs: .venv/.docs  ## The documentation site, in _docs; a warning is an error
	PYTHONWARNINGS=ignore $(BIN)/python docs/build.py --strict

notebooks: .venv/.installed  ## Run all notebooks but the one that needs UCF101, and keep what they show
	PYTHONWARNINGS=ignore $(BIN)/jupyter execute --inplace $(filter-out nbs/tutorials/pretrain_ucf101.ipynb,$(wildcard nbs/*.ipynb nbs/tutorials/*.ipynb))
	$(BIN)/python docs/pictures.py
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export
	$(BIN)/python docs/readme.py
	$(BIN)/python docs/sidebar.py
