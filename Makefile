# make demo and make test do all the set-up they need; the second time it costs nothing.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Tests run in so many processes, each file in one of them; WORKERS=0 runs them in one, as a debugger wants it.
WORKERS ?= 2
READY = $(VENV)/.ready

.PHONY: setup demo demo-ocr test test-full test-engines gate lint types clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/mend_torchvision.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "\nhint: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: this Python has no venv module"; echo "hint: on Debian and Ubuntu, apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[all]' -c constraints.txt
	$(VENV)/bin/python tools/mend_torchvision.py
	$(VENV)/bin/perpo-eval --version
	@touch $@

demo: $(READY)
	$(VENV)/bin/perpo-demo $(ARGS)

demo-ocr: $(READY)
	@$(VENV)/bin/perpo-data wordnet || true  # METEOR needs it; without it the demo says that METEOR is left out
	$(VENV)/bin/perpo-demo --task ocr $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

# The slow ones too: real runs of the demo, the wheel in an empty environment, benchmarks at full size.
test-full: $(READY)
	$(VENV)/bin/python -m pytest -m '' --timeout 3600 $(ARGS)

# A real vLLM (a build for CPUs) serves checkpoints, and answers in one process with perpo, in an environment of both.
ENGINES ?= .venv-engines
test-engines: $(READY) $(ENGINES)/.ready
	PERPO_VLLM_PYTHON=$(abspath $(ENGINES)/bin/python) $(VENV)/bin/python -m pytest -m '' --timeout 3600 tests/engines/test_vllm.py $(ARGS)

$(ENGINES)/.ready: constraints-vllm.txt pyproject.toml tools/mend_torchvision.py
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[eval]' -r constraints-vllm.txt
	$(ENGINES)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec  # built for CUDA; transformers fails beside them
	$(ENGINES)/bin/python tools/mend_torchvision.py
	@touch $@

# The embedded checkpoint against its committed record: fails where it became worse.
gate: $(READY)
	rm -rf runs/gate
	$(VENV)/bin/perpo-eval --suite paper --model tiny --data tiny --name tiny --output runs/gate/results
	$(VENV)/bin/perpo-report --baseline results/baselines --candidate runs/gate/results \
		--markdown runs/gate/report.md --junit runs/gate/report.xml --html runs/gate/report.html

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(READY)
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
