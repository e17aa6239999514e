#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian 12's 32-bit glibc (2.36) still makes every socket through socketcall(2).
#
# Linux has socket(2) and its siblings as calls of their own on i386 since 4.3 (2015), so one expects a C library of
# 2022 to use them. It does not: without --enable-kernel=4.3 the multiplexer is compiled in. A seccomp profile that
# decides by the family of a socket sees, in 32-bit programs, only a pointer; a profile that refuses socketcall leaves
# such programs without a network.
#
# Expected below: `socket` loads 0x66 (102, socketcall) as its call number and never 0x167 (359, socket).
set -euo pipefail
version=2.36-9+deb12u14
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq download "libc6-i386=$version" 2>/dev/null
dpkg -x libc6-i386_*.deb .
libc=$(find . -name libc.so.6 -type f | head -n 1)
echo "libc6-i386 $version: $(file -bL "$libc" 2>/dev/null | cut -d, -f1,2 || true)"
start=$(objdump -T "$libc" | awk '$NF == "socket" { print "0x" $1 }')
# The function alone: up to its return.
code=$(objdump -d --no-show-raw-insn --start-address="$start" "$libc" | awk '{ print } /ret/ { exit }' || true)
grep -E 'mov +\$0x(66|167),%eax' <<<"$code" || true
if grep -qE '\$0x66,%eax' <<<"$code" && ! grep -qE '\$0x167,%eax' <<<"$code"; then
  echo "seen: socket() is call 102, socketcall"
else
  echo "changed: socket() is not made through socketcall alone" >&2
  exit 1
fi
