/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks for other nodes.
 *
 * A block that is asked for is held by the host until its bytes have been sent, from where they
 * lie.  Sums are taken at that moment, part by part: what was damaged in memory before is the
 * scrubber's to find, what is damaged behind is the other side's, by these sums.
 *
 * What is not in memory may be below.  The host reads it then, into memory of its own, while this
 * thread goes on; what it has no room for yet waits in line.  So that the tier is never what the
 * other side waits for in vain, whoever was not answered within READ_LATE times fetch_ms is told
 * that it cannot be given now.  The read goes on, as devices have no way back, and its memory is
 * the host's again when it ends.
 *
 * What lies there encoded is read and sent as it lies, to who takes that (codec/frame_cut.h); the
 * sums are of these bytes then.
 *
 * Who takes it encoded has it so, if there is memory for the frame (coder.h).  Without, it goes as
 * it is, unless frames are on their way on the same link: behind these it would wait anyway, and
 * waits for the memory of one.  No link has more than half of it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define READ_LATE 3u /* of PATIENCE_BELOW in fetch.c, so that the answer is there in time */
#define LOOK_NS 20000000u

struct wf_serve {
    struct wf_sending out; /* first */
    struct wf_serve *next; /* of free ones, or of those that wait: for the host, for memory */
    struct wf_fabric *fabric;
    struct wf_link *link; /* that asked; NULL: it is gone, or was answered */
    uint32_t number;      /* of the node */
    struct wf_fabric_get get;
    uint64_t since_ns;
    uint8_t worse; /* of copies that are here and not good enough, the best; 0: there is none */
    enum { NOTHING, HELD, LENT, READ } state; /* what there is of the block */
    struct wf_fabric_held held;
    uint32_t lent; /* what is held of what is lent; WF_LENT_NONE */
    struct wf_fabric_read read;
    struct wf_coder_job job; /* its frame */
    struct iovec piece;      /* what is asked for, */
    struct iovec frame;      /* or the same, encoded, or as it lies below */
    union {
        struct wf_fabric_data data;
        uint64_t words[sizeof(struct wf_fabric_data) / 8 + WF_FABRIC_PARTS_MAX];
    } header;
};

enum weft_status wf_serves_create(struct wf_fabric *f)
{
    f->serves = wf_calloc(WF_SERVES_MAX, sizeof *f->serves, "blocks for other nodes");
    if (!f->serves)
        return WEFT_E_NO_MEMORY;
    return WEFT_OK;
}

/* One that was not used yet costs no memory, so those that were go first. */
static struct wf_serve *serve_take(struct wf_link *link, const struct wf_fabric_get *get)
{
    struct wf_fabric *f = link->fabric;
    struct wf_serve *serve = f->serves_free;
    if (link->serving >= WF_SERVES_MAX - f->serving) /* as many are left for others */
        return NULL;
    if (serve)
        f->serves_free = serve->next;
    else if (f->serves_used < WF_SERVES_MAX)
        serve = &f->serves[f->serves_used++];
    if (!serve)
        return NULL;
    serve->fabric = f;
    serve->link = link;
    link->serving++;
    f->serving++;
    serve->number = link->peer->number;
    serve->get = *get;
    serve->since_ns = wf_fabric_now(f);
    serve->state = NOTHING;
    serve->worse = 0;
    return serve;
}

static void frame_give(struct wf_serve *serve)
{
    if (!serve->job.frame)
        return;
    if (serve->link)
        serve->link->frames_memory -= serve->job.frame_memory;
    wf_coder_memory_give(serve->fabric->coder, &serve->job);
}

/* It is for nobody any more. */
static void serve_unlink(struct wf_serve *serve)
{
    if (serve->link)
        serve->link->serving--;
    serve->link = NULL;
}

/* What it has of the block is the host's again. */
static void serve_give(struct wf_serve *serve)
{
    struct wf_fabric *f = serve->fabric;
    frame_give(serve);
    const struct wf_fabric_host *host = &f->options.host;
    switch (serve->state) {
    case HELD: host->let_go(host->context, &serve->held); break;
    case LENT: wf_lent_let_go(f->lent, serve->lent); break;
    case READ: host->read_free(host->context, &serve->read); break;
    case NOTHING: break;
    }
    serve_unlink(serve);
    f->serving--;
    serve->state = NOTHING;
    serve->next = f->serves_free;
    f->serves_free = serve;
}

void wf_serves_destroy(struct wf_fabric *f)
{
    free(f->serves);
    f->serves = f->serves_free = NULL;
}

static void count_frame(struct wf_fabric *f, const struct wf_serve *serve)
{
    struct wf_peer_node *peer = &f->peers[serve->number];
    f->figures.frames_out++;
    f->figures.frames_out_plain += serve->piece.iov_len;
    f->figures.frames_out_bytes += serve->frame.iov_len;
    peer->served_frames++;
    peer->served_plain += serve->piece.iov_len;
    peer->served_encoded += serve->frame.iov_len;
}

static void count_cut(struct wf_fabric *f, const struct wf_serve *serve)
{
    f->figures.cuts_out++;
    f->figures.cuts_out_plain += serve->piece.iov_len;
    f->figures.cuts_out_bytes += serve->frame.iov_len;
}

/* `worse`: what is here instead, as exact as that; 0: nothing. */
static bool refuse(struct wf_link *link, const struct wf_fabric_get *get, enum weft_status status,
                   uint8_t worse)
{
    struct wf_fabric_data data = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_DATA},
                                  .request = get->request,
                                  .status = status,
                                  .quality = status == WEFT_MISS ? worse : 0};
    link->fabric->figures.serve_misses += status == WEFT_MISS;
    link->fabric->figures.serves_busy += status == WEFT_E_BUSY;
    (void)wf_link_say(link, &data, sizeof data); /* who hears nothing asks elsewhere */
    return true;
}

static enum wf_send_class class_of(const struct wf_fabric_get *get)
{
    return get->flags & WF_FABRIC_BACKGROUND ? WF_SEND_BACKGROUND : WF_SEND_DEMAND;
}

static struct wf_send_due due_of(struct wf_link *link, const struct wf_fabric_get *get)
{
    return wf_link_due(link, link->ours_of[get->domain], class_of(get));
}

/* Somebody who has it, too, may be asked meanwhile; or it is not worth to wait. */
static bool refuse_limited(struct wf_link *link, const struct wf_fabric_get *get,
                           const struct wf_send_due *due)
{
    struct wf_fabric_data data = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_DATA},
                                  .request = get->request,
                                  .status = WEFT_E_LIMIT,
                                  .form = due->by,
                                  .profile = due->bytes_s};
    link->fabric->figures.serves_limited++;
    (void)wf_link_say(link, &data, sizeof data);
    return true;
}

/* Without a bound, how long a message waits for its turn: who asked asks elsewhere before fetch_ms
 * is over. */
static uint64_t patience_ns(const struct wf_fabric *f)
{
    return f->options.fetch_ms * 750000ull;
}

static void sent(struct wf_net_message *message, enum weft_status status)
{
    struct wf_serve *serve = (struct wf_serve *)message;
    struct wf_fabric *f = serve->fabric;
    if (status == WEFT_OK) {
        f->figures.serves++;
        f->figures.served_bytes += serve->piece.iov_len;
        f->figures.serves_below += serve->state == READ;
        f->figures.serves_lossy += serve->header.data.quality > 0;
        f->figures.served_below_bytes += serve->state == READ ? serve->piece.iov_len : 0;
        f->peers[serve->number].serves++;
        f->peers[serve->number].served_bytes += serve->piece.iov_len;
        if (serve->header.data.form == WF_FABRIC_FRAME)
            count_frame(f, serve);
        if (serve->header.data.form == WF_FABRIC_CUT)
            count_cut(f, serve);
    }
    if (status == WEFT_E_BUSY && serve->link) { /* it waited too long for its turn */
        struct wf_send_due due = due_of(serve->link, &serve->get);
        (void)(due.by ? refuse_limited(serve->link, &serve->get, &due)
                      : refuse(serve->link, &serve->get, WEFT_E_BUSY, 0));
    }
    serve_give(serve);
}

/* Is the range one of a block of so many bytes? */
static bool range_right(const struct wf_fabric_get *get)
{
    if (get->part_bytes == 0 || get->bytes == 0 || get->bytes > WF_NET_PAYLOAD_MAX)
        return false;
    uint64_t parts = (get->bytes + get->part_bytes - 1) / get->part_bytes;
    return parts <= WF_FABRIC_PARTS_MAX && get->part_count >= 1 && get->first_part < parts &&
           get->part_count <= parts - get->first_part;
}

/* Unless somebody had them. */
static void sums_take(struct wf_serve *serve)
{
    const uint8_t *data = serve->piece.iov_base;
    uint64_t left = serve->piece.iov_len;
    for (uint32_t i = 0; serve->job.sums && i < serve->get.part_count; i++) {
        uint64_t now = left < serve->get.part_bytes ? left : serve->get.part_bytes;
        serve->header.data.sums[i] = wf_sum64(data, now);
        data += now;
        left -= now;
    }
}

/* ---------------------------------------------------------------------------------- on its way */

static void message_send(struct wf_serve *serve)
{
    struct wf_link *link = serve->link;
    struct wf_fabric_data *data = &serve->header.data;
    serve->out.message = (struct wf_net_message){
        .header = &serve->header,
        .header_bytes = (uint32_t)(sizeof *data + data->part_count * sizeof data->sums[0]),
        .pieces = data->form == WF_FABRIC_FRAME || data->form == WF_FABRIC_CUT ? &serve->frame
                                                                               : &serve->piece,
        .piece_count = 1};
    serve->out.done = sent;
    const struct wf_fabric_get *get = &serve->get;
    struct wf_send_due due = due_of(link, get);
    uint64_t from_ns = serve->since_ns;
    if (due.by && get->flags & WF_FABRIC_PATIENT)
        from_ns = wf_fabric_now(serve->fabric);
    else
        due.ns = 0;
    wf_link_send(link, &serve->out, link->ours_of[get->domain], class_of(get),
                 wf_send_until(&due, from_ns, patience_ns(serve->fabric)));
}

static void send_plain(struct wf_serve *serve)
{
    sums_take(serve);
    message_send(serve);
}

static void encoded(struct wf_coder_job *job)
{
    struct wf_serve *serve = job->done_for;
    if (!serve->link) {
        serve_give(serve);
        return;
    }
    serve->header.data.form = job->result == WEFT_OK ? WF_FABRIC_FRAME : WF_FABRIC_TRIED;
    serve->frame = (struct iovec){.iov_base = job->frame, .iov_len = job->frame_bytes};
    if (job->result != WEFT_OK)
        frame_give(serve);
    message_send(serve);
}

/* False: there is no memory for it now. */
static bool encode(struct wf_serve *serve)
{
    struct wf_coder *coder = serve->fabric->coder;
    struct wf_link *link = serve->link;
    uint64_t most = wf_coder_memory(coder) / 2;
    if ((link->frames_memory > 0 && link->frames_memory + serve->job.plain_bytes > most) ||
        !wf_coder_memory_take(coder, &serve->job))
        return false;
    link->frames_memory += serve->job.frame_memory;
    wf_coder_submit(coder, &serve->job);
    return true;
}

/* Behind the frames of its link, if it has any on their way; else, false, it is to go as it is. */
static bool frame_wait(struct wf_serve *serve)
{
    struct wf_fabric *f = serve->fabric;
    if (!serve->link->frames_memory) {
        f->figures.frames_busy++;
        return false;
    }
    serve->link->frameless++;
    serve->next = NULL;
    *f->frameless_end = serve;
    f->frameless_end = &serve->next;
    return true;
}

static bool is_for_frame(struct wf_serve *serve)
{
    const struct wf_fabric_get *get = &serve->get;
    return get->codecs & WF_FABRIC_FRAMES &&
           wf_frames_layout(serve->fabric, serve->link->ours_of[get->domain], get->bytes,
                            (uint64_t)get->first_part * get->part_bytes, serve->piece.iov_len,
                            &serve->job.layout);
}

/* What there is, and how exact that is. */
struct copy {
    const void *data;     /* the first of the parts that were asked for */
    const uint64_t *sums; /* theirs; NULL: nobody has them yet */
    uint8_t quality;
    uint64_t profile;
};

/* Is it as exact as was asked for?  What is not may be what somebody else takes. */
static bool good_enough(struct wf_serve *serve, uint8_t quality)
{
    uint8_t class = wf_quality_class(quality);
    if (class <= wf_quality_class(serve->get.quality))
        return true;
    serve->worse = !serve->worse || class < serve->worse ? class : serve->worse;
    return false;
}

static uint64_t range_bytes(const struct wf_fabric_get *get)
{
    uint64_t from = (uint64_t)get->first_part * get->part_bytes;
    uint64_t to = from + (uint64_t)get->part_count * get->part_bytes;
    return (to < get->bytes ? to : get->bytes) - from;
}

/* Send what it has, to the link that it has still. */
static void serve_send(struct wf_serve *serve, const struct copy *copy)
{
    const uint64_t *sums = copy->sums;
    const struct wf_fabric_get *get = &serve->get;
    serve->piece = (struct iovec){.iov_base = (void *)(uintptr_t)copy->data,
                                  .iov_len = range_bytes(get)};
    serve->header.data = (struct wf_fabric_data){.head = {.magic = WF_FABRIC_MAGIC,
                                                          .kind = WF_FABRIC_DATA},
                                                 .request = get->request,
                                                 .status = WEFT_OK,
                                                 .quality = wf_quality_class(copy->quality),
                                                 .profile = copy->profile,
                                                 .part_count = get->part_count};
    if (sums)
        memcpy(serve->header.data.sums, sums, get->part_count * 8ull);
    serve->job = (struct wf_coder_job){.encode = true,
                                       .plain = serve->piece.iov_base,
                                       .plain_bytes = serve->piece.iov_len,
                                       .part_bytes = get->part_bytes,
                                       .part_count = get->part_count,
                                       .sums = sums ? NULL : serve->header.data.sums,
                                       .done = encoded,
                                       .done_for = serve};
    serve->link->peer->serves_framed = (get->codecs & WF_FABRIC_FRAMES) != 0;
    bool framed = is_for_frame(serve) &&
                  ((!serve->link->frameless && encode(serve)) || frame_wait(serve));
    if (!framed)
        send_plain(serve);
}

/* The same, of what was read as it lies below. */
static void serve_send_cut(struct wf_serve *serve)
{
    const struct wf_fabric_get *get = &serve->get;
    const struct wf_fabric_read *read = &serve->read;
    uint32_t parts = (uint32_t)((read->cut_bytes + get->part_bytes - 1) / get->part_bytes);
    serve->piece = (struct iovec){.iov_len = range_bytes(get)};
    serve->frame = (struct iovec){.iov_base = (void *)(uintptr_t)read->data,
                                  .iov_len = read->cut_bytes};
    serve->job = (struct wf_coder_job){.frame = NULL};
    serve->header.data = (struct wf_fabric_data){.head = {.magic = WF_FABRIC_MAGIC,
                                                          .kind = WF_FABRIC_DATA},
                                                 .request = get->request,
                                                 .status = WEFT_OK,
                                                 .quality = wf_quality_class(read->quality),
                                                 .profile = read->profile,
                                                 .form = WF_FABRIC_CUT,
                                                 .part_count = parts};
    for (uint32_t i = 0; i < parts; i++) {
        uint64_t from = (uint64_t)i * get->part_bytes, left = read->cut_bytes - from;
        serve->header.data.sums[i] = wf_sum64((const uint8_t *)read->data + from,
                                              left < get->part_bytes ? left : get->part_bytes);
    }
    message_send(serve);
}

/* In their order, but for those whose link has its half. */
static void frameless_go_on(struct wf_fabric *f)
{
    struct wf_serve *serve = f->frameless;
    f->frameless = NULL;
    f->frameless_end = &f->frameless;
    while (serve) {
        struct wf_serve *next = serve->next;
        if (serve->link)
            serve->link->frameless--;
        if (!serve->link)
            serve_give(serve);
        else if (!encode(serve) && !frame_wait(serve))
            send_plain(serve);
        serve = next;
    }
}

/* ---------------------------------------------------------------------------------- from memory */

static enum weft_status serve_from_host(struct wf_serve *serve, uint32_t domain)
{
    const struct wf_fabric_host *host = &serve->fabric->options.host;
    const struct wf_fabric_get *get = &serve->get;
    struct wf_fabric_held *held = &serve->held;
    enum weft_status status = host->hold(host->context, domain, get->key, get->bytes, held);
    if (status != WEFT_OK)
        return status;
    if (!good_enough(serve, held->quality)) {
        host->let_go(host->context, held);
        return WEFT_MISS; /* or what is below is better */
    }
    serve->state = HELD;
    const uint8_t *data = held->data;
    serve_send(serve, &(struct copy){.data = data + (uint64_t)get->first_part * get->part_bytes,
                                     .quality = held->quality,
                                     .profile = held->profile});
    return WEFT_OK;
}

/* WEFT_OK: it is on its way.  In memory that is lent it has its sums already, if its parts are
 * those that are asked for. */
static enum weft_status serve_from_memory(struct wf_serve *serve)
{
    struct wf_fabric *f = serve->fabric;
    const struct wf_fabric_get *get = &serve->get;
    uint32_t domain = serve->link->ours_of[get->domain];
    struct wf_lent_block lent;
    serve->lent = f->lent ? wf_lent_hold(f->lent, domain, get->key, &lent) : WF_LENT_NONE;
    bool good = serve->lent != WF_LENT_NONE && good_enough(serve, lent.quality);
    if (serve->lent != WF_LENT_NONE && !good)
        wf_lent_let_go(f->lent, serve->lent);
    if (!good)
        return serve_from_host(serve, domain);
    serve->state = LENT;
    if (lent.bytes != get->bytes || lent.part_bytes != get->part_bytes) {
        wf_lent_let_go(f->lent, serve->lent);
        serve->state = NOTHING;
        return WEFT_MISS;
    }
    serve_send(serve,
               &(struct copy){.data = lent.data + (uint64_t)get->first_part * get->part_bytes,
                              .sums = lent.sums + get->first_part,
                              .quality = lent.quality,
                              .profile = lent.profile});
    return WEFT_OK;
}

/* ----------------------------------------------------------------------------------- from below */

void wf_fabric_read_done(struct wf_fabric *f, struct wf_fabric_read *read, enum weft_status status)
{
    read->status = status;
    read->next = NULL;
    pthread_mutex_lock(&f->lock);
    bool first = !f->read;
    *f->read_end = read;
    f->read_end = &read->next;
    pthread_mutex_unlock(&f->lock);
    if (first)
        wf_fabric_wake(f);
}

static bool is_below(const struct wf_serve *serve)
{
    const struct wf_fabric_host *host = &serve->fabric->options.host;
    return host->read && host->below &&
           host->below(host->context, serve->link->ours_of[serve->get.domain], serve->get.key,
                       NULL);
}

/* As host.read(). */
static enum weft_status read_begin(struct wf_serve *serve)
{
    struct wf_fabric *f = serve->fabric;
    const struct wf_fabric_get *get = &serve->get;
    serve->read = (struct wf_fabric_read){.domain = serve->link->ours_of[get->domain],
                                          .bytes = get->bytes,
                                          .part_bytes = get->part_bytes,
                                          .first_part = get->first_part,
                                          .part_count = get->part_count,
                                          .accept = wf_quality_class(get->quality),
                                          .cut = f->coder && get->codecs & WF_FABRIC_CUTS,
                                          .profiles = get->profiles,
                                          .serve = serve};
    memcpy(serve->read.key, get->key, 32);
    enum weft_status status = f->options.host.read(f->options.host.context, &serve->read);
    f->reading += status == WEFT_PENDING;
    return status;
}

static void wait_in_line(struct wf_serve *serve)
{
    serve->next = NULL;
    *serve->fabric->reads_end = serve;
    serve->fabric->reads_end = &serve->next;
}

/* Nothing can be given of it; it has nothing of the block. */
static void serve_end(struct wf_serve *serve, enum weft_status status)
{
    if (serve->link)
        refuse(serve->link, &serve->get, status == WEFT_MISS ? WEFT_MISS : WEFT_E_BUSY,
               serve->worse);
    serve_give(serve);
}

static void read_ended(struct wf_serve *serve, enum weft_status status)
{
    serve->fabric->reading--;
    if (status == WEFT_OK) {
        const struct wf_fabric_read *read = &serve->read;
        serve->state = READ;
        bool good = serve->link && good_enough(serve, read->quality);
        if (good && read->cut_bytes)
            serve_send_cut(serve);
        else if (good)
            serve_send(serve, &(struct copy){.data = read->data,
                                             .quality = read->quality,
                                             .profile = read->profile});
        else
            serve_end(serve, WEFT_MISS);
        return;
    }
    if (status == WEFT_EXISTS && serve->link) {
        status = serve_from_memory(serve);
        if (status == WEFT_OK)
            return;
    }
    if (status == WEFT_MISS)
        (void)good_enough(serve, serve->read.quality);
    serve_end(serve, status == WEFT_E_CORRUPT ? WEFT_MISS : status);
}

/* Those that the host had no room for, in their order. */
static void reads_go_on(struct wf_fabric *f)
{
    while (f->reads) {
        struct wf_serve *serve = f->reads;
        enum weft_status status = serve->link ? read_begin(serve) : WEFT_MISS;
        if (status == WEFT_E_BUSY)
            return;
        f->reads = serve->next;
        if (!f->reads)
            f->reads_end = &f->reads;
        if (status != WEFT_PENDING)
            serve_end(serve, status);
    }
}

/* Whoever waited for too long is told so. */
static void reads_look(struct wf_fabric *f, uint64_t now_ns)
{
    uint64_t late_ns = (uint64_t)READ_LATE * f->options.fetch_ms * 1000000;
    for (uint32_t i = 0; i < f->serves_used; i++) {
        struct wf_serve *serve = &f->serves[i];
        if (!serve->link || serve->state != NOTHING || now_ns - serve->since_ns <= late_ns)
            continue;
        refuse(serve->link, &serve->get, WEFT_E_BUSY, 0);
        serve_unlink(serve);
    }
}

void wf_serves_run(struct wf_fabric *f, uint64_t now_ns)
{
    pthread_mutex_lock(&f->lock);
    struct wf_fabric_read *read = f->read;
    f->read = NULL;
    f->read_end = &f->read;
    pthread_mutex_unlock(&f->lock);
    while (read) {
        struct wf_fabric_read *next = read->next;
        read_ended(read->serve, read->status);
        read = next;
    }
    reads_go_on(f);
    frameless_go_on(f);
    if ((f->reading || f->reads) && now_ns - f->reads_ns >= LOOK_NS) {
        f->reads_ns = now_ns;
        reads_look(f, now_ns);
    }
}

void wf_serves_lost(struct wf_fabric *f, const struct wf_link *link)
{
    for (uint32_t i = 0; i < f->serves_used; i++)
        if (f->serves[i].link == link)
            serve_unlink(&f->serves[i]);
}

void wf_serves_end(struct wf_fabric *f)
{
    for (uint32_t i = 0; i < f->serves_used; i++)
        serve_unlink(&f->serves[i]);
    for (struct wf_fabric_read *read = f->read, *next; read; read = next) {
        next = read->next;
        read_ended(read->serve, read->status);
    }
    f->read = NULL;
    for (uint32_t i = 0; i < f->serves_used; i++) /* a worker had it, or it waited for memory */
        if (f->serves[i].state != NOTHING)
            serve_give(&f->serves[i]);
    f->frameless = NULL;
    f->frameless_end = &f->frameless;
}

/* ------------------------------------------------------------------------------------ asked for */

bool wf_serve_get(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_get *get = header;
    if (bytes != sizeof *get || link->state != WF_LINK_JOINED || !range_right(get) ||
        !wf_quality_sane(get->quality) || get->domain >= WF_FABRIC_DOMAINS_MAX ||
        link->ours_of[get->domain] == WF_DOMAIN_NONE)
        return false;
    struct wf_send_due due = due_of(link, get);
    if (get->flags & WF_FABRIC_PATIENT ? wf_send_hopeless(&due) : due.ns > patience_ns(f))
        return refuse_limited(link, get, &due);
    struct wf_serve *serve = serve_take(link, get);
    if (!serve)
        return refuse(link, get, WEFT_E_BUSY, 0);
    enum weft_status status = serve_from_memory(serve);
    if (status != WEFT_MISS || !is_below(serve)) {
        if (status != WEFT_OK)
            serve_end(serve, status);
        return true;
    }
    status = f->reads ? WEFT_E_BUSY : read_begin(serve);
    if (status == WEFT_E_BUSY)
        wait_in_line(serve);
    else if (status != WEFT_PENDING)
        serve_end(serve, status);
    return true;
}
