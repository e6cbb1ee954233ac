/* SPDX-License-Identifier: MIT */
/*
 * The parts of TLS: tls.c moves bytes, tls_keys.c reads what proves this side, tls_trust.c judges
 * what the other side shows and says what was wrong.
 */
#ifndef QSC_TRANSPORT_TLS_INTERNAL_H
#define QSC_TRANSPORT_TLS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gnutls/gnutls.h>

#include "transport/tls.h"

#define QSC_TLS_BUFFER (256U << 10)
#define QSC_TLS_RECORD 16384U	   /* bytes of a channel in one record at most */
#define QSC_TLS_ROOM   (18U << 10) /* what a record, and one that changes keys, become at most */

struct qsc_tls_psk {
	char *identity;
	gnutls_datum_t key; /* of malloc() */
};

struct qsc_tls {
	atomic_uint references;
	enum qsc_transport_role role;
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t x509; /* NULL: pre-shared keys */
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;
	struct qsc_tls_psk *psks;
	size_t num_psks;
	const struct qsc_tls_psk *psk; /* source: the one it uses */
	char *ca_file;		       /* for messages, as the next */
	char *cert_file;	       /* NULL: this side shows none */
	char *psk_file;
	char *peer_name; /* NULL: not said */
	bool anonymous_source;
};

/* An end of what lies between gnutls and the socket. */
struct qsc_tls_buffer {
	size_t head;
	size_t tail;
	uint8_t bytes[QSC_TLS_BUFFER];
};

struct qsc_tls_socket {
	struct qsc_socket socket; /* first */
	struct qsc_tls *tls;	  /* a reference */
	char *host;		  /* that the source connects to; or NULL */
	/*
	 * A session belongs to one thread at a time: receiving changes what sending looks at when
	 * keys are replaced. Nothing blocks while it is held.
	 */
	pthread_mutex_t lock;
	gnutls_session_t session;
	bool shaken;			  /* hands; the destination's word is still due */
	bool told;			  /* destination: the word is given */
	bool heard;			  /* anything at all */
	bool knows_identity;		  /* destination: the source named a key that is here */
	bool speaks_tls;		  /* as far as the first byte tells */
	bool has_read;			  /* the socket, in this call */
	int io_error;			  /* -errno of the socket */
	struct qsc_error why;		  /* the other side was not let in, or what went wrong */
	gnutls_alert_description_t alert; /* to tell it with */
	struct qsc_tls_buffer in;
	struct qsc_tls_buffer out;
};

/* ---- tls_trust.c ---- */

/* Callbacks of gnutls; the session's pointer is the qsc_tls_socket. */
int qsc_tls_judge_certificate(gnutls_session_t session);
int qsc_tls_find_psk(gnutls_session_t session, const char *identity, gnutls_datum_t *key);

/*
 * What gnutls' number `failed` of greeting means to a person: -errno. Fills in `why`, and the alert
 * that tells the other side.
 */
int qsc_tls_explain(struct qsc_tls_socket *tls, int failed);

#endif
