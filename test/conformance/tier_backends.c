/* SPDX-License-Identifier: Apache-2.0
 *
 * The backends under test, each with a medium.  A new one is one more line in `backends`.
 */
#include "tier_world.h"

#include <fcntl.h>
#include <unistd.h>

#include "../support/cxl_medium.h"
#include "../support/medium.h"
#include "../support/s3.h"
#include "../support/torn.h"
#include "tier/cxl.h"
#include "tier/dram.h"
#include "tier/sim.h"

static void sim_prepare(char *path, size_t path_bytes)
{
    snprintf(path, path_bytes, "simulated");
}

static void sim_dispose(const char *path)
{
    assert_true(wf_tier_sim_forget(path));
}

static void sim_rot(struct wf_tier *tier, const char *path, const struct wf_tier_block *block)
{
    (void)path;
    assert_true(wf_tier_sim_flip(tier, block->key, 17));
}

static void dram_prepare(char *path, size_t path_bytes)
{
    snprintf(path, path_bytes, "memory");
}

static void dram_dispose(const char *path)
{
    (void)path;
}

#if WF_TEST_HOOKS
static void dram_rot(struct wf_tier *tier, const char *path, const struct wf_tier_block *block)
{
    (void)path;
    assert_true(wf_tier_dram_flip(tier, block->key, 17));
}
#else
#define dram_rot NULL /* nobody but the tier knows where a byte lies */
#endif

#if WF_TEST_HOOKS
static struct torn torn;

/* The power fails: what is under way and what no sync covers is kept, torn or lost. */
static void nvme_crash(struct wf_tier *tier)
{
    torn.dead = true;
    wf_tier_nvme.close(tier);
    torn_lose(&torn);
}

static void torn_medium(const char *path)
{
    if (path)
        torn_begin(&torn, path, random_seeded("torn").state);
    else
        torn_end(&torn);
    wf_nvme_hooks = path ? &torn.hooks : NULL;
}
#else
#define nvme_crash NULL /* close is as near as it can come */

static void torn_medium(const char *path)
{
    (void)path;
}
#endif

static void nvme_prepare(char *path, size_t path_bytes)
{
    if (!medium_has_ring()) {
        print_message("# io_uring is missing\n");
        skip();
    }
    assert_true(medium_name(path, path_bytes));
    torn_medium(path);
}

static void nvme_dispose(const char *path)
{
    torn_medium(NULL);
    assert_int_equal(unlink(path), 0);
}

static void nvme_rot(struct wf_tier *tier, const char *path, const struct wf_tier_block *block)
{
    (void)tier;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(medium_flip(fd, block->key, 17) > 0);
    close(fd);
}

/* A mapping of a file in memory, where there is one: an emulation of a device.  $WEFT_TEST_CXL
 * names a real one instead, whose contents are lost; then its tests alone are run. */
static void cxl_prepare(char *path, size_t path_bytes)
{
    const char *device = getenv("WEFT_TEST_CXL");
    if (device) {
        snprintf(path, path_bytes, "%s", device);
        assert_true(cxl_medium_erase(path));
    } else {
        assert_true(cxl_medium_name(path, path_bytes));
    }
}

static void cxl_dispose(const char *path)
{
    if (!strncmp(path, CXL_FILE_PREFIX, strlen(CXL_FILE_PREFIX)))
        assert_int_equal(unlink(path + strlen(CXL_FILE_PREFIX)), 0);
}

static void cxl_rot(struct wf_tier *tier, const char *path, const struct wf_tier_block *block)
{
    (void)tier;
    assert_true(cxl_medium_flip(path, block->key, 17));
}

/* One server for the whole run, one prefix a test. */
static void s3_prepare(char *path, size_t path_bytes)
{
    static unsigned count;
    static const char bucket[] = "s3://weft-conformance";
    uint16_t port;
    const char *missing = s3_server(&port);
    if (missing) {
        print_message("# no S3 server: %s\n", missing);
        skip();
    }
    snprintf(path, path_bytes, "%s/test %u+", bucket, count++);
    if (count == 1)
        assert_int_equal(s3_ask(bucket, WF_S3_PUT, "", NULL, NULL, 0, NULL, 0, NULL), 200);
}

static void s3_dispose(const char *path)
{
    (void)path; /* the server's own place goes when it ends */
}

static void s3_rot(struct wf_tier *tier, const char *path, const struct wf_tier_block *block)
{
    assert_true(s3_flip(tier, path, block->key, 17));
}

const struct backend backends[] = {
    {&wf_tier_sim, 32 << 20, sim_prepare, sim_dispose, wf_tier_sim_crash, sim_rot},
    {&wf_tier_dram, 32 << 20, dram_prepare, dram_dispose, NULL, dram_rot},
    {&wf_tier_nvme, 32 << 20, nvme_prepare, nvme_dispose, nvme_crash, nvme_rot},
    {&wf_tier_cxl, 32 << 20, cxl_prepare, cxl_dispose, wf_tier_cxl_crash, cxl_rot},
    {&wf_tier_s3, 32 << 20, s3_prepare, s3_dispose, wf_s3_abandon, s3_rot, 2000},
};
const size_t backend_count = sizeof backends / sizeof backends[0];
