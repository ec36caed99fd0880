/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One byte there and one back over TCP, again and again: how long a message takes through a network
 * that has nothing else to do.
 *
 *   network_client serve PORT
 *       sends back what arrives, one connection after another; says "ready" first
 *   network_client ADDRESS PORT COUNT
 *       prints "latency MEDIAN P99 RATE": microseconds, microseconds, times a second
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int tcp_socket(void) {
  int on = 1;
  int connection = socket(AF_INET, SOCK_STREAM, 0);
  if (connection < 0 || setsockopt(connection, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
    err(1, "socket");
  }
  return connection;
}

static void send_at_once(int connection) {
  int on = 1;
  if (setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
    err(1, "TCP_NODELAY");
  }
}

static void serve(struct sockaddr_in* address) {
  int listener = tcp_socket();
  if (bind(listener, (struct sockaddr*)address, sizeof *address) != 0 ||
      listen(listener, 16) != 0) {
    err(1, "port %d", ntohs(address->sin_port));
  }
  puts("ready");
  fflush(stdout);
  for (;;) {
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) err(1, "accept");
    send_at_once(connection);
    char byte;
    while (read(connection, &byte, 1) == 1 && write(connection, &byte, 1) == 1) continue;
    close(connection);
  }
}

static int compare(const void* left, const void* right) {
  double difference = *(const double*)left - *(const double*)right;
  return (difference > 0) - (difference < 0);
}

static void measure(struct sockaddr_in* address, int count) {
  double* times = calloc((size_t)count, sizeof *times);
  int connection = tcp_socket();
  if (times == NULL || connect(connection, (struct sockaddr*)address, sizeof *address) != 0) {
    err(1, "connect");
  }
  send_at_once(connection);
  double start = now();
  int first = -count / 10; /* the first ones do not count */
  for (int i = first; i < count; i++) {
    char byte = 'x';
    double sent = now();
    if (i == 0) start = sent;
    if (write(connection, &byte, 1) != 1 || read(connection, &byte, 1) != 1) err(1, "connection");
    if (i >= 0) times[i] = now() - sent;
  }
  double all = now() - start;
  qsort(times, (size_t)count, sizeof *times, compare);
  printf("latency %.2f %.2f %.1f\n", times[count / 2] * 1e6, times[count - 1 - count / 100] * 1e6,
         count / all);
  free(times);
}

int main(int argc, char** argv) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  int server = argc == 3 && strcmp(argv[1], "serve") == 0;
  if (!server &&
      (argc != 4 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1 || atoi(argv[3]) <= 0)) {
    errx(2, "usage: network_client serve PORT, or network_client ADDRESS PORT COUNT");
  }
  address.sin_port = htons((unsigned short)atoi(argv[2]));
  if (server) {
    serve(&address);
  } else {
    measure(&address, atoi(argv[3]));
  }
  return 0;
}
