/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS 1.3 between two buffers of fixed size: what came from the wire and what is to go there.
 *
 * OpenSSL reads and writes them through a BIO of ours, so nothing grows and what is in flight stays
 * where it is.  Both sides prove themselves or there is no connection: each with a certificate that
 * `ca` signed, or both with the secret as an external pre-shared key (RFC 8446, 4.2.11), for which
 * no certificate stands in.  Nothing older than TLS 1.3, no renegotiation, no tickets.
 *
 * Certificates are renewed while a node runs: before each connection it is looked whether one of
 * the three files is another now, and then all are read again.  What cannot be used (a certificate
 * whose key has not been written yet) leaves what there was, until a file changes again.
 * Connections that there are go on as they were proved.
 */
#include "net/tcp_inner.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "sys/memory.h"

#define PSK_NAME "weft-net"
#define RECORD_BYTES 16384u
#define RECORD_MORE 512u /* what a record and its neighbours take beyond their content */

#define FILES 3 /* certificate, key, CA */

/* Which of the files it was, when it was read or could not be used. */
struct stamp {
    struct timespec changed;
    ino_t inode;
    off_t bytes;
};

struct tcp_tls_context {
    SSL_CTX *context;
    BIO_METHOD *method;
    enum wf_net_proof proof;
    uint8_t secret[32];
    char *files[FILES];         /* TLS with certificates */
    char name[WF_NET_NAME_MAX]; /* that this side's has to say; empty: any */
    struct stamp stamps[FILES];
};

struct tcp_tls {
    SSL *ssl;
    struct tcp_tls_context *context;
    uint32_t in_at, in_end, out_at, out_end;
    uint8_t in[TCP_CIPHER_IN];
    uint8_t out[TCP_CIPHER_OUT];
};

static enum weft_status tls_fail(enum weft_status status, const char *what)
{
    char words[160] = "no reason is given";
    unsigned long error = ERR_get_error();
    if (error)
        snprintf(words, sizeof words, "%s",
                 ERR_reason_error_string(error) ? ERR_reason_error_string(error) : "?");
    ERR_clear_error();
    return wf_fail(status, "%s: %s", what, words);
}

/* --------------------------------------------------------------------------------------- BIO */

static int bio_read(BIO *bio, char *to, int most)
{
    struct tcp_tls *tls = BIO_get_data(bio);
    uint32_t bytes = tls->in_end - tls->in_at;
    BIO_clear_retry_flags(bio);
    if (!bytes) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (bytes > (uint32_t)most)
        bytes = (uint32_t)most;
    memcpy(to, tls->in + tls->in_at, bytes);
    tls->in_at += bytes;
    return (int)bytes;
}

static int bio_write(BIO *bio, const char *from, int count)
{
    struct tcp_tls *tls = BIO_get_data(bio);
    uint32_t room = TCP_CIPHER_OUT - tls->out_end;
    BIO_clear_retry_flags(bio);
    if (room > (uint32_t)count)
        room = (uint32_t)count;
    if (!room) {
        BIO_set_retry_write(bio);
        return -1;
    }
    memcpy(tls->out + tls->out_end, from, room);
    tls->out_end += room;
    return (int)room;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

/* ------------------------------------------------------------------------------------- secret */

static SSL_SESSION *psk_session(SSL *ssl)
{
    const struct tcp_tls_context *context = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), 0);
    static const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();
    if (session && cipher &&
        SSL_SESSION_set1_master_key(session, context->secret, sizeof context->secret) &&
        SSL_SESSION_set_cipher(session, cipher) &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

static int psk_use(SSL *ssl, const EVP_MD *digest, const unsigned char **out_name,
                   size_t *out_bytes, SSL_SESSION **out)
{
    (void)digest;
    *out = psk_session(ssl);
    *out_name = (const unsigned char *)PSK_NAME;
    *out_bytes = strlen(PSK_NAME);
    return *out != NULL;
}

static int psk_find(SSL *ssl, const unsigned char *name, size_t bytes, SSL_SESSION **out)
{
    *out = NULL;
    if (bytes == strlen(PSK_NAME) && !memcmp(name, PSK_NAME, bytes))
        *out = psk_session(ssl);
    return 1;
}

/* ------------------------------------------------------------------------------------ context */

void wf_tcp_tls_context_free(struct tcp_tls_context *context)
{
    if (!context)
        return;
    SSL_CTX_free(context->context);
    BIO_meth_free(context->method);
    for (int i = 0; i < FILES; i++)
        free(context->files[i]);
    OPENSSL_cleanse(context, sizeof *context);
    free(context);
}

static enum weft_status file_fail(const char *what, const char *path)
{
    char sentence[256];
    snprintf(sentence, sizeof sentence, "%s (PEM) cannot be read from '%.120s'", what, path);
    return tls_fail(WEFT_E_INVALID, sentence);
}

/* Its common name; empty where it says none. */
static void certificate_name(X509 *certificate, char out[WF_NET_NAME_MAX])
{
    char name[WF_NET_NAME_MAX];
    *out = 0;
    int bytes = certificate ? X509_NAME_get_text_by_NID(X509_get_subject_name(certificate),
                                                        NID_commonName, name, sizeof name)
                            : -1;
    if (bytes > 0 && (size_t)bytes == strlen(name))
        memcpy(out, name, (size_t)bytes + 1);
}

void wf_net_certificate_name(const char *path, char out[WF_NET_NAME_MAX])
{
    FILE *file = fopen(path, "re");
    X509 *certificate = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
    certificate_name(certificate, out);
    X509_free(certificate);
    ERR_clear_error();
    if (file)
        fclose(file);
}

/* The others refuse one that is somebody else's, or out of its time, and only they would say so. */
static enum weft_status own_check(SSL_CTX *context, const struct wf_net_security *security)
{
    X509 *own = SSL_CTX_get0_certificate(context);
    char name[WF_NET_NAME_MAX];
    certificate_name(own, name);
    if (security->name && name[0] && strcmp(name, security->name) != 0)
        return wf_fail(WEFT_E_INVALID,
                       "the certificate in '%.120s' is of '%s', and this node is '%s', so that no "
                       "other takes it; give it one whose common name is its own",
                       security->certificate, name, security->name);
    if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0)
        wf_warn("net", "the certificate in '%.120s' has expired, and no other node takes it",
                security->certificate);
    else if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0)
        wf_warn("net", "the certificate in '%.120s' is not good yet, and no other node takes it",
                security->certificate);
    return WEFT_OK;
}

static enum weft_status certificates_load(SSL_CTX *context, const struct wf_net_security *security)
{
    if (!security->certificate || !security->key || !security->ca)
        return wf_fail(WEFT_E_INVALID,
                       "TLS asks for a certificate, its key and the CA that signed the others'");
    if (SSL_CTX_use_certificate_chain_file(context, security->certificate) != 1)
        return file_fail("the certificate", security->certificate);
    if (SSL_CTX_use_PrivateKey_file(context, security->key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return file_fail("the certificate's key", security->key);
    if (SSL_CTX_load_verify_file(context, security->ca) != 1)
        return file_fail("who signed the others' certificates", security->ca);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return own_check(context, security);
}

static enum weft_status context_set(struct tcp_tls_context *tls, SSL_CTX *context,
                                    const struct wf_net_security *security)
{
    if (!context || !tls->method || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_num_tickets(context, 0) != 1 || SSL_CTX_set_ex_data(context, 0, tls) != 1)
        return tls_fail(WEFT_E_SYSTEM, "TLS can not be set up");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    BIO_meth_set_read(tls->method, bio_read);
    BIO_meth_set_write(tls->method, bio_write);
    BIO_meth_set_ctrl(tls->method, bio_control);
    if (security->proof == WF_NET_PROOF_TLS)
        return certificates_load(context, security);
    /* The key's hash has to be the cipher's.  A side without the key ends up without a certificate
     * to show either. */
    if (SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1)
        return tls_fail(WEFT_E_SYSTEM, "TLS can not be set up");
    SSL_CTX_set_psk_use_session_callback(context, psk_use);
    SSL_CTX_set_psk_find_session_callback(context, psk_find);
    return WEFT_OK;
}

/* A file that is not there is none, and so another. */
static void stamps_take(const struct tcp_tls_context *tls, struct stamp out[FILES])
{
    memset(out, 0, FILES * sizeof out[0]);
    for (int i = 0; i < FILES; i++) {
        struct stat is;
        if (tls->files[i] && stat(tls->files[i], &is) == 0) {
            out[i].changed = is.st_mtim;
            out[i].inode = is.st_ino;
            out[i].bytes = is.st_size;
        }
    }
}

static enum weft_status files_name(struct tcp_tls_context *tls,
                                   const struct wf_net_security *security)
{
    const char *const files[FILES] = {security->certificate, security->key, security->ca};
    for (int i = 0; tls->proof == WF_NET_PROOF_TLS && i < FILES; i++) {
        tls->files[i] = files[i] ? wf_strdup(files[i], "TLS") : NULL;
        if (files[i] && !tls->files[i])
            return WEFT_E_NO_MEMORY;
    }
    stamps_take(tls, tls->stamps);
    return WEFT_OK;
}

/* Another certificate, key or CA from now on, if they can be used. */
static void context_renew(struct tcp_tls_context *tls)
{
    struct stamp stamps[FILES];
    if (tls->proof != WF_NET_PROOF_TLS)
        return;
    stamps_take(tls, stamps);
    if (memcmp(stamps, tls->stamps, sizeof stamps) == 0)
        return;
    memcpy(tls->stamps, stamps, sizeof stamps);
    const struct wf_net_security security = {.proof = tls->proof,
                                             .certificate = tls->files[0],
                                             .key = tls->files[1],
                                             .ca = tls->files[2],
                                             .name = tls->name[0] ? tls->name : NULL};
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    if (context_set(tls, context, &security) != WEFT_OK) {
        wf_warn("net", "certificates were changed, and those from before are used: %s",
                wf_last_error());
        SSL_CTX_free(context);
        return;
    }
    SSL_CTX_free(tls->context); /* connections that there are keep it */
    tls->context = context;
    wf_info("net", "certificates were changed, and are used from now on");
}

enum weft_status wf_tcp_tls_context(const struct wf_net_security *security,
                                    struct tcp_tls_context **out)
{
    struct tcp_tls_context *tls = wf_calloc(1, sizeof *tls, "TLS");
    if (!tls)
        return WEFT_E_NO_MEMORY;
    ERR_clear_error();
    tls->proof = security->proof;
    memcpy(tls->secret, security->secret, sizeof tls->secret);
    if (security->name)
        snprintf(tls->name, sizeof tls->name, "%s", security->name);
    tls->context = SSL_CTX_new(TLS_method());
    tls->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weft buffers");
    enum weft_status status = files_name(tls, security);
    if (status == WEFT_OK)
        status = context_set(tls, tls->context, security);
    if (status == WEFT_OK)
        *out = tls;
    else
        wf_tcp_tls_context_free(tls);
    return status;
}

/* --------------------------------------------------------------------------------- connections */

enum weft_status wf_tcp_tls_open(struct tcp_tls_context *context, bool connector,
                                 struct tcp_tls **out)
{
    struct tcp_tls *tls = wf_calloc(1, sizeof *tls, "a stream's TLS");
    BIO *bio = NULL;
    if (!tls)
        return WEFT_E_NO_MEMORY;
    context_renew(context);
    ERR_clear_error();
    tls->context = context;
    tls->ssl = SSL_new(context->context);
    if (tls->ssl)
        bio = BIO_new(context->method);
    if (!bio) {
        wf_tcp_tls_close(tls);
        return tls_fail(WEFT_E_NO_MEMORY, "no TLS for a stream");
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    if (connector)
        SSL_set_connect_state(tls->ssl);
    else
        SSL_set_accept_state(tls->ssl);
    /* With a secret the acceptor has no certificate; one that shows one is not it. */
    if (connector)
        SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, NULL);
    *out = tls;
    return WEFT_OK;
}

void wf_tcp_tls_close(struct tcp_tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    free(tls);
}

void *wf_tcp_tls_room(struct tcp_tls *tls, size_t *out_bytes)
{
    if (tls->in_at == tls->in_end) {
        tls->in_at = tls->in_end = 0;
    } else if (tls->in_at) {
        memmove(tls->in, tls->in + tls->in_at, tls->in_end - tls->in_at);
        tls->in_end -= tls->in_at;
        tls->in_at = 0;
    }
    *out_bytes = TCP_CIPHER_IN - tls->in_end;
    return tls->in + tls->in_end;
}

void wf_tcp_tls_came(struct tcp_tls *tls, size_t bytes)
{
    tls->in_end += (uint32_t)bytes;
}

const void *wf_tcp_tls_out(const struct tcp_tls *tls, size_t *out_bytes)
{
    *out_bytes = tls->out_end - tls->out_at;
    return tls->out + tls->out_at;
}

/* What follows has to stay where it is only while it is in flight, and now nothing is. */
void wf_tcp_tls_went(struct tcp_tls *tls, size_t bytes)
{
    tls->out_at += (uint32_t)bytes;
    if (tls->out_at == tls->out_end) {
        tls->out_at = tls->out_end = 0;
    } else if (tls->out_at > TCP_CIPHER_OUT / 2) {
        memmove(tls->out, tls->out + tls->out_at, tls->out_end - tls->out_at);
        tls->out_end -= tls->out_at;
        tls->out_at = 0;
    }
}

/* What a call that gave `result` <= 0 means. */
static enum weft_status tls_result(struct tcp_tls *tls, int result)
{
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return WEFT_PENDING;
    case SSL_ERROR_ZERO_RETURN: return wf_fail(WEFT_E_NODE, "the other side closed the connection");
    default:
        if (SSL_get_verify_result(tls->ssl) != X509_V_OK)
            return wf_fail(WEFT_E_DENIED,
                           "the certificate that the other side shows is not good here: %s",
                           X509_verify_cert_error_string(SSL_get_verify_result(tls->ssl)));
        return tls_fail(SSL_is_init_finished(tls->ssl) ? WEFT_E_PROTOCOL : WEFT_E_DENIED,
                        SSL_is_init_finished(tls->ssl) ? "TLS with the other side broke"
                                                       : "the other side and this one do not "
                                                         "prove themselves to each other by TLS");
    }
}

enum weft_status wf_tcp_tls_shake(struct tcp_tls *tls, char *out_name)
{
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    if (result != 1)
        return tls_result(tls, result);
    if (tls->context->proof == WF_NET_PROOF_TLS) {
        if (!SSL_get0_peer_certificate(tls->ssl) || SSL_get_verify_result(tls->ssl) != X509_V_OK)
            return wf_fail(WEFT_E_DENIED, "the other side shows no certificate that the CA signed");
        certificate_name(SSL_get0_peer_certificate(tls->ssl), out_name);
    } else if (!SSL_session_reused(tls->ssl)) {
        return wf_fail(WEFT_E_DENIED, "the other side does not use the secret under TLS");
    }
    return WEFT_OK;
}

enum weft_status wf_tcp_tls_read(struct tcp_tls *tls, void *to, size_t bytes, size_t *out_bytes)
{
    ERR_clear_error();
    int result = SSL_read_ex(tls->ssl, to, bytes, out_bytes);
    return result == 1 ? WEFT_OK : tls_result(tls, result);
}

enum weft_status wf_tcp_tls_write(struct tcp_tls *tls, const void *from, size_t bytes,
                                  size_t *out_bytes)
{
    /* A record is written whole or not at all: one that waits in OpenSSL would have to be asked for
     * with the same bytes again. */
    if (bytes > RECORD_BYTES)
        bytes = RECORD_BYTES;
    if (TCP_CIPHER_OUT - tls->out_end < bytes + RECORD_MORE)
        return WEFT_PENDING;
    ERR_clear_error();
    int result = SSL_write_ex(tls->ssl, from, bytes, out_bytes);
    return result == 1 ? WEFT_OK : tls_result(tls, result);
}
