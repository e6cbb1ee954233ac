/* SPDX-License-Identifier: MIT */
/* See tls.h. */
#include "transport/tls.h"

#include <errno.h>

#include "base/fd.h"

int qsc_tls_create(const struct qsc_tls_options *options, enum qsc_transport_role role,
		   struct qsc_tls **tls, struct qsc_error *err)
{
	return qsc_error_set(err, EPROTONOSUPPORT, NULL, "this library was built without TLS");
}

void qsc_tls_put(struct qsc_tls *tls)
{
}

struct qsc_socket *qsc_tls_socket_create(struct qsc_tls *tls, int fd, const char *host)
{
	qsc_fd_close(&fd);
	return NULL;
}
