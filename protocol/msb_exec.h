/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exec protocol, version 2: what the host and the agent inside a guest say to each other over
 * vsock. One C header, shared by both ends. docs/exec-protocol.md describes it byte by byte and
 * says who may send what when.
 *
 * Every message is a frame: a header of 8 bytes, then `length` bytes of payload. All integers are
 * little-endian.
 *
 *   control   opened by the guest to the host's port MSB_PORT_CONTROL while it boots; one per boot.
 *   agent     opened by the host to the guest's port MSB_PORT_AGENT; any number. Its first frame
 *             decides what it is: START and ATTACH make it a process's, FILES a file service,
 *             CONNECT a tunnel; any other request is answered, and the next one may follow.
 */
#ifndef MSB_PROTOCOL_EXEC_H
#define MSB_PROTOCOL_EXEC_H

#include <stdint.h>

#define MSB_EXEC_VERSION 2u

/* vsock ports. */
#define MSB_PORT_CONTROL 1024u /* on the host */
#define MSB_PORT_AGENT 1025u   /* in the guest */
/* on the host: the first of those that the boot file's forwards lead to */
#define MSB_PORT_FORWARD 1026u

struct msb_frame_header {
  uint32_t type;   /* enum msb_frame_type */
  uint32_t length; /* of the payload that follows, in bytes */
};

/* Largest payloads. A frame that announces more is a protocol error: the receiver closes the
 * connection. */
#define MSB_MAX_DATA 65536u    /* everything that carries a stream's bytes */
#define MSB_MAX_START 4194304u /* START */
/* a request, with its paths; an answer with text */
#define MSB_MAX_REQUEST 16384u
#define MSB_MAX_SMALL 1024u /* every other type */

enum msb_frame_type {
  /* control connection, guest to host */
  MSB_HELLO = 1,  /* struct msb_hello: the guest is ready */
  MSB_FAILED = 2, /* struct msb_failure, text: it cannot become or stay ready; BYE follows */
  MSB_BYE = 3,    /* struct msb_bye: it ends as soon as the host closes this connection */
  /* control connection, host to guest */
  MSB_SHUTDOWN = 17, /* struct msb_shutdown: end all processes, write everything back, then BYE */

  /* process connection, host to guest */
  MSB_START = 32,         /* struct msb_start, limits, strings: the first frame */
  MSB_ATTACH = 33,        /* struct msb_attach: the first frame, instead of START */
  MSB_STDIN = 34,         /* bytes for standard input; an empty one closes it */
  MSB_CHANNEL_INPUT = 35, /* bytes for the channel; an empty one closes it */
  /* process connection, guest to host */
  MSB_STARTED = 48,  /* struct msb_started */
  MSB_REFUSED = 49,  /* struct msb_failure, text: last frame; also the answer to a failed request */
  MSB_STDOUT = 50,   /* bytes */
  MSB_STDERR = 51,   /* bytes */
  MSB_EXITED = 52,   /* struct msb_exited, text: last frame, after all output */
  MSB_CHANNEL = 53,  /* bytes that the process wrote into its channel */
  MSB_ATTACHED = 54, /* struct msb_attached */
  MSB_DETACHED = 55, /* no payload: another connection took the process over; last frame */

  /* requests, host to guest; answered by DONE or REFUSED, after what each names */
  MSB_PING = 64,         /* up to MSB_MAX_SMALL bytes: answered by PONG with the same bytes */
  MSB_SIGNAL = 65,       /* struct msb_signal */
  MSB_RESIZE = 66,       /* struct msb_resize */
  MSB_LIST = 67,         /* no payload: PROCESS for each, DONE with how many */
  MSB_WAIT = 68,         /* struct msb_process_id: EXITED when it has ended */
  MSB_FORGET = 69,       /* struct msb_process_id: lets go of a process that has ended */
  MSB_METRICS = 70,      /* no payload: answered by MEASURED */
  MSB_LISTENERS = 71,    /* no payload: LISTENER for each listening TCP socket, DONE */
  MSB_SET_CLOCK = 72,    /* struct msb_clock */
  MSB_ADD_ENTROPY = 73,  /* 1 to 512 bytes, credited in full: then the generator is reseeded */
  MSB_SET_NAMES = 74,    /* strings: host name, /etc/resolv.conf, /etc/hosts; empty leaves it */
  MSB_SHARE = 75,        /* strings: "ro" or "rw", path in the virtio-fs device, absolute path */
  MSB_UNSHARE = 76,      /* strings: absolute path: what is shared there is unmounted */
  MSB_SOCKET_OWNER = 77, /* struct msb_socket: answered by OWNER, or DONE when nobody is found */
  /* answers, guest to host */
  MSB_DONE = 96,      /* struct msb_done */
  MSB_PONG = 97,      /* the bytes of PING */
  MSB_PROCESS = 98,   /* struct msb_process, strings: label, argv[0] */
  MSB_MEASURED = 99,  /* struct msb_metrics */
  MSB_LISTENER = 100, /* struct msb_listener */
  MSB_OWNER = 101,    /* struct msb_owner, the name of the program (its comm) */

  /* first frames that give the connection away */
  MSB_FILES = 112,   /* no payload: from here on, file requests (below); answered by DONE */
  MSB_CONNECT = 113, /* struct msb_connect, path: DONE, and from there on bytes without frames */

  /* file requests, host to guest; each answered by DONE or REFUSED, after what it names */
  MSB_FILE_STAT = 128,     /* struct msb_file_request, path: ENTRY */
  MSB_FILE_LIST = 129,     /* path: ENTRY for each name in a directory */
  MSB_FILE_WALK = 130,     /* path: ENTRY for everything below, relative paths, parents first */
  MSB_FILE_READ = 131,     /* path: DATA */
  MSB_FILE_WRITE = 132,    /* path: the host sends DATA, the last one empty */
  MSB_FILE_MKDIR = 133,    /* path */
  MSB_FILE_REMOVE = 134,   /* path */
  MSB_FILE_RENAME = 135,   /* path, new path */
  MSB_FILE_CHMOD = 136,    /* path */
  MSB_FILE_CHOWN = 137,    /* path */
  MSB_FILE_SYMLINK = 138,  /* target, path */
  MSB_FILE_READLINK = 139, /* path: DATA */
  MSB_FILE_PACK = 140,     /* path: DATA, a tar stream of what is below it */
  MSB_FILE_UNPACK = 141,   /* path: the host sends DATA, a tar stream, the last one empty */
  /* both ways on a file connection */
  MSB_FILE_DATA = 142,  /* bytes; from the host, an empty one ends them */
  MSB_FILE_ENTRY = 143, /* struct msb_file_entry, name, target of a symbolic link */
  /* and one more request */
  MSB_FILE_DIFF = 144 /* path "/": ENTRY for each path that differs from the image */
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
  MSB_STAGE_REQUEST = 2,   /* the request itself is malformed, or asks for what there is not */
  MSB_STAGE_RESOURCES = 3, /* no process, pipe or memory left in the guest */
  MSB_STAGE_DIRECTORY = 4, /* the working directory */
  MSB_STAGE_USER = 5,      /* finding or becoming the user or a group */
  MSB_STAGE_EXECUTE = 6,   /* finding or executing the program */
  MSB_STAGE_PROCESS = 7,   /* there is no such process (any more) */
  MSB_STAGE_FILE = 8       /* a file operation */
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

/* Every process that the host started gets `signal` (its group does), and what still runs after
 * `grace_ms` is killed; with signal 0 or no grace everything is killed at once. */
struct msb_shutdown {
  uint32_t signal;   /* 0 to 64 */
  uint32_t grace_ms; /* at most 600,000 */
};

/* Flags of msb_start. */
#define MSB_START_CREATE_DIRECTORY 1u /* make a missing working directory, as engines do */
#define MSB_START_KEEP 2u             /* outlives its connection; ended by FORGET */
#define MSB_START_TERMINAL 4u         /* standard streams are one pseudo-terminal */
#define MSB_START_CHANNEL 8u          /* descriptor 3 is a stream socket: the channel */
/* standard input is /dev/null; STDIN is a protocol error */
#define MSB_START_NO_STDIN 16u

#define MSB_LIMITS_MAX 16u /* of msb_start.limits */
#define MSB_GROUPS_MAX 64u /* of msb_start.groups */
#define MSB_UMASK_DEFAULT 022u
#define MSB_KEEP_DEFAULT 1048576u /* bytes per stream when msb_start.keep is 0 */
#define MSB_KEEP_MAX 67108864u

/*
 * Followed by `limits` times struct msb_limit, then strings, each ended by a 0 byte: label, user
 * and working directory (absolute); `groups` supplementary groups; `arguments` strings of argv;
 * `variables` strings NAME=VALUE.
 *
 * The user is "", NAME, UID, NAME:GROUP or UID:GID as in an image's configuration; names are looked
 * up in the guest's /etc/passwd and /etc/group. argv[0] without a slash is looked for along PATH.
 */
struct msb_start {
  uint32_t flags;
  uint32_t arguments; /* at least 1 */
  uint32_t variables;
  uint32_t groups;
  uint32_t limits;
  uint32_t umask;      /* permission bits, at most 0777 */
  uint32_t timeout_ms; /* after which its group is killed; 0: never */
  uint32_t keep;       /* with KEEP: bytes of each output stream that stay readable; 0: default */
  uint16_t rows;       /* with TERMINAL */
  uint16_t columns;
  uint32_t reserved; /* 0 */
};

struct msb_limit {
  uint32_t resource; /* RLIMIT_* of Linux x86-64 */
  uint32_t reserved; /* 0 */
  uint64_t soft;     /* UINT64_MAX: none */
  uint64_t hard;
};

struct msb_started {
  uint32_t process; /* its id in this protocol, never reused within a boot */
  uint32_t pid;     /* its pid as programs in the guest see it */
};

/* The three streams from a process, as they are counted. */
enum msb_stream { MSB_STREAM_STDOUT = 0, MSB_STREAM_STDERR = 1, MSB_STREAM_CHANNEL = 2 };
#define MSB_STREAMS 3u
#define MSB_OFFSET_END UINT64_MAX /* in ATTACH: only what is written from now on */

struct msb_attach {
  uint32_t process;
  uint32_t reserved;             /* 0 */
  uint64_t offsets[MSB_STREAMS]; /* of the first byte wanted of each stream */
};

/* Where each stream goes on. Later than was asked for: the bytes between were lost, because the
 * process wrote more than it was started to keep. */
struct msb_attached {
  uint32_t process;
  uint32_t pid;
  uint64_t offsets[MSB_STREAMS];
  uint64_t input;         /* bytes of standard input taken so far: what a host must not repeat */
  uint64_t channel_input; /* the same of the channel */
  uint32_t flags;
  uint32_t reserved; /* 0 */
};
#define MSB_ATTACHED_INPUT_ENDED 1u   /* the empty STDIN has come */
#define MSB_ATTACHED_CHANNEL_ENDED 2u /* the empty CHANNEL_INPUT has come */
#define MSB_ATTACHED_TERMINAL 4u      /* its standard streams are a pseudo-terminal */
#define MSB_ATTACHED_INPUT 8u         /* it has a standard input: STDIN is no protocol error */

enum msb_exit_kind {
  MSB_EXIT_STATUS = 1, /* `value` is the exit status */
  MSB_EXIT_SIGNAL = 2  /* `value` is the signal that ended it */
};

/* Flags of msb_exited. */
/* The kernel killed it for memory; the kernel's word on that follows. */
#define MSB_EXITED_OUT_OF_MEMORY 1u
#define MSB_EXITED_CORE_DUMPED 2u
#define MSB_EXITED_TIMED_OUT 4u /* msb_start.timeout_ms was over */

/* Followed by text: the kernel's line when memory ran out, else nothing. */
struct msb_exited {
  uint32_t kind; /* enum msb_exit_kind */
  uint32_t value;
  uint32_t flags;
  uint32_t process;
  uint64_t user_us;              /* processor time, of it and of the children it waited for */
  uint64_t system_us;            /* microseconds */
  uint64_t max_rss_kib;          /* the largest of them */
  uint64_t offsets[MSB_STREAMS]; /* bytes that it wrote into each stream */
};

struct msb_process_id {
  uint32_t process;
};

#define MSB_SIGNAL_GROUP 1u /* to the process's group instead of to it alone */
struct msb_signal {
  uint32_t process;
  uint32_t signal; /* Linux x86-64 signal number, 1 to 64 */
  uint32_t flags;
};

struct msb_resize {
  uint32_t process;
  uint16_t rows;
  uint16_t columns;
};

struct msb_done {
  uint64_t value; /* what the request says, else 0 */
};

enum msb_process_state { MSB_PROCESS_RUNS = 1, MSB_PROCESS_ENDED = 2 };

struct msb_process {
  uint32_t process;
  uint32_t pid;
  uint32_t state;    /* enum msb_process_state */
  uint32_t flags;    /* of msb_start */
  uint32_t attached; /* 1 while a connection has it */
  uint32_t reserved;
  uint64_t started_ns;           /* CLOCK_BOOTTIME of the guest */
  uint64_t offsets[MSB_STREAMS]; /* bytes that it wrote into each stream so far */
  uint64_t oldest[MSB_STREAMS];  /* offset of the first byte that is still kept */
};

/* From the guest kernel's counters, for the whole machine. */
struct msb_metrics {
  uint64_t time_ns; /* CLOCK_BOOTTIME: what differences are divided by */
  uint64_t processors;
  uint64_t user_us; /* processor time spent, all processors together */
  uint64_t system_us;
  uint64_t idle_us;
  uint64_t steal_us;     /* wanted, and used by others on the host */
  uint64_t memory_total; /* bytes */
  uint64_t memory_available;
  uint64_t disk_total; /* bytes, of the root file system's writable layer */
  uint64_t disk_free;
  uint64_t files_total; /* the same in inodes */
  uint64_t files_free;
  uint64_t received_bytes; /* network, without loopback */
  uint64_t received_packets;
  uint64_t sent_bytes;
  uint64_t sent_packets;
  uint64_t processes; /* and threads, the agent's own left out where they can be told apart */
  uint64_t oom_kills; /* since boot */
};

struct msb_listener {
  uint32_t family; /* 4 or 6 */
  uint32_t port;
  uint8_t address[16]; /* network byte order; IPv4 in the first 4 */
};

/* A socket by the two ends of what it sends. */
struct msb_socket {
  uint32_t family;   /* 4 or 6 */
  uint32_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
  uint16_t local_port;
  uint16_t remote_port;
  uint32_t reserved;  /* 0 */
  uint8_t remote[16]; /* network byte order; IPv4 in the first 4 */
};

struct msb_owner {
  uint32_t pid; /* as programs in the guest see it */
  uint32_t user;
};

struct msb_clock {
  uint64_t realtime_ns; /* CLOCK_REALTIME to step to */
};

enum msb_connect_kind {
  /* 127.0.0.1; when that refuses ::1, then the network card's own addresses */
  MSB_CONNECT_TCP = 1,
  MSB_CONNECT_UNIX = 2, /* the path that follows, ended by a 0 byte; a stream socket */
  /* a datagram socket, connected to the first of those addresses where something listens. After
   * DONE each datagram has its length in front, 2 bytes */
  MSB_CONNECT_UDP = 3
};

struct msb_connect {
  uint32_t kind; /* enum msb_connect_kind */
  uint32_t port; /* with TCP and UDP */
};

/* Flags of msb_file_request; each request takes some and refuses the others. */
/* STAT, CHOWN: what a symbolic link at the end leads to */
#define MSB_FILE_FOLLOW 1u
/* MKDIR, WRITE, UNPACK: make missing parents; MKDIR: an existing directory is fine */
#define MSB_FILE_PARENTS 2u
/* REMOVE, CHOWN, CHMOD: a directory with all that is in it */
#define MSB_FILE_RECURSIVE 4u
/* WRITE: the old content or all of the new, also after a crash */
#define MSB_FILE_ATOMIC 8u
/* WRITE: at the end */
#define MSB_FILE_APPEND 16u
/* WRITE, RENAME: refuse a name that is taken */
#define MSB_FILE_EXCLUSIVE 32u
/* WRITE: keep what is there, and write from `offset` on */
#define MSB_FILE_UPDATE 64u
/* REMOVE: no error when there is nothing */
#define MSB_FILE_MISSING_OK 128u
/* WRITE, UNPACK: on disk before DONE */
#define MSB_FILE_SYNC 256u

/* Followed by the strings that the request names, each ended by a 0 byte. Paths are absolute. */
struct msb_file_request {
  uint32_t flags;
  uint32_t mode; /* WRITE, MKDIR, CHMOD: permission bits, at most 07777 */
  uint32_t user; /* WRITE, MKDIR, SYMLINK, CHOWN: owner; UINT32_MAX leaves it */
  uint32_t group;
  uint64_t offset; /* READ, WRITE with UPDATE: bytes */
  uint64_t length; /* READ: at most so many bytes, UINT64_MAX for all; WALK: depth, 0 for all */
};

struct msb_file_entry {
  uint32_t mode; /* st_mode */
  uint32_t user;
  uint32_t group;
  uint32_t links;
  uint64_t size;
  uint64_t inode;
  uint64_t device;     /* of a device node: st_rdev */
  int64_t modified_ns; /* since 1970 */
  int64_t changed_ns;
  uint32_t change;   /* DIFF: enum msb_file_change; else 0 */
  uint32_t reserved; /* 0 */
};

enum msb_file_change {
  MSB_FILE_ADDED = 1,   /* the image has no such path */
  MSB_FILE_CHANGED = 2, /* a directory: it, or something below it */
  MSB_FILE_DELETED = 3  /* the entry is the image's; what was below it is gone as well */
};

#endif
