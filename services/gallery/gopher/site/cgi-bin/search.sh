#!/bin/bash
# Full text search: the documents that hold the words as they are, as items of a menu. A query is no pattern and no option.
query=${QUERY_STRING//+/ }
cd /srv/gopher/docs || exit 1
found=0
for file in *.txt; do
    if [ -n "$query" ] && grep --quiet --ignore-case --fixed-strings -e "$query" "$file"; then
        printf '0%s\t/docs/%s\t%s\t%s\r\n' "${file%.txt}" "$file" "$SERVER_HOST" "$SERVER_PORT"
        found=1
    fi
done
[ $found = 1 ] || printf '3Nothing was found\t\terror.host\t1\r\n'
printf '.\r\n'
