/* SPDX-License-Identifier: MIT */
/*
 * Reading what proves this side. Every file is read and checked when the transport is opened, so
 * that what is wrong with one shows before anything is touched, with its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnutls/abstract.h>
#include <gnutls/x509.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/tls_internal.h"

#define MAX_FILE	 (1U << 20)
#define MIN_PSK_SIZE	 16U /* bytes: less can be guessed */
#define MAX_PSK_SIZE	 64U
#define MAX_PSK_IDENTITY 255U

/* Ciphers that processors have instructions for come first: the others are several times slower. */
#define TLS_1_3 \
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:+CHACHA20-POLY1305"
/* "NORMAL" alone takes certificates with keys that are too short, such as RSA of 1024 bits. */
#define X509_METHODS TLS_1_3 ":%PROFILE_MEDIUM"
/* With a new Diffie-Hellman secret each time: a key that leaks later opens nothing of before. */
#define PSK_METHODS TLS_1_3 ":-KX-ALL:+ECDHE-PSK:+DHE-PSK"

/* ---- files ---- */

static void wipe(char **text)
{
	if (*text) {
		gnutls_memset(*text, 0, strlen(*text));
		free(*text);
	}
}

/* A whole text file that may hold secrets; released with wipe(). */
static int read_file(const char *path, char **text, struct qsc_error *err)
{
	qsc_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	size_t size = 0;
	ssize_t n = 0;

	*text = NULL;
	if (fd < 0)
		return qsc_error_set(err, errno, NULL, "cannot open %.256s (%s)", path,
				     strerrordesc_np(errno));
	*text = calloc(1, MAX_FILE + 1);
	if (!*text)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for %.256s", path);
	do {
		n = read(fd, *text + size, MAX_FILE - size);
		size += n > 0 ? (size_t)n : 0;
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0)
		return qsc_error_set(err, errno, NULL, "cannot read %.256s (%s)", path,
				     strerrordesc_np(errno));
	if (size == MAX_FILE)
		return qsc_error_set(err, EINVAL, NULL, "%.256s is too big to hold keys", path);
	return 0;
}

static gnutls_datum_t datum(char *text)
{
	return (gnutls_datum_t){(unsigned char *)text, text ? (unsigned int)strlen(text) : 0};
}

/* ---- X.509 ---- */

static int load_authorities(struct qsc_tls *tls, const char *path, struct qsc_error *err)
{
	qsc_cleanup(wipe) char *text = NULL;
	gnutls_datum_t pem;
	int result = read_file(path, &text, err);

	if (result < 0)
		return result;
	pem = datum(text);
	result = gnutls_certificate_set_x509_trust_mem(tls->x509, &pem, GNUTLS_X509_FMT_PEM);
	if (result <= 0)
		return qsc_error_set(
			err, EINVAL, NULL,
			"%.256s holds no certificate of an authority in PEM format (%s)", path,
			result ? gnutls_strerror(result) : "nothing in it begins as one");
	return 0;
}

static int check_certificate(const gnutls_datum_t *pem, const char *path, struct qsc_error *err)
{
	gnutls_x509_crt_t *list = NULL;
	unsigned int count = 0;
	unsigned int i;
	int result = gnutls_x509_crt_list_import2(&list, &count, pem, GNUTLS_X509_FMT_PEM, 0);

	if (result < 0)
		return qsc_error_set(err, EINVAL, NULL,
				     "%.256s holds no certificate in PEM format (%s)", path,
				     gnutls_strerror(result));
	for (i = 0; i < count; i++)
		gnutls_x509_crt_deinit(list[i]);
	gnutls_free(list);
	return 0;
}

static int check_key(const gnutls_datum_t *pem, const char *path, struct qsc_error *err)
{
	gnutls_privkey_t key;
	int result = gnutls_privkey_init(&key);

	if (result == 0) {
		result = gnutls_privkey_import_x509_raw(key, pem, GNUTLS_X509_FMT_PEM, NULL, 0);
		gnutls_privkey_deinit(key);
	}
	if (result == GNUTLS_E_DECRYPTION_FAILED)
		return qsc_error_set(
			err, EINVAL, NULL,
			"the key in %.256s needs a password, and there is nobody to ask", path);
	if (result < 0)
		return qsc_error_set(err, EINVAL, NULL,
				     "%.256s holds no private key in PEM format (%s)", path,
				     gnutls_strerror(result));
	return 0;
}

static int load_certificate(struct qsc_tls *tls, const struct qsc_tls_options *options,
			    struct qsc_error *err)
{
	qsc_cleanup(wipe) char *cert_text = NULL;
	qsc_cleanup(wipe) char *key_text = NULL;
	gnutls_datum_t cert;
	gnutls_datum_t key;
	int result = read_file(options->cert_file, &cert_text, err);

	if (result == 0)
		result = read_file(options->key_file, &key_text, err);
	if (result < 0)
		return result;
	cert = datum(cert_text);
	key = datum(key_text);
	result = check_certificate(&cert, options->cert_file, err);
	if (result == 0)
		result = check_key(&key, options->key_file, err);
	if (result < 0)
		return result;
	result = gnutls_certificate_set_x509_key_mem2(tls->x509, &cert, &key, GNUTLS_X509_FMT_PEM,
						      NULL, 0);
	if (result < 0)
		return qsc_error_set(err, EINVAL, NULL,
				     "the key in %.128s does not go with the certificate in %.128s "
				     "(%s)",
				     options->key_file, options->cert_file,
				     gnutls_strerror(result));
	return 0;
}

static int load_x509(struct qsc_tls *tls, const struct qsc_tls_options *options,
		     struct qsc_error *err)
{
	int result = gnutls_certificate_allocate_credentials(&tls->x509);

	if (result < 0)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for certificates");
	gnutls_certificate_set_verify_function(tls->x509, qsc_tls_judge_certificate);
	result = load_authorities(tls, options->ca_file, err);
	if (result == 0 && options->cert_file)
		result = load_certificate(tls, options, err);
	return result;
}

/* ---- pre-shared keys ---- */

static int bad_psk(const char *path, unsigned int line, const char *why, struct qsc_error *err)
{
	return qsc_error_set(err, EINVAL, NULL,
			     "line %u of %.256s is no \"identity:hexadecimal key\": %s", line, path,
			     why);
}

static int add_psk(struct qsc_tls *tls, char *line, unsigned int number, const char *path,
		   struct qsc_error *err)
{
	char *colon = strrchr(line, ':');
	struct qsc_tls_psk *psks;
	gnutls_datum_t hex;
	size_t size;

	if (!colon || colon == line || (size_t)(colon - line) > MAX_PSK_IDENTITY)
		return bad_psk(path, number, "the identity is missing or too long", err);
	hex = datum(colon + 1);
	size = hex.size / 2;
	if (hex.size % 2 || hex.size != strspn(colon + 1, "0123456789abcdefABCDEF"))
		return bad_psk(path, number, "the key is not hexadecimal", err);
	if (size < MIN_PSK_SIZE || size > MAX_PSK_SIZE)
		return bad_psk(path, number, "the key must have 16 to 64 bytes", err);
	*colon = '\0';
	psks = realloc(tls->psks, (tls->num_psks + 1) * sizeof(*psks));
	if (!psks)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for keys");
	tls->psks = psks;
	psks[tls->num_psks] = (struct qsc_tls_psk){
		.identity = strdup(line),
		.key = {malloc(size), (unsigned int)size},
	};
	tls->num_psks++;
	if (!psks[tls->num_psks - 1].identity || !psks[tls->num_psks - 1].key.data)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for keys");
	(void)gnutls_hex_decode(&hex, psks[tls->num_psks - 1].key.data, &size);
	return 0;
}

static int parse_psks(struct qsc_tls *tls, char *text, const char *path, struct qsc_error *err)
{
	unsigned int number = 1;
	char *line = text;
	int result = 0;

	for (; line && result == 0; number++) {
		char *end = strchr(line, '\n');

		if (end)
			*end = '\0';
		if (*line)
			result = add_psk(tls, line, number, path, err);
		line = end ? end + 1 : NULL;
	}
	if (result == 0 && !tls->num_psks)
		return qsc_error_set(err, EINVAL, NULL, "%.256s holds no key", path);
	return result;
}

static int choose_psk(struct qsc_tls *tls, const char *identity, const char *path,
		      struct qsc_error *err)
{
	size_t i;

	if (!identity && tls->num_psks > 1)
		return qsc_error_set(err, EINVAL, NULL,
				     "%.256s holds %zu keys: say which identity this side has",
				     path, tls->num_psks);
	for (i = 0; i < tls->num_psks; i++)
		if (!identity || !strcmp(tls->psks[i].identity, identity))
			tls->psk = &tls->psks[i];
	if (!tls->psk)
		return qsc_error_set(err, EINVAL, NULL,
				     "%.256s has no key for the identity '%.64s'", path, identity);
	if (gnutls_psk_allocate_client_credentials(&tls->psk_client) < 0 ||
	    gnutls_psk_set_client_credentials(tls->psk_client, tls->psk->identity, &tls->psk->key,
					      GNUTLS_PSK_KEY_RAW) < 0)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for keys");
	return 0;
}

static int load_psks(struct qsc_tls *tls, const struct qsc_tls_options *options,
		     struct qsc_error *err)
{
	qsc_cleanup(wipe) char *text = NULL;
	int result = read_file(options->psk_file, &text, err);

	if (result == 0)
		result = parse_psks(tls, text, options->psk_file, err);
	if (result < 0)
		return result;
	if (tls->role == QSC_TRANSPORT_SOURCE)
		return choose_psk(tls, options->psk_identity, options->psk_file, err);
	if (gnutls_psk_allocate_server_credentials(&tls->psk_server) < 0)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for keys");
	gnutls_psk_set_server_credentials_function(tls->psk_server, qsc_tls_find_psk);
	return 0;
}

/* ---- all of it ---- */

static const char *contradiction(const struct qsc_tls_options *options,
				 enum qsc_transport_role role)
{
	const bool x509 = options->ca_file || options->cert_file || options->key_file ||
			  options->peer_name || options->anonymous_source;
	const bool psk = options->psk_file || options->psk_identity;

	if (x509 && psk)
		return "TLS uses certificates or a pre-shared key, not both";
	if (!x509 && !psk)
		return "TLS needs certificates (an authority, a certificate and its key) or a "
		       "pre-shared key";
	if (psk && !options->psk_file)
		return "an identity without a file of pre-shared keys";
	if (psk)
		return role == QSC_TRANSPORT_DESTINATION && options->psk_identity
			       ? "the destination takes every identity in its file of pre-shared "
				 "keys, none can be chosen"
			       : NULL;
	if (!options->ca_file)
		return "TLS needs the authority that the other side's certificate must come from";
	if (!options->cert_file != !options->key_file)
		return "a certificate and its private key go together";
	if (role == QSC_TRANSPORT_DESTINATION && !options->cert_file)
		return "a destination needs a certificate and its private key";
	if (role == QSC_TRANSPORT_SOURCE && !options->cert_file != options->anonymous_source)
		return options->cert_file ? "an anonymous source shows no certificate, and one is "
					    "given"
					  : "the source needs a certificate and its private key, "
					    "unless it asks to be anonymous";
	return NULL;
}

static bool keep(char **copy, const char *text)
{
	*copy = text ? strdup(text) : NULL;
	return !text || *copy;
}

int qsc_tls_create(const struct qsc_tls_options *options, enum qsc_transport_role role,
		   struct qsc_tls **keys, struct qsc_error *err)
{
	const char *wrong = contradiction(options, role);
	struct qsc_tls *tls;
	int number;

	if (wrong)
		return qsc_error_set(err, EINVAL, NULL, "%s", wrong);
	tls = calloc(1, sizeof(*tls));
	if (!tls)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for TLS");
	atomic_init(&tls->references, 1);
	tls->role = role;
	tls->anonymous_source = options->anonymous_source;
	if (!keep(&tls->ca_file, options->ca_file) || !keep(&tls->cert_file, options->cert_file) ||
	    !keep(&tls->psk_file, options->psk_file) || !keep(&tls->peer_name, options->peer_name))
		number = qsc_error_set(err, ENOMEM, NULL, "no memory for TLS");
	else
		number = options->psk_file ? load_psks(tls, options, err)
					   : load_x509(tls, options, err);
	if (number == 0 &&
	    gnutls_priority_init(&tls->priority, options->psk_file ? PSK_METHODS : X509_METHODS,
				 NULL) < 0)
		number = qsc_error_set(err, EPROTONOSUPPORT, NULL,
				       "this host's GnuTLS does not allow TLS 1.3");
	if (number < 0) {
		qsc_tls_put(tls);
		return number;
	}
	*keys = tls;
	return 0;
}

void qsc_tls_put(struct qsc_tls *tls)
{
	size_t i;

	if (!tls || atomic_fetch_sub(&tls->references, 1) > 1)
		return;
	if (tls->x509)
		gnutls_certificate_free_credentials(tls->x509);
	if (tls->psk_client)
		gnutls_psk_free_client_credentials(tls->psk_client);
	if (tls->psk_server)
		gnutls_psk_free_server_credentials(tls->psk_server);
	if (tls->priority)
		gnutls_priority_deinit(tls->priority);
	for (i = 0; i < tls->num_psks; i++) {
		if (tls->psks[i].key.data)
			gnutls_memset(tls->psks[i].key.data, 0, tls->psks[i].key.size);
		free(tls->psks[i].key.data);
		free(tls->psks[i].identity);
	}
	free(tls->psks);
	free(tls->ca_file);
	free(tls->cert_file);
	free(tls->psk_file);
	free(tls->peer_name);
	free(tls);
}
