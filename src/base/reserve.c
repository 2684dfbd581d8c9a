/* SPDX-License-Identifier: Apache-2.0 */
#include "base/reserve.h"

#include <sys/mman.h>

#include "base/hooks.h"
#include "base/status.h"

void *wf_reserve(uint64_t bytes, const char *what, const char *mend)
{
    void *memory = WF_FAILS("mmap") ? MAP_FAILED
                                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED)
        return memory;
    wf_fail_keep("no address space of %llu bytes for %s; %s", (unsigned long long)bytes, what,
                 mend);
    return NULL;
}

void wf_unreserve(void *memory, uint64_t bytes)
{
    if (memory)
        (void)munmap(memory, bytes);
}
