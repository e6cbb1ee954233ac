/* SPDX-License-Identifier: MIT */
/*
 * One wave: from the true state of every member it is decided where each has to go, and those that
 * have to move there do so side by side (step.c). What is decided, and in which order waves keep
 * the clauses, is wave.c's.
 */
#ifndef QSC_SET_WAVE_H
#define QSC_SET_WAVE_H

#include "set/set.h"

#define QSC_STEP_STAY (-1)

/* What one member does in a wave, and what came of it. */
struct qsc_step {
	struct qsc_set *set;
	uint32_t member;
	const char *phase;
	enum qsc_state before;
	int target; /* a state, or QSC_STEP_STAY */
	bool revoke;
	bool begun; /* the device was told to go, and is yet to be waited for */
	uint64_t start;
	int result;
	int state_result; /* of reading the state after a failure */
	enum qsc_state after;
	const struct qsc_set_mapping *mapping; /* whose removal failed */
};

typedef void qsc_decide_fn(const struct qsc_set_member *member, struct qsc_step *step);

/* A whole wave: 0, or the first failure with its sentence. */
int qsc_wave(struct qsc_set *set, const char *phase, qsc_decide_fn *decide, struct qsc_error *err);

/*
 * Its parts. Steps that know where each member is and do nothing yet: nobody moves before all have
 * told; *out is the caller's to free.
 */
int qsc_wave_read_states(struct qsc_set *set, struct qsc_step **out, struct qsc_error *err);
/* Every step that does something, side by side. 0 or the first failure. */
int qsc_wave_run_steps(struct qsc_set *set, struct qsc_step *steps, const char *phase,
		       struct qsc_error *err);

/*
 * Members do not wait for one another in a wave, so where threads are short they move one after
 * another: slower, and nothing is left half-way for want of a thread.
 */
void qsc_wave_in_parallel(struct qsc_set *set, void (*task)(void *arg), void **args, size_t count);

/* Nothing is known of where members are, until they are asked. */
void qsc_wave_forget_states(struct qsc_set *set);

#endif
