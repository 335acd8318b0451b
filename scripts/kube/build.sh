#!/usr/bin/env bash
# Builds kubectl, and with `cluster` also etcd, kube-apiserver and kube-controller-manager, the oldest kubectl that is
# supported and helm, as Go modules into a cache of their own, and prints the directory of the programs. What is there is
# not built again.
# Environment: LATEEN_KUBE_CACHE (default: ${XDG_CACHE_HOME:-~/.cache}/lateen/kube).
set -euo pipefail
cd "$(dirname "$0")"
version=1.37.2
older=1.32.11
command -v go > /dev/null || { echo "build.sh: Go is needed (1.26 or newer)" >&2; exit 1; }
cache=${LATEEN_KUBE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen/kube}
bin=$cache/$version
mkdir -p "$bin"
exec 9>"$cache/lock"
flock 9
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-trimpath -buildvcs=false -modcacherw"
export GOMODCACHE=$cache/modules GOCACHE=$cache/build
stamp=k8s.io/component-base/version
# build NAME DIRECTORY PACKAGE VERSION
build() {
  [ -x "$bin/$1" ] && return
  echo "building $1 $4 (once; the cache is $cache)" >&2
  IFS=. read -r major minor _ <<< "$4"
  (cd "$2" && go build -ldflags "-s -w -X $stamp.gitVersion=v$4 -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor" \
    -o "$bin/.$1" "$3")
  mv "$bin/.$1" "$bin/$1"
}
build kubectl . ./kubectl "$version"
if [ "${1:-}" = cluster ]; then
  build cluster . ./cluster "$version"
  for name in etcd kube-apiserver kube-controller-manager; do ln -sf cluster "$bin/$name"; done
  build kubectl-older older . "$older"
  build helm helm helm.sh/helm/v3/cmd/helm "$(cd helm && go list -m -f '{{.Version}}' helm.sh/helm/v3 | tr -d v)"
fi
echo "$bin"
