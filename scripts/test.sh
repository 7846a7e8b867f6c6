#!/usr/bin/env bash
# All tests, in the order in which a failure is cheapest to find. Prints the
# test runner's own lines; ends at the first group that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t unit < <(go list ./... | grep -vE '/internal/cluster/hyperkube|/internal/bundle/build|/test/(script|bench)$')

echo "== format and vet"
make --no-print-directory lint

echo "== example"
(cd examples/storefront && go vet ./... && go test ./...)

# The tests of single boxes that need real programs find them here.
export LOCKSTEP_HYPERKUBE=$PWD/bin/payload/hyperkube
export LOCKSTEP_TEST_BUILDKITD=$PWD/bin/payload/buildkitd LOCKSTEP_TEST_RUNC=$PWD/bin/payload/runc

echo "== packages, with the race detector"
CGO_ENABLED=1 go test -race -timeout 20m "${unit[@]}"

echo "== user stories, with the real binary"
go test -count=1 -timeout 40m -v ./test/script
