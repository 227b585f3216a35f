/* Stands between a program and the C library (LD_PRELOAD) and numbers every system call that changes files, with one
 * counter for all of them, from 1. What is written to standard output and error is not counted.
 *
 *   GRADIENT_SHIM_COUNT=FILE        at exit, writes the name of each call to FILE, a line each
 *   GRADIENT_SHIM_KILL=before:K     dies by SIGKILL before call K is made
 *   GRADIENT_SHIM_KILL=after:K      dies by SIGKILL when call K has been made
 *   GRADIENT_SHIM_KILL=half:K       dies by SIGKILL when call K, a write, has written half of its bytes
 *   GRADIENT_SHIM_FAIL=K:E:once     call K fails with error number E
 *   GRADIENT_SHIM_FAIL=K:E:ever     call K and all after it do
 *   GRADIENT_SHIM_CANARY=late-pack  a pack gets its name only after the next operation has got its own
 *   GRADIENT_SHIM_CANARY=ignore-full  a write of pieces that finds no room says that it wrote them
 *
 * A program that does not end within 20 seconds dies by SIGALRM.
 *
 * What makes system calls by itself goes unseen: rustix must be built with --cfg=rustix_use_libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CALLS_MAX = 1 << 16, IOV_MAX_HALVED = 1024, SECONDS_MAX = 20 };
enum when { NEVER, BEFORE, AFTER, HALF };

static _Atomic long calls;
static const char *names[CALLS_MAX];

static enum when kill_when;
static long kill_at, fail_at, fail_ever;
static int fail_with;
static int late_pack, ignore_full;

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("GRADIENT_SHIM_KILL");
    if (text) {
        kill_when = text[0] == 'b' ? BEFORE : text[0] == 'a' ? AFTER : HALF;
        kill_at = atol(strchr(text, ':') + 1);
    }
    text = getenv("GRADIENT_SHIM_FAIL");
    if (text) {
        char ever = 0;
        sscanf(text, "%ld:%d:%c", &fail_at, &fail_with, &ever);
        fail_ever = ever == 'e';
    }
    text = getenv("GRADIENT_SHIM_CANARY");
    late_pack = text && strcmp(text, "late-pack") == 0;
    ignore_full = text && strcmp(text, "ignore-full") == 0;
    if (getenv("GRADIENT_SHIM_KILL") || fail_at)
        alarm(SECONDS_MAX);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Takes the next number; 0 if the call is to fail, which errno then says how. */
static long enter(const char *name) {
    long at = atomic_fetch_add(&calls, 1) + 1;
    if (at <= CALLS_MAX)
        names[at - 1] = name;
    if (kill_when == BEFORE && at == kill_at)
        die();
    if (fail_at && (fail_ever ? at >= fail_at : at == fail_at)) {
        errno = fail_with;
        return 0;
    }
    return at;
}

static void leave(long at) {
    if (kill_when == AFTER && at == kill_at)
        die();
}

static int is_half(long at) { return kill_when == HALF && at == kill_at; }

#define REAL(type, name, params)                                                                                       \
    static type(*real) params;                                                                                         \
    if (!real)                                                                                                         \
    real = (type(*) params)dlsym(RTLD_NEXT, #name)

#define CALL(type, name, params, args, kernel, is_counted)                                                             \
    type name params {                                                                                                 \
        REAL(type, name, params);                                                                                      \
        if (!(is_counted))                                                                                             \
            return real args;                                                                                          \
        long at = enter(kernel);                                                                                       \
        if (!at)                                                                                                       \
            return -1;                                                                                                 \
        type outcome = real args;                                                                                      \
        leave(at);                                                                                                     \
        return outcome;                                                                                                \
    }

/* A write of one piece: half of it is half of the piece. */
#define WRITE(name, params, args, half, kernel)                                                                        \
    ssize_t name params {                                                                                              \
        REAL(ssize_t, name, params);                                                                                   \
        if (fd == 1 || fd == 2)                                                                                        \
            return real args;                                                                                          \
        long at = enter(kernel);                                                                                       \
        if (!at)                                                                                                       \
            return -1;                                                                                                 \
        if (is_half(at)) {                                                                                             \
            (void)!real half;                                                                                          \
            die();                                                                                                     \
        }                                                                                                              \
        ssize_t outcome = real args;                                                                                   \
        leave(at);                                                                                                     \
        return outcome;                                                                                                \
    }

static size_t total(const struct iovec *iov, int count) {
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* The pieces that make up the first half of the bytes. */
static int halve(const struct iovec *iov, int count, struct iovec *out) {
    size_t left = total(iov, count) / 2;
    int n = 0;
    for (; n < count && n < IOV_MAX_HALVED && left; n++) {
        out[n] = iov[n];
        if (out[n].iov_len > left)
            out[n].iov_len = left;
        left -= out[n].iov_len;
    }
    return n;
}

/* A write of many pieces. `some` is the call with the pieces in `part`, of which there are `parts`. */
#define WRITEV(name, params, args, some, kernel)                                                                       \
    ssize_t name params {                                                                                              \
        REAL(ssize_t, name, params);                                                                                   \
        if (fd == 1 || fd == 2)                                                                                        \
            return real args;                                                                                          \
        long at = enter(kernel);                                                                                       \
        if (!at)                                                                                                       \
            return -1;                                                                                                 \
        if (is_half(at)) {                                                                                             \
            static struct iovec part[IOV_MAX_HALVED];                                                                  \
            int parts = halve(iov, count, part);                                                                       \
            (void)!real some;                                                                                          \
            die();                                                                                                     \
        }                                                                                                              \
        ssize_t outcome = real args;                                                                                   \
        if (outcome < 0 && ignore_full && (errno == ENOSPC || errno == EFBIG))                                         \
            outcome = (ssize_t)total(iov, count);                                                                      \
        leave(at);                                                                                                     \
        return outcome;                                                                                                \
    }

WRITE(write, (int fd, const void *buf, size_t len), (fd, buf, len), (fd, buf, len / 2), "write")
WRITE(pwrite, (int fd, const void *buf, size_t len, off_t at_), (fd, buf, len, at_), (fd, buf, len / 2, at_),
      "pwrite64")
WRITE(pwrite64, (int fd, const void *buf, size_t len, off64_t at_), (fd, buf, len, at_), (fd, buf, len / 2, at_),
      "pwrite64")
WRITEV(writev, (int fd, const struct iovec *iov, int count), (fd, iov, count), (fd, part, parts), "writev")
WRITEV(pwritev, (int fd, const struct iovec *iov, int count, off_t to), (fd, iov, count, to), (fd, part, parts, to),
       "pwritev")
WRITEV(pwritev64, (int fd, const struct iovec *iov, int count, off64_t to), (fd, iov, count, to), (fd, part, parts, to),
       "pwritev")
WRITEV(pwritev2, (int fd, const struct iovec *iov, int count, off_t to, int flags), (fd, iov, count, to, flags),
       (fd, part, parts, to, flags), "pwritev2")
WRITEV(pwritev64v2, (int fd, const struct iovec *iov, int count, off64_t to, int flags), (fd, iov, count, to, flags),
       (fd, part, parts, to, flags), "pwritev2")

CALL(int, fsync, (int fd), (fd), "fsync", 1)
CALL(int, fdatasync, (int fd), (fd), "fdatasync", 1)
CALL(int, syncfs, (int fd), (fd), "syncfs", 1)
CALL(int, sync_file_range, (int fd, off64_t at_, off64_t len, unsigned flags), (fd, at_, len, flags),
     "sync_file_range", 1)
CALL(int, rename, (const char *a, const char *b), (a, b), "rename", 1)
CALL(int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), "renameat", 1)
CALL(int, link, (const char *a, const char *b), (a, b), "link", 1)
CALL(int, linkat, (int d, const char *a, int e, const char *b, int flags), (d, a, e, b, flags), "linkat", 1)
CALL(int, symlink, (const char *a, const char *b), (a, b), "symlink", 1)
CALL(int, symlinkat, (const char *a, int d, const char *b), (a, d, b), "symlinkat", 1)
CALL(int, unlink, (const char *a), (a), "unlink", 1)
CALL(int, unlinkat, (int d, const char *a, int flags), (d, a, flags), "unlinkat", 1)
CALL(int, rmdir, (const char *a), (a), "rmdir", 1)
CALL(int, mkdir, (const char *a, mode_t mode), (a, mode), "mkdir", 1)
CALL(int, mkdirat, (int d, const char *a, mode_t mode), (d, a, mode), "mkdirat", 1)
CALL(int, truncate, (const char *a, off_t len), (a, len), "truncate", 1)
CALL(int, truncate64, (const char *a, off64_t len), (a, len), "truncate", 1)
CALL(int, ftruncate, (int fd, off_t len), (fd, len), "ftruncate", 1)
CALL(int, ftruncate64, (int fd, off64_t len), (fd, len), "ftruncate", 1)
CALL(int, fallocate, (int fd, int mode, off_t at_, off_t len), (fd, mode, at_, len), "fallocate", 1)
CALL(int, fallocate64, (int fd, int mode, off64_t at_, off64_t len), (fd, mode, at_, len), "fallocate", 1)
CALL(ssize_t, copy_file_range, (int a, off64_t *b, int c, off64_t *d, size_t len, unsigned flags),
     (a, b, c, d, len, flags), "copy_file_range", 1)
CALL(ssize_t, sendfile, (int out, int in, off_t *at_, size_t len), (out, in, at_, len), "sendfile", 1)
CALL(ssize_t, sendfile64, (int out, int in, off64_t *at_, size_t len), (out, in, at_, len), "sendfile", 1)

/* Opening changes something only if it may make a file, or cut it. */
static int makes(long flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

#define OPEN(name, params, args, kernel)                                                                               \
    int name params {                                                                                                  \
        mode_t mode = 0;                                                                                               \
        if (makes(flags)) {                                                                                            \
            va_list rest;                                                                                              \
            va_start(rest, flags);                                                                                     \
            mode = va_arg(rest, mode_t);                                                                               \
            va_end(rest);                                                                                              \
        }                                                                                                              \
        REAL(int, name, params);                                                                                       \
        if (!makes(flags) && !(flags & O_TRUNC))                                                                       \
            return real args;                                                                                          \
        long at = enter(kernel);                                                                                       \
        if (!at)                                                                                                       \
            return -1;                                                                                                 \
        int outcome = real args;                                                                                       \
        leave(at);                                                                                                     \
        return outcome;                                                                                                \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), "openat")
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), "openat")
OPEN(openat, (int dir, const char *path, int flags, ...), (dir, path, flags, mode), "openat")
OPEN(openat64, (int dir, const char *path, int flags, ...), (dir, path, flags, mode), "openat")
CALL(int, creat, (const char *path, mode_t mode), (path, mode), "creat", 1)
CALL(int, creat64, (const char *path, mode_t mode), (path, mode), "creat", 1)

/* A rename that was put off, for the canary. */
static int late_from = -1, late_to = -1;
static char late_old[256], late_new[256];

static int is_folder(int fd, const char *name) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0)
        return 0;
    path[len] = 0;
    const char *last = strrchr(path, '/');
    return last && strcmp(last + 1, name) == 0;
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    REAL(int, renameat2, (int, const char *, int, const char *, unsigned));
    if (late_pack && is_folder(to, "packs")) {
        late_from = dup(from);
        late_to = dup(to);
        snprintf(late_old, sizeof late_old, "%s", old);
        snprintf(late_new, sizeof late_new, "%s", new);
        return 0;
    }
    long at = enter("renameat2");
    if (!at)
        return -1;
    int outcome = real(from, old, to, new, flags);
    leave(at);
    if (late_to >= 0 && is_folder(to, "ops")) {
        long late = enter("renameat2");
        real(late_from, late_old, late_to, late_new, flags);
        leave(late);
        close(late_from);
        close(late_to);
        late_from = late_to = -1;
    }
    return outcome;
}

/* What the C library has no name for. */
static const char *changes(long number, long c) {
    switch (number) {
    case SYS_renameat2:
        return "renameat2";
    case SYS_linkat:
        return "linkat";
    case SYS_unlinkat:
        return "unlinkat";
    case SYS_mkdirat:
        return "mkdirat";
    case SYS_symlinkat:
        return "symlinkat";
    case SYS_fsync:
        return "fsync";
    case SYS_fdatasync:
        return "fdatasync";
    case SYS_ftruncate:
        return "ftruncate";
    case SYS_fallocate:
        return "fallocate";
    case SYS_copy_file_range:
        return "copy_file_range";
    case SYS_pwritev:
        return "pwritev";
    case SYS_pwritev2:
        return "pwritev2";
    case SYS_pwrite64:
        return "pwrite64";
    case SYS_writev:
        return "writev";
    case SYS_openat:
        return makes(c) || c & O_TRUNC ? "openat" : NULL;
#ifdef SYS_openat2
    case SYS_openat2:
        /* The flags are the first field of the structure. */
        return makes((long)*(const uint64_t *)c) || *(const uint64_t *)c & O_TRUNC ? "openat2" : NULL;
#endif
    default:
        return NULL;
    }
}

long syscall(long number, ...) {
    REAL(long, syscall, (long, ...));
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long), d = va_arg(rest, long),
         e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    const char *name = changes(number, c);
    if (!name)
        return real(number, a, b, c, d, e, f);
    long at = enter(name);
    if (!at)
        return -1;
    long outcome = real(number, a, b, c, d, e, f);
    leave(at);
    return outcome;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("GRADIENT_SHIM_COUNT");
    long num = atomic_load(&calls);
    if (!path)
        return;
    FILE *file = fopen(path, "w");
    if (!file)
        return;
    for (long at = 0; at < num && at < CALLS_MAX; at++)
        fprintf(file, "%s\n", names[at] ? names[at] : "?");
    fclose(file);
}
