#!/usr/bin/env bash
# Makes the two key files of budcluster with openssl, and checks those that are there. Never overwrites a key.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: ./setup-crypto-keys.sh [--dir FOLDER] [--group-readable]

Makes rsa-private-key.pem (RSA, 4096 bits) and symmetric-key-256 (32 random bytes) in FOLDER
(default: crypto-keys beside this script). Keys that are there are checked and stay as they are.

  --dir FOLDER       where the keys go
  --group-readable   mode 640 instead of 600, for a container that runs as another user of the file's group
  --help             show this text

Keep a copy of both files apart from the database's backups: without them no stored secret can be opened.
TEXT
}

say() { printf 'budcluster: %s\n' "$*"; }
fail() { printf 'budcluster: %s\n' "$*" >&2; exit 1; }

dir="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/crypto-keys"
mode=600
while [ $# -gt 0 ]; do
  case "$1" in
    --dir) [ -n "${2:-}" ] || fail "--dir needs a folder."; dir=$2; shift 2 ;;
    --dir=?*) dir=${1#--dir=}; shift ;;
    --group-readable) mode=640; shift ;;
    -h | --help) usage; exit 0 ;;
    *) fail "unknown option '$1'; --help shows what there is." ;;
  esac
done
case "$dir" in -*) dir=./$dir ;; esac

command -v openssl >/dev/null 2>&1 ||
  fail "openssl is not installed; install it, or run: .venv/bin/python -m budcluster.credentials.keys make --dir '$dir'"

umask 077
temporary=
trap '[ -z "$temporary" ] || rm -f -- "$temporary"' EXIT

[ -d "$dir" ] || mkdir -p -- "$dir" || fail "the folder $dir cannot be made; choose another one with --dir."
[ "$mode" = 600 ] || chmod g+rx -- "$dir" || fail "the folder $dir belongs to somebody else; choose another one with --dir."

# publish NAME: the finished temporary file gets its name, unless somebody made that key meanwhile.
publish() {
  chmod "$mode" -- "$temporary"
  ln -- "$temporary" "$dir/$1" 2>/dev/null || fail "$dir/$1 cannot be written, or was made just now by somebody else; run this again."
  rm -f -- "$temporary"
  temporary=
}

start() { temporary=$(mktemp -- "$dir/.$1.XXXXXX") || fail "the folder $dir cannot be written; choose another one with --dir."; }

# The permissions that the service insists on: others must not write, and should not read.
check_permissions() {
  local others
  others=$(stat -c %a -- "$1")
  others=${others: -1}
  [ $((others & 2)) -eq 0 ] || fail "$1 may be written by every user of this machine; chmod 600 it, then make new keys."
  [ $((others & 4)) -eq 0 ] || say "warning: $1 may be read by every user of this machine; chmod 600 ends that."
}

rsa=$dir/rsa-private-key.pem
if [ -e "$rsa" ]; then
  [ -r "$rsa" ] || fail "$rsa may not be read by you; run this as its owner."
  text=$(openssl rsa -in "$rsa" -noout -check -text -passin pass: 2>/dev/null) ||
    fail "$rsa is no usable RSA private key (damaged, of another kind, or with a passphrase); move it away and run this again."
  bits=$(printf '%s\n' "$text" | sed -n 's/^.*Private-Key: (\([0-9]*\) bit.*$/\1/p')
  [ "${bits:-0}" -ge 4096 ] || fail "$rsa has ${bits:-0} bits, and 4096 are the least; move it away and run this again."
  check_permissions "$rsa"
  say "$rsa is there and usable ($bits bits); it stays as it is."
else
  start rsa-private-key.pem
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out "$temporary" 2>/dev/null || fail "openssl could not make an RSA key."
  publish rsa-private-key.pem
  say "$rsa is new: an RSA key of 4096 bits, mode $mode."
fi

symmetric=$dir/symmetric-key-256
if [ -e "$symmetric" ]; then
  [ -r "$symmetric" ] || fail "$symmetric may not be read by you; run this as its owner."
  size=$(stat -L -c %s -- "$symmetric")
  [ "$size" -eq 32 ] || fail "$symmetric has $size bytes, and a symmetric key has exactly 32; move it away and run this again."
  check_permissions "$symmetric"
  say "$symmetric is there and usable; it stays as it is."
else
  start symmetric-key-256
  openssl rand -out "$temporary" 32 2>/dev/null || fail "openssl could not make random bytes."
  publish symmetric-key-256
  say "$symmetric is new: 32 random bytes, mode $mode."
fi
