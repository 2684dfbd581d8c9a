/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory beyond DRAM, found in a sysfs of our own making: what is told, what is left out, and what
 * nonsense does no harm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/cxl.h"

static char root[64];

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/weft-sysfs-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_entry(const char *path, const struct stat *is, int type, struct FTW *walk)
{
    (void)is, (void)type, (void)walk;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Folders of root/path, up to its last '/'. */
static void folders(const char *path, char *whole, size_t bytes)
{
    assert_true((size_t)snprintf(whole, bytes, "%s/%s", root, path) < bytes);
    for (char *at = whole + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        assert_true(mkdir(whole, 0700) == 0 || errno == EEXIST);
        *at = '/';
    }
}

static void put(const char *path, const char *text)
{
    char whole[256];
    folders(path, whole, sizeof whole);
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void put_link(const char *path, const char *to)
{
    char whole[256];
    folders(path, whole, sizeof whole);
    assert_int_equal(symlink(to, whole), 0);
}

static uint32_t find(struct wf_cxl_device *out)
{
    uint32_t count = 99;
    bool libraries = true;
    assert_int_equal(wf_cxl_find(&(struct wf_cxl_search){.sysfs = root}, out, WF_CXL_DEVICES_MAX,
                                 &count, &libraries),
                     WEFT_OK);
    assert_false(libraries);
    return count;
}

#define DAX "bus/dax/devices/"
#define NODE "devices/system/node/"

static void test_a_host_without(void **state)
{
    (void)state;
    struct wf_cxl_device out[WF_CXL_DEVICES_MAX];
    assert_int_equal(find(out), 0);
    put(NODE "node0/cpulist", "0-3\n");
    put(NODE "node0/meminfo", "Node 0 MemTotal:       16000 kB\n");
    assert_int_equal(find(out), 0);
}

static void test_regions_and_processors(void **state)
{
    (void)state;
    struct wf_cxl_search search = {.sysfs = root};
    struct wf_cxl_region out[2];
    assert_int_equal(wf_cxl_find_regions(&search, out, 2), 0);
    for (unsigned i = 0; i < 3;
         i++) { /* 10, 9, 8: told by number, and no more than there is room */
        char path[64], text[32];
        snprintf(path, sizeof path, "bus/cxl/devices/region%u/resource", 10 - i);
        snprintf(text, sizeof text, "0x%x0000000\n", i + 1);
        put(path, text);
        snprintf(path, sizeof path, "bus/cxl/devices/region%u/size", 10 - i);
        put(path, "0x10000000\n");
    }
    assert_int_equal(wf_cxl_find_regions(&search, out, 2), 2);
    assert_string_equal(out[0].name, "region8");
    assert_string_equal(out[1].name, "region9");
    assert_int_equal(out[0].resource, 0x30000000);
    assert_int_equal(out[0].bytes, 0x10000000);
    put(NODE "node0/cpulist", "0-3\n");
    put(NODE "node1/cpulist", "\n");
    assert_true(wf_cxl_node_has_processors(root, 0));
    assert_false(wf_cxl_node_has_processors(root, 1));
    assert_false(wf_cxl_node_has_processors(root, 2));
    assert_false(wf_cxl_node_has_processors(root, -1));
}

static void test_a_device_in_a_region(void **state)
{
    (void)state;
    struct wf_cxl_device out[WF_CXL_DEVICES_MAX];
    put(DAX "dax0.0/size", "534773760\n");
    put(DAX "dax0.0/align", "2097152\n");
    put(DAX "dax0.0/resource", "0x3d0200000\n");
    put(DAX "dax0.0/target_node", "1\n");
    put_link(DAX "dax0.0/driver", "../../../../bus/dax/drivers/device_dax");
    put("bus/cxl/devices/region0/resource", "0x3d0000000\n");
    put("bus/cxl/devices/region0/size", "0x20000000\n");
    put("bus/cxl/devices/region0/interleave_ways", "2\n");
    put("bus/cxl/devices/region0/uuid", "8a2f6f02-41ee-4d65-9a1d-7b3c46f2a5d4\n");
    put("bus/cxl/devices/decoder0.0/size", "0x20000000\n");
    put(NODE "node1/access0/initiators/read_latency", "250\n");
    put(NODE "node1/access0/initiators/write_latency", "300\n");
    put(NODE "node1/access0/initiators/read_bandwidth", "28000\n");
    put(NODE "node1/access0/initiators/write_bandwidth", "14000\n");
    assert_int_equal(find(out), 1);
    assert_int_equal(out[0].kind, WF_CXL_DAX);
    assert_string_equal(out[0].path, "/dev/dax0.0");
    assert_int_equal(out[0].bytes, 534773760);
    assert_int_equal(out[0].align_bytes, 2097152);
    assert_int_equal(out[0].resource, 0x3d0200000);
    assert_int_equal(out[0].numa_node, 1);
    assert_true(out[0].is_cxl);
    assert_string_equal(out[0].region, "region0");
    assert_string_equal(out[0].uuid, "8a2f6f02-41ee-4d65-9a1d-7b3c46f2a5d4");
    assert_int_equal(out[0].interleave_ways, 2);
    assert_int_equal(out[0].read_latency_ns, 250);
    assert_int_equal(out[0].write_latency_ns, 300);
    assert_int_equal(out[0].read_mbps, 28000);
    assert_int_equal(out[0].write_mbps, 14000);
    assert_string_equal(wf_cxl_kind_name(out[0].kind), "dax");
}

static void device(const char *name, const char *driver, const char *size)
{
    char path[128], to[128];
    snprintf(path, sizeof path, DAX "%s/size", name);
    put(path, size);
    if (!driver)
        return;
    snprintf(path, sizeof path, DAX "%s/driver", name);
    snprintf(to, sizeof to, "../../../../bus/dax/drivers/%s", driver);
    put_link(path, to);
}

/* In the order of their numbers, and not of their names; what is system RAM, disabled or no device
 * is not among them. */
static void test_order_and_what_is_left_out(void **state)
{
    (void)state;
    struct wf_cxl_device out[WF_CXL_DEVICES_MAX];
    device("dax10.0", "device_dax", "4194304\n");
    device("dax2.1", "device_dax", "4194304\n");
    device("dax2.0", "device_dax", "4194304\n");
    device("dax3.0", "kmem", "4194304\n");
    device("dax4.0", NULL, "4194304\n");
    device("dax5.0", "device_dax", "0\n");
    device("dax6.0", "device_dax", "many\n");
    device("dax7.0", "device_dax", "99999999999999999999999\n");
    device("dax8", "device_dax", "4194304\n");
    device("dax9.x", "device_dax", "4194304\n");
    device("dax1234567890.0", "device_dax", "4194304\n");
    put(NODE "node3/cpulist", "\n");
    put(NODE "node3/meminfo", "Node 3 MemTotal:  131072 kB\nNode 3 MemFree:  65536 kB\n");
    put(NODE "node12/cpulist", "\n");
    put(NODE "node12/meminfo", "Node 12 MemTotal:  262144 kB\n");
    put(NODE "node4/cpulist", "\n");
    put(NODE "node4/meminfo", "Node 4 MemTotal:  0 kB\n");
    put(NODE "node5/meminfo", "Node 5 MemTotal:  1 kB\n");
    put(NODE "node6/cpulist", "7\n");
    put(NODE "node6/meminfo", "Node 6 MemTotal:  131072 kB\n");
    put(NODE "nodes/cpulist", "\n");
    uint32_t count = find(out);
    static const char *const paths[] = {"/dev/dax2.0", "/dev/dax2.1", "/dev/dax10.0", "node:3",
                                        "node:12"};
    assert_int_equal(count, 5);
    for (uint32_t i = 0; i < count; i++)
        assert_string_equal(out[i].path, paths[i]);
    assert_false(out[0].is_cxl);
    assert_int_equal(out[0].align_bytes, 2 << 20); /* not told: the usual */
    assert_int_equal(out[0].numa_node, -1);
    assert_int_equal(out[0].read_latency_ns, 0);
    assert_int_equal(out[3].kind, WF_CXL_NODE);
    assert_int_equal(out[3].bytes, 134217728);
    assert_int_equal(out[3].numa_node, 3);
    assert_int_equal(wf_cxl_node_free_bytes(root, 3), 67108864);
    assert_int_equal(wf_cxl_node_free_bytes(root, 12), 0);
    assert_int_equal(wf_cxl_node_free_bytes(root, 99), 0);

    bool libraries;
    struct wf_cxl_search search = {.sysfs = root};
    assert_int_equal(wf_cxl_find(&search, out, 4, &count, &libraries), WEFT_E_LIMIT);
    assert_non_null(strstr(wf_last_error(), "5"));
}

static void test_nonsense_does_no_harm(void **state)
{
    (void)state;
    struct wf_cxl_device out[WF_CXL_DEVICES_MAX];
    device("dax0.0", "device_dax", "4194304\n");
    put(DAX "dax0.0/resource", "-1\n");
    put(DAX "dax0.0/target_node", "-1\n");
    put("bus/cxl/devices/region0/resource", "0x0\n");
    put("bus/cxl/devices/region0/size", "0xffffffffffffffff\n");
    put("bus/cxl/devices/region0/uuid", "not a uuid at all, and far too long to be one, really\n");
    put("bus/cxl/devices/regionX/size", "1\n");
    put(NODE "node0/cpulist", "\n");
    put(NODE "node0/meminfo", "Node 0 MemTotal:  99999999999999999999 kB\n");
    put(NODE "node0/access0/initiators/read_latency", "4294967296\n");
    put(NODE "node1/cpulist", "\n");
    put(NODE "node1/meminfo", "");
    assert_int_equal(find(out), 1);
    assert_int_equal(out[0].resource, 0);
    assert_int_equal(out[0].numa_node, -1);
    assert_string_equal(out[0].region, "");
}

/* Whatever this host has: asking it is allowed, and both ways tell the same. */
static void test_this_host(void **state)
{
    (void)state;
    struct wf_cxl_device with[WF_CXL_DEVICES_MAX], without[WF_CXL_DEVICES_MAX];
    uint32_t count, again;
    bool libraries;
    assert_int_equal(wf_cxl_find(NULL, with, WF_CXL_DEVICES_MAX, &count, &libraries), WEFT_OK);
    print_message("%u devices, %s\n", count, libraries ? "asked of the libraries" : "in sysfs");
    struct wf_cxl_search search = {.no_libraries = true};
    assert_int_equal(wf_cxl_find(&search, without, WF_CXL_DEVICES_MAX, &again, &libraries),
                     WEFT_OK);
    assert_false(libraries);
    assert_int_equal(count, again);
    for (uint32_t i = 0; i < count; i++)
        assert_string_equal(with[i].path, without[i].path);
}

static void test_what_is_no_dax_device(void **state)
{
    (void)state;
    uint64_t bytes, align;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(wf_cxl_dax_geometry(fd, &bytes, &align), WEFT_E_INVALID);
    close(fd);
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(wf_cxl_dax_geometry(fd, &bytes, &align), WEFT_E_INVALID);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_host_without, setup, teardown),
        cmocka_unit_test_setup_teardown(test_regions_and_processors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_device_in_a_region, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_and_what_is_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_does_no_harm, setup, teardown),
        cmocka_unit_test(test_this_host),
        cmocka_unit_test(test_what_is_no_dax_device),
    };
    return cmocka_run_group_tests_name("cxl", tests, NULL, NULL);
}
