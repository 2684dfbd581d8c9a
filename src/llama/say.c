/* SPDX-License-Identifier: Apache-2.0
 *
 * One sentence, kept for the thread that failed.
 */
#include "llama/say.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[512];

void wf_say_keep(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
}

const char *wf_say_last(void)
{
    return sentence;
}
