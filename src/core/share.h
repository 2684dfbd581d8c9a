/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose block goes: shares, floors, ceilings and classes of domains that hold one medium together.
 *
 * Every domain is due its floor, and a part by weight of what the floors leave, up to its ceiling;
 * what one cannot have for its ceiling goes to the others (max-min fairness by weight: A. Demers,
 * S. Keshav, S. Shenker, SIGCOMM 1989).  What a domain has beyond its due is lent: nobody is
 * refused room while some is free, and what is lent goes first when somebody wants his own, that of
 * the lowest class first, then of who has borrowed most.  So no domain falls below its floor for
 * another, none exceeds its ceiling, and a class decides between borrowers, never about what is
 * due.
 *
 * No state, no clock.  O(domains²) at worst, for ceilings.
 */
#ifndef WF_CORE_SHARE_H
#define WF_CORE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WF_SHARE_NONE UINT32_MAX
#define WF_SHARES_MAX 4096u

/* In bytes or in blocks, all alike. */
struct wf_share {
    uint64_t used;
    uint64_t floor, ceiling; /* ceiling UINT64_MAX: none */
    double weight;           /* 0: what the others leave */
    uint32_t class;          /* the higher, the longer it keeps what it has borrowed */
    bool hurried;            /* a deadline is near: one class higher for now */
    bool gives;              /* it has something that may go */
};

enum wf_share_rule {
    WF_SHARE_FREE = 0, /* there is room: nothing goes */
    WF_SHARE_CEILING,  /* its own: it is at its ceiling */
    WF_SHARE_OWN,      /* its own: nobody else has borrowed that much, or of a class that low */
    WF_SHARE_BORROWED, /* of who has borrowed, and gives it back */
    WF_SHARE_ABOVE,    /* the host wants room, and nobody has borrowed: of who is above his floor */
    WF_SHARE_REFUSED,  /* nothing may go */
};

struct wf_share_verdict {
    enum wf_share_rule rule;
    uint32_t who;       /* whose goes; WF_SHARE_NONE: nobody's */
    uint64_t most;      /* so much of it may go: it is not to fall below its floor, or its due */
    uint64_t due, used; /* of who gives */
    uint32_t class;     /* of who gives, as it counts now */
};

/* What each is due of `total`.  Floors beyond the total are cut in proportion. */
void wf_share_due(const struct wf_share *shares, uint32_t count, uint64_t total, uint64_t *out);

/* `wanting` (WF_SHARE_NONE: the host itself) needs so much more.  `due` as above. */
void wf_share_decide(const struct wf_share *shares, const uint64_t *due, uint32_t count,
                     uint64_t total, uint32_t wanting, uint64_t wanted,
                     struct wf_share_verdict *out);
const char *wf_share_rule_name(enum wf_share_rule rule);

#endif
