/* SPDX-License-Identifier: Apache-2.0
 *
 * weft doctor: processor, kernel services, devices, programs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/doctor.h"

static void kernel_check(struct doctor *doctor)
{
    struct utsname about;
    int major = 0, minor = 0;
    if (uname(&about) != 0 || sscanf(about.release, "%d.%d", &major, &minor) != 2)
        return;
    bool recent = major > 5 || (major == 5 && minor >= 15);
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "kernel", recent ? DOCTOR_OK : DOCTOR_BETTER, "%s", about.release);
    if (!recent) {
        snprintf(finding->why, sizeof finding->why,
                 "before 5.15, io_uring and userfaultfd lack what tiers use");
        snprintf(finding->mend, sizeof finding->mend,
                 "apt-get install linux-image-amd64   # and reboot");
    }
}

/* Whether a word is among the "flags" of the first processor. */
static bool has_flag(const char *flags, const char *flag)
{
    size_t length = strlen(flag);
    for (const char *p = flags; (p = strstr(p, flag)); p += length)
        if (p > flags && p[-1] == ' ' && (p[length] == ' ' || p[length] == '\n' || !p[length]))
            return true;
    return false;
}

static void processor_check(struct doctor *doctor)
{
    char *line = NULL;
    size_t capacity = 0;
    FILE *file = fopen("/proc/cpuinfo", "re");
    bool found = false;
    while (file && !found && getline(&line, &capacity, file) > 0)
        found = strncmp(line, "flags", 5) == 0 || strncmp(line, "Features", 8) == 0;
    if (file)
        fclose(file);
    if (found) {
        bool sha = has_flag(line, "sha_ni") || has_flag(line, "sha2");
        bool wide = has_flag(line, "avx512f") && has_flag(line, "avx512bw");
        struct doctor_finding *finding =
            wf_doctor_add(doctor, "sha", sha ? DOCTOR_OK : DOCTOR_ABSENT, "%s",
                          sha ? "SHA instructions" : "no SHA instructions");
        snprintf(finding->why, sizeof finding->why, "%s",
                 sha ? "" : "keys are derived in vector or plain code");
        wf_doctor_add(doctor, "avx512", wide ? DOCTOR_OK : DOCTOR_ABSENT, "%s",
                      wide ? "F and BW" : "none");
        bool steady = has_flag(line, "constant_tsc") && has_flag(line, "nonstop_tsc");
        wf_doctor_add(doctor, "tsc", steady ? DOCTOR_OK : DOCTOR_ABSENT, "%s",
                      steady ? "runs at one rate" : "not invariant; weft bench is less exact");
    }
    free(line);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "processors", online >= 4 ? DOCTOR_OK : DOCTOR_BETTER, "%ld", online);
    if (online < 4)
        snprintf(finding->why, sizeof finding->why,
                 "owner thread, workers and engines take turns; latencies of other processes show "
                 "in theirs");
    char governor[64];
    if (wf_doctor_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", governor,
                       sizeof governor)) {
        bool fast = strcmp(governor, "performance") == 0 || strcmp(governor, "schedutil") == 0;
        finding = wf_doctor_add(doctor, "governor", fast ? DOCTOR_OK : DOCTOR_BETTER, "%s",
                                governor);
        if (!fast)
            snprintf(finding->mend, sizeof finding->mend, "cpupower frequency-set -g performance");
    }
}

static void io_uring_check(struct doctor *doctor)
{
    struct io_uring_params parameters = {0};
    long fd = syscall(SYS_io_uring_setup, 4, &parameters);
    int saved = errno;
    if (fd >= 0)
        close((int)fd);
    struct doctor_finding *finding = wf_doctor_add(doctor, "io_uring",
                                                   fd >= 0 ? DOCTOR_OK : DOCTOR_BETTER, "%s",
                                                   fd >= 0 ? "works" : strerror(saved));
    if (fd < 0) {
        snprintf(finding->why, sizeof finding->why, "NVMe and sockets fall back to threads");
        snprintf(finding->mend, sizeof finding->mend, "%s",
                 saved == ENOSYS
                     ? "use a kernel with CONFIG_IO_URING"
                     : "sysctl -w kernel.io_uring_disabled=0   # docker: --security-opt "
                       "seccomp=unconfined");
    }
}

static void userfaultfd_check(struct doctor *doctor)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    bool whole = fd >= 0;
    int saved = errno;
    if (fd < 0) /* faults of user mode are enough for regions, and need no privilege */
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    bool works = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
    if (fd >= 0)
        close(fd);
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "userfaultfd", works && whole ? DOCTOR_OK : DOCTOR_BETTER, "%s",
                      works ? whole ? "works" : "user mode only" : strerror(saved));
    if (!works || !whole) {
        snprintf(finding->why, sizeof finding->why,
                 "regions that are not local are paged in by it; %s",
                 works ? "system calls on them can fail" : "only local ones work");
        snprintf(finding->mend, sizeof finding->mend, "sysctl -w vm.unprivileged_userfaultfd=1");
    }
}

static void devices_check(struct doctor *doctor)
{
    int gpus = wf_doctor_entries("/proc/driver/nvidia/gpus", "");
    wf_doctor_add(doctor, "gpu", gpus ? DOCTOR_OK : DOCTOR_ABSENT, "%d NVIDIA", gpus);
    int rdma = wf_doctor_entries("/sys/class/infiniband", "");
    wf_doctor_add(doctor, "rdma", rdma ? DOCTOR_OK : DOCTOR_ABSENT, "%d devices", rdma);
    char path[512];
    bool redis = wf_cli_program_find("redis-server", path, sizeof path);
    struct doctor_finding *finding = wf_doctor_add(doctor, "redis_server",
                                                   redis ? DOCTOR_OK : DOCTOR_ABSENT, "%.150s",
                                                   redis ? path : "not installed");
    if (!redis) {
        snprintf(finding->why, sizeof finding->why, "only weft bench wants it, as a yardstick");
        snprintf(finding->mend, sizeof finding->mend, "apt-get install redis-server");
    }
}

void wf_doctor_kernel(struct doctor *doctor)
{
    kernel_check(doctor);
    processor_check(doctor);
    io_uring_check(doctor);
    userfaultfd_check(doctor);
    devices_check(doctor);
}
