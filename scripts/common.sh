# SPDX-License-Identifier: Apache-2.0
# What quickstart and test share. To be sourced by a script in this folder, from any directory.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MSB_HOME="$PWD/build/home"  # converted layers; nothing of the user's own is touched

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

now() { date +%s%N; }

# Seconds since the time $1 of now(), with one decimal.
seconds_since() {
  local ms=$((($(now) - $1) / 1000000))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# step TITLE COMMAND...: runs a command, its output in a log, and says how long it took. On failure shows the end of
# the log and ends the script.
step() {
  local title=$1 started log="build/log/${1//[^a-z0-9]/-}.log"
  shift
  mkdir -p build/log
  started=$(now)
  printf '%-44s' "$title"
  if "$@" >"$log" 2>&1 </dev/null; then
    printf '%10s\n' "$(seconds_since "$started")"
  else
    printf '%10s\n' failed
    tail -n 40 "$log" >&2
    die "\"$*\" failed; its whole output is in $log"
  fi
}

# build_preset PRESET [TARGET...]: configures when needed and builds, at the priority `niceness`.
build_preset() {
  local preset=$1
  shift
  [[ build/$preset/build.ninja -nt CMakePresets.json ]] || cmake --preset "$preset"
  nice -n "${niceness:-0}" cmake --build "build/$preset" ${1:+--target "$@"}
}

# Here and not at the first run: that may be in the emulated host, where it takes ten times as long.
load_images() {
  local tag
  for tag in base python node tools develop "$@"; do
    build/release/bin/msb load --quiet --input "build/images:$tag" --name "$tag"
  done
}

# Waits for the images that prepare() has begun.
finish_images() {
  wait "$images" || { cat build/log/images-begun.log; return 1; }
}

# prepare [IMAGE...]: everything that running a microVM needs, and images that only long tests need.
prepare() {
  step "packages" scripts/setup
  # Beside the kernel and the programs, for unpacking packages is slow and keeps one processor busy at most.
  scripts/images ${1:+--all} >build/log/images-begun.log 2>&1 </dev/null &
  images=$!
  trap 'kill "$images" 2>/dev/null || true' EXIT
  step "guest kernel (the longest step, once)" guestkernel/build
  step "initramfs" initramfs/build
  step "msb, msb-vmm (preset release)" build_preset release msb msb-vmm msb-machine
  step "images" finish_images
  trap - EXIT
  step "images, into the store" load_images "$@"
}

# Decides where guests run. Sets `place` and `guest_host`, the command to put in front of others: the real KVM where the
# probe passes, the emulated host where it does not.
choose_guest_host() {
  local verdict
  if verdict=$(build/release/bin/msb-vmm doctor 2>&1); then
    place="real KVM"
    guest_host=()
  else
    place="emulated host"
    guest_host=(env MSB_EMULATED_ENV="MSB_HOME MSB_TEST_FULL MSB_CONFORMANCE_GUESTS" MSB_EMULATED_TIMEOUT=3600 scripts/emulated-host)
  fi
  printf '%s\n' "${verdict#msb-vmm: }" | fold -s -w 110 | sed 's/^/  /'
  [[ $place == "real KVM" ]] || printf '  So guests run in the emulated host: the same programs, about ten times slower.\n'
}
