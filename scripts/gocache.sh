#!/usr/bin/env bash
# Compiles the standard library, as far as web programs use it, into the given
# GOCACHE, without cgo. Lockstep lends a copy to workflow jobs and image builds,
# so that the first of each does not compile it. Does nothing when it is done
# for this version of Go.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../examples/storefront"
version=$(go version)
[ "$(cat "$dir/made-by" 2>/dev/null)" = "$version" ] && exit 0
echo "compiling Go's standard library for the first builds"
export GOCACHE=$dir CGO_ENABLED=0 GOFLAGS=-buildvcs=false
go vet ./...
go test -count=1 ./... >/dev/null
go build -o /dev/null .
echo "$version" >"$dir/made-by"
