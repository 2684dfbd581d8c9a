/* SPDX-License-Identifier: Apache-2.0
 *
 * Pin versus evict: every interleaving of the protocol of src/shm/index.h, under three memory
 * models, and proof that each of its parts is needed.  docs/LOCKING.md tells the protocol in prose.
 *
 * One slot.  Readers look for the block with key A; the owner evicts it and puts another block into
 * the same slot, twice, so that generation 0 has key A, generation 1 key B and generation 2 key A
 * again.
 *
 *     reader                                     owner, at generation g
 *     ------                                     ----------------------
 *     w  = load word          acquire            word = EVICTING, g         seq_cst
 *     k  = load key           relaxed            m  = load mark             seq_cst
 *     w COMMITTED and k = A, or give up          e0, e1 = load entries      seq_cst
 *     m  = load mark          acquire            one below m is taken: word = COMMITTED, g
 *     m too low: raise mark   seq_cst            none is:
 *     entry = taken           seq_cst              word = FREE, g + 1       release
 *     w' = load word          seq_cst              key, two words of data   relaxed
 *     w' = w: held                                 word = COMMITTED, g + 1  release
 *       read two words of data
 *     entry = 0               release
 *
 * Checked in every state that can be reached: a reader that believes that it holds the block has
 * read data of A, of one generation, and of the generation that it saw in the word.
 *
 * Memory models:
 *
 *   SC    one step at a time, in program order
 *   TSO   x86: every thread has a FIFO store buffer, drained by locked operations and seq_cst
 *         stores, and sees its own buffered stores (Owens, Sarkar and Sewell, "A better x86 memory
 *         model", 2009)
 *   WEAK  what acquire, release and seq_cst forbid is all that is forbidden: a thread's operations
 *         are done in any order that respects those, dependencies into stores, and the order of
 *         accesses to one variable.  Loads are done before the branches that they hang on.  A store
 *         is seen by all others at once, as on ARMv8.  A locked operation is weaker than in truth:
 *         relaxed loads after it may be done before it.  It does not show why the mark is loaded
 *         with acquire: C11 needs that where stores reach some threads earlier than others.
 *
 * What a client does that fills a reserved block is done by the owner here; the two talk over a
 * socket, which orders them.  A value is four bits, so a state is 64 bytes, and all states are
 * kept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define THREADS 3
#define OWNER 2
#define OPS_MAX 24
#define STATES_MAX (1u << 19)

enum model { SC, TSO, WEAK };

enum variable { WORD, KEY, DATA0, DATA1, ENTRY0, ENTRY1, MARK };

enum kind { LOAD, STORE, TAKE, RAISE }; /* the last two are locked: stores that act at once */
enum order { RELAXED, ACQUIRE, RELEASE, SEQ_CST };

/* An operation's part in its program: decides its condition, its value, what it depends on. */
enum role {
    /* reader */
    R_WORD,
    R_KEY,
    R_MARK,
    R_RAISE,
    R_TAKE,
    R_AGAIN,
    R_DATA0,
    R_DATA1,
    R_CLEAR,
    /* owner */
    O_EVICTING,
    O_MARK,
    O_ENTRY0,
    O_ENTRY1,
    O_FREE,
    O_KEY,
    O_DATA0,
    O_DATA1,
    O_COMMIT,
    O_RESTORE,
    ROLES
};

#define BIT(x) (1u << (x))

/* Loads whose values an operation's condition or value needs, as roles of the same attempt. */
static const uint32_t needs[ROLES] = {
    [R_RAISE] = BIT(R_WORD) | BIT(R_KEY) | BIT(R_MARK),
    [R_TAKE] = BIT(R_WORD) | BIT(R_KEY) | BIT(R_MARK),
    [R_AGAIN] = BIT(R_WORD) | BIT(R_KEY),
    [R_DATA0] = BIT(R_WORD) | BIT(R_KEY) | BIT(R_AGAIN),
    [R_DATA1] = BIT(R_WORD) | BIT(R_KEY) | BIT(R_AGAIN),
    [R_CLEAR] = BIT(R_WORD) | BIT(R_KEY),
    [O_ENTRY0] = BIT(O_MARK),
    [O_ENTRY1] = BIT(O_MARK),
    [O_FREE] = BIT(O_MARK) | BIT(O_ENTRY0) | BIT(O_ENTRY1),
    [O_KEY] = BIT(O_MARK) | BIT(O_ENTRY0) | BIT(O_ENTRY1),
    [O_DATA0] = BIT(O_MARK) | BIT(O_ENTRY0) | BIT(O_ENTRY1),
    [O_DATA1] = BIT(O_MARK) | BIT(O_ENTRY0) | BIT(O_ENTRY1),
    [O_COMMIT] = BIT(O_MARK) | BIT(O_ENTRY0) | BIT(O_ENTRY1),
    [O_RESTORE] = BIT(O_MARK) | BIT(O_ENTRY0) | BIT(O_ENTRY1),
};

static const char *const role_names[ROLES] = {
    "load word",
    "load key",
    "load mark",
    "raise mark",
    "take entry",
    "load word again",
    "read data 0",
    "read data 1",
    "clear entry",
    "word = EVICTING",
    "load mark",
    "load entry 0",
    "load entry 1",
    "word = FREE",
    "write key",
    "write data 0",
    "write data 1",
    "word = COMMITTED, next",
    "word = COMMITTED, same",
};

struct op {
    enum kind kind;
    enum order order;
    enum role role;
    enum variable variable;
    uint8_t attempt;
    uint8_t reg;     /* where a load's value goes */
    uint32_t before; /* operations that must be done earlier */
};

struct program {
    struct op ops[OPS_MAX];
    uint32_t count;
    uint8_t op_of_role[3][ROLES]; /* by attempt */
};

/* How the protocol is broken on purpose. */
struct mutation {
    const char *name;
    bool no_recheck, no_generation, no_scan, mark_after_take;
    bool take_unlocked; /* the entry is taken by a store that no fence follows */
    enum order orders[ROLES];
    bool has_order[ROLES];
};

struct setup {
    enum model model;
    struct mutation mutation;
    struct program programs[THREADS];
};

/* Values are nibbles: variables in `memory`, registers in `regs`. */
struct state {
    uint32_t memory;
    uint32_t done[THREADS];
    uint64_t regs[THREADS];
    uint64_t buffer[THREADS]; /* TSO: oldest store lowest, a byte each (variable << 4 | value); the
                                 top byte counts */
};
_Static_assert(sizeof(struct state) == 64, "a state is one cache line");

static unsigned nibble(uint64_t from, unsigned at)
{
    return (unsigned)(from >> (4 * at)) & 15;
}

static uint64_t with_nibble(uint64_t in, unsigned at, unsigned value)
{
    return (in & ~(UINT64_C(15) << (4 * at))) | (uint64_t)value << (4 * at);
}

enum slot_state { FREE, COMMITTED, EVICTING };

static unsigned make_word(const struct setup *setup, unsigned generation, enum slot_state state)
{
    return (setup->mutation.no_generation ? 0 : generation << 2) | (unsigned)state;
}

static unsigned key_of(unsigned generation)
{
    return generation & 1; /* 0 is A */
}

/* ------------------------------------------------------------------------------------ programs */

static enum order order_of(const struct mutation *mutation, enum role role, enum order usual)
{
    return mutation->has_order[role] ? mutation->orders[role] : usual;
}

static bool is_store(const struct op *op)
{
    return op->kind != LOAD;
}

/* Must `first`, earlier in the program, be done before `second`?  WEAK only. */
static bool ordered(const struct op *first, const struct op *second)
{
    if (first->variable == second->variable)
        return true;
    if (first->order == SEQ_CST && second->order == SEQ_CST)
        return true;
    if (first->kind == LOAD && (first->order == ACQUIRE || first->order == SEQ_CST))
        return true;
    if (is_store(second) && (second->order == RELEASE || second->order == SEQ_CST))
        return true;
    /* A store waits for what it depends on. */
    return is_store(second) && first->attempt == second->attempt &&
           (needs[second->role] & BIT(first->role));
}

static void add_op(struct program *program, const struct mutation *mutation, enum kind kind,
                   enum order usual, enum role role, enum variable variable, unsigned attempt)
{
    struct op *op = &program->ops[program->count];
    unsigned loads = 0;
    for (uint32_t i = 0; i < program->count; i++)
        loads += program->ops[i].kind == LOAD;
    *op = (struct op){
        .kind = kind,
        .order = order_of(mutation, role, usual),
        .role = role,
        .variable = variable,
        .attempt = (uint8_t)attempt,
        .reg = (uint8_t)loads,
    };
    program->op_of_role[attempt][role] = (uint8_t)program->count++;
}

static void write_reader(struct program *p, const struct mutation *m, unsigned thread,
                         unsigned attempts)
{
    enum variable entry = thread == 0 ? ENTRY0 : ENTRY1;
    enum kind take = m->take_unlocked ? STORE : TAKE;
    for (unsigned a = 0; a < attempts; a++) {
        add_op(p, m, LOAD, ACQUIRE, R_WORD, WORD, a);
        add_op(p, m, LOAD, RELAXED, R_KEY, KEY, a);
        add_op(p, m, LOAD, ACQUIRE, R_MARK, MARK, a);
        if (!m->mark_after_take)
            add_op(p, m, RAISE, SEQ_CST, R_RAISE, MARK, a);
        add_op(p, m, take, SEQ_CST, R_TAKE, entry, a);
        add_op(p, m, LOAD, SEQ_CST, R_AGAIN, WORD, a);
        if (m->mark_after_take)
            add_op(p, m, RAISE, SEQ_CST, R_RAISE, MARK, a);
        add_op(p, m, LOAD, RELAXED, R_DATA0, DATA0, a);
        add_op(p, m, LOAD, RELAXED, R_DATA1, DATA1, a);
        add_op(p, m, STORE, RELEASE, R_CLEAR, entry, a);
    }
}

static void write_owner(struct program *p, const struct mutation *m, unsigned rounds)
{
    for (unsigned a = 0; a < rounds; a++) {
        add_op(p, m, STORE, SEQ_CST, O_EVICTING, WORD, a);
        add_op(p, m, LOAD, SEQ_CST, O_MARK, MARK, a);
        add_op(p, m, LOAD, SEQ_CST, O_ENTRY0, ENTRY0, a);
        add_op(p, m, LOAD, SEQ_CST, O_ENTRY1, ENTRY1, a);
        add_op(p, m, STORE, RELEASE, O_FREE, WORD, a);
        add_op(p, m, STORE, RELAXED, O_KEY, KEY, a);
        add_op(p, m, STORE, RELAXED, O_DATA0, DATA0, a);
        add_op(p, m, STORE, RELAXED, O_DATA1, DATA1, a);
        add_op(p, m, STORE, RELEASE, O_COMMIT, WORD, a);
        add_op(p, m, STORE, RELEASE, O_RESTORE, WORD, a);
    }
}

static void write_programs(struct setup *setup, unsigned readers, unsigned attempts)
{
    memset(setup->programs, 0, sizeof setup->programs);
    for (unsigned thread = 0; thread < readers; thread++)
        write_reader(&setup->programs[thread], &setup->mutation, thread, attempts);
    write_owner(&setup->programs[OWNER], &setup->mutation, 2);
    for (unsigned thread = 0; thread < THREADS; thread++) {
        struct program *program = &setup->programs[thread];
        for (uint32_t second = 0; second < program->count; second++) {
            for (uint32_t first = 0; first < second; first++) {
                if (setup->model != WEAK || ordered(&program->ops[first], &program->ops[second]))
                    program->ops[second].before |= BIT(first);
            }
        }
    }
}

/* ----------------------------------------------------------------------- conditions and values */

static bool is_done(const struct state *s, unsigned thread, unsigned op)
{
    return s->done[thread] >> op & 1;
}

static unsigned loaded(const struct setup *setup, const struct state *s, unsigned thread,
                       const struct op *op, enum role role)
{
    const struct program *program = &setup->programs[thread];
    return nibble(s->regs[thread], program->ops[program->op_of_role[op->attempt][role]].reg);
}

/* Are all loads done on which the operation's condition hangs? */
static bool is_decided(const struct setup *setup, const struct state *s, unsigned thread,
                       const struct op *op)
{
    for (unsigned role = 0; role < ROLES; role++) {
        if ((needs[op->role] & BIT(role)) &&
            !is_done(s, thread, setup->programs[thread].op_of_role[op->attempt][role]))
            return false;
    }
    return true;
}

/* Rounds that the owner finished with a reuse come before this one: its generation.  A round begins
 * only when the one before is done, whose last register says how it ended. */
static unsigned generation_of(const struct setup *setup, const struct state *s,
                              const struct op *op);

static bool owner_sees_pin(const struct setup *setup, const struct state *s, const struct op *op)
{
    if (setup->mutation.no_scan)
        return false;
    unsigned mark = loaded(setup, s, OWNER, op, O_MARK);
    return (mark > 0 && loaded(setup, s, OWNER, op, O_ENTRY0)) ||
           (mark > 1 && loaded(setup, s, OWNER, op, O_ENTRY1));
}

/* The generation of the slot when the owner's round begins: its earlier rounds that ended in reuse.
 * Their loads are done, because a round begins with a store that is release at least. */
static unsigned generation_of(const struct setup *setup, const struct state *s, const struct op *op)
{
    unsigned generation = 0;
    for (uint8_t attempt = 0; attempt < op->attempt; attempt++) {
        struct op earlier = {.attempt = attempt};
        generation += !owner_sees_pin(setup, s, &earlier);
    }
    return generation;
}

/* Decided operations only: is it done at all? */
static bool condition(const struct setup *setup, const struct state *s, unsigned thread,
                      const struct op *op)
{
    if (thread == OWNER) {
        switch (op->role) {
        case O_FREE:
        case O_KEY:
        case O_DATA0:
        case O_DATA1:
        case O_COMMIT: return !owner_sees_pin(setup, s, op);
        case O_RESTORE: return owner_sees_pin(setup, s, op);
        default: return true;
        }
    }
    if (op->role <= R_MARK)
        return true;
    unsigned word = loaded(setup, s, thread, op, R_WORD);
    bool found = (word & 3) == COMMITTED && loaded(setup, s, thread, op, R_KEY) == key_of(0);
    if (op->role == R_RAISE)
        return found && loaded(setup, s, thread, op, R_MARK) < thread + 1;
    if (op->role == R_DATA0 || op->role == R_DATA1)
        return found &&
               (setup->mutation.no_recheck || loaded(setup, s, thread, op, R_AGAIN) == word);
    return found;
}

static unsigned value_of(const struct setup *setup, const struct state *s, unsigned thread,
                         const struct op *op)
{
    unsigned generation = thread == OWNER ? generation_of(setup, s, op) : 0;
    switch (op->role) {
    case R_RAISE: return thread + 1;
    case R_TAKE: return 1;
    case R_CLEAR: return 0;
    case O_EVICTING: return make_word(setup, generation, EVICTING);
    case O_FREE: return make_word(setup, generation + 1, FREE);
    case O_KEY: return key_of(generation + 1);
    case O_DATA0:
    case O_DATA1: return generation + 1;
    case O_COMMIT: return make_word(setup, generation + 1, COMMITTED);
    case O_RESTORE: return make_word(setup, generation, COMMITTED);
    default: return 0;
    }
}

/* Whether a reader that holds, or believes so, has read what it must not. */
static bool is_violated(const struct setup *setup, const struct state *s, unsigned thread)
{
    const struct program *program = &setup->programs[thread];
    for (uint32_t i = 0; thread != OWNER && i < program->count; i++) {
        const struct op *op = &program->ops[i];
        if ((op->role != R_DATA0 && op->role != R_DATA1) || !is_done(s, thread, i) ||
            !is_decided(setup, s, thread, op) || !condition(setup, s, thread, op))
            continue;
        unsigned data = nibble(s->regs[thread], op->reg);
        if (key_of(data) != key_of(0))
            return true;
        if (!setup->mutation.no_generation && data != loaded(setup, s, thread, op, R_WORD) >> 2)
            return true;
        if (op->role == R_DATA1 && is_done(s, thread, program->op_of_role[op->attempt][R_DATA0]) &&
            data != loaded(setup, s, thread, op, R_DATA0))
            return true;
    }
    return false;
}

/* --------------------------------------------------------------------------------------- steps */

static unsigned buffered(const struct state *s, unsigned thread)
{
    return (unsigned)(s->buffer[thread] >> 56);
}

static unsigned read_variable(const struct state *s, unsigned thread, enum variable variable)
{
    unsigned value = nibble(s->memory, variable);
    for (unsigned i = 0; i < buffered(s, thread); i++) {
        unsigned store = (unsigned)(s->buffer[thread] >> (8 * i)) & 255;
        if (store >> 4 == (unsigned)variable)
            value = store & 15;
    }
    return value;
}

static void write_memory(struct state *s, enum variable variable, unsigned value)
{
    s->memory = (uint32_t)with_nibble(s->memory, variable, value);
}

static void push_store(struct state *s, unsigned thread, enum variable variable, unsigned value)
{
    unsigned count = buffered(s, thread);
    uint64_t store = (uint64_t)((unsigned)variable << 4 | value) << (8 * count);
    s->buffer[thread] = (s->buffer[thread] & (UINT64_MAX >> 8)) | store |
                        (uint64_t)(count + 1) << 56;
}

/* The oldest buffered store of `thread` reaches memory. */
static bool step_drain(const struct state *from, unsigned thread, struct state *to)
{
    unsigned count = buffered(from, thread);
    if (count == 0)
        return false;
    *to = *from;
    unsigned store = (unsigned)from->buffer[thread] & 255;
    uint64_t rest = (from->buffer[thread] & (UINT64_MAX >> 8)) >> 8;
    to->buffer[thread] = rest | (uint64_t)(count - 1) << 56;
    write_memory(to, (enum variable)(store >> 4), store & 15);
    return true;
}

static bool step_op(const struct setup *setup, const struct state *from, unsigned thread,
                    uint32_t index, struct state *to)
{
    const struct op *op = &setup->programs[thread].ops[index];
    if (is_done(from, thread, index) || (op->before & ~from->done[thread]))
        return false;
    bool decided = is_decided(setup, from, thread, op);
    if (!decided && is_store(op))
        return false;
    *to = *from;
    to->done[thread] |= BIT(index);
    if (decided && !condition(setup, from, thread, op))
        return true; /* skipped */
    if (op->kind == LOAD) {
        unsigned value = read_variable(from, thread, op->variable);
        to->regs[thread] = with_nibble(from->regs[thread], op->reg, value);
        return true;
    }
    unsigned value = value_of(setup, from, thread, op);
    bool at_once = setup->model != TSO || op->kind == TAKE || op->kind == RAISE ||
                   (op->order == SEQ_CST && op->kind == STORE && op->role != R_TAKE);
    if (!at_once) {
        if (buffered(from, thread) == 7)
            return false;
        push_store(to, thread, op->variable, value);
        return true;
    }
    if (buffered(from, thread))
        return false; /* locked operations and fences wait for the buffer */
    if (op->kind == RAISE && nibble(from->memory, MARK) > value)
        value = nibble(from->memory, MARK);
    write_memory(to, op->variable, value);
    return true;
}

/* States that differ in nothing that matters become one: an operation whose condition failed is
 * passed over at once, and what a finished attempt of a reader has loaded is forgotten. */
static void normalise(const struct setup *setup, struct state *s, unsigned thread)
{
    const struct program *program = &setup->programs[thread];
    for (uint32_t i = 0; i < program->count; i++) {
        const struct op *op = &program->ops[i];
        if (!is_done(s, thread, i) && !(op->before & ~s->done[thread]) &&
            is_decided(setup, s, thread, op) && !condition(setup, s, thread, op))
            s->done[thread] |= BIT(i);
    }
    for (uint32_t attempt = 0; thread != OWNER && attempt < 2; attempt++) {
        uint32_t all = 0;
        uint64_t loads = 0;
        for (uint32_t i = 0; i < program->count; i++) {
            const struct op *op = &program->ops[i];
            if (op->attempt != attempt)
                continue;
            all |= BIT(i);
            if (op->kind == LOAD)
                loads |= UINT64_C(15) << (4 * op->reg);
        }
        if ((s->done[thread] & all) == all)
            s->regs[thread] &= ~loads;
    }
}

/* --------------------------------------------------------------------------------- exploration */

struct space {
    struct state *states;
    uint32_t *parents;
    uint32_t *table; /* index + 1; 0 is empty */
    uint32_t count;
};

/* What was seen on the way, so that a test that explores nothing does not pass. */
struct findings {
    bool violated, held, reused, restored, missed;
    uint32_t states;
};

static bool space_add(struct space *space, const struct state *state, uint32_t parent)
{
    uint64_t words[8], hash = 0;
    memcpy(words, state, sizeof words);
    for (int i = 0; i < 8; i++)
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15 ^ (hash >> 29);
    hash ^= hash >> 32;
    for (uint32_t at = (uint32_t)hash % (2 * STATES_MAX);; at = (at + 1) % (2 * STATES_MAX)) {
        if (space->table[at] == 0) {
            assert_true(space->count < STATES_MAX);
            space->states[space->count] = *state;
            space->parents[space->count] = parent;
            space->table[at] = ++space->count;
            return true;
        }
        if (!memcmp(&space->states[space->table[at] - 1], state, sizeof *state))
            return false;
    }
}

static void print_trace(const struct setup *setup, const struct space *space, uint32_t at)
{
    uint32_t path[256], length = 0;
    for (; at != 0 && length < 256; at = space->parents[at])
        path[length++] = at;
    while (length-- > 0) {
        const struct state *to = &space->states[path[length]];
        const struct state *from = &space->states[space->parents[path[length]]];
        for (unsigned thread = 0; thread < THREADS; thread++) {
            uint32_t step = to->done[thread] & ~from->done[thread];
            const char *who = thread == OWNER ? "owner" : thread ? "reader 1" : "reader 0";
            if (step)
                print_message("  %-8s %-22s memory %07x\n", who,
                              role_names[setup->programs[thread].ops[__builtin_ctz(step)].role],
                              to->memory);
            else if (to->buffer[thread] != from->buffer[thread])
                print_message("  %-8s (store buffer drains) memory %07x\n", who, to->memory);
        }
    }
}

static void note(const struct setup *setup, const struct state *s, unsigned thread,
                 struct findings *findings)
{
    const struct program *program = &setup->programs[thread];
    for (uint32_t i = 0; i < program->count; i++) {
        const struct op *op = &program->ops[i];
        if (!is_done(s, thread, i) || !is_decided(setup, s, thread, op))
            continue;
        bool happens = condition(setup, s, thread, op);
        struct op again = {.role = R_AGAIN, .attempt = op->attempt};
        switch (op->role) {
        case R_DATA1:
            findings->held |= happens;
            findings->missed |= !happens && condition(setup, s, thread, &again);
            break;
        case O_COMMIT: findings->reused |= happens && op->attempt == 1; break;
        case O_RESTORE: findings->restored |= happens; break;
        default: break;
        }
    }
}

static struct findings explore(const struct setup *setup, bool show)
{
    static struct space space;
    if (!space.states) {
        space.states = malloc(STATES_MAX * sizeof *space.states);
        space.parents = malloc(STATES_MAX * sizeof *space.parents);
        space.table = malloc(2 * STATES_MAX * sizeof *space.table);
    }
    assert_true(space.states && space.parents && space.table);
    memset(space.table, 0, 2 * STATES_MAX * sizeof *space.table);
    space.count = 0;

    struct findings findings = {0};
    struct state next = {.memory = make_word(setup, 0, COMMITTED) << (4 * WORD)};
    space_add(&space, &next, 0);
    for (uint32_t at = 0; at < space.count && !findings.violated; at++) {
        const struct state from = space.states[at];
        for (unsigned thread = 0; thread < THREADS && !findings.violated; thread++) {
            for (uint32_t op = 0; op <= setup->programs[thread].count; op++) {
                bool moved = op < setup->programs[thread].count
                                 ? step_op(setup, &from, thread, op, &next)
                                 : step_drain(&from, thread, &next);
                if (!moved)
                    continue;
                bool violated = is_violated(setup, &next, thread);
                note(setup, &next, thread, &findings);
                normalise(setup, &next, thread);
                bool added = space_add(&space, &next, at);
                if (!violated)
                    continue;
                findings.violated = true;
                if (show && added)
                    print_trace(setup, &space, space.count - 1);
                break;
            }
        }
    }
    findings.states = space.count;
    return findings;
}

/* Two readers that try once, then one that tries twice. */
static struct findings explore_all(enum model model, const struct mutation *mutation, bool show)
{
    struct setup setup = {.model = model, .mutation = *mutation};
    write_programs(&setup, 2, 1);
    struct findings findings = explore(&setup, show);
    if (findings.violated)
        return findings;
    write_programs(&setup, 1, 2);
    struct findings more = explore(&setup, show);
    more.held |= findings.held;
    more.reused |= findings.reused;
    more.restored |= findings.restored;
    more.missed |= findings.missed;
    more.states += findings.states;
    return more;
}

/* --------------------------------------------------------------------------------------- tests */

static const char *const model_names[] = {"SC", "TSO", "WEAK"};

static void test_protocol_holds(void **state)
{
    (void)state;
    for (int model = SC; model <= WEAK; model++) {
        struct findings f = explore_all((enum model)model, &(struct mutation){0}, true);
        print_message("%s: %u states\n", model_names[model], f.states);
        assert_false(f.violated);
        assert_true(f.held && f.reused && f.restored && f.missed);
    }
}

#define ORDER(role, order) .orders[role] = (order), .has_order[role] = true

/* `from` is the strongest model in which the mutant differs from the protocol; there and in all
 * weaker ones it must be caught.  In those before it is the same program: x86 gives acquire and
 * release for nothing, and without store buffers a fence has nothing to wait for. */
static const struct {
    struct mutation mutation;
    enum model from;
} mutants[] = {
    {{"reader does not look again", .no_recheck = true}, SC},
    {{"word without generation", .no_generation = true}, SC},
    {{"owner does not look at the pins", .no_scan = true}, SC},
    {{"mark is raised after the entry was taken", .mark_after_take = true}, SC},
    {{"no fence after taking the entry", .take_unlocked = true, ORDER(R_TAKE, RELEASE)}, TSO},
    {{"no fence after EVICTING", ORDER(O_EVICTING, RELEASE)}, TSO},
    {{"first look at the word is relaxed", ORDER(R_WORD, RELAXED)}, WEAK},
    {{"second look at the word is relaxed", ORDER(R_AGAIN, RELAXED)}, WEAK},
    {{"entry is cleared relaxed", ORDER(R_CLEAR, RELAXED)}, WEAK},
    {{"owner loads the mark relaxed", ORDER(O_MARK, RELAXED)}, WEAK},
    {{"block is committed relaxed", ORDER(O_COMMIT, RELAXED)}, WEAK},
};

static void test_every_part_is_needed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
        for (int model = (int)mutants[i].from; model <= WEAK; model++) {
            struct findings f = explore_all((enum model)model, &mutants[i].mutation, false);
            print_message("%-42s %-4s caught after %u states\n", mutants[i].mutation.name,
                          model_names[model], f.states);
            if (!f.violated)
                fail_msg("'%s' holds under %s", mutants[i].mutation.name, model_names[model]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protocol_holds),
        cmocka_unit_test(test_every_part_is_needed),
    };
    return cmocka_run_group_tests_name("pin_model", tests, NULL, NULL);
}
