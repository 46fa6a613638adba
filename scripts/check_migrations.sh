#!/usr/bin/env bash
# Runs the migrations up, down and up again with the real binary, on a SQLite file and on a
# PostgreSQL cluster of its own, and compares the schemas: `down` has to change the schema, and the
# second `up` has to end where the first did.
#
# Usage: scripts/check_migrations.sh PATH_OF_CHROMA_SYNC
set -euo pipefail

cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: $0 PATH_OF_CHROMA_SYNC" >&2; exit 2; }
binary=$(realpath "$1")
postgres=$(readlink -f .peers/postgres || true)
if [ ! -x "$postgres/bin/initdb" ]; then
    echo "migrations: error: .peers/postgres is missing; run: make peers" >&2
    exit 1
fi

# Not inside the repository: the user that PostgreSQL runs as may not be allowed to enter it.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/chroma-sync-migrations.XXXXXX")
server=
remove_everything() {
    if [ -n "$server" ]; then
        kill -INT "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap remove_everything EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# PostgreSQL refuses to run as root, so root hands it to an account without rights.
as_postgres=(setpriv)
if [ "$(id -u)" = 0 ]; then
    account=nobody
    if id postgres >/dev/null 2>&1; then
        account=postgres
    fi
    as_postgres+=(--reuid "$(id -u "$account")" --regid "$(id -g "$account")" --clear-groups)
    chmod 755 "$scratch"
fi
# Whatever ends this script, even SIGKILL, ends the server with it.
as_postgres+=(--pdeathsig INT)

# check NAME URL DUMP_COMMAND...: `DUMP_COMMAND` prints the schema of the database at URL.
check() {
    local name=$1 url=$2 step
    shift 2
    for step in up down up; do
        CHROMA_SYNC__STORE__URL=$url "$binary" migrate "$step" >"$scratch/$name.log" 2>&1 || {
            cat "$scratch/$name.log" >&2
            echo "migrations: error: 'migrate $step' failed on $name" >&2
            return 1
        }
        CHROMA_SYNC__STORE__URL=$url "$binary" migrate status >"$scratch/$name.log" 2>&1 || {
            cat "$scratch/$name.log" >&2
            echo "migrations: error: 'migrate status' failed on $name after '$step'" >&2
            return 1
        }
        if [ "$step" = up ] && [ ! -e "$scratch/$name.up" ]; then
            "$@" >"$scratch/$name.up"
        else
            "$@" >"$scratch/$name.$step.again"
        fi
    done
    [ -s "$scratch/$name.up" ] || {
        echo "migrations: error: 'migrate up' made no schema on $name" >&2
        return 1
    }
    if cmp -s "$scratch/$name.up" "$scratch/$name.down.again"; then
        echo "migrations: error: 'migrate down' changed nothing on $name" >&2
        return 1
    fi
    diff -u "$scratch/$name.up" "$scratch/$name.up.again" >&2 || {
        echo "migrations: error: up, down, up ends in another schema than up on $name" >&2
        return 1
    }
    echo "migrations: up, down, up agree on $name ($(grep -c -i 'create ' "$scratch/$name.up") objects)"
}

sqlite_schema() {
    python3 -c '
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
for (sql,) in database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name"):
    print(sql)
' "$1"
}

# Newer versions of pg_dump print a random key in \restrict lines.
postgres_schema() {
    "$postgres/bin/pg_dump" --schema-only --no-owner --dbname "$1" | grep -v -E '^\\(un)?restrict '
}

check sqlite "sqlite://$scratch/store.db" sqlite_schema "$scratch/store.db"

data=$scratch/postgres
install -d -m 700 "$data"
if [ "$(id -u)" = 0 ]; then
    chown "$account" "$data"
fi
"${as_postgres[@]}" "$postgres/bin/initdb" --pgdata "$data" --username postgres --auth trust --encoding UTF8 \
    --locale C --no-sync >"$scratch/initdb.log" 2>&1 || {
    cat "$scratch/initdb.log" >&2
    echo "migrations: error: initdb failed" >&2
    exit 1
}
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${as_postgres[@]}" "$postgres/bin/postgres" -D "$data" -c listen_addresses=127.0.0.1 -c port="$port" \
    -c unix_socket_directories= -c fsync=off >"$scratch/postgres.log" 2>&1 &
server=$!
url=postgres://postgres@127.0.0.1:$port/postgres
for ((attempt = 0; ; attempt++)); do
    if "$postgres/bin/pg_isready" --quiet --dbname "$url"; then
        break
    fi
    if [ "$attempt" = 300 ] || ! kill -0 "$server" 2>/dev/null; then
        cat "$scratch/postgres.log" >&2
        echo "migrations: error: PostgreSQL did not start" >&2
        exit 1
    fi
    sleep 0.1
done
check postgres "$url" postgres_schema "$url"
