/*
 * Traffic for benchmarks of paths, on both ends, each of which takes as little processor time as it can:
 *   stream serve PORT                              takes connections until it is ended
 *   stream send ADDRESS PORT STREAMS MILLISECONDS  prints bits per second that the other end received
 *   stream ping ADDRESS PORT COUNT                 prints the median and 99th percentile of a round trip, in microseconds
 *   stream connect ADDRESS PORT COUNT              the same of a connection that is made, one after the other
 * The first byte of a connection says what it is for: 's' and then data, answered by the number of bytes at its end; or
 * 'p' and then bytes of which each comes back.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *host, const char *port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  if (inet_pton(AF_INET, host, &a.sin_addr) != 1) fail("address");
  return a;
}

static int dial(const struct sockaddr_in *to) {
  int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof *to) < 0) fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

static void *serve_one(void *argument) {
  int one = 1, fd = (int)(intptr_t)argument;
  char kind, *buffer = malloc(CHUNK);
  uint64_t total = 0;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (buffer != NULL && read(fd, &kind, 1) == 1) {
    ssize_t got;
    if (kind == 'p') {
      while ((got = read(fd, buffer, 1)) == 1 && write(fd, buffer, 1) == 1) continue;
    } else {
      while ((got = read(fd, buffer, CHUNK)) > 0) total += (uint64_t)got;
      if (write(fd, &total, sizeof total) < 0) perror("write");
    }
  }
  free(buffer);
  close(fd);
  return NULL;
}

static void serve(const char *port) {
  struct sockaddr_in a = address("0.0.0.0", port);
  int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0) fail("listen");
  puts("ready");
  fflush(stdout);
  for (;;) {
    pthread_t thread;
    int accepted = accept(fd, NULL, NULL);
    if (accepted < 0) fail("accept");
    if (pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)accepted) == 0) pthread_detach(thread);
  }
}

struct stream {
  struct sockaddr_in to;
  double until;
  uint64_t total;
};

static void *send_one(void *argument) {
  struct stream *stream = argument;
  int fd = dial(&stream->to);
  char *buffer = calloc(1, CHUNK);
  if (buffer == NULL || write(fd, "s", 1) != 1) fail("write");
  while (now() < stream->until)
    if (write(fd, buffer, CHUNK) <= 0) fail("write");
  shutdown(fd, SHUT_WR);
  if (read(fd, &stream->total, sizeof stream->total) != sizeof stream->total) fail("read");
  free(buffer);
  close(fd);
  return NULL;
}

static void send_all(const struct sockaddr_in *to, int streams, double seconds) {
  pthread_t threads[64];
  struct stream all[64];
  double start = now();
  uint64_t total = 0;
  if (streams < 1 || streams > 64) exit(2);
  for (int i = 0; i < streams; i++) {
    all[i] = (struct stream){.to = *to, .until = start + seconds};
    if (pthread_create(&threads[i], NULL, send_one, &all[i]) != 0) fail("thread");
  }
  for (int i = 0; i < streams; i++) {
    pthread_join(threads[i], NULL);
    total += all[i].total;
  }
  printf("%.0f\n", (double)total * 8 / (now() - start));
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void ping(const struct sockaddr_in *to, int count) {
  int fd = dial(to);
  char byte = 'p';
  double *took = calloc((size_t)count, sizeof *took);
  if (took == NULL || write(fd, "p", 1) != 1) fail("write");
  for (int i = 0; i < count; i++) {
    double start = now();
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) fail("round trip");
    took[i] = (now() - start) * 1e6;
  }
  qsort(took, (size_t)count, sizeof *took, compare);
  printf("%.1f %.1f\n", took[count / 2], took[(int)(count * 0.99)]);
  free(took);
  close(fd);
}

static void connect_each(const struct sockaddr_in *to, int count) {
  double *took = calloc((size_t)count, sizeof *took);
  if (took == NULL) fail("memory");
  for (int i = 0; i < count; i++) {
    double start = now();
    int fd = dial(to);
    took[i] = (now() - start) * 1e6;
    close(fd);
  }
  qsort(took, (size_t)count, sizeof *took, compare);
  printf("%.1f %.1f\n", took[count / 2], took[(int)(count * 0.99)]);
  free(took);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) {
    serve(argv[2]);
  } else if (argc == 6 && strcmp(argv[1], "send") == 0) {
    struct sockaddr_in to = address(argv[2], argv[3]);
    send_all(&to, atoi(argv[4]), atof(argv[5]) / 1000);
  } else if (argc == 5 && strcmp(argv[1], "ping") == 0) {
    struct sockaddr_in to = address(argv[2], argv[3]);
    ping(&to, atoi(argv[4]));
  } else if (argc == 5 && strcmp(argv[1], "connect") == 0) {
    struct sockaddr_in to = address(argv[2], argv[3]);
    connect_each(&to, atoi(argv[4]));
  } else {
    fprintf(stderr, "usage: stream serve PORT | send ADDRESS PORT STREAMS MILLISECONDS | ping|connect ADDRESS PORT COUNT\n");
    return 2;
  }
  return 0;
}
