/* SPDX-License-Identifier: MIT */
/*
 * Test support: both sides of a migration in one process, each in a thread, with scripted devices
 * (set/fake.h) and a user who notes what was called, over a UNIX socket; and what must hold when
 * they have moved, and when they have not.
 */
#ifndef QSC_MIGRATE_SIDES_H
#define QSC_MIGRATE_SIDES_H

#include <stdatomic.h>

#include <quiesce/migrate.h>

#include "set/fake.h"

#define SIDES_MEMBERS 3
#define SIDES_PAGES   300
#define SIDES_STATE   100000

struct side {
	struct qsc_set *set;
	struct qsc_timeline *timeline;
	struct fake *fakes[SIDES_MEMBERS];
	uint8_t *memory;
	struct qsc_memory_region region;
	struct qsc_migrate_user user;
	struct qsc_migrate_options options;
	struct qsc_migrate_report report;
	struct qsc_error err;
	struct qsc_transport *transport;
	int result;
	/* What the user's callbacks saw and do. */
	bool paused;
	bool resumed;
	bool loaded;
	bool irqs_in_stop;
	uint32_t collects;
	int fail_pause, fail_load, fail_irqs, fail_resume;
	uint32_t cancel_after; /* calls of progress; 0: never */
	_Atomic(bool) finished;
	struct fixture *fixture;
};

struct fixture {
	struct fake_world world;
	struct order_set shape;
	struct side sides[2];
	char path[64];
};

extern const uint32_t sides_p2p_flags[SIDES_MEMBERS];	/* all that there is */
extern const uint32_t sides_mixed_flags[SIDES_MEMBERS]; /* with nothing; P2P only */

/* `flags` are the members' migration flags. Side 0 is the source. */
void sides_make(struct fixture *f, const uint32_t *flags, bool dirty_log);
void sides_drop(struct fixture *f);

/* Both sides at once, until both have ended. */
void sides_migrate(struct fixture *f);
/* The destination alone, as a thread would: closes its transport, too. */
void *sides_run_destination(void *arg);

/* -1, or the clause that the events broke. */
int sides_judge(struct fixture *f);
void sides_all_in(const struct side *side, enum qsc_state state);
void sides_expect_moved(struct fixture *f);
/* Nothing is lost: the source goes on as if nothing had been. `number` is its errno. */
void sides_expect_source_goes_on(struct fixture *f, int number);

#endif
