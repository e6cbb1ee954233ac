/* SPDX-License-Identifier: MIT */
/*
 * Unit tests of TLS: who is let in and who is not, and what either side reads about it. What TLS
 * has in common with the other sockets is tested in socket_test.c.
 */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/gnutls.h>

#include <quiesce/transport.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/pki_test.h"

#define PATIENCE_MS 20000U
#define SOURCE	    QSC_TRANSPORT_SOURCE
#define DESTINATION QSC_TRANSPORT_DESTINATION

static struct pki pki;

/* ---- two sides ---- */

struct side {
	struct qsc_tls_options options;
	struct qsc_transport *transport;
	struct qsc_channel *channel;
	struct qsc_error err;
	int result;
};

/* What it takes to be let in with certificates. */
static struct qsc_tls_options with(const char *name)
{
	char file[64];
	struct qsc_tls_options options = {.ca_file = strdup(pki_path(&pki, "ca.pem"))};

	(void)snprintf(file, sizeof(file), "%s.pem", name);
	options.cert_file = strdup(pki_path(&pki, file));
	(void)snprintf(file, sizeof(file), "%s.key", name);
	options.key_file = strdup(pki_path(&pki, file));
	return options;
}

static void forget(struct qsc_tls_options *options)
{
	free((void *)options->ca_file);
	free((void *)options->cert_file);
	free((void *)options->key_file);
}

static int open_side(struct side *side, const char *uri, enum qsc_transport_role role)
{
	const struct qsc_transport_options options = {.tls = side->options};

	return qsc_transport_open(uri, role, &options, &side->transport, &side->err);
}

static void *connect_source(void *arg)
{
	static const uint8_t first[QSC_CHANNEL_FIRST_BYTES] = "hello";
	const struct iovec iov = {(void *)first, sizeof(first)};
	struct side *side = arg;

	side->result = side->transport->ops->open(side->transport, PATIENCE_MS, &side->channel,
						  &side->err);
	if (side->result == 0)
		side->result = side->channel->ops->send(side->channel, &iov, 1);
	return NULL;
}

/* Both meet at a host's name; the destination looks until the source has its answer. */
static void meet_at(struct side *source, struct side *destination, const char *host)
{
	char address[64];
	char uri[128];
	pthread_t thread;
	bool refused;

	(void)snprintf(uri, sizeof(uri), "tls:%s:0", host);
	assert_int_equal(open_side(destination, uri, QSC_TRANSPORT_DESTINATION), 0);
	assert_int_equal(qsc_transport_address(destination->transport, address, sizeof(address)),
			 0);
	(void)snprintf(uri, sizeof(uri), "tls:%s:%s", host, strrchr(address, ':') + 1);
	if (open_side(source, uri, QSC_TRANSPORT_SOURCE) != 0)
		fail_msg("%s", source->err.text);
	assert_int_equal(pthread_create(&thread, NULL, connect_source, source), 0);
	do {
		destination->result = destination->transport->ops->open(
			destination->transport, 50, &destination->channel, &destination->err);
		refused = strstr(destination->err.text, "refused");
	} while (destination->result == -ETIMEDOUT && !refused);
	pthread_join(thread, NULL);
}

static void part(struct side *side)
{
	if (side->channel)
		side->channel->ops->close(side->channel);
	qsc_transport_close(side->transport);
	side->channel = NULL;
	side->transport = NULL;
}

static void expect_let_in(struct side *source, struct side *destination, const char *host)
{
	char buf[QSC_CHANNEL_FIRST_BYTES];

	meet_at(source, destination, host);
	if (source->result || destination->result)
		fail_msg("%s / %s", source->err.text, destination->err.text);
	assert_int_equal(destination->channel->ops->recv(destination->channel, buf, sizeof(buf)),
			 0);
	assert_string_equal(buf, "hello");
	part(source);
	part(destination);
}

static void expect_words(const struct side *side, const char *words)
{
	if (!strstr(side->err.text, words))
		fail_msg("'%s' does not say '%s'", side->err.text, words);
}

/* Neither gets through, and each reads its sentence. */
static void expect_refused(struct side *source, struct side *destination, const char *at_source,
			   const char *at_destination)
{
	meet_at(source, destination, "localhost");
	assert_int_equal(source->result, -EACCES);
	assert_int_equal(destination->result, -ETIMEDOUT);
	expect_words(source, at_source);
	expect_words(destination, at_destination);
	part(source);
	part(destination);
}

/* ---- certificates ---- */

static void test_both_prove_themselves(void **state)
{
	static const char *const hosts[] = {"localhost", "127.0.0.1", "[::1]"};
	struct side source = {.options = with("source")};
	struct side destination = {.options = with("destination")};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(hosts); i++)
		expect_let_in(&source, &destination, hosts[i]);
	/* A name of one's choice. */
	forget(&destination.options);
	destination.options = with("elsewhere");
	source.options.peer_name = "elsewhere.example";
	expect_let_in(&source, &destination, "localhost");
	destination.options.peer_name = "source";
	expect_let_in(&source, &destination, "localhost");
	forget(&source.options);
	forget(&destination.options);
}

static void test_destination_that_cannot_be_trusted(void **state)
{
	static const struct {
		const char *name;
		const char *at_source;
		const char *at_destination;
	} wrong[] = {
		{"stranger", "(CN=stranger) is not signed by an authority of", "not signed by an"},
		{"self", "(CN=self) is not signed by an authority of", "not signed by an"},
		{"expired", "(CN=expired) has expired on 20", "by its clock it has expired"},
		{"future", "(CN=future) is not valid before 20", "or is not valid yet"},
		{"elsewhere", "(CN=elsewhere) does not bear the name 'localhost'",
		 "does not bear the name"},
		{"client-only", "(CN=client-only) was not made for a TLS server",
		 "not made for this purpose"},
		{"weak", "(CN=weak), or one of an authority above it, has a key that is too short",
		 "its key is too short"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(wrong); i++) {
		struct side source = {.options = with("source")};
		struct side destination = {.options = with(wrong[i].name)};

		expect_refused(&source, &destination, wrong[i].at_source, wrong[i].at_destination);
		expect_words(&source, "the destination at localhost port ");
		expect_words(&destination, destination.options.cert_file);
		forget(&source.options);
		forget(&destination.options);
	}
}

static void test_source_that_cannot_be_trusted(void **state)
{
	static const struct {
		const char *name;
		const char *at_source;
		const char *at_destination;
	} wrong[] = {
		{"stranger", "not signed by an authority that it knows",
		 "(CN=stranger) is not signed by an authority of"},
		{"expired", "by its clock it has expired", "(CN=expired) has expired on 20"},
		{"future", "or is not valid yet", "(CN=future) is not valid before 20"},
		{"elsewhere", "does not bear the name", "does not bear the name 'source.example'"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(wrong); i++) {
		struct side source = {.options = with(wrong[i].name)};
		struct side destination = {.options = with("destination")};

		destination.options.peer_name = "source.example";
		expect_refused(&source, &destination, wrong[i].at_source, wrong[i].at_destination);
		expect_words(&source, source.options.cert_file);
		/* Whichever address the name has first. */
		expect_words(&destination,
			     strstr(destination.err.text, "[::1]:") ? "[::1]:" : "127.0.0.1:");
		forget(&source.options);
		forget(&destination.options);
	}
}

static void test_source_without_certificate_is_let_in_only_when_that_is_said(void **state)
{
	struct side source = {
		.options = {.ca_file = strdup(pki_path(&pki, "ca.pem")), .anonymous_source = true}};
	struct side destination = {.options = with("destination")};

	(void)state;
	expect_refused(&source, &destination, "it wants a certificate of us",
		       "it shows no certificate");
	destination.options.anonymous_source = true;
	expect_let_in(&source, &destination, "localhost");
	/* One that is shown must be good all the same. */
	forget(&source.options);
	source.options = with("stranger");
	expect_refused(&source, &destination, "not signed by an authority that it knows",
		       "is not signed by an authority");
	forget(&source.options);
	source.options = with("source");
	expect_let_in(&source, &destination, "localhost");
	forget(&source.options);
	forget(&destination.options);
}

/* ---- pre-shared keys ---- */

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define KEY_B "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_pre_shared_keys(void **state)
{
	struct side source = {0};
	struct side destination = {0};

	(void)state;
	pki_write(&pki, "both.psk", "alpha:" KEY_A "\n\nbeta:" KEY_B "\n");
	pki_write(&pki, "alpha.psk", "alpha:" KEY_A);
	pki_write(&pki, "wrong.psk", "alpha:" KEY_B "\n");
	pki_write(&pki, "gamma.psk", "gam\tma:" KEY_A "\n");
	destination.options.psk_file = pki_path(&pki, "both.psk");
	source.options.psk_file = pki_path(&pki, "alpha.psk");
	expect_let_in(&source, &destination, "localhost");
	source.options.psk_file = destination.options.psk_file;
	source.options.psk_identity = "beta";
	expect_let_in(&source, &destination, "127.0.0.1");
	source.options.psk_identity = NULL;
	source.options.psk_file = pki_path(&pki, "wrong.psk");
	expect_refused(&source, &destination, "its key for our identity 'alpha' is not the one in",
		       "its key is not the one in");
	source.options.psk_file = pki_path(&pki, "gamma.psk");
	expect_refused(&source, &destination, "it does not know our identity",
		       "its identity 'gam?ma' is not in");
}

/* A source that replaces its keys and speaks in one segment. */
struct rekeying {
	int fd;
	bool gathers;
	size_t size;
	uint8_t bytes[4096];
	uint16_t port;
};

static ssize_t rekeying_push(gnutls_transport_ptr_t arg, const void *data, size_t size)
{
	struct rekeying *source = arg;

	if (!source->gathers)
		return send(source->fd, data, size, MSG_NOSIGNAL);
	assert_true(size <= sizeof(source->bytes) - source->size);
	memcpy(source->bytes + source->size, data, size);
	source->size += size;
	return (ssize_t)size;
}

static ssize_t rekeying_pull(gnutls_transport_ptr_t arg, void *data, size_t size)
{
	return recv(((struct rekeying *)arg)->fd, data, size, 0);
}

static void rekeying_speak(struct rekeying *source, gnutls_session_t session)
{
	static const uint8_t first[QSC_CHANNEL_FIRST_BYTES] = "hello";
	int result;
	uint8_t welcome;

	do
		result = gnutls_handshake(session);
	while (result < 0 && !gnutls_error_is_fatal(result));
	assert_int_equal(result, 0);
	assert_int_equal(gnutls_record_recv(session, &welcome, 1), 1);
	source->gathers = true;
	assert_int_equal(gnutls_session_key_update(session, 0), 0);
	assert_int_equal(gnutls_record_send(session, first, sizeof(first)), sizeof(first));
	assert_int_equal(send(source->fd, source->bytes, source->size, MSG_NOSIGNAL), source->size);
	/* Until the other side has heard enough. */
	(void)recv(source->fd, &welcome, 1, 0);
}

static void *rekeying_run(void *arg)
{
	struct rekeying *source = arg;
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(source->port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	gnutls_datum_t key = {(void *)KEY_A, strlen(KEY_A)};
	gnutls_psk_client_credentials_t psk;
	gnutls_session_t session;

	source->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(source->fd >= 0);
	assert_int_equal(connect(source->fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(gnutls_init(&session, GNUTLS_CLIENT), 0);
	assert_int_equal(gnutls_psk_allocate_client_credentials(&psk), 0);
	assert_int_equal(gnutls_psk_set_client_credentials(psk, "alpha", &key, GNUTLS_PSK_KEY_HEX),
			 0);
	assert_int_equal(gnutls_credentials_set(session, GNUTLS_CRD_PSK, psk), 0);
	assert_int_equal(gnutls_priority_set_direct(
				 session, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK", NULL),
			 0);
	gnutls_transport_set_ptr(session, source);
	gnutls_transport_set_push_function(session, rekeying_push);
	gnutls_transport_set_pull_function(session, rekeying_pull);
	rekeying_speak(source, session);
	gnutls_deinit(session);
	gnutls_psk_free_client_credentials(psk);
	close(source->fd);
	return NULL;
}

static void test_what_comes_with_new_keys_is_read_at_once(void **state)
{
	struct side destination = {0};
	struct rekeying source = {0};
	char buf[QSC_CHANNEL_FIRST_BYTES];
	char address[64];
	pthread_t thread;

	(void)state;
	pki_write(&pki, "alpha.psk", "alpha:" KEY_A);
	destination.options.psk_file = pki_path(&pki, "alpha.psk");
	assert_int_equal(open_side(&destination, "tls:127.0.0.1:0", DESTINATION), 0);
	assert_int_equal(qsc_transport_address(destination.transport, address, sizeof(address)), 0);
	source.port = (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
	assert_int_equal(pthread_create(&thread, NULL, rekeying_run, &source), 0);
	destination.result = destination.transport->ops->open(
		destination.transport, PATIENCE_MS, &destination.channel, &destination.err);
	if (destination.result)
		fail_msg("%s", destination.err.text);
	assert_int_equal(destination.channel->ops->recv(destination.channel, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "hello");
	part(&destination);
	pthread_join(thread, NULL);
}

static void test_certificate_does_not_meet_a_pre_shared_key(void **state)
{
	struct side source = {.options = with("source")};
	struct side destination = {0};

	(void)state;
	pki_write(&pki, "alpha.psk", "alpha:" KEY_A);
	destination.options.psk_file = pki_path(&pki, "alpha.psk");
	meet_at(&source, &destination, "localhost");
	assert_true(source.result < 0);
	expect_words(&source, "both pre-shared keys?");
	expect_words(&destination, "refused");
	part(&source);
	part(&destination);
	forget(&source.options);
}

/* ---- files and options ---- */

static void expect_invalid(const struct qsc_tls_options *tls, enum qsc_transport_role role,
			   int number, const char *words)
{
	const struct qsc_transport_options options = {.tls = *tls};
	struct qsc_transport *transport;
	struct qsc_error err = QSC_ERROR_NONE;
	int result = qsc_transport_open(role == QSC_TRANSPORT_SOURCE ? "tls:localhost:1"
								     : "tls:localhost:0",
					role, &options, &transport, &err);

	if (result != -number || !strstr(err.text, words))
		fail_msg("%d: '%s' without '%s'", result, err.text, words);
}

static void test_contradictions_are_refused(void **state)
{
	static const struct {
		struct qsc_tls_options options;
		enum qsc_transport_role role;
		const char *words;
	} wrong[] = {
		{{0}, SOURCE, "needs certificates"},
		{{.ca_file = "x", .psk_file = "x"}, SOURCE, "not both"},
		{{.psk_identity = "x"}, SOURCE, "an identity without"},
		{{.psk_file = "x", .psk_identity = "x"}, DESTINATION, "every identity"},
		{{.psk_file = "x", .peer_name = "x"}, SOURCE, "not both"},
		{{.psk_file = "x", .anonymous_source = true}, SOURCE, "not both"},
		{{.cert_file = "x", .key_file = "x"}, SOURCE, "needs the authority"},
		{{.ca_file = "x", .cert_file = "x"}, SOURCE, "go together"},
		{{.ca_file = "x", .key_file = "x"}, DESTINATION, "go together"},
		{{.ca_file = "x"}, SOURCE, "unless it asks to be anonymous"},
		{{.ca_file = "x"}, DESTINATION, "a destination needs"},
		{{.ca_file = "x", .anonymous_source = true}, DESTINATION, "a destination needs"},
		{{.ca_file = "x", .cert_file = "x", .key_file = "x", .anonymous_source = true},
		 SOURCE,
		 "and one is given"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(wrong); i++)
		expect_invalid(&wrong[i].options, wrong[i].role, EINVAL, wrong[i].words);
}

static void test_files_that_are_not_what_they_should_be(void **state)
{
	const struct qsc_tls_options good = with("source");
	struct qsc_tls_options options;

	(void)state;
	pki_write(&pki, "empty", "");
	pki_write(&pki, "broken", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
	options = good;
	options.ca_file = pki_path(&pki, "missing");
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, ENOENT, "/missing");
	options.ca_file = pki.folder;
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EISDIR, pki.folder);
	options.ca_file = pki_path(&pki, "empty");
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL, "/empty holds no certificate of an");
	options.ca_file = pki_path(&pki, "broken");
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL,
		       "/broken holds no certificate of an");
	options.ca_file = "/dev/zero";
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL, "too big");
	options = good;
	options.cert_file = pki_path(&pki, "missing");
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, ENOENT, "/missing");
	options.cert_file = good.key_file;
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL, "source.key holds no certificate");
	options = good;
	options.key_file = good.cert_file;
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL, "source.pem holds no private key");
	options.key_file = pki_path(&pki, "stranger.key");
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL, "does not go with the certificate");
	options = good;
	forget(&options);
}

static void test_files_of_pre_shared_keys(void **state)
{
	static const struct {
		const char *text;
		const char *words;
	} wrong[] = {
		{"", "holds no key"},
		{"\n\n", "holds no key"},
		{"alpha", "line 1 of"},
		{":" KEY_A, "the identity is missing"},
		{"\nalpha:xyz\n", "line 2 of"},
		{"alpha:" KEY_A "0", "not hexadecimal"},
		{"alpha:" KEY_A "\r\n", "not hexadecimal"},
		{"alpha:00112233445566778899aabbccddee", "16 to 64 bytes"},
		{"alpha:" KEY_A KEY_A "00", "16 to 64 bytes"},
		{"alpha:" KEY_A "\nbeta:" KEY_B, "say which identity"},
	};
	struct qsc_tls_options options = {.psk_file = strdup(pki_path(&pki, "test.psk"))};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(wrong); i++) {
		pki_write(&pki, "test.psk", wrong[i].text);
		expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL, wrong[i].words);
	}
	options.psk_identity = "gamma";
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, EINVAL, "no key for the identity 'gamma'");
	free((void *)options.psk_file);
	options.psk_file = pki_path(&pki, "missing.psk");
	expect_invalid(&options, QSC_TRANSPORT_SOURCE, ENOENT, "/missing.psk");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_prove_themselves),
		cmocka_unit_test(test_destination_that_cannot_be_trusted),
		cmocka_unit_test(test_source_that_cannot_be_trusted),
		cmocka_unit_test(test_source_without_certificate_is_let_in_only_when_that_is_said),
		cmocka_unit_test(test_pre_shared_keys),
		cmocka_unit_test(test_what_comes_with_new_keys_is_read_at_once),
		cmocka_unit_test(test_certificate_does_not_meet_a_pre_shared_key),
		cmocka_unit_test(test_contradictions_are_refused),
		cmocka_unit_test(test_files_that_are_not_what_they_should_be),
		cmocka_unit_test(test_files_of_pre_shared_keys),
	};
	int failed;

	pki_make(&pki);
	failed = cmocka_run_group_tests_name("tls", tests, NULL, NULL);
	pki_drop(&pki);
	return failed;
}
