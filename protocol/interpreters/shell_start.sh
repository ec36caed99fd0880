# SPDX-License-Identifier: Apache-2.0
# Starts a shell session: `sh -c THIS sh DRIVER`, DRIVER being shell.sh, descriptor 3 the channel.
#
# The session is an interactive shell, bash where there is one, whose commands come from the channel:
# interactive, because then an interrupt abandons the command and not the shell, and nothing else that a
# shell offers can abandon loops and functions of somebody else's code. Its own standard output and error
# lead nowhere, so prompts and greetings do not show; code of the session gets those of the process.
MSB_DRIVER=$1 PS1='' PS2=''
export MSB_DRIVER PS1 PS2
unset ENV
exec 8>&1 9>&2 >/dev/null 2>&1
if command -v bash; then
  exec bash --norc --noprofile --noediting -i <&3 3<&-
else
  exec sh -i <&3 3<&-
fi
