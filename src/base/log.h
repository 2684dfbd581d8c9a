/* SPDX-License-Identifier: Apache-2.0
 *
 * One line a message on stderr: time, level, module, sentence.  Programs log; the library never
 * does (its level is WF_LOG_OFF until a program sets it).
 */
#ifndef WF_BASE_LOG_H
#define WF_BASE_LOG_H

enum wf_log_level { WF_LOG_OFF = 0, WF_LOG_ERROR, WF_LOG_WARN, WF_LOG_INFO, WF_LOG_DEBUG };

void wf_log_level_set(enum wf_log_level level);
enum wf_log_level wf_log_level_get(void);

/* "error", "warn", "info", "debug", "off" → level; -1 for anything else. */
int wf_log_level_parse(const char *name);

void wf_log(enum wf_log_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define wf_error(module, ...) wf_log(WF_LOG_ERROR, module, __VA_ARGS__)
#define wf_warn(module, ...) wf_log(WF_LOG_WARN, module, __VA_ARGS__)
#define wf_info(module, ...) wf_log(WF_LOG_INFO, module, __VA_ARGS__)
#define wf_debug(module, ...) wf_log(WF_LOG_DEBUG, module, __VA_ARGS__)

#endif
