#!/bin/sh
# Puts what the service network runs, nft and iptables with their libraries, below a directory that becomes an image of
# nothing else: image-tools.sh DIRECTORY.
set -eu

directory=$1
copy() { install -D "$1" "$directory$1"; }
for name in nft iptables; do
    if ! program=$(PATH=$PATH:/usr/sbin:/sbin command -v "$name"); then
        echo "image: there is no $name here (Debian and Ubuntu: nftables, iptables): Services lead nowhere with this image" >&2
        continue
    fi
    install -D "$(readlink -f "$program")" "$directory/usr/local/bin/$name"
    for library in $(ldd "$program" | grep -o '/[^ ]*'); do copy "$library"; done
done
# What iptables loads for the match of the service network's rule.
for extension in connmark mark; do
    for file in /usr/lib/*/xtables/libxt_$extension.so; do [ ! -e "$file" ] || copy "$(readlink -f "$file")"; done
done
