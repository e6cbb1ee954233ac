/* Temporary: until the transports land. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <quiesce/transport.h>
int qsc_transport_open(const char *uri, enum qsc_transport_role role,
		       const struct qsc_transport_options *o, struct qsc_transport **t,
		       struct qsc_error *err)
{
	if (strncmp(uri, "unix:", 5))
		return qsc_error_set(err, EINVAL, NULL, "not yet %s", uri);
	return role == QSC_TRANSPORT_SOURCE ? qsc_transport_unix_connect(uri + 5, t, err)
					    : qsc_transport_unix_listen(uri + 5, t, err);
}
bool qsc_transport_is_uri(const char *t)
{
	return !strncmp(t, "unix:", 5) || !strncmp(t, "tcp:", 4) || !strncmp(t, "tls:", 4);
}
int qsc_transport_address(const struct qsc_transport *t, char *text, size_t size)
{
	return -EINVAL;
}
