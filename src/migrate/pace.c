/* SPDX-License-Identifier: MIT */
/* See pace.h. */
#include "migrate/pace.h"

#include "base/cleanup.h"

/* A piece takes a 64th of a second, within these bytes. */
#define PIECES_PER_S 64
#define MIN_PIECE    512U
#define MAX_PIECE    (1U << 20)
#define MAX_VECTORS  64
/* Whoever waits looks this often whether it still has to. */
#define LONGEST_SLEEP 20000.0

void qsc_pace_init(struct qsc_pace *pace, const struct qsc_env *env, uint64_t bytes_per_second,
		   bool (*hurried)(void *ctx), void *ctx)
{
	*pace = (struct qsc_pace){
		.env = env, .bytes_per_second = bytes_per_second, .hurried = hurried, .ctx = ctx};
	pthread_mutex_init(&pace->lock, NULL);
}

void qsc_pace_release(struct qsc_pace *pace)
{
	pthread_mutex_destroy(&pace->lock);
}

static double now_us(const struct qsc_pace *pace)
{
	return (double)pace->env->now_us(pace->env->ctx);
}

/* When the bytes may go out; those that come later have to wait for their time. */
static double take(struct qsc_pace *pace, uint64_t bytes)
{
	double now = now_us(pace);
	double when;

	pthread_mutex_lock(&pace->lock);
	if (pace->free_us < now - QSC_PACE_CREDIT_US)
		pace->free_us = now - QSC_PACE_CREDIT_US;
	when = pace->free_us;
	pace->free_us += (double)bytes * 1e6 / (double)pace->bytes_per_second;
	pthread_mutex_unlock(&pace->lock);
	return when;
}

void qsc_pace_wait(struct qsc_pace *pace, uint64_t bytes)
{
	double when;
	double rest;

	if (!pace->bytes_per_second)
		return;
	when = take(pace, bytes);
	while (!pace->hurried(pace->ctx)) {
		rest = when - now_us(pace);
		if (rest < 1)
			return;
		pace->env->sleep_us(pace->env->ctx,
				    (uint64_t)(rest < LONGEST_SLEEP ? rest : LONGEST_SLEEP));
	}
}

/* Take at most `most` bytes off the front of the vectors. */
static int cut(struct iovec *from, int count, uint64_t most, struct iovec *piece, uint64_t *bytes)
{
	int used = 0;
	int i;

	*bytes = 0;
	for (i = 0; i < count && *bytes < most; i++) {
		size_t size = qsc_min_u64(from[i].iov_len, most - *bytes);

		if (!size)
			continue;
		piece[used++] = (struct iovec){from[i].iov_base, size};
		from[i].iov_base = (uint8_t *)from[i].iov_base + size;
		from[i].iov_len -= size;
		*bytes += size;
	}
	return used;
}

static int send_in_pieces(struct qsc_pace *pace, struct qsc_channel *ch, const struct iovec *iov,
			  int iovcnt)
{
	uint64_t most = pace->bytes_per_second / PIECES_PER_S;
	struct iovec rest[MAX_VECTORS];
	struct iovec piece[MAX_VECTORS];
	int i;

	for (i = 0; i < iovcnt; i++)
		rest[i] = iov[i];
	most = most < MIN_PIECE ? MIN_PIECE : qsc_min_u64(most, MAX_PIECE);
	for (;;) {
		uint64_t bytes;
		int count = cut(rest, iovcnt, most, piece, &bytes);
		int result;

		if (!count)
			return 0;
		qsc_pace_wait(pace, bytes);
		result = ch->ops->send(ch, piece, count);
		if (result < 0)
			return result;
	}
}

int qsc_pace_send(struct qsc_pace *pace, struct qsc_channel *ch, const struct iovec *iov,
		  int iovcnt)
{
	int result = 0;

	if (!pace->bytes_per_second)
		return ch->ops->send(ch, iov, iovcnt);
	while (iovcnt > 0 && result == 0) {
		int count = iovcnt < MAX_VECTORS ? iovcnt : MAX_VECTORS;

		result = send_in_pieces(pace, ch, iov, count);
		iov += count;
		iovcnt -= count;
	}
	return result;
}
