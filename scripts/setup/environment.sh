# shellcheck shell=bash
# Sourced by the commands in scripts/ and by .ci/run: creates .venv and keeps it up to date with pyproject.toml.
# Commands call `ensure_environment [extra...]`, `ensure_programs` and `run_module`; the other functions are internal.
#
# Files in .venv that are not part of the virtual environment:
#   .stamp       a key of what is installed, then the extras; written last, so that it stands for a complete install
#   .unfinished  exists while an install changes files; if it exists at the start, the last install was interrupted
#   .setup.lock  locked during an install (uv locks .lock)
#   install.log  the output of the last pip command

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
VENV="$ROOT/.venv"
STAMP="$VENV/.stamp"
UNFINISHED="$VENV/.unfinished"
LOG="$VENV/install.log"
# Nothing in .venv is compiled at the install (see pip_install): the first process that imports a module keeps its
# bytecode. With this variable, every process would compile all modules again, which takes a worker 6 s of CPU time.
unset PYTHONDONTWRITEBYTECODE
# shellcheck source=scripts/setup/pytorch.sh
source "$ROOT/scripts/setup/pytorch.sh"

# The distribution's python3 comes last, so that one that apt-get installs is found even behind an unsuitable python3 on
# PATH.
PYTHONS=(python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3)
COMPILED=(av httptools numpy onnxruntime psutil pydantic_core uvloop)
# choose_pytorch changes this and COMPILED, if an extra needs PyTorch.
PIP_OPTIONS=()
NEEDED_MB=1000
DURATION="about a minute"
APT_LISTS=/var/lib/apt/lists

# Replaces this process by a Python module of this repository, run in .venv: run_module MODULE [argument...]
run_module() {
    PYTHONPATH="$ROOT" exec "$VENV/bin/python" -P -m "$@"
}

# Installs the project and these extras into .venv unless they are there; exits with an error message on failure.
ensure_environment() {
    if stamp_covers "$@"; then return; fi
    mkdir -p "$VENV"
    refuse_foreign_venv
    # In a subshell, so that its end releases the lock: the program that runs next must not inherit it.
    (
        trap 'say "Interrupted. The next run repairs .venv."; exit 130' INT
        exec 9>"$VENV/.setup.lock"
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

# A hash of the dependencies, the path of the repository and the version of the interpreter.
environment_key() {
    {
        cat "$ROOT/pyproject.toml"
        printf '%s\n' "$ROOT"
        "$VENV/bin/python" -IS -c 'import sys; print(sys.version)'
    } 2>/dev/null | sha256sum
}

# The extras of the stamp and these ones, as "a,b": an installed extra stays installed.
joined_extras() {
    {
        printf '%s\n' "$@"
        if [[ -f $STAMP ]]; then sed -n 2p "$STAMP" | tr ' ' '\n'; fi
    } | sed '/^$/d' | sort -u | paste -sd ,
}

# ---- The virtual environment

# Fails if .venv belongs to another user, for instance after a run with sudo: an install would fail half-way.
refuse_foreign_venv() {
    local path
    for path in "$VENV" "$VENV/bin"; do
        if [[ -e $path && ! -w $path ]]; then
            # EX_CONFIG: nothing would change by itself.
            FAIL_STATUS=78 fail "$path belongs to $(stat -c %U "$path"): run this as that user, or change the owner:" \
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
    find "$VENV/" -mindepth 1 -maxdepth 1 ! -name .setup.lock -exec rm -rf {} +
    touch "$UNFINISHED"
    "$python" -m venv "$VENV" >"$LOG" 2>&1 || fail "$python -m venv failed:" "$(tail -n 8 "$LOG")"
}

# Prints why .venv cannot be used, or nothing if it can. A .venv that was moved cannot: its commands begin with the
# absolute path of their interpreter.
venv_problem() {
    local command
    command="$(sed -n 's/^command = //p' "$VENV/pyvenv.cfg")"
    if [[ -n $command && $command != *" $VENV" ]]; then
        printf '%s\n' "it was made for ${command##* -m venv }"
    elif [[ -e $UNFINISHED ]]; then
        printf '%s\n' "the last install into it was interrupted"
    elif ! "$VENV/bin/python" -I -m pip --version >/dev/null 2>&1; then
        printf '%s\n' "its Python does not work"
    elif ! "$VENV/bin/python" -IS -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        printf '%s\n' "its Python is older than 3.11"
    fi
}

# Prints the first Python of PYTHONS that is new enough and can create virtual environments.
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
        fail "$bare cannot create virtual environments: a package is missing. Install it with:" \
            "$(apt_line "$bare-venv")"
    elif [[ -z $older ]]; then
        fail "Chorus needs Python 3.11 or newer, which is not installed. Install it with:" \
            "$(apt_line python3 python3-venv)"
    else
        fail "Chorus needs Python 3.11 or newer, and python3 here is $older. $(newer_python)"
    fi
}

# Prints "3.N" and the path of the interpreter itself, which is neither a shim nor the .venv that will be emptied.
probe_python() {
    local code='import sys; print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", "") or sys.executable)'
    "$1" -c "$code" 2>/dev/null | grep '^3\.'
}

newer_python() {
    local version
    for version in 3.14 3.13 3.12 3.11; do
        if [[ -n $(apt-cache show "python$version-venv" 2>/dev/null) ]]; then
            printf '%s\n' "Install a newer one with:" "$(apt_line "python$version" "python$version-venv")"
            return
        fi
    done
    printf '%s\n' "On Debian 12, Ubuntu 24.04 or newer, install it with:" \
        "$(apt_line python3 python3-venv)" \
        "Older distributions have no package of it: put a python3.11 (or newer) on PATH, or upgrade the distribution."
}

# ---- The install

install_project() {
    local extras target status=0
    extras="$(joined_extras "$@")"
    target=".${extras:+[$extras]}"
    if needs_pytorch "$extras"; then choose_pytorch; fi
    if [[ -f $STAMP ]]; then
        say "Updating .venv (pyproject.toml or the required extras changed; $DURATION)"
    else
        say "Installing Chorus (first run only; $DURATION)"
    fi
    if [[ -n $PYTORCH_NOTE ]]; then say "$PYTORCH_NOTE"; fi
    warn_if_disk_is_small
    rm -f "$STAMP"
    touch "$UNFINISHED"
    if [[ -n $PYTORCH_NOTE ]]; then uninstall_pytorch; fi
    pip_install "$target" || status=$?
    if (( status && ${#PIP_OPTIONS[@]} )) && ! pip_changed_files && network_failed; then
        give_up_cpu_index
        say "A download failed. $PYTORCH_NOTE"
        warn_if_disk_is_small
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

# uv installs what pip would in a quarter of the time. Where it is not to be had, or fails, pip goes on and explains.
# --no-compile: Python compiles a module when it first imports it, and uses few of the tens of thousands of modules.
pip_install() {
    if uv_install "$1"; then return; fi
    (cd "$ROOT" && "$VENV/bin/python" -I -m pip install --no-input --no-compile "${PIP_OPTIONS[@]}" --editable "$1") \
        >"$LOG" 2>&1
}

# The cache lies in .venv, from where uv can link the files instead of copying them, for the time of the install only.
# Several environments on one disk share their files if UV_CACHE_DIR names a cache for all of them.
uv_install() {
    local sources status=0 uv_cache="${UV_CACHE_DIR:-$VENV/.uv}"
    "$VENV/bin/python" -I -m pip install --no-input --no-compile --retries 1 uv >"$LOG" 2>&1 || return
    mapfile -t sources < <(pip_sources)
    (cd "$ROOT" && "$VENV/bin/python" -I -m uv pip install --python "$VENV/bin/python" --cache-dir "$uv_cache" \
        --index-strategy unsafe-best-match "${sources[@]}" "${PIP_OPTIONS[@]}" --editable "$1") >"$LOG" 2>&1 || status=$?
    if [[ -z ${UV_CACHE_DIR:-} ]]; then rm -rf "$uv_cache"; fi
    return "$status"
}

# Prints, one word per line, pip's index and constraints, if it is configured to have any: uv does not read its files.
# Further indexes have nothing of what is needed here but copies, which may be incomplete.
pip_sources() {
    local name values value
    "$VENV/bin/python" -I -m pip config list 2>/dev/null |
        sed -nE "s/^[^.]+\.(index-url|constraint)='(.*)'$/\1 \2/p" |
        while read -r name values; do
            for value in $values; do printf -- '--%s\n%s\n' "$name" "$value"; done
        done
}

# Whether pip has changed files. Before it writes this line, it only downloads.
pip_changed_files() {
    grep -q '^Installing collected packages' "$LOG"
}

# Whether a download failed. An incomplete one is reported as an invalid wheel or, if its hash is known, as a mismatch.
network_failed() {
    local signs='[Cc]onnection broken|ConnectionError|HTTP error|timed out|name resolution'
    grep -qE "$signs|DO NOT MATCH THE HASHES|^ERROR: Wheel .* is invalid" "$LOG"
}

warn_if_disk_is_small() {
    local free
    free="$(df --output=avail --block-size=1M "$VENV" | tail -n 1)"
    if (( free < NEEDED_MB )); then
        say "Only $(( free )) MB are free, and the install may need $NEEDED_MB MB: if it fails, free space and try again."
    fi
}

explain_pip() {
    say "pip install --editable '$1' failed. Its last lines (all are in $LOG):"
    say "$(tail -n 12 "$LOG")"
    if grep -qi 'no space left' "$LOG"; then
        say "The disk is full: free $NEEDED_MB MB and run this again."
    elif network_failed; then
        say "pip could not reach its package index. The network is needed once, for this install: connect and try again." \
            "Behind a proxy, set HTTPS_PROXY; for a mirror, set PIP_INDEX_URL."
    elif grep -qE "command '.*(cc|gcc|g\+\+)' failed|Python\.h: No such file" "$LOG"; then
        say "A package must be compiled on this machine, and the compiler is missing. Install it with:" \
            "$(apt_line build-essential python3-dev)"
    fi
}

# ---- Shared libraries of the system

# Imports the compiled dependencies: one may need a shared library that a minimal system lacks, which would otherwise be
# noticed by the first request.
check_imports() {
    local module output library package packages=() unknown=()
    for module in "${COMPILED[@]}"; do
        output="$("$VENV/bin/python" -I -c "import $module" 2>&1)" && continue
        # It is no longer a dependency: pip has just installed all dependencies.
        if [[ $output == *"No module named '$module'"* ]]; then continue; fi
        library="$(missing_library "$output")"
        [[ -n $library ]] || fail "$module was installed but does not load:" "$(tail -n 5 <<<"$output")"
        if package="$(package_of "$library")"; then packages+=("$package"); else unknown+=("$library"); fi
    done
    if (( ${#packages[@]} + ${#unknown[@]} == 0 )); then return; fi
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u | sed '/^$/d')
    say "Chorus is installed, but shared libraries that it needs are missing. Install them with:"
    if (( ${#packages[@]} )); then say "$(apt_line "${packages[@]}")"; fi
    for library in "${unknown[@]}"; do
        say "$(apt_line apt-file) && $(as_root)apt-file update && apt-file search $library   # and install its package"
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

# ---- Messages

# Fails unless these programs are installed. Each is named as its apt package, or as program:package.
ensure_programs() {
    local program missing=()
    for program in "$@"; do
        PATH="$PATH:/usr/local/sbin:/usr/sbin" command -v "${program%:*}" >/dev/null || missing+=("${program#*:}")
    done
    if (( ${#missing[@]} )); then fail "not installed: ${missing[*]}. Install with:" "$(apt_line "${missing[@]}")"; fi
}

# Prints the command that installs these packages: without sudo for root, with apt-get update if there are no package
# lists.
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

# Where the server's log is JSON, so is what is said before it starts.
say() {
    local line micros moment
    if [[ ${CHORUS_LOG_FORMAT:-} != json ]]; then
        printf '%s\n' "$@" >&2
        return
    fi
    micros="${EPOCHREALTIME//[!0-9]/}"
    TZ=UTC printf -v moment '%(%Y-%m-%dT%H:%M:%S)T' "${micros:0:-6}"
    for line in "$@"; do
        line="${line//\\/\\\\}"
        line="${line//\"/\\\"}"
        line="${line//$'\n'/\\n}"
        line="${line//[$'\x01'-$'\x1f']/ }"
        printf '{"time": "%s.%s+00:00", "level": "%s", "process": "setup", "message": "%s"}\n' \
            "$moment" "${micros: -6:3}" "${SAY_LEVEL:-info}" "$line" >&2
    done
}

fail() {
    SAY_LEVEL=error say "$@"
    exit "${FAIL_STATUS:-1}"
}
