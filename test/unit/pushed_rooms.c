/* SPDX-License-Identifier: Apache-2.0
 *
 * Room for blocks that are pushed here by two nodes at once: who finds all of them on their way by
 * the other's push does not take them to be here, for that push may come to nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/push.h"
#include "store_world.h"

#define BLOCKS 4u
#define BYTES WF_GRANULE

static struct world world;
static struct wf_domain domain;
static struct wf_node node;

static int begin(void **state)
{
    (void)state;
    uint64_t bytes = wf_index_bytes(WORLD_SLOTS, 0);
    memset(&world, 0, sizeof world);
    world.memory = aligned_alloc(WF_PAGE, bytes);
    assert_non_null(world.memory);
    memset(world.memory, 0, bytes);
    world.budget = (uint64_t)WORLD_SLOTS * WF_GRANULE;
    const struct wf_store_options options = {
        .index_memory = world.memory,
        .index_bytes = bytes,
        .slots_max = WORLD_SLOTS,
        .pool_bytes = (uint64_t)WORLD_SLOTS * WF_GRANULE,
        .quota_bytes = (uint64_t)WORLD_SLOTS * WF_GRANULE,
        .epoch = 1,
        .policy = &wf_policy_lru,
        .env = {.context = &world,
                .budget_take = world_take,
                .budget_give = world_give,
                .scan_pins = world_scan,
                .gone = world_gone},
    };
    memset(&domain, 0, sizeof domain);
    memset(&node, 0, sizeof node);
    domain.node = &node;
    domain.pool.memory = world.memory; /* nobody writes there */
    domain.used_again = calloc(1, WORLD_SLOTS / 8);
    domain.key_taken = calloc(1, WORLD_SLOTS / 8);
    domain.refused = calloc(1, WORLD_SLOTS / 8);
    domain.format_of = calloc(WORLD_SLOTS, sizeof *domain.format_of);
    domain.profile_of = calloc(WORLD_SLOTS, sizeof *domain.profile_of);
    node.domains = &domain;
    node.domain_count = 1;
    node.pool_bytes = (uint64_t)WORLD_SLOTS * WF_GRANULE;
    return wf_store_init(&domain.store, &options) != WEFT_OK ||
           wf_node_pushes_create(&node) != WEFT_OK;
}

static int end(void **state)
{
    (void)state;
    wf_node_pushes_destroy(&node);
    free(domain.used_again);
    free(domain.key_taken);
    free(domain.refused);
    free(domain.format_of);
    free(domain.profile_of);
    wf_store_fini(&domain.store);
    free(world.memory);
    return 0;
}

static enum weft_status room(struct wf_fabric_pushed *pushed, uint32_t number)
{
    *pushed = (struct wf_fabric_pushed){.from = "x",
                                        .number = number,
                                        .count = BLOCKS,
                                        .layers = 1,
                                        .bytes = BYTES,
                                        .status = WEFT_PENDING};
    for (uint32_t i = 0; i < BLOCKS; i++) {
        pushed->blocks[i] = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                                     .depth = i,
                                                     .bytes = BYTES,
                                                     .key = {(uint8_t)(i + 1)}};
        if (i > 0)
            pushed->blocks[i].parent[0] = (uint8_t)i;
    }
    wf_node_push_room(&node, pushed);
    wf_node_pushes_run(&node);
    return pushed->status;
}

/* What of it was committed by who wrote it, and came. */
static void ends(struct wf_fabric_pushed *pushed, uint64_t keep)
{
    pushed->keep[0] = pushed->committed[0] = keep;
    wf_node_push_end(&node, pushed);
    wf_node_pushes_run(&node);
}

static void what_another_push_brings_is_not_here(void **state)
{
    (void)state;
    static struct wf_fabric_pushed first, second;
    assert_int_equal(room(&first, 0), WEFT_OK);
    assert_int_equal(room(&second, 1), WEFT_E_BUSY);
    ends(&first, 0); /* it comes to nothing */
    assert_int_equal(first.published, 0);
    assert_int_equal(room(&second, 1), WEFT_OK);
    for (uint32_t i = 0; i < BLOCKS; i++)
        assert_non_null(second.data[i]);
    ends(&second, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(what_another_push_brings_is_not_here)};
    return cmocka_run_group_tests_name("room for what is pushed", tests, NULL, NULL);
}
