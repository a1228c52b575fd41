# shellcheck shell=bash
# Sourced by deploy/install, deploy/upgrade and deploy/uninstall: where things are on a host, and how a release is made.
#
#   /opt/chorus/repository.git   what releases are made of
#   /opt/chorus/releases/COMMIT  a release: the files of a commit, and its .venv; nothing in it changes any more
#   /opt/chorus/packages         what releases have installed, which share these files
#   /opt/chorus/current          a link to the release that processes are started from
#   /etc/chorus.env              settings
#   /etc/chorus/credentials      secrets: files that are named after their setting
#   /var/lib/chorus              jobs, API keys, voices
#   /var/cache/chorus            cached audio, weights

# A command substitution ends at its first error, too.
shopt -s inherit_errexit

HERE="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
# shellcheck disable=SC2034  # the commands use them
{
    ACCOUNT=chorus
    PREFIX=/opt/chorus
    REPOSITORY=$PREFIX/repository.git
    RELEASES=$PREFIX/releases
    CURRENT=$PREFIX/current
    SETTINGS=/etc/chorus.env
    CREDENTIALS=/etc/chorus/credentials
    STATE=/var/lib/chorus
    CACHE=/var/cache/chorus
    UNIT=/etc/systemd/system/chorus.service
    COMMAND=/usr/local/bin/chorus
}

say() { printf '%s\n' "$@" >&2; }

fail() {
    say "$@"
    exit 1
}

require_root() {
    (( $(id -u) == 0 )) || fail "Run this as root."
    [[ -d /run/systemd/system ]] || fail "systemd does not run on this host: start the server with scripts/serve."
}

# Prints the engine that the settings name.
chosen_engine() {
    sed -nE "s/^CHORUS_ENGINE=[\"']?([a-z0-9-]+)[\"']?[[:space:]]*$/\1/p" "$SETTINGS" 2>/dev/null | tail -n 1
}

# Makes the release of a commit unless it exists, and prints its folder: make_release COMMIT
make_release() {
    local commit="$1" release="$RELEASES/${1:0:12}"
    if [[ ! -e $release/.complete ]]; then
        say "Making $release"
        rm -rf "$release"
        mkdir -p "$release"
        git --git-dir="$REPOSITORY" update-ref "refs/releases/${release##*/}" "$commit"
        git --git-dir="$REPOSITORY" archive "$commit" | tar -x -C "$release"
        touch "$release/.complete"
    fi
    # Readable for the service's user, whatever the umask of the shell.
    (umask 022 && install_environment "$release")
    printf '%s\n' "$release"
}

# What the processes import first.
MODULES=(balancer.process balancer.cli.main balancer.launch.log_relay balancer.launch.watchdog supervisor.supervisord
    worker.server)

# Installs what the chosen engine needs, and imports it once: Python keeps what it compiles meanwhile, and the service's
# user cannot write to a release.
install_environment() {
    local release="$1" engine modules=("${MODULES[@]}")
    engine="$(chosen_engine)"
    case "$engine" in
        "" | hibari) modules+=(worker.engines.hibari) ;;
        *) modules+=(worker.engines.chatterbox.batched) ;;
    esac
    CHORUS_ENGINE="$engine" UV_CACHE_DIR="$PREFIX/packages" "$release/scripts/serve" --help >/dev/null
    env --unset=PYTHONDONTWRITEBYTECODE "$release/.venv/bin/python" -P -c \
        'import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]' "${modules[@]}" || fail "The release does not run."
}

# Makes a release the one that processes are started from, at once: switch_to FOLDER
switch_to() {
    ln -sfn "$1" "$CURRENT.new"
    mv -T "$CURRENT.new" "$CURRENT"
}

# Installs the unit of the current release, and what depends on the engine.
install_unit() {
    local jit="$UNIT.d/jit.conf"
    install -m 0644 "$CURRENT/deploy/chorus.service" "$UNIT"
    case "$(chosen_engine)" in
        "" | hibari) rm -f "$jit" ;;
        *) install -D -m 0644 "$CURRENT/deploy/jit.conf" "$jit" ;;
    esac
    install -m 0755 "$CURRENT/deploy/chorus" "$COMMAND"
    systemctl daemon-reload
}
