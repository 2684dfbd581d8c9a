/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of `weft codec bench` share: the KV that it works on, and the ways to make it
 * smaller.
 */
#ifndef WF_CLI_CODEC_BENCH_H
#define WF_CLI_CODEC_BENCH_H

#include "cli/codec.h"

/* Blocks of KV, as often one after the other as the working set takes. */
struct codec_set {
    struct wf_layout layout;
    uint64_t distinct, blocks; /* the first ones, and with those that repeat them */
    uint64_t in_sequence;      /* so many of them are a sequence; 0: all */
    uint64_t said_blocks;      /* that there are, as the format file has it; 0: it does not say */
    uint8_t *plain, *back;     /* [blocks][layout.bytes] */
    uint8_t *frames;           /* [blocks][stride]: room for any way's */
    uint64_t stride;
    uint64_t *encoded, *sums; /* [blocks]: bytes of each, and the checksum of its plain bytes */
    void *scratch;
    json_t *about;                /* what KV it is and its shape, for the answer */
    struct codec_subject subject; /* that it came from, where it came from a model */
    bool has_subject;
};

/* As the options say.  CLI_OK, or an exit code after a sentence; close() in any case. */
int wf_cli_codec_set_open(struct cli *cli, struct codec_set *out);
void wf_cli_codec_set_close(struct codec_set *set);

/* Of the first token of a block in its sequence. */
uint64_t wf_cli_codec_position(const struct codec_set *set, uint64_t block);

/* Bytes that are huge pages where the kernel has them, and in memory already. */
uint8_t *wf_cli_codec_room(uint64_t bytes);

/* A way to make a block smaller: by a plan of ours, or what everybody has. */
struct codec_way {
    char name[64];
    const char *unit; /* what is encoded by itself: "plane", "block" */
    bool lossless;
    struct codec_plan plan;               /* ours */
    const struct codec_yardstick *theirs; /* else */
};

/* What everybody has.  NULL after the last. */
const struct codec_yardstick *wf_cli_codec_yardstick(unsigned index);
const char *wf_cli_codec_yardstick_name(const struct codec_yardstick *yardstick);
/* The most bytes that any of them makes of so many. */
uint64_t wf_cli_codec_yardstick_bound(uint64_t bytes);
/* One block, and back: with a checksum of the plain bytes, which frames have too, taken and
 * checked. */
bool wf_cli_codec_yardstick_encode(const struct codec_yardstick *yardstick, struct codec_set *set,
                                   uint64_t block);
bool wf_cli_codec_yardstick_decode(const struct codec_yardstick *yardstick, struct codec_set *set,
                                   uint64_t block);

#endif
