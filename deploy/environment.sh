#!/usr/bin/env bash
# Makes or refreshes .venv from a lock file: deploy/environment.sh [sandbox|dev]
#
# "sandbox" is what deploy/start_dev.sh needs, "dev" adds tests, lint and types. Prints nothing when all is in place.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
profile=${1:-sandbox}
venv="$root/.venv"

fail() { printf 'budcluster: %s\n' "$*" >&2; exit 1; }

case "$profile" in sandbox | dev) ;; *) fail "unknown environment '$profile'; use sandbox or dev." ;; esac

platform="$(uname -s)/$(uname -m)"
[ "$platform" = "Linux/x86_64" ] || fail "this runs on linux/amd64 only, and this machine is $platform."
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}') || glibc=
[ -n "$glibc" ] && [ "$(printf '%s\n2.34\n' "$glibc" | sort -V | head -n 1)" = 2.34 ] ||
  fail "this needs glibc 2.34 or newer, and this machine has '${glibc:-none}'; use a newer distribution."

python=
for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
  if command -v "$candidate" >/dev/null 2>&1 &&
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed; install it, or name one with PYTHON=/path/to/python3."

# One installer at a time; a second one waits and then finds the work done.
mkdir -p "$root/.state"
exec 9>"$root/.state/environment.lock"
flock 9

# stamp PROFILE: changes with what is to be installed.
stamp() { cat "requirements/$1.txt" requirements/bootstrap.txt pyproject.toml | sha256sum | cut -d' ' -f1; }

# An environment knows its own place: one that was copied or moved along with its checkout is made anew.
if [ -e "$venv/.made-for" ] && [ "$(cat "$venv/.made-for")" != "$root" ]; then
  rm -rf "$venv"
fi

want=$(stamp "$profile")
if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.installed-$profile" 2>/dev/null)" = "$want" ]; then
  exit 0
fi

echo "budcluster: installing the $profile environment into .venv (once; a minute or two)"
if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
  rm -rf "$venv"
  "$python" -m venv "$venv" ||
    fail "could not make a virtual environment; install your distribution's venv package (Debian: python3-venv) and try again."
fi
# A home that cannot be written must not stop the start: caches move next to the state.
if ! mkdir -p "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}" 2>/dev/null || ! [ -w "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}" ]; then
  export XDG_CACHE_HOME="$root/.state/cache"
fi
rm -f "$venv"/.installed-*
printf '%s\n' "$root" >"$venv/.made-for"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt ||
  fail "could not install the package installer; is a Python package index reachable?"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --link-mode copy --require-hashes -r "requirements/$profile.txt" ||
  fail "could not install requirements/$profile.txt; is a Python package index reachable?"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable . ||
  fail "could not install budcluster itself into .venv."
printf '%s\n' "$want" >"$venv/.installed-$profile"
# The dev lock holds everything of the sandbox lock, at the same versions.
if [ "$profile" = dev ]; then
  stamp sandbox >"$venv/.installed-sandbox"
fi
