# SPDX-License-Identifier: Apache-2.0
# A shell session: read by the shell that shell_start.sh started, from its environment, when the host's
# first line asks for it. Works in bash, dash and busybox ash. docs/interpreters.md has the messages.
#
# Standard input is the channel, but not for code of the session: that has /dev/null there, so that no
# program ever holds the channel. `command` passes over functions of the session with the same name, and a
# backslash over aliases where text is parsed when it runs: in command substitutions.

unset MSB_DRIVER PS1 PS2
__msb_id='' __msb_exit=''

# A message, of less than 256 bytes, after its length: 4 bytes, little-endian, the first in octal.
__msb_send() {
  command printf "\\$((${#1} >> 6))$((${#1} >> 3 & 7))$((${#1} & 7))\\000\\000\\000%s" "$1" >&0
}

__msb_hello() {
  if [ -n "${BASH_VERSION-}" ]; then
    set +o history # not possible inside eval, where this file is read
    history -c
  fi
  __msb_send "{\"op\":\"ready\",\"id\":$1,\"language\":\"shell\",\"version\":\"${BASH_VERSION-}\"}"
}

# __msb_begin ID CODE: CODE is escaped for printf's %b, for shells can only read lines.
__msb_begin() {
  __msb_id=$1 __msb_exit='' __msb_code=$2
  if [ -n "${BASH_VERSION-}" ]; then
    command printf -v __msb_code '%b' "$2"
    PROMPT_COMMAND=__msb_prompt PS1='' PS2=''
    command trap - INT
  else
    case $2 in # a subshell only where it is needed: it takes longer than all the rest
      *\\*) __msb_code=$(\command printf '%b' "$2") ;;
    esac
    # Not the signal itself: ash jumps out of whatever it interrupts, be it malloc().
    PS1='${__msb_id:+$(__msb_prompt)}' PS2=''
    command trap __msb_interrupt_self INT
  fi
  __msb_send "{\"op\":\"started\",\"id\":$1}"
}

# Between runs an interrupt is ignored: one that comes late would take from the next request.
__msb_end() {
  command trap '' INT
  if [ -n "$__msb_id" ]; then
    __msb_send "{\"op\":\"done\",\"id\":$__msb_id,\"status\":$1${__msb_exit:+,\"exit\":$__msb_exit}}"
  fi
  __msb_id='' __msb_code=''
}

# Where the shell comes back to, whatever abandoned the line that would have said so: an interrupt, an
# error that ends scripts, exit. Only bash calls it in the shell itself, others in a subshell.
__msb_prompt() {
  __msb_end "${__msb_exit:-$?}"
}

__msb_interrupt_self() {
  command trap - INT
  command kill -INT "$$"
  command : # bash sees the signal between two commands
}

# True in the session itself, false in its subshells, where $$ is the same. The redirection is made by
# the process that asks.
__msb_in_session() {
  command read -r __msb_pid __msb_rest </proc/self/stat && [ "$__msb_pid" = "$$" ]
}

# exit abandons the run and leaves the session: its variables are what it is for.
__msb_leave() {
  __msb_exit=${1-$?}
  case $__msb_exit in
    '' | *[!0-9]*) __msb_exit=2 ;;
    *) __msb_exit=$((__msb_exit & 255)) ;;
  esac
  if __msb_in_session; then
    __msb_interrupt_self
  fi
  command exit "$__msb_exit"
}
alias exit=__msb_leave

# The same for a failure under `set -e`, in the one shell that can tell.
if [ -n "${BASH_VERSION-}" ]; then
  __msb_failed() {
    if [[ $- == *e* && $BASHPID == "$$" && -n $__msb_id ]]; then
      __msb_exit=$1
      __msb_interrupt_self
    fi
  }
  unset HISTFILE
  set -E +H
  trap '__msb_failed $?' ERR
fi

# Interactive shells ignore it; who ends a session must be able to.
trap 'command exit 143' TERM
