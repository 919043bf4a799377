/* The zygote's loop outside Python: request, fork, watch, reply. zygote.py has the same loop in Python, with the same outcomes.

   Why: every page that the parent writes to after a fork is a page fault, its own and often one of its child too, and a loop in
   Python writes to a hundred of them per program. This one writes to a few. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <marshal.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <malloc.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Counts changes of what zygote.py and this file expect of each other: a build of another number is not used. */
#define INTERFACE 2

#define LONGEST_NAP 0.25
#define SHORTEST_NAP 0.005
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define HUGE_PAGE (2UL << 20)
#define MOST_MAPPINGS 1024
#define LARGEST_GAP (1UL << 20)
#define SMALLEST_RUN (1UL << 20)
#define LARGEST_RUN (256UL << 20)

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

struct mapping {
    uintptr_t start, end;
    int protection;
    enum { OTHER, PRIVATE, HEAP } kind;
};

static int control, job, maps, program_id, shared, files[3];
static unsigned long flags;
static const char *paths[3], *box;
static PyObject *become_program, *ended, *empty_box, *child_object, *failed_test, *encoded_value, *builtins_module;
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
             "prepare(control, job, maps, page, (answers, in, out), (numbers of these), box, flags, program_id, shared, become_program,\n"
             "        ended, empty_box, child, failed, encoded)\n\n"
             "Everything that serve() needs. `maps` is this process's /proc/self/maps, or -1; serve() closes it. The numbers are what\n"
             "the three files are opened as, the same in every child. `empty_box`\n"
             "is called when a program left something behind and returns whether it could not be removed. With `shared`, programs have\n"
             "no process namespace of their own: become_program() is called in every child, ended(child) and empty_box() after it. `child`\n"
             "is child.Child; failed(child, test, exception) writes down what a test raised (-1: the module), encoded(value) is JSON.");

static PyObject *prepare(PyObject *self, PyObject *args)
{
    Py_buffer page;
    (void)self;
    if (!PyArg_ParseTuple(args, "iiiw*(sss)(iii)skipOOOOOO", &control, &job, &maps, &page, &paths[0], &paths[1], &paths[2], &files[0], &files[1],
                          &files[2], &box, &flags, &program_id, &shared, &become_program, &ended, &empty_box,
                          &child_object, &failed_test, &encoded_value))
        return NULL;
    if ((builtins_module = PyImport_ImportModule("builtins")) == NULL)
        return NULL;
    stamps = page.buf;
    Py_INCREF(args); /* for as long as this process lives, as the buffer */
    Py_RETURN_NONE;
}

static void start_clock(void)
{
    int failed;
    stamps[0] = seconds(CLOCK_PROCESS_CPUTIME_ID, &failed);
    stamps[1] = monotonic();
}

#define MOST_TEXT (1 << 16)

/* Text that grows: what an answer is written into. */
struct text {
    size_t size, room;
    char *data, small[1024];
};

static int add(struct text *text, const char *more, size_t size)
{
    if (text->size + size > text->room) {
        size_t room = 2 * (text->size + size);
        char *data = malloc(room);
        if (data == NULL)
            return -1;
        memcpy(data, text->data, text->size);
        if (text->data != text->small)
            free(text->data);
        text->data = data;
        text->room = room;
    }
    memcpy(text->data + text->size, more, size);
    text->size += size;
    return 0;
}

static int add_string(struct text *text, PyObject *value)
{
    static const char hexadecimal[] = "0123456789abcdef", special[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    if (!PyUnicode_IS_ASCII(value) || PyUnicode_GET_LENGTH(value) > MOST_TEXT)
        return -1;
    const char *given = (const char *)PyUnicode_1BYTE_DATA(value), *end = given + PyUnicode_GET_LENGTH(value);
    int failed = add(text, "\"", 1);
    while (given < end && !failed) {
        const char *plain = given;
        while (given < end && *given >= ' ' && *given <= '~' && *given != '"' && *given != '\\')
            given++;
        failed = add(text, plain, (size_t)(given - plain));
        if (given < end && !failed) {
            const char *known = memchr(special, *given, sizeof special - 1);
            char code[6] = {'\\', 'u', '0', '0', hexadecimal[*given >> 4], hexadecimal[*given & 15]};
            if (known != NULL)
                code[1] = letters[known - special];
            failed = add(text, code, known != NULL ? 2 : 6);
            given++;
        }
    }
    return failed || add(text, "\"", 1);
}

/* The JSON of codec.plain(value), for values of exact built-in types, which hold no surprises; -1: for codec.plain itself. */
static int add_plain(struct text *text, PyObject *value, int depth)
{
    char number[32];
    if (value == Py_None)
        return add(text, "null", 4);
    if (value == Py_True)
        return add(text, "true", 4);
    if (value == Py_False)
        return add(text, "false", 5);
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long exact = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow || exact == LLONG_MIN)
            return -1;
        return add(text, number, (size_t)snprintf(number, sizeof number, "%lld", exact));
    }
    if (PyUnicode_CheckExact(value))
        return add_string(text, value);
    if (PyFloat_CheckExact(value)) {
        double exact = PyFloat_AS_DOUBLE(value);
        if (!isfinite(exact))
            return -1;
        char *written = PyOS_double_to_string(exact, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
        if (written == NULL) {
            PyErr_Clear();
            return -1;
        }
        int failed = add(text, written, strlen(written));
        PyMem_Free(written);
        return failed;
    }
    int tuple = PyTuple_CheckExact(value);
    if ((!tuple && !PyList_CheckExact(value)) || depth > 20 || text->size > MOST_TEXT)
        return -1;
    if (tuple ? add(text, "{\"t\": [", 7) : add(text, "[", 1))
        return -1;
    for (Py_ssize_t i = 0; i < (tuple ? PyTuple_GET_SIZE(value) : PyList_GET_SIZE(value)); i++)
        if ((i && add(text, ", ", 2)) || add_plain(text, tuple ? PyTuple_GET_ITEM(value, i) : PyList_GET_ITEM(value, i), depth + 1))
            return -1;
    return tuple ? add(text, "]}", 2) : add(text, "]", 1);
}

/* -1 with an exception set. */
static int add_value(struct text *text, PyObject *value)
{
    size_t before = text->size;
    if (!add_plain(text, value, 0))
        return 0;
    text->size = before;
    PyObject *encoded = PyObject_CallOneArg(encoded_value, value);
    if (encoded == NULL)
        return -1;
    int failed = add(text, PyBytes_AS_STRING(encoded), (size_t)PyBytes_GET_SIZE(encoded));
    Py_DECREF(encoded);
    if (failed)
        PyErr_NoMemory();
    return failed;
}

/* A code object in the program's namespace; an interrupt that came in it is raised like in Python's own loop, before what follows. */
static PyObject *run_code(PyObject *code, PyObject *space)
{
    PyObject *value = PyEval_EvalCode(code, space, space);
    if (value != NULL && PyErr_CheckSignals())
        Py_CLEAR(value);
    return value;
}

/* The frames that the harness in Python has between the loop and a program: recursion ends at the same depth. */
#define FRAMES 2

static int enter_frames(void)
{
    int failed = 0;
    for (int i = 0; i < FRAMES; i++)
        failed |= Py_EnterRecursiveCall("");
    return failed;
}

/* harness.failed(), which writes down what a test raised. */
static void report_failure(Py_ssize_t test)
{
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    PyErr_NormalizeException(&kind, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    Py_XDECREF(kind);
    Py_XDECREF(trace);
    for (int i = 0; i < FRAMES; i++)
        Py_LeaveRecursiveCall();
    PyObject *done = PyObject_CallFunction(failed_test, "OnN", child_object, test, error);
    if (done == NULL || enter_frames())
        _exit(70);
    Py_DECREF(done);
}

static void write_line(const char *line, size_t size)
{
    static int closed;
    if (!closed && write(files[0], line, size) == (ssize_t)size)
        return;
    closed = 1; /* by the program: Child opens another one */
    PyObject *done = PyObject_CallMethod(child_object, "write", "y#", line, (Py_ssize_t)size);
    if (done == NULL)
        _exit(70);
    Py_DECREF(done);
}

/* harness.run_values, for the job that most programs are: as that, but touching half of the memory. Returns if it is another job, or
   one that is not as it should be, which is for the harness to say; nothing has been run then. */
static void run_values(PyObject *job_object)
{
    PyObject *kind = PyDict_GetItemString(job_object, "kind"), *module, *space, *nothing = NULL;
    if (kind == NULL || !PyUnicode_Check(kind) || PyUnicode_CompareWithASCIIString(kind, "values") ||
        PyDict_GetItemString(job_object, "file") != NULL)
        return;
    PyObject *bytes = PyDict_GetItemString(job_object, "code"), *both;
    Py_ssize_t first = PyLong_AsSsize_t(PyDict_GetItemString(job_object, "first"));
    Py_ssize_t last = PyLong_AsSsize_t(PyDict_GetItemString(job_object, "last"));
    int stop = PyDict_GetItemString(job_object, "stop_at_first_error") == Py_True;
    both = PyMarshal_ReadObjectFromString(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
    if (both == NULL || !PyTuple_Check(both) || PyTuple_GET_SIZE(both) != 2) {
        PyErr_Clear();
        return;
    }
    PyObject *code = PyTuple_GET_ITEM(both, 0), *tests = PyTuple_GET_ITEM(both, 1);
    if (!PyCode_Check(code) || !PyList_CheckExact(tests) || PyList_GET_SIZE(tests) < last)
        return;
    for (Py_ssize_t test = first; test < last; test++) {
        PyObject *parts = PyList_GET_ITEM(tests, test);
        if (!PyTuple_CheckExact(parts))
            return;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts); i++)
            if (!PyCode_Check(PyTuple_GET_ITEM(parts, i)))
                return;
    }
    PyObject *modules = PyImport_GetModuleDict();
    if ((module = PyModule_New("solution")) == NULL || (space = PyModule_GetDict(module)) == NULL || (nothing = PyDict_New()) == NULL ||
        PyDict_SetItemString(space, "__builtins__", builtins_module) || PyModule_AddStringConstant(module, "__file__", "solution.py") ||
        PyDict_SetItemString(space, "__annotations__", nothing) || PyDict_SetItemString(modules, "__main__", module) ||
        PyDict_SetItemString(modules, "solution", module))
        _exit(70);
    if (enter_frames())
        _exit(70);
    pid_t process = getpid();
    PyObject *value = run_code(code, space); /* its clock began with the process */
    if (value == NULL) {
        report_failure(-1);
        _exit(0);
    }
    Py_DECREF(value);
    write_line("[\"loaded\",null]\n", 16);
    for (Py_ssize_t test = first; test < last; test++) {
        struct text line = {.size = 0, .room = sizeof line.small, .data = line.small};
        char number[32];
        PyObject *parts = PyList_GET_ITEM(tests, test);
        int failed = add(&line, number, (size_t)snprintf(number, sizeof number, "[%zd, [", test));
        start_clock();
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts) && !failed; i++) {
            failed = i ? add(&line, ", ", 2) : 0;
            value = run_code(PyTuple_GET_ITEM(parts, i), space);
            failed = failed || value == NULL || add_value(&line, value);
            Py_XDECREF(value);
        }
        if (getpid() != process) /* a copy of the program that it forked: only the original answers */
            _exit(0);
        if (failed || add(&line, "], null]\n", 9)) {
            if (!PyErr_Occurred())
                PyErr_NoMemory();
            report_failure(test);
            if (stop)
                _exit(0);
        } else
            write_line(line.data, line.size);
        if (line.data != line.small)
            free(line.data);
    }
    write_line("[\"end\"]\n", 8);
    _exit(0);
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

/* The mappings of this process, in order; returns how many, or -1. */
static int read_maps(struct mapping *found)
{
    static char text[1 << 17]; /* nothing is allocated here: that would be a mapping too, or move the heap's end */
    size_t size = 0;
    int count = 0;
    char *line = text, *end;
    for (;;) {
        ssize_t more = read(maps, text + size, sizeof text - 1 - size);
        if (more <= 0)
            break;
        size += (size_t)more;
    }
    for (; (end = strchr(line, '\n')) != NULL && count < MOST_MAPPINGS; line = end + 1) {
        struct mapping *now = &found[count++];
        char mode[5] = "";
        unsigned long first, last;
        if (sscanf(line, "%lx-%lx %4s", &first, &last, mode) != 3)
            return -1;
        *end = 0;
        now->start = first;
        now->end = last;
        now->protection = (mode[0] == 'r' ? PROT_READ : 0) | (mode[1] == 'w' ? PROT_WRITE : 0) | (mode[2] == 'x' ? PROT_EXEC : 0);
        now->kind = strstr(line, "[heap]") ? HEAP : mode[0] == 'r' && mode[3] == 'p' && !strchr(line, '[') ? PRIVATE : OTHER;
    }
    return size < sizeof text - 1 && line == text + size ? count : -1;
}

/* One anonymous mapping in the place of all between start and end, with the same content; 0 and no change if it cannot be had. */
static int replace(const struct mapping *all, int count, uintptr_t start, uintptr_t end, int huge)
{
    size_t size = end - start;
    int protection = 0, good = 1;
    char *room = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return 0;
    char *copy = (char *)(((uintptr_t)room + HUGE_PAGE - 1) & -HUGE_PAGE);
    for (int i = 0; i < count; i++) {
        uintptr_t from = all[i].start > start ? all[i].start : start, to = all[i].end < end ? all[i].end : end;
        if (from < to) {
            memcpy(copy + (from - start), (const char *)from, to - from);
            protection |= all[i].protection;
        }
    }
    /* From here to mremap() nothing may be written to what was copied: no functions but system calls. */
    for (size_t position = 0; huge && position < size && good; position += HUGE_PAGE)
        good = !madvise(copy + position, HUGE_PAGE, MADV_COLLAPSE);
    good = good && !mprotect(copy, size, protection) &&
           mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) != MAP_FAILED;
    if (copy > room)
        munmap(room, (size_t)(copy - room));
    if (!good)
        munmap(copy, size);
    munmap(copy + size, (size_t)(room + HUGE_PAGE - copy));
    return good;
}

/* A run of mappings: whole huge pages as far as they belong to nobody else; what is left at its ends as one mapping each. */
static void replace_run(const struct mapping *all, int count, int first, int last)
{
    uintptr_t low = all[first].start, high = all[last].end, start = low & -HUGE_PAGE, end = (high + HUGE_PAGE - 1) & -HUGE_PAGE;
    if (high - low < SMALLEST_RUN || high - low > LARGEST_RUN)
        return;
    if (first > 0 && all[first - 1].end > start)
        start += HUGE_PAGE;
    if (end > high && (all[last].kind == HEAP || (last + 1 < count && all[last + 1].start < end))) /* the heap has to grow there */
        end -= HUGE_PAGE;
    if (start >= end || !replace(all, count, start, end, 1))
        return;
    if (all[first].end < start)
        replace(all, count, low, start, 0);
    if (all[last].start > end)
        replace(all, count, end, high, 0);
}

/* Make the interpreter's memory few mappings of huge pages.

   fork() copies the page table entry of every page that is not a file's, and the description of every mapping: two thousand and a
   hundred for an interpreter with its libraries. A huge page is one entry, which is split only in those children that write to it.
   And the text of libraries, which is a file's, has to be found page by page by every child; here it is part of the huge pages.

   A program sees the same memory as before, with one difference: in mappings between which there is code, all is executable and what
   is a library's is writable. It could have made that of its own memory itself. */
static void compact(void)
{
    static struct mapping all[MOST_MAPPINGS];
    if (maps < 0)
        return;
    /* The heap ends where a huge page does. libc takes what comes after that for its next blocks. */
    uintptr_t top = (uintptr_t)sbrk(0);
    sbrk((intptr_t)(-top & (HUGE_PAGE - 1)));
    int count = read_maps(all);
    for (int first = 0; first < count;) {
        int last = first;
        while (last + 1 < count && all[last + 1].kind == all[first].kind && all[last + 1].start - all[last].end < LARGEST_GAP)
            last++;
        if (all[first].kind != OTHER)
            replace_run(all, count, first, last);
        first = last + 1;
    }
    close(maps);
}

PyDoc_STRVAR(serve_doc, "serve()\n\nOne child per request. Returns only in the children: the job. Ends the process when the judge closes the\n"
                        "socket; raises OSError.");

static PyObject *serve(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    fill_heap();
    compact();
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
            if (PyDict_CheckExact(found))
                run_values(found);
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
    (void)self;
    (void)unused;
    start_clock();
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
