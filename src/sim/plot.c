/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/plot.h"

#include <math.h>
#include <stdbool.h>

#define WIDTH 860
#define HEIGHT 500
#define LEFT 70
#define RIGHT 690 /* the legend is beyond */
#define TOP 46
#define BOTTOM 440
#define TICKS_MAX 12

/* Told apart by those who do not see all colours (M. Okabe, K. Ito, 2008), then some. */
static const char *const colours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9",
                                      "#8c6d31", "#7f7f7f", "#6a51a3", "#b8b800", "#17becf"};

struct frame {
    double x_least, x_most, y_most;
    bool logarithmic;
};

static double x_of(const struct frame *frame, double x)
{
    double part = 0.5;
    if (frame->logarithmic)
        part = log(x / frame->x_least) / log(frame->x_most / frame->x_least);
    else if (frame->x_most > frame->x_least)
        part = (x - frame->x_least) / (frame->x_most - frame->x_least);
    return LEFT + 12 + part * (RIGHT - LEFT - 24);
}

static double y_of(const struct frame *frame, double y)
{
    return BOTTOM - y / frame->y_most * (BOTTOM - TOP);
}

/* 1, 2 or 5 times a power of ten: about `count` steps in `span`. */
static double step_of(double span, int count)
{
    double raw = span / count, power = pow(10, floor(log10(raw)));
    double lead = raw / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

static struct frame frame_of(const struct wf_sim_plot *plot)
{
    struct frame frame = {.x_least = INFINITY};
    for (size_t i = 0; i < plot->count; i++) {
        for (size_t k = 0; k < plot->lines[i].count; k++) {
            const struct wf_sim_plot_point *point = &plot->lines[i].points[k];
            frame.x_least = fmin(frame.x_least, point->x);
            frame.x_most = fmax(frame.x_most, point->x);
            frame.y_most = fmax(frame.y_most, point->y);
        }
    }
    frame.logarithmic = frame.x_most >= 5 * frame.x_least;
    double step = step_of(frame.y_most > 0 ? frame.y_most : 0.01, 6);
    frame.y_most = step * ceil(fmax(frame.y_most, 0.01) / step);
    return frame;
}

static void text(FILE *to, double x, double y, const char *anchor, const char *words)
{
    fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (; *words; words++)
        if (*words == '<' || *words == '&')
            fprintf(to, *words == '<' ? "&lt;" : "&amp;");
        else
            fputc(*words, to);
    fputs("</text>\n", to);
}

static void x_tick(const struct frame *frame, FILE *to, double x)
{
    char label[32];
    snprintf(label, sizeof label, x >= 10000 ? "%.0fk" : "%.0f", x >= 10000 ? x / 1000 : x);
    fprintf(to, "<path class=\"grid\" d=\"M%.1f %d V%d\"/>\n", x_of(frame, x), TOP, BOTTOM);
    text(to, x_of(frame, x), BOTTOM + 18, "middle", label);
}

static void axes_write(const struct wf_sim_plot *plot, const struct frame *frame, FILE *to)
{
    double step = step_of(frame->y_most, 6);
    for (int i = 0; i * step <= frame->y_most * 1.0001 && i < TICKS_MAX; i++) {
        char label[32];
        snprintf(label, sizeof label, step < 0.01 ? "%.1f %%" : "%.0f %%", 100 * i * step);
        fprintf(to, "<path class=\"grid\" d=\"M%d %.1f H%d\"/>\n", LEFT, y_of(frame, i * step),
                RIGHT);
        text(to, LEFT - 8, y_of(frame, i * step) + 4, "end", label);
    }
    if (frame->logarithmic) {
        static const double leads[] = {1, 2, 3, 5};
        for (int power = 0; power < 12; power++)
            for (int i = 0; i < 4; i++) {
                double x = leads[i] * pow(10, power);
                if (x >= frame->x_least * 0.999 && x <= frame->x_most * 1.001)
                    x_tick(frame, to, x);
            }
    } else if (frame->x_most > frame->x_least) {
        double across = step_of(frame->x_most - frame->x_least, 5);
        double first = across * ceil(frame->x_least / across);
        for (int i = 0; first + i * across <= frame->x_most && i < TICKS_MAX; i++)
            x_tick(frame, to, first + i * across);
    } else {
        x_tick(frame, to, frame->x_least);
    }
    fprintf(to, "<path class=\"axis\" d=\"M%d %d V%d H%d\"/>\n", LEFT, TOP, BOTTOM, RIGHT);
    text(to, (LEFT + RIGHT) / 2.0, BOTTOM + 42, "middle", plot->x_label);
    fprintf(to, "<g transform=\"rotate(-90 20 %d)\">", (TOP + BOTTOM) / 2);
    text(to, 20, (TOP + BOTTOM) / 2.0, "middle", plot->y_label);
    fputs("</g>\n", to);
}

static void stroke(const struct wf_sim_plot_line *line, size_t number, FILE *to)
{
    static const char *const dashes[] = {"", "7 3", "2 3"};
    size_t colour_count = sizeof colours / sizeof *colours;
    const char *colour = line->kind == WF_SIM_PLOT_BOUND    ? "#000000"
                         : line->kind == WF_SIM_PLOT_STRONG ? "#d7191c"
                                                            : colours[number % colour_count];
    const char *dash = line->kind == WF_SIM_PLOT_BOUND    ? "6 4"
                       : line->kind == WF_SIM_PLOT_STRONG ? ""
                                                          : dashes[number / colour_count % 3];
    fprintf(to, " fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" stroke-dasharray=\"%s\"/>\n",
            colour, line->kind == WF_SIM_PLOT_STRONG ? "3.2" : "1.8", *dash ? dash : "none");
}

/* Which of the lines that have the very same points is drawn for all of them: one that stands out,
 * or the first. */
static size_t drawn_for(const struct wf_sim_plot *plot, size_t number)
{
    const struct wf_sim_plot_line *line = &plot->lines[number];
    size_t best = number;
    for (size_t i = plot->count; i-- > 0;) {
        const struct wf_sim_plot_line *other = &plot->lines[i];
        bool same = other->count == line->count;
        for (size_t k = 0; same && k < line->count; k++)
            same = other->points[k].x == line->points[k].x &&
                   other->points[k].y == line->points[k].y;
        if (same && (other->kind > plot->lines[best].kind ||
                     (other->kind == plot->lines[best].kind && i < best)))
            best = i;
    }
    return best;
}

/* The height of a line at its end: the legend goes by it, from above. */
static double height_of(const struct wf_sim_plot_line *line)
{
    return line->count ? line->points[line->count - 1].y : 0;
}

static void line_write(const struct wf_sim_plot *plot, const struct frame *frame, size_t number,
                       FILE *to)
{
    const struct wf_sim_plot_line *line = &plot->lines[number];
    size_t drawn = drawn_for(plot, number);
    if (drawn == number) {
        fputs("<path d=\"", to);
        for (size_t k = 0; k < line->count; k++)
            fprintf(to, "%s%.1f %.1f ", k ? "L" : "M", x_of(frame, line->points[k].x),
                    y_of(frame, line->points[k].y));
        if (line->count == 1)
            fputs("h0.1", to);
        fputs("\" stroke-linecap=\"round\" stroke-linejoin=\"round\"", to);
        stroke(line, number, to);
    }
    int above = 0;
    for (size_t i = 0; i < plot->count; i++)
        above += height_of(&plot->lines[i]) > height_of(line) ||
                 (height_of(&plot->lines[i]) == height_of(line) && i < number);
    int y = TOP + 14 + 22 * above;
    fprintf(to, "<path d=\"M%d %d h30\"", RIGHT + 18, y - 4);
    stroke(&plot->lines[drawn], drawn, to);
    text(to, RIGHT + 56, y, "start", line->name);
}

void wf_sim_plot_write(const struct wf_sim_plot *plot, FILE *to)
{
    struct frame frame = frame_of(plot);
    fprintf(to,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222222\">\n"
            "<style>.grid{stroke:#e2e2e2;fill:none}.axis{stroke:#222222;fill:none}</style>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT);
    fputs("<g font-size=\"15\">", to);
    text(to, LEFT, TOP - 20, "start", plot->title);
    fputs("</g>\n", to);
    axes_write(plot, &frame, to);
    for (size_t i = 0; i < plot->count; i++)
        line_write(plot, &frame, i, to);
    fputs("</svg>\n", to);
}
