# make up      build, start the platform, carry examples/storefront through the loop
# make test    everything that has to hold before a commit
# make help    the rest

SHELL := /bin/bash
BIN := bin/lockstep
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS := -s -w -X main.version=$(VERSION)
PACKAGES = $(shell go list ./... | grep -v /internal/cluster/hyperkube)
export CGO_ENABLED ?= 0

.PHONY: up down build bundle gocache deps test unit story bench bench-gitops lint clean help

up: build ## build, start the platform and run the example through the loop
	@$(BIN) up --example storefront --example-dir storefront

down: ## stop the platform and remove everything but its state
	@$(BIN) down

build: bundle gocache ## bin/lockstep
	@tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=u=rwX,go=rX --exclude=.terraform \
		-cf internal/cli/storefront/template/storefront.tar -C examples/storefront .
	@go build -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/lockstep

bundle: deps ## the programs that lockstep carries: Kubernetes, containerd, runc, BuildKit, CNI
	@go run ./internal/bundle/build

gocache: ## Go's standard library, compiled once: what the first workflow jobs and image builds start from
	@./scripts/gocache.sh bin/gocache

deps: ## the Debian packages that building and running need
	@./scripts/deps.sh

test: build ## unit tests with the race detector, conformance suites, user stories
	@./scripts/test.sh

unit: ## unit tests only, without the race detector: the quick loop
	go test $(PACKAGES)

story: build ## the user stories in test/script against the real binary
	go test -count=1 -timeout 30m ./test/script

bench: build ## the figures in docs/figures.md
	go test -count=1 -timeout 30m -run '^$$' -bench . ./test/bench

N ?= 1000
SHAPE ?= mixed

bench-gitops: bin/payload/hyperkube ## the GitOps engine on a monorepo of N applications (SHAPE=helm, FLAGS=-h)
	@LOCKSTEP_HYPERKUBE=$(CURDIR)/bin/payload/hyperkube go run ./test/bench/gitops -n $(N) -shape $(SHAPE) $(FLAGS)

bin/payload/hyperkube:
	@$(MAKE) bundle

lint: ## formatting, vet and, where it is installed, golangci-lint
	@test -z "$$(gofmt -l cmd internal api test web examples)" || { gofmt -l cmd internal api test web examples; exit 1; }
	@go vet $(PACKAGES)
	@if command -v golangci-lint >/dev/null; then golangci-lint run; fi

clean: ## remove what was built; the platform's state is removed by `lockstep down --purge`
	rm -rf bin internal/bundle/payload/*.zst internal/bundle/payload/index.json internal/cli/storefront/template/*.tar

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
