#!/usr/bin/env bash
# Installs the Debian packages that building and running Lockstep need, or says
# exactly which are missing when it may not install them.
set -euo pipefail

# program or file that shows the package is there -> package
wanted=(
  "git:git"
  "gcc:gcc"
  "pkg-config:pkg-config"
  "/usr/include/seccomp.h:libseccomp-dev"
  "nft:nftables"
  "ip:iproute2"
  "conntrack:conntrack"
  "/bin/busybox:busybox-static"
  "/etc/ssl/certs/ca-certificates.crt:ca-certificates"
)
missing=()
for entry in "${wanted[@]}"; do
  probe=${entry%%:*} package=${entry##*:}
  case $probe in
    /*) [ -e "$probe" ] || missing+=("$package") ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$probe" >/dev/null || missing+=("$package") ;;
  esac
done

command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or newer from https://go.dev/dl" >&2; exit 1; }
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "These packages are missing; install them, then run make again:" >&2
  echo "  sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
