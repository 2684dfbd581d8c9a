/* SPDX-License-Identifier: Apache-2.0
 *
 * The file of a tier that holds blocks which were stored with loss, changed behind the node's back:
 * frames that say another quality, profile or codec, frames that lie at each other's place, records
 * that say something else, bits anywhere.  What comes back is what was stored, told as what it
 * lost, or nothing; and what is gone can be put again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/profile.h"
#include "../support/random.h"
#include "corners_world.h"

#define MODEL "small@1"
#define CHAINS 12u
#define LINKS 4u
#define RECORDS_MAX 4096u
#define PAGE 4096
#define FRAME_ROOM (PROFILE_BLOCK_BYTES)

static const char *const settings[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "drain=30s",
                                       "profiles=%d/profiles",
                                       "domain.default.quality=economy",
                                       "tiers=nvme0",
                                       "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=16MB",
                                       "tier.nvme0.admit=always",
                                       "tier.nvme0.codec=auto",
                                       NULL};

struct forged {
    struct world w;
    struct random_source r;
    struct wf_profile *profile[2]; /* the first is the newest, by which blocks are stored */
    int fd;                        /* of the tier's file, while the node is down */
    off_t records[RECORDS_MAX], end;
    uint32_t count;
};

static void prepare(struct forged *f)
{
    char path[128];
    begin(&f->w, settings);
    f->r = random_seeded("forged");
    snprintf(path, sizeof path, "%s/profiles", f->w.node.directory);
    assert_int_equal(mkdir(path, 0700), 0);
    for (uint32_t i = 2; i-- > 0;) {
        snprintf(path, sizeof path, "%s/profiles/%u.wfprofile", f->w.node.directory, i);
        profile_make(MODEL, (uint16_t)(9 * i), path);
        f->profile[i] = profile_read(path);
        const struct timespec times[2] = {{.tv_sec = 1000 - i}, {.tv_sec = 1000 - i}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
}

static void finish(struct forged *f)
{
    weftd_clean(&f->w.node);
    for (uint32_t i = 0; i < 2; i++)
        wf_profile_destroy(f->profile[i]);
}

static struct weft_format *format_of(const struct forged *l)
{
    struct weft_format *f;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS};
    assert_int_equal(weft_format_open(l->w.w, &spec, &f), WEFT_OK);
    return f;
}

static void fill_all(struct weft_format *f)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    for (uint32_t chain = 0; chain < CHAINS; chain++) {
        keys_of(f, chain, LINKS, keys);
        assert_int_equal(weft_reserve_keys(f, NULL, keys, LINKS, WEFT_CHAINED, slots), WEFT_OK);
        for (uint32_t i = 0; i < LINKS; i++)
            if (slots[i].status == WEFT_OK)
                profile_block(chain * LINKS + i, slots[i].data);
        assert_int_equal(weft_commit_slots(f, slots, LINKS), WEFT_OK);
    }
}

/* How many come: each is as it was put, or as economy has it, and told so. */
static uint32_t check_all(const struct forged *l, struct weft_format *f, uint32_t *out_lossy)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    struct weft_key keys[LINKS];
    struct weft_pins pins;
    uint32_t found = 0;
    *out_lossy = 0;
    for (uint32_t chain = 0; chain < CHAINS; chain++) {
        keys_of(f, chain, LINKS, keys);
        assert_int_equal(weft_get_keys(f, keys, LINKS, WEFT_LAYER_ORDER, &pins), WEFT_OK);
        for (uint32_t i = 0; i < pins.blocks; i++) {
            enum weft_status status = weft_wait_block(&pins, i);
            if (status == WEFT_MISS)
                break;
            assert_int_equal(status, WEFT_OK);
            bool lossy = weft_pin_quality(&pins.pins[i]) > WEFT_LOSSLESS;
            profile_block(chain * LINKS + i, plain);
            if (lossy)
                profile_back(l->profile[0], WEFT_ECONOMY, i, plain, back);
            assert_memory_equal(pins.data[i], lossy ? back : plain, sizeof plain);
            assert_int_equal(weft_pin_quality(&pins.pins[i]), lossy ? WEFT_ECONOMY : WEFT_LOSSLESS);
            *out_lossy += lossy;
            found++;
        }
        weft_pins_release(&pins);
    }
    return found;
}

/* ----------------------------------------------------------------------------------- the file */

static void file_read(const struct forged *f, off_t at, void *to, size_t bytes)
{
    assert_int_equal(pread(f->fd, to, bytes, at), bytes);
}

static void file_write(const struct forged *f, off_t at, const void *from, size_t bytes)
{
    assert_int_equal(pwrite(f->fd, from, bytes, at), bytes);
}

/* Its records whose payload is a frame; src/tier/nvme_format.h draws them. */
static void file_open(struct forged *f)
{
    char path[128];
    uint8_t page[PAGE];
    struct stat there = {.st_size = 0};
    snprintf(path, sizeof path, "%s/nvme0", f->w.node.directory);
    f->fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(f->fd >= 0 && fstat(f->fd, &there) == 0);
    f->count = 0;
    f->end = there.st_size;
    for (off_t at = 1 << 20; at + PAGE < there.st_size && f->count < RECORDS_MAX; at += PAGE) {
        file_read(f, at, page, sizeof page);
        if (memcmp(page, "WEFBBLK1", 8) != 0)
            continue;
        file_read(f, at + PAGE, page, sizeof page);
        if (memcmp(page, "WFKR", 4) == 0)
            f->records[f->count++] = at;
    }
    assert_true(f->count > 1);
}

static off_t any_frame(struct forged *f)
{
    return f->records[random_below(&f->r, f->count)] + PAGE;
}

static void say_another_quality(struct forged *f)
{
    uint8_t quality = random_below(&f->r, 2) ? WEFT_TRANSPARENT : 0;
    file_write(f, any_frame(f) + (off_t)offsetof(struct wf_frame_head, quality), &quality, 1);
}

static void say_another_profile(struct forged *f)
{
    file_write(f, any_frame(f) + (off_t)offsetof(struct wf_frame_head, profile), &f->profile[1]->id,
               sizeof f->profile[1]->id);
}

static void say_another_codec(struct forged *f)
{
    const struct wf_codec *codec = wf_codec_each(random_below(&f->r, 8));
    off_t entry = (off_t)sizeof(struct wf_frame_head) +
                  (off_t)offsetof(struct wf_frame_plane, codec);
    file_write(f, any_frame(f) + entry, &codec->id, 1);
}

static void swap_frames(struct forged *f)
{
    static uint8_t one[FRAME_ROOM], two[FRAME_ROOM];
    struct wf_frame_head head;
    off_t a = any_frame(f), b = any_frame(f);
    file_read(f, a, &head, sizeof head);
    uint64_t bytes = head.encoded;
    file_read(f, b, &head, sizeof head);
    bytes = head.encoded > bytes ? head.encoded : bytes;
    if (bytes > FRAME_ROOM)
        return; /* it is not what it was any more */
    file_read(f, a, one, bytes);
    file_read(f, b, two, bytes);
    file_write(f, a, two, bytes);
    file_write(f, b, one, bytes);
}

static void swap_records(struct forged *f)
{
    uint8_t one[PAGE], two[PAGE];
    off_t a = any_frame(f) - PAGE, b = any_frame(f) - PAGE;
    file_read(f, a, one, PAGE);
    file_read(f, b, two, PAGE);
    file_write(f, a, two, PAGE);
    file_write(f, b, one, PAGE);
}

static void turn_bits(struct forged *f)
{
    for (uint32_t i = 0; i < 20; i++) {
        uint8_t byte;
        off_t at = (1 << 20) + (off_t)(random_next(&f->r) % (uint64_t)(f->end - (1 << 20)));
        if (i % 2) /* in a record's head or its frame's */
            at = any_frame(f) - PAGE * (off_t)random_below(&f->r, 2) +
                 (off_t)random_below(&f->r, 256);
        file_read(f, at, &byte, 1);
        byte ^= (uint8_t)(1u << random_below(&f->r, 8));
        file_write(f, at, &byte, 1);
    }
}

/* --------------------------------------------------------------------------------------- tests */

static void what_was_changed_is_gone(void **state)
{
    (void)state;
    static void (*const ways[])(struct forged *) = {say_another_quality, say_another_profile,
                                                    say_another_codec,   swap_frames,
                                                    swap_records,        turn_bits};
    enum { WAYS = sizeof ways / sizeof ways[0] };
    static struct forged f;
    uint32_t lossy, all = CHAINS * LINKS, found = all;
    prepare(&f);
    for (uint32_t round = 0; round < 2 * WAYS; round++) {
        start(&f.w, NULL);
        struct weft_format *format = format_of(&f);
        fill_all(format); /* what is gone */
        assert_int_equal(check_all(&f, format, &lossy), all);
        weft_format_close(format);
        stop(&f.w);
        file_open(&f);
        for (uint32_t i = 0; i < 3; i++)
            ways[round % WAYS](&f);
        close(f.fd);
        start(&f.w, NULL);
        format = format_of(&f);
        uint32_t now = check_all(&f, format, &lossy);
        print_message("# way %u: %u of %u blocks came, %u of them lossy\n", round % WAYS, now, all,
                      lossy);
        found = now < found ? now : found;
        weft_format_close(format);
        stop(&f.w);
        assert_true(lossy > 0);
    }
    assert_true(found < all);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_was_changed_is_gone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
