/* SPDX-License-Identifier: Apache-2.0
 *
 * A bucket that takes connections and never answers, from the start on: the node is not held up by
 * it for longer than its requests may take.
 */
#include "corners_world.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const settings[] = {"pool.size=4MB",
                                       "pool.size_max=4MB",
                                       "pool.policy=lru",
                                       "tiers=disk,bucket",
                                       "tier.disk.kind=nvme",
                                       "tier.disk.path=%d/disk",
                                       "tier.disk.size=16MB",
                                       "tier.disk.admit=always",
                                       "tier.bucket.kind=s3",
                                       "tier.bucket.path=s3://nobody/x",
                                       "tier.bucket.region=us-east-1",
                                       "tier.bucket.timeout=200ms",
                                       NULL};

/* Returns the port. */
static uint16_t listen_somewhere(int *fd)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(*fd >= 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(*fd, 16), 0);
    assert_int_equal(getsockname(*fd, (struct sockaddr *)&at, &size), 0);
    return ntohs(at.sin_port);
}

static void test_others_are_not_held_up(void **state)
{
    static const char *variables[] = {"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", NULL};
    struct world w;
    char endpoint[96];
    int fd;
    (void)state;
    begin(&w, settings);
    snprintf(endpoint, sizeof endpoint, "tier.bucket.endpoint=http://127.0.0.1:%u",
             listen_somewhere(&fd));
    set(&w, endpoint);
    if (!weftd_start(&w.node, w.settings, variables))
        fail_msg("the node did not start");
    attach(&w);
    for (uint64_t chain = 1; chain < 40; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    assert_true(told(&w, "tiers", "\"opening\"")); /* and still it is */
    assert_true(get(&w, 39) == DEPTH);
    close(fd);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_others_are_not_held_up),
    };
    return cmocka_run_group_tests_name("slow_open", tests, NULL, NULL);
}
