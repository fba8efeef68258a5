#!/usr/bin/env bash
# Makes the secrets that compose.yaml mounts: random, readable only by you, never overwritten.
set -euo pipefail

folder=${1:-"$(dirname "$0")/../secrets"}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() {
    od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

# Each file is created atomically, and only if it does not exist.
keep() {
    local target=$folder/$1 draft
    draft=$(mktemp "$folder/.draft-XXXXXX")
    cat >"$draft"
    if [ -e "$target" ]; then
        rm "$draft"
        echo "kept  $target"
    else
        mv "$draft" "$target"
        echo "made  $target"
    fi
}

random 32 | keep ray_token
random 24 | keep postgres_password
keep s3.env <<END
AWS_ACCESS_KEY_ID=$(random 10)
AWS_SECRET_ACCESS_KEY=$(random 24)
END
