# shellcheck shell=bash
# What `deploy/up` and `tests/run` need on a Debian machine, installed only where it is missing. Source it after
# `set -euo pipefail`. Every function is idempotent, and costs milliseconds when there is nothing to do.

KONTOR_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
KONTOR_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kontor
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$KONTOR_CACHE/target}
# rustup puts cargo here, and a shell that was started before does not know it
case ":$PATH:" in *":$HOME/.cargo/bin:"*) ;; *) PATH=$HOME/.cargo/bin:$PATH ;; esac

# Packages that compile the workspace, and that its servers run on.
# shellcheck disable=SC2034 # read by the scripts that source this file
BUILD_PACKAGES=(ca-certificates curl git gcc g++ make cmake pkg-config zlib1g-dev libssl-dev)
# shellcheck disable=SC2034
SERVER_PACKAGES=(postgresql-15 redis-server openjdk-17-jre-headless maven)

# step MESSAGE: one progress line before something long.
step() {
    printf '· %s\n' "$*"
}

# fail SENTENCE: ends the script with one clear sentence.
fail() {
    printf '✗ %s\n' "$*" >&2
    exit 1
}

# quietly NAME COMMAND…: runs a command into a log file; prints the end of the log only when the command fails.
quietly() {
    local log=$KONTOR_CACHE/logs/$1.log
    shift
    mkdir -p "$KONTOR_CACHE/logs" || fail "Cannot write to $KONTOR_CACHE."
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        return 1
    fi
}

# as_root COMMAND…: runs a command as root, by sudo where needed.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "This step needs root: run it as root, or install sudo (wanted: $*)."
    fi
}

# need_disk GIGABYTES: fails unless the file system of the cache has that much room.
need_disk() {
    local folder=$KONTOR_CACHE free
    mkdir -p "$folder" || fail "Cannot create $folder."
    free=$(($(df -Pk "$folder" | awk 'NR == 2 {print $4}') / 1024 / 1024))
    [ "$free" -ge "$1" ] || fail "The disk of $folder has only $free GB left, and this needs $1 GB: make room, or set XDG_CACHE_HOME."
}

# installed PACKAGE: succeeds when dpkg has it.
installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need_packages PACKAGE…: installs those Debian packages that are missing, without starting any of their servers.
need_packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || fail "This is not Debian (no dpkg): install $* by hand, see deploy/README.md."
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    step "installing ${missing[*]}"
    quietly apt-update as_root apt-get update || fail "apt-get update failed, see above."
    servers_stay_off
    trap servers_may_start EXIT
    quietly apt-install as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" ||
        fail "apt-get install failed, see above."
    servers_may_start
    trap - EXIT
}

# Debian starts each server it installs, and gives PostgreSQL a cluster. We run our own, so both are held off meanwhile.
servers_stay_off() {
    as_root mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.d/kontor.conf >/dev/null
    [ -e /usr/sbin/policy-rc.d ] && return 0
    printf '#!/bin/sh\n# by kontor, while it installs packages\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod 755 /usr/sbin/policy-rc.d
}

servers_may_start() {
    as_root rm -f /etc/postgresql-common/createcluster.d/kontor.conf
    if grep -qs 'by kontor' /usr/sbin/policy-rc.d; then as_root rm -f /usr/sbin/policy-rc.d; fi
}

# need_rust: a cargo that is at least the workspace's rust-version, with clippy and rustfmt where rustup manages it.
need_rust() {
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$KONTOR_ROOT/Cargo.toml")
    rust_is_at_least "$wanted" || install_rust "$wanted"
    own_artefacts
}

# own_artefacts: compiled code of another checkout is thrown away, that of dependencies apart. Cargo calls both by the same names and
# compares times, so where the other is younger it would run in place of ours. Two checkouts at the same time want a
# CARGO_TARGET_DIR each.
own_artefacts() {
    local mark=$CARGO_TARGET_DIR/kontor-checkout profile
    [ "$(cat "$mark" 2>/dev/null)" != "$KONTOR_ROOT" ] || return 0
    for profile in debug release shipping; do
        [ -d "$CARGO_TARGET_DIR/$profile" ] || continue
        cargo clean --quiet --manifest-path "$KONTOR_ROOT/Cargo.toml" --workspace --profile "${profile/debug/dev}" ||
            fail "What another checkout has compiled cannot be removed: remove $CARGO_TARGET_DIR."
    done
    mkdir -p "$CARGO_TARGET_DIR"
    echo "$KONTOR_ROOT" >"$mark"
}

install_rust() {
    local wanted=$1
    if command -v rustup >/dev/null; then
        step "updating Rust to the current stable version"
        quietly rustup rustup toolchain install stable --profile minimal --component clippy --component rustfmt ||
            fail "rustup could not install Rust, see above."
    else
        step "installing Rust by rustup"
        need_packages ca-certificates curl
        # an older Rust of the distribution may stay where it is
        quietly rustup env RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -c "curl --proto '=https' --tlsv1.2 -sSf --retry 3 https://sh.rustup.rs |
            sh -s -- -y --no-modify-path --profile minimal --component clippy --component rustfmt" ||
            fail "rustup could not install Rust, see above: install Rust $wanted or newer by hand."
        hash -r
    fi
    rust_is_at_least "$wanted" || fail "The installed Rust is older than $wanted: $(rustc --version 2>&1 | head -n 1)."
}

# rust_is_at_least VERSION: succeeds when the compiler that this workspace would use is that new.
rust_is_at_least() {
    local found
    command -v cargo >/dev/null || return 1
    found=$(cd "$KONTOR_ROOT" && rustc --version 2>/dev/null | cut -d ' ' -f 2) || return 1
    [ "$(printf '%s\n%s\n' "$1" "${found%%-*}" | sort -V | head -n 1)" = "$1" ]
}

# need_kafka: the jars of deploy/local/kafka/pom.xml in the cache.
need_kafka() {
    local pom=$KONTOR_ROOT/deploy/local/kafka/pom.xml jars fresh
    # the pom's hash names the folder: `local` looks there too, and a new version never meets old jars
    jars=$KONTOR_CACHE/kafka-$(sha256sum "$pom" | cut -c 1-12)
    [ -d "$jars" ] && return 0
    need_packages openjdk-17-jre-headless maven
    step "fetching Apache Kafka by Maven (44 MB)"
    mkdir -p "$KONTOR_CACHE" || fail "Cannot write to $KONTOR_CACHE."
    fresh=$(mktemp -d "$KONTOR_CACHE/kafka-fetch.XXXXXX") || fail "Cannot write to $KONTOR_CACHE."
    if ! quietly maven mvn -q -B -f "$pom" dependency:copy-dependencies "-DoutputDirectory=$fresh"; then
        rm -rf "$fresh"
        fail "Maven could not fetch Apache Kafka, see above."
    fi
    # a rename is atomic: nobody sees half of the jars; who comes second throws its own away
    mv -T "$fresh" "$jars" 2>/dev/null || rm -rf "$fresh"
}
