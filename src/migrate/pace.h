/* SPDX-License-Identifier: MIT */
/*
 * The bandwidth limit of a migration: a token bucket that all channels share. Bytes go out in
 * pieces, each after those before it have had their time, so that no channel waits long for its
 * turn and a slow limit is not taken for a stalled connection. What was late is made good for up to
 * QSC_PACE_CREDIT_US, so the average holds although sleeping is never exact; over a second that is
 * at most two percent more.
 *
 * Threads: any number of lanes send at once.
 */
#ifndef QSC_MIGRATE_PACE_H
#define QSC_MIGRATE_PACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/transport.h>

#define QSC_PACE_CREDIT_US 16000
/* Bytes a second below which a channel might wait for seconds while others have their turn. */
#define QSC_PACE_LEAST 65536U

struct qsc_pace {
	const struct qsc_env *env;
	uint64_t bytes_per_second; /* 0: no limit */
	bool (*hurried)(void *ctx);
	void *ctx; /* of hurried */
	pthread_mutex_t lock;
	double free_us; /* when all bytes that were let out have had their time */
};

/*
 * `hurried` is asked by whoever waits, several times in 100 ms, by any number of threads at once.
 * Once it is true nobody waits any more: what is under way goes out at once, so that the other side
 * finds whole frames and the reason behind them.
 */
void qsc_pace_init(struct qsc_pace *pace, const struct qsc_env *env, uint64_t bytes_per_second,
		   bool (*hurried)(void *ctx), void *ctx);
void qsc_pace_release(struct qsc_pace *pace);

/* Wait until so many bytes may go out. */
void qsc_pace_wait(struct qsc_pace *pace, uint64_t bytes);

/* Send on a channel within the limit. As its send(). */
int qsc_pace_send(struct qsc_pace *pace, struct qsc_channel *ch, const struct iovec *iov,
		  int iovcnt);

#endif
