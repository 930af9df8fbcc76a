# The course's commands. Windows: the same ones as `python -m xlmr_course course|test|lab|check|grade|…`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stands only after a complete installation; a half-made .venv has none and is made again.
READY := $(VENV)/.ready

.PHONY: course test lab check progress release grade notebooks lint doctor wheel clean
.DEFAULT_GOAL := course

# An environment whose Python is gone (moved folder, upgraded system) is no environment.
ifneq ($(wildcard $(READY)),)
ifneq ($(shell $(BIN)/python -c "print('ok')" 2>/dev/null),ok)
$(shell rm -f $(READY))
endif
endif

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "The course needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@test -f $@ || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $@
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,offline,dev]'
	@touch $@

course: $(READY)  ## run every chapter, write build/course/index.html, print the final table
	@$(BIN)/python -m xlmr_course course

test: $(READY)  ## package tests, strict nbval on the solutions, checks of the student editions
	@$(BIN)/python -m xlmr_course test

lab: $(READY)  ## JupyterLab on chapter 00
	@$(BIN)/python -m xlmr_course lab

check: $(READY)  ## the checks of your notebook: make check NOTEBOOK=notebooks/04_attention.ipynb
	@test -n "$(NOTEBOOK)" || { echo "Name your notebook: make check NOTEBOOK=notebooks/04_attention.ipynb"; exit 2; }
	@$(BIN)/python -m xlmr_course check "$(NOTEBOOK)"

progress: $(READY)  ## which exercises are done
	@$(BIN)/python -m xlmr_course progress

release: $(READY)  ## the folder a teacher hands out: make release CHAPTER=04 [OUT=folder]
	@test -n "$(CHAPTER)" || { echo "Name a chapter: make release CHAPTER=04"; exit 2; }
	@$(BIN)/python -m xlmr_course release --chapter "$(CHAPTER)" $(if $(OUT),--out "$(OUT)")

grade: $(READY)  ## mark a class: make grade SUBMISSIONS=folder-or-zip CHAPTER=04 [OUT=grades.csv]
	@test -n "$(SUBMISSIONS)" -a -n "$(CHAPTER)" || { echo "Name them: make grade SUBMISSIONS=folder CHAPTER=04"; exit 2; }
	@$(BIN)/python -m xlmr_course grade "$(SUBMISSIONS)" --chapter "$(CHAPTER)" --out "$(or $(OUT),grades.csv)"

notebooks: $(READY)  ## rebuild the notebooks from notebooks/source/
	@$(BIN)/python -m xlmr_course notebooks

lint: $(READY)  ## ruff over package, tests and chapter sources
	@$(BIN)/python -m xlmr_course lint

doctor: $(READY)  ## what this machine has and lacks
	@$(BIN)/python -m xlmr_course doctor

wheel: $(READY)  ## a wheel to lay next to the notebooks, for machines without a checkout
	@$(BIN)/python -m pip wheel --quiet --no-deps -w dist .
	@ls dist

clean:
	rm -rf $(VENV) build dist
