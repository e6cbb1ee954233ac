/* SPDX-License-Identifier: MIT */
/*
 * How long the stop would take were it to begin now, from what was measured so far, and whether
 * more passes of pre-copy will make it fit its limit. Pure: numbers in, numbers and a sentence out;
 * the engine measures (send.c) and obeys.
 */
#ifndef QSC_MIGRATE_PREDICT_H
#define QSC_MIGRATE_PREDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/migrate.h>

/* ---- measurements ---- */

/*
 * Bytes over time, smoothed: what is older than a sample counts at most half of it, or half of
 * QSC_RATE_WINDOW_US when the sample is shorter than that. So a long first pass does not outweigh
 * the short ones that follow, and a very short one does not overturn everything.
 */
struct qsc_rate {
	double bytes;
	double us; /* 0: nothing is known */
};

#define QSC_RATE_WINDOW_US 100000

void qsc_rate_add(struct qsc_rate *rate, uint64_t bytes, uint64_t us);
/* Bytes a second, at least 1 where anything is known; 0 where nothing is. */
uint64_t qsc_rate_per_second(const struct qsc_rate *rate);

/* A time that is measured again and again; the newest counts for half. */
struct qsc_time {
	uint64_t us;
	bool known;
};

void qsc_time_add(struct qsc_time *time, uint64_t us);

/* ---- the prediction ---- */

struct qsc_predict_member {
	const char *name;      /* borrowed */
	uint64_t left;	       /* bytes of state that another pass would move */
	uint64_t fixed;	       /* bytes of state that move only after the stop */
	struct qsc_rate read;  /* how fast the device gives its state when it is asked */
	struct qsc_rate dirty; /* of its state, written again */
	struct qsc_rate dma;   /* of memory, written again, as far as its log tells */
	/*
	 * What it takes to tell how much state is left. A device that looks through its memory for
	 * that, because others write it too, does so once more when it stops, and its counterpart
	 * when it starts; a fresh one has nothing to look through. Measured while `askers` of them
	 * did so side by side, as in a wave, where they share the processors.
	 */
	struct qsc_time look;
};

struct qsc_predict {
	uint64_t limit_us;
	uint64_t bandwidth; /* the option; 0: no limit */
	bool no_precopy;    /* the option */
	/*
	 * Channels that carry devices' streams; where memory has no channel to itself it takes its
	 * turn among them.
	 */
	uint32_t lanes;
	bool memory_shares_lane;

	/*
	 * What was measured of every part but TRANSFER, which follows from the bytes; COMMIT is a
	 * message to the destination and its answer. What is not known is assumed.
	 */
	struct qsc_time part[QSC_DOWNTIME_PARTS];
	struct qsc_rate link; /* all channels together, until the destination has it in place */

	uint64_t memory_bytes; /* all there is */
	uint64_t memory_left;  /* dirty now */
	const char *untracked; /* who writes memory without telling, so that all of it moves after
				  the stop (ORD-7); or NULL */
	struct qsc_rate user;  /* of memory, written again by the user itself */

	struct qsc_predict_member *members; /* borrowed */
	uint32_t num_members;
	uint32_t askers; /* how many members were asked at a time; 0 counts as 1 */

	/* Kept by qsc_predict_judge(). */
	uint64_t least_us; /* least stop that was predicted so far; 0: none was */
	uint64_t mark_us;  /* prediction and bytes left when there was progress last */
	uint64_t mark_left;
	uint32_t barren; /* passes since */
};

/* So many members at most are asked side by side. */
#define QSC_PREDICT_ASKERS 8
/* Where no link was measured and no bandwidth is set: bytes a second. */
#define QSC_PREDICT_LINK (1ULL << 30)
/* A pass that brings prediction or bytes down by this part of the last mark is progress. */
#define QSC_PREDICT_PROGRESS 16
/* So many passes in a row without progress: there will be none. */
#define QSC_PREDICT_PATIENCE 4

/* What is taken for a part that was never measured. */
uint64_t qsc_predict_assumed_us(enum qsc_downtime_part part);

/* Bytes that another pass would move, and that are written again each second. */
uint64_t qsc_predict_left(const struct qsc_predict *predict);
uint64_t qsc_predict_dirty_per_second(const struct qsc_predict *predict);

/* Of the link, the bandwidth limit kept. */
uint64_t qsc_predict_link_per_second(const struct qsc_predict *predict);

/* Were it stopped now. */
void qsc_predict_stop(const struct qsc_predict *predict, struct qsc_downtime *downtime);

enum qsc_predict_verdict {
	QSC_PREDICT_FITS,
	QSC_PREDICT_CONVERGES, /* not yet, and more passes may bring it there */
	QSC_PREDICT_NEVER,     /* the rule of <quiesce/migrate.h> */
};

/* After each pass, with the prediction for its end. */
enum qsc_predict_verdict qsc_predict_judge(struct qsc_predict *predict,
					   const struct qsc_downtime *downtime);

/*
 * One sentence, without full stop: why this stop does not fit, who writes how fast against which
 * rate, the least stop that was in reach, and what to do.
 */
void qsc_predict_explain(const struct qsc_predict *predict, const struct qsc_downtime *downtime,
			 char *text, size_t size);

/* A time as a person reads it: "850 us", "2.5 ms", "1500 ms". */
const char *qsc_predict_time_text(uint64_t us, char text[32]);

/* (measured - predicted) / measured in permille; 0 for a stop that took no time. */
int32_t qsc_predict_error(const struct qsc_downtime *predicted,
			  const struct qsc_downtime *measured);

#endif
