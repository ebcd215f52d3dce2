#!/bin/sh
# Puts the container engines of another suite of the distribution (for example trixie or sid) into
# target/tools/engines/SUITE, with the package client and from the mirror that this machine uses. Nothing is installed:
# the tests start them from there when KRUST_TEST_ENGINES names SUITE's directory. What is there is kept.
#
#   install-engines.sh SUITE...
set -eu
cd "$(dirname "$0")/.."
mkdir -p target/tools/engines
tools=$(cd target/tools/engines && pwd -P)

# What the engines are, and the libraries of those that need a newer C library than this machine may have.
engines="containerd docker.io docker-cli runc crun"
libraries="libc6 libseccomp2 libcap2 libsystemd0 libgcc-s1"
# Only in one suite or another.
more="libyajl2 libjson-c5 libblake3-0 libtbb12 libtbbmalloc2 libstdc++6"

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
[ -n "$mirror" ] || { echo "install-engines: the package client has no Debian mirror" >&2; exit 1; }

# The package client with lists of its own. It is root's, or it could not write into root's directories.
client() {
    program=$1; shift
    "$program" -qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" "$@"
}

fetch() {
    suite=$1 work=$tools/$1.part
    rm -rf "$work"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$work/root"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] $mirror $suite main" >"$work/sources.list"
    client apt-get update
    known=$(client apt-cache pkgnames)
    names=
    for name in $engines $libraries $more; do
        if echo "$known" | grep -qx "$name"; then names="$names $name/$suite"; fi
    done
    # shellcheck disable=SC2086 # a list of words; patchelf is run here, so it is this machine's
    (cd "$work/packages" && client apt-get download $names && apt-get -qq -o APT::Sandbox::User=root download patchelf)
    for package in "$work"/packages/*.deb; do
        case ${package##*/} in
        patchelf_*) dpkg -x "$package" "$work/patchelf" ;;
        *) dpkg -x "$package" "$work/root" ;;
        esac
    done
    # Outside of the root, so that the programs find nothing but each other beside them.
    mkdir "$work/bin"
    for program in "$work"/root/usr/bin/* "$work"/root/usr/sbin/*; do
        case ${program##*/} in
        containerd | containerd-shim-* | ctr | dockerd | docker | docker-proxy | runc | crun) cp "$program" "$work/bin/" ;;
        esac
    done
    # The OCI runtimes get the suite's own loader and libraries; the rest runs with any C library.
    place=$tools/$suite/lib
    mkdir "$work/lib"
    find "$work/root" -name 'ld-linux-*' -type f -exec cp {} "$work/lib/" \;
    find "$work/root" -path '*/lib/*' -name 'lib*.so*' -exec cp -P {} "$work/lib/" \;
    loader=$(cd "$work/lib" && ls -d ld-linux-* | head -n 1)
    for program in runc crun; do
        "$work/patchelf/usr/bin/patchelf" --set-interpreter "$place/$loader" --force-rpath --set-rpath "$place" "$work/bin/$program"
    done
    rm -rf "$work/packages" "$work/root" "$work/patchelf" "$work/lists" "$work/cache" "${tools:?}/$suite"
    mv "$work" "$tools/$suite"
    PATH=$tools/$suite/bin:$PATH
    echo "installed $tools/$suite: $(containerd --version | cut -d ' ' -f 3), $(dockerd --version), $(runc --version | head -n 1), $(crun --version | head -n 1)"
}

[ $# -gt 0 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
for suite; do
    [ -d "$tools/$suite" ] || (fetch "$suite")
done
