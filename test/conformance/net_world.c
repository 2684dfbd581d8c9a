/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes that keep account: see net_world.h.
 *
 * A header says which message of the plan it is; of that number and the seed every other byte
 * follows, so a receiver knows what has to be in it.
 */
#include "net_world.h"

#include <stdio.h>
#include <time.h>

struct header {
    uint64_t number, payload_bytes;
    uint32_t header_bytes;
    uint32_t sum; /* of number and sizes: a header that is another's is seen as such */
};

static uint32_t header_sum(const struct header *header)
{
    uint64_t mixed = (header->number + 1) * RANDOM_STEP ^ header->payload_bytes * 31 ^
                     header->header_bytes;
    return (uint32_t)(mixed ^ mixed >> 32);
}

uint64_t world_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint8_t byte_at(uint64_t number, uint64_t at)
{
    uint64_t word = (number + 7) * RANDOM_STEP + (at / 8) * 0xbf58476d1ce4e5b9u;
    return (uint8_t)((word ^ word >> 29) >> (at % 8 * 8));
}

static void bytes_fill(uint8_t *to, uint64_t number, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        to[i] = byte_at(number, i);
}

static void bytes_check(const uint8_t *from, uint64_t number, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (from[i] != byte_at(number, i))
            fail_msg("message %llu: byte %llu of %llu is %02x, not %02x",
                     (unsigned long long)number, (unsigned long long)i, (unsigned long long)count,
                     from[i], byte_at(number, i));
}

/* Memory of `count` pieces of `bytes` together, of uneven sizes, some empty. */
static void pieces_cut(struct random_source *random, uint8_t *base, uint64_t bytes, uint32_t count,
                       struct iovec *out)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t left = bytes, some = left;
        if (i + 1 < count) {
            some = left / (count - i);
            some = random_below(random, 8) ? some + random_below(random, (uint32_t)(some + 1)) : 0;
            if (some > left)
                some = left;
        }
        out[i] = (struct iovec){base, some};
        base += some;
        bytes -= some;
    }
}

/* ------------------------------------------------------------------------------------ events */

static struct end *end_of(struct node *node, struct wf_net_link *link)
{
    struct end *end = node->world->backend->ops->user(link);
    assert_non_null(end);
    assert_ptr_equal(end->node, node);
    assert_ptr_equal(end->link, link);
    return end;
}

static struct end *end_new(struct node *node, struct wf_net_link *link)
{
    assert_true(node->end_count < LINKS_MAX);
    struct end *end = &node->ends[node->end_count++];
    end->node = node;
    end->link = link;
    return end;
}

static bool on_up(void *context, struct wf_net_link *link, const void *hello, uint32_t hello_bytes,
                  const char *name)
{
    struct node *node = context;
    const struct wf_net_ops *ops = node->world->backend->ops;
    struct end *end = ops->user(link);
    if (!end) {
        end = end_new(node, link);
        ops->set_user(link, end);
    }
    assert_false(end->up);
    assert_false(end->down);
    end->link = link;
    end->up = true;
    node->ups++;
    assert_true(hello_bytes < sizeof end->hello);
    memcpy(end->hello, hello, hello_bytes);
    snprintf(end->name, sizeof end->name, "%s", name);
    assert_true(ops->peer(link)[0] != 0);
    if (end->close_in_up)
        ops->close(link);
    return !node->unwanted;
}

static void on_down(void *context, struct wf_net_link *link, enum weft_status status,
                    const char *sentence)
{
    struct end *end = end_of(context, link);
    assert_false(end->down);
    assert_int_equal(end->open, 0);
    end->node->downs++;
    end->down = true;
    end->link = NULL;
    end->status = status;
    snprintf(end->sentence, sizeof end->sentence, "%s", sentence);
    assert_true(strlen(sentence) > 3);
    for (struct parcel *parcel = end->node->world->parcels; parcel; parcel = parcel->next)
        assert_false(parcel->end == end && parcel->out);
}

static void once(void (**what)(struct end *), struct end *end)
{
    void (*call)(struct end *) = *what;
    *what = NULL;
    if (call)
        call(end);
}

static uint32_t on_begun(void *context, struct wf_net_link *link, const void *bytes,
                         uint32_t header_bytes, uint64_t payload_bytes, struct iovec *out,
                         void **out_token)
{
    struct node *node = context;
    struct end *end = end_of(node, link);
    const struct plan *plan = &node->world->plan;
    struct header header;
    assert_true(end->up && !end->down);
    assert_true(header_bytes >= sizeof header);
    memcpy(&header, bytes, sizeof header);
    assert_int_equal(header.sum, header_sum(&header));
    assert_int_equal(header.header_bytes, header_bytes);
    assert_int_equal(header.payload_bytes, payload_bytes);
    assert_int_equal(header.number, end->expected);
    bytes_check((const uint8_t *)bytes + sizeof header, header.number,
                header_bytes - sizeof header);
    end->expected++;
    end->begun++;
    once(&node->in_begun, end);
    if (!payload_bytes) {
        /* It has arrived, so all before it have. */
        assert_int_equal(end->open, 0);
        end->arrived++;
        return 0;
    }
    if (plan->drop_one_in && header.number % plan->drop_one_in == 0)
        return 0;
    struct arriving *arriving = calloc(1, sizeof *arriving);
    uint32_t count = 1 +
                     random_below(&node->world->random, plan->pieces_max ? plan->pieces_max : 4);
    assert_non_null(arriving);
    *arriving = (struct arriving){.end = end,
                                  .number = header.number,
                                  .bytes = payload_bytes,
                                  .payload = malloc(payload_bytes)};
    assert_non_null(arriving->payload);
    pieces_cut(&node->world->random, arriving->payload, payload_bytes, count, out);
    *out_token = arriving;
    end->open++;
    return count;
}

static void on_progress(void *context, struct wf_net_link *link, void *token, uint64_t bytes)
{
    struct arriving *arriving = token;
    struct end *end = end_of(context, link);
    assert_ptr_equal(arriving->end, end);
    assert_true(bytes >= arriving->told && bytes <= arriving->bytes);
    /* They are there for good. */
    for (uint64_t i = arriving->told; i < bytes; i += 1 + (bytes - i) / 3)
        assert_int_equal(arriving->payload[i], byte_at(arriving->number, i));
    arriving->told = bytes;
    end->progressed++;
    once(&end->node->in_progress, end);
}

static void on_arrived(void *context, struct wf_net_link *link, void *token,
                       enum weft_status status)
{
    struct arriving *arriving = token;
    struct end *end = end_of(context, link);
    assert_ptr_equal(arriving->end, end);
    assert_true(end->open > 0);
    end->open--;
    if (status == WEFT_OK) {
        bytes_check(arriving->payload, arriving->number, arriving->bytes);
        end->arrived++;
    } else {
        end->failed++;
    }
    free(arriving->payload);
    free(arriving);
    once(&end->node->in_arrived, end);
}

static void on_sent(struct wf_net_message *message, enum weft_status status)
{
    struct parcel *parcel = message->user;
    assert_true(parcel->out);
    parcel->out = false;
    parcel->status = status;
    parcel->end->node->world->out--;
    /* Our memory again: nobody is to read this. */
    memset(parcel->header, 0xee, message->header_bytes);
    if (message->payload_bytes)
        memset(parcel->payload, 0xee, message->payload_bytes);
    free(parcel->header);
    free(parcel->payload);
    parcel->header = parcel->payload = NULL;
    once(&parcel->end->node->in_sent, parcel->end);
}

/* -------------------------------------------------------------------------------------- world */

int world_setup(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->backend = *state;
    world->random = random_seeded(world->backend->name);
    world->plan.header_max = 300;
    world->plan.payload_max = 100000;
    *state = world;
    return 0;
}

int world_teardown(void **state)
{
    struct world *world = *state;
    for (uint32_t i = 0; i < world->node_count; i++)
        if (world->nodes[i].net)
            world->backend->ops->destroy(world->nodes[i].net);
    if (world->backend->dispose)
        world->backend->dispose(world);
    uint64_t out = world->out;
    while (world->parcels) {
        struct parcel *parcel = world->parcels;
        world->parcels = parcel->next;
        free(parcel->header);
        free(parcel->payload);
        free(parcel);
    }
    free(world);
    return out != 0;
}

struct node *world_node(struct world *world, void (*change)(struct wf_net_options *options))
{
    char hello[32];
    assert_true(world->node_count < NODES_MAX);
    struct node *node = &world->nodes[world->node_count];
    node->world = world;
    node->number = world->node_count++;
    struct wf_net_options options = {
        /* Tests that are about time have times of their own; a slow machine is none's subject. */
        .dead_ms = 60000,
        .hello = hello,
        .hello_bytes = (uint32_t)snprintf(hello, sizeof hello, "node %u", node->number),
        .events = {node, on_up, on_down, on_begun, on_progress, on_arrived},
    };
    world->backend->prepare(world, node->number, &options);
    if (change)
        change(&options);
    enum weft_status status = world->backend->ops->create(&options, &node->net);
    if (status != WEFT_OK)
        fail_msg("no net: %s", wf_last_error());
    return node;
}

uint32_t world_patience_ms(const struct world *world)
{
    return world->backend->slow ? 4 * PATIENCE_MS : PATIENCE_MS;
}

void world_step(struct world *world)
{
    /* One of them waits a little, or time that is simulated would stand still. */
    bool waits = true;
    for (uint32_t i = world->node_count; i-- > 0;) {
        struct node *node = &world->nodes[i];
        if (!node->net || node->hold)
            continue;
        if (world->backend->ops->poll(node->net, waits) != WEFT_OK)
            fail_msg("poll fails: %s", wf_last_error());
        waits = false;
    }
    if (world->each)
        world->each(world);
}

void world_settle(struct world *world)
{
    for (int i = 0; i < 20; i++)
        world_step(world);
}

struct end *world_connect(struct node *node, const char *address)
{
    const struct wf_net_ops *ops = node->world->backend->ops;
    struct end *end = end_new(node, NULL);
    end->connector = true;
    if (ops->connect(node->net, address, end, &end->link) != WEFT_OK)
        fail_msg("no link to %s: %s", address, wf_last_error());
    assert_ptr_equal(ops->user(end->link), end);
    return end;
}

void world_meet(struct node *a, struct node *b, struct end **out_a, struct end **out_b)
{
    uint32_t before = b->end_count;
    *out_a = world_connect(a, a->world->backend->ops->address(b->net));
    UNTIL(a->world, (*out_a)->down || ((*out_a)->up && b->end_count > before));
    if ((*out_a)->down)
        fail_msg("it did not come up: %s", (*out_a)->sentence);
    *out_b = &b->ends[before];
}

/* ---------------------------------------------------------------------------------- messages */

static enum weft_status parcel_send(struct parcel *parcel, uint64_t number, uint32_t header_bytes,
                                    uint64_t payload_bytes, uint32_t pieces)
{
    struct end *end = parcel->end;
    struct world *world = end->node->world;
    struct header header = {number, payload_bytes, header_bytes, 0};
    header.sum = header_sum(&header);
    parcel->header = malloc(header_bytes);
    parcel->payload = malloc(payload_bytes ? payload_bytes : 1);
    assert_true(parcel->header && parcel->payload);
    memcpy(parcel->header, &header, sizeof header);
    bytes_fill(parcel->header + sizeof header, number, header_bytes - sizeof header);
    bytes_fill(parcel->payload, number, payload_bytes);
    pieces_cut(&world->random, parcel->payload, payload_bytes, pieces, parcel->pieces);
    parcel->message = (struct wf_net_message){.header = parcel->header,
                                              .header_bytes = header_bytes,
                                              .piece_count = pieces,
                                              .pieces = parcel->pieces,
                                              .sent = on_sent,
                                              .user = parcel};
    parcel->out = true;
    enum weft_status status = world->backend->ops->send(end->link, &parcel->message);
    if (status == WEFT_OK) {
        parcel->next = world->parcels;
        world->parcels = parcel;
        world->out++;
    } else {
        free(parcel->header);
        free(parcel->payload);
        free(parcel);
    }
    return status;
}

enum weft_status world_send_sized(struct end *end, uint64_t number, uint32_t header_bytes,
                                  uint64_t payload_bytes, uint32_t pieces)
{
    struct parcel *parcel = calloc(1, sizeof *parcel);
    assert_non_null(parcel);
    parcel->end = end;
    if (end->node->world->backend->slow)
        payload_bytes = (payload_bytes + SLOWER - 1) / SLOWER;
    if (header_bytes < sizeof(struct header))
        header_bytes = sizeof(struct header);
    return parcel_send(parcel, number, header_bytes, payload_bytes, pieces);
}

bool world_send(struct end *end, uint64_t number)
{
    const struct plan *plan = &end->node->world->plan;
    struct random_source random = {plan->seed + number * 77};
    uint32_t kind = random_below(&random, 10), header_bytes, pieces;
    uint64_t payload_bytes = 0;
    header_bytes = (uint32_t)sizeof(struct header) + random_below(&random, plan->header_max);
    if (kind > 2 && plan->payload_max)
        payload_bytes = 1 + random_below(&random, kind > 7 ? (uint32_t)plan->payload_max : 2000);
    pieces = payload_bytes ? 1 + random_below(&random, plan->pieces_max ? plan->pieces_max : 4) : 0;
    enum weft_status status = world_send_sized(end, number, header_bytes, payload_bytes, pieces);
    if (status < 0)
        fail_msg("send: %s", wf_last_error());
    return status == WEFT_OK;
}
