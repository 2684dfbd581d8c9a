/* SPDX-License-Identifier: Apache-2.0
 *
 * A node with any tiers, and chains on it whose every byte follows from their number.
 *
 * Whatever a test does to the node, what a get gives is right or missing; anything else fails the
 * test.
 */
#ifndef TEST_BELOW_CORNERS_WORLD_H
#define TEST_BELOW_CORNERS_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/chains.h"
#include "../support/tiers.h"
#include "../support/weftd.h"

#define BLOCK_BYTES (128u << 10)
#define DEPTH 8u /* blocks of a chain: 1 MiB */
#define CHAIN_BYTES ((uint64_t)DEPTH * BLOCK_BYTES)
#define ARCHIVE_MS 20000u
#define SETTINGS 24u

struct world {
    struct weftd node;
    struct weft *w;
    struct weft_format *f;
    char room[SETTINGS][192]; /* what settings point to */
    const char *settings[SETTINGS + 1];
    uint32_t count;
};

/* A small tier, and behind it a larger one. */
static const char *const two_tiers[] = {"pool.size=8MB",
                                        "pool.size_max=8MB",
                                        "pool.policy=lru",
                                        "drain=30s",
                                        "log.level=info",
                                        "tiers=nvme0,nvme1",
                                        "tier.nvme0.path=%d/nvme0",
                                        "tier.nvme0.size=16MB",
                                        "tier.nvme0.admit=always",
                                        "tier.nvme1.path=%d/nvme1",
                                        "tier.nvme1.size=64MB",
                                        "tier.nvme1.admit=always",
                                        NULL};

/* "%d" is the node's directory. */
static inline void set(struct world *w, const char *setting)
{
    const char *place = strstr(setting, "%d");
    assert_true(w->count < SETTINGS);
    snprintf(w->room[w->count], sizeof w->room[0], "%.*s%s%s",
             place ? (int)(place - setting) : (int)strlen(setting), setting,
             place ? w->node.directory : "", place ? place + 2 : "");
    w->settings[w->count] = w->room[w->count];
    w->settings[++w->count] = NULL;
}

/* Instead of all that were set before. */
static inline void set_all(struct world *w, const char *const *settings)
{
    w->count = 0;
    for (uint32_t i = 0; settings[i]; i++)
        set(w, settings[i]);
}

static inline void attach(struct world *w)
{
    w->w = weftd_connect(&w->node, "default");
    w->f = w->w ? weftd_format(w->w, "corners", BLOCK_BYTES) : NULL;
    if (!w->f)
        weftd_show_log(&w->node);
    assert_non_null(w->f);
}

static inline void detach(struct world *w)
{
    weft_format_close(w->f);
    weft_close(w->w);
    w->f = NULL;
    w->w = NULL;
}

/* Is a word in the answer to the query by and by? */
static inline bool told(const struct world *w, const char *query, const char *word)
{
    bool found = false;
    if (strcmp(query, "events") == 0)
        return weftd_told(w->w, word, 10000);
    for (int waited = 0; !found && waited < 10000; waited += 10) {
        char *text;
        if (weft_query(w->w, query, 0, &text) != WEFT_OK)
            return false;
        found = strstr(text, word) != NULL;
        weft_text_free(text);
        if (!found)
            weftd_sleep_ms(10);
    }
    return found;
}

/* Until every tier has told what it has, or cannot. */
static inline void opened(const struct world *w)
{
    bool opening = true;
    for (int waited = 0; opening && waited < 10000; waited += 10) {
        char *text;
        assert_int_equal(weft_query(w->w, "tiers", 0, &text), WEFT_OK);
        opening = strstr(text, "\"opening\"") != NULL;
        weft_text_free(text);
        if (opening)
            weftd_sleep_ms(10);
    }
    assert_false(opening);
}

static inline void start(struct world *w, const char *const *variables)
{
    if (!weftd_start(&w->node, w->settings, variables)) {
        weftd_show_log(&w->node);
        fail_msg("the node did not start");
    }
    attach(w);
    opened(w);
}

static inline void begin(struct world *w, const char *const *settings)
{
    memset(w, 0, sizeof *w);
    weftd_prepare(&w->node);
    set_all(w, settings);
}

static inline void stop(struct world *w)
{
    if (w->w)
        detach(w);
    if (!weftd_stop(&w->node)) {
        weftd_show_log(&w->node);
        fail_msg("the node did not end well");
    }
}

static inline void end(struct world *w)
{
    stop(w);
    weftd_clean(&w->node);
}

/* Is it in what the node said on stderr? */
static inline bool logged(const struct world *w, const char *words)
{
    static char text[1 << 18];
    FILE *log = fopen(w->node.log, "re");
    assert_non_null(log);
    text[fread(text, 1, sizeof text - 1, log)] = '\0';
    fclose(log);
    return strstr(text, words) != NULL;
}

/* What is said when all tiers are open, which a start does not wait for. */
static inline bool logged_soon(const struct world *w, const char *words)
{
    for (int waited = 0; waited < 20000 && !logged(w, words); waited += 10)
        weftd_sleep_ms(10);
    return logged(w, words);
}

/* ---------------------------------------------------------------------------------- the chains */

static inline void chain_keys(const struct world *w, uint64_t chain, struct weft_key keys[DEPTH])
{
    keys_of(w->f, chain, DEPTH, keys);
}

/* Of its first blocks, how many are there now. */
static inline uint32_t put_some(const struct world *w, uint64_t chain, uint32_t blocks)
{
    return chain_put(w->f, chain, blocks);
}

static inline uint32_t put(const struct world *w, uint64_t chain)
{
    return put_some(w, chain, DEPTH);
}

/* How many blocks of it there are; each is right. */
static inline uint32_t get(const struct world *w, uint64_t chain)
{
    return chain_get(w->f, chain, DEPTH);
}

static inline uint32_t get_all(const struct world *w, uint64_t from, uint64_t chains)
{
    uint32_t found = 0;
    for (uint64_t chain = from; chain < from + chains; chain++)
        found += get(w, chain);
    return found;
}

/* The chain's first blocks under a name of one letter and its number. */
static inline enum weft_status archive(const struct world *w, char letter, uint64_t chain,
                                       uint32_t blocks)
{
    struct weft_key keys[DEPTH];
    struct weft_archived out;
    char name[24];
    chain_keys(w, chain, keys);
    snprintf(name, sizeof name, "%c%u", letter, (unsigned)chain);
    return weft_archive_keys(w->f, name, &keys[blocks - 1], ARCHIVE_MS, &out);
}

/* --------------------------------------------------------------------------- what the node says */

static inline int64_t tier_number(const struct world *w, const char *tier, const char *name)
{
    return tier_number_of(w->w, tier, name);
}

/* Wait until it has that value, up to 10 s. */
static inline bool tier_settles(const struct world *w, const char *tier, const char *name,
                                int64_t value)
{
    int64_t is = INT64_MIN;
    for (int waited = 0; waited < 10000; waited += 20) {
        is = tier_number(w, tier, name);
        if (is == value)
            return true;
        weftd_sleep_ms(20);
    }
    fprintf(stderr, "# %s of %s is %lld and not %lld\n", name, tier, (long long)is,
            (long long)value);
    return false;
}

/* How many archives of the domain are in that state. */
static inline uint32_t archives(const struct world *w, const char *state)
{
    char *text, words[48];
    uint32_t count = 0;
    assert_int_equal(weft_query(w->w, "archives", 0, &text), WEFT_OK);
    snprintf(words, sizeof words, "\"state\":\"%s\"", state);
    for (const char *at = text; (at = strstr(at, words)); at++)
        count++;
    weft_text_free(text);
    return count;
}

static inline bool archives_settle(const struct world *w, const char *state, uint32_t count)
{
    for (int waited = 0; waited < 8000 && archives(w, state) != count; waited += 10)
        weftd_sleep_ms(10);
    if (archives(w, state) == count)
        return true;
    char *text;
    if (weft_query(w->w, "archives", 0, &text) == WEFT_OK)
        fprintf(stderr, "# %s\n", text);
    return false;
}

#endif
