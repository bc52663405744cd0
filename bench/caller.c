/*
 * Calls a CNI plugin as a container runtime does, and says how long that took: posix_spawn with pipes for standard input
 * and output (as Go's os/exec, vfork underneath), the answer read to its end, the child waited for. A runtime of 20 KB
 * with nothing else to do, so that what is measured is the plugin: Node needs a millisecond or two to start a process.
 *
 * Standard input, for each call:   u32 length of what follows; file NUL, NAME=VALUE NUL …, NUL, then the configuration.
 * Standard output, for each call:  u32 exit status (128 + signal), u32 length of the answer, u64 nanoseconds from before
 *                                  the pipes are made to after the child has been waited for, u64 microseconds of
 *                                  processor time of the child and those that it waited for; then the answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_VARIABLES 256

static char call[1 << 20], answer[1 << 20];

static void die(const char *what) {
  fprintf(stderr, "caller: %s: %s\n", what, strerror(errno));
  exit(2);
}

/* Whether all of it came; the end of the input before the first byte ends the program. */
static void read_all(void *to, size_t length) {
  char *at = to;
  while (length > 0) {
    ssize_t got = read(0, at, length);
    if (got == 0) exit(0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) die("read");
    at += got;
    length -= got;
  }
}

static void write_all(int fd, const void *from, size_t length) {
  const char *at = from;
  while (length > 0) {
    ssize_t wrote = write(fd, at, length);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) die("write");
    at += wrote;
    length -= wrote;
  }
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static uint64_t microseconds(struct timeval time) { return (uint64_t)time.tv_sec * 1000000 + time.tv_usec; }

int main(void) {
  for (;;) {
    uint32_t length;
    read_all(&length, sizeof length);
    if (length >= sizeof call) die("a call is too long");
    read_all(call, length);
    char *variables[MOST_VARIABLES + 1], *at = call + strlen(call) + 1, *file = call;
    int count = 0;
    for (; *at != 0; at += strlen(at) + 1) {
      if (count == MOST_VARIABLES) die("too many variables");
      variables[count++] = at;
    }
    variables[count] = NULL;
    at++;
    char *arguments[] = {file, NULL};

    uint64_t began = now();
    int input[2], output[2], status;
    if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0) die("pipe2");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input[0], 0);
    posix_spawn_file_actions_adddup2(&actions, output[1], 1);
    pid_t child;
    errno = posix_spawn(&child, file, &actions, NULL, arguments, variables);
    if (errno != 0) die(file);
    posix_spawn_file_actions_destroy(&actions);
    close(input[0]);
    close(output[1]);
    write_all(input[1], at, call + length - at); /* a pipe holds 64 KiB: nothing waits here */
    close(input[1]);
    size_t have = 0;
    for (;;) {
      ssize_t got = read(output[0], answer + have, sizeof answer - have);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) die("read the answer");
      if (got == 0) break;
      have += got;
    }
    close(output[0]);
    struct rusage usage;
    while (wait4(child, &status, 0, &usage) < 0)
      if (errno != EINTR) die("wait4");
    uint64_t took = now() - began;

    struct {
      uint32_t exit, length;
      uint64_t nanoseconds, processor;
    } result = {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), have, took,
                microseconds(usage.ru_utime) + microseconds(usage.ru_stime)};
    write_all(1, &result, sizeof result);
    write_all(1, answer, have);
  }
}
