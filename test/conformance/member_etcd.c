/* SPDX-License-Identifier: Apache-2.0
 *
 * What only etcd's registry can come across.
 */
#include "../support/between.h"
#include "../support/etcd.h"
#include "member_world.h"

int stopped_node(const char *registry)
{
    (void)registry;
    return 1;
}

static void test_nothing(void **state)
{
    (void)state;
}

const struct CMUnitTest etcd_tests[] = {
    TEST(test_nothing),
};
const size_t etcd_test_count = sizeof etcd_tests / sizeof etcd_tests[0];
