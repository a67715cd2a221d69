# Every target that needs the tools makes .venv first; see tools/bootstrap. A new target goes under the heading that it
# belongs to, with `## what it does` behind it; `make help` shows that.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
export PATH := $(CURDIR)/.venv/bin:$(PATH)
FAULTS_KILLS ?= 25
# What `make molecule` runs.
SCENARIOS = pypi source constrained auto rollback brownfield conda cuda site fleet
STACK_ROOT ?= $(HOME)/.local/share/ocrfleet
SITE_ARGS = $(if $(FI_METHOD),-e fi_method=$(FI_METHOD)) $(if $(filter command line environment,$(origin STACK_ROOT)),-e stack_root=$(STACK_ROOT)) $(ANSIBLE_ARGS)
# What `make test` runs, cheapest first. A new part is a target below and its name here.
TEST_PARTS = check docs browser test-roles test-hostile test-faults molecule
# What may stand behind `make TARGET`: a misspelt one would be ignored, and the run would go another way than was asked for.
VARIABLES = FI_METHOD ANSIBLE_ARGS STACK_ROOT SCENARIO SCENARIOS TEST_PARTS FAULTS_KILLS EVIDENCE HOSTS WHEELS OUT ONLY FI_VERSION ENVIRONMENT WORK REPEAT PYTHON
UNKNOWN := $(foreach name,$(filter-out $(VARIABLES),$(.VARIABLES)),$(if $(findstring command line,$(origin $(name))),$(name)))
ifneq ($(strip $(UNKNOWN)),)
$(error expected variables out of $(VARIABLES); found $(strip $(UNKNOWN)))
endif

.PHONY: help
help: ## Show this help
	@echo 'Usage: make TARGET [VARIABLE=value]'
	@awk -F ':.*## ' '/^##@ /{printf "\n%s:\n", substr($$0, 5)} /^[a-z-]+:.*## /{printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Variables:'
	@echo '  FI_METHOD         how FlashInfer is installed (site)'
	@echo '  ANSIBLE_ARGS      more arguments for ansible-playbook, e.g. "--check --diff" (site)'
	@echo '  STACK_ROOT        the folder that holds the stack: $(STACK_ROOT) (site, clean-stack)'
	@echo '  SCENARIO          one molecule scenario instead of those of CI (molecule)'
	@echo '  FAULTS_KILLS      how many kills: $(FAULTS_KILLS); 200 is the full run (test-faults)'
	@echo '  WHEELS, OUT       folders for the wheels and the results; FI_VERSION, the FlashInfer release; ONLY, the steps (test-gpu)'
	@echo '  ENVIRONMENT       a stack without FlashInfer (compatibility, bench-methods), or one with PyTorch (test-gpu); WORK, REPEAT, a folder and how often'
	@echo '  PYTHON            the Python, 3.11 or newer, that .venv is made with (env)'

##@ Use

.PHONY: env
env: ## Make the control environment .venv from requirements.lock
	@tools/bootstrap

.PHONY: site
site: env ## Take this machine (or ANSIBLE_ARGS="-i inventories/gpu_vms") to the verified stack
	@eval "$$(.venv/bin/python tools/index_environment.py)" && ansible-playbook site.yml $(SITE_ARGS)

##@ Test

.PHONY: check
check: env ## The fast part, side by side: lint, unit tests, sanity
	@began=$$(date +%s); $(MAKE) --no-print-directory --jobs --output-sync=target lint unit sanity && \
	echo "check passed in $$(($$(date +%s) - began)) s"

.PHONY: test
test: ## Everything that CI runs, cheapest first, with the time that each part took
	@set -e; for part in $(TEST_PARTS); do \
	    echo "==== $$part"; began=$$(date +%s); \
	    $(MAKE) --no-print-directory $$part || { echo "==== $$part FAILED after $$(($$(date +%s) - began)) s" >&2; exit 1; }; \
	    echo "==== $$part passed in $$(($$(date +%s) - began)) s"; \
	done

.PHONY: lint
lint: env ## ansible-lint (production profile), yamllint, ruff, mypy, the changelog, the collection's documentation
	ruff check
	ruff format --check
	mypy plugins tools src
	yamllint --strict .
	antsibull-changelog lint
	ANSIBLE_COLLECTIONS_PATH=collections antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
	ansible-lint --offline --profile production

.PHONY: unit
unit: env ## Unit tests
	python -m pytest tests/unit --numprocesses auto --dist worksteal

.PHONY: sanity
sanity: build ## Install the built collection elsewhere, use it there, and run ansible-test sanity on it
	tests/sanity/run

.PHONY: test-roles
test-roles: env ## Each role alone by its README's example, the modules' EXAMPLES, the commands of the pages; on stand-ins
	@eval "$$(.venv/bin/python tools/index_environment.py)" && python -m pytest tests/roles --numprocesses auto --dist loadfile

.PHONY: test-faults
test-faults: env ## Kill, fill and break on purpose
	tests/hosts/setup
	@# A folder of its own: one opens it for another user, and every pytest that starts shuts the one they share.
	@PYTEST_DEBUG_TEMPROOT=$$(mktemp -d -t test-faults.XXXXXX); export PYTEST_DEBUG_TEMPROOT; \
	trap 'rm -rf --one-file-system "$$PYTEST_DEBUG_TEMPROOT"' EXIT; \
	FAULTS_KILLS=$(FAULTS_KILLS) python -m pytest tests/faults --numprocesses auto --dist worksteal

# Without SCENARIO, `fleet` leaves its two hosts with the real stack out: what they add takes longest of all.
.PHONY: molecule
molecule: env ## Molecule scenarios on local test hosts, by SSH
	tests/hosts/setup
	@set -e; for name in $(or $(SCENARIO),$(SCENARIOS)); do $(if $(SCENARIO),,OCRFLEET_FLEET_REAL=0) tests/hosts/molecule $$name; done

.PHONY: test-offline
test-offline: env ## Make a bundle, and install the whole stack from it in a network namespace that has none; EVIDENCE of an online run
	tests/offline/run $(EVIDENCE)

.PHONY: test-hostile
test-hostile: env ## Requests that must be refused, with the real uv and package index
	@eval "$$(.venv/bin/python tools/index_environment.py)" && python -m pytest tests/hostile --numprocesses auto --dist loadfile

.PHONY: test-gpu
test-gpu: ## On a GPU host without network: FlashInfer on clones of the PyTorch environment found there, from WHEELS
	@[ -n "$(WHEELS)" ] && [ -n "$(OUT)" ] || { echo 'test-gpu: expected WHEELS=folder OUT=folder' >&2; exit 2; }
	PATH="$${PATH#*:}" python3 tests/gpu/run.py "$(WHEELS)" "$(OUT)" $(if $(ENVIRONMENT),--environment "$(ENVIRONMENT)") $(if $(FI_METHOD),--method $(FI_METHOD)) $(if $(FI_VERSION),--flashinfer $(FI_VERSION)) $(if $(ONLY),--only "$(ONLY)")

##@ Measure

.PHONY: compatibility
compatibility: env ## Measure which FlashInfer releases fit ENVIRONMENT (a stack without any), into docs/compatibility.md
	@eval "$$(.venv/bin/python tools/index_environment.py)" && UV_CACHE_DIR="$(STACK_ROOT)/cache/uv" \
	python tools/compatibility.py measure "$(ENVIRONMENT)" "$(STACK_ROOT)/compatibility"
	python tools/compatibility.py page

.PHONY: bench-transaction
bench-transaction: env ## Time freeze, clone, promote, restore beside the ways by hand, on a copy of the stack's environment
	python benchmarks/transaction.py --cache "$(STACK_ROOT)/cache/uv" "$(STACK_ROOT)/envs/olmocr-optimized"

.PHONY: bench-methods
bench-methods: env ## Time fi_method=pypi on copies of ENVIRONMENT (a stack without any) beside the same by hand with pip
	@eval "$$(.venv/bin/python tools/index_environment.py)" && python benchmarks/methods.py --cache "$(STACK_ROOT)/cache/uv" \
	    $(if $(WORK),--work "$(WORK)") $(if $(REPEAT),--repeat $(REPEAT)) "$(ENVIRONMENT)"

.PHONY: bench-fleet
bench-fleet: env ## Time apply, no-op and roll-back of a fleet of test hosts, HOSTS="1 2 5 10 20 40", beside a plain playbook
	tests/hosts/setup
	python benchmarks/fleet.py $(HOSTS)

.PHONY: simulate-rollout
simulate-rollout: env ## Schedule rollouts of 1,000 and 10,000 simulated hosts, with kills and failures
	python benchmarks/rollout_simulation.py

.PHONY: coverage
coverage: env ## What tests/unit, tests/roles and tests/hostile reach of plugins/ and src/, branches counted, on hosts too (about 20 minutes)
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@eval "$$(.venv/bin/python tools/index_environment.py)" && for part in unit roles hostile; do \
	    coverage run -m pytest tests/$$part --numprocesses auto --dist loadfile || exit 1; \
	done
	coverage combine --quiet
	coverage html --quiet --directory=build/coverage --fail-under=0
	coverage report

.PHONY: mutation
mutation: env ## Change the logic of module_utils on purpose and count what the unit tests notice
	@tools/mutation

##@ Make

.PHONY: docs
docs: env ## Build the documentation as a static site, build/docs/html/index.html
	python tools/build_docs.py build/docs

.PHONY: browser
browser: env ## Look at the reports in a real browser (installs chromium where it is missing and this is root)
	tests/browser/run

.PHONY: build
build: env ## Build the collection into dist/
	@rm -rf dist
	ansible-galaxy collection build --output-path dist

.PHONY: ee-context
ee-context: build ## Make the build context of the execution environment for AWX, build/ee/
	cp dist/ocrfleet-gpu_stack-*.tar.gz dist/ocrfleet-gpu_stack.tar.gz
	ansible-builder create --file execution-environment.yml --context build/ee

.PHONY: tables
tables: env ## Renew the tables of variables in the roles' READMEs
	@python tools/role_tables.py

.PHONY: lock
lock: env ## Renew requirements.lock, and of it what the execution environment gets, from pyproject.toml
	@eval "$$(.venv/bin/python tools/index_environment.py)" && \
	compile() { uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal pyproject.toml "$$@"; } && \
	compile --group dev -o requirements.lock && \
	compile --group image --constraint requirements.lock -o execution-environment.lock

.PHONY: stack-locks
stack-locks: env ## Renew the locks that the roles pytorch and olmocr install from
	@eval "$$(.venv/bin/python tools/index_environment.py)" && tools/stack_locks

.PHONY: sbom
sbom: env ## Write bills of materials (CycloneDX): control node, shipped baselines, what hosts' last runs added; build/sbom/
	python tools/sbom.py build/sbom

##@ Clean up

.PHONY: clean-stack
clean-stack: ## Remove the stack: the whole folder that STACK_ROOT names
	@tools/clean_stack "$(STACK_ROOT)"

.PHONY: clean
clean: ## Remove what these targets made here: .venv, caches, builds, test hosts
	@tests/hosts/clean
	rm -rf .venv .cache dist build .mypy_cache .pytest_cache .ruff_cache .ansible
