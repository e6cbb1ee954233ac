/* SPDX-License-Identifier: MIT */
/*
 * Whom to trust, and why not: the other side's certificate or identity is judged here, and it is
 * told the reason with an alert. What either side then reads is a sentence about "it", the other
 * side.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gnutls/x509.h>

#include "base/cleanup.h"
#include "transport/tls_internal.h"

#define MAX_SUBJECT 160

/* ---- the other side's certificate ---- */

/* The leaf, to say something about it; without one the texts say so. */
struct leaf {
	char subject[MAX_SUBJECT];
	time_t begins;
	time_t ends;
};

static void read_leaf(gnutls_session_t session, struct leaf *leaf)
{
	unsigned int count = 0;
	const gnutls_datum_t *list = gnutls_certificate_get_peers(session, &count);
	gnutls_x509_crt_t crt;
	size_t size = sizeof(leaf->subject);
	char *c;

	*leaf = (struct leaf){.subject = "unreadable"};
	if (!count || gnutls_x509_crt_init(&crt) < 0)
		return;
	if (gnutls_x509_crt_import(crt, &list[0], GNUTLS_X509_FMT_DER) == 0) {
		if (gnutls_x509_crt_get_dn(crt, leaf->subject, &size) < 0 || !*leaf->subject)
			(void)snprintf(leaf->subject, sizeof(leaf->subject), "nameless");
		leaf->begins = gnutls_x509_crt_get_activation_time(crt);
		leaf->ends = gnutls_x509_crt_get_expiration_time(crt);
	}
	gnutls_x509_crt_deinit(crt);
	/* It says what it wants. */
	for (c = leaf->subject; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static void date(time_t when, char text[32])
{
	struct tm parts;

	if (!gmtime_r(&when, &parts) || !strftime(text, 32, "%Y-%m-%d %H:%M:%S UTC", &parts))
		(void)snprintf(text, 32, "an unknown date");
}

static int refuse(struct qsc_tls_socket *tls, gnutls_alert_description_t alert)
{
	tls->alert = alert;
	return GNUTLS_E_CERTIFICATE_ERROR;
}

/* The reasons that a person can do something about, the likeliest cause first. */
static int refuse_certificate(struct qsc_tls_socket *tls, const struct leaf *leaf,
			      unsigned int status, const char *name)
{
	struct qsc_error *why = &tls->why;
	gnutls_datum_t text = {NULL, 0};
	char when[32];

	if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNER_NOT_CA)) {
		(void)qsc_error_set(why, EACCES, NULL,
				    "its certificate (%s) is not signed by an authority of %.128s",
				    leaf->subject, tls->tls->ca_file);
		return refuse(tls, GNUTLS_A_UNKNOWN_CA);
	}
	if (status & GNUTLS_CERT_EXPIRED) {
		date(leaf->ends, when);
		(void)qsc_error_set(why, EACCES, NULL,
				    leaf->ends < time(NULL)
					    ? "its certificate (%s) has expired on %s"
					    : "an authority above its certificate (%s, valid until "
					      "%s) has expired",
				    leaf->subject, when);
		return refuse(tls, GNUTLS_A_CERTIFICATE_EXPIRED);
	}
	if (status & GNUTLS_CERT_NOT_ACTIVATED) {
		date(leaf->begins, when);
		(void)qsc_error_set(
			why, EACCES, NULL,
			leaf->begins > time(NULL)
				? "its certificate (%s) is not valid before %s: is this "
				  "host's clock right?"
				: "an authority above its certificate (%s, valid from "
				  "%s) is not valid yet",
			leaf->subject, when);
		return refuse(tls, GNUTLS_A_CERTIFICATE_EXPIRED);
	}
	if (status & GNUTLS_CERT_UNEXPECTED_OWNER) {
		(void)qsc_error_set(why, EACCES, NULL,
				    "its certificate (%s) does not bear the name '%s'",
				    leaf->subject, name);
		return refuse(tls, GNUTLS_A_ACCESS_DENIED);
	}
	if (status & GNUTLS_CERT_PURPOSE_MISMATCH) {
		(void)qsc_error_set(why, EACCES, NULL,
				    "its certificate (%s) was not made for a TLS %s", leaf->subject,
				    tls->tls->role == QSC_TRANSPORT_SOURCE ? "server" : "client");
		return refuse(tls, GNUTLS_A_UNSUPPORTED_CERTIFICATE);
	}
	if (status & GNUTLS_CERT_INSECURE_ALGORITHM) {
		(void)qsc_error_set(
			why, EACCES, NULL,
			"its certificate (%s), or one of an authority above it, has a key "
			"that is too short or a hash that is broken: make one with RSA of "
			"2048 bits at least, or with ECDSA",
			leaf->subject);
		return refuse(tls, GNUTLS_A_INSUFFICIENT_SECURITY);
	}
	(void)gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
	(void)qsc_error_set(why, EACCES, NULL, "its certificate (%s) cannot be trusted: %s",
			    leaf->subject, text.data ? (const char *)text.data : "no reason known");
	gnutls_free(text.data);
	return refuse(tls, GNUTLS_A_BAD_CERTIFICATE);
}

int qsc_tls_judge_certificate(gnutls_session_t session)
{
	struct qsc_tls_socket *tls = gnutls_session_get_ptr(session);
	const bool source = tls->tls->role == QSC_TRANSPORT_SOURCE;
	const char *name = tls->tls->peer_name ? tls->tls->peer_name : tls->host;
	gnutls_typed_vdata_st wanted[] = {
		{.type = GNUTLS_DT_KEY_PURPOSE_OID,
		 .data = (unsigned char *)(source ? GNUTLS_KP_TLS_WWW_SERVER
						  : GNUTLS_KP_TLS_WWW_CLIENT)},
		{.type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)name},
	};
	unsigned int status = 0;
	unsigned int count = 0;
	struct leaf leaf;
	int result;

	(void)gnutls_certificate_get_peers(session, &count);
	if (!count && tls->tls->anonymous_source)
		return 0;
	read_leaf(session, &leaf);
	result = gnutls_certificate_verify_peers(session, wanted, name ? 2 : 1, &status);
	if (result < 0) {
		(void)qsc_error_set(&tls->why, EACCES, NULL,
				    "its certificate (%s) cannot be checked (%s)", leaf.subject,
				    gnutls_strerror(result));
		return refuse(tls, GNUTLS_A_BAD_CERTIFICATE);
	}
	return status ? refuse_certificate(tls, &leaf, status, name ? name : "") : 0;
}

/* ---- its key ---- */

int qsc_tls_find_psk(gnutls_session_t session, const char *identity, gnutls_datum_t *key)
{
	struct qsc_tls_socket *tls = gnutls_session_get_ptr(session);
	const struct qsc_tls *keys = tls->tls;
	char shown[64];
	size_t i;

	for (i = 0; i < keys->num_psks && strcmp(keys->psks[i].identity, identity) != 0; i++)
		;
	(void)snprintf(shown, sizeof(shown), "%s", identity);
	if (i < keys->num_psks) {
		key->data = gnutls_malloc(keys->psks[i].key.size);
		if (!key->data)
			return -1;
		key->size = keys->psks[i].key.size;
		memcpy(key->data, keys->psks[i].key.data, key->size);
		/* What follows fails in the proof that it has the same key, if anything fails. */
		tls->knows_identity = true;
		return 0;
	}
	for (i = 0; shown[i]; i++)
		if (shown[i] < ' ' || shown[i] > '~')
			shown[i] = '?';
	(void)qsc_error_set(&tls->why, EACCES, NULL, "its identity '%s' is not in %.128s", shown,
			    keys->psk_file);
	tls->alert = GNUTLS_A_UNKNOWN_PSK_IDENTITY;
	return -1;
}

/* ---- why it failed ---- */

/* What the other side says of us. */
static int explain_alert(const struct qsc_tls_socket *tls, struct qsc_error *err)
{
	static const struct {
		gnutls_alert_description_t alert;
		const char *text;
	} reasons[] = {
		{GNUTLS_A_UNKNOWN_CA, "it is not signed by an authority that it knows"},
		{GNUTLS_A_CERTIFICATE_EXPIRED,
		 "by its clock it has expired or is not valid yet, or an authority above it"},
		{GNUTLS_A_ACCESS_DENIED, "it does not bear the name that it expects"},
		{GNUTLS_A_UNSUPPORTED_CERTIFICATE, "it was not made for this purpose"},
		{GNUTLS_A_INSUFFICIENT_SECURITY,
		 "its key is too short or its hash is broken, or that of an authority above it"},
		{GNUTLS_A_BAD_CERTIFICATE, "it cannot be trusted"},
		{GNUTLS_A_CERTIFICATE_UNKNOWN, "it cannot be trusted"},
		{GNUTLS_A_CERTIFICATE_REVOKED, "it is revoked"},
	};
	const struct qsc_tls *keys = tls->tls;
	gnutls_alert_description_t alert = gnutls_alert_get(tls->session);
	const char *name = gnutls_alert_get_name(alert);
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(reasons); i++)
		if (alert == reasons[i].alert && keys->cert_file)
			return qsc_error_set(err, EACCES, NULL,
					     "it refuses our certificate in %.128s: %s",
					     keys->cert_file, reasons[i].text);
	if (alert == GNUTLS_A_CERTIFICATE_REQUIRED)
		return qsc_error_set(err, EACCES, NULL,
				     "it wants a certificate of us, and none is given");
	if (alert == GNUTLS_A_UNKNOWN_PSK_IDENTITY && keys->psk)
		return qsc_error_set(err, EACCES, NULL, "it does not know our identity '%.64s'",
				     keys->psk->identity);
	if (alert == GNUTLS_A_DECRYPT_ERROR && keys->psk)
		return qsc_error_set(err, EACCES, NULL,
				     "its key for our identity '%.64s' is not the one in %.128s",
				     keys->psk->identity, keys->psk_file);
	return qsc_error_set(err, EACCES, NULL,
			     "it refuses us (TLS alert: %s): do both sides use certificates, or "
			     "both pre-shared keys?",
			     name ? name : "unknown");
}

int qsc_tls_explain(struct qsc_tls_socket *tls, int failed)
{
	struct qsc_error *why = &tls->why;
	int level;

	if (why->number)
		return -why->number;
	tls->alert = (gnutls_alert_description_t)gnutls_error_to_alert(failed, &level);
	if (failed == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return explain_alert(tls, why);
	if (tls->heard && !tls->speaks_tls)
		return qsc_error_set(why, EPROTO, NULL, "it does not speak TLS");
	if (failed == GNUTLS_E_PREMATURE_TERMINATION || failed == GNUTLS_E_PULL_ERROR)
		return qsc_error_set(why, EPIPE, NULL, "it hung up before TLS was agreed on%s",
				     tls->heard ? "" : ": does it speak TLS?");
	if (failed == GNUTLS_E_CERTIFICATE_REQUIRED || failed == GNUTLS_E_NO_CERTIFICATE_FOUND)
		return qsc_error_set(why, EACCES, NULL, "it shows no certificate");
	if (failed == GNUTLS_E_INSUFFICIENT_CREDENTIALS)
		return qsc_error_set(why, EACCES, NULL,
				     "it proves itself in another way than this side: do both "
				     "sides use certificates, or both pre-shared keys?");
	if (tls->knows_identity && failed == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER) {
		tls->alert = GNUTLS_A_DECRYPT_ERROR;
		return qsc_error_set(why, EACCES, NULL,
				     "its key is not the one in %.128s for the identity that it "
				     "names",
				     tls->tls->psk_file);
	}
	return qsc_error_set(why, EPROTO, NULL, "the TLS handshake failed (%s)",
			     gnutls_strerror(failed));
}
