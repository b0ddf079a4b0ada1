# l2overlay. Each target sets up all that it needs on a fresh Debian 12 and says what it installs:
# a virtual environment in .venv, Python packages by pip, missing programs by apt (with sudo only if not root).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The distribution's Python, if new enough, is built with profile-guided optimization; others (pyenv) mostly are not, and
# take 15 % longer on the frame's path (tests/bench/test_micro.py).
PYTHON ?= $(lastword python3 $(sort $(wildcard /usr/bin/python3.1[1-9])))
VENV := .venv
PY := $(VENV)/bin/python
# Namespaces, TAPs and bridges need root. Without root and sudo the demo says so, and those tests skip.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

# PROGRAM-OR-FILE=DEBIAN-PACKAGE
DEMO_NEEDS := ip=iproute2 ping=iputils-ping
TEST_NEEDS := $(DEMO_NEEDS) tcpdump=tcpdump iptables=iptables nft=nftables ethtool=ethtool iperf3=iperf3 \
	dnsmasq=dnsmasq-base \
	qemu-system-x86_64=qemu-system-x86 /usr/lib/ipxe/qemu/pxe-virtio.rom=ipxe-qemu \
	/usr/lib/cni/bridge=containernetworking-plugins lxc-execute=lxc /bin/busybox=busybox-static

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

.PHONY: demo
demo: demo-tools $(VENV)/.installed ## Three hosts in namespaces become one LAN; options in ARGS="--hosts 5"
	$(SUDO) $(PY) -m l2overlay demo $(ARGS)

PREFIX ?= /opt/l2overlay
BINDIR ?= /usr/local/bin
.PHONY: install
install: ## l2overlay for all users: into PREFIX=/opt/l2overlay, with a link in BINDIR=/usr/local/bin
	$(SUDO) .ci/make-venv $(PYTHON) $(PREFIX) .
	$(SUDO) ln -sfn $(PREFIX)/bin/l2overlay $(BINDIR)/l2overlay
	$(BINDIR)/l2overlay --version

.PHONY: test
test: test-tools $(VENV)/.installed-test ## All tests; options of pytest in ARGS="-k fdb"
	$(SUDO) $(PY) -m pytest $(ARGS)

.PHONY: test-newer
test-newer: ## The quick part of the suite on every newer Python that this machine has
	PYTHON=$(PYTHON) .ci/newer-pythons

.PHONY: check
check: lint test ## What CI runs: format, lint, types, contracts, tests

.PHONY: lint
lint: $(VENV)/.installed-test ## Format, lint, types and import contracts
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

.PHONY: bench
bench: test-tools $(VENV)/.installed-test ## Measure throughput, frame rate and latency; options in ARGS
	$(SUDO) $(PY) -m tests.bench $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.installed-test ## Mutated input for every parser; for hours: ARGS="--seconds 36000"
	$(PY) -m tests.fuzz $(ARGS)

.PHONY: dist
dist: $(VENV)/.installed-dist ## A wheel and an sdist in dist/, checked
	@rm -f dist/*.whl dist/*.tar.gz
	$(PY) -m build --outdir dist . | tail -n 1
	$(PY) -m twine check --strict dist/*.whl dist/*.tar.gz

.PHONY: deb
deb: dist ## A Debian package in dist/, for this machine's Debian and architecture
	@.ci/install-missing dpkg-deb=dpkg strip=binutils
	PYTHON=$(PY) packaging/make-deb dist/*.whl dist

.PHONY: clean
clean: ## Remove .venv and everything that tools left in the checkout
	@rm -rf $(CLUTTER) 2>/dev/null || $(SUDO) rm -rf $(CLUTTER)
	@find . -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || \
		$(SUDO) find . -name __pycache__ -prune -exec rm -rf {} +
CLUTTER := $(VENV) $(wildcard .venv-3.*) .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks .coverage build dist

.PHONY: demo-tools test-tools
demo-tools:
	@.ci/install-missing $(DEMO_NEEDS)
test-tools:
	@.ci/install-missing $(TEST_NEEDS)

$(VENV)/.installed-dist: pyproject.toml
	@.ci/make-venv $(PYTHON) $(VENV) --editable '.[dist]'
	@touch $@

# The stamps are younger than pyproject.toml when the environment has what it asks for.
$(VENV)/.installed: pyproject.toml
	@.ci/make-venv $(PYTHON) $(VENV) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml
	@.ci/make-venv $(PYTHON) $(VENV) --editable '.[test,scapy]'
	@touch $(VENV)/.installed $@
