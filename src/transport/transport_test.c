/* SPDX-License-Identifier: MIT */
/* Unit tests of transports by name: what is a URI, and which options go with which. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <quiesce/transport.h>

static void expect_refusal(const char *uri, enum qsc_transport_role role,
			   const struct qsc_transport_options *options, int number,
			   const char *words)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport = NULL;
	int result = qsc_transport_open(uri, role, options, &transport, &err);

	if (result != -number || !strstr(err.text, words))
		fail_msg("%s: %d, '%s' without '%s'", uri, result, err.text, words);
	assert_null(transport);
	assert_int_equal(qsc_transport_open(uri, role, options, &transport, NULL), -number);
}

static void test_what_is_no_transport_is_refused(void **state)
{
	const struct qsc_transport_options plaintext = {.plaintext = true};
	static const struct {
		const char *uri;
		const char *words;
	} wrong[] = {
		{"", "no transport"},
		{"tcp", "no transport"},
		{"ftp:host:1", "no transport"},
		{" unix:/tmp/x", "no transport"},
		{"unix:", "must have 1 to"},
		{"file:", "no name of a file"},
		{"file:/tmp/", "no name of a file"},
		{"file:..", "no name of a file"},
		{"fd:", "no number"},
		{"fd:-1", "no number"},
		{"fd: 1", "no number"},
		{"fd:1x", "no number"},
		{"fd:99999999999999999999", "no number"},
	};
	static const struct {
		const char *uri;
		const char *words;
	} places[] = {
		{"tcp:", "it has no port"},
		{"tcp:host", "it has no port"},
		{"tcp:host:", "must be a number"},
		{"tcp:host:-1", "must be a number"},
		{"tcp:host:65536", "must be a number"},
		{"tcp:host:123456", "must be a number"},
		{"tcp:host:http", "must be a number"},
		{"tcp:::1:80", "stands in brackets"},
		{"tcp:[]:80", "it has no host"},
		{"tcp:[::1:80", "stands in brackets"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		expect_refusal(wrong[i].uri, QSC_TRANSPORT_SOURCE, NULL, EINVAL, wrong[i].words);
		expect_refusal(wrong[i].uri, QSC_TRANSPORT_DESTINATION, NULL, EINVAL,
			       wrong[i].words);
	}
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		expect_refusal(places[i].uri, QSC_TRANSPORT_SOURCE, &plaintext, EINVAL,
			       places[i].words);
		expect_refusal(places[i].uri, QSC_TRANSPORT_DESTINATION, &plaintext, EINVAL,
			       places[i].words);
	}
	expect_refusal("tcp::80", QSC_TRANSPORT_SOURCE, &plaintext, EINVAL, "it has no host");
	expect_refusal("tcp:host:0", QSC_TRANSPORT_SOURCE, &plaintext, EINVAL, "only who listens");
}

static void test_schemes_are_known_by_their_beginning(void **state)
{
	(void)state;
	assert_true(qsc_transport_is_uri("unix:"));
	assert_true(qsc_transport_is_uri("tcp:a:1"));
	assert_true(qsc_transport_is_uri("tls:"));
	assert_true(qsc_transport_is_uri("file:x"));
	assert_true(qsc_transport_is_uri("fd:0"));
	assert_false(qsc_transport_is_uri("vfio-user:/tmp/a.sock"));
	assert_false(qsc_transport_is_uri("unix"));
	assert_false(qsc_transport_is_uri(""));
}

static void test_plaintext_is_never_silent(void **state)
{
	(void)state;
	expect_refusal("tcp:127.0.0.1:4444", QSC_TRANSPORT_SOURCE, NULL, EPERM, "in clear");
	expect_refusal("tcp:127.0.0.1:0", QSC_TRANSPORT_DESTINATION, NULL, EPERM, "in clear");
}

static void test_options_that_do_not_belong_are_refused(void **state)
{
	const struct qsc_transport_options tls = {.tls.ca_file = "/nonexistent"};
	const struct qsc_transport_options tls_and_plain = {.plaintext = true,
							    .tls.psk_file = "/nonexistent"};
	const struct qsc_transport_options plaintext = {.plaintext = true};
	const struct qsc_transport_options spool = {.spool_directory = "/tmp"};

	(void)state;
	expect_refusal("unix:/tmp/x", QSC_TRANSPORT_SOURCE, &tls, EINVAL, "options of TLS");
	expect_refusal("tcp:localhost:1", QSC_TRANSPORT_SOURCE, &tls_and_plain, EINVAL,
		       "options of TLS");
	expect_refusal("tls:localhost:1", QSC_TRANSPORT_SOURCE, &tls_and_plain, EINVAL,
		       "plaintext");
	expect_refusal("file:x", QSC_TRANSPORT_DESTINATION, &plaintext, EINVAL, "plaintext");
	expect_refusal("file:x", QSC_TRANSPORT_DESTINATION, &spool, EINVAL, "spool directory");
	expect_refusal("fd:0", QSC_TRANSPORT_SOURCE, &spool, EINVAL, "spool directory");
}

static void test_only_a_listener_on_tcp_has_an_address(void **state)
{
	const struct qsc_transport_options plaintext = {.plaintext = true};
	struct qsc_transport *transport;
	char text[64];

	(void)state;
	assert_int_equal(qsc_transport_open("tcp:127.0.0.1:0", QSC_TRANSPORT_DESTINATION,
					    &plaintext, &transport, NULL),
			 0);
	assert_int_equal(qsc_transport_address(transport, text, sizeof(text)), 0);
	assert_memory_equal(text, "127.0.0.1:", 10);
	assert_string_not_equal(text, "127.0.0.1:0");
	assert_int_equal(qsc_transport_address(transport, text, 10), -ENOSPC);
	qsc_transport_close(transport);
	assert_int_equal(qsc_transport_open("unix:/nonexistent", QSC_TRANSPORT_SOURCE, NULL,
					    &transport, NULL),
			 0);
	assert_int_equal(qsc_transport_address(transport, text, sizeof(text)), -EINVAL);
	qsc_transport_close(transport);
	qsc_transport_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_no_transport_is_refused),
		cmocka_unit_test(test_schemes_are_known_by_their_beginning),
		cmocka_unit_test(test_plaintext_is_never_silent),
		cmocka_unit_test(test_options_that_do_not_belong_are_refused),
		cmocka_unit_test(test_only_a_listener_on_tcp_has_an_address),
	};

	return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}
