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

/* Memory for a few blocks, so that requests wait for it, and small parts, so that each plane is
 * read in several. */
static struct wf_coded_options
    coded_sim = {.ops = &wf_tier_sim,
                 .workers = 0, /* the seed decides everything */
                 .memory_bytes = 1 << 20,
                 .part_bytes = 4096},
    coded_dram = {.ops = &wf_tier_dram, .workers = 2, .memory_bytes = 1 << 20, .part_bytes = 4096},
    coded_nvme = {.ops = &wf_tier_nvme, .workers = 2, .memory_bytes = 1 << 20, .part_bytes = 4096};

/* Of a frame: in the part after the lead's, in what the first plane became. */
#define CODED_AT 5000

#if WF_TEST_HOOKS
static void coded_sim_crash(struct wf_tier *tier)
{
    wf_tier_coded_crash(tier, wf_tier_sim_crash);
}

static void coded_sim_rot(struct wf_tier *tier, const char *path, const struct wf_tier_block *block)
{
    (void)path;
    assert_true(wf_tier_sim_flip(wf_tier_coded_behind(tier), block->key, CODED_AT));
}

static void coded_dram_rot(struct wf_tier *tier, const char *path,
                           const struct wf_tier_block *block)
{
    (void)path;
    assert_true(wf_tier_dram_flip(wf_tier_coded_behind(tier), block->key, CODED_AT));
}

static void coded_nvme_crash(struct wf_tier *tier)
{
    wf_tier_coded_crash(tier, nvme_crash);
}
#else
#define coded_sim_crash NULL
#define coded_sim_rot NULL
#define coded_dram_rot NULL
#define coded_nvme_crash NULL
#endif

static void coded_nvme_rot(struct wf_tier *tier, const char *path,
                           const struct wf_tier_block *block)
{
    (void)tier;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(medium_flip(fd, block->key, CODED_AT) > 0);
    close(fd);
}

#define MEDIUM (32 << 20)

struct backend backends[] = {
    {&wf_tier_sim, MEDIUM, sim_prepare, sim_dispose, wf_tier_sim_crash, sim_rot},
    {&wf_tier_dram, MEDIUM, dram_prepare, dram_dispose, NULL, dram_rot},
    {&wf_tier_nvme, MEDIUM, nvme_prepare, nvme_dispose, nvme_crash, nvme_rot},
    {&wf_tier_cxl, MEDIUM, cxl_prepare, cxl_dispose, wf_tier_cxl_crash, cxl_rot},
    {&wf_tier_s3, MEDIUM, s3_prepare, s3_dispose, wf_s3_abandon, s3_rot, .steps = 2000},
    {NULL, MEDIUM, sim_prepare, sim_dispose, coded_sim_crash, coded_sim_rot, &coded_sim,
     "coded sim"},
    {NULL, MEDIUM, dram_prepare, dram_dispose, NULL, coded_dram_rot, &coded_dram, "coded dram"},
    {NULL, MEDIUM, nvme_prepare, nvme_dispose, coded_nvme_crash, coded_nvme_rot, &coded_nvme,
     "coded nvme"},
};
const size_t backend_count = sizeof backends / sizeof backends[0];

void backends_begin(void)
{
    coded_sim.codec = coded_dram.codec = coded_nvme.codec = wf_codec_by_name("lossless");
    for (size_t i = 0; i < backend_count; i++) {
        struct backend *b = &backends[i];
        if (!b->ops)
            b->ops = wf_tier_coded_over(b->coded->ops);
        if (!b->name)
            b->name = b->ops->name;
    }
}
