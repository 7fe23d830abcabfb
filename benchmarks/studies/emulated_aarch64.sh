#!/usr/bin/env bash
# Does the project install from wheels on aarch64, and decide there as on x86-64?
#
#   [PYTHON=python3.10] [REVISION=HEAD] benchmarks/studies/emulated_aarch64.sh RESULT.json [FOLDER]
#
# As root on Debian x86-64 with the packages qemu-user-static, mmdebstrap, arch-test and git. Installs a revision of
# the project twice, from the package registry: into a virtual environment of PYTHON here, and into one in a Debian
# arm64 root, which QEMU runs. Here it fits a teacher, distils a few drawn pictures, streams 60 frames, and packs the
# models for a board; there they are unpacked, and the same is distilled and streamed. RESULT compares the two. FOLDER
# keeps the root, which a second run then takes again; without it everything lies in a temporary folder. On 2 busy
# cores it took 14 minutes without the stream, the root made before.
set -euo pipefail

python=${PYTHON:-python3.10}
revision=${REVISION:-HEAD}
suite=bookworm
classes=(car fish mug)
foreground=saliency-u2netp-128
settings=(--pool 4 --crops 3 --ipc 1 --rule median --score-view native --precision fp32)
export QEMU_CPU=cortex-a76 # ARMv8.2 without SVE, as Orin's Cortex-A78AE

[ $# -ge 1 ] || { sed -n '2,11s/^# \?//p' "$0"; exit 2; }
project=$(cd "$(dirname "$0")/../.." && pwd)
result=$(realpath "$1")
if [ $# -ge 2 ]; then
    mkdir -p "$2"
    folder=$(realpath "$2")
else
    folder=$(mktemp -d)
fi
root=$folder/root
native=$folder/x86-64
binfmt=/proc/sys/fs/binfmt_misc
cd "$folder" # away from the source, which Python would import from in place of what is installed

clean_up() {
    [ -z "${registered:-}" ] || echo -1 >"$binfmt/qemu-aarch64"
    [ $# -ge 2 ] || rm -rf "$folder"
}
trap 'clean_up "$@"' EXIT

# timed RUN STEP COMMAND...: run a command, and note how long it took.
timed() {
    local begin=$SECONDS
    echo "== $1: $2" >&2
    "${@:3}"
    echo "$2 $((SECONDS - begin))" >>"$folder/$1.seconds"
}

register_emulator() {
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
    if [ ! -e $binfmt/qemu-aarch64 ]; then
        cat /usr/lib/binfmt.d/qemu-aarch64.conf >$binfmt/register
        registered=yes
    fi
}

make_root() {
    # libgl1 and libglib2.0-0 are what opencv-python's wheel expects of a system.
    mmdebstrap --architectures=arm64 --variant=minbase --include=python3-venv,libgl1,libglib2.0-0 $suite "$root"
}

# in_root COMMAND...: run a command inside the root, with mounts that vanish with it. SYSTEM=/sys shows it this machine's
# /sys, without which OpenVINO ends; with it ONNX Runtime does, which finds an x86-64 processor described there.
in_root() {
    # shellcheck disable=SC2016
    unshare --mount bash -euc '
        root=$1
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        [ -z "${SYSTEM:-}" ] || mount --rbind "$SYSTEM" "$root/sys"
        exec chroot "$root" "${@:2}"' bash "$root" "$@"
}

# install_project RUN PREFIX SOURCE VENV: the base install, then the extra that runs models; PREFIX runs the commands.
install_project() {
    local pip=("$2" "$4/bin/python" -m pip)
    timed "$1" "base install" "${pip[@]}" install -q "$3"
    "${pip[@]}" list --format=json >"$folder/$1.base.json"
    "$2" "$4/bin/fgdd-fast" --help >/dev/null
    timed "$1" "cpu install" "${pip[@]}" install -q "$3[cpu]"
    "${pip[@]}" list --format=json >"$folder/$1.cpu.json"
}

# distil RUN PREFIX PLACE VENV DEVICE: distil PLACE's pictures with PLACE's models into PLACE/RUN.
distil() {
    timed "$1" distillation "$2" "$4/bin/fgdd-fast" distill "$3/data" "$3/$1" --foreground "$3/models/$foreground.onnx" \
        --teacher "$3/models/teacher.onnx" --device "$5" --store "$3/store-$1" --overwrite "${settings[@]}"
    "$2" "$4/bin/python" -c 'import json
from fgdd_bench.machine.environment import environment
print(json.dumps(environment()))' >"$folder/$1.environment.json"
}

# stream_frames RUN PREFIX PLACE VENV: stream PLACE's frames with what was unpacked there, into PLACE/stream.
stream_frames() {
    timed "$1" stream "$2" "$4/bin/fgdd-fast" stream "$3/frames" "$3/stream" --once --overwrite --device cpu \
        --config "$3/models/stream.toml"
}

copy_source() {
    rm -rf "$1"
    mkdir -p "$1"
    git -C "$project" archive "$revision" | tar -x -C "$1"
}

run_natively() {
    local venv=$native/venv
    local -x FGDD_FAST_CACHE=$native/cache
    rm -rf "$native" "$folder"/x86-64.*
    copy_source "$native/source"
    "$python" -m venv "$venv"
    install_project x86-64 env "$native/source" "$venv"
    "$venv/bin/pip" install -q "$native/source[models]"
    "$venv/bin/fgdd-fast" models pull $foreground imagenet-efficientnet-lite0
    "$venv/bin/python" - "$native" "${classes[@]}" <<'PYTHON'
import shutil, sys
from pathlib import Path
from fgdd_fast.synthetic import CLASSES, write_drawn_dataset
for folder, count in {"data": 12, "frames": 20}.items():
    drawn = Path(sys.argv[1], folder)
    write_drawn_dataset(drawn, images_per_class=count, seed=count)
    for name in set(CLASSES) - set(sys.argv[2:]):
        shutil.rmtree(drawn / name)
PYTHON
    "$venv/bin/fgdd-fast" teacher fit "$native/data" -o "$native/teacher.onnx" --device cpu
    printf '[stream]\ncrops = 1\nipc = 1\nrule = "median"\nscore-view = "native"\nprecision = "fp32"\n' \
        >"$native/settings.toml"
    "$venv/bin/fgdd-fast" bundle pack $foreground "$native/teacher.onnx" -o "$native/board.tar" \
        --settings "$native/settings.toml"
    "$venv/bin/fgdd-fast" bundle unpack "$native/board.tar" "$native/models"
    distil x86-64 env "$native" "$venv" cpu
    stream_frames x86-64 env "$native" "$venv"
}

run_emulated() {
    rm -rf "$root/board" "$root/venv" "$folder"/aarch64*
    copy_source "$root/source"
    mkdir -p "$root/board"
    cp -r "$native/data" "$native/frames" "$native/board.tar" "$root/board"
    local file
    for file in /etc/resolv.conf /etc/hosts ${PIP_CERT:-}; do # the network as this machine has it
        install -D -m 644 "$file" "$root$file"
    done
    in_root python3 -m venv /venv
    install_project aarch64 in_root /source /venv
    in_root /venv/bin/fgdd-fast bundle unpack /board/board.tar /board/models
    distil aarch64-onnxruntime in_root /board /venv cpu
    stream_frames aarch64-onnxruntime in_root /board /venv
    SYSTEM=/sys distil aarch64-openvino in_root /board /venv openvino
}

register_emulator
[ -e "$root/usr/bin/python3" ] || make_root
run_natively
run_emulated
cd "$project"
"$native/venv/bin/python" -m benchmarks.studies.emulated_aarch64 "$folder" --json "$result" \
    --emulator "$(qemu-aarch64-static --version | head -n 1), $QEMU_CPU" \
    --system "$(in_root sh -c '. /etc/os-release; echo "$PRETTY_NAME"'), $(in_root uname -m)" \
    --commit "$(git -C "$project" rev-parse "$revision")"
