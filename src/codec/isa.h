/* SPDX-License-Identifier: Apache-2.0
 *
 * Which vector instructions codecs use here.  What a codec answers does not depend on it.
 */
#ifndef WF_CODEC_ISA_H
#define WF_CODEC_ISA_H

#include <stdbool.h>

/* Ends the target of a function of plain loops: registers of 512 bits are to be used. */
#if defined(__clang__)
#define WF_CODEC_WIDE "" /* has no word for it in a target */
#else
#define WF_CODEC_WIDE ",prefer-vector-width=512"
#endif

enum wf_codec_isa {
    WF_CODEC_SCALAR,
    WF_CODEC_AVX2,   /* with BMI2, FMA and F16C */
    WF_CODEC_AVX512, /* F, BW, DQ, VL, with BMI2 and FMA */
    WF_CODEC_ISA_COUNT
};

const char *wf_codec_isa_name(enum wf_codec_isa isa);
bool wf_codec_isa_usable(enum wf_codec_isa isa);
/* The widest that is usable; asked of the processor once. */
enum wf_codec_isa wf_codec_isa_best(void);

#endif
