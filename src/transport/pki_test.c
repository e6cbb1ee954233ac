/* SPDX-License-Identifier: MIT */
/* See pki_test.h. */
#include "transport/pki_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/x509.h>

#define DAY 86400L

struct issuer {
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
};

enum { FOR_LOOPBACK = 1, FOR_ELSEWHERE = 2, CLIENT_ONLY = 4, AUTHORITY = 8, WEAK = 16 };

const char *pki_path(const struct pki *pki, const char *name)
{
	static char paths[4][128];
	static unsigned int next;
	char *path = paths[next++ % 4];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", pki->folder, name);
	return path;
}

static void write_bytes(const struct pki *pki, const char *name, const char *suffix,
			const void *bytes, size_t size)
{
	char file[64];
	FILE *out;

	(void)snprintf(file, sizeof(file), "%s%s", name, suffix);
	out = fopen(pki_path(pki, file), "w");
	assert_non_null(out);
	assert_int_equal(fwrite(bytes, 1, size, out), size);
	assert_int_equal(fclose(out), 0);
}

void pki_write(const struct pki *pki, const char *name, const char *text)
{
	write_bytes(pki, name, "", text, strlen(text));
}

static void make_key(const struct pki *pki, const char *name, int what, gnutls_x509_privkey_t *key)
{
	gnutls_pk_algorithm_t kind = what & WEAK ? GNUTLS_PK_RSA : GNUTLS_PK_ECDSA;
	unsigned int bits = what & WEAK ? 1024 : GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1);
	char pem[4096];
	size_t size = sizeof(pem);

	assert_int_equal(gnutls_x509_privkey_init(key), 0);
	assert_int_equal(gnutls_x509_privkey_generate(*key, kind, bits, 0), 0);
	assert_int_equal(gnutls_x509_privkey_export(*key, GNUTLS_X509_FMT_PEM, pem, &size), 0);
	write_bytes(pki, name, ".key", pem, size);
}

static void set_names(gnutls_x509_crt_t crt, int what)
{
	static const uint8_t ipv4[4] = {127, 0, 0, 1};
	static const uint8_t ipv6[16] = {[15] = 1};

	if (what & FOR_LOOPBACK) {
		assert_int_equal(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME,
								      "localhost", 9, 0),
				 0);
		assert_int_equal(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS,
								      ipv4, 4, GNUTLS_FSAN_APPEND),
				 0);
		assert_int_equal(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS,
								      ipv6, 16, GNUTLS_FSAN_APPEND),
				 0);
	}
	if (what & FOR_ELSEWHERE)
		assert_int_equal(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME,
								      "elsewhere.example", 17, 0),
				 0);
	if (what & CLIENT_ONLY)
		assert_int_equal(
			gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_CLIENT, 0), 0);
	if (what & AUTHORITY)
		assert_int_equal(gnutls_x509_crt_set_basic_constraints(crt, 1, -1), 0);
}

/* Signed by `by`, or by itself; `self` is kept when wanted. */
static void make(const struct pki *pki, const char *name, int what, int from_days, int to_days,
		 const struct issuer *by, struct issuer *self)
{
	static uint8_t serial;
	struct issuer own;
	char pem[8192];
	size_t size = sizeof(pem);
	time_t now = time(NULL);

	make_key(pki, name, what, &own.key);
	assert_int_equal(gnutls_x509_crt_init(&own.crt), 0);
	assert_int_equal(gnutls_x509_crt_set_version(own.crt, 3), 0);
	serial++;
	assert_int_equal(gnutls_x509_crt_set_serial(own.crt, &serial, 1), 0);
	assert_int_equal(gnutls_x509_crt_set_activation_time(own.crt, now + from_days * DAY), 0);
	assert_int_equal(gnutls_x509_crt_set_expiration_time(own.crt, now + to_days * DAY), 0);
	assert_int_equal(gnutls_x509_crt_set_dn_by_oid(own.crt, GNUTLS_OID_X520_COMMON_NAME, 0,
						       name, (unsigned int)strlen(name)),
			 0);
	assert_int_equal(gnutls_x509_crt_set_key(own.crt, own.key), 0);
	set_names(own.crt, what);
	if (!by)
		by = &own;
	assert_int_equal(gnutls_x509_crt_sign2(own.crt, by->crt, by->key, GNUTLS_DIG_SHA256, 0), 0);
	assert_int_equal(gnutls_x509_crt_export(own.crt, GNUTLS_X509_FMT_PEM, pem, &size), 0);
	write_bytes(pki, name, ".pem", pem, size);
	if (self) {
		*self = own;
		return;
	}
	gnutls_x509_crt_deinit(own.crt);
	gnutls_x509_privkey_deinit(own.key);
}

void pki_make(struct pki *pki)
{
	struct issuer ca;
	struct issuer stranger;

	(void)snprintf(pki->folder, sizeof(pki->folder), "/tmp/quiesce-pki-XXXXXX");
	assert_non_null(mkdtemp(pki->folder));
	make(pki, "ca", AUTHORITY, -1, 1, NULL, &ca);
	make(pki, "stranger-ca", AUTHORITY, -1, 1, NULL, &stranger);
	make(pki, "destination", FOR_LOOPBACK, -1, 1, &ca, NULL);
	make(pki, "source", 0, -1, 1, &ca, NULL);
	make(pki, "stranger", FOR_LOOPBACK, -1, 1, &stranger, NULL);
	make(pki, "expired", FOR_LOOPBACK, -2, -1, &ca, NULL);
	make(pki, "future", FOR_LOOPBACK, 1, 2, &ca, NULL);
	make(pki, "elsewhere", FOR_ELSEWHERE, -1, 1, &ca, NULL);
	make(pki, "client-only", FOR_LOOPBACK | CLIENT_ONLY, -1, 1, &ca, NULL);
	make(pki, "weak", FOR_LOOPBACK | WEAK, -1, 1, &ca, NULL);
	make(pki, "self", FOR_LOOPBACK, -1, 1, NULL, NULL);
	gnutls_x509_crt_deinit(ca.crt);
	gnutls_x509_privkey_deinit(ca.key);
	gnutls_x509_crt_deinit(stranger.crt);
	gnutls_x509_privkey_deinit(stranger.key);
}

void pki_drop(struct pki *pki)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", pki->folder);
	assert_int_equal(system(command), 0);
}
