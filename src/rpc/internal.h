/* SPDX-License-Identifier: MIT */
/* What the halves of the module share: the structure, and moving bytes with a deadline. */
#ifndef QSC_RPC_INTERNAL_H
#define QSC_RPC_INTERNAL_H

#include <stdatomic.h>

#include "rpc/rpc.h"

struct qsc_rpc {
	int fd;
	bool poll;
	uint32_t call_timeout_ms;
	uint32_t message_timeout_ms;
	size_t max_fds;
	qsc_rpc_command_fn *command;
	void *ctx;
	size_t mapped; /* bytes of the receive buffer */
	size_t receive_max;

	pthread_mutex_t send_lock; /* one message at a time; never taken inside `lock` */

	pthread_mutex_t lock; /* all below */
	pthread_cond_t idle;  /* for who waits for a command, a free slot, or the leader's role */
	unsigned int idlers;
	unsigned int taking_fds; /* calls that take descriptors, under way or about to be */
	pthread_cond_t turn[QSC_RPC_CALLS]; /* one for each waiting call */
	struct qsc_call *calls[QSC_RPC_CALLS];
	uint64_t busy;	     /* slots in use */
	uint64_t waiting;    /* slots whose owner sleeps */
	uint16_t generation; /* in the high bits of identifiers, so that a late reply is noticed */
	bool leading;	     /* somebody receives */
	bool plain;	     /* no descriptors: a receive that takes none is cheaper */
	bool no_command_fds;
	bool pinned;	     /* a kept command is being worked on where it lies */
	uint64_t partial_us; /* since when a message has been incomplete; 0: none is */
	_Atomic bool ended;  /* the peer has nothing more to send: it may still wait for our end */
	atomic_bool broken;
	struct qsc_wire_stream stream;
	struct qsc_message current; /* the command being worked on, while `pinned` */
	pthread_t watchdog;
	pthread_cond_t watch; /* for the watchdog: deadlines have changed, or it is to end */
	bool watching;
	bool ending;
	int held_fds[QSC_STREAM_MAX_FDS]; /* of the command being worked on */
	size_t num_held;
};

/* Bytes and descriptors of one receive. */
struct qsc_rpc_input {
	size_t size;
	int fds[QSC_STREAM_MAX_FDS];
	size_t num_fds;
	bool ended; /* the peer will send nothing more */
};

/*
 * Receive once. deadline_us 0: for as long as it takes. 0, -ETIMEDOUT, -ENOTCONN at the end or at
 * an error, -EPROTO when more descriptors came than may.
 */
int qsc_rpc_receive(struct qsc_rpc *rpc, struct iovec *iov, size_t iovcnt, uint64_t deadline_us,
		    struct qsc_rpc_input *input);

/* Send everything, within the message deadline. */
int qsc_rpc_transmit(struct qsc_rpc *rpc, struct iovec *iov, size_t iovcnt, const int *fds,
		     size_t num_fds);

#endif
