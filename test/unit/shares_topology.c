/* SPDX-License-Identifier: Apache-2.0
 *
 * How a host is built, found in a sysfs of our own making; and where nodes stand to each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <ftw.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/locality.h"
#include "sys/topology.h"

#define BRIDGE "devices/pci0000:16/0000:16:01.0/"
#define NODE "devices/system/node/"

static char root[64];
static struct wf_topology found;

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/weft-topology-XXXXXX");
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

static void folders(const char *path, char *whole, size_t bytes)
{
    assert_true((size_t)snprintf(whole, bytes, "%s/%s", root, path) < bytes);
    for (char *at = whole + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        assert_true(mkdir(whole, 0700) == 0 || errno == EEXIST);
        *at = '/';
    }
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[160], whole[256];
    snprintf(path, sizeof path, "%s%s", folder, name);
    folders(path, whole, sizeof whole);
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void put_link(const char *path, const char *to)
{
    char whole[256], target[256];
    folders(path, whole, sizeof whole);
    snprintf(target, sizeof target, "%s/%s", root, to);
    assert_int_equal(symlink(target, whole), 0);
}

static void put_pci(const char *folder, const char *class, const char *vendor, const char *node)
{
    put(folder, "class", class);
    put(folder, "vendor", vendor);
    put(folder, "device", "0x2330\n");
    put(folder, "numa_node", node);
    put(folder, "current_link_speed", "16.0 GT/s PCIe\n");
    put(folder, "max_link_speed", "32.0 GT/s PCIe\n");
    put(folder, "current_link_width", "8\n");
    put(folder, "max_link_width", "16\n");
}

static const struct wf_topology_device *device(const char *name)
{
    for (uint32_t i = 0; i < found.device_count; i++)
        if (strcmp(found.devices[i].name, name) == 0)
            return &found.devices[i];
    fail_msg("there is no %s", name);
    return NULL;
}

static void test_a_host_that_tells_nothing(void **state)
{
    (void)state;
    char drive[WF_TOPOLOGY_NAME_MAX + 1];
    wf_topology_read(root, &found);
    assert_int_equal(found.node_count, 0);
    assert_int_equal(found.device_count, 0);
    assert_false(wf_topology_drive(root, makedev(259, 0), drive));
}

static void test_nodes(void **state)
{
    (void)state;
    put(NODE "node10/", "cpulist", "\n");
    put(NODE "node10/", "meminfo", "Node 10 MemTotal:  4096 kB\nNode 10 MemFree:  1024 kB\n");
    put(NODE "node10/", "distance", "24 10\n");
    put(NODE "node0/", "cpulist", "0-15,32-47\n");
    put(NODE "node0/", "distance", "10 24 nonsense\n");
    put(NODE "nodeX/", "cpulist", "1\n");
    put(NODE, "possible", "0-10\n");
    wf_topology_read(root, &found);
    assert_int_equal(found.node_count, 2);
    assert_int_equal(found.nodes[0].number, 0);
    assert_string_equal(found.nodes[0].cpus, "0-15,32-47");
    assert_int_equal(found.nodes[0].distance_count, 2);
    assert_int_equal(found.nodes[0].distances[1], 24);
    assert_int_equal(found.nodes[1].number, 10);
    assert_string_equal(found.nodes[1].cpus, "");
    assert_int_equal(found.nodes[1].memory_bytes, 4096 * 1024);
    assert_int_equal(found.nodes[1].free_bytes, 1024 * 1024);
    /* Memory without processors is a device of the fabric's, too. */
    assert_int_equal(device("node:10")->kind, WF_TOPOLOGY_MEMORY);
    assert_int_equal(device("node:10")->numa_node, 10);
}

static void test_where_devices_hang(void **state)
{
    (void)state;
    put_pci(BRIDGE "0000:17:00.0/", "0x020000\n", "0x15b3\n", "0\n");
    put(BRIDGE "0000:17:00.0/net/eth0/", "speed", "200000\n");
    put_link("class/net/eth0", BRIDGE "0000:17:00.0/net/eth0");
    put("devices/virtual/net/lo/", "speed", "-1\n");
    put_link("class/net/lo", "devices/virtual/net/lo");
    put_pci(BRIDGE "0000:18:00.0/", "0x030200\n", "0x10de\n", "0\n");
    put_link("bus/pci/devices/0000:18:00.0", BRIDGE "0000:18:00.0");
    put_pci("devices/pci0000:00/0000:00:02.0/", "0x030000\n", "0x1a03\n", "-1\n");
    put_link("bus/pci/devices/0000:00:02.0", "devices/pci0000:00/0000:00:02.0");
    put_pci("devices/pci0000:64/0000:65:00.0/", "0x010802\n", "0x144d\n", "1\n");
    put("devices/pci0000:64/0000:65:00.0/nvme/nvme0/nvme0n1/", "size", "2048\n");
    put("devices/pci0000:64/0000:65:00.0/nvme/nvme0/nvme0n1/nvme0n1p1/", "partition", "1\n");
    put_link("block/nvme0n1", "devices/pci0000:64/0000:65:00.0/nvme/nvme0/nvme0n1");
    put_link("dev/block/259:0", "devices/pci0000:64/0000:65:00.0/nvme/nvme0/nvme0n1");
    put_link("dev/block/259:1", "devices/pci0000:64/0000:65:00.0/nvme/nvme0/nvme0n1/nvme0n1p1");
    put_pci("devices/pci0000:35/0000:35:00.0/", "0x050210\n", "0x1c5c\n", "1\n");
    put("devices/pci0000:35/0000:35:00.0/mem0/ram/", "size", "0x40000000\n");
    put_link("bus/cxl/devices/mem0", "devices/pci0000:35/0000:35:00.0/mem0");

    wf_topology_read(root, &found);
    assert_int_equal(found.device_count, 4);
    assert_int_equal(found.left_out, 0);
    const struct wf_topology_device *nic = device("eth0"), *gpu = device("gpu0");
    assert_int_equal(nic->kind, WF_TOPOLOGY_NIC);
    assert_string_equal(nic->pci, "0000:17:00.0");
    assert_string_equal(nic->under, "pci0000:16/0000:16:01.0");
    assert_int_equal(nic->numa_node, 0);
    assert_int_equal(nic->port_mbps, 200000);
    assert_int_equal(nic->link_mts, 16000);
    assert_int_equal(nic->link_mts_max, 32000);
    assert_int_equal(nic->link_width, 8);
    assert_int_equal(nic->link_width_max, 16);
    assert_int_equal(nic->vendor, 0x15b3);
    /* A server's console is no GPU. */
    assert_int_equal(gpu->kind, WF_TOPOLOGY_GPU);
    assert_string_equal(gpu->pci, "0000:18:00.0");
    assert_string_equal(gpu->under, nic->under);
    assert_int_equal(device("nvme0n1")->bytes, 2048 * 512);
    assert_int_equal(device("nvme0n1")->numa_node, 1);
    assert_int_equal(device("mem0")->bytes, 1 << 30);
    assert_string_equal(device("mem0")->pci, "0000:35:00.0");

    char drive[WF_TOPOLOGY_NAME_MAX + 1];
    assert_true(wf_topology_drive(root, makedev(259, 0), drive));
    assert_string_equal(drive, "nvme0n1");
    assert_true(wf_topology_drive(root, makedev(259, 1), drive));
    assert_string_equal(drive, "nvme0n1");
}

static void test_nonsense_is_left_out(void **state)
{
    (void)state;
    put_pci(BRIDGE "0000:17:00.0/", "what\n", "\n", "node\n");
    put(BRIDGE "0000:17:00.0/", "current_link_speed", "Unknown\n");
    put(BRIDGE "0000:17:00.0/", "max_link_speed", "1e300 GT/s\n");
    put(BRIDGE "0000:17:00.0/", "current_link_width", "99999999999999999999999\n");
    put(BRIDGE "0000:17:00.0/net/eth0/", "speed", "-1\n");
    put_link("class/net/eth0", BRIDGE "0000:17:00.0/net/eth0");
    put_link("class/net/gone", BRIDGE "0000:19:00.0/net/gone");
    put_link("class/net/abroad", "../../etc");
    wf_topology_read(root, &found);
    assert_int_equal(found.device_count, 1);
    assert_int_equal(found.devices[0].numa_node, -1);
    assert_int_equal(found.devices[0].link_mts, 0);
    assert_int_equal(found.devices[0].link_mts_max, 0);
    assert_int_equal(found.devices[0].link_width, 0);
    assert_int_equal(found.devices[0].port_mbps, 0);
    assert_int_equal(found.devices[0].vendor, 0);
}

static void test_more_than_there_is_room_for(void **state)
{
    (void)state;
    put_pci(BRIDGE "0000:17:00.0/", "0x020000\n", "0x15b3\n", "0\n");
    for (unsigned i = 0; i < WF_TOPOLOGY_DEVICES_MAX + 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "class/net/eth%u", i);
        put_link(path, BRIDGE "0000:17:00.0");
    }
    wf_topology_read(root, &found);
    assert_int_equal(found.device_count, WF_TOPOLOGY_DEVICES_MAX);
    assert_int_equal(found.left_out, 3);
}

static void test_which_interface_has_an_address(void **state)
{
    (void)state;
    char name[WF_TOPOLOGY_NAME_MAX + 1] = "";
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    struct sockaddr_in *four = (struct sockaddr_in *)&address;
    assert_false(wf_topology_interface(&address, name));
    *four = (struct sockaddr_in){.sin_family = AF_INET};
    four->sin_addr.s_addr = htonl(0xc000024d); /* 192.0.2.77 is of RFC 5737: nobody's */
    assert_false(wf_topology_interface(&address, name));
    four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!wf_topology_interface(&address, name))
        skip();
    assert_int_not_equal(name[0], 0);
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(wf_locality_distance("a/b/c", "a/b/c"), 0);
    assert_int_equal(wf_locality_distance("a/b/c", "a/b/d"), 1);
    assert_int_equal(wf_locality_distance("a/b/c", "a/c/c"), 2);
    assert_int_equal(wf_locality_distance("a/b/c", "b/b/c"), 3);
    assert_int_equal(wf_locality_distance("a/b", "a/b/c"), 1);
    assert_int_equal(wf_locality_distance("a", "a/b/c"), 2);
    assert_int_equal(wf_locality_distance("a/bc", "a/b"), 1);
    assert_int_equal(wf_locality_distance("", "a"), WF_LOCALITY_UNKNOWN);
    assert_int_equal(wf_locality_distance("", ""), WF_LOCALITY_UNKNOWN);
}

static void test_what_is_no_place(void **state)
{
    (void)state;
    char long_one[WF_LOCALITY_MAX + 2];
    memset(long_one, 'a', sizeof long_one - 1);
    long_one[sizeof long_one - 1] = '\0';
    static const char *const wrong[] = {"/a", "a/", "a//b", "Rack", "a b", "1/2/3/4/5/6/7/8/9"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(wf_locality_check(wrong[i]), WEFT_E_INVALID);
    assert_int_equal(wf_locality_check(long_one), WEFT_E_INVALID);
    assert_int_equal(wf_locality_check(long_one + 1), WEFT_OK);
    assert_int_equal(wf_locality_check(""), WEFT_OK);
    assert_int_equal(wf_locality_check("1/2/3/4/5/6/7/8"), WEFT_OK);
    assert_int_equal(wf_locality_check("rack12/switch3/host-7.example_2"), WEFT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_host_that_tells_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_where_devices_hang, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_is_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_than_there_is_room_for, setup, teardown),
        cmocka_unit_test(test_which_interface_has_an_address),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_what_is_no_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
