/* The zygote's loop outside Python: request, fork, watch, reply. zygote.py has the same loop in Python, with the same outcomes.

   Why: every page that the parent writes to after a fork is a page fault, its own and often one of its child too, and a loop in
   Python writes to a hundred of them per program. This one writes to a few. */

#define _GNU_SOURCE
#include <Python.h>
#include <marshal.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Counts changes of what zygote.py and this file expect of each other: a build of another number is not used. */
#define INTERFACE 1

#define LONGEST_NAP 0.25
#define SHORTEST_NAP 0.005
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* zygote.REQUEST and zygote.REPLY. */
struct __attribute__((packed)) request {
    uint64_t length;
    uint32_t tests;
    double cpu_limit, wall_limit;
};
struct __attribute__((packed)) reply {
    int32_t status;
    uint8_t cause, dirty;
    double cpu, wall;
    uint64_t peak;
};

struct directory_entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

static int control, job, program_id, shared, files[3];
static unsigned long flags;
static const char *paths[3], *box;
static PyObject *become_program, *ended, *empty_box;
static volatile double *stamps; /* process time and wall time at which the current test began; written by the child */

static double seconds(clockid_t clock, int *failed)
{
    struct timespec now;
    *failed = clock_gettime(clock, &now);
    return *failed ? 0.0 : (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double monotonic(void)
{
    int failed;
    return seconds(CLOCK_MONOTONIC, &failed);
}

static double smaller(double a, double b) { return a < b ? a : b; }

static pid_t reap(pid_t child, int *status, struct rusage *usage)
{
    pid_t found;
    do
        found = wait4(child, status, 0, usage);
    while (found < 0 && errno == EINTR);
    return found;
}

/* Wait for the child, and end it at a limit; returns the cause (0 own end, 1 CPU limit, 2 wall limit), -1 for an error. */
static int watch(pid_t child, int has_ended, double started, const struct request *request, int *status, struct rusage *usage)
{
    clockid_t clock = (clockid_t)((~(unsigned)child << 3) | 2); /* CPU clock of another process */
    double nap = smaller(smaller(request->cpu_limit, request->wall_limit), LONGEST_NAP);
    double limit = request->cpu_limit, wall_limit = request->wall_limit, tests = request->tests + 1.0;
    int cause = 0, failed;
    for (;;) {
        struct pollfd waiting = {has_ended, POLLIN, 0};
        int ready = poll(&waiting, 1, (int)(nap * 1000) + 1);
        if (ready < 0 && errno != EINTR)
            return -1;
        if (ready > 0)
            break;
        double cpu = seconds(clock, &failed), now = monotonic();
        if (failed) /* it has just ended */
            continue;
        /* The child wrote these two: whatever they say, a program gets its number of tests times the limit at most. */
        double test_cpu = stamps[0], test_started = stamps[1];
        if (!(test_cpu >= 0 && test_cpu <= cpu))
            test_cpu = cpu;
        if (!(test_started >= started && test_started <= now))
            test_started = started;
        double cpu_left = smaller(limit - (cpu - test_cpu), limit * tests - cpu);
        double wall_left = smaller(wall_limit - (now - test_started), wall_limit * tests - (now - started));
        if (cpu_left <= 0 || wall_left <= 0) {
            cause = cpu_left <= 0 ? 1 : 2;
            kill(shared ? -child : child, SIGKILL); /* with process 1 of a namespace the kernel ends all that are in it */
            break;
        }
        nap = smaller(smaller(cpu_left, wall_left), LONGEST_NAP);
        if (nap < SHORTEST_NAP)
            nap = SHORTEST_NAP;
    }
    if (reap(child, status, usage) < 0)
        return -1;
    return cause;
}

/* Whether the directory of the programs is writable for the next one and empty. */
static int box_is_empty(void)
{
    char buffer[2048];
    if (chmod(box, 0777))
        return 0;
    int folder = open(box, O_RDONLY | O_DIRECTORY | O_CLOEXEC), empty = 1;
    if (folder < 0)
        return 0;
    long size = syscall(SYS_getdents64, folder, buffer, sizeof buffer);
    if (size < 0)
        empty = 0;
    for (long position = 0; position < size && empty;) {
        struct directory_entry *entry = (struct directory_entry *)(buffer + position);
        empty = !strcmp(entry->name, ".") || !strcmp(entry->name, "..");
        position += entry->length;
    }
    close(folder);
    return empty;
}

/* In the child: no way back to the judge, no rights. As Zygote.become_program. */
static int leave_rights(void)
{
    if (shared) {
        PyObject *done = PyObject_CallNoArgs(become_program);
        Py_XDECREF(done);
        return done == NULL;
    }
    close(control);
    close(job);
    if (program_id) {
        if (syscall(SYS_setresgid, program_id, program_id, program_id) || syscall(SYS_setresuid, program_id, program_id, program_id))
            return -1;
        return 0;
    }
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    return (int)syscall(SYS_capset, &header, none);
}

/* What the judge wrote, as Python objects. Small jobs go through a page or two that are not touched for anything else. */
static PyObject *read_job(uint64_t length)
{
    static char small[32768];
    char *text = length <= sizeof small ? small : malloc(length);
    if (text == NULL)
        return PyErr_NoMemory();
    for (uint64_t position = 0; position < length;) {
        ssize_t size = pread(job, text + position, length - position, (off_t)position);
        if (size <= 0)
            return PyErr_SetFromErrno(PyExc_OSError);
        position += (uint64_t)size;
    }
    PyObject *found = PyMarshal_ReadObjectFromString(text, (Py_ssize_t)length);
    if (text != small)
        free(text);
    return found;
}

/* Empty files for answers, standard input and standard output, under the numbers that the children expect. */
static int open_files(void)
{
    static const int modes[3] = {O_WRONLY | O_APPEND, O_RDWR, O_WRONLY | O_APPEND};
    for (int i = 0; i < 3; i++) {
        int file = open(paths[i], modes[i] | O_TRUNC | O_CLOEXEC);
        if (file != files[i]) {
            if (file >= 0)
                errno = EBADF;
            return -1;
        }
        if (!program_id && fchmod(file, 0666)) /* the program before owned them */
            return -1;
    }
    return 0;
}

static ssize_t receive(struct request *request)
{
    ssize_t size;
    do
        size = recv(control, request, sizeof *request, 0);
    while (size < 0 && errno == EINTR);
    return size;
}

PyDoc_STRVAR(prepare_doc,
             "prepare(control, job, page, (answers, in, out), (numbers of these), box, flags, program_id, shared, become_program,\n"
             "        ended, empty_box)\n\n"
             "Everything that serve() needs. The numbers are what the three files are opened as, the same in every child. `empty_box`\n"
             "is called when a program left something behind and returns whether it could not be removed. With `shared`, programs have\n"
             "no process namespace of their own: become_program() is called in every child, ended(child) and empty_box() after it.");

static PyObject *prepare(PyObject *self, PyObject *args)
{
    Py_buffer page;
    (void)self;
    if (!PyArg_ParseTuple(args, "iiw*(sss)(iii)skipOOO", &control, &job, &page, &paths[0], &paths[1], &paths[2], &files[0], &files[1],
                          &files[2], &box, &flags, &program_id, &shared, &become_program, &ended, &empty_box))
        return NULL;
    stamps = page.buf;
    Py_INCREF(args); /* for as long as this process lives, as the buffer */
    Py_RETURN_NONE;
}

static size_t free_at_the_end(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    return mallinfo2().keepcost;
#else
    return (size_t)mallinfo().keepcost;
#endif
}

/* Use up the gaps that start-up left between libc's blocks, so that what children allocate comes from one place: the end. Give
   what is free there back: all that is there would be in the page tables of every child. */
static void fill_heap(void)
{
    for (size_t size = 1 << 17; size > 512; size = size * 7 / 8) {
        for (int i = 0; i < 1000; i++) {
            char *end_of_blocks = (char *)sbrk(0) - free_at_the_end();
            char *block = malloc(size);
            if (block == NULL || block >= end_of_blocks) {
                free(block);
                break;
            }
        }
    }
    malloc_trim(1 << 16);
}

PyDoc_STRVAR(serve_doc, "serve()\n\nOne child per request. Returns only in the children: the job. Ends the process when the judge closes the\n"
                        "socket; raises OSError.");

static PyObject *serve(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    fill_heap();
    for (;;) {
        struct request request;
        struct rusage usage;
        int has_ended = -1, status = 0, cause;
        if (receive(&request) != (ssize_t)sizeof request)
            _exit(0);
        if (open_files())
            return PyErr_SetFromErrno(PyExc_OSError);
        stamps[0] = stamps[1] = 0.0;
        double started = monotonic();
        /* Not fork(): no hooks of Python or libc run, so the child's random state is the parent's. Safe with one thread. */
        pid_t child = (pid_t)syscall(SYS_clone, flags | CLONE_PIDFD, 0, &has_ended, 0, 0);
        if (child < 0)
            return PyErr_SetFromErrno(PyExc_OSError);
        if (child == 0) {
            PyObject *found;
            if (dup2(files[1], 0) < 0 || dup2(files[2], 1) < 0 || (found = read_job(request.length)) == NULL || leave_rights())
                _exit(70);
            return found;
        }
        cause = watch(child, has_ended, started, &request, &status, &usage);
        if (cause < 0)
            return PyErr_SetFromErrno(PyExc_OSError);
        close(has_ended);
        for (int i = 0; i < 3; i++)
            close(files[i]);
        if (shared) {
            PyObject *done = PyObject_CallFunction(ended, "i", (int)child);
            if (done == NULL)
                return NULL;
            Py_DECREF(done);
        }
        int dirty = 0;
        if (shared || !box_is_empty()) {
            PyObject *left = PyObject_CallNoArgs(empty_box);
            if (left == NULL)
                return NULL;
            dirty = PyObject_IsTrue(left);
            Py_DECREF(left);
        }
        struct reply reply = {
            .status = status,
            .cause = (uint8_t)cause,
            .dirty = (uint8_t)dirty,
            .cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec),
            .wall = monotonic() - started,
            .peak = (uint64_t)usage.ru_maxrss,
        };
        if (send(control, &reply, sizeof reply, 0) != (ssize_t)sizeof reply)
            return PyErr_SetFromErrno(PyExc_OSError);
        if (dirty)
            _exit(0);
    }
}

static PyObject *stamp(PyObject *self, PyObject *unused)
{
    int failed;
    (void)self;
    (void)unused;
    stamps[0] = seconds(CLOCK_PROCESS_CPUTIME_ID, &failed);
    stamps[1] = monotonic();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"prepare", prepare, METH_VARARGS, prepare_doc},
    {"serve", serve, METH_NOARGS, serve_doc},
    {"stamp", stamp, METH_NOARGS, PyDoc_STR("stamp()\n\nIn a child of serve(): the time limit of a test counts from here.")},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_loop", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__loop(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddIntConstant(made, "INTERFACE", INTERFACE)) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
