/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exec protocol, version 1: what the host and the agent inside a guest say to each other over
 * vsock. One C header, shared by both ends. docs/exec-protocol.md describes it byte by byte.
 *
 * Every message is a frame: a header of 8 bytes, then `length` bytes of payload. All integers are
 * little-endian.
 *
 * There are two kinds of connection:
 *
 *   control   opened by the guest to the host's port MSB_PORT_CONTROL while it boots. One per boot.
 * HELLO says that it can run programs, FAILED that it never will. process   opened by the host to
 * the guest's port MSB_PORT_PROCESS. One per process; vsock gives each its own flow control, so a
 * reader that is slow stalls only itself. When the host closes it, the process is killed.
 *
 *   control:   guest  HELLO                 host  SIGNAL*  SHUTDOWN           guest  BYE      host
 * closes guest  [HELLO]  FAILED  BYE                                                  host closes
 *   process:   host   START  STDIN* (ends with an empty one)
 *              guest  STARTED  (STDOUT | STDERR)*  EXITED      or      REFUSED
 */
#ifndef MSB_PROTOCOL_EXEC_H
#define MSB_PROTOCOL_EXEC_H

#include <stdint.h>

#define MSB_EXEC_VERSION 1u

/* vsock ports. The host side of both is the machine's supervisor. */
#define MSB_PORT_CONTROL 1024u /* on the host */
#define MSB_PORT_PROCESS 1025u /* in the guest */

struct msb_frame_header {
  uint32_t type;   /* enum msb_frame_type */
  uint32_t length; /* of the payload that follows, in bytes */
};

/* Largest payloads. A frame that announces more is a protocol error: the receiver closes the
 * connection. */
#define MSB_MAX_DATA (64u * 1024u)         /* STDIN, STDOUT, STDERR */
#define MSB_MAX_START (4u * 1024u * 1024u) /* START */
#define MSB_MAX_SMALL 1024u                /* every other type */

enum msb_frame_type {
  /* control connection, guest to host */
  MSB_HELLO = 1, /* struct msb_hello: the guest is ready */
  MSB_FAILED =
      2, /* struct msb_failure, then text: the guest cannot become or stay ready; BYE follows */
  MSB_BYE =
      3, /* struct msb_bye: the guest ends the machine as soon as the host closes this connection */
  /* control connection, host to guest */
  MSB_SIGNAL = 16,   /* struct msb_signal */
  MSB_SHUTDOWN = 17, /* no payload: end all processes, write everything back, then BYE */
  /* process connection, host to guest */
  MSB_START = 32, /* struct msb_start, then strings: the first frame, exactly once */
  MSB_STDIN = 33, /* bytes for standard input; an empty one closes it */
  /* process connection, guest to host */
  MSB_STARTED = 48, /* struct msb_started */
  MSB_REFUSED = 49, /* struct msb_failure, then text: the process was not started; last frame */
  MSB_STDOUT = 50,  /* bytes */
  MSB_STDERR = 51,  /* bytes */
  MSB_EXITED = 52   /* struct msb_exited: last frame, after all output */
};

struct msb_hello {
  uint32_t version;       /* MSB_EXEC_VERSION */
  uint32_t reserved;      /* 0 */
  uint64_t guest_time_ns; /* CLOCK_BOOTTIME of the guest when it became ready */
};

/* Which step failed. `code` is the guest's errno of that step; the text is one sentence for a
 * person. */
enum msb_stage {
  MSB_STAGE_BOOT = 1,      /* reading the boot file, mounting, stacking */
  MSB_STAGE_REQUEST = 2,   /* START itself is malformed or too large */
  MSB_STAGE_RESOURCES = 3, /* no process, pipe or memory left in the guest */
  MSB_STAGE_DIRECTORY = 4, /* the working directory */
  MSB_STAGE_USER = 5,      /* changing user or group */
  MSB_STAGE_EXECUTE = 6    /* finding or executing the program */
};

struct msb_failure {
  uint32_t stage; /* enum msb_stage */
  uint32_t code;  /* errno in the guest, or 0 */
};

enum msb_bye_reason {
  MSB_BYE_REQUESTED = 1, /* the host asked by SHUTDOWN, or closed the control connection */
  MSB_BYE_RESTART = 2,   /* a process called reboot(2) to restart */
  MSB_BYE_POWER_OFF = 3, /* a process called reboot(2) to halt or power off */
  MSB_BYE_FAILED = 4     /* after FAILED */
};

struct msb_bye {
  uint32_t reason; /* enum msb_bye_reason */
};

struct msb_signal {
  uint32_t process; /* msb_started.process */
  uint32_t signal;  /* Linux x86-64 signal number, 1 to 64 */
};

/* Flags of msb_start. */
#define MSB_START_CREATE_DIRECTORY \
  1u /* create a missing working directory, as container engines do */

/*
 * Followed by NUL-terminated strings: the working directory (absolute), then `arguments` strings of
 * argv, then `variables` strings NAME=VALUE. argv[0] without a slash is looked for along PATH of
 * these variables.
 */
struct msb_start {
  uint32_t flags;
  uint32_t user;      /* numeric user */
  uint32_t group;     /* numeric group */
  uint32_t arguments; /* at least 1 */
  uint32_t variables;
  uint32_t reserved; /* 0 */
};

struct msb_started {
  uint32_t process; /* id of this process for SIGNAL, never reused within a boot */
  uint32_t pid;     /* its pid as programs in the guest see it */
};

enum msb_exit_kind {
  MSB_EXIT_STATUS = 1, /* `value` is the exit status */
  MSB_EXIT_SIGNAL = 2  /* `value` is the signal that ended it */
};

/* Flags of msb_exited. */
#define MSB_EXITED_OUT_OF_MEMORY 1u /* the kernel killed it for memory */

struct msb_exited {
  uint32_t kind; /* enum msb_exit_kind */
  uint32_t value;
  uint32_t flags;
};

#endif
