#!/usr/bin/env bash
# The main job end to end: a git repository becomes a collection of a real Chroma server, watched live,
# and answers questions in words. Everything it writes lies in .demo/; its processes end with it.
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD
demo=$root/.demo
venv=$root/.peers/venv
binary=${CARGO_TARGET_DIR:-$root/target}/release/chroma-sync

say() { printf '\n== %s\n' "$*"; }

free_port() {
    "$venv/bin/python3" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

processes=()
cleanup() {
    local status=$?
    trap - EXIT
    if [ ${#processes[@]} -gt 0 ]; then
        kill "${processes[@]}" 2>/dev/null || true
        wait "${processes[@]}" 2>/dev/null || true
    fi
    if [ "$status" != 0 ]; then
        printf '\ndemo failed; the ends of the logs in .demo/:\n' >&2
        tail -n 15 "$demo"/*.log >&2 2>/dev/null || true
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# wait_for WHAT SECONDS COMMAND...: runs COMMAND until it succeeds.
wait_for() {
    local what=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $deadline ]; then
            printf 'demo: %s did not come up\n' "$what" >&2
            exit 1
        fi
        sleep 0.2
    done
}

say "building chroma-sync (the first time takes several minutes)"
cargo build --locked --release --bin chroma-sync

rm -rf "$demo"
mkdir -p "$demo/repositories/chroma-sync"

say "this project's own history as a bare repository"
repository=$demo/repositories/chroma-sync/chroma-sync.git
if git rev-parse --git-dir >/dev/null 2>&1 && git rev-parse --verify --quiet HEAD >/dev/null; then
    git clone --quiet --bare "file://$root" "$repository"
else
    # Sources without history, such as an unpacked archive.
    mkdir "$demo/work"
    tar --exclude=./target --exclude=./.peers --exclude=./.demo --exclude=./.git -cf - . | tar -xf - -C "$demo/work"
    git -C "$demo/work" init --quiet
    git -C "$demo/work" add --all
    git -C "$demo/work" -c user.name=demo -c user.email=demo@localhost commit --quiet --message "Sources"
    git clone --quiet --bare "file://$demo/work" "$repository"
fi
printf '%s at %s\n' "${repository#"$root"/}" "$(git -C "$repository" rev-parse --short HEAD)"

say "starting a Chroma server"
chroma_port=$(free_port)
"$venv/bin/chroma" run --path "$demo/chroma" --host 127.0.0.1 --port "$chroma_port" >"$demo/chroma.log" 2>&1 &
processes+=($!)
wait_for "the Chroma server" 60 "$venv/bin/python3" -c \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$chroma_port/api/v2/heartbeat', timeout=1)"
printf 'http://127.0.0.1:%s\n' "$chroma_port"

export CHROMA_SYNC__STORE__URL="sqlite://$demo/chroma-sync.db"
export CHROMA_SYNC__CHROMA__URL="http://127.0.0.1:$chroma_port"
export CHROMA_SYNC__MODELS__DIR="$root/.peers/models"
export CHROMA_SYNC__UPLOADS__DIRECTORY="$demo/uploads"
export CHROMA_SYNC__GITHUB__GIT_URL="file://$demo/repositories"
export CHROMA_SYNC__SERVER__LISTEN="127.0.0.1:0"

say "starting chroma-sync on SQLite, with an API key"
token=$("$binary" keys create --name demo --role admin)
"$binary" serve >"$demo/serve.out" 2>"$demo/chroma-sync.log" &
processes+=($!)
wait_for "chroma-sync" 30 grep -q '^listening on ' "$demo/serve.out"
cat "$demo/serve.out"
CHROMA_SYNC_SERVER=$(sed -n 's/^listening on //p' "$demo/serve.out")
export CHROMA_SYNC_SERVER CHROMA_SYNC_TOKEN=$token

# The documentation, the contract and the parts the questions are about: seconds of embedding on two
# cores. Without --include it is the whole repository.
sync=(sync chroma-sync/chroma-sync --collection demo
    --include '*.md' --include 'proto/*' --include 'config/*' --include 'src/app/*' --include 'src/worker/*')
say "chroma-sync ${sync[*]}"
"$binary" "${sync[@]}"

say "chroma-sync search --collection demo QUESTION..."
"$binary" search --collection demo \
    "how does a worker keep other workers from writing after it lost its lease?" \
    "which files of a repository are skipped?" \
    "what does a client do when a watch is interrupted?"

cat <<END

== done
To keep it running, start the same two servers yourself:

  .peers/venv/bin/chroma run --path .demo/chroma --port 8000

  export CHROMA_SYNC__MODELS__DIR=$root/.peers/models
  export CHROMA_SYNC__STORE__URL=sqlite://$demo/chroma-sync.db
  ${binary#"$root"/} keys create --name me --role admin    # prints the token for CHROMA_SYNC_TOKEN
  ${binary#"$root"/} serve

and then, with CHROMA_SYNC_TOKEN set, sync any repository of github.com:

  ${binary#"$root"/} sync OWNER/NAME --collection my-collection
END
