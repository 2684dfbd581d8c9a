/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of `make crash` share.
 *
 *   cycles.c        starts a node, has it worked on, kills it, damages its tier, starts it again,
 *                   and looks at every block and every archive; says in JSON what came of it
 *   cycles_work.c   the clients: processes with threads, that outlive the nodes
 *   cycles_damage.c what is done to the tier's file while no node runs
 *
 *   cycles_archive.c  archives: made and removed by clients, and looked for after every start
 *
 * A chain is a number.  Its tokens follow from that, its keys from the tokens, every byte of its
 * blocks from their keys: whoever finds a block can tell whether it is right.
 */
#ifndef TEST_CRASH_CYCLES_H
#define TEST_CRASH_CYCLES_H

#include <stdatomic.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define PROCESSES 3
#define THREADS 2 /* a process */
#define WORKERS (PROCESSES * THREADS)
#define CHAINS_MAX 400
#define DEPTH_MAX 6
#define LAYERS 8
#define BLOCK_TOKENS 16

/* Two formats: small blocks that are read at once, and ones that come up in several ranges. */
enum size { SMALL, LARGE, SIZES };
struct shape {
    const char *model;
    uint32_t kv_heads, head_dim;
    uint32_t chains, depth; /* at most CHAINS_MAX, DEPTH_MAX */
    uint32_t block_bytes;
};
extern const struct shape shapes[SIZES];

enum activity { RESTING, PUTTING, HOLDING, LOADING, DEMOTING, ARCHIVING, OTHER, ACTIVITIES };

enum phase { WORK, REST, END };

/* In memory that all processes share. */
struct tally {
    _Atomic uint32_t phase, rest_number;
    struct {
        _Atomic uint32_t activity, rested; /* rested: rest_number that it has seen */
        _Atomic uint64_t beats;
    } worker[WORKERS];
    _Atomic uint64_t puts, gets, loads, misses, lost_on_the_way, prefetches, demotes, removes;
    _Atomic uint64_t node_losses, blocks_verified, layers_verified, bytes_verified, wrong_blocks;
    _Atomic uint64_t full, busy, errors;
    char error[512]; /* of the first */
    _Atomic uint64_t archived, archives_removed, archives_refused;
    /* An archive of the first d + 1 blocks of a chain. */
    struct archive {
        _Atomic bool kept;     /* it was said to be durable, and nobody asked to remove it */
        _Atomic uint32_t busy; /* number of the worker that makes or removes it, plus 1 */
    } archive[SIZES][CHAINS_MAX][DEPTH_MAX];
};
extern struct tally *tally;

static inline void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

struct client {
    struct weft *w;
    struct weft_format *f[SIZES];
    struct weft_session *s[SIZES];
};

struct worker {
    struct client c;
    struct random_source r;
    uint32_t number;
    const struct weftd *node;
    enum size size;
    uint32_t chain;
    struct weft_key keys[DEPTH_MAX];
};

/* Remember the first call that failed in a way that no crash explains. */
void note_error(const char *call, enum weft_status status);
bool client_open(struct client *c, const struct weftd *node);
void client_close(struct client *c);
void chain_tokens(enum size size, uint32_t chain, uint32_t tokens[DEPTH_MAX * BLOCK_TOKENS]);
bool chain_keys(const struct client *c, enum size size, uint32_t chain,
                struct weft_key keys[DEPTH_MAX]);
/* Count and note a block with a byte that is not its own. */
void wrong_block(const char *where, enum size size, uint32_t chain, uint32_t block);

/* What this worker does now, for the tally of what a kill interrupted. */
void doing(const struct worker *k, enum activity activity);
/* True when the call was answered as it may be. */
bool went_well(const char *call, enum weft_status status);

/* cycles_archive.c */
void archive_chain(struct worker *k, uint32_t depth);
void archive_drop(struct worker *k);
/* The threads of a process are gone: what they were about is not known. */
void archives_abandon(uint32_t process);
struct archive_sum {
    uint64_t verified, rotten, lost; /* rotten: a bit of theirs had been flipped */
};
/* Look at every archive that has to be there; a node has just started. */
void archives_verify(const struct client *c, struct archive_sum *sum);

/* A process of clients, until phase END.  Its exit status. */
int work(const struct weftd *node, uint32_t process, uint64_t seed);

#endif
