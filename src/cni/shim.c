/*
 * The CNI plugin that a container runtime starts for every pod: it hands its CNI_* environment and its standard input to
 * the agent's unix socket and prints the answer. Everything that takes thought happens in the agent; this file is C so
 * that the start costs half a millisecond. shim.io.ts is the same in TypeScript, for machines without a compiler.
 *
 * Request:  NAME=VALUE NUL … NUL, then the network configuration, then end of file.
 * Answer:   "+" (exit 0) or "!" (exit 1), then what belongs on standard output: nothing, or whole lines.
 *
 * With no agent to ask, DEL must neither hang nor leak: the request is left in the spool directory, which the agent
 * works through when it starts, and the plugin succeeds.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef RUN_DIRECTORY
#define RUN_DIRECTORY "/var/run/calico"
#endif
#ifndef ADD_SECONDS
#define ADD_SECONDS 90 /* as long as Calico's IPAM plugin waits */
#endif
#ifndef DEL_SECONDS
#define DEL_SECONDS 20
#endif

extern char **environ;
static char request[1 << 20], answer[1 << 20];

static int write_all(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t written = write(fd, bytes, length);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return -1;
    bytes += written;
    length -= written;
  }
  return 0;
}

/* CNI error result (CNI specification 1.1.0, section 5). 11 means: try again later; 50: the plugin is not available. */
static int fail(const char *command, const char *what, const char *details) {
  char text[1024];
  int code = strcmp(command, "STATUS") == 0 ? 50 : 11;
  int length = snprintf(text, sizeof text, "{\"cniVersion\":\"1.0.0\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n", code, what, details);
  write_all(1, text, length < (int)sizeof text ? (size_t)length : sizeof text - 1);
  return 1;
}

static const char *environment(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value && *value ? value : otherwise;
}

/* A container id and an interface name become a file name: nothing in them may leave the directory. */
static int is_plain(const char *text) {
  return *text && *text != '.' && strlen(text) < 200 && !strpbrk(text, "/\n");
}

static int spool(const char *run, size_t length) {
  char directory[256], path[512], temporary[512 + 32];
  const char *container = environment("CNI_CONTAINERID", ""), *interface = environment("CNI_IFNAME", "");
  if (!is_plain(container) || !is_plain(interface)) return -1;
  if ((size_t)snprintf(directory, sizeof directory, "%s/cni-deferred", run) >= sizeof directory) return -1;
  if ((size_t)snprintf(path, sizeof path, "%s/%s:%s", directory, container, interface) >= sizeof path) return -1;
  /* The agent passes over names that begin with a dot. */
  snprintf(temporary, sizeof temporary, "%s/.%s:%s.%ld", directory, container, interface, (long)getpid());
  mkdir(run, 0755); /* after a reboot, before the agent has run: it is on a tmpfs */
  mkdir(directory, 0700);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return -1;
  int bad = write_all(fd, request, length) | close(fd);
  if (!bad && rename(temporary, path) == 0) return 0;
  unlink(temporary);
  return -1;
}

/* Asks the agent; returns the length of its answer, or -1 with errno. */
static ssize_t ask(const char *run, size_t length, int seconds) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct timeval limit = {.tv_sec = seconds};
  if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/cni.sock", run) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return -1;
  if (write_all(fd, request, length) != 0 || shutdown(fd, SHUT_WR) != 0) return -1;
  size_t have = 0;
  for (;;) {
    ssize_t got = read(fd, answer + have, sizeof answer - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    have += got;
    if (have == sizeof answer) {
      errno = EMSGSIZE;
      return -1;
    }
  }
  if (have == 1 || (have > 1 && answer[have - 1] == '\n')) return have;
  errno = ECONNRESET; /* the agent went away before its answer was whole */
  return -1;
}

int main(void) {
  const char *command = environment("CNI_COMMAND", ""), *run = environment("CARACAL_RUN_DIR", RUN_DIRECTORY);
  size_t length = 0;
  signal(SIGPIPE, SIG_IGN); /* an agent that goes away is an answer, not the end */
  for (char **variable = environ; *variable; variable++) {
    if (strncmp(*variable, "CNI_", 4) != 0) continue;
    size_t size = strlen(*variable) + 1;
    if (length + size + 1 > sizeof request) return fail(command, "the environment is too large", "");
    memcpy(request + length, *variable, size);
    length += size;
  }
  request[length++] = 0;
  for (;;) {
    if (length == sizeof request) return fail(command, "the network configuration is larger than 1 MiB", "");
    ssize_t got = read(0, request + length, sizeof request - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(command, "cannot read the network configuration", strerror(errno));
    if (got == 0) break;
    length += got;
  }
  int is_del = strcmp(command, "DEL") == 0;
  ssize_t size = ask(run, length, is_del ? DEL_SECONDS : ADD_SECONDS);
  if (size > 0) return write_all(1, answer + 1, size - 1) != 0 || answer[0] != '+';
  int reason = errno;
  if (is_del && spool(run, length) == 0) return 0;
  return fail(command, "the Caracal agent on this node does not answer",
              reason == EAGAIN ? "no answer in time" : strerror(reason));
}
