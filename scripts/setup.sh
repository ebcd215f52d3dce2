#!/bin/sh
# Sees to what krust needs from the system, on Debian and Ubuntu. What is there is left alone; what is installed or
# started is said.
#
#   setup.sh build    a C compiler (for SQLite and TLS) and protoc (for containerd's API)
#   setup.sh engine   a container engine that runs: Docker's or containerd's socket answers
#   setup.sh test     what the tests start by themselves: Docker, containerd, iptables, nftables, busybox, Python, Node
set -eu

say() { echo "setup: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else say "this needs root, and there is no sudo: $*"; exit 1
    fi
}

# Installs packages, after saying which and why.
install() {
    why=$1; shift
    if ! command -v apt-get >/dev/null; then
        say "$why: please install $* (this script only knows apt-get)"
        exit 1
    fi
    say "$why: installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -qq -o Acquire::Retries=5 && apt-get install -qq -y -o Acquire::Retries=5 --no-install-recommends "$@" >/dev/null' apt "$@"
}

# /usr/sbin, where daemons live, is not in everybody's path.
PATH=$PATH:/usr/sbin:/sbin

build() {
    if ! command -v cc >/dev/null || [ -z "$(cc -print-file-name=libc.a | grep /)" ]; then
        install "no C compiler with a static C library" gcc libc6-dev
    fi
    command -v protoc >/dev/null || install "no protoc" protobuf-compiler
}

docker_answers() {
    if [ -n "${DOCKER_HOST:-}" ]; then
        as_root env DOCKER_HOST="$DOCKER_HOST" docker version >/dev/null 2>&1
    else
        [ -S /var/run/docker.sock ] && as_root docker version >/dev/null 2>&1
    fi
}

containerd_answers() {
    [ -S /run/containerd/containerd.sock ] && as_root ctr --connect-timeout 2s version >/dev/null 2>&1
}

# Starts an installed daemon: by systemd, by its init script, or by hand.
start() {
    name=$1 daemon=$2 answers=$3
    say "$name is installed but does not run: starting it"
    if [ -d /run/systemd/system ]; then
        as_root systemctl start "$name" || true
    elif [ -x "/etc/init.d/$name" ]; then
        as_root "/etc/init.d/$name" start >/dev/null 2>&1 || true
    fi
    wait_for "$answers" 5 && return
    if [ ! -d /run/systemd/system ]; then
        say "starting $daemon by hand, its log is /var/log/$daemon.log"
        as_root sh -c 'nohup setsid "$1" >"/var/log/$1.log" 2>&1 </dev/null &' sh "$daemon"
    fi
    wait_for "$answers" 30 || { say "$name does not start; see its log"; exit 1; }
}

wait_for() {
    tries=$(($2 * 5))
    while ! "$1"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.2
    done
}

engine() {
    if docker_answers || containerd_answers; then return; fi
    if [ -n "${DOCKER_HOST:-}" ]; then say "no Docker answers at DOCKER_HOST=$DOCKER_HOST"; exit 1; fi
    if command -v dockerd >/dev/null; then start docker dockerd docker_answers
    elif command -v containerd >/dev/null; then start containerd containerd containerd_answers
    else
        # From Debian 13 on the command line has a package of its own.
        cli=$(apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli || true)
        install "no container engine" docker.io iptables $cli
        docker_answers || wait_for docker_answers 5 || start docker dockerd docker_answers
    fi
}

test_packages() {
    missing=
    for pair in dockerd:docker.io containerd:containerd runc:runc iptables:iptables nft:nftables \
        busybox:busybox-static python3:python3 pip3:python3-pip node:nodejs npm:npm; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
    done
    python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
    # A busybox that needs a C library does not run in an image made of it alone.
    if busybox=$(command -v busybox) && ldd "$busybox" 2>/dev/null | grep -q '=>'; then missing="$missing busybox-static"; fi
    # shellcheck disable=SC2086 # a list of words
    [ -z "$missing" ] || install "the tests need them" $missing
}

case ${1:-} in
build) build ;;
engine) engine ;;
test) test_packages ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
