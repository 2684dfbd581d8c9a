/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as what etcd's gateway answers, as a node's or an epoch's value, and as a registry's
 * name.  The first byte chooses.
 */
#include <stdlib.h>
#include <string.h>

#include "member/checks.h"
#include "member/etcd_target.h"
#include "member/etcd_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void node(const char *name, const char *value)
{
    struct wf_member member, again;
    if (wf_member_name_check("its name", name) != WEFT_OK ||
        wf_etcd_node_read(name, value, &member) != WEFT_OK)
        return;
    if (member.epoch < 1 ||
        wf_member_make(member.name, member.addresses, member.details, &again) != WEFT_OK)
        abort();
}

static void taken(void *context, const struct wf_etcd_kv *kv)
{
    size_t *sum = context;
    const char *name = "";
    uint64_t epoch;
    if (strlen(kv->key) > WF_ETCD_KEY_MAX || (kv->value && strlen(kv->value) > WF_ETCD_VALUE_MAX))
        abort();
    enum wf_etcd_part part = wf_etcd_part_of("c", kv->key, &name);
    if (part != WF_ETCD_OTHER && (name < kv->key || name > kv->key + strlen(kv->key)))
        abort();
    if (part == WF_ETCD_NODES && kv->value)
        node(name, kv->value);
    if (wf_etcd_epoch_read(kv->value, &epoch) == WEFT_OK && epoch == 0)
        abort();
    *sum += strlen(kv->key);
}

static void answer(const char *text, size_t bytes)
{
    static struct wf_etcd_answer out;
    size_t sum = 0;
    enum weft_status status = wf_etcd_read(text, bytes, &out, taken, &sum);
    if (status != WEFT_OK && status != WEFT_E_PROTOCOL)
        abort();
    if (memchr(out.token, '\n', strlen(out.token)) || memchr(out.error, '\x1b', strlen(out.error)))
        abort();
}

static void target(const char *text)
{
    struct wf_etcd_target out;
    if (wf_etcd_target_read(text, &out) == WEFT_OK &&
        (out.count == 0 || out.count > WF_ETCD_ENDPOINTS_MAX ||
         wf_member_name_check("it", out.cluster) != WEFT_OK))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = malloc(size);
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0] % 4) {
    case 0: answer(text, size - 1); break;
    case 1: node("a", text); break;
    case 2: target(text); break;
    default: {
        uint64_t epoch;
        (void)wf_etcd_epoch_read(text, &epoch);
    }
    }
    free(text);
    return 0;
}
