#!/bin/sh
# What a configure script does all day: small compiles, sed, grep and sort.
#
#   configure.sh CHECKS
#
# runs CHECKS checks in the current directory and leaves config.h there.
set -e
checks=$1
functions="pipe2 malloc no_such_call epoll_create1 strdup getline accept4 dup3 memfd_create memcpy strlen fopen"
: >config.log
: >confdefs.h
i=0
while [ "$i" -lt "$checks" ]; do
	for function in $functions; do
		[ "$i" -lt "$checks" ] || break
		i=$((i + 1))
		name=$(echo "have_${function}_$i" | tr a-z A-Z)
		cat >conftest.c <<END
$(sed -e 's/^/#define /' -e '20q' confdefs.h)
char $function();
int main(void) { return $function() != 0; }
END
		if gcc -w -fno-builtin -o conftest conftest.c >>config.log 2>&1; then
			found=yes
		else
			found=no
		fi
		rm -f conftest conftest.c
		cat >header.c <<END
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
END
		if gcc -E header.c 2>>config.log | grep -v '^#' | sort -u | sed -n '/extern/p' | grep "$function" >>config.log; then
			found="$found, declared"
		fi
		rm -f header.c
		echo "$name \"$found\"" >>confdefs.h
	done
done
sort confdefs.h | sed 's/^/#define /' >config.h
grep yes config.h >/dev/null
