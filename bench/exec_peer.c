/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bench/exec compares the exec protocol with, inside the guest, and vsock with, on the host:
 * the same work done by the least that a program can do. Static, put into the guest by the
 * benchmark.
 *
 *   exec_peer spawn COUNT PROGRAM   fork, execve and wait, COUNT times; prints nanoseconds for each
 *   exec_peer produce BYTES         writes so many bytes to standard output
 *   exec_peer serve PORT|/PATH      serves connections, of vsock or a Unix socket, one after
 *                                   another; the first byte says what: 'e' echoes, 's' sends the
 * bytes that an 8-byte number asks for, 'r' relays them from a child's pipe, 'd' discards until the
 * end and answers with one byte
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[64 * 1024];

static _Noreturn void die(const char* what) {
  perror(what);
  exit(1);
}

static void write_all(int file, const char* bytes, size_t length) {
  while (length > 0) {
    ssize_t n = write(file, bytes, length);
    if (n <= 0) die("write");
    bytes += n;
    length -= (size_t)n;
  }
}

static void produce(int file, uint64_t bytes) {
  while (bytes > 0) {
    size_t piece = bytes < sizeof buffer ? (size_t)bytes : sizeof buffer;
    write_all(file, buffer, piece);
    bytes -= piece;
  }
}

static void spawn(long count, char* program) {
  char* arguments[] = {program, NULL};
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long i = 0; i < count; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      execv(program, arguments);
      _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) die(program);
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  long long taken = (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec;
  printf("%lld\n", taken / count);
}

static void relay(int connection, uint64_t bytes) {
  int ends[2];
  if (pipe(ends) != 0) die("pipe");
  pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    produce(ends[1], bytes);
    _exit(0);
  }
  close(ends[1]);
  ssize_t n;
  while ((n = read(ends[0], buffer, sizeof buffer)) > 0) write_all(connection, buffer, (size_t)n);
  close(ends[0]);
  waitpid(pid, NULL, 0);
}

static void answer(int connection) {
  char kind;
  uint64_t bytes = 0;
  if (read(connection, &kind, 1) != 1) return;
  if (kind == 's' || kind == 'r') {
    if (recv(connection, &bytes, sizeof bytes, MSG_WAITALL) != sizeof bytes) return;
    kind == 's' ? produce(connection, bytes) : relay(connection, bytes);
    return;
  }
  ssize_t n;
  while ((n = read(connection, buffer, sizeof buffer)) > 0) {
    if (kind == 'e') write_all(connection, buffer, (size_t)n);
  }
  if (kind == 'd') write_all(connection, "", 1);
}

static void serve(const char* place) {
  struct sockaddr_vm port = {
      .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = (unsigned)atoi(place)};
  struct sockaddr_un path = {.sun_family = AF_UNIX};
  const int on_host = place[0] == '/';
  strncpy(path.sun_path, place, sizeof path.sun_path - 1);
  int listener = socket(on_host ? AF_UNIX : AF_VSOCK, SOCK_STREAM, 0);
  if (listener < 0 ||
      bind(listener, on_host ? (struct sockaddr*)&path : (struct sockaddr*)&port,
           on_host ? sizeof path : sizeof port) != 0 ||
      listen(listener, 16) != 0) {
    die("listen");
  }
  write_all(STDOUT_FILENO, "ready\n", 6);
  while (1) {
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) die("accept");
    answer(connection);
    close(connection);
  }
}

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "spawn") == 0) {
    spawn(atol(argv[2]), argv[3]);
  } else if (argc == 3 && strcmp(argv[1], "produce") == 0) {
    produce(STDOUT_FILENO, strtoull(argv[2], NULL, 10));
  } else if (argc == 3 && strcmp(argv[1], "serve") == 0) {
    serve(argv[2]);
  } else {
    fputs("usage: exec_peer spawn COUNT PROGRAM | produce BYTES | serve PORT|/PATH\n", stderr);
    return 2;
  }
  return 0;
}
