# make help tells what there is.
SHELL = /bin/bash
.SHELLFLAGS = -o pipefail -ec
GO ?= go
LINT = $(GO) tool -modfile=tools.mod golangci-lint

.PHONY: help build test lint race crash fuzz test-rt soak golden verify clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

build: ## the command line, as ./out/deltadesk
	CGO_ENABLED=0 $(GO) build -trimpath -o out/deltadesk ./functions/local

test: verify lint race crash ## lint, unit, conformance, stores, golden files with the race detector; the crash explorer; needs Go only

lint:
	$(LINT) run ./...

verify:
	$(GO) mod verify

race:
	$(GO) test -race -shuffle=on -short ./...

crash: ## cut a migration off before and after every effect
	$(GO) test ./shared/delta/ -run Crash -count=1 -v | grep -v -E '^(=== |--- PASS)'

test-rt: ## two real Request Trackers (Debian, root): full run, deltas with people on both desks, kill -9, backup and restore
	DESKTEST_NO_SKIP=1 $(GO) test -tags rt -count=1 -timeout 20m -run RT ./connectors/requesttracker
	$(GO) test -tags rt -count=1 -timeout 20m ./connectors/requesttracker/rttest
	$(GO) test -tags rt -count=1 -timeout 40m -v -run TestRequestTracker ./functions/local

SOAK = 10m
soak: ## two windows served every minute for SOAK (10m) while people work on two real Request Trackers (Debian, root)
	$(GO) test -tags rt,soak -count=1 -timeout 0 -v -run TestSoak ./functions/local -soak.for $(SOAK)

fuzz: ## one minute for each fuzz test
	@set -e; for f in $$(grep -rl --include=*_test.go '^func Fuzz' connectors functions shared); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f); do \
			echo "$$f $$t"; $(GO) test ./$$(dirname $$f) -run '^$$' -fuzz "^$$t\$$" -fuzztime 1m; done; done

golden: ## write the golden files anew; look at the difference before you commit it
	$(GO) test ./shared/report ./shared/mapping ./functions/internal/boot ./connectors/requesttracker -update

clean:
	rm -rf out
