# shellcheck shell=bash
# The tools of `tests/run`, each in a pinned version, installed only where it is missing, into a folder of our own.
# Source it after deploy/lib/install.sh.

TOOLS=$KONTOR_CACHE/tools
PATH=$TOOLS/bin:$PATH

# Debian packages of the tests: a Kafka client, an HTTP client for the seed's programs, a linter for the scripts.
TEST_PACKAGES=(kcat python3 python3-requests python3-venv shellcheck)
# What buf and TypeScript come with. A machine that has npm from elsewhere keeps it.
NODE_PACKAGES=(nodejs npm)

# The version in a tool's folder name makes a new pin install itself.
CARGO_DENY=0.20.2
GRPCURL=v1.9.4
KUSTOMIZE=v5.7.1 # what kubectl 1.34 has inside
KUBECONFORM=v0.8.0
KUBE_SCORE=v1.20.0
GO_OLDEST=1.26 # what the newest of these needs
GO_FALLBACK=1.26.6

# need_tools: everything that `tests/run` calls.
need_tools() {
    need_packages "${BUILD_PACKAGES[@]}" "${SERVER_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    need_rust
    need_rust_components
    need_kafka
    need_cargo_deny
    need_grpcurl
    need_go_tool kustomize "$KUSTOMIZE" sigs.k8s.io/kustomize/kustomize/v5
    need_go_tool kubeconform "$KUBECONFORM" github.com/yannh/kubeconform/cmd/kubeconform
    need_go_tool kube-score "$KUBE_SCORE" github.com/zegl/kube-score/cmd/kube-score
    need_schemas
    need_npm_tools
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

need_grpcurl() { need_go_tool grpcurl "$GRPCURL" github.com/fullstorydev/grpcurl/cmd/grpcurl; }

# need_go_tool NAME VERSION PACKAGE: a program compiled from its Go module, on the PATH.
need_go_tool() {
    # their --version does not always know which one it is, so the folder says it
    local name=$1 version=$2 folder=$TOOLS/$1-$2
    PATH=$folder:$PATH
    [ -x "$folder/$name" ] && return 0
    need_go
    step "compiling $name $version (a minute or two, once)"
    quietly "$name" env GOBIN="$folder" GOFLAGS=-buildvcs=false go install "$3@$version" ||
        fail "go could not install $name, see above."
}

# The JSON schemas of the Kubernetes API, from PyPI, as kubeconform reads them.
need_schemas() {
    local stamp venv
    stamp=$(cat tests/tools/schemas.txt tests/lib/schemas.py | sha256sum | cut -c 1-12)
    export KONTOR_SCHEMAS=$TOOLS/schemas-$stamp
    [ -d "$KONTOR_SCHEMAS" ] && return 0
    step "installing the schemas of Kubernetes"
    venv=$(mktemp -d "$TOOLS/schemas.XXXXXX")
    python3 -m venv "$venv" || fail "python3 -m venv failed, see above."
    quietly schemas "$venv/bin/pip" install --require-hashes --no-deps -r tests/tools/schemas.txt ||
        fail "pip could not install the schemas of Kubernetes, see above."
    quietly schemas python3 tests/lib/schemas.py \
        "$(echo "$venv"/lib/python3*/site-packages/kubernetes_validate/kubernetes-json-schema/v1.34.0-local-strict)" "$venv/out" ||
        fail "The schemas of Kubernetes are not as expected, see above."
    # another run may have been first, with the same
    mv -T "$venv/out" "$KONTOR_SCHEMAS" 2>/dev/null || [ -d "$KONTOR_SCHEMAS" ] || fail "Cannot write to $TOOLS."
    rm -rf "$venv"
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

# buf, the program of its npm package for this platform, without the launcher; TypeScript with the types of some kinds that are not
# Kubernetes' own, in KONTOR_NODE_MODULES.
need_npm_tools() {
    local stamp folder
    stamp=$(cat tests/tools/package.json tests/tools/package-lock.json | sha256sum | cut -c 1-12)
    folder=$TOOLS/npm-$stamp
    if [ ! -d "$folder/node_modules" ]; then
        command -v npm >/dev/null || need_packages "${NODE_PACKAGES[@]}"
        step "installing buf and TypeScript by npm"
        mkdir -p "$folder" && cp tests/tools/{package.json,package-lock.json,.npmrc} "$folder/"
        quietly npm sh -c "cd '$folder' && npm ci --ignore-scripts" || fail "npm could not install buf and TypeScript, see above."
    fi
    export KONTOR_NODE_MODULES=$folder/node_modules
    PATH=$(echo "$folder"/node_modules/@bufbuild/buf-linux-*/bin):$PATH
}
