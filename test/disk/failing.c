// A disk that fails where it is told to: loaded before libc (LD_PRELOAD), it counts the calls that touch a path and makes
// one of them, or all from one on, fail. It is told, and tells, through a file that both sides have open: faults.ts.
// cc -shared -fPIC -O1 -o failing.so failing.c -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
  _Atomic int count; // calls that matched
  int at;            // which of them fails, from 1 on; 0: none
  int code;          // errno that it fails with; 0: a write takes half of what it is given
  int lasting;       // so do all that come after it
  int reads;         // count reading calls instead of those that change something
  int hit;           // 1 once a call failed
  char path[496];    // what counts: this path and all below it; empty: nothing
  char what[512];    // the first call that failed
};

static struct control* control;

__attribute__((constructor)) static void begin(void) {
  const char* name = getenv("WEFT_FAILING_DISK");
  int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void* at = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at != MAP_FAILED) control = at;
}

enum { fine, fails, is_short };

static int judge(const char* call, const char* path, int is_read) {
  if (!control || !control->path[0] || !path || control->reads != is_read) return fine;
  size_t length = strlen(control->path);
  if (strncmp(path, control->path, length) != 0 || (path[length] != '/' && path[length] != 0)) return fine;
  int n = atomic_fetch_add(&control->count, 1) + 1;
  if (control->at == 0 || n < control->at || (n > control->at && !control->lasting)) return fine;
  if (!control->hit) {
    control->hit = 1;
    snprintf(control->what, sizeof control->what, "%s %s", call, path + length);
  }
  int is_write = strstr(call, "write") != 0;
  if (control->code == 0 && is_write && n == control->at) return is_short;
  if (control->code == 0 && !control->lasting) return fine;
  errno = control->code ? control->code : ENOSPC;
  return fails;
}

static int judge_fd(const char* call, int fd, int is_read) {
  if (!control || !control->path[0] || control->reads != is_read) return fine;
  char link[64], path[1024];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return fine;
  path[n] = 0;
  return judge(call, path, is_read);
}

#define REAL(name) (((__typeof__(&name))dlsym(RTLD_NEXT, #name)))
#define HALF(n) ((n) > 1 ? (n) / 2 : (n))

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  int is_read = !(flags & (O_WRONLY | O_RDWR | O_CREAT));
  return judge(is_read ? "open to read" : "open", path, is_read) == fine ? REAL(open64)(path, flags, mode) : -1;
}

ssize_t write(int fd, const void* data, size_t n) {
  int is = judge_fd("write", fd, 0);
  return is == fails ? -1 : REAL(write)(fd, data, is == is_short ? HALF(n) : n);
}
ssize_t pwrite64(int fd, const void* data, size_t n, off_t at) {
  int is = judge_fd("pwrite", fd, 0);
  return is == fails ? -1 : REAL(pwrite64)(fd, data, is == is_short ? HALF(n) : n, at);
}
ssize_t writev(int fd, const struct iovec* parts, int count) {
  int is = judge_fd("writev", fd, 0);
  return is == fails ? -1 : REAL(writev)(fd, parts, is == is_short ? HALF(count) : count);
}
ssize_t pwritev64(int fd, const struct iovec* parts, int count, off_t at) {
  int is = judge_fd("pwritev", fd, 0);
  return is == fails ? -1 : REAL(pwritev64)(fd, parts, is == is_short ? HALF(count) : count, at);
}
ssize_t read(int fd, void* data, size_t n) {
  return judge_fd("read", fd, 1) == fine ? REAL(read)(fd, data, n) : -1;
}
ssize_t pread64(int fd, void* data, size_t n, off_t at) {
  return judge_fd("pread", fd, 1) == fine ? REAL(pread64)(fd, data, n, at) : -1;
}
int fsync(int fd) { return judge_fd("fsync", fd, 0) == fine ? REAL(fsync)(fd) : -1; }
int fdatasync(int fd) { return judge_fd("fdatasync", fd, 0) == fine ? REAL(fdatasync)(fd) : -1; }
int ftruncate64(int fd, off_t size) { return judge_fd("ftruncate", fd, 0) == fine ? REAL(ftruncate64)(fd, size) : -1; }
int rename(const char* from, const char* to) { return judge("rename", from, 0) == fine ? REAL(rename)(from, to) : -1; }
int link(const char* from, const char* to) { return judge("link", to, 0) == fine ? REAL(link)(from, to) : -1; }
int mkdir(const char* path, mode_t mode) { return judge("mkdir", path, 0) == fine ? REAL(mkdir)(path, mode) : -1; }
char* mkdtemp(char* path) { return judge("mkdtemp", path, 0) == fine ? REAL(mkdtemp)(path) : 0; }
int unlink(const char* path) { return judge("unlink", path, 0) == fine ? REAL(unlink)(path) : -1; }
int rmdir(const char* path) { return judge("rmdir", path, 0) == fine ? REAL(rmdir)(path) : -1; }
