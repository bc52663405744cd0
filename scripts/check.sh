#!/bin/sh
# Types, lint, format and dead code: what `npm test` asks before it runs anything.
set -eu
here=$(dirname "$(readlink -f "$0")")
cd "$(dirname "$here")"
node=$(sh scripts/setup.sh node)
"$node" node_modules/typescript/bin/tsc
"$node" node_modules/oxlint/bin/oxlint --type-aware --quiet
"$node" node_modules/oxfmt/bin/oxfmt --check
"$node" node_modules/knip/bin/knip.js
