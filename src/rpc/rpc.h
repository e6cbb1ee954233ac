/* SPDX-License-Identifier: MIT */
/*
 * One vfio-user connection, the same on both sides: calls that wait for their reply, and commands
 * that the peer sends. Several threads may call at once; one of those that wait receives for all
 * (it leads), and hands that role on when its own reply has come, so that a lone caller costs one
 * send and one receive and no other thread is woken. Nothing is allocated after create, and
 * everything a peer can make wait has a deadline.
 *
 * A connection breaks once: at the end of the stream, at an error, at a deadline, at a message that
 * cannot be. From then on everything answers -ENOTCONN at once.
 */
#ifndef QSC_RPC_RPC_H
#define QSC_RPC_RPC_H

#include <pthread.h>
#include <sys/uio.h>

#include "wire/stream.h"

#define QSC_RPC_CALLS 64

struct qsc_rpc;

/* A request and where its reply goes. The caller fills the first part. */
struct qsc_call {
	uint16_t command;
	size_t min_size;   /* of the reply's body; less is malformed */
	void *fixed;	   /* its first fixed_size bytes */
	size_t fixed_size; /* may be 0 */
	void *data;	   /* what follows them, at most data_max bytes; more is malformed */
	size_t data_max;
	int *fds; /* descriptors that came with it; the caller's from then on */
	size_t max_fds;
	uint64_t until_us; /* CLOCK_MONOTONIC: no later than that; 0: the connection's own deadline
			    */

	int result;  /* 0, or -errno that the peer answered */
	size_t body; /* bytes of the reply's body */
	size_t num_fds;
	unsigned int slot;
	uint16_t id;
	uint64_t deadline_us;
	bool done;
	bool expired;
	bool extended; /* its deadline, once: see qsc_rpc_overdue() */
	bool diverted; /* its data are being received straight into place */
};

/*
 * A command came. Called by whoever receives, with no lock held; the message lies in the receive
 * buffer. Returns 0, or -errno to break the connection.
 */
typedef int qsc_rpc_command_fn(void *ctx, struct qsc_rpc *rpc, const struct qsc_message *message);

struct qsc_rpc_options {
	int fd;		      /* taken over, also on failure */
	uint32_t max_message; /* bytes of the largest message that may come */
	size_t slack;	      /* bytes of the receive buffer beyond that */
	/*
	 * Bytes to receive before it is known what comes; the rest of a long reply then goes
	 * straight to where its call wants it. 0: as much as fits.
	 */
	size_t receive_max;
	size_t max_fds; /* with one message, at most QSC_STREAM_MAX_FDS */
	/*
	 * Bytes that may be on their way to the peer before a send has to wait for it, as far as
	 * the system lets us; 0: what the system thinks. For a side that sends much at once.
	 */
	int send_buffer;
	bool no_command_fds;	  /* only replies to calls that take descriptors bring any */
	uint32_t call_timeout_ms; /* for a reply */
	/*
	 * a thread of its own keeps the deadlines of calls: for a side that calls often,
	 * since a timer in every receive is several percent of a call.
	 */
	bool watchdog;
	uint32_t message_timeout_ms; /* first byte to last, received or sent */
	bool poll;		     /* spin instead of sleeping */
	qsc_rpc_command_fn *command; /* NULL: commands wait for qsc_rpc_next() */
	void *ctx;
};

int qsc_rpc_create(const struct qsc_rpc_options *options, struct qsc_rpc **out);
/* No call may be under way. NULL is allowed. */
void qsc_rpc_destroy(struct qsc_rpc *rpc);

/* Give the connection up: every call returns. Any thread. */
void qsc_rpc_shutdown(struct qsc_rpc *rpc);
bool qsc_rpc_broken(struct qsc_rpc *rpc);

/*
 * Say that nothing more will be sent and wait until the peer has let go as well, at most
 * timeout_ms. For the end of a connection: no call may be under way.
 */
void qsc_rpc_farewell(struct qsc_rpc *rpc, uint32_t timeout_ms);

/*
 * When both ends know QSC_WIRE_PLAIN: send it, and keep the promise; heed the peer's. Before
 * anything else is under way.
 */
void qsc_rpc_promise_plain(struct qsc_rpc *rpc);
void qsc_rpc_trust_plain(struct qsc_rpc *rpc);

/* How long a reply may take from now on. Before anything else is under way. */
int qsc_rpc_set_call_timeout(struct qsc_rpc *rpc, uint32_t timeout_ms);

/* Largest message from now on, within what create was given. Before anything else is under way. */
void qsc_rpc_set_max_message(struct qsc_rpc *rpc, uint32_t max_message);

/*
 * Send a request and wait for its reply. iov[0] begins with a struct qsc_wire_header, which is
 * filled in here. 0 and call->result, -ETIMEDOUT when no reply came in time, -EPROTO when it was
 * not one, -EMFILE when descriptors of it were lost for want of room, -ENOTCONN.
 */
int qsc_rpc_call(struct qsc_rpc *rpc, struct qsc_call *call, struct iovec *iov, size_t iovcnt,
		 const int *fds, size_t num_fds);

/*
 * The two halves of a call, to have several under way in one thread: what was begun must be
 * finished, in any order, before its memory is used for something else.
 */
int qsc_rpc_begin(struct qsc_rpc *rpc, struct qsc_call *call, struct iovec *iov, size_t iovcnt,
		  const int *fds, size_t num_fds);
int qsc_rpc_finish(struct qsc_rpc *rpc, struct qsc_call *call);

/* Send a request that has no reply. */
int qsc_rpc_post(struct qsc_rpc *rpc, uint16_t command, struct iovec *iov, size_t iovcnt);

/* Send a message whose header is complete. 0 or -errno, then the connection is broken. */
int qsc_rpc_send(struct qsc_rpc *rpc, struct iovec *iov, size_t iovcnt, const int *fds,
		 size_t num_fds);

/* Answer a command: `size` bytes whose first 16 are filled in here, or an error (negative). */
int qsc_rpc_reply(struct qsc_rpc *rpc, const struct qsc_wire_header *command, void *message,
		  size_t size, const int *fds, size_t num_fds);
/*
 * The same in parts, at most 64, of which the first begins with those 16 bytes. Part i rests when
 * bit i of `resting` is set: it keeps its contents until the peer has received them, which may be
 * long after this has returned; so it need not be copied. A peer that takes it by reference, into a
 * pipe, sees what is written there later: nothing of another user's may ever be.
 */
int qsc_rpc_reply_parts(struct qsc_rpc *rpc, const struct qsc_wire_header *command,
			struct iovec *iov, size_t iovcnt, uint64_t resting, const int *fds,
			size_t num_fds);
int qsc_rpc_reply_error(struct qsc_rpc *rpc, const struct qsc_wire_header *command, int error);

/*
 * Wait for the next command, in order; one thread only. deadline_us (CLOCK_MONOTONIC) or 0. The
 * message and its descriptors are there until the next time or the end. 0, -ETIMEDOUT, -ENOTCONN.
 */
int qsc_rpc_next(struct qsc_rpc *rpc, uint64_t deadline_us, struct qsc_message *message,
		 const int **fds, size_t *num_fds);

/*
 * Receive for as long as the connection stands, on behalf of the command callback: the whole life
 * of a thread of its own. With `shared`, only while no call waits for a reply.
 */
void qsc_rpc_serve(struct qsc_rpc *rpc, bool shared);

uint64_t qsc_rpc_now_us(void);

#endif
