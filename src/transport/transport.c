/* SPDX-License-Identifier: MIT */
/* Transports by their names, and which options go with which. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quiesce/transport.h>

#include "base/cleanup.h"
#include "transport/file.h"
#include "transport/inet.h"
#include "transport/listener.h"
#include "transport/tls.h"

/* One opening: what was asked, and where the result goes. */
struct request {
	const char *rest; /* of the URI, behind its scheme */
	enum qsc_transport_role role;
	const struct qsc_transport_options *options;
	struct qsc_transport **transport;
};

static int open_unix(const struct request *request, struct qsc_error *err)
{
	return request->role == QSC_TRANSPORT_SOURCE
		       ? qsc_transport_unix_connect(request->rest, request->transport, err)
		       : qsc_transport_unix_listen(request->rest, request->transport, err);
}

static int open_inet(const struct request *request, struct qsc_tls *tls, struct qsc_error *err)
{
	return request->role == QSC_TRANSPORT_SOURCE
		       ? qsc_inet_connect(request->rest, tls, request->transport, err)
		       : qsc_inet_listen(request->rest, tls, request->transport, err);
}

static int open_tcp(const struct request *request, struct qsc_error *err)
{
	if (!request->options->plaintext)
		return qsc_error_set(err, EPERM, NULL,
				     "tcp: sends everything in memory over the network in clear: "
				     "use tls:, or ask for plaintext explicitly");
	return open_inet(request, NULL, err);
}

static int open_tls(const struct request *request, struct qsc_error *err)
{
	struct qsc_tls *tls;
	int result = qsc_tls_create(&request->options->tls, request->role, &tls, err);

	return result < 0 ? result : open_inet(request, tls, err);
}

static int open_file(const struct request *request, struct qsc_error *err)
{
	return request->role == QSC_TRANSPORT_SOURCE
		       ? qsc_file_save(request->rest, -1, request->transport, err)
		       : qsc_file_restore(request->rest, -1, NULL, request->transport, err);
}

static int open_fd(const struct request *request, struct qsc_error *err)
{
	char *end;
	long fd;

	errno = 0;
	fd = strtol(request->rest, &end, 10);
	if (request->rest[0] < '0' || request->rest[0] > '9' || *end || errno || fd > INT_MAX)
		return qsc_error_set(err, EINVAL, NULL, "'%.64s' is no number of an open file",
				     request->rest);
	return request->role == QSC_TRANSPORT_SOURCE
		       ? qsc_file_save(NULL, (int)fd, request->transport, err)
		       : qsc_file_restore(NULL, (int)fd, request->options->spool_directory,
					  request->transport, err);
}

static const struct scheme {
	const char *name;
	int (*open)(const struct request *request, struct qsc_error *err);
} schemes[] = {
	{"unix:", open_unix}, {"tcp:", open_tcp}, {"tls:", open_tls},
	{"file:", open_file}, {"fd:", open_fd},
};

static const struct scheme *find_scheme(const char *text)
{
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(schemes); i++)
		if (!strncmp(text, schemes[i].name, strlen(schemes[i].name)))
			return &schemes[i];
	return NULL;
}

static bool has_tls_options(const struct qsc_tls_options *tls)
{
	return tls->ca_file || tls->cert_file || tls->key_file || tls->peer_name ||
	       tls->anonymous_source || tls->psk_file || tls->psk_identity;
}

/* An option that would do nothing is a misunderstanding, and here that may be a costly one. */
static int check_options(const struct scheme *scheme, const struct request *request,
			 struct qsc_error *err)
{
	const struct qsc_transport_options *options = request->options;

	if (has_tls_options(&options->tls) && scheme->open != open_tls)
		return qsc_error_set(err, EINVAL, NULL,
				     "options of TLS do not go with %s, which protects nothing",
				     scheme->name);
	if (options->plaintext && scheme->open != open_tcp)
		return qsc_error_set(err, EINVAL, NULL,
				     "plaintext is allowed with tcp: only, not with %s",
				     scheme->name);
	if (options->spool_directory &&
	    (scheme->open != open_fd || request->role != QSC_TRANSPORT_DESTINATION))
		return qsc_error_set(err, EINVAL, NULL,
				     "a spool directory goes with a destination that reads from "
				     "fd: only");
	return 0;
}

int qsc_transport_open(const char *uri, enum qsc_transport_role role,
		       const struct qsc_transport_options *options,
		       struct qsc_transport **transport, struct qsc_error *err)
{
	static const struct qsc_transport_options none;
	const struct scheme *scheme = find_scheme(uri);
	struct request request = {NULL, role, options ? options : &none, transport};
	int result;

	if (!scheme)
		return qsc_error_set(err, EINVAL, NULL,
				     "'%.128s' is no transport: there are unix:PATH, "
				     "tls:HOST:PORT, tcp:HOST:PORT, file:PATH and fd:NUMBER",
				     uri);
	request.rest = uri + strlen(scheme->name);
	result = check_options(scheme, &request, err);
	return result < 0 ? result : scheme->open(&request, err);
}

bool qsc_transport_is_uri(const char *text)
{
	return find_scheme(text);
}

int qsc_transport_address(const struct qsc_transport *transport, char *text, size_t size)
{
	const struct qsc_listener *listener = qsc_listener_of(transport);

	if (!listener || listener->unlink_path)
		return -EINVAL;
	return snprintf(text, size, "%s", listener->address) < (int)size ? 0 : -ENOSPC;
}

void qsc_transport_close(struct qsc_transport *transport)
{
	if (transport)
		transport->ops->close(transport);
}
