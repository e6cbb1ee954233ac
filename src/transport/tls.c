/* SPDX-License-Identifier: MIT */
/* TLS on a socket: see tls.h. Records are gathered, so that a system call carries many of them. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/tls_internal.h"

#define WELCOME 0x51 /* the destination's first byte */

/* First bytes of a record, while shaking hands. */
#define RECORD_ALERT	 21
#define RECORD_HANDSHAKE 22

static struct qsc_tls_socket *tls_of(struct qsc_socket *socket)
{
	return qsc_container_of(socket, struct qsc_tls_socket, socket);
}

/* ---- between gnutls and the socket ---- */

static size_t room(const struct qsc_tls_buffer *buffer)
{
	return sizeof(buffer->bytes) - (buffer->tail - buffer->head);
}

static ssize_t push(gnutls_transport_ptr_t arg, const void *data, size_t size)
{
	struct qsc_tls_socket *tls = arg;
	struct qsc_tls_buffer *out = &tls->out;

	if (room(out) < size) {
		gnutls_transport_set_errno(tls->session, EAGAIN);
		return -1;
	}
	if (sizeof(out->bytes) - out->tail < size) {
		memmove(out->bytes, out->bytes + out->head, out->tail - out->head);
		out->tail -= out->head;
		out->head = 0;
	}
	memcpy(out->bytes + out->tail, data, size);
	out->tail += size;
	return (ssize_t)size;
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *data, size_t size)
{
	struct qsc_tls_socket *tls = arg;
	struct qsc_tls_buffer *in = &tls->in;
	size_t have;
	ssize_t n;

	if (in->head == in->tail) {
		n = tls->has_read ? -EAGAIN
				  : qsc_socket_read(&tls->socket, in->bytes, sizeof(in->bytes));
		tls->has_read = true;
		if (n < 0) {
			if (n != -EAGAIN)
				tls->io_error = (int)n;
			gnutls_transport_set_errno(tls->session, (int)-n);
			return -1;
		}
		if (n > 0 && !tls->heard) {
			tls->heard = true;
			tls->speaks_tls = in->bytes[0] == RECORD_HANDSHAKE ||
					  in->bytes[0] == RECORD_ALERT;
		}
		if (n > 0 && !tls->speaks_tls) {
			gnutls_transport_set_errno(tls->session, EPROTO);
			return -1;
		}
		in->head = 0;
		in->tail = (size_t)n;
	}
	have = in->tail - in->head;
	size = size < have ? size : have;
	memcpy(data, in->bytes + in->head, size);
	in->head += size;
	return (ssize_t)size;
}

/* 0 when nothing is left to send, -EAGAIN. */
static int flush_locked(struct qsc_tls_socket *tls)
{
	struct qsc_tls_buffer *out = &tls->out;

	while (out->head < out->tail) {
		ssize_t n = send(tls->socket.fd, out->bytes + out->head, out->tail - out->head,
				 MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return -EAGAIN;
		if (n < 0)
			return errno == ECONNRESET ? -EPIPE : -errno;
		out->head += (size_t)n;
	}
	out->head = 0;
	out->tail = 0;
	return 0;
}

/* What a number of gnutls means to who sends or receives. */
static int failure(struct qsc_tls_socket *tls, ssize_t number)
{
	switch (number) {
	case GNUTLS_E_AGAIN:
	case GNUTLS_E_INTERRUPTED:
		return -EAGAIN;
	case GNUTLS_E_MEMORY_ERROR:
		return -ENOMEM;
	case GNUTLS_E_PULL_ERROR:
		return tls->io_error ? tls->io_error : -EPIPE;
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
	case GNUTLS_E_SESSION_EOF:
	case GNUTLS_E_INVALID_SESSION:
		return -EPIPE;
	default:
		return gnutls_error_is_fatal((int)number) ? -EBADMSG : -EAGAIN;
	}
}

/*
 * What the socket gave is used up before anybody waits for more of it: a record that only replaces
 * keys has no bytes for the channel, and what came with it is not announced again. The socket is
 * read once, so that one who sends nothing but such records keeps nobody here. A number of gnutls.
 */
static ssize_t receive(struct qsc_tls_socket *tls, void *buf, size_t size)
{
	ssize_t n;

	tls->has_read = false;
	do {
		n = gnutls_record_recv(tls->session, buf, size);
	} while (n < 0 && !gnutls_error_is_fatal((int)n) && tls->in.head < tls->in.tail);
	return n;
}

static ssize_t tls_read(struct qsc_socket *socket, void *buf, size_t size)
{
	struct qsc_tls_socket *tls = tls_of(socket);
	ssize_t n;

	pthread_mutex_lock(&tls->lock);
	n = receive(tls, buf, size);
	if (n < 0)
		n = failure(tls, n);
	pthread_mutex_unlock(&tls->lock);
	return n;
}

/* As many records as the buffer has room for. */
static ssize_t write_records(struct qsc_tls_socket *tls, const struct iovec *iov, int iovcnt)
{
	ssize_t taken = 0;
	int i;

	for (i = 0; i < iovcnt; i++) {
		const uint8_t *bytes = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left) {
			size_t size = left < QSC_TLS_RECORD ? left : QSC_TLS_RECORD;
			ssize_t n;

			if (room(&tls->out) < QSC_TLS_ROOM)
				return taken ? taken : -EAGAIN;
			n = gnutls_record_send(tls->session, bytes, size);
			if (n < 0)
				return failure(tls, n);
			bytes += n;
			left -= (size_t)n;
			taken += n;
		}
	}
	return taken;
}

static ssize_t tls_write(struct qsc_socket *socket, const struct iovec *iov, int iovcnt)
{
	struct qsc_tls_socket *tls = tls_of(socket);
	ssize_t n;
	int flushed;

	pthread_mutex_lock(&tls->lock);
	n = write_records(tls, iov, iovcnt);
	flushed = flush_locked(tls);
	pthread_mutex_unlock(&tls->lock);
	return flushed < 0 && flushed != -EAGAIN ? flushed : n;
}

static int tls_flush(struct qsc_socket *socket)
{
	struct qsc_tls_socket *tls = tls_of(socket);
	int result;

	pthread_mutex_lock(&tls->lock);
	result = flush_locked(tls);
	pthread_mutex_unlock(&tls->lock);
	return result;
}

/* ---- greeting ---- */

/* Shake hands, then the destination gives its word and the source hears it: a number of gnutls. */
static int agree(struct qsc_tls_socket *tls)
{
	const uint8_t welcome = WELCOME;
	uint8_t word = 0;
	ssize_t n;

	while (!tls->shaken) {
		int result;

		tls->has_read = false;
		result = gnutls_handshake(tls->session);
		if (result < 0 && gnutls_error_is_fatal(result))
			return result;
		if (result == GNUTLS_E_AGAIN)
			return result;
		tls->shaken = result == 0;
	}
	if (tls->told)
		return 0;
	if (tls->tls->role == QSC_TRANSPORT_DESTINATION)
		n = gnutls_record_send(tls->session, &welcome, 1);
	else
		n = receive(tls, &word, 1);
	if (n < 0)
		return (int)n;
	if (n == 0)
		return GNUTLS_E_PREMATURE_TERMINATION;
	tls->told = true;
	if (tls->tls->role == QSC_TRANSPORT_SOURCE && word != WELCOME)
		return GNUTLS_E_UNEXPECTED_PACKET;
	return 0;
}

/* Tell the other side why, as far as it can still be told. */
static int give_up(struct qsc_tls_socket *tls, int failed, struct qsc_error *err)
{
	int result = qsc_tls_explain(tls, failed);

	if (failed != GNUTLS_E_FATAL_ALERT_RECEIVED)
		(void)gnutls_alert_send(tls->session, GNUTLS_AL_FATAL, tls->alert);
	(void)flush_locked(tls);
	if (err)
		*err = tls->why;
	return result;
}

static int tls_greet(struct qsc_socket *socket, struct qsc_error *err)
{
	struct qsc_tls_socket *tls = tls_of(socket);
	int agreed;
	int result;

	pthread_mutex_lock(&tls->lock);
	agreed = agree(tls);
	if (agreed < 0 && gnutls_error_is_fatal(agreed)) {
		result = give_up(tls, agreed, err);
	} else {
		result = flush_locked(tls);
		socket->wants = result ? POLLIN | POLLOUT : POLLIN;
		if (result < 0 && result != -EAGAIN)
			(void)qsc_error_set(err, -result, NULL, "it hung up (%s)",
					    strerrordesc_np(-result));
		else if (agreed < 0)
			result = -EAGAIN;
	}
	pthread_mutex_unlock(&tls->lock);
	return result;
}

/* ---- making one ---- */

static void tls_release(struct qsc_socket *socket)
{
	struct qsc_tls_socket *tls = tls_of(socket);

	if (tls->session && socket->greeted) {
		/* A farewell that does not fit at once is none. */
		(void)gnutls_bye(tls->session, GNUTLS_SHUT_WR);
		(void)flush_locked(tls);
	}
	if (tls->session)
		gnutls_deinit(tls->session);
	pthread_mutex_destroy(&tls->lock);
	qsc_tls_put(tls->tls);
	free(tls->host);
}

static const struct qsc_socket_io tls_io = {
	.greet = tls_greet,
	.read = tls_read,
	.write = tls_write,
	.flush = tls_flush,
	.release = tls_release,
};

static int start_session(struct qsc_tls_socket *tls)
{
	struct qsc_tls *keys = tls->tls;
	const bool source = keys->role == QSC_TRANSPORT_SOURCE;
	int result = gnutls_init(&tls->session, (source ? GNUTLS_CLIENT : GNUTLS_SERVER) |
							GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);

	if (result < 0)
		return result;
	gnutls_session_set_ptr(tls->session, tls);
	gnutls_transport_set_ptr(tls->session, tls);
	gnutls_transport_set_push_function(tls->session, push);
	gnutls_transport_set_pull_function(tls->session, pull);
	gnutls_handshake_set_timeout(tls->session, GNUTLS_INDEFINITE_TIMEOUT);
	result = gnutls_priority_set(tls->session, keys->priority);
	if (result < 0)
		return result;
	if (!keys->x509)
		return gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK,
					      source ? (void *)keys->psk_client
						     : (void *)keys->psk_server);
	/* Its authorities are not listed: a source shows what it has, and hears what is wrong. */
	gnutls_certificate_send_x509_rdn_sequence(tls->session, 1);
	if (!source)
		gnutls_certificate_server_set_request(tls->session, keys->anonymous_source
									    ? GNUTLS_CERT_REQUEST
									    : GNUTLS_CERT_REQUIRE);
	return gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, keys->x509);
}

struct qsc_socket *qsc_tls_socket_create(struct qsc_tls *keys, int fd, const char *host)
{
	struct qsc_tls_socket *tls = calloc(1, sizeof(*tls));

	if (!tls || !qsc_socket_init(&tls->socket, fd, &tls_io)) {
		free(tls);
		qsc_fd_close(&fd);
		return NULL;
	}
	pthread_mutex_init(&tls->lock, NULL);
	atomic_fetch_add(&keys->references, 1);
	tls->tls = keys;
	tls->host = host ? strdup(host) : NULL;
	if ((host && !tls->host) || start_session(tls) < 0) {
		qsc_socket_close(&tls->socket);
		return NULL;
	}
	return &tls->socket;
}
