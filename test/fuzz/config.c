/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a configuration file: they are read or refused with a sentence, and what was read
 * can be shown.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wf_config config;
    wf_config_defaults(&config);
    if (wf_config_parse_yaml(data, size, "fuzz.yaml", &config) != WEFT_OK) {
        assert(wf_last_error()[0] != '\0');
        return 0;
    }
    assert(config.domain_count >= 1 && config.domain_count <= WF_DOMAINS_MAX);
    assert(config.tier_count <= WF_TIERS_MAX);
    char *json = wf_config_json(&config);
    assert(json);
    free(json);
    return 0;
}
