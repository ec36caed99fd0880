// SPDX-License-Identifier: Apache-2.0
// What shells are told: each gives the words up to the cursor to `msb __complete`, and completes
// files when that has nothing to say.
#include "cli/completion.hpp"

namespace msb::cli {

namespace {

// bash cuts words at ":" and "=" as well, and replaces only what is behind the last of them:
// therefore the words are taken from the line itself, and the candidates' beginnings cut off.
constexpr std::string_view kBash = R"(# Completion of msb for bash: source <(msb completion bash)
_msb() {
  local -a words
  local line=${COMP_LINE:0:COMP_POINT}
  read -ra words <<<"$line"
  if [[ -z $line || $line == *[[:space:]] ]]; then
    words+=('')
  fi
  local current=${words[-1]} cut=''
  if [[ $current == *[:=]* ]]; then
    cut=${current%"${current##*[:=]}"}
  fi
  local IFS=$'\n'
  COMPREPLY=($(command msb __complete "${words[@]}" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$cut"}")
  if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *: ]]; then
    compopt -o nospace 2>/dev/null
  fi
}
complete -o default -F _msb msb msx msi
)";

constexpr std::string_view kZsh = R"(#compdef msb msx msi
# Completion of msb for zsh: source <(msb completion zsh), or a file _msb in a directory of $fpath.
_msb() {
  local -a candidates open
  candidates=("${(@f)$(command msb __complete "${(@)words[1,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
  candidates=("${(@)candidates:#}")
  open=("${(@M)candidates:#*:}")
  candidates=("${(@)candidates:#*:}")
  if (( $#candidates + $#open == 0 )); then
    _files
    return
  fi
  compadd -Q -a candidates
  compadd -Q -S '' -a open
}
if [[ "${funcstack[1]}" == _msb ]]; then
  _msb "$@"
elif (( $+functions[compdef] )); then
  compdef _msb msb msx msi
fi
)";

constexpr std::string_view kFish = R"(# Completion of msb for fish: msb completion fish | source
function __msb_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l candidates (command msb __complete $words "$current" 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    else
        __fish_complete_path "$current"
    end
end
for program in msb msx msi
    complete -c $program -f -a '(__msb_complete)'
end
)";

}  // namespace

std::optional<std::string_view> completion_script(std::string_view shell) {
  if (shell == "bash") {
    return kBash;
  }
  if (shell == "zsh") {
    return kZsh;
  }
  return shell == "fish" ? std::optional(kFish) : std::nullopt;
}

}  // namespace msb::cli
