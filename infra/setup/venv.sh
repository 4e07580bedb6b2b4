#!/usr/bin/env bash
# Make .venv hold what requirements.lock pins, and Tapir itself; do nothing when it does already.
#
# An install may be interrupted at any moment and started again, also beside another one. A virtual
# environment cannot be moved, so one that was made at another place is made anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly venv=$PWD/.venv
readonly python=$venv/bin/python
readonly stamp=$venv/tapir-installed
readonly recent='import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))'

wanted() { # what an environment that is up to date was made from
    { echo "$venv" && cat requirements.lock pyproject.toml; } | sha256sum
}

up_to_date() {
    [[ -x $python && -f $stamp && $(<"$stamp") == "$(wanted)" ]]
}

usable() { # a working interpreter and pip, made at this place
    "$python" -c "$recent" 2>/dev/null &&
        "$python" -m pip --version >/dev/null 2>&1 &&
        head -n 2 "$venv/bin/pip" | grep -qF "$venv/bin/python"
}

find_python() { # 3.11 first: it is what the lock was resolved with
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [[ -n $candidate ]] && "$candidate" -c "$recent" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    cat >&2 <<END
Tapir needs Python 3.11 or newer with its venv module; python3 here is $(python3 --version 2>&1 || true).
Install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv), or name it:
    make PYTHON=/path/to/python3.11 ${MAKECMDGOALS:-test}
END
    return 1
}

install() {
    local base
    if ! usable; then
        base=$(find_python)
        echo "Making a virtual environment in .venv with $("$base" --version)"
        "$base" -m venv --clear "$venv"
    fi
    echo "Installing what requirements.lock pins into .venv (7 GB; some minutes the first time)"
    rm -f "$stamp"
    "$python" infra/setup/mend.py
    "$python" -m pip install --disable-pip-version-check --no-deps -r requirements.lock |
        { grep -v '^Requirement already satisfied' || true; }
    "$python" -m pip install --disable-pip-version-check --quiet --no-deps -e .
    wanted >"$stamp"
}

up_to_date && exit
exec 9<requirements.lock
flock 9 # two `make` at once: the second waits, and finds the work done
up_to_date || install
