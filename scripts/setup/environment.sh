# shellcheck shell=bash
# Sourced by serve, test, check and the build machine: makes .venv and keeps it in step with pyproject.toml.
# The one entry is `ensure_environment [extra...]`; everything below it serves it.
#
# What lies in .venv besides the environment itself:
#   .stamp       what is installed: a key, then the extras. Written last, so it vouches for a whole install
#   .unfinished  there while an install changes files; found at the start, it means the last one was cut short
#   .lock        held during an install
#   install.log  what pip said last

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
VENV="$ROOT/.venv"
STAMP="$VENV/.stamp"
UNFINISHED="$VENV/.unfinished"
LOG="$VENV/install.log"
# shellcheck source=scripts/setup/pytorch.sh
source "$ROOT/scripts/setup/pytorch.sh"

# The distribution's own python3 comes last, so that what apt-get installs is found even when an unfit python3
# stands before it on PATH.
PYTHONS=(python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3)
COMPILED=(av httptools numpy onnxruntime psutil pydantic_core uvloop)
# What choose_pytorch adds to, when the extra that needs PyTorch is wanted.
PIP_OPTIONS=()
NEEDED_MB=1000
DURATION="about a minute"
APT_LISTS=/var/lib/apt/lists

# Becomes a Python module of this repository, in the environment that ensure_environment left.
run_module() {
    PYTHONPATH="$ROOT" exec "$VENV/bin/python" -P -m "$@"
}

# Leaves a .venv that holds the project and every extra named; exits with the reason when it cannot.
ensure_environment() {
    if stamp_covers "$@"; then return; fi
    mkdir -p "$VENV"
    refuse_anothers_venv
    # A subshell, so that the lock ends with it: the server started next must not inherit it.
    (
        trap 'say "Interrupted. The next run puts .venv right."; exit 130' INT
        exec 9>"$VENV/.lock"
        flock --nonblock 9 || { say "Waiting for another install into .venv"; flock 9; }
        if stamp_covers "$@"; then exit; fi
        make_venv
        install_project "$@"
    )
}

# ---- The stamp

stamp_covers() {
    local key="" extras="" extra
    [[ -f $STAMP ]] || return 1
    { read -r key && read -r extras; } <"$STAMP" || return 1
    [[ $key == "$(environment_key)" ]] || return 1
    for extra in "$@"; do
        [[ " $extras " == *" $extra "* ]] || return 1
    done
}

# Changes when the dependencies, the interpreter or the place of the repository do.
environment_key() {
    {
        cat "$ROOT/pyproject.toml"
        printf '%s\n' "$ROOT"
        "$VENV/bin/python" -IS -c 'import sys; print(sys.version)'
    } 2>/dev/null | sha256sum
}

# The extras on the stamp and those named, as "a,b": serving after testing takes nothing away.
joined_extras() {
    {
        printf '%s\n' "$@"
        if [[ -f $STAMP ]]; then sed -n 2p "$STAMP" | tr ' ' '\n'; fi
    } | sed '/^$/d' | sort -u | paste -sd ,
}

# ---- The virtual environment

# After one run with sudo, say: half of an install would fail on permissions, and pip would not say why.
refuse_anothers_venv() {
    local path
    for path in "$VENV" "$VENV/bin"; do
        if [[ -e $path && ! -w $path ]]; then
            fail "$path belongs to $(stat -c %U "$path"): run this as that user, or mend it with:" \
                "    $(as_root)chown -R $(id -un) '$VENV'"
        fi
    done
}

make_venv() {
    local problem="" python
    if [[ -e $VENV/pyvenv.cfg ]]; then
        problem="$(venv_problem)"
        if [[ -z $problem ]]; then return; fi
    fi
    python="$(find_python)"
    if [[ -n $problem ]]; then say "Rebuilding .venv: $problem"; else say "Creating .venv"; fi
    find "$VENV/" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
    touch "$UNFINISHED"
    "$python" -m venv "$VENV" >"$LOG" 2>&1 || fail "$python -m venv failed:" "$(tail -n 8 "$LOG")"
}

# Says why the .venv found cannot be used; says nothing when it can. One made elsewhere is no use because its
# commands begin with the absolute path of their interpreter.
venv_problem() {
    local command
    command="$(sed -n 's/^command = //p' "$VENV/pyvenv.cfg")"
    if [[ -n $command && $command != *" $VENV" ]]; then
        printf '%s\n' "it was made for ${command##* -m venv }"
    elif [[ -e $UNFINISHED ]]; then
        printf '%s\n' "the last install into it was cut short"
    elif ! "$VENV/bin/python" -I -m pip --version >/dev/null 2>&1; then
        printf '%s\n' "its Python does not work any more"
    elif ! "$VENV/bin/python" -IS -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        printf '%s\n' "its Python is older than 3.11"
    fi
}

# Prints the first Python that is new enough and can make environments.
find_python() {
    local candidate found version python older="" bare=""
    for candidate in "${PYTHONS[@]}"; do
        found="$(probe_python "$candidate")" || continue
        read -r version python <<<"$found"
        if (( ${version#*.} < 11 )); then
            older="${older:-$version}"
        elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            bare="${bare:-${candidate##*/}}"
        else
            printf '%s\n' "$python"
            return
        fi
    done
    if [[ -n $bare ]]; then
        fail "$bare cannot make virtual environments: a package is missing. This mends it:" "$(apt_line "$bare-venv")"
    elif [[ -z $older ]]; then
        fail "Chorus needs Python 3.11 or newer, and there is none here. This mends it:" \
            "$(apt_line python3 python3-venv)"
    else
        fail "Chorus needs Python 3.11 or newer, and python3 here is $older. $(newer_python)"
    fi
}

# Prints "3.N" and the interpreter itself: neither a shim nor the .venv that is about to be emptied.
probe_python() {
    local code='import sys; print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", "") or sys.executable)'
    "$1" -c "$code" 2>/dev/null | grep '^3\.'
}

newer_python() {
    local version
    for version in 3.14 3.13 3.12 3.11; do
        if [[ -n $(apt-cache show "python$version-venv" 2>/dev/null) ]]; then
            printf '%s\n' "This mends it:" "$(apt_line "python$version" "python$version-venv")"
            return
        fi
    done
    printf '%s\n' "Where the distribution is Debian 12, Ubuntu 24.04 or newer, this mends it:" \
        "$(apt_line python3 python3-venv)" \
        "An older one has none to offer: put a python3.11 (or newer) on PATH, or upgrade the distribution."
}

# ---- The install

install_project() {
    local extras target status=0
    extras="$(joined_extras "$@")"
    target=".${extras:+[$extras]}"
    if wants_pytorch "$extras"; then choose_pytorch; fi
    if [[ -f $STAMP ]]; then
        say "Updating .venv (pyproject.toml or what is wanted of it changed; $DURATION)"
    else
        say "Installing Chorus (first run only; $DURATION)"
    fi
    if [[ -n $PYTORCH_NOTE ]]; then say "$PYTORCH_NOTE"; fi
    warn_of_little_space
    rm -f "$STAMP"
    touch "$UNFINISHED"
    if [[ -n $PYTORCH_NOTE ]]; then remove_half_of_pytorch; fi
    pip_install "$target" || status=$?
    if (( status && ${#PIP_OPTIONS[@]} )) && ! pip_changed_files && network_failed; then
        forgo_cpu_index
        say "A download failed. $PYTORCH_NOTE"
        warn_of_little_space
        status=0
        pip_install "$target" || status=$?
    fi
    if (( status )); then
        if ! pip_changed_files; then rm -f "$UNFINISHED"; fi
        explain_pip "$target"
        exit "$status"
    fi
    rm -f "$UNFINISHED"
    check_imports
    printf '%s\n' "$(environment_key)" "${extras//,/ }" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
}

# Python compiles a module when it first imports it: few of the tens of thousands that pip would compile are ever used.
pip_install() {
    (cd "$ROOT" && "$VENV/bin/python" -I -m pip install --no-input --no-compile "${PIP_OPTIONS[@]}" --editable "$1") \
        >"$LOG" 2>&1
}

# Until pip comes to this line it only reads and downloads: what was there before is still whole.
pip_changed_files() {
    grep -q '^Installing collected packages' "$LOG"
}

# A download that was cut off shows as a wheel that is invalid or, where its hash is known, as one that does not match.
network_failed() {
    local signs='[Cc]onnection broken|ConnectionError|HTTP error|timed out|name resolution'
    grep -qE "$signs|DO NOT MATCH THE HASHES|^ERROR: Wheel .* is invalid" "$LOG"
}

warn_of_little_space() {
    local free
    free="$(df --output=avail --block-size=1M "$VENV" | tail -n 1)"
    if (( free < NEEDED_MB )); then
        say "Only $(( free )) MB are free here, and the install may need $NEEDED_MB MB: if it fails, free some and run this again."
    fi
}

explain_pip() {
    say "pip install --editable '$1' failed. Its last lines (the rest is in $LOG):"
    tail -n 12 "$LOG" >&2
    if grep -qi 'no space left' "$LOG"; then
        say "The disk is full: free $NEEDED_MB MB and run this again."
    elif network_failed; then
        say "pip could not reach its package index. The network is needed once, for this install: run this again with it." \
            "Behind a proxy set HTTPS_PROXY first; for a mirror, PIP_INDEX_URL."
    elif grep -qE "command '.*(cc|gcc|g\+\+)' failed|Python\.h: No such file" "$LOG"; then
        say "A package has to be compiled here, and the compiler is missing. This mends it:" \
            "$(apt_line build-essential python3-dev)"
    fi
}

# ---- What the compiled dependencies need of the system

# A wheel may need a shared library that a bare system lacks: found here, not by the first request.
check_imports() {
    local module output library package packages=() unknown=()
    for module in "${COMPILED[@]}"; do
        output="$("$VENV/bin/python" -I -c "import $module" 2>&1)" && continue
        # No longer a dependency, then: pip has just said that all of them are there.
        if [[ $output == *"No module named '$module'"* ]]; then continue; fi
        library="$(missing_library "$output")"
        [[ -n $library ]] || fail "$module was installed but does not load:" "$(tail -n 5 <<<"$output")"
        if package="$(package_of "$library")"; then packages+=("$package"); else unknown+=("$library"); fi
    done
    if (( ${#packages[@]} + ${#unknown[@]} == 0 )); then return; fi
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u | sed '/^$/d')
    say "Chorus is installed, but this system lacks shared libraries it needs. This mends it:"
    if (( ${#packages[@]} )); then say "$(apt_line "${packages[@]}")"; fi
    for library in "${unknown[@]}"; do
        say "$(apt_line apt-file) && $(as_root)apt-file update && apt-file search $library   # then install what it names"
    done
    fail "Then run this again."
}

missing_library() {
    if [[ $1 =~ (lib[A-Za-z0-9_.+-]+\.so[.0-9]*):\ cannot\ open\ shared\ object\ file ]]; then
        printf '%s\n' "${BASH_REMATCH[1]}"
    fi
}

package_of() {
    case $1 in
        libgomp.so.1) echo libgomp1 ;;
        libstdc++.so.6) echo libstdc++6 ;;
        libgcc_s.so.1) echo libgcc-s1 ;;
        libatomic.so.1) echo libatomic1 ;;
        libz.so.1) echo zlib1g ;;
        libffi.so.8) echo libffi8 ;;
        libsndfile.so.1) echo libsndfile1 ;;
        libportaudio.so.2) echo libportaudio2 ;;
        *) return 1 ;;
    esac
}

# ---- Talking to the person at the terminal

# Programs that come with no package of Python's; each is named as its package is, or as program:package.
ensure_programs() {
    local program missing=()
    for program in "$@"; do
        PATH="$PATH:/usr/local/sbin:/usr/sbin" command -v "${program%:*}" >/dev/null || missing+=("${program#*:}")
    done
    if (( ${#missing[@]} )); then fail "not on this machine: ${missing[*]}. This mends it:" "$(apt_line "${missing[@]}")"; fi
}

# The command to paste: as root without sudo, and where no package list was ever fetched, fetching it first.
apt_line() {
    local update=""
    if [[ -z $(find "$APT_LISTS" -name '*Packages*' -print -quit 2>/dev/null) ]]; then
        update="$(as_root)apt-get update && "
    fi
    printf '    %s%sapt-get install -y %s\n' "$update" "$(as_root)" "$*"
}

as_root() {
    if (( $(id -u) != 0 )); then printf 'sudo '; fi
}

say() {
    printf '%s\n' "$@" >&2
}

fail() {
    say "$@"
    exit 1
}
