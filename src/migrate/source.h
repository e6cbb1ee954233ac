/* SPDX-License-Identifier: MIT */
/*
 * What the files of the source share: send.c takes the steps of a migration, round.c moves bytes
 * by all lanes, precopy.c measures while everything runs and decides when to stop.
 */
#ifndef QSC_MIGRATE_SOURCE_H
#define QSC_MIGRATE_SOURCE_H

#include "migrate/engine.h"
#include "migrate/predict.h"

/* What a member says of the bytes that it has left. */
struct qsc_source_answer {
	int result;
	uint64_t initial;
	uint64_t dirty;
	uint64_t fixed; /* not of pre-copy */
	uint64_t took_us;
};

/* What was seen of a member when it was asked last. */
struct qsc_source_member {
	struct qsc_source_answer answer;
	uint64_t left;	  /* bytes another pass would move */
	uint64_t moved;	  /* bytes of its stream so far */
	uint64_t read_us; /* spent reading them */
	bool asked;
};

struct source {
	struct qsc_engine engine;
	bool *logging; /* of each member */
	bool touched;  /* something may have to be taken back */
	bool paused;
	bool committed;

	struct qsc_predict predict;
	struct qsc_source_member *members;
	uint64_t *written; /* bytes of memory that each member, and last the user, wrote again */
	uint64_t collected_us; /* when the logs were asked last; 0: never */
	uint64_t sent_us;      /* when the last round was out, and its acknowledgement due */
	uint64_t part_us;      /* when the part of the stop that is under way began */
};

static inline bool qsc_source_in_precopy(const struct qsc_engine *engine, uint32_t member)
{
	return qsc_set_flags(engine->set, member) & QSC_MIGRATION_PRE_COPY &&
	       qsc_set_session(engine->set, member);
}

/* All lanes once, and the destination's word that everything is in place (round.c). */
int qsc_source_send_round(struct source *source, struct qsc_error *err);

/* -ENOMEM; released either way. */
int qsc_source_predict_init(struct source *source, struct qsc_error *err);
/* The negotiation has ended: what it told of the link and of the destination's waves. */
void qsc_source_predict_begin(struct source *source);
void qsc_source_predict_release(struct source *source);

/*
 * Move while everything runs, until the stop is predicted to fit, or will not get shorter: 0 to
 * stop now. -ETIME when it never will fit and must.
 */
int qsc_source_precopy(struct source *source, struct qsc_error *err);

/* A part of the stop ends, and the next one begins. */
void qsc_source_part_ends(struct source *source, enum qsc_downtime_part part);
/* The destination says that it runs, and how long it took to get there. Fills in the report. */
void qsc_source_stop_ends(struct source *source, uint64_t run_us);

#endif
