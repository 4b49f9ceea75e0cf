# make help tells what there is.
SHELL = /bin/bash
.SHELLFLAGS = -o pipefail -ec
GO ?= go
LINT = $(GO) tool -modfile=tools.mod golangci-lint

.PHONY: help build test lint race crash simulate simulate-bugs model fuzz test-rt soak test-aws golden verify clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

build: ## the command line, as ./out/deltadesk
	CGO_ENABLED=0 $(GO) build -trimpath -o out/deltadesk ./functions/local

test: verify lint race ## lint, unit, conformance, stores, golden files with the race detector; the crash explorer at every tenth effect; 2,000 simulated migrations; needs Go only
	@$(MAKE) --no-print-directory crash CRASH_STRIDE=10
	@$(MAKE) --no-print-directory simulate

lint:
	$(LINT) run ./...

verify:
	$(GO) mod verify

race:
	$(GO) test -race -shuffle=on -short ./...

crash: ## cut a migration, and many short stories, off before and after every effect
	$(GO) test ./shared/delta/ -run Crash -count=1 -timeout 30m -v -crash.stride=$(or $(CRASH_STRIDE),1) | grep -v -E '^(=== | *--- PASS)'

RUNS ?= 2000
SEED ?= 1
# The simulator spends half its time on JSON. encoding/json on top of its second version writes the same and takes less of it.
simulate simulate-bugs: export GOEXPERIMENT = jsonv2
simulate: ## whole migrations in simulated worlds: RUNS=N SEED=S; RUN=n ONLY=a,b replays one with its trace
	$(GO) test -tags simulate -v -count=1 -timeout 12h ./shared/delta/deltatest/sim -run TestSimulate -sim.runs=$(RUNS) -sim.seed=$(SEED) $(if $(RUN),-sim.run=$(RUN)) $(if $(ONLY),-sim.only=$(ONLY))

simulate-bugs: ## the simulator must find each of a list of broken decisions within 20,000 runs; ONLY=name,name tries some
	$(GO) run ./shared/delta/deltatest/sim/bugs -only='$(ONLY)'

model: ## the engine's order of steps as a TLA+ model: TLC tries every interleaving, and each rule left out (JDK, Maven)
	shared/delta/model/check.sh

test-rt: ## two real Request Trackers (Debian, root): full run, deltas with people on both desks, kill -9, backup and restore, rare scenes
	DESKTEST_NO_SKIP=1 $(GO) test -tags rt -count=1 -timeout 20m -run RT ./connectors/requesttracker
	$(GO) test -tags rt -count=1 -timeout 20m ./connectors/requesttracker/rttest
	$(GO) test -tags rt -count=1 -timeout 40m -v -run TestRequestTracker ./functions/local

test-aws: ## the store over DynamoDB, S3 and SQS, played by moto and ElasticMQ: suite, crash explorer, calls per ticket, a large file (Python; a JDK and Maven where there are)
	GO="$(GO)" infra/test/aws.sh infra/test/store.sh

SOAK = 10m
soak: ## two windows served every minute for SOAK (10m) while people work on two real Request Trackers (Debian, root)
	$(GO) test -tags rt,soak -count=1 -timeout 0 -v -run TestSoak ./functions/local -soak.for $(SOAK)

fuzz: ## FUZZTIME (one minute) for each fuzz test
	@GO="$(GO)" FUZZTIME="$(or $(FUZZTIME),1m)" .ci/fuzz

golden: ## write the golden files anew; look at the difference before you commit it
	$(GO) test ./shared/report ./shared/mapping ./functions/internal/boot ./connectors/requesttracker -update

clean:
	rm -rf out
