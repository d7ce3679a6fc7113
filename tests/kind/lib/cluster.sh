# shellcheck shell=bash
# A kind cluster with kontor in it: made, filled, looked at when something fails, deleted. Source it after deploy/lib/install.sh
# and tests/lib/tools.sh.

NAME=${KONTOR_KIND_NAME:-kontor}
STATE=$KONTOR_CACHE/kind/$NAME
KUBECONFIG_FILE=$STATE/kubeconfig
KUBECTL=(kubectl --kubeconfig "$KUBECONFIG_FILE" --namespace kontor)
NODE=$NAME-control-plane
NODE_PORT=30080 # the gateway, in the overlay
KIND=v0.30.0
NODE_OFFICIAL=kindest/node:v1.34.0 # of that version of kind
NODE_LOCAL=kindest/node:local
READY_LIMIT=${KONTOR_KIND_READY_SECONDS:-600}
# where the builder of the local node image leaves a metrics-server whose image the node has
METRICS=${KIND_NODE_CACHE:-/var/cache/kind-node}/metrics-server.yaml
# what the regions' manifests use of others: a Go module, and its files with the definitions
FOREIGN_KINDS=(
    "sigs.k8s.io/gateway-api@v1.3.0 config/crd/standard/gateway.networking.k8s.io_gateways.yaml
        config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"
    "github.com/cert-manager/cert-manager@v1.18.2 deploy/crds/crd-certificates.yaml deploy/crds/crd-issuers.yaml"
    "github.com/prometheus-operator/prometheus-operator@v0.84.0
        example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"
    "github.com/external-secrets/external-secrets@v0.18.2 config/crds/bases/external-secrets.io_externalsecrets.yaml"
)
MADE='' APPLIED=''

# lap MESSAGE: a progress line with the time since the start.
lap() {
    printf '✓ %s (%s s)\n' "$*" "$SECONDS"
}

need_docker() {
    command -v docker >/dev/null || fail "There is no docker: install it (on Debian: apt-get install docker.io)."
    docker info >/dev/null 2>&1 || fail "No Docker daemon answers: start it (dockerd), and try again."
}

need_kind() {
    PATH=$TOOLS/kind-$KIND:$PATH
    command -v kind >/dev/null && return 0
    need_go
    step "compiling kind $KIND (a minute, once)"
    quietly kind env GOBIN="$TOOLS/kind-$KIND" GOFLAGS=-buildvcs=false go install "sigs.k8s.io/kind@$KIND" ||
        fail "go could not install kind, see above."
}

need_kubectl() {
    command -v kubectl >/dev/null || fail "There is no kubectl: install one of version 1.27 or newer."
    kubectl kustomize --help >/dev/null 2>&1 || fail "This kubectl knows no kustomize: install one of version 1.27 or newer."
}

# node_image: the node image to use; empty lets kind pull its own.
node_image() {
    local image
    for image in ${KIND_NODE_IMAGE:-"$NODE_OFFICIAL" "$NODE_LOCAL"}; do
        if docker image inspect "$image" >/dev/null 2>&1; then
            echo "$image"
            return 0
        fi
    done
    echo "${KIND_NODE_IMAGE:-}"
}

cluster_exists() {
    kind get clusters 2>/dev/null | grep -qx "$NAME"
}

# need_cluster: the cluster that was kept, when it answers, else a new one.
need_cluster() {
    local image
    if cluster_exists; then
        # whether it worked, the next line sees
        kind export kubeconfig --name "$NAME" --kubeconfig "$KUBECONFIG_FILE" >/dev/null 2>&1 || true
        if "${KUBECTL[@]}" get --raw /readyz >/dev/null 2>&1; then
            PORT=$(docker port "$NODE" "$NODE_PORT/tcp" | head -n 1 | sed 's/.*://')
            [ -n "$PORT" ] || fail "The cluster $NAME is not one of ours: it maps no port $NODE_PORT. KONTOR_KIND_NAME takes another name."
            lap "using the cluster $NAME that is there"
            return 0
        fi
        step "the cluster $NAME does not answer, it is made anew"
        delete_cluster
    fi
    PORT=${KONTOR_KIND_PORT:-$(free_port)}
    image=$(node_image)
    step "making the cluster $NAME from ${image:-the node image of kind}"
    MADE=yes
    rm -f "$STATE/loaded"
    quietly kind-create kind create cluster --name "$NAME" --kubeconfig "$KUBECONFIG_FILE" --wait 180s \
        --config <(kind_config) ${image:+--image "$image"} || fail "kind could not make a cluster, see above."
    lap "the cluster is ready"
}

kind_config() {
    cat <<YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
kubeadmConfigPatches:
  # a container that ended before is started as soon as one that did not: whoever kills it waits for it, and the next run too
  - |
    kind: KubeletConfiguration
    featureGates: {KubeletCrashLoopBackOffMax: true}
    crashLoopBackOff: {maxContainerRestartPeriod: 1s}
  # What the cluster knows need not outlive a power cut, as the node does not, and there is nobody to elect. How often autoscalers look:
  # 15 s where nobody waits for them
  - |
    kind: ClusterConfiguration
    etcd: {local: {extraArgs: {unsafe-no-fsync: "true"}}}
    scheduler:
      extraArgs: {leader-elect: "false"}
    controllerManager:
      extraArgs:
        leader-elect: "false"
        horizontal-pod-autoscaler-sync-period: 5s
nodes:
  - role: control-plane
    extraPortMappings:
      - {containerPort: $NODE_PORT, hostPort: $PORT, listenAddress: 127.0.0.1}
YAML
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

delete_cluster() {
    quietly kind-delete kind delete cluster --name "$NAME" --kubeconfig "$KUBECONFIG_FILE" || fail "The cluster $NAME could not be deleted."
    rm -f "$STATE/loaded"
    lap "the cluster $NAME is deleted"
}

# registry_is_there: whether images can be pulled. Some networks answer everything, so the answer must be a registry's.
registry_is_there() {
    curl --silent --max-time 10 --head https://registry-1.docker.io/v2/ 2>/dev/null | grep -qi '^docker-distribution-api-version'
}

# images: built where something changed, and loaded into the cluster.
images() {
    local options=("${BINARIES[@]}") names ids changed=() i
    if ! registry_is_there; then
        step "no image registry is reachable: images are made from packages"
        options+=(--offline)
    fi
    deploy/images/build "${options[@]}" || fail "The images could not be built, see above."
    lap "the images are built"
    mapfile -t names < <(deploy/images/build --list)
    mapfile -t ids < <(docker image inspect -f '{{.Id}}' "${names[@]}")
    [ ${#ids[@]} = ${#names[@]} ] || fail "Some images are not there, see above."
    touch "$STATE/loaded"
    CHANGED=()
    for i in "${!names[@]}"; do
        grep -qx "${names[i]} ${ids[i]}" "$STATE/loaded" && continue
        changed+=("${names[i]}")
        ! grep -q "^${names[i]} " "$STATE/loaded" || CHANGED+=("${names[i]}")
    done
    [ ${#changed[@]} -gt 0 ] || return 0
    step "loading ${changed[*]}"
    quietly kind-load kind load docker-image --name "$NAME" "${changed[@]}" || fail "The images could not be loaded, see above."
    for i in "${!names[@]}"; do echo "${names[i]} ${ids[i]}"; done >"$STATE/loaded"
    lap "the images are loaded"
}

# renew_changed: a tag that was built anew is the same name, which Kubernetes does not look at again.
renew_changed() {
    local name
    for name in "${CHANGED[@]}"; do
        "${KUBECTL[@]}" get deployments,statefulsets -o name |
            while read -r owner; do
                if "${KUBECTL[@]}" get "$owner" -o 'jsonpath={..image}' | grep -qw "$name"; then
                    "${KUBECTL[@]}" rollout restart "$owner" >/dev/null
                fi
            done
    done
}

# wait_until_ready: with a line whenever something has changed.
wait_until_ready() {
    local until=$((SECONDS + READY_LIMIT)) line last='' said=0
    APPLIED=yes
    while :; do
        line=$("${KUBECTL[@]}" get pods --no-headers 2>/dev/null | awk '
            { split($2, ready, "/") }
            # it ends by itself, and nobody asks it any more
            $3 == "Terminating" { next }
            { all++ }
            $3 == "Completed" || ready[1] == ready[2] && $3 == "Running" { well++; next }
            { missing = missing ", " $1 " " $3 }
            END { printf "%d of %d pods are ready%s", well, all, missing }')
        if [ "$line" != "$last" ] && [ $((SECONDS - said)) -ge 3 ]; then
            printf '  %4s s  %s\n' "$SECONDS" "${line:0:180}"
            last=$line said=$SECONDS
        fi
        if ! grep -q , <<<"$line" && everything_is_there; then return 0; fi
        [ "$SECONDS" -lt "$until" ] || fail "Not everything is ready after $READY_LIMIT s: $line"
        sleep 1
    done
}

# everything_is_there: each Deployment, StatefulSet and Job has what it wants, and the gateway says so too.
everything_is_there() {
    "${KUBECTL[@]}" get deployments,statefulsets,jobs -o json | python3 -c '
import json, sys
for item in json.load(sys.stdin)["items"]:
    spec, status = item["spec"], item.get("status", {})
    if item["kind"] == "Job":
        well = status.get("succeeded", 0) >= spec.get("completions", 1)
    else:
        now = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
        # a StatefulSet that is replaced on deletion only has updated replicas all the same
        wanted = spec["replicas"]
        well = now and status.get("readyReplicas", 0) == wanted == status.get("replicas", 0) and status.get("updatedReplicas", wanted) == wanted
    if not well:
        sys.exit(1)
' && curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:$PORT/readyz"
}

# foreign_kinds: the definitions of the kinds that only the regions' clusters have.
foreign_kinds() {
    local line words folder file kinds=$STATE/foreign-kinds.yaml
    if [ -s "$kinds" ] && "${KUBECTL[@]}" get -f "$kinds" >/dev/null 2>&1; then return 0; fi
    need_go
    step "fetching the kinds of the Gateway API, cert-manager, the Prometheus operator and External Secrets"
    : >"$kinds"
    for line in "${FOREIGN_KINDS[@]}"; do
        mapfile -t words < <(tr -s ' \n' '\n' <<<"$line")
        folder=$(go mod download -json "${words[0]}" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])') ||
            fail "go could not download ${words[0]}."
        for file in "${words[@]:1}"; do
            # some are templates of Helm as to their labels
            { echo --- && sed '/{{/d' "$folder/$file"; } >>"$kinds"
        done
    done
    quietly kind-foreign "${KUBECTL[@]}" apply --server-side -f "$kinds" || fail "The kinds could not be applied, see above."
    quietly kind-foreign "${KUBECTL[@]}" wait --for=condition=Established --timeout=60s -f "$kinds" ||
        fail "The kinds were not established, see above."
}

# metrics_server: it measures, and nobody can ask it yet. A cluster without is a smaller test, which its test says.
metrics_server() {
    METRICS_API=''
    [ -f "$METRICS" ] && [ "$(docker inspect -f '{{.Config.Image}}' "$NODE")" = "$NODE_LOCAL" ] || return 0
    METRICS_API=$STATE/metrics-api.yaml
    awk -v RS='---\n' '/(^|\n)kind: APIService\n/' "$METRICS" >"$METRICS_API"
    [ -s "$METRICS_API" ] || fail "$METRICS makes no API."
    local kubectl=(kubectl --kubeconfig "$KUBECONFIG_FILE")
    if ! "${kubectl[@]}" --namespace kube-system get deployment metrics-server >/dev/null 2>&1; then
        quietly kind-metrics "${kubectl[@]}" apply -f "$METRICS" || fail "The metrics-server could not be applied, see above."
    fi
    quietly kind-metrics "${kubectl[@]}" delete --ignore-not-found -f "$METRICS_API" ||
        fail "The metrics could not be taken from the autoscalers, see above."
}

# metrics: now they can.
metrics() {
    [ -z "$METRICS_API" ] || quietly kind-metrics kubectl --kubeconfig "$KUBECONFIG_FILE" apply -f "$METRICS_API" ||
        fail "The metrics could not be given to the autoscalers, see above."
}

# at_minimum: as many pods as one starts with; an earlier run's autoscalers may have added some, which take away from this one's.
at_minimum() {
    local target least now
    while read -r target least now; do
        [ "$least" != "$now" ] || continue
        "${KUBECTL[@]}" scale "deployment/$target" --replicas="$least" >/dev/null || fail "$target could not be scaled, see above."
    done < <("${KUBECTL[@]}" get hpa --no-headers -o 'custom-columns=:.spec.scaleTargetRef.name,:.spec.minReplicas,:.status.currentReplicas')
}

# diagnose: what one would look at first. The run has failed already: what cannot be had here must not hide the rest.
diagnose() {
    local pod
    printf '\n── pods\n'
    "${KUBECTL[@]}" get pods -o wide || true
    printf '\n── warnings\n'
    "${KUBECTL[@]}" get events --field-selector type=Warning --sort-by .lastTimestamp \
        -o 'custom-columns=LAST:.lastTimestamp,ABOUT:.involvedObject.name,REASON:.reason,COUNT:.count,MESSAGE:.message' | tail -n 25 || true
    # those that are not ready, or were started again
    "${KUBECTL[@]}" get pods --no-headers 2>/dev/null | awk '
        { split($2, ready, "/") }
        $3 != "Completed" && (ready[1] != ready[2] || $3 != "Running" || $4 > 0) { print $1, $4 }' |
        while read -r pod restarts; do
            printf '\n── log of %s\n' "$pod"
            "${KUBECTL[@]}" logs "$pod" --all-containers --tail 20 2>&1 | cut -c 1-400 || true
            if [ "${restarts%% *}" != 0 ]; then
                printf '── log of %s before it was started again\n' "$pod"
                "${KUBECTL[@]}" logs "$pod" --previous --tail 20 2>&1 | cut -c 1-400 || true
            fi
        done
}

# finish: on every way out.
finish() {
    local code=$?
    if [ $code != 0 ] && [ -n "$APPLIED" ]; then diagnose >&2; fi
    if [ -n "$KEEP" ]; then
        if cluster_exists; then
            printf 'kept: http://127.0.0.1:%s  kubectl --kubeconfig %s --namespace kontor get pods\n' "$PORT" "$KUBECONFIG_FILE"
        fi
    elif [ -n "$MADE" ] || [ $code = 0 ]; then
        ! cluster_exists || delete_cluster
    fi
    exit $code
}
