/* SPDX-License-Identifier: Apache-2.0
 *
 * The backends under test.  A new one is one more row of `backends`.
 */
#include "net_world.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <unistd.h>

#include "base/vtime.h"
#include "net/sim.h"
#include "net/tcp_inner.h"

static void loopback_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    (void)world, (void)number;
    options->listen = "tcp:127.0.0.1:0";
}

static void forget_engine(struct world *world)
{
    (void)world;
    wf_tcp_engine_forced = NULL;
}

/* Without io_uring the ring's rows would be epoll's once more. */
static void ring_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    static int has = -1;
    wf_tcp_engine_forced = &wf_tcp_ring;
    if (has < 0) {
        struct wf_net *net;
        struct wf_net_options probe = {.events = options->events};
        has = wf_net_tcp.create(&probe, &net) == WEFT_OK;
        if (has)
            wf_net_tcp.destroy(net);
        else
            print_message("# %s\n", wf_last_error());
    }
    if (!has)
        skip();
    loopback_prepare(world, number, options);
}

static void epoll_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    wf_tcp_engine_forced = &wf_tcp_epoll;
    loopback_prepare(world, number, options);
}

static void streams_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    loopback_prepare(world, number, options);
    options->streams = number ? 4 : 16;
}

static void epoll_streams_prepare(struct world *world, uint32_t number,
                                  struct wf_net_options *options)
{
    wf_tcp_engine_forced = &wf_tcp_epoll;
    streams_prepare(world, number, options);
}

static void six_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    static bool has = true;
    struct wf_net *net;
    struct wf_net_options probe = {.listen = "tcp:[::1]:0", .events = options->events};
    (void)world, (void)number;
    if (has && wf_net_tcp.create(&probe, &net) == WEFT_OK) {
        wf_net_tcp.destroy(net);
    } else {
        has = false;
        print_message("# there is no IPv6 here\n");
        skip();
    }
    options->listen = "tcp:[::1]:0";
}

static void unix_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    static char paths[NODES_MAX][64];
    (void)world;
    snprintf(paths[number], sizeof paths[number], "unix:/tmp/weft-net-%d-%u", getpid(), number);
    options->listen = paths[number];
}

static const uint8_t secret[32] = "two nodes that know the same one";

static void secret_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    loopback_prepare(world, number, options);
    options->security.proof = WF_NET_PROOF_SECRET;
    memcpy(options->security.secret, secret, sizeof secret);
}

static void psk_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    loopback_prepare(world, number, options);
    options->security.proof = WF_NET_PROOF_TLS_SECRET;
    memcpy(options->security.secret, secret, sizeof secret);
}

/* ------------------------------------------------------------------------------ certificates */

static struct {
    bool made;
    char place[64], ca[96], stranger[96], keys[NODES_MAX][96], certificates[NODES_MAX][96];
} pki;

static void pki_remove(void)
{
    unlink(pki.ca);
    unlink(pki.stranger);
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        unlink(pki.keys[i]);
        unlink(pki.certificates[i]);
    }
    rmdir(pki.place);
}

static X509 *certificate_make(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *made = X509_new();
    assert_non_null(made);
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), issuer ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(made), -3600);
    X509_gmtime_adj(X509_getm_notAfter(made), 86400);
    X509_set_pubkey(made, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made, X509_get_subject_name(issuer ? issuer : made));
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints,
                                                    issuer ? "CA:FALSE" : "critical,CA:TRUE");
    assert_non_null(extension);
    X509_add_ext(made, extension, -1);
    X509_EXTENSION_free(extension);
    assert_true(X509_sign(made, issuer_key ? issuer_key : key, EVP_sha256()) > 0);
    return made;
}

static void pem_write(const char *path, X509 *certificate, EVP_PKEY *key)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    if (certificate)
        assert_int_equal(PEM_write_X509(file, certificate), 1);
    if (key)
        assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
}

/* A CA, a certificate that it signed for each node, and a CA that signed none of them. */
static void pki_make(void)
{
    if (pki.made)
        return;
    pki.made = true;
    snprintf(pki.place, sizeof pki.place, "/tmp/weft-net-pki-XXXXXX");
    assert_non_null(mkdtemp(pki.place));
    atexit(pki_remove);
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *other_key = EVP_EC_gen("P-256");
    X509 *ca = certificate_make(ca_key, "weft test CA", NULL, NULL);
    X509 *other = certificate_make(other_key, "another CA", NULL, NULL);
    snprintf(pki.ca, sizeof pki.ca, "%s/ca.pem", pki.place);
    snprintf(pki.stranger, sizeof pki.stranger, "%s/stranger.pem", pki.place);
    pem_write(pki.ca, ca, NULL);
    pem_write(pki.stranger, other, NULL);
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        char name[32];
        EVP_PKEY *key = EVP_EC_gen("P-256");
        snprintf(name, sizeof name, "node-%u.test", i);
        X509 *certificate = certificate_make(key, name, ca, ca_key);
        snprintf(pki.keys[i], sizeof pki.keys[i], "%s/key-%u.pem", pki.place, i);
        snprintf(pki.certificates[i], sizeof pki.certificates[i], "%s/node-%u.pem", pki.place, i);
        pem_write(pki.keys[i], NULL, key);
        pem_write(pki.certificates[i], certificate, NULL);
        X509_free(certificate);
        EVP_PKEY_free(key);
    }
    X509_free(ca);
    X509_free(other);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(other_key);
}

const char *pki_stranger(void)
{
    return pki.stranger;
}

static void tls_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    pki_make();
    loopback_prepare(world, number, options);
    options->security = (struct wf_net_security){.proof = WF_NET_PROOF_TLS,
                                                 .certificate = pki.certificates[number],
                                                 .key = pki.keys[number],
                                                 .ca = pki.ca};
}

static void tls_streams_prepare(struct world *world, uint32_t number,
                                struct wf_net_options *options)
{
    tls_prepare(world, number, options);
    options->streams = 3;
}

static void tls_epoll_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    wf_tcp_engine_forced = &wf_tcp_epoll;
    tls_prepare(world, number, options);
}

/* --------------------------------------------------------------------------------- simulated */

#if WF_NET_HAS_SIM
struct sim_state {
    struct wf_vtime *time;
    struct wf_net_sim_world *net;
};

static void sim_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    static char names[NODES_MAX][16];
    struct sim_state *sim = world->state;
    if (!sim) {
        world->state = sim = calloc(1, sizeof *sim);
        assert_non_null(sim);
        assert_int_equal(wf_vtime_create(&sim->time), WEFT_OK);
        struct wf_net_sim_options made = {.time = sim->time, .seed = random_next(&world->random)};
        assert_int_equal(wf_net_sim_world_create(&made, &sim->net), WEFT_OK);
    }
    snprintf(names[number], sizeof names[number], "sim:n%u", number);
    options->listen = names[number];
    options->world = sim->net;
}

static void sim_dispose(struct world *world)
{
    struct sim_state *sim = world->state;
    if (!sim)
        return;
    wf_net_sim_world_destroy(sim->net);
    wf_vtime_destroy(sim->time);
    free(sim);
}
#endif

/* --------------------------------------------------------------------------------------- UCX */

#if WF_NET_HAS_UCX
/* A net takes UCX's settings from the environment when it is made. */
static void ucx_prepare(const char *transports, const char *devices, struct wf_net_options *options)
{
    static int has = -1;
    setenv("UCX_TLS", transports, 1);
    setenv("UCX_NET_DEVICES", devices, 1);
    if (has < 0) {
        struct wf_net *net;
        struct wf_net_options probe = {.events = options->events};
        has = wf_net_ucx.create(&probe, &net) == WEFT_OK;
        if (has)
            wf_net_ucx.destroy(net);
        else
            print_message("# %s\n", wf_last_error());
    }
    if (!has)
        skip();
    options->listen = "ucx:127.0.0.1:0";
}

static void ucx_tcp_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    (void)world, (void)number;
    ucx_prepare("tcp,self", "lo", options);
}

static void ucx_shm_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    (void)world, (void)number;
    ucx_prepare("posix,sysv,cma,self", "lo", options);
}

static void ucx_secret_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    ucx_shm_prepare(world, number, options);
    options->security.proof = WF_NET_PROOF_SECRET;
    memcpy(options->security.secret, secret, sizeof secret);
}

/* Devices that somebody names: test/rdma/run.sh. */
static void ucx_named_prepare(struct world *world, uint32_t number, struct wf_net_options *options)
{
    const char *transports = getenv("WEFT_TEST_UCX_TLS"),
               *devices = getenv("WEFT_TEST_UCX_DEVICES");
    (void)world, (void)number;
    if (!transports || !devices)
        skip();
    ucx_prepare(transports, devices, options);
    options->connect_ms = 60000;
    options->dead_ms = 20000;
}

static void ucx_dispose(struct world *world)
{
    (void)world;
}
#endif

/* -------------------------------------------------------------------------------------- table */

const struct backend backends[] = {
    {"tcp", &wf_net_tcp, ring_prepare, forget_engine, .wire = true, .clear = true},
    {"tcp epoll", &wf_net_tcp, epoll_prepare, forget_engine, .wire = true, .clear = true},
    {"tcp streams", &wf_net_tcp, streams_prepare, forget_engine, .wire = true, .clear = true},
    {"tcp epoll streams", &wf_net_tcp, epoll_streams_prepare, forget_engine, .wire = true,
     .clear = true},
    {"tcp six", &wf_net_tcp, six_prepare, forget_engine, .wire = true, .clear = true},
    {"unix", &wf_net_tcp, unix_prepare, forget_engine, .wire = true, .clear = true},
    {"tcp secret", &wf_net_tcp, secret_prepare, forget_engine, .wire = true, .clear = true,
     .proves = true},
    {"tls", &wf_net_tcp, tls_prepare, forget_engine, .wire = true, .proves = true},
    {"tls streams", &wf_net_tcp, tls_streams_prepare, forget_engine, .wire = true, .proves = true},
    {"tls epoll", &wf_net_tcp, tls_epoll_prepare, forget_engine, .wire = true, .proves = true},
    {"tls secret", &wf_net_tcp, psk_prepare, forget_engine, .wire = true, .proves = true},
#if WF_NET_HAS_SIM
    {"sim", &wf_net_sim, sim_prepare, sim_dispose, .simulated = true},
#endif
#if WF_NET_HAS_UCX
    {"ucx", &wf_net_ucx, ucx_tcp_prepare, ucx_dispose},
    {"ucx-shm", &wf_net_ucx, ucx_shm_prepare, ucx_dispose},
    {"ucx-shm secret", &wf_net_ucx, ucx_secret_prepare, ucx_dispose, .proves = true},
    {"rdma", &wf_net_ucx, ucx_named_prepare, ucx_dispose, .slow = true},
#endif
};
const uint32_t backend_count = sizeof backends / sizeof backends[0];
