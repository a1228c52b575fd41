# shellcheck shell=bash
# Sourced by environment.sh: chooses the package index that PyTorch is installed from.
#
# PyPI's builds for x86-64 include the libraries of CUDA, gigabytes that are of no use without an NVIDIA GPU. PyTorch's
# own index has builds without them, with versions such as 2.6.0+cpu, which pip prefers to PyPI's 2.6.0. torch and
# torchaudio load each other's libraries, so that both must come from the same index.
#
# shellcheck disable=SC2034  # environment.sh reads the variables

PYTORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
PYTORCH_PROBE_SECONDS=3
NVIDIA_DRIVER=/proc/driver/nvidia/version
# Compiled modules of the extra, in addition to those in environment.sh.
PYTORCH_COMPILED=(torch torchaudio numba onnx safetensors scipy sklearn soundfile soxr tokenizers)
# The message about the index and the size of the download; empty if PyTorch is installed already.
PYTORCH_NOTE=""

needs_pytorch() {
    [[ ",$1," == *,chatterbox,* ]]
}

# Sets the options of pip, and the time and the disk space that it needs: with CUDA, .venv has 6.6 GB, and pip needs
# 3 GB more for its downloads.
choose_pytorch() {
    local note needed=10000
    COMPILED+=("${PYTORCH_COMPILED[@]}")
    if [[ $HOSTTYPE != x86_64 ]]; then
        needed=3000
        note="PyTorch comes from PyPI, whose builds for $HOSTTYPE are without CUDA: about 1 GB."
    elif has_gpu; then
        note="PyTorch comes from PyPI, with the libraries of CUDA for the GPU of this machine: about 5 GB."
    elif cpu_index_answers; then
        PIP_OPTIONS=(--extra-index-url "$PYTORCH_CPU_INDEX")
        needed=3000
        note="PyTorch comes from its index of CPU builds, $PYTORCH_CPU_INDEX: about 1 GB."
    else
        note="PyTorch comes from PyPI, with the libraries of CUDA, as $PYTORCH_CPU_INDEX does not answer: about 5 GB."
    fi
    if pytorch_is_installed; then return; fi
    NEEDED_MB=$needed
    DURATION="two to five minutes"
    PYTORCH_NOTE="$note"
}

# For a second attempt without PyTorch's index: a proxy, say, may let its pages through, but not its files.
give_up_cpu_index() {
    PIP_OPTIONS=()
    NEEDED_MB=10000
    PYTORCH_NOTE="PyTorch comes from PyPI this time, with the libraries of CUDA: about 5 GB."
}

has_gpu() {
    [[ -e $NVIDIA_DRIVER || $(nvidia-smi -L 2>/dev/null) == "GPU "* ]]
}

# Whether PyTorch's index has both packages. The time limit is that of `timeout`, because urllib's starts again for
# every address and does not include name resolution.
cpu_index_answers() {
    local code='
import sys, urllib.request
for package in "torch", "torchaudio":
    urllib.request.urlopen(f"{sys.argv[1]}/{package}/")
'
    timeout --foreground "$PYTORCH_PROBE_SECONDS" "$VENV/bin/python" -I -c "$code" "$PYTORCH_CPU_INDEX" >/dev/null 2>&1
}

# Whether torch and torchaudio are installed, both of the same build.
pytorch_is_installed() {
    local builds
    mapfile -t builds < <(
        "$VENV/bin/python" -I -m pip list --format=freeze 2>/dev/null | sed -nE 's/^torch(audio)?==[^+]*/build/p'
    )
    (( ${#builds[@]} == 2 )) && [[ ${builds[0]} == "${builds[1]}" ]]
}

# Uninstalls both: pip would keep one of them, and might install the other one from another index.
uninstall_pytorch() {
    "$VENV/bin/python" -I -m pip uninstall --yes torch torchaudio >"$LOG" 2>&1 ||
        fail "pip uninstall torch torchaudio failed:" "$(tail -n 8 "$LOG")"
}
