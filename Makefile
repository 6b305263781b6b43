# What one does here. `make` alone lists it. Needs Go and PostgreSQL's programs, which Debian's root gets installed;
# the tools are pinned in tools/go.mod and are fetched and built on first use.

.PHONY: help build demo test torture crash mutants lint fuzz bench bench-micro bench-compare bench-scale conformance-node need-go \
	deploy-check packaging-check dashboards-check rules-check dashboards dashboards-preview

help:
	@echo 'make build             bin/singil'
	@echo 'make demo              three months of billing in a minute, with faults, no keys, no Docker'
	@echo 'make test              every test, with the race detector, on a real PostgreSQL (needs a C compiler)'
	@echo 'make torture           two daemons, SIGKILL again and again, SUBSCRIPTIONS=10000 over three months; then make crash'
	@echo 'make crash             SIGKILL at every point of a charge: one daemon and two, replies that come and that are lost'
	@echo 'make torture DURATION=30m  three daemons, while everything around them fails; a report in docs/reports'
	@echo 'make mutants           a test of the tests: deliberate bugs, each caught by some test; ONLY=name shows one'
	@echo 'make lint              formatting, go vet, linters, go.mod, house rules'
	@echo 'make fuzz              every fuzz target in turn, FUZZTIME=1m each'
	@echo 'make bench             charges a second and what they cost, against a textbook worker; a report in docs/reports; QUICK=1, ONLY=part'
	@echo 'make bench-micro       functions that every charge calls: time and allocations, no database, no network'
	@echo 'make bench-compare     the same against the commit before (BASE=ref), by benchstat'
	@echo 'make bench-scale DIR=  the sweep and the plans among ten million subscriptions; half an hour and 45 GB, a new DIR each time'
	@echo 'make deploy-check      what deploy/ holds, against the programs that will read it; dashboards and alerts on a Prometheus that watches the demo'
	@echo 'make dashboards        write the dashboards anew; make dashboards-preview their pictures'
	@echo 'make conformance-node  the official PayMongo SDK for Node against the sandbox (needs Node 18 and npm)'

need-go:
	@sh tools/need-go.sh

build: need-go
	version=$$(git describe --tags --always --dirty 2>/dev/null || true); \
	go build -trimpath -ldflags "-X main.version=$$version" -o bin/singil ./cmd/singil

demo: build
	@sh tools/need-postgres.sh
	bin/singil demo

test: need-go
	@if [ "$$(go env CGO_ENABLED)" != 1 ]; then \
		echo 'The race detector needs a C compiler. Install one (Debian: apt-get install gcc libc6-dev) and run this again.' >&2; \
		exit 1; \
	fi
	@sh tools/need-postgres.sh TEST_DATABASE_URL
	go test -race -timeout 15m ./...

# With a duration the soak, which brings a PostgreSQL of its own to kill; without one the two daemons. SEED=1 takes
# another seed. The pipe passes on whether the tests failed.
SUBSCRIPTIONS = 10000
DURATION =
SEED = 20260131
ifeq ($(DURATION),)
torture: need-go
	@sh tools/need-postgres.sh TEST_DATABASE_URL
	go test ./cmd/singil -run TwoDaemonsOneIsKilled -count=1 -torture-subscriptions $(SUBSCRIPTIONS) -torture-seed $(SEED) -timeout 2h -v | \
	awk '/torture_test|^(---|ok|FAIL|PASS|panic)/ { print; fflush() } /^(FAIL|panic)/ { failed = 1 } END { exit failed }'
	@$(MAKE) crash
else
torture: need-go
	@sh tools/need-postgres.sh
	go test ./cmd/singil -run '^TestSoak$$' -count=1 -timeout 0 -v -soak $(DURATION) -soak-seed $(SEED) \
		-soak-report "$(CURDIR)/docs/reports/$$(date +%F)-soak.md"
endif

crash: need-go
	@sh tools/need-postgres.sh TEST_DATABASE_URL
	go test ./cmd/singil -run 'Crash|Failpoints' -crash-all -count=1 -timeout 1h -v | \
		awk '/crash_|^ *(---|ok|FAIL|panic)/ { print; fflush() } /^ok/ { ok = 1 } END { exit !ok }'

# Each bug is put over the source by go test -overlay; the files stay as they are.
ONLY =
mutants: need-go
	@sh tools/need-postgres.sh TEST_DATABASE_URL
	go test ./internal/mutants -run '^TestMutants$$' -count=1 -mutants -mutant '$(ONLY)' -parallel 2 -timeout 1h -v | \
		awk '!/^=== / { print; fflush() } /^ok/ { ok = 1 } END { exit !ok }'

lint: need-go
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "Run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	sh tools/house-rules.sh
	go mod tidy -diff
	go vet ./...
	go tool -modfile=tools/go.mod golangci-lint run ./...

fuzz: need-go
	FUZZTIME=$${FUZZTIME:-1m} sh tools/fuzz.sh

# Everything that is measured from outside, in less than half an hour. QUICK=1 takes two minutes, tells whether it works,
# and writes no report.
QUICK =
bench: need-go
	@sh tools/need-postgres.sh
	go run ./bench -only '$(ONLY)' $(if $(QUICK),-quick,-report "$(CURDIR)/docs/reports/$$(date +%F)-bench")

BENCH = .
# What -short leaves out measures the database.
MICRO = ./billing ./worker ./paymongo ./paymongo/sandbox
bench-micro: need-go
	go test -short -run '^$$' -bench '$(BENCH)' -benchmem $(MICRO)

bench-compare: need-go
	BENCH='$(BENCH)' sh tools/bench-compare.sh $(MICRO)

# Ten million subscriptions and fifty million old invoices take 45 GB and some twenty minutes to build, in DIR, which is good for one run: what is due there is billed by it. SCALE=
# takes other sizes.
DIR =
SCALE = -subscriptions 10000000 -periods 5 -settled 5000000
bench-scale: need-go
	@sh tools/need-postgres.sh
	@test -n "$(DIR)" || { echo 'Say where: make bench-scale DIR=/var/tmp/scale' >&2; exit 1; }
	@test -n "$$(ls -A "$(DIR)" 2>/dev/null)" || go run ./bench/scale/cmd/scale fill -dir "$(DIR)" $(SCALE) -v
	go run ./bench/scale/cmd/scale thousand -dir "$(DIR)" $(SCALE)
	go run ./bench/scale/cmd/scale plans -dir "$(DIR)" $(SCALE) -before 7 > "docs/reports/$$(date +%F)-plans-10M.md"

conformance-node: build
	@command -v npm >/dev/null || { echo 'This one needs Node 18 or newer with npm (https://nodejs.org).' >&2; exit 1; }
	cd conformance/node && npm ci --ignore-scripts --no-audit --no-fund && node run.mjs

# What is under deploy/. Each part needs nothing of the others.
deploy-check: packaging-check dashboards-check rules-check

# A module of its own, so that what it needs is nothing that singil needs.
DASHBOARDS = cd deploy/grafana/gen && go

dashboards-check: build
	@sh tools/need-postgres.sh
	@sh tools/need-prometheus.sh
	$(DASHBOARDS) vet ./...
	$(DASHBOARDS) test -count=1 -v -timeout 10m ./... -singil "$(CURDIR)/bin/singil" | \
		awk '/_test\.go:|^ *(---|ok|FAIL|panic)/ { print; fflush() } /^ok/ { ok = 1 } END { exit !ok }'

rules-check:
	@sh tools/need-prometheus.sh
	promtool check config deploy/prometheus/prometheus.yml
	promtool check rules deploy/prometheus/rules.yaml
	cd deploy/prometheus && promtool test rules rules.test.yaml rules.week.test.yaml

dashboards: need-go
	$(DASHBOARDS) run . ../dashboards

dashboards-preview: build
	@sh tools/need-postgres.sh
	@sh tools/need-prometheus.sh
	$(DASHBOARDS) test -count=1 -timeout 10m -run OnTheDemo . -singil "$(CURDIR)/bin/singil" -preview "$(CURDIR)/docs/img"

# A module of its own: Helm, Kubernetes, BuildKit and Compose as libraries, two minutes when they are built for the
# first time. With GORELEASER=1 goreleaser as well, two minutes more.
packaging-check: need-go
	cd deploy/check && go vet ./... && go test ./...
	@if [ -n "$(GORELEASER)" ]; then \
		go run github.com/goreleaser/goreleaser/v2@v2.12.0 check -f deploy/goreleaser.yaml; \
	fi
