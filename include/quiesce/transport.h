/* SPDX-License-Identifier: MIT */
/*
 * Transports: where the two sides of a migration meet. A transport gives channels; a channel is an
 * ordered, reliable stream of bytes. There are UNIX sockets, TCP, TLS over TCP, and a file or pipe,
 * which is a stream that nobody answers. A program may bring its own by filling in the operations.
 *
 * Threads: a transport is used by one thread at a time. Of a channel one thread sends and one
 * receives at a time; set_limits, set_watch, settle and close come while nobody does either;
 * shutdown may come from any thread until close and wakes both.
 */
#ifndef QUIESCE_TRANSPORT_H
#define QUIESCE_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <quiesce/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what a transport provides ---- */

/* A source sends at least so many bytes on every channel that it opens, at once. */
#define QSC_CHANNEL_FIRST_BYTES 40

struct qsc_channel {
	const struct qsc_channel_ops *ops;
};

/*
 * Whom a wait asks whether it still has to go on: look() is called several times a second by
 * whichever thread waits, and must not wait itself. Negative (-ECANCELED) ends the wait, and the
 * call that waits fails with it.
 */
struct qsc_watch {
	int (*look)(void *ctx);
	void *ctx;
};

struct qsc_channel_ops {
	/* All of it, or -errno; -ETIMEDOUT when a limit was passed, -EPIPE when it is cut. */
	int (*send)(struct qsc_channel *ch, const struct iovec *iov, int iovcnt);
	/*
	 * Exactly size bytes; -EPIPE when the other side ended; -ETIMEDOUT as above; -EBADMSG for
	 * what a transport that protects its bytes finds altered. NULL: nobody answers, what is
	 * sent is kept (a file).
	 */
	int (*recv)(struct qsc_channel *ch, void *buf, size_t size);
	/*
	 * No byte of a later call may stall longer than stall_ms (0: for ever), and no call lasts
	 * beyond deadline_us of qsc_env.now_us (0: none).
	 */
	void (*set_limits)(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us);
	/*
	 * The set changes hands now. A channel that nobody answers makes everything durable and
	 * final; one that reads what was kept sees to it that nobody reads it again. NULL: the two
	 * sides agree by themselves. -errno: it does not change hands, nothing can be read (the
	 * file may still be read by a later attempt); -ENOTRECOVERABLE: nobody can tell. Once only.
	 */
	int (*settle)(struct qsc_channel *ch, struct qsc_error *err);
	void (*shutdown)(struct qsc_channel *ch);
	void (*close)(struct qsc_channel *ch);
	/* Ask it in every wait from now on; borrowed; NULL: nobody. Without this operation a wait
	 * hears of nothing before it ends. */
	void (*set_watch)(struct qsc_channel *ch, const struct qsc_watch *watch);
};

/* Where channels come from: connecting on the source, listening on the destination. */
struct qsc_transport {
	const struct qsc_transport_ops *ops;
};

struct qsc_transport_ops {
	const char *name; /* "unix"; static storage */
	/* How many channels it can give for one migration; 0: as many as are wanted. */
	uint32_t max_channels;
	/*
	 * One more channel to the other side, within timeout_ms (0: for ever), else -ETIMEDOUT. The
	 * caller owns it. A listener had better hand out only connections whose first bytes have
	 * come, so that one that stays silent delays nobody. -EINPROGRESS: not within that time,
	 * and something did come of which the channel is made (a file that is being checked): ask
	 * again, the other side is not silent.
	 */
	int (*open)(struct qsc_transport *transport, uint32_t timeout_ms, struct qsc_channel **ch,
		    struct qsc_error *err);
	void (*close)(struct qsc_transport *transport);
	/* Of open(), as that of a channel. NULL for one that waits for a moment at most. */
	void (*set_watch)(struct qsc_transport *transport, const struct qsc_watch *watch);
};

/* NULL is allowed. Channels that were handed out stay open. */
QSC_API void qsc_transport_close(struct qsc_transport *transport);

/* ---- by name ---- */

enum qsc_transport_role {
	QSC_TRANSPORT_SOURCE,	   /* connects; writes the file */
	QSC_TRANSPORT_DESTINATION, /* listens; reads the file */
};

/*
 * How TLS proves who is there; strings are borrowed until the transport is open. Either X.509 or
 * a pre-shared key, never both, never neither. Both sides prove themselves unless that is waived.
 */
struct qsc_tls_options {
	/* X.509, PEM files: authorities that the other side must come from, and what we show. */
	const char *ca_file;
	const char *cert_file;
	const char *key_file;
	/*
	 * Name that the other side's certificate must bear. Default: the source wants the host that
	 * it connects to; the destination takes any that its authorities have signed.
	 */
	const char *peer_name;
	/*
	 * X.509: the source shows no certificate, the destination serves also one that shows none;
	 * it may be anybody. Without it both must have cert_file and key_file.
	 */
	bool anonymous_source;
	/*
	 * Lines "identity:hexadecimal key", as psktool writes them. The source uses the identity
	 * psk_identity, or the only one in the file; the destination takes each of them.
	 */
	const char *psk_file;
	const char *psk_identity;
};

struct qsc_transport_options {
	struct qsc_tls_options tls;
	/* tcp: is taken only with this: everything in memory would go over the network in clear. */
	bool plaintext;
	/*
	 * Destination that reads fd:, folder for an unnamed file with what has to be checked first
	 * (NULL: TMPDIR, else /var/tmp).
	 */
	const char *spool_directory;
};

/*
 * unix:PATH  tcp:HOST:PORT  tls:HOST:PORT  file:PATH  fd:NUMBER
 *
 * HOST is a name or an address, [ADDRESS] for IPv6; a destination may leave it out (tcp::4444) and
 * use port 0. fd: is a pipe or, for a source, file that is open already; it stays the caller's: a
 * destination takes no file by it, since nobody could rename that. options may be NULL. Names are
 * resolved here and all that options name is read; connecting happens when the migration begins;
 * listening, making a file beside PATH to write, and locking one to read, at once. -EINVAL for what
 * is no transport, options that do not belong to it or contradict one another, and files of TLS
 * that are not what they should be; -EPERM for tcp: without plaintext; -EADDRNOTAVAIL for a host
 * without address; -EEXIST for a file that would have to be replaced; -EBUSY for one that somebody
 * else reads; -ENOENT and others as the file or socket calls, with the name in err.
 */
QSC_API int qsc_transport_open(const char *uri, enum qsc_transport_role role,
			       const struct qsc_transport_options *options,
			       struct qsc_transport **transport, struct qsc_error *err);

/* Whether the text begins as one of the above. Never fails. */
QSC_API bool qsc_transport_is_uri(const char *text);

/*
 * Where a listening tcp: or tls: destination can be reached, "127.0.0.1:4444"; the first, where a
 * host has several addresses. -EINVAL for any other transport, -ENOSPC when size is too small.
 */
QSC_API int qsc_transport_address(const struct qsc_transport *transport, char *text, size_t size);

/*
 * UNIX socket at a path: what unix:PATH does. The listener makes the socket file and removes it
 * when closed; a file that a dead listener left is replaced. -EINVAL for a path that is too long,
 * -ENOMEM; listen also -EADDRINUSE where somebody listens, or as socket(2), bind(2).
 */
QSC_API int qsc_transport_unix_connect(const char *path, struct qsc_transport **transport,
				       struct qsc_error *err);
QSC_API int qsc_transport_unix_listen(const char *path, struct qsc_transport **transport,
				      struct qsc_error *err);

/* ---- a file that holds a set ---- */

/*
 * File format (file: and fd:): "QSCSAVE\0", u32 major, u32 minor, the bytes of the one channel, and
 * at the end "QSCEND\0\0", u64 number of those bytes, XXH3-128 of everything before it (low half
 * first); all little-endian. It is written under a temporary name beside PATH, synced and renamed
 * when the set changes hands, so PATH never is anything but whole, and a PATH that exists is never
 * replaced: it may be the only copy of another set. It is read only after all of it was checked: a
 * truncated or altered one is refused before anything else happens (-EBADMSG, another major
 * version -EPROTONOSUPPORT), and what changes later is found when it is read; a pipe is first
 * copied to an unnamed file for that. When the set is taken over from file:PATH, PATH becomes
 * PATH.restored, so that a set is not started twice by mistake (SET-5). A transport of this kind
 * gives one channel, once (-EBUSY).
 */

#ifdef __cplusplus
}
#endif
#endif
