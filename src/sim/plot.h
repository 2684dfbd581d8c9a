/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines in a picture: SVG 1.1 that needs nothing else to be shown.
 */
#ifndef WF_SIM_PLOT_H
#define WF_SIM_PLOT_H

#include <stddef.h>
#include <stdio.h>

struct wf_sim_plot_point {
    double x, y;
};

struct wf_sim_plot_line {
    const char *name;
    const struct wf_sim_plot_point *points; /* in the order of x, which is above 0 */
    size_t count;
    enum { WF_SIM_PLOT_PLAIN, WF_SIM_PLOT_STRONG, WF_SIM_PLOT_BOUND } kind;
};

struct wf_sim_plot {
    const char *title, *x_label, *y_label; /* the y axis is in per cent of 1, from 0 */
    const struct wf_sim_plot_line *lines;
    size_t count;
};

/* Of lines that are the same everywhere one is drawn, and all their names are beside it.
 * The x axis is logarithmic when its ends are a factor of 5 apart.  Errors are left to ferror(). */
void wf_sim_plot_write(const struct wf_sim_plot *plot, FILE *to);

#endif
