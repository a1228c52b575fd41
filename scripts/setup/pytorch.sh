# shellcheck shell=bash
# Sourced by environment.sh: where PyTorch comes from, for the extra that needs it.
#
# PyPI's builds for x86-64 bring the libraries of CUDA, gigabytes that do nothing without an NVIDIA GPU. PyTorch's own
# index has builds without them, versioned like 2.6.0+cpu, which pip holds for newer than PyPI's 2.6.0. torch and
# torchaudio load each other's libraries, so both have to come from the same place.
#
# shellcheck disable=SC2034  # what is set here is read by environment.sh

PYTORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
PYTORCH_PROBE_SECONDS=3
NVIDIA_DRIVER=/proc/driver/nvidia/version
# The compiled modules that the extra adds to those of environment.sh.
PYTORCH_COMPILED=(torch torchaudio numba onnx safetensors scipy sklearn soundfile soxr tokenizers)
# Set where PyTorch has yet to come: the line that says from where, and how large it is.
PYTORCH_NOTE=""

wants_pytorch() {
    [[ ",$1," == *,chatterbox,* ]]
}

# Sets with which options pip is to install, and what that will take of time and space: with CUDA .venv holds 6.6 GB,
# and pip needs room for the 3 GB that it downloads.
choose_pytorch() {
    local note needed=10000
    COMPILED+=("${PYTORCH_COMPILED[@]}")
    if [[ $HOSTTYPE != x86_64 ]]; then
        needed=3000
        note="PyTorch comes from PyPI, whose builds for $HOSTTYPE are for the CPU alone: about 1 GB."
    elif has_gpu; then
        note="PyTorch comes from PyPI, with the libraries of CUDA for the GPU here: about 5 GB."
    elif cpu_index_answers; then
        PIP_OPTIONS=(--extra-index-url "$PYTORCH_CPU_INDEX")
        needed=3000
        note="PyTorch comes from its index of CPU builds, $PYTORCH_CPU_INDEX: about 1 GB."
    else
        note="PyTorch comes from PyPI, with the libraries of CUDA, as $PYTORCH_CPU_INDEX does not answer: about 5 GB."
    fi
    if pytorch_is_there; then return; fi
    NEEDED_MB=$needed
    DURATION="about five minutes"
    PYTORCH_NOTE="$note"
}

# For the second attempt, when something between here and the index lets its pages through but not its files.
forgo_cpu_index() {
    PIP_OPTIONS=()
    NEEDED_MB=10000
    PYTORCH_NOTE="PyTorch comes from PyPI this time, with the libraries of CUDA: about 5 GB."
}

has_gpu() {
    [[ -e $NVIDIA_DRIVER || $(nvidia-smi -L 2>/dev/null) == "GPU "* ]]
}

# By the clock of `timeout`: the one of urllib starts anew with every address, and not before a name is resolved.
cpu_index_answers() {
    local code='
import sys, urllib.request
for package in "torch", "torchaudio":
    urllib.request.urlopen(f"{sys.argv[1]}/{package}/")
'
    timeout --foreground "$PYTORCH_PROBE_SECONDS" "$VENV/bin/python" -I -c "$code" "$PYTORCH_CPU_INDEX" >/dev/null 2>&1
}

# Whether .venv holds torch and torchaudio, both of the same build.
pytorch_is_there() {
    local builds
    mapfile -t builds < <(
        "$VENV/bin/python" -I -m pip list --format=freeze 2>/dev/null | sed -nE 's/^torch(audio)?==[^+]*/build/p'
    )
    (( ${#builds[@]} == 2 )) && [[ ${builds[0]} == "${builds[1]}" ]]
}

# One without the other would stay, and its other half might come from elsewhere.
remove_half_of_pytorch() {
    "$VENV/bin/python" -I -m pip uninstall --yes torch torchaudio >"$LOG" 2>&1 ||
        fail "pip uninstall torch torchaudio failed:" "$(tail -n 8 "$LOG")"
}
