#!/usr/bin/env bash
# Builds kubectl, and with `cluster` also etcd, kube-apiserver and kube-controller-manager, as Go modules into a
# cache of their own, and prints the directory of the programs. What is there is not built again.
# Environment: LATEEN_KUBE_CACHE (default: ${XDG_CACHE_HOME:-~/.cache}/lateen/kube).
set -euo pipefail
cd "$(dirname "$0")"
version=1.37.2
command -v go > /dev/null || { echo "build.sh: Go is needed (1.26 or newer)" >&2; exit 1; }
cache=${LATEEN_KUBE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen/kube}
bin=$cache/$version
mkdir -p "$bin"
exec 9>"$cache/lock"
flock 9
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-trimpath -buildvcs=false -modcacherw"
export GOMODCACHE=$cache/modules GOCACHE=$cache/build
stamp=k8s.io/component-base/version
build() {
  [ -x "$bin/$1" ] && return
  echo "building $1 $version (once; the cache is $cache)" >&2
  IFS=. read -r major minor _ <<< "$version"
  go build -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor" \
    -o "$bin/.$1" "./$1"
  mv "$bin/.$1" "$bin/$1"
}
build kubectl
if [ "${1:-}" = cluster ]; then
  build cluster
  for name in etcd kube-apiserver kube-controller-manager; do ln -sf cluster "$bin/$name"; done
fi
echo "$bin"
