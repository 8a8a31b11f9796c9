#!/bin/sh
# Prometheus and promtool for the tests, from Debian's package: no root, no service, nothing outside of DIR.
#   sh deploy/prometheus/fetch.sh DIR     leaves DIR/prometheus and DIR/promtool
set -eu
dir=$1
mkdir -p "$dir"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
  ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$dir"
  exit 0
fi
command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "no apt-get here: install prometheus"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! apt-get -q download prometheus >log 2>&1; then
  # No package lists, or old ones: fetch them into a folder of our own.
  mkdir -p state/lists/partial cache/archives/partial
  own="-o Dir::State=$work/state -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache=$work/cache"
  # shellcheck disable=SC2086
  { apt-get -q $own update && apt-get -q $own download prometheus; } >log 2>&1 || { tail -3 log; exit 1; }
fi
dpkg -x prometheus_*.deb unpacked
cd - >/dev/null
mv "$work/unpacked/usr/bin/prometheus" "$work/unpacked/usr/bin/promtool" "$dir"
